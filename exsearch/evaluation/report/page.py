"""The page: the parts put together, rendered by Jinja with escaping on, written whole."""

from __future__ import annotations

import base64
import hashlib
import math

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from exsearch.evaluation.report import sections
from exsearch.evaluation.report.sections import duration
from exsearch.evaluation.report.sources import Run, read_run
from exsearch.evaluation.report.viewer import build_viewer
from exsearch.storage import join, write_atomic


def write_report(run_dir: str, *, out: str | None = None, seed: int | None = None) -> str:
    """Write a run's report.

    Args:
        run_dir: the run folder or URL.
        out: where to; None: `RUN/report.html`.
        seed: of the choice of episodes shown; None: the run's.

    Returns:
        The path written.

    Raises:
        InputError: there is no such run.
        StorageError: the page cannot be written.
    """
    run = read_run(run_dir)
    path = out or join(run_dir, "report.html")
    own = run.settings.get("seed", 0)
    chosen = seed if seed is not None else own if isinstance(own, int) else 0
    # A lone surrogate from some odd file must not keep the page from being written.
    write_atomic(path, render(run, chosen).encode("utf-8", "replace"))
    return path


def render(run: Run, seed: int) -> str:
    """The whole page as text."""
    environment = Environment(
        loader=PackageLoader("exsearch.evaluation.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"pct": _pct, "num": _num, "duration": duration, "points": _points}
    source = environment.loader
    assert source is not None
    script = source.get_source(environment, "viewer.js")[0]
    style = source.get_source(environment, "style.css")[0]
    viewer = build_viewer(run, seed)
    return environment.get_template("page.html.j2").render(
        run=run,
        name=run.path.rstrip("/").rsplit("/", 1)[-1],
        model=_setting(run, "model", "path"),
        # Only this very script may run: markup that slipped in could not.
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        script=Markup(script),
        style=Markup(style),
        viewer=viewer,
        headline=_headline(run),
        progress=sections.progress(run),
        rounds=sections.rounds(run.rounds),
        training=sections.training(run),
        timings=sections.timings(run),
        confidence=_confidence(run),
        total_seconds=sum(t.seconds for t in run.timings),
    )


def _setting(run: Run, section: str, key: str) -> str:
    part = run.settings.get(section)
    return str(part.get(key, "")) if isinstance(part, dict) else ""


def _confidence(run: Run) -> str:
    """Coverage of the run's intervals, as people write it."""
    try:
        return f"{float(_setting(run, 'evaluation', 'confidence') or 0.95):.0%}"
    except ValueError:
        return "bootstrap"


def _headline(run: Run) -> list[tuple[str, str, str]]:
    """The few figures to see first: (what, value, remark)."""
    if not run.stages:
        return []
    best = max(run.stages, key=lambda stage: stage.em)
    shown = dict.fromkeys([run.stages[0].name, "warmup", best.name])
    tiles = [
        (f"EM, {stage.name}", _pct(stage.em), f"{_pct(stage.em_ci[0])} to {_pct(stage.em_ci[1])}")
        for stage in run.stages
        if stage.name in shown
    ]
    if run.summary.gate and run.summary.gate.figures:
        c = run.summary.gate.figures.comparison
        told = f"points {c.metric.upper()}, {_points(c.ci[0])} to {_points(c.ci[1])}"
        tiles.append((f"{c.candidate} against {c.champion}", _points(c.gain), told))
    tiles.append(("Test questions", str(best.n), "the same for every stage"))
    if run.timings:
        tiles.append(("Time", duration(sum(t.seconds for t in run.timings)), "all steps together"))
    return tiles


def _pct(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _num(value: float | None) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value:.2f}"
