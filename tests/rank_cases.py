"""What every rank does in the tests of distributed training: cases, trained alone or together.

    mpiexec -n N python -m mpi4py tests/rank_cases.py FILE.npz

Rank 0 writes what each case came to, and in how many ways the ranks' parameters differ: one way, if all is well.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

import gpubackprop as gb
from gpubackprop.optimizers import SGD, Adagrad, Adam, AdamW, RMSprop

RNG = np.random.default_rng(5)
X, Y, W = RNG.normal(size=(101, 6)), RNG.normal(size=(101, 3)), RNG.uniform(0.1, 1.0, 101)
LABELS = RNG.integers(0, 3, 101)
SOFTMAX = {"output_activation": "softmax", "loss": "cross_entropy", "y": LABELS}

# Rates are small enough for training to settle: where it does not, the last bits of a sum grow to everything.
CASES: dict[str, dict[str, Any]] = {
    "gradient descent": {"optimizer": SGD(0.1)},
    "momentum": {"optimizer": SGD(0.02, momentum=0.9)},
    "Nesterov": {"optimizer": SGD(0.02, momentum=0.9, nesterov=True), "weight": W},
    "Adam": {"optimizer": Adam(0.01, clip_norm=0.5)},
    "AdamW": {"optimizer": AdamW(0.01), "l2": 0.1},
    "RMSprop": {"optimizer": RMSprop(0.003), "dropout": 0.3},
    "Adagrad": {"optimizer": Adagrad(0.01), **SOFTMAX},
    "weights, penalty and dropout": {"optimizer": Adam(0.01), "weight": W, "l2": 0.1, "dropout": 0.4, **SOFTMAX},
    "batches of three, then of two": {"optimizer": SGD(0.02, momentum=0.9), "batch_size": 3, "dropout": 0.2},
    "batches of one": {"optimizer": SGD(0.02), "batch_size": 1, "weight": W, "l2": 0.1},
    "all in one batch": {"optimizer": SGD(0.1), "batch_size": 101, "shuffle": False, "l2": 0.1, "weight": W},
    "validation": {"optimizer": Adam(0.01), "validation_data": (X[:7], Y[:7]), "patience": 1, "tol": 0.02},
    "validation on fewer than all ranks": {"optimizer": SGD(0.1), "validation_data": (X[:1], Y[:1])},
    "a callback that stops": {"optimizer": SGD(0.1), "callbacks": [lambda net, history: len(history.loss) == 2]},
    "a callback that changes θ": {"optimizer": SGD(0.1), "callbacks": [lambda net, history: _halve(net)]},
}
DTYPES = ("float64", "float32")


def _halve(net: gb.Network) -> None:
    net.theta[...] *= 0.5


def trained(case: str, dtype: str, *, distributed: bool, backend: str = "numpy") -> tuple[gb.Network, gb.History]:
    """Return a network trained as a case says, and its history."""
    arguments = {"batch_size": 24, "epochs": 5, "tol": None, **CASES[case]}
    y, weight = arguments.pop("y", Y), arguments.pop("weight", None)
    of_network = ("l2", "dropout", "output_activation", "loss")
    network = {name: arguments.pop(name) for name in of_network if name in arguments}
    net = gb.Network([6, 16, 5, 3], activation="tanh", dtype=dtype, backend=backend, **network)
    return net, gb.fit(net, X, y, sample_weight=weight, distributed=distributed, **arguments)


def figures(net: gb.Network, history: gb.History) -> dict[str, np.ndarray]:
    """Return what a training came to: θ, and the losses of its epochs."""
    theta = net.backend.to_numpy(net.theta)
    return {"theta": theta, "loss": np.array(history.loss), "validation": np.array(history.validation_loss)}


def together(distinct: Callable[[Any], int], cases: list[tuple[str, str]], backend: str) -> dict[str, np.ndarray]:
    """Train cases in all ranks; return their figures, and by how many ways these differ."""
    found = {}
    for case, dtype in cases:
        now = figures(*trained(case, dtype, distributed=True, backend=backend))
        digest = hashlib.sha256(b"".join(now[name].tobytes() for name in sorted(now))).hexdigest()
        found |= {f"{case} {dtype} {name}": value for name, value in now.items()}
        found[f"{case} {dtype} ways"] = np.array(distinct(digest))
    return found


def main(path: str) -> None:
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    cases = [(case, dtype) for case in CASES for dtype in DTYPES]
    found = together(lambda digest: len(set(comm.allgather(digest))), cases, "numpy")
    if comm.rank == 0:
        np.savez(path, **found, ranks=comm.size)


if __name__ == "__main__":
    main(sys.argv[1])
