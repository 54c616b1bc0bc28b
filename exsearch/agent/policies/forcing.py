"""Scoring a given answer on a hot prefix: a logits processor that forces tokens.

vLLM can report log-probabilities of a prompt's tokens, but doing so switches its
prefix cache off. Here the answer is "generated" instead: after the cached
prompt, the sampler is left no choice but the answer's next token, while the
engine reports the log-probabilities the model had before it was forced
(`logprobs_mode="raw_logprobs"`).
"""

from __future__ import annotations

import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

FORCED = "exsearch_forced_ids"
"""Key in `SamplingParams.extra_args`: the ids to force, in order."""


class ForcedTokens(AdapterLogitsProcessor):
    """Loaded into vLLM's engine process by name; acts only on requests that ask for it."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: SamplingParams):
        forced = (params.extra_args or {}).get(FORCED)
        if not forced:
            return None

        def force(output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
            position = len(output_ids)
            if position < len(forced):
                token = forced[position]
                kept = logits[token].clone()
                logits.fill_(float("-inf"))
                logits[token] = kept
            return logits

        return force
