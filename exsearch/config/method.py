"""Settings of the method: data, model, retrieval, agent, E-step, M-step, evaluation, gate."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from exsearch.config.section import Section

INSTRUCTION = (
    "Answer the question by searching an encyclopedia step by step. "
    "Write <QUERY> and a short sub-query to search. "
    "From what is found, write <FACT> and the fact that answers the sub-query, "
    "then the next <QUERY>, or <FINAL> once the facts suffice."
)

SELECTION = (
    "Which of these passages help to answer the query? "
    "Write their numbers only, the most useful first, for example: [2] > [1]"
)


class DataConfig(Section):
    """Where questions and passages come from."""

    corpus: str = ""
    """Passages: DPR's `psgs_w100.tsv[.gz]` or JSONL `{id,title,text|contents}`."""
    train: tuple[str, ...] = ()
    """Question files sampled from in the E-step."""
    dev: tuple[str, ...] = ()
    """Question files for choosing settings and for early stopping."""
    test: tuple[str, ...] = ()
    """Question files that the gate and the final table use, and nothing else."""
    warmup: tuple[str, ...] = ()
    """Question files with decompositions or supporting facts, for warm-up synthesis."""
    format: Literal["auto", "exsearch", "hotpotqa", "musique", "2wiki", "flashrag", "kilt"] = "auto"
    """How to read the question files."""
    train_limit: int | None = None
    """Use at most so many training questions per round (each round takes fresh ones)."""
    eval_limit: int | None = None
    """Evaluate on at most so many questions."""
    warmup_limit: int = 1000
    """At most so many warm-up trajectories (the paper: 1,000; 100 nearly suffice)."""
    warmup_hops: dict[int, float] = Field(default_factory=dict)
    """Share of warm-up questions by gold number of hops; empty: as they come."""
    warmup_min_overlap: float = Field(default=0.5, ge=0.0, le=1.0)
    """Share of a gold fact's words that a passage must hold, in order, to be its source."""
    warmup_missing: Literal["drop", "insert"] = "drop"
    """A hop whose gold passage is not retrieved: drop the question, or put the passage in."""
    skip_bad: bool = False
    """Count and report broken lines instead of stopping at the first."""


class ModelConfig(Section):
    """The language model to start from."""

    path: str = ""
    """A folder in Hugging Face format, weights as safetensors."""
    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    """Arithmetic of rollouts and training, and the saved weights' type.

    On a CPU bfloat16 pays where the processor multiplies it natively (AVX512-BF16, AMX);
    elsewhere use float32. `exsearch demo --speed-only` measures both."""
    max_tokens: int = 8192
    """Longest transcript, in tokens (the paper: 8,192)."""


class RetrievalConfig(Section):
    """ColBERT, its index and its service."""

    checkpoint: str = "colbert-ir/colbertv2.0"
    """A ColBERT checkpoint: a folder, a hub id, or `demo` (untrained, from a pip package)."""
    index: str = ""
    """Index folder; empty: `RUN/index`."""
    url: str = ""
    """Use the retriever service at this address instead of opening the index."""
    nbits: Literal[1, 2, 4] = 2
    """Bits per residual dimension."""
    doc_maxlen: int = Field(default=180, ge=4, le=512)
    """Longest passage, in ColBERT tokens."""
    query_maxlen: int = Field(default=32, ge=4, le=512)
    """Longest query, in ColBERT tokens."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the encoder on CPU, for passages and queries. bfloat16 is about twice as fast
    where the processor has it (AVX512-BF16, AMX), slower elsewhere; GPUs use float16."""
    batch_size: int = Field(default=64, ge=1)
    """Passages encoded at once."""
    shard_size: int = Field(default=5_000, ge=1)
    """Passages per encoded shard: what a killed build may lose."""
    kmeans_iterations: int = Field(default=4, ge=1)
    """k-means rounds for the centroids."""
    timeout: float = Field(default=30.0, gt=0.0)
    """Deadline of one search, retries included, in seconds."""
    retries: int = Field(default=4, ge=0)
    """Further attempts after a failed one."""
    cache: str = ""
    """Folder of the on-disk cache of results; empty: none."""


class AgentConfig(Section):
    """The protocol of one episode."""

    instruction: str = INSTRUCTION
    """Opens every transcript."""
    selection_instruction: str = SELECTION
    """Asks for the useful passages."""
    max_steps: int = Field(default=8, ge=1)
    """Searches allowed (the paper: 8); then the final turn is forced."""
    passages: int = Field(default=20, ge=1)
    """Passages retrieved per sub-query (the paper: 20)."""
    selection: Literal["learned", "top_n"] = "learned"
    """Who picks what is kept: the agent in a turn of its own, or the first `top_n`."""
    top_n: int = Field(default=3, ge=1)
    """Passages kept per step (at most, when selection is learned)."""
    max_passage_words: int = 120
    """A longer passage is cut to so many words in the transcript."""
    turn_tokens: int = 128
    """Longest turn the agent may write."""
    answer_tokens: int = 32
    """Longest final answer."""
    repairs: int = Field(default=1, ge=0)
    """Malformed turns answered by a repair reply before the episode fails."""


class PolicyConfig(Section):
    """Which engine writes the agent's turns."""

    kind: Literal["vllm", "openai", "transformers"] = "vllm"
    """In-process vLLM, an OpenAI-compatible server, or plain transformers."""
    url: str = ""
    """Base URL of the OpenAI-compatible server, e.g. `http://127.0.0.1:8000/v1`."""
    served_model: str = ""
    """The model's name on that server; empty: the only one it lists."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the server's key, if it wants one."""
    max_sequences: int = 64
    """Sequences vLLM runs at once."""
    gpu_memory: float = 0.85
    """Share of GPU memory for vLLM."""
    cpu_kv_gib: int = 2
    """KV cache on CPU, in GiB."""
    enforce_eager: bool = False
    """No compilation: starts faster, runs slower (on CPU about equal)."""
    tensor_parallel: int = 1
    """GPUs per engine."""
    concurrency: int = 128
    """Episodes in flight."""


class SamplingConfig(Section):
    """How trajectories are sampled in the E-step."""

    samples: int = Field(default=5, ge=1)
    """K, trajectories per question."""
    temperature: float = Field(default=0.8, ge=0.0)
    """Sampling temperature (the paper: 0.8)."""
    top_p: float = Field(default=0.95, gt=0.0, le=1.0)
    """Nucleus (the paper: 0.95)."""
    top_k: int = 0
    """Keep the k likeliest tokens; 0: all."""
    min_p: float = 0.0
    """Drop tokens less likely than this share of the likeliest."""


class WeighingConfig(Section):
    """From answer likelihoods to posterior weights."""

    temperature: float = Field(default=1.0, gt=0.0)
    """τ in softmax(log p(y|x,z)/τ)."""
    aliases: Literal["max", "logsumexp"] = "max"
    """How several gold answers count: the best one, or their sum."""
    min_answer_probability: float = Field(default=0.1, ge=0.0, le=1.0)
    """Below this best p(y|x,z_k) a question is unreached, trains nothing; 0: the paper's rule."""
    min_weight: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Samples of no more than this weight are left out of the M-step."""


class TrainingConfig(Section):
    """The weighted trainer, for `sft` and `align` alike."""

    learning_rate: float = 2e-6
    """Peak learning rate (the paper: 2e-6)."""
    epochs: float = 2.0
    """Passes over the examples (the paper: 2)."""
    batch_size: int = Field(default=32, ge=1)
    """Examples per optimizer step, over all ranks."""
    micro_tokens: int = Field(default=8192, ge=1)
    """Tokens per forward pass and rank, padding included: sets the micro-batches."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """Decay after the warm-up."""
    warmup_ratio: float = 0.1
    """Share of steps with a rising learning rate (the paper: 0.1)."""
    weight_decay: float = 0.0
    """AdamW's weight decay."""
    max_grad_norm: float = Field(default=1.0, gt=0.0)
    """Largest gradient norm, on the scale of the loss per agent token."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass: slower, smaller."""
    overlong: Literal["refuse", "drop", "cut"] = "drop"
    """What becomes of an example over `model.max_tokens`; dropped and cut ones are counted."""
    freeze_embeddings: bool = False
    """Keep the (tied) embedding matrix as it is."""
    freeze_layers: int = Field(default=0, ge=0)
    """Keep the lowest so many layers as they are; with frozen embeddings the backward pass
    ends above them."""
    lora_rank: int = Field(default=0, ge=0)
    """LoRA rank; 0 trains the weights themselves. Adapters are merged when saved."""
    save_steps: int = Field(default=200, ge=1)
    """A resumable checkpoint every so many optimizer steps."""
    zero_stage: Literal[0, 2, 3] = 0
    """DeepSpeed ZeRO stage; 0 trains without DeepSpeed."""
    offload: bool = False
    """Keep ZeRO's optimizer state in host memory."""
    nproc: int = Field(default=1, ge=1)
    """Processes on this machine, under torchrun when more than one."""
    report_to: tuple[str, ...] = ()
    """Trackers of the Trainer: wandb, tensorboard, mlflow."""


class EvaluationConfig(Section):
    """How a model is measured."""

    bootstrap: int = 10_000
    """Resamples behind every interval and comparison."""
    confidence: float = 0.95
    """Coverage of the intervals."""
    score_gold: bool = True
    """Also measure log p(gold answer | greedy episode), the marginal at K=1."""


class GateConfig(Section):
    """When a candidate replaces the champion."""

    champion: str = ""
    """Folder of the model to beat; empty: the model the rounds started from. The pipeline sets it
    to the model in service when the run begins."""
    metric: Literal["em", "f1", "accuracy"] = "em"
    """The metric that must gain."""
    margin: float = 0.0
    """The paired gain's lower bound must exceed this."""
    confidence: float = 0.95
    """One-sided confidence is (1 + this) / 2: the interval's lower end."""
    max_recall_loss: float = 0.02
    """Largest fall of retrieval recall that is still no fall."""


class LoopConfig(Section):
    """The E&M rounds."""

    iterations: int = Field(default=3, ge=0)
    """Rounds of E-step and M-step (the paper stops after 2–3 of 5)."""
    patience: int = Field(default=0, ge=0)
    """Stop after so many rounds without a gain of the dev metric over the best; 0: never."""
    from_base: bool = False
    """Start each M-step from the warm-up model instead of the previous round's."""
    warmup_share: float = Field(default=0.0, ge=0.0)
    """Mix warm-up examples into each M-step, as a share of its examples."""
