"""The training steps that are compared: nets, batches, optimizers and precisions, the same for all who take part.

Letters: N examples in a batch, n_l units in layer l, L layers.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, Protocol

import numpy

import gpubackprop as gb

SHAPES: dict[str, list[tuple[tuple[int, ...], int]]] = {  # regime: sizes and N
    "tiny": [((784, 128, 10), N) for N in (64, 256)],
    "medium": [((1024,) * 5, N) for N in (1024, 4096)],
    "large": [((width,) * 4, 8192) for width in (4096, 8192)],
}
SUITE: dict[str, tuple[tuple[int, ...], int]] = {  # the benchmark suite's, by regime: sizes and N
    "tiny": ((784, 128, 10), 64),
    "small": ((784, 512, 512, 10), 256),
    "deep": ((256,) * 9, 128),
    "medium": ((1024,) * 5, 1024),
    "large": ((4096,) * 4, 8192),
}
ON_CUDA_ALONE = ("large",)  # a CPU takes seconds for a step of these
EPOCHS: dict[str, tuple[tuple[int, ...], int]] = {  # of its epochs
    "tiny": ((784, 128, 10), 200),
    "small": ((784, 512, 512, 10), 256),
}
GROWING: dict[str, list[tuple[int, tuple[int, ...], int]]] = {  # what grows: its value, sizes, N
    "rows": [(N, (256, 256, 256, 10), N) for N in (32, 64, 128, 256, 512, 1024, 2048, 4096)],
    "width": [(n, (n,) * 4, 256) for n in (64, 128, 256, 512, 1024, 2048)],
    "depth": [(L, (256,) * (L + 1), 256) for L in (2, 4, 8, 16, 32)],
}
QUICK = {"tiny": 2, "medium": 1, "large": 0}  # shapes of a regime that a quick run takes
RATES = {"SGD": 0.01, "Adam": 1e-3}
PRECISIONS = ("float32", "tf32", "bfloat16")

DISTINCT = 4  # batches, over which all go again and again
PASSES = 3  # over these, whose losses are compared: our steps are launched in the first, recorded and then replayed
CURVE = PASSES * DISTINCT
EPOCH_BATCHES = 16  # of the suite's epochs
STREAMED_BATCHES, STREAMED_WINDOWS = 64, 4  # of those that are read from a file: some 40 MB, 10 at a time

# How far the losses of two who do the same may be apart, as a share of the first loss: one that has fallen to nearly
# nothing is no measure. An operand of p bits is off by at most 2^-p. The outputs depend on 2 L operands, each off on
# its own, and L is at most 4: sqrt(8) 2^-p is 1.4e-3 with the 11 bits of TF32 and 1.1e-2 with the 8 of bfloat16. The
# mean over N examples is closer, but Adam in wide nets makes more of any difference: with 4096 and 8192 units, N 512,
# on a CPU, PyTorch and JAX were 7.1e-4 off ours in float32 at most, and 4.4e-3 off each other in bfloat16.
LOSS_BOUNDS = {"float32": 1e-3, "tf32": 2e-3, "bfloat16": 1.1e-2}

MOST_BATCHES = 1024  # of an epoch
MOST_BYTES = {"cuda": 2**31, "cpu": 2**22}  # of its data: on a CPU few, since the peers' batches stay in its caches
MOST_FLOPS = {"cuda": 2e13, "cpu": 1e9}  # of its steps

Weights = Sequence[tuple[numpy.ndarray, numpy.ndarray]]


@dataclass(frozen=True)
class Workload:
    """One training step: relu in the hidden layers, softmax and cross-entropy with class labels at the end.

    Attributes:
        regime: a key of SHAPES.
        sizes: units of every layer, (n_0, ..., n_L).
        rows: N.
        optimizer: "SGD" or "Adam".
        rate: its learning rate.
        precision: of matrix products.
        device: "cuda" or "cpu": where it is run.
        short: whether an epoch has as few batches as can be.
    """

    regime: str
    sizes: tuple[int, ...]
    rows: int
    optimizer: str
    rate: float
    precision: str
    device: str = "cuda"
    short: bool = False

    @property
    def shape(self) -> str:
        """Net and batch."""
        L = len(self.sizes) - 1
        net = f"{self.sizes[0]}x{L}" if len(set(self.sizes)) == 1 else "-".join(map(str, self.sizes))
        return f"{net}, N {self.rows}"

    @property
    def name(self) -> str:
        """Regime, net, batch, optimizer and precision."""
        return f"{self.regime} {self.shape}, {self.optimizer}, {self.precision}"

    def shrunk(self) -> Workload:
        """Return a workload that takes next to no time, for trying whether all can take part."""
        *sizes, classes = (min(n, 12) for n in self.sizes)
        return dataclasses.replace(self, sizes=(*sizes, min(classes, 5)), rows=16, short=True)

    @property
    def products(self) -> list[int]:
        """n_{l-1} n_l of every layer."""
        return [m * n for m, n in zip(self.sizes, self.sizes[1:], strict=False)]

    @property
    def flops(self) -> float:
        """Floating-point operations of the products of a step, as `Network.flops` counts them."""
        return 2.0 * self.rows * (3 * sum(self.products) - self.products[0])

    @property
    def forward_flops(self) -> float:
        """Those of the forward pass alone."""
        return 2.0 * self.rows * sum(self.products)

    @property
    def batches(self) -> int:
        """Steps of an epoch of ours: many, so that what an epoch costs besides is small; a multiple of DISTINCT."""
        if self.short:
            return DISTINCT
        batch = 4 * self.rows * (self.sizes[0] + self.sizes[-1])
        most = min(MOST_BATCHES, MOST_BYTES[self.device] // batch, MOST_FLOPS[self.device] // self.flops)
        return max(DISTINCT, int(most) // DISTINCT * DISTINCT)

    @property
    def bytes(self) -> int:
        """Memory that is enough for any one who takes part: the data twice over, eight θ, six times all layers."""
        data = 2 * self.batches * self.rows * (self.sizes[0] + self.sizes[-1])
        return 4 * (data + 8 * sum(self.products) + 6 * self.rows * sum(self.sizes))


class Data(NamedTuple):
    """What all are given: [(W_1, b_1), ...] to begin with; x (DISTINCT N, n_0) and class labels y, in order."""

    weights: Weights
    x: numpy.ndarray
    y: numpy.ndarray


class Contender(Protocol):
    """One who takes part: `prepare`, `loss_curve`, and then `steps` and `wait` in turn."""

    @property
    def name(self) -> str:
        """What it is called in the table."""

    def unavailable(self, workload: Workload) -> str | None:
        """Return why it cannot take part, or None."""

    def prepare(self, workload: Workload, data: Data) -> None:
        """Put weights and data where they are needed, and make the step."""

    def loss_curve(self) -> list[float]:
        """Return the losses of the first CURVE steps; of what does not train, none."""

    def steps(self, k: int) -> None:
        """Take k steps, a multiple of the batches of an epoch, without waiting for the last of them."""

    def wait(self) -> None:
        """Wait until all steps are done."""


def workloads(quick: bool) -> Iterator[Workload]:
    """Yield all workloads, or the tiny ones and one medium; those of one shape are neighbours."""
    for regime, shapes in SHAPES.items():
        for sizes, rows in shapes[: QUICK[regime]] if quick else shapes:
            for precision in PRECISIONS:
                for optimizer, rate in RATES.items():
                    yield Workload(regime, sizes, rows, optimizer, rate, precision)


def suite_workload(regime: str, optimizer: str, backend: str, *, epochs: bool = False, smoke: bool = False) -> Workload:
    """Return a workload of the suite, in float32.

    Args:
        regime: a key of SUITE, or of EPOCHS.
        optimizer: "SGD" or "Adam".
        backend: "numpy" or "cuda".
        epochs: whether it is for epochs.
        smoke: whether it is only tried, on a net of a few units.
    """
    sizes, rows = (EPOCHS if epochs else SUITE)[regime]
    device = "cpu" if backend == "numpy" else "cuda"
    made = Workload(regime, sizes, rows, optimizer, RATES[optimizer], "float32", device)
    return made.shrunk() if smoke else made


def growing_workload(varies: str, point: int, backend: str, *, smoke: bool = False) -> Workload:
    """Return a workload of a series, trained by SGD in float32.

    Args:
        varies: a key of GROWING.
        point: its place there.
        backend: "numpy" or "cuda".
        smoke: whether it is only tried, on a net of a few units.
    """
    _, sizes, rows = GROWING[varies][point]
    device = "cpu" if backend == "numpy" else "cuda"
    made = Workload("growing", sizes, rows, "SGD", RATES["SGD"], "float32", device)
    return made.shrunk() if smoke else made


def data_of(workload: Workload) -> Data:
    """Return what a workload begins with; it is kept until another shape is asked for."""
    return _data(workload.sizes, workload.rows)


@lru_cache(maxsize=1)
def _data(sizes: tuple[int, ...], rows: int) -> Data:
    """The class of an example is the largest of its first n_L inputs, so that there is something to learn."""
    assert sizes[-1] <= sizes[0]
    net = network(Workload("", sizes, rows, "SGD", 0.0, "float32"), "numpy")
    x = numpy.random.default_rng(1).standard_normal((DISTINCT * rows, sizes[0]), dtype="float32")
    return Data(net.parameters, x, x[:, : sizes[-1]].argmax(axis=1))


def tiled(data: Data, repeats: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return examples and labels, so many times over."""
    return numpy.tile(data.x, (repeats, 1)), numpy.tile(data.y, repeats)


def epoch_data(data: Data, batches: int = EPOCH_BATCHES) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Return examples and labels of an epoch of so many batches, a multiple of DISTINCT."""
    return tiled(data, batches // DISTINCT)


def network(workload: Workload, backend: str) -> gb.Network:
    """Return the network of a workload."""
    return gb.Network(
        workload.sizes,
        activation="relu",
        output_activation="softmax",
        loss="cross_entropy",
        backend=backend,
        precision=workload.precision,
        seed=0,
    )


def largest_difference(losses: Sequence[float], ours: Sequence[float]) -> float:
    """Return how far losses are from ours at most, as a share of our first; infinity where they are not finite."""
    off = [abs(a - b) / abs(ours[0]) for a, b in zip(losses, ours, strict=True)]
    return max(off) if all(map(math.isfinite, off)) else math.inf
