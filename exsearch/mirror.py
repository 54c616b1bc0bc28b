"""A local folder whose truth is at a URL.

Memory maps, a trainer's checkpoints and model files want a disk, and a pod's disk ends with
the pod. So work is done in a scratch folder, and every finished piece is sent to the store at
once; whoever goes on with the work, on whatever machine, begins with what the store has.
A store can neither rename nor append: a set of files counts as whole once its last one is
there, which is sent after the others have arrived.

    with Mirror("s3://bucket/runs/weekly/index.partial").opened() as work:
        work.fetch("plan.json")
        ...                              # write files in work.folder
        work.send("shards/00007.npy", "shards/00007.json")

On a local path a `Mirror` is that folder itself, and nothing is fetched or sent: the code
that uses it has one way only.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from exsearch.errors import InputError, StorageError
from exsearch.storage import (
    digest_bytes,
    explained,
    filesystem,
    is_remote,
    join,
    read_text,
    require_space,
)

SCRATCH = "EXSEARCH_SCRATCH"
"""Environment variable with the folder for local copies."""

PATIENCE = 60.0
"""Seconds that a folder's former user, killed perhaps a moment ago, gets to be gone."""

_CHANGES = ("ETag", "etag", "md5Hash", "mtime", "created", "LastModified", "updated")
"""Fields of fsspec's file facts that change with the content, the surest first."""


def scratch() -> Path:
    """The folder for local copies: `$EXSEARCH_SCRATCH`, else this user's own in the temporary one.

    Raises:
        StorageError: it cannot be made, or belongs to somebody else.
    """
    folder = Path(os.environ.get(SCRATCH) or f"{tempfile.gettempdir()}/exsearch-{os.getuid()}")
    with explained(folder, "make"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = folder.stat().st_uid
    if owner != os.getuid():
        raise StorageError(f"{folder} belongs to user {owner}. Set {SCRATCH} to a folder of yours.")
    return folder


class Mirror:
    """A folder at a path or URL, worked on locally.

    Args:
        place: path or URL.
        part: tells apart those who work on the same URL at once; processes of one machine
            that name the same part share the local folder.
    """

    def __init__(self, place: str | Path, part: str = "") -> None:
        self.place = str(place).rstrip("/")
        self.remote = is_remote(place)
        if self.remote:
            self.folder = scratch() / digest_bytes(self.place.encode(), part.encode())
        else:
            self.folder = Path(place).absolute()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Mirror]:
        """Begin with an empty local copy, which nobody else uses, and remove it at the end.

        Raises:
            StorageError: a running process works in it.
        """
        if not self.remote:
            yield self
            return
        with _locked(self.folder.with_suffix(".lock"), PATIENCE):
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir()
            try:
                yield self
            finally:
                shutil.rmtree(self.folder, ignore_errors=True)

    def names(self, pattern: str) -> list[str]:
        """Files that the truth has, relative to the folder, ascending.

        Args:
            pattern: of a file's name, `*` for any part of it: `shards/*.json`.
        """
        if not self.remote:
            return sorted(str(p.relative_to(self.folder)) for p in self.folder.glob(pattern))
        fs, key = filesystem(self.place)
        return list(_files(fs, key, self.place, pattern))

    def has(self, name: str) -> bool:
        """Whether the truth has this file."""
        return name in self.names(name)

    def read(self, name: str) -> str:
        """A small file's text, empty where there is none."""
        return read_text(join(self.place, name)) if self.has(name) else ""

    def fetch(self, *names: str) -> None:
        """Bring files here, all at once; what is nowhere is passed over.

        Args:
            names: of files, of folders (all that is in them), or patterns of files' names.
                What is here already is not fetched again.

        Raises:
            StorageError: the store cannot be reached, or there is no room.
        """
        if not self.remote:
            return
        fs, key = filesystem(self.place)
        wanted: dict[Path, dict[str, Any]] = {}
        for name in names:
            found = _files(fs, key, self.place, name)
            wanted |= {self.folder / file: fact for file, fact in found.items()}
        _bring(fs, wanted, self.place, self.folder)

    def send(self, *names: str) -> None:
        """Make files, or all of a folder, part of the truth: each whole before the next begins.

        Raises:
            StorageError: the store cannot be reached or does not take it.
        """
        if not self.remote:
            return
        for name in names:
            _upload(self.folder / name, join(self.place, name))

    def replace(self, name: str, last: str) -> None:
        """Replace a folder of the truth by the one here, its file `last` after all others."""
        if self.remote:
            publish(self.folder / name, join(self.place, name), last)

    def remove(self, name: str = "") -> None:
        """Remove a file or folder, or everything, from the truth and from here."""
        local = self.folder / name
        if local.is_dir():
            shutil.rmtree(local, ignore_errors=True)
        else:
            local.unlink(missing_ok=True)
        if self.remote:
            _remove(join(self.place, name) if name else self.place)

    def forget(self, *names: str) -> None:
        """Delete local copies of files that the truth has."""
        if self.remote:
            for name in names:
                (self.folder / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def borrowed(self, name: str) -> Iterator[Path]:
        """A file, here only while it is used where it has to be fetched for that."""
        there = (self.folder / name).exists()
        self.fetch(name)
        yield self.folder / name
        if not there:
            self.forget(name)


def publish(folder: Path, url: str, last: str) -> None:
    """Replace what is at `url` by a local folder's files, `last` after all others.

    What was there before loses that file first: nobody takes the old and new together for
    one whole.

    Raises:
        StorageError: the store cannot be reached or does not take it.
    """
    _remove(join(url, last))
    _remove(url)
    mark = folder / last
    for path in sorted(folder.iterdir()):
        if path != mark:
            _upload(path, join(url, path.name))
    _upload(mark, join(url, last))


def local(path: str) -> str:
    """A path as it is; for a URL, the path of a local copy of that file or folder.

    The copy is made once for each content, however many processes of this machine ask, and
    is kept in the scratch folder.

    Raises:
        InputError: there is nothing at the URL.
        StorageError: it cannot be read, or there is no room for the copy.
    """
    if not is_remote(path):
        return path
    above, _, name = path.rstrip("/").rpartition("/")
    fs, key = filesystem(above)
    facts = _files(fs, key, path, name)
    if not facts:
        raise InputError(f"there is nothing at {path}")
    known = [f"{file} {fact['size']} {_change(fact)}".encode() for file, fact in facts.items()]
    copies = scratch() / "copies"
    copies.mkdir(exist_ok=True)
    kept = copies / digest_bytes(path.rstrip("/").encode(), *known)
    if not kept.exists():
        with _locked(kept.with_suffix(".lock"), None):
            if not kept.exists():
                partial = kept.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                _bring(fs, {partial / file: fact for file, fact in facts.items()}, path, partial)
                os.replace(partial, kept)
    return str(kept / name)


@contextlib.contextmanager
def _locked(path: Path, patience: float | None) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends."""
    with explained(path, "lock"), path.open("w") as file:
        begun = time.monotonic()
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if patience is not None and time.monotonic() - begun > patience:
                    raise StorageError(
                        f"another process works in {path.with_suffix('')}. Let it end, or set "
                        f"{SCRATCH} to another folder."
                    ) from None
                time.sleep(0.2)
        yield


def _files(fs: Any, key: str, url: str, name: str) -> dict[str, dict[str, Any]]:
    """Facts of the files that a name or pattern below `key` means, by their paths below it."""
    with explained(url, "list"):
        look = fs.glob if "*" in name else fs.find
        found: dict[str, dict[str, Any]] = look(f"{key}/{name}", detail=True)
    start = len(str(fs._strip_protocol(key)).rstrip("/")) + 1
    return {full[start:]: fact for full, fact in sorted(found.items()) if fact["type"] == "file"}


def _change(fact: dict[str, Any]) -> str:
    return next((str(fact[name]) for name in _CHANGES if fact.get(name)), "")


def _bring(fs: Any, wanted: dict[Path, dict[str, Any]], url: str, folder: Path) -> None:
    """Download what is not here yet; each file appears under its name when it is whole."""
    missing = {place: fact for place, fact in wanted.items() if not place.exists()}
    if not missing:
        return
    require_space(folder, sum(fact["size"] for fact in missing.values()), f"a copy of {url}")
    coming = [place.with_name(f".{place.name}.coming") for place in missing]
    with explained(url, "fetch"):
        for place in coming:
            place.parent.mkdir(parents=True, exist_ok=True)
        fs.get([fact["name"] for fact in missing.values()], [str(place) for place in coming])
        for came, (place, fact) in zip(coming, missing.items(), strict=True):
            if came.stat().st_size != fact["size"]:
                raise StorageError(
                    f"{fact['name']} came with {came.stat().st_size} of {fact['size']} bytes: "
                    "rerun the step"
                )
            os.replace(came, place)


def _upload(source: Path, url: str) -> None:
    """Copy a file, or all files of a folder, to a URL; hidden ones are work in progress."""
    fs, key = filesystem(url)
    files = sorted(p for p in source.rglob("*") if p.is_file()) if source.is_dir() else [source]
    pairs = [
        (str(file), f"{key}/{file.relative_to(source).as_posix()}" if file != source else key)
        for file in files
        if not file.name.startswith(".")
    ]
    with explained(url, "upload to"):
        if pairs:
            fs.put([here for here, _ in pairs], [there for _, there in pairs])


def _remove(url: str) -> None:
    fs, key = filesystem(url)
    with explained(url, "remove"), contextlib.suppress(FileNotFoundError):
        fs.rm(key, recursive=True)
