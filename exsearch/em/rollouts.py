"""Rollout shards on disk: which questions a shard holds, and reading them back whole."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from fsspec.core import url_to_fs

from exsearch.errors import InputError
from exsearch.records import Question, Trajectory, read_records
from exsearch.storage import open_text

_SHARD = re.compile(r"shard-(\d{3,})-of-(\d{3,})\.jsonl$")


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n` as (i, n), 0 ≤ i < n.

    Raises:
        InputError: it is something else.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or int(match[1]) >= int(match[2]):
        raise InputError(f"--shard {text!r} is not i/n with 0 <= i < n, for example 0/4")
    return int(match[1]), int(match[2])


def of_shard(questions: Sequence[Question], index: int, count: int) -> list[Question]:
    """Every `count`-th question from `index` on: shards of equal size and mixture."""
    return list(questions[index::count])


def shard_files(folder: str) -> list[str]:
    """The finished shards in a rollouts folder, in order.

    Raises:
        InputError: there are none, or some are missing.
    """
    fs, key = url_to_fs(folder)
    names = sorted(str(n) for n in fs.ls(key, detail=False)) if fs.exists(key) else []
    found = {name: match for name in names if (match := _SHARD.search(name))}
    if not found:
        raise InputError(f"{folder} holds no finished rollout shard; run `exsearch rollout` first")
    counts = {int(match[2]) for match in found.values()}
    present = {int(match[1]) for match in found.values()}
    if len(counts) > 1:
        raise InputError(f"{folder} mixes shards of {sorted(counts)}; remove those that are stale")
    missing = set(range(counts.pop())) - present
    if missing:
        raise InputError(f"{folder} lacks shards {sorted(missing)}; finish their rollouts first")
    return [fs.unstrip_protocol(name) if "://" in folder else name for name in found]


def read_groups(files: Sequence[str]) -> Iterator[list[Trajectory]]:
    """All samples of one question at a time, streamed.

    Raises:
        InputError: a question's samples are apart, or their numbers have gaps.
        BadLine: a line is no trajectory.
    """
    seen: set[str] = set()
    for path in files:
        with open_text(path) as lines:
            records = read_records(Trajectory, lines, path)
            for name, group in itertools.groupby(records, key=lambda t: t.question_id):
                samples = sorted(group, key=lambda t: t.sample)
                if name in seen or [t.sample for t in samples] != list(range(len(samples))):
                    raise InputError(
                        f"{path}: the samples of question {name!r} are not together and "
                        "numbered 0..K-1; weights need all of them at once"
                    )
                seen.add(name)
                yield samples
