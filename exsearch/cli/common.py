"""What every command shares: settings, JSON output, exit codes.

`--json` prints one document on stdout; everything for people goes to stderr.
Exit codes: 0 done, 1 failed, 2 wrong usage or input, 130 interrupted.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from exsearch import config

LOG_WIDTH = 200
"""Characters of a line where nobody watches: a pod's log, a file. Paths stay whole there."""


def _width() -> int | None:
    """None: the terminal's, or what COLUMNS says."""
    watched = sys.stderr.isatty() or "COLUMNS" in os.environ
    return None if watched else LOG_WIDTH


console = Console(stderr=True, highlight=False, width=_width())
"""For people: progress, tables, notes. Always stderr."""

ConfigOption = Annotated[
    str | None, typer.Option("--config", "-c", help="YAML file with the run's settings.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", help="Override one setting: path.to.key=value. Repeatable."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done and what it takes; do nothing.")
]
SkipBadOption = Annotated[
    bool, typer.Option("--skip-bad", help="Count and report broken lines instead of stopping.")
]


def settings(path: str | None, overrides: list[str] | None, *more: str) -> config.RunConfig:
    """The run's settings: the file, then `--set`, then this command's own flags."""
    return config.load(path, [*(overrides or []), *more])


def print_json(value: object) -> None:
    """One document on stdout."""
    json.dump(value, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")
    sys.stdout.flush()
