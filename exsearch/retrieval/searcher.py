"""Search an index: encode the queries together, rank each by itself.

The index is memory-mapped: opening reads centroids and lists, a search reads the
pages of the passages it scores.
"""

from __future__ import annotations

from pathlib import Path

from exsearch.config import RetrievalConfig
from exsearch.errors import InputError, StorageError
from exsearch.records import Passage
from exsearch.retrieval.encoder import Encoder
from exsearch.retrieval.info import IndexInfo
from exsearch.retrieval.ranker import Ranker, processors
from exsearch.retrieval.store import PassageStore

LONGEST_QUERY = 4000
"""Characters of a query that are read; ColBERT sees about 30 words anyway."""


class Searcher:
    """An opened index; may be used from several threads.

    Args:
        folder: a finished index.
        checkpoint: the encoder's folder, if it is no longer where the index was built.
        threads: threads that rank one call's queries; default: one per processor.

    Raises:
        StorageError: no index there, or a damaged one.
        InputError: the checkpoint is missing or is not the one that made the index.
    """

    def __init__(
        self, folder: str | Path, checkpoint: str | None = None, threads: int | None = None
    ) -> None:
        self.folder = Path(folder)
        self.info = IndexInfo.load(self.folder)
        self._store = PassageStore(self.folder)
        if len(self._store) != self.info.passages:
            raise StorageError(
                f"{folder} holds {len(self._store)} passages, not {self.info.passages} as it "
                "says. Build the index again."
            )
        self._encoder = self._open_encoder(checkpoint)
        self._ranker = Ranker(self.folder, self.info, threads or processors())

    def _open_encoder(self, checkpoint: str | None) -> Encoder:
        config = RetrievalConfig(
            doc_maxlen=self.info.doc_maxlen,
            query_maxlen=self.info.query_maxlen,
            dtype=self.info.dtype,
        )
        recorded = self.info.checkpoint_path
        encoder = Encoder(recorded if Path(recorded).is_dir() else checkpoint or recorded, config)
        if encoder.digest != self.info.checkpoint:
            raise InputError(
                f"{self.folder} was made with checkpoint {self.info.checkpoint}, but "
                f"{encoder.folder} is {encoder.digest}. Set retrieval.checkpoint to the former."
            )
        return encoder

    @property
    def digest(self) -> str:
        """Digest of the index."""
        return self.info.digest

    def search(self, queries: list[str], k: int) -> list[list[Passage]]:
        """The k best passages of each query, best first; fewer where there are no more.

        Results do not depend on which queries are searched together.

        Raises:
            InputError: k below 1.
        """
        if k < 1:
            raise InputError(f"k must be at least 1, not {k}")
        if not queries:
            return []
        vectors = self._encoder.encode_queries([query[:LONGEST_QUERY] for query in queries])
        return [
            [self._store[row].model_copy(update={"score": score}) for row, score in ranking]
            for ranking in self._ranker.rank(vectors, k)
        ]

    def close(self) -> None:
        self._store.close()
