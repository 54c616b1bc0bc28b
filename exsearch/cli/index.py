"""`exsearch index`."""

from __future__ import annotations

from typing import Annotated

import typer

from exsearch.cli.common import (
    ConfigOption,
    DryRunOption,
    JsonOption,
    SetOption,
    SkipBadOption,
    console,
    print_json,
    settings,
)


def main(
    config: ConfigOption = None,
    overrides: SetOption = None,
    corpus: Annotated[
        str, typer.Option(help="Corpus file; default: data.corpus of the settings.")
    ] = "",
    folder: Annotated[
        str, typer.Option("--index", help="Index folder; default: retrieval.index or RUN/index.")
    ] = "",
    dry_run: DryRunOption = False,
    passages: Annotated[
        int | None,
        typer.Option(help="With --dry-run: estimate for so many passages like the corpus's."),
    ] = None,
    sample: Annotated[int, typer.Option(help="With --dry-run: encode so many passages.")] = 128,
    shard: Annotated[
        str, typer.Option(help="I/N: encode every N-th shard from the I-th (from 0), no more.")
    ] = "",
    merge: Annotated[
        bool, typer.Option("--merge", help="Make the index from shards that --shard encoded.")
    ] = False,
    skip_bad: SkipBadOption = False,
    as_json: JsonOption = False,
) -> None:
    """Build a ColBERT index over a corpus, or estimate what it takes.

    A build that was stopped goes on where it was. `--dry-run` encodes a sample and says
    how long the whole will take, how much disk and how much memory.

    Example: `exsearch index --corpus psgs_w100.tsv.gz --index runs/wiki/index --dry-run`
    """
    from exsearch import storage
    from exsearch.errors import InputError
    from exsearch.retrieval import build_index, encode_part, estimate
    from exsearch.retrieval import merge as merge_shards
    from exsearch.retrieval.index import CorpusFile, parse_part
    from exsearch.retrieval.tables import estimate_table, index_table

    run = settings(config, overrides)
    source = corpus or run.data.corpus
    target = folder or run.retrieval.index or storage.join(run.run, "index")
    if merge:
        info = merge_shards(target, run.retrieval)
        print_json(info.model_dump()) if as_json else console.print(index_table(info, target))
        return
    if not source:
        raise InputError("no corpus: give --corpus FILE or set data.corpus")
    file = CorpusFile(source, skip_bad or run.data.skip_bad)
    if dry_run:
        found = estimate(file, run.retrieval, passages=passages, sample=sample)
        print_json(found.as_dict()) if as_json else console.print(estimate_table(found))
    elif shard:
        count = encode_part(file, target, run.retrieval, parse_part(shard))
        print_json({"encoded": count}) if as_json else console.print(f"encoded {count} shards")
    else:
        info = build_index(file, target, run.retrieval)
        print_json(info.model_dump()) if as_json else console.print(index_table(info, target))
    if file.skipped.total:
        console.print(file.skipped.summary(), markup=False)
