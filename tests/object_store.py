"""An object store over a folder, known to fsspec as `folderstore://` in child processes too.

It has what S3 has and lacks what S3 lacks: files appear whole by upload, there is no rename,
no append and no empty folder. `serve_s3` starts a real S3 server where one is installed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

SCHEME = "folderstore"
TESTS = Path(__file__).parent


class FolderStore(LocalFileSystem):
    """Uploads, downloads, listings, removals; everything else is refused."""

    protocol = SCHEME

    @classmethod
    def _strip_protocol(cls, path: Any) -> str:
        return "/" + str(path).removeprefix(f"{SCHEME}://").strip("/")

    def unstrip_protocol(self, name: str) -> str:
        return f"{SCHEME}://{name}"

    def _open(self, path: str, mode: str = "rb", block_size: Any = None, **how: Any) -> Any:
        if mode != "rb":
            raise NotImplementedError(f"{mode}: objects are uploaded whole")
        return super()._open(path, mode, block_size, **how)

    def put_file(self, lpath: str, rpath: str, *_: Any, **__: Any) -> None:
        target = self._strip_protocol(rpath)
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        descriptor, partial = tempfile.mkstemp()
        os.close(descriptor)
        shutil.copyfile(lpath, partial)
        os.replace(partial, target)

    def pipe_file(self, path: str, value: bytes, *_: Any, **__: Any) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(value)
            file.flush()
            self.put_file(file.name, path)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        super().rm(path, recursive, maxdepth)
        folder = Path(self._strip_protocol(path)).parent
        with contextlib.suppress(OSError):
            while True:  # until one is not empty
                folder.rmdir()
                folder = folder.parent

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        pass

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        pass

    def mv(self, *_: Any, **__: Any) -> None:
        raise NotImplementedError("a store cannot rename")

    mv_file = mv


def register(folder: Path) -> str:
    """Make `folderstore` known here and to children; returns the PYTHONPATH that they need."""
    fsspec.register_implementation(SCHEME, FolderStore, clobber=True)
    info = folder / "folderstore-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: folderstore\nVersion: 0\n")
    (info / "entry_points.txt").write_text(
        f"[fsspec.specs]\n{SCHEME} = object_store:{FolderStore.__name__}\n"
    )
    parts = [str(TESTS), str(folder), os.environ.get("PYTHONPATH", "")]
    return os.pathsep.join(filter(None, parts))


def has_s3() -> bool:
    """Whether an S3 client and server are installed."""
    return all(importlib.util.find_spec(name) for name in ("s3fs", "moto"))


@contextlib.contextmanager
def serve_s3() -> Iterator[dict[str, str]]:
    """A real S3 server on 127.0.0.1; yields the environment that points clients at it."""
    from moto.server import ThreadedMotoServer  # pyright: ignore[reportMissingImports]

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        _, port = server.get_host_and_port()
        yield {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        }
    finally:
        server.stop()
