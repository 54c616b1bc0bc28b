"""Rank passages for query vectors, on a memory-mapped PLAID index.

How wide to search for a given k (cells per query vector, pruning threshold, passages
kept before the exact scores) is as in colbert-ai's `Searcher.dense_search`.
"""

from __future__ import annotations

import ctypes
import os
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from exsearch import storage
from exsearch.errors import StorageError
from exsearch.retrieval import kernel
from exsearch.retrieval.info import IndexInfo


def breadth(k: int) -> tuple[int, float, int]:
    """(cells per query vector, pruning threshold, passages kept) for the k best."""
    if k <= 10:
        return 1, 0.5, 256
    if k <= 100:
        return 2, 0.45, 1024
    return 4, 0.4, max(4 * k, 4096)


class Ranker:
    """An index, mapped. Stateless after opening: any thread may rank.

    Raises:
        StorageError: a file is missing, damaged, or does not fit the others.
    """

    def __init__(self, folder: Path, info: IndexInfo, threads: int) -> None:
        self._threads = threads
        self._library = kernel.library()
        centroids = _tensor(folder / "centroids.pt").float().numpy()
        lists, counts = _tensors(folder / "ivf.pid.pt")
        _, weights = _tensors(folder / "buckets.pt")
        codes = _tensor(folder / "0.codes.pt")
        residuals = _tensor(folder / "0.residuals.pt")
        lengths = np.array(storage.read_json(folder / "doclens.0.json"), np.int64)
        self._dim = centroids.shape[1]
        # Kept as attributes: the kernel holds bare pointers into them.
        self._arrays = (
            np.ascontiguousarray(centroids),
            _starts(counts.numpy()),
            lists.numpy(),
            _starts(lengths),
            codes.numpy(),
            residuals.numpy(),
            residual_table(weights.numpy(), info.nbits),
        )
        vectors = int(lengths.sum())
        if not (
            len(codes) == len(residuals) == vectors == info.vectors
            and len(lengths) == info.passages
            and len(counts) == len(centroids) == info.centroids
            and residuals.shape[1] == self._dim * info.nbits // 8
        ):
            raise StorageError(
                f"the files of {folder} do not belong together. Build the index again."
            )
        self._view = kernel.IndexView(
            len(centroids),
            len(lengths),
            self._dim,
            info.nbits,
            *(array.ctypes.data for array in self._arrays),
        )

    def rank(self, queries: npt.NDArray[np.float32], k: int) -> list[list[tuple[int, float]]]:
        """The k best (row, score) of each query, best first.

        Args:
            queries: [queries, vectors, dim].
        """
        queries = np.ascontiguousarray(queries, np.float32)
        count, vectors, dim = queries.shape
        assert dim == self._dim
        cells, threshold, kept = breadth(k)
        most = min(k, self._view.passages)
        settings = kernel.Settings(cells, kept, most, self._threads, threshold)
        rows = np.zeros((count, most), np.int32)
        scores = np.zeros((count, most), np.float32)
        found = np.zeros(count, np.int32)
        self._library.plaid_search(
            ctypes.byref(self._view),
            ctypes.byref(settings),
            ctypes.c_void_p(queries.ctypes.data),
            ctypes.c_int32(count),
            ctypes.c_int32(vectors),
            ctypes.c_void_p(rows.ctypes.data),
            ctypes.c_void_p(scores.ctypes.data),
            ctypes.c_void_p(found.ctypes.data),
        )
        return [
            list(zip(rows[i, :n].tolist(), scores[i, :n].tolist(), strict=True))
            for i, n in enumerate(found.tolist())
        ]


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def residual_table(weights: npt.NDArray[np.float32], nbits: int) -> npt.NDArray[np.float32]:
    """What each packed byte stands for, [256, 8 / nbits].

    Within a byte the first dimension is in the highest bits, and each bucket's own
    bits come lowest first.
    """
    table = np.zeros((256, 8 // nbits), np.float32)
    for buckets in product(range(2**nbits), repeat=8 // nbits):
        bits = [bucket >> b & 1 for bucket in buckets for b in range(nbits)]
        byte = int("".join(map(str, bits)), 2)
        table[byte] = weights[list(buckets)]
    return table


def _starts(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _tensors(path: Path) -> tuple[torch.Tensor, torch.Tensor]:
    loaded = _load(path)
    if not (isinstance(loaded, tuple) and len(loaded) == 2):
        raise StorageError(f"{path} does not hold two tensors. Build the index again.")
    return loaded


def _tensor(path: Path) -> torch.Tensor:
    loaded = _load(path)
    if not isinstance(loaded, torch.Tensor):
        raise StorageError(f"{path} does not hold a tensor. Build the index again.")
    return loaded


def _load(path: Path) -> object:
    """Tensors of a file, memory-mapped; `weights_only` unpickles no code."""
    with storage.explained(path, "read"):
        try:
            return torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except (RuntimeError, ValueError, EOFError) as error:
            raise StorageError(f"{path} is damaged: {error}. Build the index again.") from error
