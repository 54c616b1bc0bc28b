"""An evaluation on disk: a folder with `judgements.jsonl`, `trajectories.jsonl`, `summary.json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from exsearch.errors import InputError
from exsearch.evaluation.judgement import Judgement
from exsearch.evaluation.summary import Summary
from exsearch.records import Record, Trajectory, read_records
from exsearch.storage import exists, join, open_text, read_json, write_atomic, write_json

JUDGEMENTS, TRAJECTORIES, SUMMARY = "judgements.jsonl", "trajectories.jsonl", "summary.json"

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation folder holds."""

    folder: str
    judgements: tuple[Judgement, ...]
    summary: Summary | None

    @property
    def name(self) -> str:
        """The stage's name, or the folder's where there is no summary."""
        return self.summary.name if self.summary else self.folder

    def trajectories(self) -> Iterator[Trajectory]:
        """The episodes behind the judgements, one at a time; nothing where none were kept."""
        return read_jsonl(Trajectory, join(self.folder, TRAJECTORIES))


def save_evaluation(
    folder: str | Path,
    judgements: Iterable[Judgement],
    summary: Summary,
    trajectories: Sequence[Trajectory] | None = None,
) -> None:
    """Write the folder's files, the summary last: where it is, all is there.

    `trajectories` None leaves `trajectories.jsonl` as it is (it may have been
    written during the episodes).

    Raises:
        StorageError: the folder cannot be written.
    """
    if trajectories is not None:
        write_jsonl(join(folder, TRAJECTORIES), trajectories)
    write_jsonl(join(folder, JUDGEMENTS), judgements)
    write_json(join(folder, SUMMARY), summary.model_dump(mode="json"))


def load_evaluation(folder: str | Path) -> Evaluation:
    """Read an evaluation folder; a missing `summary.json` is no error.

    Raises:
        InputError: the folder has no judgements, or a file does not hold what it should.
    """
    path = join(folder, JUDGEMENTS)
    if not exists(path):
        raise InputError(
            f"{folder} is no evaluation: it has no {JUDGEMENTS}. "
            "Give the folder that `exsearch evaluate --out` wrote."
        )
    return Evaluation(
        folder=str(folder),
        judgements=tuple(read_jsonl(Judgement, path)),
        summary=read_summary(folder),
    )


def read_summary(folder: str | Path) -> Summary | None:
    """The folder's summary, None where there is none.

    Raises:
        InputError: it is not a summary.
    """
    path = join(folder, SUMMARY)
    if not exists(path):
        return None
    try:
        return Summary.model_validate_json(json.dumps(read_json(path)))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}, field '{field}': {first['msg']}. Evaluate again.") from error


def read_jsonl(model: type[R], path: str) -> Iterator[R]:
    """Records of a file, streamed; nothing where there is no such file.

    Raises:
        BadLine: at the first line that is no such record.
    """
    if not exists(path):
        return
    with open_text(path) as file:
        yield from read_records(model, file, path)


def write_jsonl(path: str, records: Iterable[Record]) -> None:
    """One record per line; the file appears whole or not at all."""
    write_atomic(path, "".join(f"{record.to_line()}\n" for record in records))
