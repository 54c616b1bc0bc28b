"""The model that is trained: loading, what of it is frozen, LoRA, saving."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from exsearch.config import TrainingConfig
from exsearch.errors import InputError
from exsearch.storage import explained

State = dict[str, torch.Tensor]

LORA_SCALE = 2.0
"""alpha / rank: an adapter's product counts twice, as is customary."""

_ADAPTER = "default"


def load_model(folder: Path, dtype: torch.dtype) -> PreTrainedModel:
    """Load a causal language model, all of it.

    Raises:
        InputError: the weights are unreadable, or some that the configuration promises
            are missing (they would be made up at random).
    """
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            attn_implementation="sdpa",
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise InputError(f"the model in {folder} cannot be loaded: {error}") from error
    model, loading = loaded
    missing = sorted(loading["missing_keys"])
    if missing:
        raise InputError(
            f"the model in {folder} lacks {len(missing)} weights that its configuration "
            f"promises, first {missing[0]}"
        )
    return model


def decoder_layers(model: PreTrainedModel) -> list[nn.Module]:
    """The transformer's layers, lowest first.

    Raises:
        InputError: the model is not built like Llama, Qwen or Mistral.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    if not isinstance(layers, nn.ModuleList) or model.get_output_embeddings() is None:
        raise InputError(
            f"{type(model).__name__} has no list of layers under an output head; "
            "models built like Llama, Qwen or Mistral can be trained"
        )
    return list(layers)


def prepare(model: PreTrainedModel, settings: TrainingConfig, seed: int) -> nn.Module:
    """Freeze what the settings say, add LoRA, switch gradient checkpointing on.

    Where the embeddings and the lowest layers are frozen, no tensor below the first
    trained layer asks for a gradient, so the backward pass ends there. With trained
    embeddings it runs through the frozen layers down to them.

    Raises:
        InputError: more layers are to be frozen than there are.
    """
    layers = decoder_layers(model)
    if settings.freeze_layers > len(layers):
        raise InputError(
            f"freeze_layers={settings.freeze_layers}, but the model has {len(layers)} layers"
        )
    if settings.freeze_embeddings:
        model.get_input_embeddings().requires_grad_(False)
    for layer in layers[: settings.freeze_layers]:
        layer.requires_grad_(False)
    model.config.use_cache = False
    wrapped = _with_lora(model, layers, settings, seed) if settings.lora_rank else model
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        # Only reentrant checkpoints need inputs that ask for a gradient; they would carry
        # the backward pass down through frozen layers.
        model.disable_input_require_grads()
    return wrapped


def _with_lora(
    model: PreTrainedModel, layers: list[nn.Module], settings: TrainingConfig, seed: int
) -> nn.Module:
    """Adapt every linear map of the layers that are not frozen."""
    from peft import LoraConfig, get_peft_model

    adapted = {
        module
        for layer in layers[settings.freeze_layers :]
        for module in layer.modules()
        if isinstance(module, nn.Linear)
    }
    torch.manual_seed(seed)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.lora_rank,
        lora_alpha=int(LORA_SCALE * settings.lora_rank),
        lora_dropout=0.0,
        target_modules=[name for name, module in model.named_modules() if module in adapted],
    )
    return get_peft_model(model, lora)


def base_of(model: nn.Module) -> PreTrainedModel:
    """The language model itself, out of its LoRA wrapper."""
    from peft import PeftModel

    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel)
    return inner


def merge_lora(state: State) -> State:
    """Fold LoRA's products into the weights they adapt: W + scale · B·A.

    Done on a gathered state rather than on the live model, since under ZeRO-3 no process
    holds a whole one. A state without adapters comes back as it is.
    """
    if not any(".lora_A." in name for name in state):
        return state
    merged: State = {}
    for name, tensor in state.items():
        if ".lora_" in name:
            continue
        if ".base_layer." in name:
            stem, _, leaf = name.partition(".base_layer.")
            down = state.get(f"{stem}.lora_A.{_ADAPTER}.weight")
            if leaf == "weight" and down is not None:
                up = state[f"{stem}.lora_B.{_ADAPTER}.weight"]
                product = LORA_SCALE * (up.double() @ down.double())
                tensor = (tensor.double() + product).to(tensor.dtype)
            name = f"{stem}.{leaf}"
        merged[name.removeprefix("base_model.model.")] = tensor
    return merged


def publish(model: PreTrainedModel, state: State, source: Path, target: Path, dtype: str) -> None:
    """Save the trained weights as a Hugging Face folder, by rename.

    The tokenizer, its chat template and the generation settings are the source's own
    files, byte for byte.

    Args:
        state: whole weights under the model's own names, without adapters.

    Raises:
        StorageError: the disk is full or not writable; `target` is then as it was.
    """
    kind = torch.bfloat16 if dtype == "bfloat16" else getattr(torch, dtype)
    config = type(model.config).from_pretrained(source)
    config.dtype = kind
    # Only the class is needed, for the names of what it saves: no memory is filled.
    with torch.device("meta"):
        skeleton = type(model)(config)
    partial = target.with_name(f".{target.name}.partial")
    with explained(target, "write the trained model to"):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        weights = {name: tensor.to("cpu", kind) for name, tensor in state.items()}
        if config.tie_word_embeddings:
            weights.pop("lm_head.weight", None)
        skeleton.save_pretrained(partial, state_dict=weights)
        for file in sorted(source.iterdir()):
            if file.is_file() and _belongs_to_tokenizer(file.name):
                shutil.copyfile(file, partial / file.name)
        for file in partial.iterdir():
            file.chmod(0o644)  # a server under another user must read it
        shutil.rmtree(target, ignore_errors=True)
        os.replace(partial, target)


def _belongs_to_tokenizer(name: str) -> bool:
    """Files beside the weights and the configuration: tokenizer, template, generation."""
    written = (".safetensors", ".bin", ".gguf", ".pth", ".index.json")
    return name != "config.json" and not name.startswith(".") and not name.endswith(written)
