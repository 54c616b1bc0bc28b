"""Settings of the predictor: its limits, what it tells, what it learns from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from exsearch.config.section import Section


class LearningConfig(Section):
    """Questions from use, written down for the next run. Off until a folder is named."""

    folder: str = ""
    """Folder of the log, which `data.train` may name as a question set; empty: nothing is kept."""
    max_bytes: int = Field(default=10_000_000, ge=1_000)
    """A file is closed once it is larger, and the next begun."""
    max_files: int = Field(default=20, ge=1)
    """Files kept in the folder, of all servers that write to it; the oldest go first."""
    retention_days: float = Field(default=90.0, gt=0.0)
    """A file is deleted when its last verdict is older."""
    redact: str = ""
    """`package.module:function` that takes a text and gives it back without what must not be
    kept, or None for not at all; empty: texts are kept as they are."""


class ServingConfig(Section):
    """`exsearch serve`. A request may lower a limit, never raise it."""

    name: str = "exsearch"
    """The model's name in requests; the candidate's ends in `-candidate`."""
    candidate: str = ""
    """Folder of a second model, served beside the first for comparison; empty: none. It has an
    engine of its own: with GPUs, halve `policy.gpu_memory`."""
    deadline: float = Field(default=120.0, gt=0.0)
    """Seconds a request may take, its wait included."""
    max_tokens: int = Field(default=2048, ge=1)
    """Tokens the agent may write for one question."""
    max_question: int = Field(default=4000, ge=1)
    """Characters of a question."""
    concurrency: int = Field(default=16, ge=1)
    """Episodes at one time."""
    queue: int = Field(default=64, ge=0)
    """Questions that may wait; the next is told to come back later (429)."""
    batch: int = Field(default=32, ge=1)
    """Questions of one v1 or v2 request."""
    drain: float = Field(default=30.0, ge=0.0)
    """Seconds that open requests get once the server has been told to end."""
    probe: float = Field(default=10.0, gt=0.0)
    """Engine and retriever are tried when neither has answered anyone for so many seconds."""
    token_env: str = "EXSEARCH_TOKEN"
    """Environment variable with the bearer token that requests must bring; unset: none needed."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may call from a browser."""
    log_format: Literal["json", "text"] = "json"
    """One JSON object per line, or lines for people."""
    log_questions: bool = False
    """Also log questions, sub-queries and answers, and put them into traces."""
    traces: str = ""
    """OTLP/HTTP endpoint for traces, such as `http://collector:4318/v1/traces`; empty: none."""
    learning: LearningConfig = LearningConfig()
