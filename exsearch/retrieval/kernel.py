"""`plaid.cpp`, compiled once per machine and called through ctypes.

The source needs nothing but a C++ compiler (no torch headers, no ninja): two seconds
at first use, or when an image is built. The machine code chooses among AVX-512, AVX2
and plain at run time, so an image may run on another processor than it was made on.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from exsearch import storage
from exsearch.errors import InputError, StorageError

SOURCE = Path(__file__).with_name("plaid.cpp")
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-pthread", "-Wno-psabi")


class IndexView(ctypes.Structure):
    """`Index` of plaid.cpp: pointers into arrays that the caller keeps alive."""

    _fields_ = (
        ("centroids", ctypes.c_int64),
        ("passages", ctypes.c_int64),
        ("dim", ctypes.c_int32),
        ("nbits", ctypes.c_int32),
        ("centroid", ctypes.c_void_p),
        ("list_offsets", ctypes.c_void_p),
        ("lists", ctypes.c_void_p),
        ("offsets", ctypes.c_void_p),
        ("codes", ctypes.c_void_p),
        ("residuals", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
    )


class Settings(ctypes.Structure):
    """`Settings` of plaid.cpp."""

    _fields_ = (
        ("cells", ctypes.c_int32),
        ("docs", ctypes.c_int32),
        ("k", ctypes.c_int32),
        ("threads", ctypes.c_int32),
        ("threshold", ctypes.c_float),
    )


def cache_folder() -> Path:
    """`EXSEARCH_CACHE`, else `exsearch` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("EXSEARCH_CACHE") or f"{home}/exsearch")


@functools.cache
def library() -> ctypes.CDLL:
    """The compiled kernel.

    Raises:
        InputError: there is no C++ compiler.
        StorageError: the compiler failed, or the cache folder cannot be written.
    """
    source = SOURCE.read_bytes()
    name = storage.digest_bytes(source, " ".join(FLAGS).encode(), platform.machine().encode())
    path = cache_folder() / f"plaid-{name}.so"
    if not path.exists():
        _compile(path)
    loaded = ctypes.CDLL(str(path))
    loaded.plaid_search.restype = None
    return loaded


def _compile(path: Path) -> None:
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise InputError(
            "searching an index needs a C++ compiler once (g++ or clang++, e.g. `apt install g++`) "
            f"or a kernel that was compiled before, {path} (EXSEARCH_CACHE names the folder)"
        )
    with storage.explained(path, "write"):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".so")
        os.close(descriptor)
        try:
            subprocess.run(
                [compiler, *FLAGS, "-o", temporary, str(SOURCE)],
                check=True,
                capture_output=True,
                text=True,
            )
            os.chmod(temporary, 0o755)
            os.replace(temporary, path)
        except subprocess.CalledProcessError as error:
            raise StorageError(
                f"{compiler} could not compile {SOURCE.name}: {error.stderr[-1000:]}"
            ) from error
        finally:
            Path(temporary).unlink(missing_ok=True)
