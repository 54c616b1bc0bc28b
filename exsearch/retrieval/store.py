"""Passage texts beside the index: JSON lines and where each begins, memory-mapped.

A passage's row is its position in the corpus, which is what the index calls pid.
Only the pages that hold the passages asked for are ever read.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from exsearch import storage
from exsearch.errors import StorageError
from exsearch.records import Passage, parse_line
from exsearch.retrieval.files import load_array, save_array, writing

TEXTS = "passages.jsonl"
OFFSETS = "passages.offsets.npy"


def write_store(folder: Path, parts: Iterable[Path]) -> int:
    """Join JSON-lines files into the store; returns the number of passages.

    Raises:
        StorageError: a part is missing, or the disk is full.
    """
    starts = [np.zeros(1, np.int64)]
    written = 0
    with writing(folder / TEXTS) as out:
        for part in parts:
            with storage.explained(part, "read"):
                data = part.read_bytes()
            out.write(data)
            ends = np.flatnonzero(np.frombuffer(data, np.uint8) == ord("\n")) + 1
            starts.append(ends + written)
            written += len(data)
    offsets = np.concatenate(starts)
    save_array(folder / OFFSETS, offsets)
    return len(offsets) - 1


class PassageStore:
    """Read passages by row.

    Raises:
        StorageError: a file is missing, or text and offsets do not belong together.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / TEXTS
        self._offsets = load_array(folder / OFFSETS)
        with storage.explained(self.path, "read"), self.path.open("rb") as file:
            self._texts = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if int(self._offsets[-1]) != len(self._texts):
            raise StorageError(
                f"{self.path} has {len(self._texts)} bytes where {OFFSETS} expects "
                f"{int(self._offsets[-1])}. Build the index again."
            )

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: int) -> Passage:
        start, end = int(self._offsets[row]), int(self._offsets[row + 1])
        line = self._texts[start:end].decode("utf-8")
        return parse_line(Passage, line, str(self.path), row + 1)

    def close(self) -> None:
        self._texts.close()
