"""`exsearch search`."""

from __future__ import annotations

from typing import Annotated

import typer

from exsearch.cli.common import ConfigOption, JsonOption, SetOption, print_json, settings


def main(
    text: Annotated[str, typer.Argument(help="What to look for.")],
    k: Annotated[int, typer.Option("-k", "--top", min=1, help="How many passages.")] = 5,
    config: ConfigOption = None,
    overrides: SetOption = None,
    folder: Annotated[
        str, typer.Option("--index", help="Index folder; default: retrieval.index or RUN/index.")
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Search an index (or the service at retrieval.url) and print what it finds.

    Example: `exsearch search "river through Cairo" -k 3 --index runs/wiki/index`
    """
    import asyncio
    import json

    from rich.console import Console

    from exsearch.retrieval import open_retriever
    from exsearch.retrieval.retriever import search_once
    from exsearch.retrieval.tables import results_table

    more = [f"retrieval.index={json.dumps(folder)}", "retrieval.url=''"] if folder else []
    retriever = open_retriever(settings(config, overrides, *more))
    found = asyncio.run(search_once(retriever, text, k))
    if as_json:
        print_json({"query": text, "passages": [passage.model_dump() for passage in found]})
    else:
        Console(highlight=False).print(results_table(text, found))
