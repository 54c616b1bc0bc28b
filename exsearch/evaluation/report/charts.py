"""The report's charts: lines with intervals, curves, histograms, forests and bars.

Each returns the drawing, or empty Markup where there is nothing to draw. `title`
is said to screen readers; the page prints its own heading.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from exsearch.evaluation.report import svg
from exsearch.evaluation.report.svg import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Bounds, Form

MOST_POINTS = 300
"""Points drawn per curve; more are averaged, since no more can be seen."""


@dataclass(frozen=True)
class Point:
    """A value with its interval, where it has one; y None leaves a gap."""

    y: float | None
    ci: tuple[float, float] | None = None


@dataclass(frozen=True)
class Line:
    """One series over named places on the x axis, one point each."""

    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Curve:
    """One series over numbers; xs and ys have one length."""

    label: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]


def percent(value: float) -> str:
    return f"{100 * value:.0f}%"


def decimal(value: float) -> str:
    """Two decimals at most."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def plain(value: float) -> str:
    """Four digits at most, whatever the size."""
    return f"{value:.4g}"


def line_chart(
    title: str,
    names: Sequence[str],
    lines: Sequence[Line],
    *,
    form: Form = plain,
    within: Bounds = (None, None),
) -> Markup:
    """Series over evenly spaced named places, with interval bars.

    `within` sets the ends of the y axis where they should not follow the data.
    """
    values = [v for s in lines for p in s.points if p.y is not None for v in (p.y, *(p.ci or ()))]
    if not values:
        return Markup("")
    at = svg.ticks(*svg.bounds(values, within))
    y = svg.scale(at[0], at[-1], HEIGHT - BOTTOM, TOP)
    gap = (WIDTH - LEFT - RIGHT) / len(names)
    middles = [LEFT + gap * (place + 0.5) for place in range(len(names))]
    said = [(x, svg.short(n, max(3, int(gap / 7)))) for x, n in zip(middles, names, strict=True)]
    body = [svg.y_axis(at, y, form), svg.x_axis(said), svg.legend([line.label for line in lines])]
    for number, line in enumerate(lines):
        # Side by side, so that intervals of different series do not cover each other.
        shift = (number - (len(lines) - 1) / 2) * min(11.0, gap / (len(lines) + 1))
        xs = [x + shift for x in middles]
        body.append(svg.group(number, *_series(line, names, xs, y, form)))
        if len(lines) == 1:
            body += _values(line, xs, y, form)
    return svg.picture(title, body)


def _series(
    line: Line, names: Sequence[str], xs: Sequence[float], y: svg.Scale, form: Form
) -> list[Markup]:
    known = [
        (x, p.y, p.ci, n) for x, p, n in zip(xs, line.points, names, strict=True) if p.y is not None
    ]
    body = [svg.path([(x, y(value)) for x, value, _, _ in known])]
    for x, value, ci, name in known:
        told = f"{line.label + ', ' if line.label else ''}{name}: {form(value)}"
        if ci is not None:
            told += f" [{form(ci[0])}, {form(ci[1])}]"
            body.append(svg.rule(x, y(ci[0]), x, y(ci[1]), "bar"))
            body += [svg.rule(x - 3, y(end), x + 3, y(end), "bar") for end in ci]
        body.append(svg.element("circle", svg.element("title", told), cx=x, cy=y(value), r=3.6))
    return body


def _values(line: Line, xs: Sequence[float], y: svg.Scale, form: Form) -> list[Markup]:
    """The numbers beside the points of a chart's only series."""
    return [
        svg.text(x, y(p.y) - 9, form(p.y), "middle", cls="value")
        for x, p in zip(xs, line.points, strict=True)
        if p.y is not None
    ]


def curve_chart(
    title: str,
    curves: Sequence[Curve],
    *,
    form: Form = plain,
    x_label: str = "",
    within: Bounds = (None, None),
) -> Markup:
    """Series over a numeric axis."""
    curves = [_thinned(curve) for curve in curves if curve.xs]
    if not curves:
        return Markup("")
    at = svg.ticks(*svg.bounds([v for c in curves for v in c.ys], within))
    y = svg.scale(at[0], at[-1], HEIGHT - BOTTOM, TOP)
    low, high = svg.bounds([v for c in curves for v in c.xs], (None, None))
    x = svg.scale(low, high if high > low else low + 1, LEFT + 4, WIDTH - RIGHT - 8)
    across = [(x(tick), plain(tick)) for tick in svg.ticks(low, high) if low <= tick <= high]
    body = [
        svg.y_axis(at, y, form),
        svg.x_axis(across, x_label),
        svg.legend([curve.label for curve in curves]),
    ]
    for number, curve in enumerate(curves):
        told = f"{curve.label}: {form(curve.ys[0])} → {form(curve.ys[-1])}"
        points = [(x(a), y(b)) for a, b in zip(curve.xs, curve.ys, strict=True)]
        body.append(svg.group(number, svg.path(points, told)))
    return svg.picture(title, body)


def _thinned(curve: Curve) -> Curve:
    """Means of neighbours, so that at most `MOST_POINTS` are drawn."""
    if len(curve.xs) <= MOST_POINTS:
        return curve
    size = math.ceil(len(curve.xs) / MOST_POINTS)

    def means(values: tuple[float, ...]) -> tuple[float, ...]:
        blocks = [values[start : start + size] for start in range(0, len(values), size)]
        return tuple(sum(block) / len(block) for block in blocks)

    return Curve(curve.label, means(curve.xs), means(curve.ys))


def histogram(
    title: str,
    edges: Sequence[float],
    groups: Sequence[tuple[str, Sequence[int]]],
    *,
    x_label: str = "",
) -> Markup:
    """Each group's shares per bin, groups side by side.

    Args:
        edges: bin borders, shape [bins + 1].
        groups: label and counts, shape [bins], of each group.
    """
    if not any(sum(counts) for _, counts in groups):
        return Markup("")
    shares = [(label, [c / max(1, sum(counts)) for c in counts]) for label, counts in groups]
    at = svg.ticks(0.0, max(max(parts) for _, parts in shares))
    y = svg.scale(0.0, at[-1], HEIGHT - BOTTOM, TOP)
    bins = len(edges) - 1
    gap = (WIDTH - LEFT - RIGHT) / bins
    width = gap * 0.82 / len(shares)
    every = max(1, math.ceil(bins / 10))
    across = [(LEFT + gap * i, plain(edges[i])) for i in range(0, bins + 1, every)]
    body = [
        svg.y_axis(at, y, percent),
        svg.x_axis(across, x_label),
        svg.legend([label for label, _ in shares]),
    ]
    for number, (label, parts) in enumerate(shares):
        rects = []
        for place, share in enumerate(parts):
            span = f"{plain(edges[place])}–{plain(edges[place + 1])}"
            x = LEFT + gap * (place + 0.09) + number * width
            rects.append(
                _bar(x, y(share), width, y(0) - y(share), f"{label}: {share:.1%} in {span}")
            )
        body.append(svg.group(number, *rects))
    return svg.picture(title, body)


def forest(title: str, rows: Sequence[tuple[str, float, tuple[float, float]]]) -> Markup:
    """Gains with their intervals in points, one line each, about a zero line."""
    if not rows:
        return Markup("")
    apart, left = 28.0, 172.0
    height = 40.0 + apart * len(rows)
    values = [v for _, gain, ci in rows for v in (gain, *ci)]
    at = svg.ticks(min(0.0, *values), max(0.0, *values), 3)
    x = svg.scale(at[0], at[-1], left, WIDTH - 24)
    body = []
    for tick in at:
        kind = "zero" if abs(tick) < 1e-12 else "grid"
        body.append(svg.rule(x(tick), 6, x(tick), height - 24, kind))
        body.append(svg.text(x(tick), height - 8, f"{100 * tick:+.0f}", "middle"))
    for number, (label, gain, (low, high)) in enumerate(rows):
        y = 22.0 + apart * number
        sure = "up" if low > 0 else "down" if high < 0 else "even"
        told = f"{label}: {100 * gain:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"
        dot = svg.element("circle", svg.element("title", told), cx=x(gain), cy=y, r=5.0)
        body.append(svg.text(left - 10, y + 4, svg.short(label, 26), "end"))
        body.append(svg.element("g", svg.rule(x(low), y, x(high), y, "bar wide"), dot, cls=sure))
    return svg.picture(title, body, height)


def bars(title: str, rows: Sequence[tuple[str, float]], *, form: Form = plain) -> Markup:
    """Horizontal bars from zero, one row each, the value written behind."""
    if not rows:
        return Markup("")
    left, apart = 132.0, 22.0
    x = svg.scale(0.0, max(value for _, value in rows) or 1.0, left, WIDTH - 66)
    body = []
    for number, (label, value) in enumerate(rows):
        y = 6.0 + apart * number
        body.append(svg.text(left - 8, y + 11.5, svg.short(label, 20), "end"))
        drawn = _bar(left, y, max(1.0, x(value) - left), 14.0, f"{label}: {form(value)}")
        body += [svg.group(0, drawn), svg.text(x(value) + 6, y + 11.5, form(value), cls="value")]
    return svg.picture(title, body, 12.0 + apart * len(rows))


def _bar(x: float, y: float, width: float, height: float, tip: str) -> Markup:
    tip_element = svg.element("title", tip)
    return svg.element("rect", tip_element, cls="fill", x=x, y=y, width=width, height=height)
