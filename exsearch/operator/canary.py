"""The trial of a candidate: its figures, from Prometheus, against its budget."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from exsearch.errors import ExSearchError
from exsearch.operator.spec import CanaryConfig

DEADLINE = 10.0
"""Seconds for which Prometheus is waited for."""


class NoFigures(ExSearchError):
    """Prometheus does not answer, or not with figures."""


@dataclass(frozen=True)
class Figures:
    """What a candidate's pods have done since its trial began."""

    requests: float
    errors: float
    """Of those, answered with 5xx."""
    latency: float
    """95th percentile of the seconds to an answer; NaN: no question was answered."""
    pods: float = 1.0
    """Pods that Prometheus knows to serve it."""

    def __str__(self) -> str:
        share = 100 * self.errors / self.requests if self.requests else 0.0
        slow = "no answer timed" if math.isnan(self.latency) else f"p95 {self.latency:.1f} s"
        return f"{self.requests:.0f} requests, {share:.1f} % errors, {slow}"


@dataclass(frozen=True)
class Judgement:
    """What becomes of a candidate, and why."""

    verdict: Literal["go on", "promote", "roll back"]
    why: str


def judge(budget: CanaryConfig, figures: Figures, elapsed: float) -> Judgement:
    """Hold a candidate's figures against its budget.

    A budget of errors is broken once there are more than `min_requests` good requests could
    make up for: one error among the first three is no verdict.

    Args:
        elapsed: seconds since its trial began.
    """
    if not figures.pods:
        # Not scraped, or not ready where others answer in their place: that is no verdict.
        return Judgement("go on", "Prometheus knows no pod that serves it; is it scraped?")
    enough = figures.requests >= max(budget.min_requests, 1)
    allowed = budget.max_error_rate * max(figures.requests, budget.min_requests, 1)
    if figures.errors > allowed:
        return Judgement("roll back", f"more errors than its budget: {figures}")
    if enough and figures.latency > budget.max_latency:
        return Judgement("roll back", f"slower than its budget: {figures}")
    if elapsed < 60 * budget.minutes:
        left = budget.minutes - elapsed / 60
        return Judgement("go on", f"{left:.0f} of {budget.minutes:g} minutes to go: {figures}")
    if figures.requests < budget.min_requests:
        asked = f"waiting for {budget.min_requests} requests"
        return Judgement("go on", f"{asked}: {figures}")
    return Judgement("promote", f"within its budget for {elapsed / 60:.0f} minutes: {figures}")


def await_pods(budget: CanaryConfig, waited: float) -> Judgement:
    """What becomes of a candidate whose pods are not ready.

    Args:
        waited: seconds since they should have begun to be.
    """
    if waited > 60 * budget.ready_minutes:
        why = f"its pods were not ready within {budget.ready_minutes:g} minutes"
        return Judgement("roll back", why)
    return Judgement("go on", "its pods are not ready yet")


async def measure(
    http: httpx.AsyncClient, prometheus: str, namespace: str, digest: str, seconds: float
) -> Figures:
    """A candidate's figures: of the pods that say they serve it, whatever they are named.

    Args:
        digest: of its weights.
        seconds: since its trial began.

    Raises:
        NoFigures: Prometheus does not answer.
    """
    window = f"{max(60, math.ceil(seconds))}s"
    here = f"namespace={json.dumps(namespace)}"
    its = f'exsearch_agent_model_info{{{here},role="champion",digest={json.dumps(digest)}}}'
    serving = f"max by (pod) ({its})"
    of_its_pods = f"* on (pod) group_left () {serving}"
    # Probes and scrapes are answered, too; only questions count.
    asked = f'{here},route=~".*(chat/completions|:predict|/infer)"'
    pods, total, errors, latency = [
        f"count({serving})",
        f"sum(increase(exsearch_agent_requests_total{{{asked}}}[{window}]) {of_its_pods})",
        f'sum(increase(exsearch_agent_requests_total{{{asked},code=~"5.."}}[{window}]) '
        f"{of_its_pods})",
        "histogram_quantile(0.95, sum by (le) "
        f"(rate(exsearch_agent_episode_seconds_bucket{{{here}}}[{window}]) {of_its_pods}))",
    ]
    return Figures(
        pods=await _value(http, prometheus, pods, 0.0),
        requests=await _value(http, prometheus, total, 0.0),
        errors=await _value(http, prometheus, errors, 0.0),
        latency=await _value(http, prometheus, latency, math.nan),
    )


async def _value(http: httpx.AsyncClient, prometheus: str, query: str, empty: float) -> float:
    """The one number that a query gives.

    Args:
        empty: the value where there are no series.
    """
    url = f"{prometheus.rstrip('/')}/api/v1/query"
    try:
        answer = await http.get(url, params={"query": query}, timeout=DEADLINE)
        answer.raise_for_status()
        found: list[Any] = answer.json()["data"]["result"]
        value = float(found[0]["value"][1]) if found else empty
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        raise NoFigures(
            f"{prometheus} gives no figures ({error or type(error).__name__}). Check "
            "spec.canary.prometheus, and that the operator may reach it"
        ) from error
    return empty if math.isnan(value) else value
