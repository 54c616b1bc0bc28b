"""The page's charts, part by part: over the stages, in the E-steps, in training, in time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from markupsafe import Markup

from exsearch.evaluation.report import charts
from exsearch.evaluation.report.charts import Curve, Line, Point, decimal, percent, plain
from exsearch.evaluation.report.sources import Round, Run

Chart = tuple[str, str, Markup]
"""Heading, a sentence on how to read it, the drawing."""


def progress(run: Run) -> list[Chart]:
    """Curves over the stages on the test questions, and the paired gains."""
    stages = run.stages
    names = [stage.name for stage in stages]

    def chart(
        title: str,
        told: str,
        fields: dict[str, str],
        form: Callable[[float], str] = percent,
        within: tuple[float | None, float | None] = (0.0, None),
    ) -> Chart:
        lines = [
            Line(label, tuple(Point(getattr(s, f), getattr(s, f"{f}_ci", None)) for s in stages))
            for f, label in fields.items()
        ]
        return title, told, charts.line_chart(title, names, lines, form=form, within=within)

    found = [
        chart(
            "Answers",
            "Exact match, F1 and accuracy on the test questions, with bootstrap intervals.",
            {"em": "EM", "f1": "F1", "accuracy": "Accuracy"},
        ),
        chart(
            "Log-likelihood of the gold answer",
            "Mean log p(gold | question, greedy episode); nearer to 0 is better.",
            {"log_marginal": ""},
            decimal,
            (None, None),
        ),
        chart(
            "Retrieval",
            "Share of the gold passages among the first 20 of all searches, and found anywhere.",
            {"recall_20": "recall@20", "support_recall": "support recall"},
        ),
        chart("Searches per question", "Mean number of searches.", {"steps": ""}, decimal),
        chart(
            "Too many, too few",
            "Share of questions searched more, or less, often than their gold hops.",
            {"over_search": "over-search", "under_search": "under-search"},
        ),
        (
            "Paired gains",
            "In points, on the same resampled questions. Green: the whole interval is above 0.",
            charts.forest(
                "Paired gains",
                [
                    (f"{c.candidate} vs {c.champion}, {c.metric.upper()}", c.gain, c.ci)
                    for c in run.summary.comparisons
                ],
            ),
        ),
    ]
    return [chart for chart in found if chart[2]]


def rounds(rounds: tuple[Round, ...]) -> list[Chart]:
    """What the E-steps looked like, round by round."""
    if not rounds:
        return []
    names = [part.name for part in rounds]
    weighed = [part for part in rounds if part.weights]

    def curve(fields: dict[str, str], form: Callable[[float], str], floor: float | None) -> Markup:
        lines = [
            Line(label, tuple(Point(getattr(p.estep, f) if p.estep else None) for p in rounds))
            for f, label in fields.items()
        ]
        return charts.line_chart("E-step", names, lines, form=form, within=(floor, None))

    found: list[Chart] = [
        (
            "Reachability",
            "Share of training questions that some sample answers right, that give training "
            "signal, and share of all samples that are right.",
            curve(
                {
                    "reachability": "reachable",
                    "reached": "trained on",
                    "sample_accuracy": "samples right",
                },
                percent,
                0.0,
            ),
        ),
        (
            "Marginal log-likelihood",
            "Mean over training questions of log(1/K Σ p(y | x, z_k)); it should rise.",
            curve({"log_marginal": ""}, decimal, None),
        ),
        (
            "Effective sample size",
            "1 / Σ w² per question: 1 means one sample took it all, K that all count alike. "
            "0: every sample failed.",
            _ess_histogram(weighed),
        ),
        (
            "Weights",
            "How the posterior weights are spread over all samples.",
            _weight_histogram(weighed),
        ),
        (
            "Search against gold hops",
            "Share of samples that searched more, or less, often than needed.",
            curve({"over_search": "over-search", "under_search": "under-search"}, percent, 0.0),
        ),
        (
            "Failed samples",
            "Episodes that did not end in an answer, by reason. They keep their place, weight 0.",
            _failures(rounds),
        ),
    ]
    return [chart for chart in found if chart[2]]


def _weight_histogram(rounds: list[Round]) -> Markup:
    edges = np.linspace(0.0, 1.0, 11)
    groups = [
        (part.name, _counts([s.weight for w in part.weights for s in w.samples], edges))
        for part in rounds
    ]
    return charts.histogram("Weights", edges.tolist(), groups, x_label="weight w")


def _ess_histogram(rounds: list[Round]) -> Markup:
    most = max((len(w.samples) for part in rounds for w in part.weights), default=1)
    edges = np.arange(0.0, most + 0.75, 0.5)
    groups = [(part.name, _counts([w.ess for w in part.weights], edges)) for part in rounds]
    return charts.histogram("ESS", edges.tolist(), groups, x_label="effective samples")


def _counts(values: list[float], edges: np.ndarray) -> list[int]:
    """Values per bin; rounding may put a weight a hair beyond the last border."""
    inside = np.clip(np.asarray(values, dtype=np.float64), edges[0], edges[-1])
    return np.histogram(inside, bins=edges)[0].tolist()


def _failures(rounds: tuple[Round, ...]) -> Markup:
    rows = [
        (f"{part.name}: {reason}", float(count))
        for part in rounds
        if part.estep
        for reason, count in sorted(part.estep.failures.items(), key=lambda item: -item[1])[:6]
    ]
    return charts.bars("Failed samples", rows)


def training(run: Run) -> list[Chart]:
    def chart(title: str, told: str, field: str, form: Callable[[float], str] = plain) -> Chart:
        curves = []
        for curve in run.training:
            pairs = [
                (x, y)
                for x, y in zip(curve.steps, getattr(curve, field), strict=True)
                if y is not None
            ]
            curves.append(Curve(curve.name, tuple(x for x, _ in pairs), tuple(y for _, y in pairs)))
        drawn = charts.curve_chart(
            title, curves, form=form, x_label="optimizer step", within=(0.0, None)
        )
        return title, told, drawn

    found = [
        chart(
            "Training loss",
            "Weighted mean, in nats per agent token where the trainer logs that.",
            "losses",
        ),
        chart("Learning rate", "", "rates"),
        chart("Gradient norm", "Before clipping.", "norms"),
    ]
    return [chart for chart in found if chart[2]]


def timings(run: Run) -> Markup:
    return charts.bars("Time per step", [(t.step, t.seconds) for t in run.timings], form=duration)


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "–"
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
