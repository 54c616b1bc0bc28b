"""PLAID's compression: a vector is its nearest centroid plus a few bits per dimension.

Centroids come from k-means over a sample; what remains of each vector (the
residual) is put, dimension by dimension, into one of 2^nbits buckets whose limits
are quantiles of the residuals (ColBERTv2, Santhanam et al., NAACL 2022, §3.3).
The files are those of colbert-ai's `ResidualCodec`, so that its searcher reads them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from exsearch.retrieval.files import writing

POINTS_PER_CENTROID = 64
"""k-means sees at most so many vectors per centroid; more did not lower the error."""
HELD_OUT = 50_000
"""Vectors whose residuals set the buckets."""
SCORES_AT_ONCE = 1 << 26
"""Dot products held at once, in floats: 256 MB."""

Floats = npt.NDArray[np.float32]


def partitions_for(vectors: int) -> int:
    """PLAID's number of centroids: the power of two at or below 16·√vectors."""
    wanted = 2 ** int(math.log2(max(1.0, 16 * math.sqrt(vectors))))
    return min(wanted, 2 ** int(math.log2(max(1, vectors))))


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Codec:
    """Centroids [C, dim] float32 (rounded to half), bucket limits [2^b - 1], values [2^b]."""

    centroids: torch.Tensor
    cutoffs: torch.Tensor
    weights: torch.Tensor
    residual: float
    """Mean absolute residual over the held-out vectors."""
    nbits: int

    def compress(self, vectors: npt.NDArray[np.float16]) -> tuple[Any, Any]:
        """Compress vectors [n, dim].

        Returns:
            codes, int32 [n], and packed residuals, uint8 [n, dim · nbits / 8].
        """
        place = device()
        centroids = self.centroids.to(place)
        cutoffs = self.cutoffs.to(place)
        shifts = torch.arange(self.nbits, dtype=torch.uint8, device=place)
        codes, residuals = [], []
        step = max(1, SCORES_AT_ONCE // len(centroids))
        for start in range(0, len(vectors), step):
            batch = torch.from_numpy(np.array(vectors[start : start + step])).to(place).float()
            nearest = (batch @ centroids.T).argmax(1)
            buckets = torch.bucketize(batch - centroids[nearest], cutoffs).to(torch.uint8)
            bits = (buckets.unsqueeze(-1) >> shifts) & 1
            codes.append(nearest.to(torch.int32).cpu().numpy())
            residuals.append(np.packbits(bits.flatten(1).cpu().numpy(), axis=1))
        return np.concatenate(codes), np.concatenate(residuals)

    def save(self, folder: Path) -> None:
        """Write colbert-ai's three files; `buckets.pt` comes last and says they are whole."""
        for name, value in (
            ("centroids.pt", self.centroids.half()),
            ("avg_residual.pt", torch.tensor(self.residual)),
            ("buckets.pt", (self.cutoffs, self.weights)),
        ):
            with writing(folder / name) as file:
                torch.save(value, file)

    @classmethod
    def load(cls, folder: Path, nbits: int) -> Codec:
        cutoffs, weights = torch.load(folder / "buckets.pt", weights_only=True)
        centroids = torch.load(folder / "centroids.pt", weights_only=True).float()
        residual = torch.load(folder / "avg_residual.pt", weights_only=True).item()
        return cls(centroids, cutoffs, weights, residual, nbits)


def train(
    sample: npt.NDArray[np.float16],
    partitions: int,
    iterations: int,
    nbits: int,
    advance: Callable[[], None] = lambda: None,
) -> Codec:
    """Find centroids and buckets for vectors like `sample` [n, dim], in random order.

    The last twentieth (at most HELD_OUT) sets the buckets and is kept from k-means,
    unless the sample is too small to spare it.
    """
    held = min(len(sample) // 20, HELD_OUT)
    if len(sample) - held < partitions or held < 100:
        held = 0
    points, rest = sample[: len(sample) - held], sample[len(sample) - held :]
    centroids = kmeans(points, partitions, iterations, advance).half().float()
    left = _residuals(rest if held else sample[:HELD_OUT], centroids)
    buckets = 2**nbits
    limits = np.arange(1, buckets) / buckets
    middles = (np.arange(buckets) + 0.5) / buckets
    return Codec(
        centroids=centroids,
        cutoffs=torch.from_numpy(np.quantile(left, limits).astype(np.float32)),
        weights=torch.from_numpy(np.quantile(left, middles).astype(np.float32)),
        residual=float(np.abs(left).mean()),
        nbits=nbits,
    )


def kmeans(
    points: npt.NDArray[np.float16],
    partitions: int,
    iterations: int,
    advance: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Spherical k-means: unit centroids [partitions, dim], nearest by dot product.

    Starts from the first `partitions` points (the caller shuffles them); a centroid
    that nothing is near takes over the points farthest from theirs. The sums are
    taken over sorted segments, so the same points give the same bits every time.
    """
    place = device()
    data = torch.from_numpy(np.ascontiguousarray(points))
    centroids = torch.nn.functional.normalize(data[:partitions].to(place).float(), dim=1)
    step = max(1, SCORES_AT_ONCE // partitions)
    for _ in range(iterations):
        sums = torch.zeros_like(centroids)
        counts = torch.zeros(partitions, dtype=torch.long, device=place)
        worst_score = torch.zeros(0, device=place)
        worst = torch.zeros(0, dtype=torch.long, device=place)
        for start in range(0, len(data), step):
            batch = data[start : start + step].to(place).float()
            best = (batch @ centroids.T).max(1)
            order = best.indices.argsort(stable=True)
            here = torch.bincount(best.indices, minlength=partitions)
            sums += torch.segment_reduce(batch[order], "sum", lengths=here, initial=0.0)
            counts += here
            scores = torch.cat([worst_score, best.values])
            rows = torch.cat([worst, torch.arange(start, start + len(batch), device=place)])
            few = torch.topk(scores, min(partitions, len(scores)), largest=False).indices
            worst_score, worst = scores[few], rows[few]
        empty = (counts == 0).nonzero().flatten()
        if len(empty):
            sums[empty] = data[worst[: len(empty)].cpu()].to(place).float()[: len(empty)]
        centroids = torch.nn.functional.normalize(sums, dim=1)
        advance()
    return centroids.cpu()


def _residuals(vectors: npt.NDArray[np.float16], centroids: torch.Tensor) -> Floats:
    place = device()
    near = centroids.to(place)
    parts = []
    step = max(1, SCORES_AT_ONCE // len(near))
    for start in range(0, len(vectors), step):
        batch = torch.from_numpy(np.array(vectors[start : start + step])).to(place).float()
        parts.append((batch - near[(batch @ near.T).argmax(1)]).cpu().numpy())
    return np.concatenate(parts)
