"""KServe's SDK, as far as it is used here.

Importing it parses `sys.argv`, and would take `--config` for an abbreviation of an option of its
own; so it is imported here, once, with the command line out of sight.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _no_arguments() -> Iterator[None]:
    kept, sys.argv = sys.argv, sys.argv[:1]
    try:
        yield
    finally:
        sys.argv = kept


with _no_arguments():
    from kserve import InferOutput, InferRequest, InferResponse, Model, ModelRepository, errors
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
    from kserve.protocol.rest.v1_endpoints import register_v1_endpoints
    from kserve.protocol.rest.v2_endpoints import register_v2_endpoints

__all__ = [
    "DataPlane",
    "InferOutput",
    "InferRequest",
    "InferResponse",
    "Model",
    "ModelRepository",
    "ModelRepositoryExtension",
    "errors",
    "register_v1_endpoints",
    "register_v2_endpoints",
]
