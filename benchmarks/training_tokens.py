"""Training speed: the weighted trainer against transformers' Trainer as it comes.

Both train the same model on the same transcripts, the same number of examples per
optimizer step, in float32 (bfloat16 on a GPU), without gradient checkpointing. Plain
Trainer pads to the longest of a batch drawn in random order and computes logits for every
token; ours sorts a step's examples by length, gives the padding no attention mask, stops
reading at the last agent token, and computes logits at agent tokens only. Counted for
both: the transcripts' tokens, without padding, per second of optimizer step. Runs
alternate; medians over repeats.

    python benchmarks/training_tokens.py --examples 4 --repeats 5

`--model FOLDER` takes a real model; without it the weights are random, in SmolLM2-135M's
shape. Transcripts are random tokens: 200-500 of them, about a quarter by the agent.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    DataCollatorForSeq2Seq,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from exsearch.config import TrainingConfig
from exsearch.records import Example, Segment, Transcript
from exsearch.storage import write_json
from exsearch.training.dataset import make_row
from exsearch.training.trainer import StepDataset, WeightedTrainer

RESULT = Path(__file__).parent / "results" / "training_tokens.json"


def transcripts(count: int, vocabulary: int) -> list[Example]:
    """Conversations of 200-500 tokens: an instruction, then short turns and long replies."""
    chance = random.Random(0)

    def segment(agent: bool, low: int, high: int) -> Segment:
        ids = tuple(chance.randrange(vocabulary) for _ in range(chance.randint(low, high)))
        return Segment(role="assistant" if agent else "user", ids=ids, agent=agent)

    made = []
    for number in range(count):
        segments = [segment(False, 60, 90)]
        for _ in range(chance.randint(2, 5)):
            segments += [segment(True, 16, 32), segment(False, 45, 75)]
        segments.append(segment(True, 8, 16))
        made.append(Example(id=str(number), transcript=Transcript(segments=tuple(segments))))
    return made


class StepClock(TrainerCallback):
    """Seconds inside optimizer steps."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.perf_counter() - self._began)


class Plain(Dataset[dict[str, list[int]]]):
    """Token ids and labels, as any fine-tuning script has them."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> dict[str, list[int]]:
        transcript = self.examples[number].transcript
        ids = transcript.token_ids
        labels = [i if wrote else -100 for i, wrote in zip(ids, transcript.loss_mask, strict=True)]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


class RightPadding:
    """Stand-in for a tokenizer: pads a batch to its longest, as `tokenizer.pad` does."""

    padding_side = "right"

    def pad(self, features: list[dict[str, list[int]]], **_: Any) -> dict[str, torch.Tensor]:
        width = max(len(feature["input_ids"]) for feature in features)
        return {
            name: torch.tensor(
                [list(f[name]) + [0] * (width - len(f["input_ids"])) for f in features]
            )
            for name in ("input_ids", "attention_mask")
        }


def arguments(folder: str, batch: int) -> TrainingArguments:
    cuda = torch.cuda.is_available()
    return TrainingArguments(
        output_dir=folder,
        per_device_train_batch_size=batch,
        num_train_epochs=1,
        learning_rate=1e-5,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        use_cpu=not cuda,
        bf16=cuda,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=cuda,
    )


def load(path: str, layers: int) -> PreTrainedModel:
    if path:
        return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        vocab_size=49152,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config)


def run_plain(model: PreTrainedModel, examples: Sequence[Example], batch: int) -> list[float]:
    """Seconds of each optimizer step."""
    clock = StepClock()
    padding: Any = RightPadding()
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            model=model,
            args=arguments(folder, batch),
            train_dataset=Plain(examples),
            data_collator=DataCollatorForSeq2Seq(padding, label_pad_token_id=-100),
            callbacks=[clock],
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.seconds


def run_ours(model: PreTrainedModel, examples: Sequence[Example], batch: int) -> list[float]:
    """Seconds of each optimizer step."""
    clock = StepClock()
    rows = [row for row in (make_row(example, 8192) for example in examples) if row]
    settings = TrainingConfig(batch_size=batch, epochs=1, micro_tokens=8192)
    with tempfile.TemporaryDirectory() as folder:
        steps = StepDataset(rows, settings, 0, 0, 1)
        trainer = WeightedTrainer(model, arguments(folder, 1), steps, settings, 1.0, None)
        trainer.add_callback(clock)
        trainer.train()
    return clock.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="", help="model folder; random weights without it")
    parser.add_argument("--layers", type=int, default=30, help="layers of the random model")
    parser.add_argument("--examples", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=8, help="examples per optimizer step")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()

    model = load(options.model, options.layers)
    name = Path(options.model).name or f"random, SmolLM2-135M's shape, {options.layers} layers"
    examples = transcripts(options.examples, model.config.get_text_config().vocab_size)
    tokens = sum(len(example.transcript.token_ids) for example in examples)
    written = sum(sum(example.transcript.loss_mask) for example in examples)
    sides = {"plain": run_plain, "ours": run_ours}
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    for run in sides.values():
        run(model, examples[:1], 1)  # first use of kernels and memory
    for repeat in range(options.repeats):
        for side, run in sides.items():
            speed = tokens / sum(run(model, examples, options.batch_size))
            speeds[side].append(round(speed, 1))
            print(f"repeat {repeat + 1}: {side} {speed:.1f} tokens/s", file=sys.stderr, flush=True)
    pairs = zip(speeds["ours"], speeds["plain"], strict=True)
    result = {
        "command": "python benchmarks/training_tokens.py " + " ".join(sys.argv[1:]),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        + (torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"),
        "model": name,
        "examples": options.examples,
        "tokens": tokens,
        "agent_share": round(written / tokens, 3),
        "tokens_per_second": speeds,
        "median": {side: statistics.median(values) for side, values in speeds.items()},
        "ratio": round(statistics.median(ours / plain for ours, plain in pairs), 2),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_json(options.output, result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
