"""ColBERT retrieval: index, searcher, HTTP service and client.

Names are loaded when first used, so that a process which only speaks to a service
never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from exsearch.retrieval.client import RetrieverClient
    from exsearch.retrieval.encoder import Encoder, demo_checkpoint
    from exsearch.retrieval.estimates import Estimate, estimate
    from exsearch.retrieval.index import build_index, compress_part, encode_part, merge
    from exsearch.retrieval.info import IndexInfo
    from exsearch.retrieval.retriever import LocalRetriever, Retriever, open_retriever
    from exsearch.retrieval.searcher import Searcher

_HOME = {
    "Encoder": "encoder",
    "Estimate": "estimates",
    "IndexInfo": "info",
    "LocalRetriever": "retriever",
    "Retriever": "retriever",
    "RetrieverClient": "client",
    "Searcher": "searcher",
    "build_index": "index",
    "compress_part": "index",
    "demo_checkpoint": "encoder",
    "encode_part": "index",
    "estimate": "estimates",
    "merge": "index",
    "open_retriever": "retriever",
}

__all__ = [
    "Encoder",
    "Estimate",
    "IndexInfo",
    "LocalRetriever",
    "Retriever",
    "RetrieverClient",
    "Searcher",
    "build_index",
    "compress_part",
    "demo_checkpoint",
    "encode_part",
    "estimate",
    "merge",
    "open_retriever",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
