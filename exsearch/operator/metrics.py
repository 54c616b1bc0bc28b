"""What Prometheus reads of the operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60)


class Metrics:
    """The operator's metrics, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.phases: dict[tuple[str, str], str] = {}
        """The phase of each agent, by namespace and name."""
        self.reconciles = self._counter(
            "reconciles", "Looks at an agent: done, or failed.", "result"
        )
        self.reconcile_seconds = Histogram(
            "exsearch_operator_reconcile_seconds", "Of one look at an agent.",
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.transitions = self._counter("transitions", "Steps of agents' models.", "transition")
        self.api_requests = self._counter(
            "api_requests", "Answers of the Kubernetes API.", "verb", "code"
        )
        self.leader = Gauge(
            "exsearch_operator_leader", "1: this operator acts.", registry=self.registry
        )
        self.registry.register(_Phases(self.phases))

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(f"exsearch_operator_{name}", what, labels, registry=self.registry)

    @property
    def counted(self) -> Callable[[str, str], None]:
        """Counts one answer of the API: its verb and status."""
        return lambda verb, code: self.api_requests.labels(verb, code).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Phases(Collector):
    """Agents by phase, counted when asked."""

    def __init__(self, phases: dict[tuple[str, str], str]) -> None:
        self._phases = phases

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily("exsearch_operator_agents", "Agents.", labels=["phase"])
        every = list(self._phases.values())
        for phase in sorted(set(every)):
            family.add_metric([phase], every.count(phase))
        yield family
