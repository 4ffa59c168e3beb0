"""Results as charts: which points are drawn, and what is said of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from . import svg
from .figures import LETTERS, Family, families, roof, slope, step_bytes, upper_half
from .results import BACKENDS, PARTS, Entry, Results
from .shown import digits, factor_of, time_of
from .svg import Axis, Series
from .tables import part_shares

AXES = {"rows": "batch size N", "width": "width n", "depth": "depth L"}
MOST_SERIES = svg.SERIES


def figure(title: str, drawing: str, *below: str) -> str:
    """Return a chart with its title and what stands below it."""
    return f"<figure><figcaption>{svg.said(title)}</figcaption>{drawing}{''.join(below)}</figure>"


def _across(varies: str) -> Axis:
    return Axis(AXES[varies], lambda x: f"{x:.0f}", base=2)


def speed_ups(results: Results) -> list[str]:
    """Return the speed-up of the GPU against batch size, width and depth."""
    found = families(results)
    return [
        figure(f"Speed-up against {AXES[varies]}", *_speed_up(varies, chosen))
        for varies in AXES
        if (chosen := [family for family in found if family.varies == varies and family.speed_ups][:MOST_SERIES])
    ]


def _speed_up(varies: str, chosen: Sequence[Family]) -> tuple[str, str]:
    letter = LETTERS[varies]
    series = [
        Series(
            family.net,
            [(x, ratio, f"{family.net}, {letter} = {x}: {factor_of(ratio)}") for x, ratio in family.speed_ups],
        )
        for family in chosen
    ]
    crossings = (f"{f.net}: {f.crossover.sentence(letter)}" for f in chosen if f.crossover)
    drawing = svg.chart(
        f"Speed-up of the GPU against {AXES[varies]}",
        f"The GPU is faster {'; '.join(crossings)}.",
        _across(varies),
        Axis("CPU time / GPU time", lambda ratio: f"{ratio:g}×"),
        series,
        level=1.0,
    )
    return drawing, svg.legend([each.name for each in series])


def step_times(results: Results) -> list[str]:
    """Return step time against batch size, width and depth, with the slopes in the legend."""
    return [
        figure(f"Step time against {AXES[varies]}", *_step_time(varies, series))
        for varies in AXES
        if (series := list(_timed(results, varies))[:MOST_SERIES])
    ]


def _timed(results: Results, varies: str) -> Iterator[Series]:
    for family in families(results):
        for name, points in family.points.items() if family.varies == varies else ():
            grows = slope([(point.x, point.seconds) for point in upper_half(points)])
            net = f"{family.net}, {BACKENDS[name]}"
            letter = LETTERS[varies]
            yield Series(
                net if grows is None else f"{net}: slope {grows:.2f}",
                [(p.x, p.seconds, f"{net}, {letter} = {p.x}: {time_of(p.seconds)}") for p in points],
            )


def _step_time(varies: str, series: Sequence[Series]) -> tuple[str, str]:
    names = [each.name for each in series]
    drawing = svg.chart(
        f"Step time against {AXES[varies]}",
        f"Slopes of the larger half: {'; '.join(names)}.",
        _across(varies),
        Axis("time of a step", _tick_time),
        series,
    )
    return drawing, svg.legend(names)


# -- roofline ----------------------------------------------------------------------------------------------------------

KINDS = {
    **{"step": "training steps", "scaling": "steps of other sizes"},
    **{"activation": "activations", "loss": "losses", "optimizer": "optimizers"},
}
ITEM_BYTES = {"float64": 8, "bfloat16": 2}  # of a precision; of the others 4


def rooflines(results: Results) -> list[str]:
    """Return the roofline of each backend of which something can be drawn."""
    return [
        figure(f"Roofline of the {BACKENDS[name]}", *_roofline(results, name, series))
        for name in results.backends
        if (series := list(_under_the_roof(results, name)))
    ]


def _under_the_roof(results: Results, backend: str) -> Iterator[Series]:
    for what, kind in KINDS.items():
        points = [
            (entry.flops / moved, entry.flops / entry.seconds, _achieved(entry))
            for entry in results.of(what)
            if entry.backend == backend and entry.flops and (moved := _moved(entry))
        ]
        if points:
            yield Series(kind, points, joined=False)


def _moved(entry: Entry) -> float | None:
    """Return the bytes that were measured or, of steps, the least that their products move."""
    steps = entry.what in ("step", "scaling") and len(entry.sizes) > 1
    least = step_bytes(entry.sizes, entry.batch, ITEM_BYTES.get(entry.precision, 4)) if steps else None
    return entry.bytes or least


def _achieved(entry: Entry) -> str:
    name = " ".join(filter(None, (entry.row, entry.workload, entry.optimizer, entry.precision)))
    return f"{name}: {digits((entry.flops or 0.0) / entry.seconds / 1e9)} GFLOP/s"


def _roofline(results: Results, backend: str, series: Sequence[Series]) -> tuple[str, str, str]:
    xs = [x for each in series for x, _, _ in each.points]
    best = roof(results, backend)
    lines = [
        Series(f"bare products {precision}".strip(), _roof_line(rate, best.copy, min(xs), max(xs)), dashed=True)
        for precision, rate in best.products.items()
    ]
    rates = [f"{line.name} {_rate(best.products[p])}" for line, p in zip(lines, best.products, strict=True)]
    rates += [] if best.copy is None else [f"copy {digits(best.copy / 1e9)} GB/s"]
    drawing = svg.chart(
        f"Roofline of the {BACKENDS[backend]}",
        f"The roof: {'; '.join(rates) or 'not measured'}.",
        Axis("operations a byte", lambda x: f"{x:g}"),
        Axis("FLOP/s", _tick_rate),
        [*series, *lines],
    )
    roofs = f'<p class="note">dashed, the roof: {svg.said(", ".join(rates))}</p>' if rates else ""
    return drawing, svg.legend([each.name for each in series]), roofs


def _roof_line(products: float, copy: float | None, low: float, high: float) -> list[tuple[float, float, str]]:
    """Return the corners of the roof over what is drawn: rising with the copy bandwidth, flat at the products' rate."""
    if copy is None:
        return [(low, products, ""), (high, products, "")]
    ridge = products / copy
    corners = sorted({low, ridge, max(high, ridge)})
    return [(x, min(products, copy * x), "") for x in corners if x >= low]


def _rate(rate: float) -> str:
    return next((f"{digits(rate / f)} {p}FLOP/s" for p, f in _PREFIXES.items() if rate >= f), f"{digits(rate)} FLOP/s")


def _tick_rate(rate: float) -> str:
    return next((f"{rate / factor:g} {prefix}" for prefix, factor in _PREFIXES.items() if rate >= factor), f"{rate:g}")


def _tick_time(seconds: float) -> str:
    return next(f"{seconds * f:.4g} {unit}" for unit, f in _UNITS.items() if seconds * f > 0.9995 or unit == "ns")


_PREFIXES = {"T": 1e12, "G": 1e9, "M": 1e6}
_UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6, "ns": 1e9}


# -- rows --------------------------------------------------------------------------------------------------------------


def _named(entry: Entry) -> str:
    unusual = [text for text in (entry.optimizer, entry.precision) if text not in ("", "SGD", "float32")]
    return ", ".join([entry.workload, *unusual])


def breakdowns(results: Results) -> list[str]:
    """Return the parts of steps as bars, one chart for each backend."""
    charts = []
    for name in results.backends:
        entries = [entry for entry in results.entries if entry.backend == name and part_shares(entry)]
        if entries:
            rows = [
                (_named(e), time_of(sum(e.breakdown.values())), [share or 0.0 for share in part_shares(e)])
                for e in entries
            ]
            title = f"A step on the {BACKENDS[name]}"
            drawing = svg.bars(title, f"Shares of {', '.join(PARTS)}.", rows, PARTS)
            charts.append(figure(title, drawing, svg.legend(PARTS, marks=False)))
    return charts


def peer_factors(results: Results) -> list[str]:
    """Return the peers' times over ours as dots, one chart for each backend."""
    charts = []
    for backend in results.backends:
        entries = [e for e in results.of("step") if e.backend == backend]
        names = list(dict.fromkeys(n for e in entries for n, peer in e.peers.items() if peer.ratio is not None))
        rows = [
            (_named(e), f"ours {time_of(e.seconds)}", found) for e in entries if (found := list(_factors(e, names)))
        ]
        if rows:
            title = f"Peers on the {BACKENDS[backend]}"
            drawing = svg.dots(title, "Their time over ours; above 1 they are slower.", rows)
            charts.append(figure(title, drawing, svg.legend(names)))
    return charts


def _factors(entry: Entry, names: Sequence[str]) -> Iterator[tuple[int, float, str]]:
    for k, name in enumerate(names):
        peer = entry.peers.get(name)
        if peer and peer.ratio is not None:
            yield k, peer.ratio, f"{name}, {entry.workload}: {factor_of(peer.ratio)}"
