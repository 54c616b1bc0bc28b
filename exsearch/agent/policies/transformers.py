"""The reference policy: plain transformers, one sequence at a time.

Slow, and exactly repeatable: nothing is batched, so a turn depends on its prompt
and its seed alone. Rollouts with it are byte-equal from run to run, and the fast
engines are tested against it.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from transformers import AutoModelForCausalLM

from exsearch.agent.chat import ChatFormat
from exsearch.agent.model_files import model_digest, model_folder
from exsearch.agent.policies.base import Completion, PolicyStats, Sampling
from exsearch.config import ModelConfig

T = TypeVar("T")


class TransformersPolicy:
    """See `Policy`. Runs on the GPU when there is one."""

    def __init__(self, model: str, config: ModelConfig) -> None:
        folder = model_folder(model)
        self.chat = ChatFormat.load(folder)
        self.max_tokens = config.max_tokens
        self.stats = PolicyStats()
        self._dtype = getattr(torch, config.dtype)
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._turn = threading.Lock()
        self._read(model)

    def _read(self, model: str) -> None:
        self.digest = model_digest(model)
        loaded: Any = AutoModelForCausalLM.from_pretrained(model_folder(model), dtype=self._dtype)
        self._model: Any = loaded.to(torch.device(self._device)).eval()

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[Sampling]
    ) -> list[Completion]:
        return [
            await asyncio.to_thread(self._alone, self._continue, list(prompt), how)
            for prompt, how in zip(prompts, sampling, strict=True)
        ]

    async def score(
        self, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        return [
            await asyncio.to_thread(self._alone, self._logprobs, list(prompt), list(target))
            for prompt, target in zip(prompts, targets, strict=True)
        ]

    async def load(self, model: str) -> None:
        await asyncio.to_thread(self._alone, self._read, model)

    async def close(self) -> None:
        """Nothing to stop."""

    def _alone(self, work: Callable[..., T], *arguments: Any) -> T:
        """One sequence at a time, whichever thread or event loop asks."""
        with self._turn:
            return work(*arguments)

    @torch.inference_mode()
    def _continue(self, prompt: list[int], how: Sampling) -> Completion:
        generator = torch.Generator()
        if how.seed is not None:
            generator.manual_seed(how.seed)
        else:
            generator.seed()
        end = self.chat.end_ids[-1]
        ids: list[int] = []
        logprobs: list[float] = []
        past = None
        feed = torch.tensor([prompt], device=self._device)
        while len(ids) < how.max_tokens:
            out = self._model(
                input_ids=feed, past_key_values=past, use_cache=True, logits_to_keep=1
            )
            past = out.past_key_values
            raw = out.logits[0, -1].float().log_softmax(-1).cpu()
            token = _sample(raw, how, generator)
            ids.append(token)
            logprobs.append(float(raw[token]))
            if token == end:
                break
            feed = torch.tensor([[token]], device=self._device)
        self.stats.requests += 1
        self.stats.prompt_tokens += len(prompt)
        self.stats.output_tokens += len(ids)
        return Completion(tuple(ids), tuple(logprobs), ended=bool(ids) and ids[-1] == end)

    @torch.inference_mode()
    def _logprobs(self, prompt: list[int], target: list[int]) -> list[float]:
        feed = torch.tensor([prompt + target], device=self._device)
        # The last len(target)+1 positions; the very last one predicts beyond the target.
        logits = self._model(input_ids=feed, logits_to_keep=len(target) + 1).logits[0, :-1]
        logprobs = logits.float().log_softmax(-1)
        self.stats.scored_tokens += len(target)
        picked = logprobs.gather(-1, torch.tensor(target, device=self._device)[:, None])
        return picked[:, 0].tolist()


def _sample(logprobs: torch.Tensor, how: Sampling, generator: torch.Generator) -> int:
    """Draw one token id from log-probabilities [vocabulary], in the order vLLM applies limits."""
    if how.temperature == 0.0:
        return int(logprobs.argmax())
    logits = logprobs / how.temperature
    if how.min_p > 0.0:
        floor = logits.max() + torch.log(torch.tensor(how.min_p))
        logits = logits.masked_fill(logits < floor, float("-inf"))
    if how.top_k > 0:
        floor = logits.topk(min(how.top_k, logits.numel())).values[-1]
        logits = logits.masked_fill(logits < floor, float("-inf"))
    probabilities = logits.softmax(-1)
    if how.top_p < 1.0:
        ordered, order = probabilities.sort(descending=True)
        outside = ordered.cumsum(-1) - ordered >= how.top_p
        probabilities[order[outside]] = 0.0
    return int(torch.multinomial(probabilities, 1, generator=generator))
