"""Model folders: found, checked and told apart before an engine is started on them."""

from __future__ import annotations

import json
from pathlib import Path

from exsearch import mirror
from exsearch.errors import InputError
from exsearch.storage import digest_bytes, digest_file


def model_folder(path: str) -> Path:
    """The folder, checked to hold what an engine needs; of a URL the local copy.

    Raises:
        InputError: it is missing, or lacks a readable config, tokenizer or weights.
    """
    folder = Path(mirror.local(path))
    if not folder.is_dir():
        raise InputError(
            f"no model folder at {path!r}: set model.path to a folder in Hugging Face format"
        )
    try:
        json.loads((folder / "config.json").read_text())
    except OSError as error:
        raise InputError(f"{folder}/config.json cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{folder}/config.json is damaged: {error}") from error
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        raise InputError(f"{folder} has no tokenizer.json; copy the tokenizer beside the weights")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(
            f"{folder} has no *.safetensors weights (pickled weights are refused on purpose); "
            "convert them with transformers' save_pretrained"
        )
    for file in weights:
        _check_safetensors(file)
    return folder


def _check_safetensors(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            opened.keys()
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is damaged or cut short: {error}") from error


def model_digest(path: str) -> str:
    """Digest of the configuration and weights: what a trajectory was sampled from."""
    folder = model_folder(path)
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return digest_bytes(*(digest_file(file).encode() for file in files))
