"""`exsearch.json` of an index: what it was made from, and the digest that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from exsearch import storage
from exsearch.errors import StorageError
from exsearch.records import Record

INFO = "exsearch.json"


class IndexInfo(Record):
    """A finished index."""

    digest: str
    """Names the index: equal for equal corpus, checkpoint and settings on one machine."""
    corpus: str
    """Digest of the passages."""
    checkpoint: str
    """Digest of the encoder."""
    checkpoint_path: str
    passages: int
    vectors: int
    centroids: int
    bytes: int
    """On disk, passages included."""
    plan: str
    """Digest of everything that was decided before it was built."""
    nbits: int
    doc_maxlen: int
    query_maxlen: int
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the encoder that made it; queries are encoded alike."""

    def save(self, folder: Path) -> None:
        storage.write_json(folder / INFO, self.model_dump())

    @classmethod
    def load(cls, folder: str | Path) -> IndexInfo:
        """Read the description of a finished index, in a folder or at a URL.

        Raises:
            StorageError: `folder` is no finished index.
        """
        path = storage.join(folder, INFO)
        if not storage.exists(path):
            raise StorageError(
                f"{folder} is no index (it has no {INFO}). Build one: "
                f"exsearch index --set data.corpus=FILE --set retrieval.index={folder}"
            )
        try:
            return cls.model_validate(storage.read_json(path))
        except ValidationError as error:
            raise StorageError(f"{path} is damaged: {error}. Build the index again.") from error
