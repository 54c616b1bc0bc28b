"""`exsearch world`: write the generated demo world."""

from __future__ import annotations

from typing import Annotated

import typer

from exsearch.cli import common


def main(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="Folder or URL to write into.")],
    seed: Annotated[int, typer.Option(help="Another seed, another world.")] = 0,
    warmup: Annotated[int, typer.Option(min=1, help="Warm-up questions.")] = 64,
    train: Annotated[int, typer.Option(min=1, help="Training questions.")] = 320,
    dev: Annotated[int, typer.Option(min=1, help="Development questions.")] = 64,
    test: Annotated[int, typer.Option(min=1, help="Test questions.")] = 128,
    as_json: common.JsonOption = False,
) -> None:
    """Write an invented encyclopedia and multi-hop questions about it.

    People, films, novels, companies, towns and rivers that do not exist: `corpus.jsonl`, and
    `warmup.jsonl`, `train.jsonl`, `dev.jsonl`, `test.jsonl`, which share no entities. The same
    seed and sizes give the same bytes.

    Example: `exsearch world demo/world --seed 1`
    """
    from exsearch.data.world import write_world

    lines = write_world(folder, seed, warmup=warmup, train=train, dev=dev, test=test)
    if as_json:
        common.print_json({"folder": folder, "seed": seed, "lines": lines})
        return
    for name, count in lines.items():
        common.console.print(f"{folder.rstrip('/')}/{name}: {count} lines", markup=False)
