"""Checkpoints to resume from.

The Trainer writes a checkpoint file by file; one that a kill cut short looks almost
like a whole one. So each gets a mark once every process has finished its part, only
marked ones are resumed from, and older ones go only after a newer one is marked.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from exsearch import storage

MARK = "whole"
"""Name of the file that says that every process has finished its part."""
OWNER = "fingerprint"
"""Name of the file that says whose checkpoints they are."""


def prepare(folder: Path, fingerprint: str, *, resume: bool) -> None:
    """Keep the checkpoints of this very job, and no others."""
    owner = folder / OWNER
    same = owner.is_file() and owner.read_text() == fingerprint
    if not (resume and same):
        with storage.explained(folder, "clear"):
            if folder.exists():
                shutil.rmtree(folder)
        storage.write_atomic(owner, fingerprint)


def _number(folder: Path) -> int:
    return int(folder.name.rpartition("-")[2])


def newest(folder: Path) -> Path | None:
    """The whole checkpoint that is furthest on."""
    whole = [path.parent for path in folder.glob(f"checkpoint-*/{MARK}")]
    return max(whole, key=_number, default=None)


def steps_of(checkpoint: Path | None) -> int:
    """Optimizer steps done when it was written."""
    return 0 if checkpoint is None else _number(checkpoint)


def mark(checkpoint: Path) -> None:
    """Declare a checkpoint whole and remove all others."""
    storage.write_atomic(checkpoint / MARK, "")
    for other in checkpoint.parent.glob("checkpoint-*"):
        if other != checkpoint:
            shutil.rmtree(other)


def bytes_needed(parameters: int, itemsize: int) -> int:
    """Disk for a run, an upper bound: two checkpoints to resume from (weights and AdamW's
    two moments in float32, held twice while the newer replaces the older) and the result.
    """
    return parameters * (2 * 3 * 4 + itemsize)
