"""The parts charts are drawn from: elements, axes, scales, legends.

Text and attributes are escaped where an element is made; nothing else makes Markup.
Colours are classes (c0 … c5, grid, line, …) that the page's style sheet sets for
light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

WIDTH, HEIGHT = 400.0, 236.0
"""The view box; the page scales it to its column."""
LEFT, RIGHT, TOP, BOTTOM = 50.0, 12.0, 32.0, 40.0
"""Margins around the plot."""
COLOURS = 6

Form = Callable[[float], str]
Scale = Callable[[float], float]
Bounds = tuple[float | None, float | None]


def element(tag: str, *inside: Markup | str, **attributes: float | str) -> Markup:
    """An SVG element. Numbers are written with one decimal; `cls` becomes class, _ becomes -."""
    told = Markup("").join(
        Markup(' {}="{}"').format(
            "class" if key == "cls" else key.replace("_", "-"),
            value if isinstance(value, str) else f"{value:.1f}",
        )
        for key, value in attributes.items()
    )
    return Markup("<{0}{1}>{2}</{0}>").format(Markup(tag), told, Markup("").join(inside))


def picture(title: str, body: Sequence[Markup], height: float = HEIGHT) -> Markup:
    """The whole drawing; `title` is what screen readers say."""
    box = f"0 0 {WIDTH:.0f} {height:.0f}"
    return element("svg", *body, viewBox=box, role="img", aria_label=title)


def text(x: float, y: float, said: str, anchor: str = "start", cls: str = "label") -> Markup:
    return element("text", said, x=x, y=y, text_anchor=anchor, cls=cls)


def path(points: Sequence[tuple[float, float]], tip: str = "") -> Markup:
    """A line through points, shape [n, 2]."""
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return element("polyline", *([element("title", tip)] if tip else []), cls="line", points=joined)


def group(number: int, *inside: Markup) -> Markup:
    """Elements in the colour of series `number`."""
    return element("g", *inside, cls=f"c{number % COLOURS}")


def rule(x0: float, y0: float, x1: float, y1: float, cls: str) -> Markup:
    return element("line", x1=x0, y1=y0, x2=x1, y2=y1, cls=cls)


def legend(labels: Sequence[str]) -> Markup:
    """Coloured names above the plot; a series without a name has no entry."""
    parts, x = [], LEFT
    for number, label in enumerate(labels):
        if label:
            swatch = element("rect", cls="fill", x=x, y=8.0, width=10.0, height=10.0, rx=2.0)
            parts += [group(number, swatch), text(x + 15, 17.5, label)]
            x += 30 + 6.6 * len(label)
    return Markup("").join(parts)


def y_axis(at: Sequence[float], y: Scale, form: Form) -> Markup:
    """Grid lines with their values."""
    return Markup("").join(
        rule(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid")
        + text(LEFT - 7, y(tick) + 4, form(tick), "end")
        for tick in at
    )


def x_axis(at: Sequence[tuple[float, str]], label: str = "") -> Markup:
    """Values under the plot, and what they are, below them."""
    body = [text(x, HEIGHT - BOTTOM + 17, said, "middle") for x, said in at]
    if label:
        body.append(text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, label, "middle"))
    return Markup("").join(body)


def scale(low: float, high: float, start: float, end: float) -> Scale:
    """The linear map of low … high to start … end."""
    span = (high - low) or 1.0
    return lambda value: start + (value - low) / span * (end - start)


def bounds(values: Sequence[float], within: Bounds) -> tuple[float, float]:
    """Lowest and highest value, where `within` does not set them."""
    low, high = within
    return (min(values) if low is None else low), (max(values) if high is None else high)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers, evenly spaced, that enclose low … high (1, 2, 2.5 or 5 × 10^n apart)."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        pad = 0.5 * abs(high) or 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def short(said: str, length: int) -> str:
    return said if len(said) <= length else said[: length - 1] + "…"
