"""What Prometheus reads. Labels take few values only, whatever strangers send."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from exsearch.retrieval.client import RetrieverClient
from exsearch.retrieval.retriever import Retriever
from exsearch.serving.admission import Admission
from exsearch.serving.health import Health

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60, 120, 300)
STEPS = (0, 1, 2, 3, 4, 5, 6, 8, 12, 16)


class Metrics:
    """The predictor's metrics, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests answered.", "route", "code")
        self.request_seconds = self._histogram(
            "request_seconds", "From a request's arrival to the end of its answer.", "route"
        )
        self.first_step_seconds = self._histogram(
            "first_step_seconds", "From a question's arrival to the first sub-query or the answer."
        )
        self.step_seconds = self._histogram("step_seconds", "From one sub-query to what follows.")
        self.episode_seconds = self._histogram(
            "episode_seconds", "From a question's arrival to its answer or failure."
        )
        self.waiting_seconds = self._histogram("waiting_seconds", "Waited for a free slot.")
        self.retrieval_seconds = self._histogram("retrieval_seconds", "Of one search.")
        self.engine_seconds = self._histogram("engine_seconds", "Of one turn.")
        self.steps = self._histogram("steps", "Searches of an answered question.", buckets=STEPS)
        self.tokens = self._counter("tokens", "Tokens read, cached and written.", "kind")
        self.failures = self._counter("failures", "Questions without an answer.", "reason")
        self.rejected = self._counter("rejected", "Questions that were not taken.", "reason")
        self.feedback = self._counter("feedback", "Verdicts received.", "verdict")
        self.models = Gauge(
            "exsearch_agent_model_info", "1: this model is served.", ("role", "digest"),
            registry=self.registry,
        )  # fmt: skip

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"exsearch_agent_{name}", what, labels, registry=self.registry)

    def _histogram(
        self, name: str, what: str, *labels: str, buckets: tuple[float, ...] = SECONDS
    ) -> Histogram:
        name = f"exsearch_agent_{name}"
        return Histogram(name, what, labels, buckets=buckets, registry=self.registry)

    def follow(self, admission: Admission, parts: list[Health], retriever: Retriever) -> None:
        """Read these at each scrape."""
        self._gauge("queue_depth", "Questions that wait.", lambda: admission.waiting)
        self._gauge("running", "Episodes under way.", lambda: admission.running)
        self._gauge(
            "engine_ready", "1: every engine answers.", lambda: all(h.engine.ok for h in parts)
        )
        self._gauge("retriever_ready", "1: the retriever answers.", lambda: parts[0].retriever.ok)
        if isinstance(retriever, RetrieverClient):
            self.registry.register(_CacheCounts(retriever))

    def _gauge(self, name: str, what: str, value: Callable[[], float]) -> None:
        Gauge(f"exsearch_agent_{name}", what, registry=self.registry).set_function(value)

    def used(self, prompt: int, cached: int, output: int) -> None:
        """Count the tokens of an episode."""
        self.tokens.labels("prompt").inc(prompt)
        self.tokens.labels("cached").inc(cached)
        self.tokens.labels("output").inc(output)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _CacheCounts(Collector):
    """The retriever client's own counters."""

    def __init__(self, client: RetrieverClient) -> None:
        self._client = client

    def collect(self) -> Iterable[CounterMetricFamily]:
        stats = self._client.stats
        family = CounterMetricFamily(
            "exsearch_agent_retrieval_cache",
            "Sub-queries by where they were found.",
            labels=["result"],
        )
        family.add_metric(["hit"], stats.cache_hits)
        family.add_metric(["miss"], stats.queries - stats.cache_hits)
        yield family
