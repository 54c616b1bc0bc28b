"""Looking at a model folder without loading it.

A `.safetensors` file opens with eight bytes of header length and a JSON header of
names, types, shapes and byte ranges, so that a missing, truncated or foreign file is
found out before anything slow begins.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from exsearch.errors import InputError


class WeightFacts(NamedTuple):
    """Size of a model as saved."""

    parameters: int
    """Numbers stored (tied matrices once)."""
    bytes: int
    """Their size on disk."""


def resolve(model: str) -> Path:
    """The model's folder.

    Raises:
        InputError: there is none, or it is no model folder.
    """
    folder = Path(model)
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{model} is no model folder in Hugging Face format: it has no config.json"
            if folder.is_dir()
            else f"there is no model folder {model}"
        )
    return folder


def weight_files(folder: Path) -> list[Path]:
    """The model's `.safetensors` files, those its index names where it has one.

    Raises:
        InputError: there are none, or the index names one that is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise InputError(f"{index} cannot be read as a weight index: {error}") from error
        files = [folder / name for name in names]
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if not file.is_file():
            raise InputError(
                f"{file} is missing. A model folder needs its weights as .safetensors; "
                "pickled .bin weights are not opened."
            )
    return files


def inspect(folder: Path) -> WeightFacts:
    """Count the model's parameters, and see that its weight files are whole.

    Raises:
        InputError: a weight file is missing, truncated or no safetensors file.
    """
    parameters = size = 0
    for file in weight_files(folder):
        for entry in _header(file).values():
            parameters += math.prod(entry["shape"])
        size += file.stat().st_size
    return WeightFacts(parameters, size)


def _header(file: Path) -> dict[str, Any]:
    problem = f"{file} is not a whole safetensors file"
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= size - 8:
                raise InputError(f"{problem}: copy or download it again")
            header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        end = max(entry["data_offsets"][1] for entry in header.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{problem}: {error}") from error
    if size != 8 + length + end:
        raise InputError(f"{problem}: it has {size} bytes and should have {8 + length + end}")
    return header
