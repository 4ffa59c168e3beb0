"""The single operations of the benchmark suite: every row of activations, losses and optimizers, without products."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from kernel_runs import COLS, SMALL, Arrays, Case, WithoutProducts, delta_case, forward_case, output_case, update_case

from gpubackprop.activations import ACTIVATIONS, identity
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.losses import LOSSES
from gpubackprop.optimizers import OPTIMIZERS

TABLES: dict[str, Mapping[str, Any]] = {"activation": ACTIVATIONS, "loss": LOSSES, "optimizer": OPTIMIZERS}
ELEMENTS = {"numpy": 2**22, "cuda": 2**26}  # of each array: more than a cache holds


class Operation(NamedTuple):
    """One operation.

    Attributes:
        what: a key of TABLES.
        row: its name there; for the derivative of an activation with a word behind it.
        case: makes it from arrays.
    """

    what: str
    row: str
    case: Callable[[Arrays], Case]

    @property
    def name(self) -> str:
        """What and which."""
        return f"{self.what} {self.row}"


def operations() -> Iterator[Operation]:
    """Yield an operation for every row, and for every activation of hidden layers that of its derivative."""
    for name, row in ACTIVATIONS.items():
        keeps_z = row.needs_z or row.rowwise
        yield Operation("activation", name, partial(forward_case, row=row, keeps_z=keeps_z))
        if not row.rowwise:
            yield Operation("activation", f"{name}, derivative", partial(delta_case, row=row, masked=False))
    for name, loss in LOSSES.items():
        row = loss.canonical or identity
        yield Operation("loss", name, partial(output_case, kernel="output", loss=loss, row=row, cols=COLS))
    for name, rule in OPTIMIZERS.items():
        yield Operation("optimizer", name, partial(update_case, optimizer=rule(SMALL), formula=name))


def without_benchmark(benched: Iterable[tuple[str, str]]) -> list[str]:
    """Return the rows of all tables that have no benchmark.

    Args:
        benched: what and row of the benchmarks there are.

    Returns:
        Names, as "loss mse".
    """
    there = set(benched)
    return [f"{what} {name}" for what, table in TABLES.items() for name in table if (what, name) not in there]


class NumpyWithoutProducts(NumpyBackend):
    """NumPy's backend whose product of a layer is taken as done: operations are given None for its operand."""

    def _product(self, A: Any, B: Any, out: Any) -> None:
        if A is not None:
            super()._product(A, B, out)


def arrays(backend: str, elements: int) -> Arrays:
    """Return the memory that operations go over, in float32.

    Args:
        backend: "numpy" or "cuda".
        elements: of each array.
    """
    if backend == "numpy":
        return Arrays(NumpyWithoutProducts(), "float32", elements)
    import cupy

    return Arrays(WithoutProducts(0, cupy, "none are timed"), "float32", elements)


class Runs:
    """A case as what can be timed.

    Args:
        memory: its arrays.
        case: made from them.
    """

    def __init__(self, memory: Arrays, case: Case) -> None:
        self._backend, self._case = memory.backend, case

    @property
    def bytes(self) -> int:
        """That it reads and writes."""
        return sum(array.nbytes for array in self._case.moved)

    def steps(self, k: int) -> None:
        """Run it k times."""
        with self._backend.running(0.0):
            for _ in range(k):
                self._case.run()

    def wait(self) -> None:
        """Wait until it is done."""
        self._backend.synchronize()

    def once(self) -> None:
        """Run it once, and wait."""
        self.steps(1)
        self.wait()
