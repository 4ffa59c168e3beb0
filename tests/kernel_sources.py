"""Every kernel with every row of the tables in it, and with rows of a user: what has to compile and to run."""

from __future__ import annotations

from formulas import OPTIMIZERS
from own_rows import pseudo_huber, squash

from gpubackprop.activations import ACTIVATIONS, softmax, tanh
from gpubackprop.backends import sources
from gpubackprop.backends.sources import Source
from gpubackprop.losses import LOSSES, mse

STORAGES = ("float32", "float64", "uint16")  # the last holds the bits of bfloat16, with arithmetic in float32
HIDDEN = [*(row for row in ACTIVATIONS.values() if not row.rowwise), squash]
PAIRS = [
    *((loss, activation) for loss in (*LOSSES.values(), pseudo_huber) for activation in (tanh, softmax)),
    *((loss, loss.canonical) for loss in LOSSES.values() if loss.canonical not in (None, softmax)),
    *((mse, activation) for activation in HIDDEN if activation is not tanh),
]

SOURCES: dict[str, Source] = {
    "cast": sources.CAST,
    "gather": sources.GATHER,
    "softmax": sources.SOFTMAX,
    "dropout": sources.DROPOUT,
    "penalty": sources.PENALTY,
    "sum_rows": sources.SUM_ROWS,
    "weights": sources.WEIGHTS,
    **{f"activate-{row.name}": sources.activate(row) for row in HIDDEN},
    **{f"delta-{row.name}": sources.delta(row) for row in HIDDEN},
    **{f"output-{loss.name}-{row.name}": sources.output(loss, row) for loss, row in PAIRS},
    **{f"update-{name}": sources.update(optimizer) for name, optimizer in OPTIMIZERS.items()},
    "update-add": sources.ADD,
}


def arithmetic(storage: str) -> str:
    """Return the type of the arithmetic beside a type of storage."""
    return "float32" if storage == "uint16" else storage
