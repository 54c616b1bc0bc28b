"""Large files that appear whole or not at all, and a folder that does."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from exsearch import storage
from exsearch.errors import StorageError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[IO[bytes]]:
    """A file to fill; under its own name only once it is whole and on disk.

    Unlike `storage.write_atomic` the content need not fit in memory.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    with storage.explained(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        storage.sync_folder(path.parent)


def save_array(path: Path, array: npt.NDArray[np.generic]) -> None:
    """Write a `.npy` file whole or not at all."""
    with writing(path) as file:
        np.save(file, array, allow_pickle=False)


def load_array(path: Path) -> npt.NDArray[np.generic]:
    """Open a `.npy` file memory-mapped, read-only; nothing is ever unpickled.

    Raises:
        StorageError: missing, unreadable or no plain array.
    """
    with storage.explained(path, "read"):
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as error:
            raise StorageError(f"{path} is damaged: {error}. Build the index again.") from error


def remove_leftovers(folder: Path) -> None:
    """Delete half-written temporaries that a killed process left in `folder`."""
    for path in folder.glob(".*"):
        if path.is_file():
            path.unlink(missing_ok=True)
