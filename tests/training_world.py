"""A model and weighted examples so small that whole training runs take seconds."""

from __future__ import annotations

import random
from pathlib import Path

import safetensors.torch
import torch
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from exsearch.config import TrainingConfig
from exsearch.records import Example, Segment, Transcript
from exsearch.training.job import TrainingJob

VOCABULARY = 300
Weights = dict[str, torch.Tensor]


def make_world(folder: Path) -> Path:
    """`model/` (3 layers of 64) and `examples.jsonl` (18, 15 with weight) in `folder`."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=VOCABULARY,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    words = {f"w{number}": number for number in range(VOCABULARY)}
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="w0")),
        chat_template="{{ messages }}",
    ).save_pretrained(folder / "model")
    (folder / "examples.jsonl").write_text(
        "".join(example(number).to_line() + "\n" for number in range(18))
    )
    return folder


def example(number: int) -> Example:
    chance = random.Random(number)
    segments = []
    for turn in range(2 * chance.randint(1, 3)):
        agent = turn % 2 == 1
        ids = tuple(chance.randrange(VOCABULARY) for _ in range(chance.randint(2, 15)))
        segments.append(Segment(role="assistant" if agent else "user", ids=ids, agent=agent))
    weight = 0.0 if number % 6 == 5 else chance.choice([0.2, 0.5, 1.0])
    return Example(id=f"e{number}", transcript=Transcript(segments=tuple(segments)), weight=weight)


def make_job(world: Path, output: Path, **options: object) -> TrainingJob:
    values: dict[str, object] = {
        "learning_rate": 1e-3,
        "epochs": 1,
        "batch_size": 6,
        "micro_tokens": 120,
        "gradient_checkpointing": False,
        **options,
    }
    return TrainingJob(
        model=str(world / "model"),
        examples=str(world / "examples.jsonl"),
        output=str(output),
        settings=TrainingConfig.model_validate(values),
    )


def weights_of(folder: str | Path) -> Weights:
    return safetensors.torch.load_file(Path(folder) / "model.safetensors")
