"""Files, wherever they are: local paths and `s3://`, `gs://`, … through fsspec.

Three promises the rest of the code leans on:

* a finished file appears whole or not at all (`write_atomic`);
* a log that is appended to survives kill -9 with at most its last line lost
  (`AppendLog`), on a local disk and on an object store alike;
* what made a file can be told from its digest (`digest_file`, `Lineage`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.core import url_to_fs

from exsearch.errors import StorageError


def is_remote(path: str | Path) -> bool:
    """True for URLs such as `s3://bucket/key`."""
    return "://" in str(path) and not str(path).startswith("file://")


def join(base: str | Path, *parts: str) -> str:
    """Join under a local path or URL."""
    return "/".join([str(base).rstrip("/"), *parts])


@contextlib.contextmanager
def explained(path: str | Path, doing: str) -> Iterator[None]:
    """Turn what a disk or a store refuses into a StorageError that names path and remedy."""
    remedy = (
        "Check the URL, that the store can be reached from here, and its credentials."
        if is_remote(path)
        else "Check that the path exists, that you may use it, and that the disk has room."
    )
    try:
        yield
    except _failures(path) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise StorageError(f"cannot {doing} {path}: {reason}. {remedy}") from error


def _failures(path: str | Path) -> tuple[type[Exception], ...]:
    """What a failed access raises: OSError, and what a URL's client does not turn into one."""
    if not is_remote(path):
        return (OSError,)
    raised = (getattr(sys.modules.get(module), name, None) for module, name in _CLIENT_ERRORS)
    return OSError, *(kind for kind in raised if kind is not None)


_CLIENT_ERRORS = (
    ("botocore.exceptions", "BotoCoreError"),
    ("aiohttp", "ClientError"),
    ("gcsfs.retry", "HttpError"),
    ("google.auth.exceptions", "GoogleAuthError"),
)
"""Base classes of errors that are no OSErrors, by module; asked for only where it is loaded."""


def filesystem(path: str | Path) -> tuple[Any, str]:
    """fsspec's file system for a path or URL, and the key in it.

    It remembers no listings: other pods write to the same store.

    Raises:
        StorageError: the URL's scheme is not known, or its client is not installed.
    """
    try:
        return url_to_fs(str(path), use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise StorageError(
            f"cannot reach {path}: {error}. Check the URL's beginning, and that exsearch is "
            "installed with the client for it (s3 or gcs)."
        ) from error


def exists(path: str | Path) -> bool:
    """Whether there is a file or folder.

    Raises:
        StorageError: the store cannot be reached.
    """
    fs, key = filesystem(path)
    with explained(path, "look for"):
        return bool(fs.exists(key))


def remove(path: str | Path) -> None:
    """Remove one file."""
    fs, key = filesystem(path)
    fs.rm_file(key)


def _open(path: str | Path, mode: str, **how: str) -> IO[Any]:
    filesystem(path)  # says what is wrong with a URL
    file: Any = fsspec.open(str(path), mode, **how)
    opened: IO[Any] = file.open()
    return opened


def open_text(path: str | Path) -> IO[str]:
    """Open for reading, UTF-8; `.gz`, `.bz2`, `.xz` and `.zst` are unpacked on the way.

    Raises:
        StorageError: missing or unreadable.
    """
    with explained(path, "read"):
        return _open(path, "rt", encoding="utf-8", compression="infer")


def read_text(path: str | Path) -> str:
    with open_text(path) as file:
        return file.read()


def read_json(path: str | Path) -> Any:
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise StorageError(f"{path} is not JSON: {error}. Remove it and rerun the step.") from error


def write_atomic(path: str | Path, data: str | bytes | Iterable[str]) -> None:
    """Write the whole file or nothing: a temporary neighbour, fsync, rename.

    Args:
        data: the file's content; an iterable of texts is written as it comes.

    Raises:
        StorageError: the disk is full or the folder cannot be written; `path` is as it was.
    """
    pieces = [data] if isinstance(data, str | bytes) else data
    payload = (piece.encode() if isinstance(piece, str) else piece for piece in pieces)
    with explained(path, "write"):
        if is_remote(path):
            _upload_whole(path, payload)
            return
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.writelines(payload)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o644)
            os.replace(temporary, target)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        sync_folder(target.parent)


def _upload_whole(path: str | Path, payload: Iterable[bytes]) -> None:
    """Write to a store by way of a local file: an upload that is broken off would be published."""
    fs, key = filesystem(path)
    with tempfile.NamedTemporaryFile() as file:
        file.writelines(payload)
        file.flush()
        fs.put_file(file.name, key)


def write_json(path: str | Path, value: object) -> None:
    write_atomic(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_space(folder: str | Path, needed: int, purpose: str) -> None:
    """Refuse a long step before it starts when the disk cannot hold its result.

    Raises:
        StorageError: fewer than `needed` bytes are free where `folder` is or would be.
    """
    if is_remote(folder):
        return
    place = Path(folder).absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise StorageError(
            f"{folder} has {free / 1e9:.2f} GB free; {purpose} needs about {needed / 1e9:.2f} GB. "
            "Free some space or choose another folder."
        )


def digest_bytes(*parts: bytes) -> str:
    """sha256 of the parts, each preceded by its length, as 16 hex digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()[:16]


def digest_file(path: str | Path) -> str:
    """sha256 of a file's bytes, as 16 hex digits."""
    digest = hashlib.sha256()
    with explained(path, "read"), _open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def identity(path: str | Path) -> str:
    """A token that changes when the file does, without reading it: fsspec's `ukey`.

    Locally it is made of name, size and time of change; on object stores of the ETag.

    Raises:
        StorageError: there is no such file.
    """
    with explained(path, "read"):
        fs, key = filesystem(path)
        return str(fs.ukey(key))


class AppendLog:
    """A JSON-lines file in the making: append, be killed, reopen, go on, finish.

    Locally the lines go to `PATH.partial`, each fsynced, and a line cut short by
    a kill is dropped when the log is opened again. On an object store, which
    cannot append, each append is an object under `PATH.parts/`. `finish` makes
    `PATH` appear whole and removes what it was made from.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.remote = is_remote(path)
        self.finished = exists(path)
        self._count = 0
        self._file: IO[bytes] | None = None
        self._one_at_a_time = threading.Lock()
        if self.finished:
            return
        with explained(path, "append to"):
            if self.remote:
                self._fs, self._key = filesystem(f"{path}.parts")
                self._count = len(self._parts())
            else:
                partial = Path(f"{path}.partial")
                partial.parent.mkdir(parents=True, exist_ok=True)
                # Unbuffered: what a full disk refused must not linger and be written later.
                self._file = partial.open("a+b", buffering=0)
                self._drop_torn_line(self._file)

    @staticmethod
    def _drop_torn_line(file: IO[bytes]) -> None:
        end = size = file.seek(0, os.SEEK_END)
        whole = 0
        while end and not whole:
            start = max(0, end - (1 << 20))
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            whole = start + newline + 1 if newline >= 0 else 0
            end = start
        if whole != size:
            file.truncate(whole)
        file.seek(0, os.SEEK_END)

    def _parts(self) -> list[str]:
        if not self._fs.exists(self._key):
            return []
        return sorted(str(name) for name in self._fs.ls(self._key, detail=False))

    def lines(self) -> Iterator[str]:
        """What has been appended so far (or the finished file's lines)."""
        if self.finished:
            with open_text(self.path) as file:
                yield from file
        elif self.remote:
            for name in self._parts():
                yield self._fs.cat_file(name).decode()
        else:
            with open_text(f"{self.path}.partial") as file:
                yield from file

    def append(self, *lines: str) -> None:
        """Add lines as one unit: after a return they are on disk. Threads take turns.

        Raises:
            StorageError: the disk is full; what was appended before is untouched.
        """
        payload = "".join(f"{line}\n" for line in lines).encode()
        with self._one_at_a_time, explained(self.path, "append to"):
            if self.remote:
                self._fs.pipe_file(f"{self._key}/{self._count:08d}.jsonl", payload)
                self._count += 1
                return
            assert self._file is not None, "the log is closed"
            start = self._file.seek(0, os.SEEK_END)
            left = memoryview(payload)
            try:
                while left:
                    left = left[self._file.write(left) :]
                os.fsync(self._file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._file.fileno(), start)
                raise

    def finish(self, lines: Iterable[str]) -> None:
        """Publish the file under its own name, holding `lines`: what was appended, in order."""
        if self.finished:
            return
        write_atomic(self.path, (f"{line}\n" for line in lines))
        with explained(self.path, "finish"):
            self.close()
            if not self.remote:
                Path(f"{self.path}.partial").unlink(missing_ok=True)
            elif self._fs.exists(self._key):
                self._fs.rm(self._key, recursive=True)
        self.finished = True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class Lineage:
    """Which step of a run made what, from what, when.

    Each step has a file of its own, `RUN/lineage/STEP.json`, so that the shards of one
    run may end at the same moment on different machines. `RUN/lineage.json` is all of
    them in the order in which they ended, made anew whenever one does.

    An entry: `{"fingerprint": digest of inputs and settings, "finished": seconds since the
    epoch, "seconds": how long it took, "inputs": {…}, "outputs": {…}}`. A step whose
    entry has the same fingerprint need not run again.
    """

    def __init__(self, run: str) -> None:
        self._run = run
        self.entries: dict[str, dict[str, Any]] = self._read()

    def path(self, step: str) -> str:
        """The file of one step's entry."""
        return join(self._run, "lineage", f"{step.replace('/', '.')}.json")

    def done(self, step: str, fingerprint: str) -> bool:
        """True when `step` finished with this very fingerprint of inputs and settings."""
        entry = self.entries.get(step)
        return entry is not None and entry.get("fingerprint") == fingerprint

    def record(self, step: str, fingerprint: str, seconds: float, **facts: Any) -> None:
        """Note that `step` finished; written at once."""
        entry = {
            "step": step,
            "fingerprint": fingerprint,
            "finished": round(time.time(), 3),
            "seconds": round(seconds, 3),
            **facts,
        }
        write_json(self.path(step), entry)
        self.entries = self._read()
        write_json(join(self._run, "lineage.json"), self.entries)

    def _read(self) -> dict[str, dict[str, Any]]:
        folder = join(self._run, "lineage")
        with explained(folder, "read"):
            fs, key = filesystem(folder)
            names = fs.glob(f"{key}/*.json") if fs.exists(key) else []
        read = [read_json(join(folder, str(name).rpartition("/")[2])) for name in names]
        return {e.pop("step"): e for e in sorted(read, key=lambda e: e["finished"])}
