"""The encoder and the codec against colbert-ai's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from retrieval_parts import corpus, digests, questions

from exsearch.config import RetrievalConfig
from exsearch.errors import InputError
from exsearch.retrieval import Encoder, demo_checkpoint
from exsearch.retrieval.codec import kmeans, train
from exsearch.retrieval.ranker import residual_table
from exsearch.retrieval.shards import passage_text

pytestmark = pytest.mark.retrieval


def test_the_demo_checkpoint_is_made_once_and_always_alike(
    config: RetrievalConfig, tmp_path: Path
) -> None:
    assert digests(Path(demo_checkpoint(tmp_path / "again"))) == digests(Path(config.checkpoint))
    weights = Path(config.checkpoint) / "model.safetensors"
    before = weights.stat().st_mtime_ns
    demo_checkpoint(config.checkpoint)
    assert weights.stat().st_mtime_ns == before


def test_the_projection_keeps_angles(encoder: Encoder) -> None:
    weight = encoder._model.linear.weight
    assert weight.shape == (128, 384)
    assert torch.allclose(weight @ weight.T, torch.eye(128), atol=1e-5)


def test_the_encoder_agrees_with_colberts_own(config: RetrievalConfig, encoder: Encoder) -> None:
    from colbert.infra import ColBERTConfig
    from colbert.modeling.checkpoint import Checkpoint

    from exsearch.retrieval import compat

    texts = [passage_text(p) for p in corpus(12)]
    with compat.offline(), compat.quiet():
        theirs = Checkpoint(
            config.checkpoint, ColBERTConfig(checkpoint=config.checkpoint, doc_maxlen=180)
        )
        vectors, lengths = theirs.docFromText(texts, bsize=4, keep_dims="flatten")[:2]
        queries = theirs.queryFromText(questions(5))
    rows = encoder.tokenize_passages(texts)
    ours: dict[int, Any] = {}
    for _ in encoder.encode_passages(rows, ours.__setitem__):
        pass
    assert [len(ours[i]) for i in range(12)] == lengths
    assert np.abs(np.concatenate([ours[i] for i in range(12)]) - vectors.numpy()).max() < 2e-3
    assert np.abs(encoder.encode_queries(questions(5)) - queries.numpy()).max() < 1e-4


def test_a_folder_that_is_no_checkpoint(tmp_path: Path, config: RetrievalConfig) -> None:
    with pytest.raises(InputError, match="holds no checkpoint"):
        Encoder(str(tmp_path), config)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="not a ColBERT checkpoint"):
        Encoder(str(tmp_path), config)
    with pytest.raises(InputError, match="no ColBERT checkpoint at"):
        Encoder(str(tmp_path / "missing"), config)


def test_kmeans_finds_clusters_and_leaves_no_centroid_unused() -> None:
    rng = np.random.default_rng(0)
    centres = np.linalg.qr(rng.standard_normal((16, 16)))[0][:5]
    points = np.repeat(centres, 40, axis=0) + 0.05 * rng.standard_normal((200, 16))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    rng.shuffle(points)
    found = kmeans(points.astype(np.float16), 5, 8).numpy()
    assert (found @ centres.T).max(0).min() > 0.98
    doubled = np.repeat(points[:1], 50, axis=0).astype(np.float16)
    assert np.isfinite(kmeans(np.concatenate([doubled, points[1:10]]), 8, 4).numpy()).all()


@pytest.mark.parametrize("nbits", [1, 2, 4])
def test_what_is_compressed_comes_back_as_colbert_reads_it(nbits: int, tmp_path: Path) -> None:
    from colbert.indexing.codecs.residual import ResidualCodec
    from colbert.infra import ColBERTConfig

    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((3000, 128))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    codec = train(vectors, 32, 3, nbits)
    codes, residuals = codec.compress(vectors[:500])
    theirs = ResidualCodec(
        ColBERTConfig(dim=128, nbits=nbits), codec.centroids, codec.residual, codec.cutoffs,
        codec.weights,
    )  # fmt: skip
    packed = ResidualCodec.Embeddings(torch.from_numpy(codes), torch.from_numpy(residuals))
    back = theirs.decompress(packed).numpy()
    likeness = (back * vectors[:500].astype(np.float32)).sum(1)
    assert likeness.mean() > {1: 0.68, 2: 0.87, 4: 0.975}[nbits]
    table = residual_table(codec.weights.numpy(), nbits)
    ours = codec.centroids.numpy()[codes] + table[residuals].reshape(500, 128)
    ours /= np.linalg.norm(ours, axis=1, keepdims=True)
    assert np.abs(ours - back).max() < 1e-5
