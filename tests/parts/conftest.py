"""Fixtures of the real-part tests; each is made when it is first asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def config() -> Any:
    """Retrieval settings with the demo checkpoint and small shards."""
    from retrieval_parts import the_config

    return the_config()


@pytest.fixture
def encoder() -> Any:
    """The demo checkpoint, loaded."""
    from retrieval_parts import the_encoder

    return the_encoder()


@pytest.fixture
def index() -> Path:
    """A finished index over `retrieval_parts.corpus()`: look, do not touch."""
    from retrieval_parts import the_index

    return the_index()


@pytest.fixture
def searcher() -> Any:
    """That index, opened."""
    from retrieval_parts import the_searcher

    return the_searcher()
