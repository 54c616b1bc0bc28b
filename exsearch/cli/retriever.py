"""`exsearch retriever`."""

from __future__ import annotations

from typing import Annotated

import typer

from exsearch.cli.common import ConfigOption, SetOption, settings


def main(
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8893,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is this machine only.")
    ] = "127.0.0.1",
    config: ConfigOption = None,
    overrides: SetOption = None,
    folder: Annotated[
        str, typer.Option("--index", help="Index folder; default: retrieval.index or RUN/index.")
    ] = "",
) -> None:
    """Serve an index over HTTP until SIGTERM.

    Speaks `POST /search`, ColBERT's `GET /api/search`, Search-R1's `POST /retrieve`,
    and `/healthz`, `/readyz`, `/metrics`, `/version`.

    Example: `exsearch retriever --index runs/wiki/index --port 8893`
    """
    from exsearch import storage
    from exsearch.retrieval.service import serve_folder

    run = settings(config, overrides)
    target = folder or run.retrieval.index or storage.join(run.run, "index")
    serve_folder(target, run.retrieval.checkpoint or None, host, port)
