"""What follows from results: speed-ups, where the GPU overtakes the CPU, slopes of scaling, roofs.

Letters: N examples in a batch, n units of a layer, L layers.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .results import COPY, PRODUCTS, Entry, Results

LETTERS = {"rows": "N", "width": "n", "depth": "L"}


# -- CPU against GPU ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """The same work on CPU and GPU, or on one of them."""

    cpu: Entry | None
    gpu: Entry | None

    @property
    def either(self) -> Entry:
        """One of the two: what they have in common is the same."""
        entry = self.cpu or self.gpu
        assert entry, "a pair of nothing"
        return entry

    @property
    def speed_up(self) -> float | None:
        """The CPU's time over the GPU's."""
        return self.cpu.seconds / self.gpu.seconds if self.cpu and self.gpu else None


def pairs(entries: Iterable[Entry]) -> list[Pair]:
    """Return entries of the same work side by side, in their order."""
    works: dict[tuple[str, ...], dict[str, Entry]] = {}
    for entry in entries:
        works.setdefault(entry.work, {}).setdefault(entry.backend, entry)
    return [Pair(found.get("numpy"), found.get("cuda")) for found in works.values()]


@dataclass(frozen=True)
class Crossover:
    """From where on the GPU is faster, among the values that both were measured at.

    Attributes:
        first, last: of these values.
        slower: the largest value at which the GPU is not faster, None where it always is.
        faster: the next one, None where there is none.
        estimate: where the ratio of the times becomes 1 between the two, by a power law.
    """

    first: int
    last: int
    slower: int | None
    faster: int | None
    estimate: float | None

    def sentence(self, letter: str) -> str:
        """Return it for people, `letter` being what is varied."""
        if self.faster is None:
            return f"at none up to {letter} = {self.last}"
        if self.slower is None:
            return f"at all from {letter} = {self.first}"
        return f"from {letter} = {self.faster} (equal at about {_rounded(self.estimate)})"


def _rounded(value: float | None) -> str:
    assert value is not None, "between two values"
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def crossover(cpu: Iterable[Point], gpu: Iterable[Point]) -> Crossover | None:
    """Return from where on the GPU is faster, None where no value was measured on both."""
    on_gpu = {point.x: point.seconds for point in gpu}
    ratios = sorted((point.x, point.seconds / on_gpu[point.x]) for point in cpu if point.x in on_gpu)
    if not ratios:
        return None
    first, last = ratios[0][0], ratios[-1][0]
    behind = [k for k, (_, ratio) in enumerate(ratios) if ratio <= 1]
    if not behind:
        return Crossover(first, last, None, first, None)
    k = behind[-1]
    if k == len(ratios) - 1:
        return Crossover(first, last, last, None, None)
    (x0, r0), (x1, r1) = ratios[k : k + 2]
    estimate = x0 * (x1 / x0) ** (-math.log(r0) / (math.log(r1) - math.log(r0)))
    return Crossover(first, last, x0, x1, estimate)


# -- scaling -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Point:
    """A step of one size: the varied value, its seconds, its floating-point operations."""

    x: int
    seconds: float
    flops: float


@dataclass(frozen=True)
class Family:
    """Steps that differ in N, n or L alone.

    Attributes:
        varies: "rows", "width" or "depth".
        net: what stays the same, with the letter in place of what does not.
        points: by backend, in the order of the varied value.
    """

    varies: str
    net: str
    points: dict[str, list[Point]] = field(default_factory=dict)

    @property
    def crossover(self) -> Crossover | None:
        """From where on the GPU is faster."""
        return crossover(self.points.get("numpy", ()), self.points.get("cuda", ()))

    @property
    def speed_ups(self) -> list[tuple[int, float]]:
        """The CPU's time over the GPU's at every value that both were measured at."""
        on_gpu = {point.x: point.seconds for point in self.points.get("cuda", ())}
        return [(p.x, p.seconds / on_gpu[p.x]) for p in self.points.get("numpy", ()) if p.x in on_gpu]


def families(results: Results) -> list[Family]:
    """Return what was measured of scaling, in the order of the file."""
    found: dict[tuple[str, str], Family] = {}
    for entry in results.of("scaling"):
        net = _net_without(entry)
        family = found.setdefault((entry.varies, net), Family(entry.varies, net))
        points = family.points.setdefault(entry.backend, [])
        x = varied(entry)
        if all(point.x != x for point in points):
            points.append(Point(x, entry.seconds, entry.flops or step_flops(entry.sizes, entry.batch)))
            points.sort(key=lambda point: point.x)
    return list(found.values())


def varied(entry: Entry) -> int:
    """Return the value of an entry that its family varies."""
    if entry.varies == "rows":
        return entry.batch
    return _width(entry.sizes) if entry.varies == "width" else len(entry.sizes) - 1


def step_flops(sizes: Sequence[int], batch: int) -> float:
    """Return F = 2N(3P − n_0 n_1), the operations of the products of a training step."""
    products = [m * n for m, n in itertools.pairwise(sizes)]
    return 2.0 * batch * (3 * sum(products) - products[0])


def step_bytes(sizes: Sequence[int], batch: int, itemsize: int = 4) -> float:
    """Return the least bytes that the products of a training step move: operands and result of each once.

    Args:
        sizes: units of every layer.
        batch: N.
        itemsize: bytes of an element.

    Returns:
        The bytes of three products a layer, of two in the first: it passes no δ on.
    """
    layers = [n * m + batch * (n + m) for n, m in itertools.pairwise(sizes)]
    return float(itemsize * (3 * sum(layers) - layers[0]))


def _width(sizes: Sequence[int]) -> int:
    return sizes[1] if len(sizes) > 2 else sizes[0]


def _net_without(entry: Entry) -> str:
    """Return the net of an entry for people, with the letter of what is varied in place of its value."""
    sizes, L = entry.sizes, len(entry.sizes) - 1
    n = "n" if entry.varies == "width" else str(_width(sizes))
    layers = "L" if entry.varies == "depth" else str(L)
    if len(set(sizes)) == 1:
        net = f"{n}×{layers}"
    elif entry.varies == "depth":
        net = f"{sizes[0]}-{n}…{n}-{sizes[-1]}"
    else:
        inner = [n] * (L - 1) if entry.varies == "width" else list(map(str, sizes[1:-1]))
        net = "-".join([str(sizes[0]), *inner, str(sizes[-1])])
    batch = [] if entry.varies == "rows" else [f"N {entry.batch}"]
    unusual = [text for text in (entry.optimizer, entry.precision) if text not in ("", "SGD", "float32")]
    return ", ".join([net, *batch, *unusual])


def slope(points: Sequence[tuple[float, float]]) -> float | None:
    """Return p of y ~ x^p by least squares of the logarithms, None where there are fewer than two x."""
    if len({x for x, _ in points}) < 2:
        return None
    x, y = ([math.log(value) for value in column] for column in zip(*points, strict=True))
    return statistics.linear_regression(x, y).slope


def upper_half(points: Sequence[Point]) -> Sequence[Point]:
    """Return the larger half of a family, two points at least: there a step costs more than what it costs to begin."""
    return points[-max(2, math.ceil(len(points) / 2)) :]


# -- peers and floors --------------------------------------------------------------------------------------------------


def fastest_peer(entry: Entry) -> tuple[str, float] | None:
    """Return the name of the peer that takes the least time, and that time over ours."""
    timed = [(peer.ratio, name) for name, peer in entry.peers.items() if peer.ratio is not None]
    return (min(timed)[1], min(timed)[0]) if timed else None


@dataclass(frozen=True)
class Roof:
    """The rates that the floors reached on one backend.

    Attributes:
        products: operations a second of the bare products, by precision.
        copy: bytes a second of a copy, None where it was not measured.
    """

    products: dict[str, float]
    copy: float | None


def roof(results: Results, backend: str) -> Roof:
    """Return the best rates of the floors of a backend."""
    products: dict[str, float] = {}
    copies = []
    for entry in results.entries:
        if entry.backend != backend or entry.floor is None:
            continue
        if entry.floor.name == PRODUCTS and entry.flops:
            rate = entry.flops / entry.floor.seconds
            products[entry.precision] = max(products.get(entry.precision, 0.0), rate)
        if entry.floor.name == COPY and entry.bytes:
            copies.append(entry.bytes / entry.floor.seconds)
    return Roof(products, max(copies, default=None))
