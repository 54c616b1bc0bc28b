"""A tiny Llama that follows the protocol: made and overfitted in seconds, on any machine."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from chat_templates import SENTENCES, tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from exsearch.agent.chat import ChatFormat
from exsearch.config import AgentConfig
from exsearch.data.warmup import WarmupRule, make_demonstrations
from exsearch.data.world import World
from exsearch.em.warmup import examples_of
from exsearch.records import Example, Passage

AGENT: dict[str, object] = {
    "instruction": "Search.",
    "selection": "top_n",
    "passages": 2,
    "top_n": 2,
    "max_steps": 4,
    "max_passage_words": 10,
    "turn_tokens": 48,
    "answer_tokens": 12,
    "repairs": 0,
}
"""Settings under which an episode of the tiny world is short."""
STEPS, BATCH = 90, 8


class WordSearch:
    """Ranks passages by the words they share with the query, rarer words counting more."""

    def __init__(self, passages: Sequence[Passage]) -> None:
        self._passages = passages
        self._words = [Counter(_words(f"{p.title} {p.text}")) for p in passages]
        self._rarity = Counter(word for bag in self._words for word in bag)

    def __call__(self, query: str, k: int) -> list[Passage]:
        asked = [word for word in _words(query) if word in self._rarity]
        scores = [sum(1 / self._rarity[w] for w in asked if w in bag) for bag in self._words]
        best = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
        return [self._passages[i].model_copy(update={"score": scores[i]}) for i in best]

    def many(self, queries: list[str], k: int) -> list[list[Passage]]:
        return [self(query, k) for query in queries]


def _words(text: str) -> list[str]:
    return text.lower().replace(".", " ").replace("?", " ").split()


def make_models(folder: Path, world: World) -> tuple[str, str]:
    """Save a fresh and a tuned checkpoint; returns their folders."""
    sentences = (*SENTENCES, *(p.text for p in world.passages))
    chat = ChatFormat(tokenizer("chatml", 1200, sentences))
    model = fresh(len(chat.tokenizer))
    fresh_folder, tuned_folder = folder / "fresh", folder / "tuned"
    save(model, chat, fresh_folder)
    agent = AgentConfig.model_validate(AGENT)
    rule = WarmupRule(k=2, missing="insert", min_overlap=0.3)
    questions = [*world.questions["warmup"], *world.questions["train"]]
    demonstrations, _ = make_demonstrations(questions, WordSearch(world.passages).many, rule)
    overfit(model, list(examples_of(demonstrations, agent, chat)))
    save(model, chat, tuned_folder)
    return str(fresh_folder), str(tuned_folder)


def fresh(vocabulary: int, seed: int = 0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        initializer_range=0.1,
        bos_token_id=0,
        eos_token_id=2,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config)


def save(model: LlamaForCausalLM, chat: ChatFormat, folder: Path) -> None:
    model.save_pretrained(folder)
    chat.tokenizer.save_pretrained(folder)


def overfit(model: LlamaForCausalLM, examples: Sequence[Example]) -> float:
    """Train on the agent's tokens; returns the last batch's mean loss in nats."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.0)
    chance = random.Random(0)
    loss = torch.tensor(0.0)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, 2 * (1 - step / STEPS))
        batch = chance.sample(list(examples), min(BATCH, len(examples)))
        width = max(len(e.transcript.token_ids) for e in batch)
        ids = torch.zeros(len(batch), width, dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, example in enumerate(batch):
            tokens = torch.tensor(example.transcript.token_ids)
            mask = torch.tensor(example.transcript.loss_mask)
            ids[row, : len(tokens)] = tokens
            labels[row, : len(tokens)] = torch.where(mask, tokens, -100)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    model.eval()
    return float(loss.detach())
