"""vLLM inside this process: continuous batching, cached prefixes, token ids in and out."""

from __future__ import annotations

import asyncio
import itertools
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

from exsearch.agent.chat import ChatFormat
from exsearch.agent.model_files import model_digest, model_folder
from exsearch.agent.policies.base import Completion, PolicyStats, Sampling
from exsearch.agent.policies.engine_log import EngineLog
from exsearch.config import ModelConfig, PolicyConfig
from exsearch.errors import InputError, PolicyError

CPU_BLOCK = 32
"""Tokens per KV block on CPU, the least it takes; prefixes are shared in whole blocks."""


def prepare_environment(config: PolicyConfig) -> None:
    """Set what vLLM reads from the environment, before it is imported.

    The engine runs in a child process started afresh, and on CPU uses every core
    this process may use (vLLM's own choice leaves one of two idle).
    """
    cores = sorted(os.sched_getaffinity(0))
    defaults = {
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_CPU_KVCACHE_SPACE": str(config.cpu_kv_gib),
        "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


class VllmPolicy:
    """See `Policy`. One engine, one model; `load` starts it anew on other weights."""

    def __init__(self, model: str, config: ModelConfig, policy: PolicyConfig, seed: int) -> None:
        folder = model_folder(model)
        self.chat = ChatFormat.load(folder)
        self.digest = model_digest(model)
        self.max_tokens = config.max_tokens
        self.stats = PolicyStats()
        self._names = (f"{uuid.uuid4().hex[:8]}-{n}" for n in itertools.count())
        self._how = (config, policy, seed)
        self._log = EngineLog()
        self._engine = _start(folder, *self._how, self._log)

    async def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sequence[Sampling]
    ) -> list[Completion]:
        from vllm import SamplingParams

        def params(how: Sampling) -> SamplingParams:
            return SamplingParams(
                temperature=how.temperature,
                top_p=how.top_p,
                top_k=how.top_k,
                min_p=how.min_p,
                max_tokens=how.max_tokens,
                seed=how.seed if how.temperature > 0 else None,
                logprobs=0,
                stop_token_ids=[self.chat.end_ids[-1]],
                detokenize=False,
            )

        calls = (
            self._run(prompt, params(how)) for prompt, how in zip(prompts, sampling, strict=True)
        )
        return list(await asyncio.gather(*calls))

    async def score(
        self, prompts: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        from vllm import SamplingParams

        from exsearch.agent.policies.forcing import FORCED

        def params(target: Sequence[int]) -> SamplingParams:
            return SamplingParams(
                temperature=0.0,
                max_tokens=len(target),
                ignore_eos=True,
                logprobs=0,
                detokenize=False,
                extra_args={FORCED: list(target)},
            )

        calls = (
            self._run(prompt, params(target), forced=True)
            for prompt, target in zip(prompts, targets, strict=True)
        )
        completions = await asyncio.gather(*calls)
        for completion, target in zip(completions, targets, strict=True):
            if completion.ids != tuple(target):
                raise PolicyError(
                    "vLLM did not follow the forced answer tokens; its version may ignore "
                    "logits processors: install the pinned one"
                )
        return [list(completion.logprobs) for completion in completions]

    async def _run(self, prompt: Sequence[int], params, *, forced: bool = False) -> Completion:
        from vllm import TokensPrompt
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        last = None
        try:
            request = self._engine.generate(
                TokensPrompt(prompt_token_ids=list(prompt)), params, next(self._names)
            )
            async for output in request:
                last = output
        except (EngineDeadError, EngineGenerateError) as error:
            raise PolicyError(
                f"vLLM's engine died: {error}. What was finished is kept; run the step "
                f"again. Its last words:\n{self._log.end()}"
            ) from error
        assert last is not None, "vLLM ended a request without output"
        [out] = last.outputs
        ids = tuple(out.token_ids)
        logprobs = tuple(
            entry[token].logprob
            for entry, token in zip(out.logprobs or (), ids, strict=True)
            if entry is not None
        )
        cached = last.num_cached_tokens or 0
        self._count(len(prompt), cached, len(ids), forced)
        ended = bool(ids) and ids[-1] == self.chat.end_ids[-1]
        return Completion(ids, logprobs, ended, cached)

    def _count(self, prompt: int, cached: int, output: int, forced: bool) -> None:
        self.stats.requests += 1
        self.stats.prompt_tokens += prompt
        self.stats.cached_tokens += cached
        if forced:
            self.stats.scored_tokens += output
        else:
            self.stats.output_tokens += output

    async def load(self, model: str) -> None:
        folder = model_folder(model)
        self.digest = model_digest(model)
        # vLLM's `reload_weights` would be faster, but keeps the old output head where it
        # is tied to the embeddings (seen with 0.32 on CPU, where the head is packed once).
        self._engine.shutdown()
        self._engine = _start(folder, *self._how, self._log)

    async def forget(self) -> None:
        """Empty the prefix cache, as if the engine had just started."""
        await self._engine.reset_prefix_cache()

    async def close(self) -> None:
        self._engine.shutdown()
        del self._engine  # its finaliser must not run when the interpreter is half gone
        self._log.remove()


def _start(folder: Path, config: ModelConfig, policy: PolicyConfig, seed: int, log: EngineLog):
    prepare_environment(policy)
    try:
        with log.listening():
            return _engine(folder, config, policy, seed)
    except ImportError as error:
        log.remove()
        raise InputError(
            f"vLLM cannot be imported ({error}): pip install 'exsearch[rollout-cpu]' "
            "or 'exsearch[rollout-gpu]', or set policy.kind to transformers"
        ) from error
    except (RuntimeError, ValueError, OSError) as error:
        words = log.end()
        log.remove()
        raise PolicyError(f"vLLM did not start on {folder}: {error}\n{words}") from error


def _engine(folder: Path, config: ModelConfig, policy: PolicyConfig, seed: int):
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    on_cpu = current_platform.is_cpu()
    return AsyncLLM.from_engine_args(
        AsyncEngineArgs(
            model=str(folder),
            dtype=config.dtype,
            seed=seed,
            max_model_len=config.max_tokens,
            max_num_seqs=policy.max_sequences,
            enforce_eager=policy.enforce_eager,
            enable_prefix_caching=True,
            # A seeded request whose prompt is read in pieces has its random generator set
            # back, which torch's generator on a CPU cannot do: the engine would die.
            enable_chunked_prefill=False if on_cpu else None,
            block_size=CPU_BLOCK if on_cpu else None,
            gpu_memory_utilization=policy.gpu_memory,
            tensor_parallel_size=policy.tensor_parallel,
            logprobs_mode="raw_logprobs",
            logits_processors=["exsearch.agent.policies.forcing:ForcedTokens"],
            disable_log_stats=True,
        )
    )
