"""What flows between the steps, and its one-object-per-line JSON form.

    Question ── rollout ──▶ Trajectory ── weigh ──▶ QuestionWeights ──▶ Example ── align

Records are frozen and refuse unknown fields: a file written by one step is read
back by the next exactly as it was, or not at all. Token ids travel inside
(`Transcript`), so that nothing is ever detokenised and tokenised again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exsearch.errors import BadLine

Role = Literal["system", "user", "assistant"]


class Record(BaseModel):
    """Base of everything written to disk: immutable, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_line(self) -> str:
        """One JSON line (no newline inside, stable key order), without the line's end."""
        return self.model_dump_json(exclude_defaults=True)


class Hop(Record):
    """One gold step of a question's decomposition, its references already resolved."""

    query: str
    answer: str
    title: str | None = None
    pid: str | None = None
    fact: str | None = None
    """The sentence that supports the answer, where the data set marks one."""


class Question(Record):
    """A question with every answer that counts as right."""

    id: str = Field(min_length=1)
    question: str = Field(min_length=1)
    answers: tuple[str, ...] = Field(min_length=1)
    """Gold answer first, then its aliases."""
    dataset: str = ""
    kind: str = ""
    """The data set's own type: bridge, comparison, 3hop1…"""
    hops: int | None = None
    """Gold number of searches, where known."""
    titles: tuple[str, ...] = ()
    """Titles of the gold passages, without repeats."""
    pids: tuple[str, ...] = ()
    """Ids of the gold passages in the corpus, where known."""
    decomposition: tuple[Hop, ...] = ()


class Passage(Record):
    """A passage of the corpus; `score` only where a retriever returned it."""

    pid: str
    title: str
    text: str
    score: float | None = None


class Segment(Record):
    """A run of tokens by one author. Only what the agent wrote carries loss."""

    role: Role
    ids: tuple[int, ...]
    agent: bool = False


class Transcript(Record):
    """A conversation as the engine saw it: token ids, in order, nothing else."""

    segments: tuple[Segment, ...]

    @property
    def token_ids(self) -> list[int]:
        """All ids, shape [tokens]."""
        return [i for s in self.segments for i in s.ids]

    @property
    def loss_mask(self) -> list[bool]:
        """True where the agent wrote the token, shape [tokens]."""
        return [s.agent for s in self.segments for _ in s.ids]


class Step(Record):
    """One search: sub-query x_i, the passages returned, those kept (d_i), the evidence e_i."""

    query: str
    passages: tuple[Passage, ...] = ()
    kept: tuple[int, ...] = ()
    """Positions in `passages`, counted from 1 as the agent sees them, best first."""
    evidence: str | None = None
    selection: Transcript | None = None
    """The selection exchange, where selection is learned."""


class AnswerScore(Record):
    """log p(alias | question, trajectory), summed over the alias's own tokens."""

    alias: str
    logprob: float
    tokens: int


class Provenance(Record):
    """Digests of what made a record: a trajectory is only as good as these."""

    model: str
    index: str
    prompt: str


class Failure(Record):
    """Why an episode did not end in an answer. The episode keeps its place."""

    reason: str
    """A short stable word for counting: retriever, malformed, too_long, policy…"""
    detail: str = ""


class Trajectory(Record):
    """One sampled episode z_k for a question, and how it ended."""

    question_id: str
    sample: int
    provenance: Provenance
    steps: tuple[Step, ...] = ()
    answer: str | None = None
    transcript: Transcript | None = None
    """Up to and including the closing reply; the answer's own turn is `answer_ids`."""
    answer_ids: tuple[int, ...] = ()
    scores: tuple[AnswerScore, ...] = ()
    """Scored by the engine that sampled it, while its prefix was still cached."""
    forced: bool = False
    """The step limit, not the agent, ended the search."""
    repairs: int = 0
    exact: bool = True
    """The ids equal a fresh rendering of the chat template over the same text."""
    failure: Failure | None = None

    @property
    def key(self) -> str:
        return f"{self.question_id}#{self.sample}"


class WeightedTrajectory(Record):
    """One sample's share of its question's posterior."""

    sample: int
    weight: float
    """softmax over the question's samples of log p(y|x,z_k)/τ; 0 where it failed."""
    log_likelihood: float | None = None
    """log p(y|x,z_k), None where the sample failed."""
    correct: bool = False
    steps: int = 0
    failure: str | None = None


class QuestionWeights(Record):
    """All K samples of one question, together: the E-step's result for it."""

    question_id: str
    samples: tuple[WeightedTrajectory, ...]
    log_marginal: float | None
    """log(1/K Σ_k p(y|x,z_k)); None where every sample failed."""
    ess: float
    """Effective sample size 1/Σw², 0 where every sample failed."""
    reached: bool
    """Some sample makes the gold answer at least `min_answer_probability` likely."""


class Demonstration(Record):
    """A gold episode for warm-up: what a good agent would have written, no tokens yet."""

    id: str
    question: str
    steps: tuple[Step, ...]
    answer: str


class Message(Record):
    """One turn of a chat, as text."""

    role: Role
    content: str


class Conversation(Record):
    """A chat to imitate as it stands (the authors' released `messages` files)."""

    id: str
    messages: tuple[Message, ...] = Field(min_length=2)


class Example(Record):
    """What the trainer sees: a transcript and how much it counts."""

    id: str
    transcript: Transcript
    weight: float = Field(default=1.0, ge=0.0)


R = TypeVar("R", bound=Record)


def parse_line(model: type[R], line: str, source: str, number: int) -> R:
    """Read one JSON line as `model`.

    Raises:
        BadLine: naming the file, the line number and the first field at fault.
    """
    try:
        return model.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(line)"
        raise BadLine(source, number, field, first["msg"]) from None


def read_records(model: type[R], lines: Iterable[str], source: str) -> Iterator[R]:
    """Read `model` from JSON lines, passing over blank ones.

    Raises:
        BadLine: at the first line that is not a `model`.
    """
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield parse_line(model, line, source, number)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and no spaces: equal values give equal bytes (for digests)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
