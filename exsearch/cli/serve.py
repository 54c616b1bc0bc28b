"""`exsearch serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from exsearch.cli.common import ConfigOption, SetOption, console, settings


def main(
    run_folder: Annotated[
        str | None, typer.Option("--run", help="A run folder: its settings and its champion.")
    ] = None,
    config: ConfigOption = None,
    overrides: SetOption = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help="Model folder; the run's champion, else model.path."),
    ] = None,
    port: Annotated[int, typer.Option(help="Port to listen on.", min=1, max=65535)] = 8080,
    host: Annotated[
        str, typer.Option(help="Address to listen on; the default is this machine only.")
    ] = "127.0.0.1",
) -> None:
    """Serve the agent over HTTP until SIGTERM: OpenAI's chat completions, KServe's v1 and v2.

    With `--run RUN` the run's own settings, index and champion answer, and the retriever is
    started beside it; with `retrieval.url` a retriever elsewhere is used. The playground is at
    `/playground/`. Set the environment variable EXSEARCH_TOKEN to ask for a bearer token.

    Example: `exsearch serve --run runs/demo --port 8080`
    """
    from exsearch.em.session import model_of_run
    from exsearch.serving.logs import configure
    from exsearch.serving.server import serve

    if run_folder is not None:
        config = config or f"{run_folder}/run.yaml"
        overrides = [f"run={run_folder}", *(overrides or [])]
    run = settings(config, overrides)
    configure(run.serving.log_format)
    name = model or model_of_run(run)
    console.print(f"starting {name}; then http://{host}:{port}/playground/", markup=False)
    serve(run, name, host, port)
