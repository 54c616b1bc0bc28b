"""The one place that knows where colbert-ai 0.2.22 and its surroundings do not fit.

* **transformers 5** asks every model class for `all_tied_weights_keys` and takes
  `_keys_to_ignore_on_load_unexpected` as a set. The class that colbert-ai's
  `class_factory` makes has neither: `ready()` adds both.
* **The hub.** Loading a folder still asks the hub whether it knows better, which
  waits for tens of seconds where there is no network: `offline()` answers no.
* **git.** colbert-ai imports GitPython, which refuses to load without a `git`
  program; the slim images have none, and nothing here needs one.
* **Extensions.** colbert-ai's own searcher compiles four small C++ files with g++ and
  ninja at first use, about half a minute each. Ours does without (see `kernel`); for
  comparisons with theirs, `compile_extensions()` does it ahead of time.
* **Chatter.** It prints to stdout, which belongs to `--json` here: `quiet()`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from exsearch.errors import InputError

_USERS = (
    "colbert.modeling.hf_colbert",
    "colbert.modeling.base_colbert",
    "colbert.modeling.tokenization.doc_tokenization",
    "colbert.modeling.tokenization.query_tokenization",
)
"""Modules that hold `class_factory` under their own name."""


def _fitting(factory: Callable[[str], Any]) -> Callable[[str], Any]:
    """`class_factory`, its result completed with what transformers 5 looks for."""

    @functools.wraps(factory)
    def class_factory(name_or_path: str) -> Any:
        made = factory(name_or_path)
        made.all_tied_weights_keys = {}
        made._keys_to_ignore_on_load_unexpected = {"cls"}
        return made

    class_factory.__exsearch__ = True  # type: ignore[attr-defined]
    return class_factory


@functools.cache
def ready() -> None:
    """Import colbert-ai and mend it; cheap when called again.

    Raises:
        InputError: colbert-ai is not installed.
    """
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    try:
        with quiet():
            modules = [importlib.import_module(name) for name in _USERS]
    except ModuleNotFoundError as error:
        raise InputError(
            f"{error.name} is not installed: pip install 'exsearch[retrieval]'"
        ) from error
    fitting = _fitting(modules[0].class_factory)
    for module in modules:
        module.class_factory = fitting  # type: ignore[attr-defined]


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """While a local folder is loaded, no question goes to the hub."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Send what colbert-ai prints to stderr, and only when COLBERT_VERBOSE is set."""
    with contextlib.ExitStack() as stack:
        if os.environ.get("COLBERT_VERBOSE"):
            sink = sys.stderr
        else:
            sink = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(sink))
        stack.enter_context(_no_bars())
        yield


@contextlib.contextmanager
def _no_bars() -> Iterator[None]:
    """Without transformers' bar for loading weights, a fraction of a second long."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def checkpoint_folder(name: str) -> Path:
    """The folder of a checkpoint given as a folder or as a hub id (fetched if need be).

    Raises:
        InputError: no such folder, and no hub within reach that has it.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder.resolve()
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name)).resolve()
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"no ColBERT checkpoint at {name!r}: it is no folder here, and the hub did not give it "
            f"({type(error).__name__}). Set retrieval.checkpoint to a checkpoint folder, "
            "or to 'demo' for the small one that needs no download."
        ) from error


def compile_extensions() -> None:
    """Compile the C++ that colbert-ai's own CPU searcher wants (needs g++ and ninja).

    Nothing here needs it (`plaid.cpp` does that work); for whoever opens one of our
    indexes with `colbert.Searcher`. One compiler per class at a time.
    """
    ready()
    from colbert.modeling.colbert import ColBERT
    from colbert.search.index_storage import IndexScorer
    from colbert.search.strided_tensor import StridedTensor

    with quiet(), ThreadPoolExecutor(2) as pool:
        for done in [
            pool.submit(user.try_load_torch_extensions, False)
            for user in (IndexScorer, ColBERT, StridedTensor)
        ]:
            done.result()
