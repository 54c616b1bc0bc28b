"""Any OpenAI-compatible server, by its completions endpoint and token ids.

vLLM's server takes a prompt as token ids, returns token ids (`return_token_ids`)
and scores prompts (`prompt_logprobs`). A server that returns text only is still
usable: its text is tokenised here, and each such turn is counted in
`stats.notes["ids_from_text"]`, because those ids may differ from the engine's.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from typing import Any

import httpx
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from exsearch.agent.chat import ChatFormat
from exsearch.agent.policies.base import Completion, PolicyStats, Sampling
from exsearch.config import ModelConfig, PolicyConfig
from exsearch.errors import InputError, PolicyError
from exsearch.storage import digest_bytes

ATTEMPTS = 5


class _Busy(Exception):
    """The server asked to be called again: 429 or 5xx."""


class OpenAIPolicy:
    """See `Policy`. `model` names the tokenizer's folder; the weights are the server's."""

    def __init__(
        self, client: httpx.AsyncClient, name: str, chat: ChatFormat, max_tokens: int
    ) -> None:
        self.chat = chat
        self.max_tokens = max_tokens
        self.stats = PolicyStats()
        self.digest = digest_bytes(str(client.base_url).encode(), name.encode())
        self._client, self._name = client, name

    @classmethod
    async def connect(cls, model: str, config: ModelConfig, policy: PolicyConfig) -> OpenAIPolicy:
        """Open the connection and find the served model's name.

        Raises:
            InputError: no URL is set, or the server lists no (single) model.
            PolicyError: the server cannot be reached.
        """
        if not policy.url:
            raise InputError("policy.kind is openai but policy.url is empty")
        key = os.environ.get(policy.api_key_env, "")
        client = httpx.AsyncClient(
            base_url=policy.url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(600, connect=10),
            limits=httpx.Limits(max_connections=policy.concurrency),
        )
        name = policy.served_model or await _only_model(client)
        return cls(client, name, ChatFormat.load(model), config.max_tokens)

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[Sampling]
    ) -> list[Completion]:
        calls = (self._turn(p, how) for p, how in zip(prompts, sampling, strict=True))
        return list(await asyncio.gather(*calls))

    async def score(
        self, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        calls = (self._score(p, t) for p, t in zip(prompts, targets, strict=True))
        return list(await asyncio.gather(*calls))

    async def load(self, model: str) -> None:
        raise InputError(
            "an OpenAI-compatible server cannot be given new weights from here: "
            f"serve {model} and point policy.url at it, or use policy.kind: vllm"
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def _turn(self, prompt: Sequence[int], how: Sampling) -> Completion:
        end = self.chat.end_ids[-1]
        body = {
            "prompt": list(prompt),
            "temperature": how.temperature,
            "top_p": how.top_p,
            "max_tokens": how.max_tokens,
            "logprobs": 0,
            "return_token_ids": True,
            "skip_special_tokens": False,
            "stop_token_ids": [end],
        }
        if how.seed is not None:
            body["seed"] = how.seed
        if how.top_k:
            body["top_k"] = how.top_k
        if how.min_p:
            body["min_p"] = how.min_p
        choice, cached = await self._post(body)
        ids = choice.get("token_ids")
        ended = choice.get("finish_reason") == "stop"
        if ids is None:
            ids = self.chat.encode_turn(choice.get("text") or "")
            ids += [*self.chat.end_ids] if ended else []
            self.stats.notes["ids_from_text"] = self.stats.notes.get("ids_from_text", 0) + 1
        logprobs = (choice.get("logprobs") or {}).get("token_logprobs") or ()
        self.stats.prompt_tokens += len(prompt)
        self.stats.cached_tokens += cached
        self.stats.output_tokens += len(ids)
        return Completion(
            tuple(ids),
            tuple(logprobs) if len(logprobs) == len(ids) else (),
            ended=bool(ids) and ids[-1] == end,
            cached=cached,
        )

    async def _score(self, prompt: Sequence[int], target: Sequence[int]) -> list[float]:
        body = {
            "prompt": [*prompt, *target],
            "max_tokens": 1,
            "temperature": 0.0,
            "prompt_logprobs": 0,
        }
        choice, _ = await self._post(body)
        entries = choice.get("prompt_logprobs")
        if not entries:
            raise PolicyError(
                f"{self._client.base_url} does not report prompt_logprobs, which weighing needs; "
                "use vLLM's server or policy.kind: vllm"
            )
        self.stats.scored_tokens += len(target)
        tail = entries[len(prompt) :]
        return [
            float(entry[str(token)]["logprob"]) for entry, token in zip(tail, target, strict=True)
        ]

    async def _post(self, body: dict[str, Any]) -> tuple[dict[str, Any], int]:
        """The one choice that the server answers with, and how many of the prompt's tokens it
        had cached (0 where it does not say); tried again while it is busy."""
        self.stats.requests += 1
        attempts = AsyncRetrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.5, max=20),
            retry=retry_if_exception_type((_Busy, httpx.TransportError)),
        )
        try:
            async for attempt in attempts:
                with attempt:
                    response = await self._client.post(
                        "completions", json={"model": self._name, **body}
                    )
                    if response.status_code == 429 or response.status_code >= 500:
                        raise _Busy(f"status {response.status_code}: {response.text[:200]}")
                    if response.is_error:
                        raise PolicyError(
                            f"{response.url} refused a completion "
                            f"({response.status_code}): {response.text[:500]}"
                        )
                    return _choice(response)
        except RetryError as error:
            cause = error.last_attempt.exception()
            raise PolicyError(
                f"{self._client.base_url} did not answer after {ATTEMPTS} attempts: {cause!r}"
            ) from error
        raise AssertionError("unreachable")


def _choice(response: httpx.Response) -> tuple[dict[str, Any], int]:
    try:
        answer = response.json()
        choice = answer["choices"][0]
        details = (answer.get("usage") or {}).get("prompt_tokens_details") or {}
        cached = int(details.get("cached_tokens") or 0)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise PolicyError(
            f"{response.url} does not answer as a completions endpoint should: "
            f"{response.text[:200]!r}"
        ) from error
    return choice, cached


async def _only_model(client: httpx.AsyncClient) -> str:
    try:
        response = await client.get("models")
        response.raise_for_status()
        names = [entry["id"] for entry in response.json()["data"]]
    except httpx.HTTPError as error:
        await client.aclose()
        raise PolicyError(f"cannot list the models of {client.base_url}: {error}") from error
    if len(names) != 1:
        await client.aclose()
        raise InputError(
            f"{client.base_url} serves {names}; set policy.served_model to one of them"
        )
    return str(names[0])
