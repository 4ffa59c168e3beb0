"""Charts as inline SVG: lines and points on two axes, bars in parts, dots in rows. No script, no outside resource.

A chart is 360 units wide, so that its letters of 12 units can be read where it fills the width of a phone. Colours are
CSS classes of the page, `s0` to `s7`; every series also has a mark of its own, for those who do not tell colours apart.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 360, 250
LEFT, RIGHT, TOP, BOTTOM = 50, 12, 30, 44
ROW = 44  # of bars and dots in rows
SERIES = 8  # classes of colours
MARKS = (  # around the origin
    "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "M-3.5,-3.5h7v7h-7z",
    "M0,-4.8L4.6,3.4H-4.6z",
    "M0,-4.8L4.8,0L0,4.8L-4.8,0z",
    "M0,4.8L4.6,-3.4H-4.6z",
    "M-4.2,-1.4h2.8v-2.8h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8z",
)


@dataclass(frozen=True)
class Axis:
    """A logarithmic axis.

    Attributes:
        title: what is shown along it.
        written: returns a value as a tick's text.
        base: of the powers that get ticks, 2 or 10.
    """

    title: str
    written: Callable[[float], str]
    base: int = 10


@dataclass(frozen=True)
class Series:
    """Points of one colour and one mark.

    Attributes:
        name: in the legend.
        points: (x, y, what is said of it) each; x and y above 0.
        joined: whether a line goes through them.
        dashed: whether that line is dashed, and without marks.
    """

    name: str
    points: Sequence[tuple[float, float, str]]
    joined: bool = True
    dashed: bool = False


class Scale:
    """A map from values above 0, by their logarithms, to a stretch of the drawing."""

    def __init__(self, values: Iterable[float], begin: float, end: float, room: float = 0.04) -> None:
        logs = [math.log(value) for value in values]
        low, high = min(logs), max(logs)
        if high - low < math.log(2):  # of one value, or nearly
            low, high = (low + high - math.log(4)) / 2, (low + high + math.log(4)) / 2
        room *= high - low
        self.low, self.high, self.begin, self.end = low - room, high + room, begin, end

    def __call__(self, value: float) -> float:
        """Return where a value lies."""
        return self.begin + (math.log(value) - self.low) / (self.high - self.low) * (self.end - self.begin)

    def ticks(self, base: int, most: int) -> list[float]:
        """Return powers of the base inside, so many at most; for base 10 also their double and fivefold if few."""
        unit = math.log(base)
        powers = range(math.ceil(self.low / unit), math.floor(self.high / unit) + 1)
        if base == 10 and len(powers) < 3:
            around = range(powers.start - 1, powers.stop + 1)
            fine = [m * 10.0**p for p in around for m in (1, 2, 5)]
            inside = [value for value in fine if self.low <= math.log(value) <= self.high]
            return inside if len(inside) <= most else [10.0**p for p in powers]
        return [float(base) ** p for p in powers[:: math.ceil(len(powers) / most) or 1]]


def chart(title: str, about: str, x: Axis, y: Axis, series: Sequence[Series], level: float | None = None) -> str:
    """Return a chart of series on two logarithmic axes.

    Args:
        title: of the chart, for those who hear it.
        about: what it shows, likewise.
        x: the axis from left to right.
        y: the axis upwards.
        series: at least one point in all.
        level: a value of y to mark by a line across.

    Returns:
        The SVG element.
    """
    points = [point for each in series for point in each.points]
    across = Scale([px for px, _, _ in points], LEFT, WIDTH - RIGHT)
    levels = [] if level is None else [level]
    up = Scale([*(py for _, py, _ in points), *levels], HEIGHT - BOTTOM, TOP, 0.08)
    parts = [
        *(_tick_up(up(value), y.written(value)) for value in up.ticks(y.base, 6)),
        *(_tick_across(across(value), x.written(value)) for value in across.ticks(x.base, 7)),
        f'<text x="0" y="14">{said(y.title)}</text>',
        f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{said(x.title)}</text>',
    ]
    if level is not None:
        parts.append(f'<path class="level" d="M{LEFT},{up(level):.1f}H{WIDTH - RIGHT}"/>')
    parts += reversed([_series(k, each, across, up) for k, each in enumerate(series)])  # the first is on top
    return _svg(title, about, HEIGHT, parts)


def _tick_up(y: float, text: str) -> str:
    return (
        f'<path class="grid" d="M{LEFT},{y:.1f}H{WIDTH - RIGHT}"/>'
        f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{said(text)}</text>'
    )


def _tick_across(x: float, text: str) -> str:
    foot = HEIGHT - BOTTOM
    return (
        f'<path class="grid" d="M{x:.1f},{TOP}V{foot}"/>'
        f'<text x="{x:.1f}" y="{foot + 16}" text-anchor="middle">{said(text)}</text>'
    )


def _series(k: int, series: Series, across: Scale, up: Scale) -> str:
    places = [(across(x), up(y), note) for x, y, note in series.points]
    line = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    parts = [f'<path class="{"line dashed" if series.dashed else "line"}" d="{line}"/>'] if series.joined else []
    if not series.dashed:
        parts += [_mark(k, x, y, note) for x, y, note in places]
    return f'<g class="s{k % SERIES}">{"".join(parts)}</g>'


def _mark(k: int, x: float, y: float, note: str) -> str:
    title = f"<title>{said(note)}</title>"
    return f'<path class="mark" transform="translate({x:.1f},{y:.1f})" d="{MARKS[k % len(MARKS)]}">{title}</path>'


def bars(title: str, about: str, rows: Sequence[tuple[str, str, Sequence[float]]], parts: Sequence[str]) -> str:
    """Return bars of full width, one below the other, each divided into parts.

    Args:
        title: of the chart, for those who hear it.
        about: what it shows, likewise.
        rows: of each bar its name, its whole as a text, and the sizes of its parts.
        parts: their names.

    Returns:
        The SVG element.
    """
    drawn = []
    for row, (name, whole, sizes) in enumerate(rows):
        top = row * ROW
        drawn.append(_row_text(top, name, whole))
        ends = list(itertools.accumulate(sizes, initial=0.0))
        for k, (begin, end) in enumerate(itertools.pairwise(ends)):
            drawn.append(_bar(k, top, begin / ends[-1], end / ends[-1], f"{name}: {parts[k]}"))
    return _svg(title, about, ROW * len(rows), drawn)


def _bar(k: int, top: int, begin: float, end: float, note: str) -> str:
    x, width = begin * WIDTH, max(0.0, (end - begin) * WIDTH - 1)
    share = f"{end - begin:.0%}"
    inside = f'<text class="inside" x="{x + width / 2:.1f}" y="{top + 33}">{share}</text>' if width >= 32 else ""
    return (
        f'<g class="s{k % SERIES}"><rect x="{x:.1f}" y="{top + 20}" width="{width:.1f}" height="18">'
        f"<title>{said(f'{note}, {share}')}</title></rect>{inside}</g>"
    )


def dots(title: str, about: str, rows: Sequence[tuple[str, str, Sequence[tuple[int, float, str]]]]) -> str:
    """Return factors as dots on one logarithmic axis, in rows one below the other, with 1 marked.

    Args:
        title: of the chart, for those who hear it.
        about: what it shows, likewise.
        rows: of each its name, a text at its end, and its dots: number of the series, factor, what is said of it.

    Returns:
        The SVG element.
    """
    scale = Scale([1.0, *(factor for _, _, found in rows for _, factor, _ in found)], 10, WIDTH - 10, 0.06)
    height = ROW * len(rows)
    ticks = sorted({1.0, *scale.ticks(10, 5)})
    drawn = [
        f'<text x="{scale(value):.1f}" y="{height + 12}" text-anchor="middle">{value:g}×</text>' for value in ticks
    ]
    for row, (name, whole, found) in enumerate(rows):
        y = row * ROW + 30
        drawn += [f'<path class="grid" d="M0,{y}H{WIDTH}"/>', _row_text(row * ROW, name, whole)]
        drawn += [_row_tick(scale(value), y, "level" if value == 1 else "grid") for value in ticks]
        drawn += [f'<g class="s{k % SERIES}">{_mark(k, scale(f), y, note)}</g>' for k, f, note in found]
    return _svg(title, about, height + 16, drawn)


def _row_tick(x: float, y: int, kind: str) -> str:
    return f'<path class="{kind}" d="M{x:.1f},{y - 8}v16"/>'


def _row_text(top: int, name: str, whole: str) -> str:
    return (
        f'<text class="name" x="0" y="{top + 14}">{said(name)}</text>'
        f'<text class="name" x="{WIDTH}" y="{top + 14}" text-anchor="end">{said(whole)}</text>'
    )


def legend(names: Sequence[str], marks: bool = True) -> str:
    """Return the names of series beside their marks, or beside squares of their colours, as a list."""
    square = "M-5,-5h10v10h-10z"
    items = (
        f'<li class="s{k % SERIES}"><svg viewBox="-7 -7 14 14" aria-hidden="true">'
        f'<path class="mark" d="{MARKS[k % len(MARKS)] if marks else square}"/></svg>{said(name)}</li>'
        for k, name in enumerate(names)
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _svg(title: str, about: str, height: int, parts: Iterable[str]) -> str:
    return (
        f'<svg role="img" viewBox="0 0 {WIDTH} {height}" aria-label="{said(title)}. {said(about)}">'
        f"{''.join(parts)}</svg>"
    )


def said(text: str) -> str:
    """Return a text as it stands in HTML."""
    return html.escape(text, quote=True)
