"""`exsearch warmup`: make the warm-up set."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress

from exsearch.cli import common

if TYPE_CHECKING:
    from exsearch.config import RunConfig
    from exsearch.data.warmup import WarmupReport
    from exsearch.data.warmup_files import WarmupFiles
    from exsearch.records import Passage


def main(
    config: common.ConfigOption = None,
    overrides: common.SetOption = None,
    messages: Annotated[
        str | None,
        typer.Option("--messages", help="Import the authors' messages JSON instead."),
    ] = None,
    out: Annotated[
        str, typer.Option("--out", help="File to write, instead of the one under RUN/warmup.")
    ] = "",
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many; data.warmup_limit.")
    ] = None,
    skip_bad: common.SkipBadOption = False,
    dry_run: common.DryRunOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Make demonstrations from questions whose hops are known, with real retrieval.

    Reads the files in `data.warmup` (MuSiQue, HotpotQA, 2WikiMultihopQA, the demo world, …),
    searches each gold sub-query in the run's index, finds the supporting passage in the list,
    and writes `RUN/warmup/demonstrations.jsonl`. With `--messages`, brings in conversations
    that the authors of the method released, as `RUN/warmup/conversations.jsonl`.

    Example: `exsearch warmup --config run.yaml --limit 100`
    """
    from exsearch.data import warmup_files

    flags = [] if limit is None else [f"data.warmup_limit={limit}"]
    flags += ["data.skip_bad=true"] if skip_bad else []
    run = common.settings(config, overrides, *flags)
    if dry_run:
        _survey(run, messages, as_json)
        return
    report: WarmupReport | None = None
    if messages is not None:
        files = warmup_files.import_messages(run, messages, out)
    else:
        files, report = _synthesize(run, out)
    if as_json:
        common.print_json(files.document(report))
    _tell(files, report)


def _synthesize(run: RunConfig, out: str) -> tuple[WarmupFiles, WarmupReport]:
    from exsearch.data.warmup_files import synthesize
    from exsearch.retrieval import open_retriever

    with asyncio.Runner() as loop, Progress(console=common.console) as bars:
        retriever = open_retriever(run)
        bar = bars.add_task("demonstrations", total=None)

        def search(queries: list[str], k: int) -> list[list[Passage]]:
            return loop.run(retriever.search(queries, k))

        def progress(done: int, wanted: int) -> None:
            bars.update(bar, completed=done, total=wanted)

        try:
            return synthesize(run, search, out, progress=progress)
        finally:
            loop.run(retriever.close())


def _survey(run: RunConfig, messages: str | None, as_json: bool) -> None:
    from exsearch.data.messages import read_conversations
    from exsearch.data.warmup_files import WarmupFiles, survey

    if messages is not None:
        files = WarmupFiles(formats={messages: "messages"})
        bad = run.data.skip_bad
        count = sum(1 for _ in read_conversations(messages, skip_bad=bad, report=files.skipped))
        facts = {"conversations": count}
        line = f"would import {min(count, run.data.warmup_limit)} of {count} conversations"
    else:
        files, counts = survey(run)
        facts = {"questions_by_hops": dict(sorted(counts.items()))}
        known = sum(n for hops, n in counts.items() if hops)
        searches = sum(hops * n for hops, n in counts.items())
        line = (
            f"{known} of {counts.total()} questions have known hops; at most "
            f"{run.data.warmup_limit} demonstrations, at most {searches} searches"
        )
    if as_json:
        common.print_json(facts | {"formats": files.formats})
    common.console.print(line, markup=False)
    _tell(files, None)


def _tell(files: WarmupFiles, report: WarmupReport | None) -> None:
    """For people, on stderr."""
    for path, name in files.formats.items():
        common.console.print(f"{path}: read as {name}", markup=False)
    if files.skipped.total:
        common.console.print(files.skipped.summary(), markup=False)
    if report is not None:
        for title, counts in (
            ("hops", report.by_hops),
            ("gold passage told by", report.labels),
            ("dropped", report.dropped),
        ):
            told = ", ".join(f"{name}: {count}" for name, count in sorted(counts.items()))
            common.console.print(f"{title}: {told or 'none'}", markup=False)
    if files.path:
        common.console.print(f"wrote {files.written} to {files.path}", markup=False)
