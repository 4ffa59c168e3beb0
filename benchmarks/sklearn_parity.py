"""How far the estimators' weights are from scikit-learn's after ten epochs from the same draws.

    PYTHONPATH=. python benchmarks/sklearn_parity.py --out benchmarks/results/MACHINE-parity.json

Every activation, solver and kind of task, in both types, on the CPU and, where it is usable, on CUDA. Needs the extras
`sklearn` and `bench`. `tools/readme_tables.py` makes the README's table of the file. Exit status: 0; 1 where a distance
is beyond its bound.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import sklearn
from cpuinfo import get_cpu_info
from machine import describe
from sklearn import datasets, neural_network, preprocessing
from sklearn.exceptions import ConvergenceWarning

import gpubackprop
import gpubackprop.sklearn

ACTIVATIONS = ("identity", "logistic", "tanh", "relu")
SOLVERS = ("sgd", "adam", "lbfgs")
TASKS = ("binary", "multiclass", "multilabel", "regression", "multi-output", "poisson")
DTYPES = ("float64", "float32")
# Ten epochs are 30 steps, of which each rounds every weight to half a unit in the last place: 1.1e-16, 6e-8 relative,
# 30 times that is 3e-15 and 2e-6. The line search of L-BFGS magnifies what is rounded, by up to 5,300 here (5.9e-13 in
# double precision); scikit-learn with its rows in another order differs from itself by as much as 1.7e-5 in float32.
# The formulas and types are one: in float32, where 24 fits are up to 8.5e-5 apart, gradients at the same 291 points lie
# 3.3e-7 (median) and 1.6e-5 (most) off those in float64, scikit-learn's 3.3e-7 and 1.5e-5, and 3.7e-6 off each other.
# With its loss at those points in place of ours fits are up to 6.1e-5 apart, with its gradient 4.0e-5, with both 0.
BOUNDS = {"float64": 1e-12, "float32": 5e-6}
LBFGS_FLOAT32 = 5300 * 6e-8
CUDA_BOUNDS = {"float64": 1e-10, "float32": 1e-4}  # whose products add up in another order


def bound(dtype: str, solver: str, backend: str = "numpy") -> float:
    """Return how far the weights may be off, relative."""
    own = LBFGS_FLOAT32 if (dtype, solver) == ("float32", "lbfgs") else BOUNDS[dtype]
    return own if backend == "numpy" else max(own, CUDA_BOUNDS[dtype])


def task(kind: str, dtype: str) -> tuple[Any, Any, dict[str, Any]]:
    """Return real data for a kind of task.

    Args:
        kind: one of TASKS.
        dtype: of the examples, and of the values of regression.

    Returns:
        150 to 200 examples, scaled; their targets; and what the estimator is to be told of them.
    """
    if kind in ("regression", "multi-output", "poisson"):
        X, y = datasets.load_diabetes(return_X_y=True)
        X, y = preprocessing.scale(X[:200]), y[:200] / 100
        if kind == "poisson":
            return X.astype(dtype), numpy.round(y).astype(dtype), {"loss": "poisson"}
        return X.astype(dtype), (y if kind == "regression" else numpy.c_[y, numpy.sqrt(y)]).astype(dtype), {}
    X, y = datasets.load_breast_cancer(return_X_y=True) if kind == "binary" else datasets.load_iris(return_X_y=True)
    if kind == "multilabel":
        y = numpy.c_[y > 0, y == 1, X[:, 1] > 3].astype(int)
    return preprocessing.scale(X)[:200].astype(dtype), y[:200], {}


def pair(kind: str, **parameters: Any) -> tuple[Any, Any]:
    """Return the two estimators for a kind of task: ours and scikit-learn's."""
    name = "MLPClassifier" if kind in ("binary", "multiclass", "multilabel") else "MLPRegressor"
    own, theirs = (getattr(module, name)(**parameters) for module in (gpubackprop.sklearn, neural_network))
    return own, theirs


def off(own: Any, theirs: Any) -> float:
    """Return the relative distance of all weights, in the Euclidean norm."""
    a, b = (
        numpy.concatenate([x.ravel() for x in (*e.coefs_, *e.intercepts_)]).astype("float64") for e in (own, theirs)
    )
    return float(numpy.linalg.norm(a - b) / numpy.linalg.norm(b))


def trained(dtype: str, activation: str, solver: str, kind: str, backend: str = "numpy") -> tuple[Any, Any]:
    """Return both estimators after ten epochs, ours on a backend."""
    X, y, told = task(kind, dtype)
    own, theirs = pair(
        kind,
        hidden_layer_sizes=(12, 8),
        activation=activation,
        solver=solver,
        batch_size=60,
        learning_rate_init=0.01,
        max_iter=10,
        random_state=3,
        **told,
    )
    return own.set_params(backend=backend).fit(X, y), theirs.fit(X, y)


def measured(backend: str, dtype: str, solver: str) -> dict[str, Any]:
    """Return how far off the weights are at most, of all activations and kinds of tasks."""
    distances = [
        off(*trained(dtype, each, solver, kind, backend)) for each, kind in itertools.product(ACTIVATIONS, TASKS)
    ]
    return {
        "backend": backend,
        "dtype": dtype,
        "solver": solver,
        "configurations": len(distances),
        "largest": max(distances),
        "median": float(numpy.median(distances)),
        "bound": bound(dtype, solver, backend),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print, and write the file.

    Args:
        argv: the command line without the name of the program.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(description="Measure how far the estimators are from scikit-learn's.")
    parser.add_argument("--out", type=Path, required=True, help="file to write, of JSON")
    out = parser.parse_args(argv).out
    backends = [name for name in ("numpy", "cuda") if name in gpubackprop.available_backends()]
    rows = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        for backend, solver, dtype in itertools.product(backends, SOLVERS, DTYPES):
            rows.append(measured(backend, dtype, solver))
            print("{backend} {solver} {dtype}: {largest:.1e} at most, {median:.1e} in the middle".format(**rows[-1]))
    machine: dict[str, Any] = {"cpu": get_cpu_info()}
    describe(machine)
    machine |= {"scikit_learn": sklearn.__version__, "date": datetime.now(UTC).isoformat(timespec="seconds")}
    out.write_text(json.dumps({"machine": machine, "sklearn_parity": rows}, indent=1) + "\n", encoding="utf-8")
    return int(any(row["largest"] > row["bound"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
