"""One served model: a question in, an answer or a named refusal out, within limits.

Every protocol (chat completions, KServe's v1 and v2) comes here, and from here the episode is
the one that rollouts and evaluation run.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from opentelemetry.trace import Tracer

from exsearch.agent.episode import EpisodeResult, Event, Setting, run_episode
from exsearch.agent.policies.base import Sampling
from exsearch.config import ServingConfig
from exsearch.errors import PolicyError
from exsearch.serving.admission import Admission, Place
from exsearch.serving.health import Health
from exsearch.serving.meter import Meter, metered
from exsearch.serving.metrics import Metrics
from exsearch.serving.refusals import Refused
from exsearch.serving.tracing import EpisodeTrace, traced

log = logging.getLogger(__name__)

Watch = Callable[[Event], None]


@dataclass(frozen=True)
class Limits:
    """What one question may use.

    Attributes:
        deadline: seconds, its wait included.
        max_tokens: tokens that the agent writes, over all turns.
    """

    max_steps: int
    passages: int
    max_tokens: int
    deadline: float


@dataclass(frozen=True)
class Ask:
    """A question and how it is to be answered."""

    request: str
    """Id of the request, for logs and feedback."""
    question: str
    sampling: Sampling
    limits: Limits
    headers: Mapping[str, str] = field(default_factory=dict)
    """The request's, for the trace it belongs to."""


@dataclass(frozen=True)
class Answered:
    """An answer and what it took.

    Attributes:
        waiting: seconds until a slot was free.
        total: seconds from arrival to answer.
    """

    ask: Ask
    answer: str
    result: EpisodeResult
    meter: Meter
    waiting: float
    total: float
    model: str
    index: str

    @property
    def overhead(self) -> float:
        """Seconds that were neither waiting, nor the engine's, nor the retriever's."""
        return self.total - self.waiting - self.meter.engine - self.meter.retriever


class ServedAgent:
    """A model with its engine, its retriever, and the limits under which it answers.

    Args:
        name: as requests call it.
        role: champion or candidate.
        admission: shared by all models of one server.
        mortal: see `Health`.
    """

    def __init__(
        self,
        name: str,
        role: str,
        setting: Setting,
        config: ServingConfig,
        admission: Admission,
        metrics: Metrics,
        tracer: Tracer,
        *,
        mortal: bool = False,
    ) -> None:
        self.name, self.role, self.setting, self.config = name, role, setting, config
        self.admission = admission
        self.health = Health(config.probe, mortal=mortal)
        self._metrics, self._tracer = metrics, tracer
        self._deadlines: set[asyncio.Timeout] = set()

    @property
    def limits(self) -> Limits:
        """The most that one question may use."""
        agent, own = self.setting.agent, self.config
        return Limits(agent.max_steps, agent.passages, own.max_tokens, own.deadline)

    def take(self, count: int = 1) -> list[Place]:
        """See `Admission.take`."""
        try:
            return self.admission.take(count)
        except Refused as refused:
            self._metrics.rejected.labels(refused.reason).inc(count)
            raise

    async def answer(self, ask: Ask, place: Place, watch: Watch | None = None) -> Answered:
        """Run one episode.

        Raises:
            Refused: no answer came of it; its reason says why.
        """
        meter, timer = Meter(), _Timer(self._metrics)
        with traced(self._tracer, ask.request, ask.headers, self.config.log_questions) as spans:
            watchers = [timer, spans, *([watch] if watch else [])]
            try:
                answered = await self._within_deadline(ask, place, meter, watchers, timer)
            except Refused as refused:
                self._failed(ask, refused.reason, str(refused), timer, spans)
                raise
            except asyncio.CancelledError:
                self._failed(ask, "disconnected", "the client has gone", timer, spans)
                raise
            finally:
                place.leave()
                self._metrics.used(meter.prompt, meter.cached, meter.output)
                self._metrics.episode_seconds.observe(timer.total)
        self._succeeded(answered)
        return answered

    async def _within_deadline(
        self,
        ask: Ask,
        place: Place,
        meter: Meter,
        watchers: Sequence[Watch],
        timer: _Timer,
    ) -> Answered:
        waited = 0.0
        deadline = asyncio.timeout(ask.limits.deadline)
        self._deadlines.add(deadline)
        try:
            async with deadline, place.turn() as waited:
                self._metrics.waiting_seconds.observe(waited)
                result = await self._episode(ask, meter, watchers)
        except TimeoutError as error:
            raise self._late(ask) from error
        finally:
            self._deadlines.discard(deadline)
        if result.failure is not None or result.answer is None:
            raise _refusal(result)
        policy, retriever = self.setting.policy, self.setting.retriever
        return Answered(
            ask, result.answer, result, meter, waited, timer.total, policy.digest, retriever.digest
        )

    async def _episode(self, ask: Ask, meter: Meter, watchers: Sequence[Watch]) -> EpisodeResult:
        limits = {"max_steps": ask.limits.max_steps, "passages": ask.limits.passages}
        agent = self.setting.agent.model_copy(update=limits)
        setting = metered(
            self.setting, agent, ask.limits.max_tokens, meter, self.health, self._metrics
        )

        def tell(event: Event) -> None:
            for watcher in watchers:
                watcher(event)

        try:
            return await run_episode(ask.question, setting, ask.sampling, tell)
        except PolicyError as error:
            raise Refused("engine", f"the engine failed: {error}") from error

    def _late(self, ask: Ask) -> Refused:
        if self.admission.closing:
            return Refused("closing", "this server has shut down before the answer was there")
        return Refused(
            "deadline",
            f"no answer within {ask.limits.deadline:g} seconds; allow fewer steps, or come back "
            "when there is less to do",
        )

    def end_all(self) -> None:
        """Let every open question fail now: the server ends."""
        now = asyncio.get_running_loop().time()
        for deadline in self._deadlines:
            if not deadline.expired():
                deadline.reschedule(now)

    def _succeeded(self, answered: Answered) -> None:
        self._metrics.steps.observe(len(answered.result.steps))
        texts = {"question": answered.ask.question, "answer": answered.answer}
        self._log("answered", answered.ask, answered.total, answered.meter, texts)

    def _failed(
        self, ask: Ask, reason: str, detail: str, timer: _Timer, spans: EpisodeTrace
    ) -> None:
        self._metrics.failures.labels(reason).inc()
        spans.failed(reason)
        told = {"reason": reason, "question": ask.question, "detail": detail}
        self._log("failed", ask, timer.total, None, told)

    def _log(
        self, what: str, ask: Ask, seconds: float, meter: Meter | None, texts: dict[str, str]
    ) -> None:
        told: dict[str, object] = {
            "request_id": ask.request,
            "model": self.name,
            "seconds": round(seconds, 3),
        }
        if meter is not None:
            told |= {"searches": meter.searches, "tokens": meter.output}
        if "reason" in texts:
            told["reason"] = texts["reason"]
        if self.config.log_questions:
            told |= texts
        log.info(what, extra={"fields": told})


class _Timer:
    """Measures a question's first step and each step, by its events."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._came = time.perf_counter()
        self._last: float | None = None

    @property
    def total(self) -> float:
        return time.perf_counter() - self._came

    def __call__(self, event: Event) -> None:
        if event.kind not in ("query", "answer"):
            return
        now = time.perf_counter()
        if self._last is None:
            self._metrics.first_step_seconds.observe(now - self._came)
        else:
            self._metrics.step_seconds.observe(now - self._last)
        self._last = now


_SAID = {
    "malformed": "the agent wrote something that its protocol does not know",
    "empty_answer": "the agent gave an empty answer",
    "too_long": "the question and what was found for it are too long for the model",
    "token_budget": "the agent used up its tokens before it had an answer",
    "retriever": "the retriever does not answer",
}


def _refusal(result: EpisodeResult) -> Refused:
    """What an episode's failure means to the client; details of ours stay in the log."""
    failure = result.failure
    reason = failure.reason if failure is not None else "empty_answer"
    return Refused(reason, _SAID[reason])
