"""Equations 1 to 8 as a textbook prints them: one example at a time, in columns. What the package is held against.

Here W is (n_l, n_{l-1}) and z = W a + b, so every matrix is the transpose of the package's. Nothing is taken from the
package: activations and losses are written again, in the form in which a textbook has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy

Pairs = list[tuple[numpy.ndarray, numpy.ndarray]]


def _logistic(z: Any) -> Any:
    return 1 / (1 + numpy.exp(-z))


def _softmax(z: Any) -> Any:
    return numpy.exp(z) / numpy.exp(z).sum()


SIGMA = {
    "identity": lambda z: z,
    "sigmoid": _logistic,
    "tanh": numpy.tanh,
    "relu": lambda z: numpy.where(z > 0, z, 0.0),
    "softmax": _softmax,
}
SIGMA_PRIME = {  # as a Jacobian, so that softmax is no exception
    "identity": lambda z: numpy.eye(len(z)),
    "sigmoid": lambda z: numpy.diag(_logistic(z) * (1 - _logistic(z))),
    "tanh": lambda z: numpy.diag(1 / numpy.cosh(z) ** 2),
    "relu": lambda z: numpy.diag(numpy.where(z > 0, 1.0, 0.0)),
    "softmax": lambda z: numpy.diag(_softmax(z)) - numpy.outer(_softmax(z), _softmax(z)),
}
LOSS = {  # of one example with K outputs
    "mse": lambda y, a: ((y - a) ** 2).sum() / len(y),
    "squared_error": lambda y, a: ((y - a) ** 2).sum() / (2 * len(y)),
    "binary_cross_entropy": lambda y, a: -(y * numpy.log(a) + (1 - y) * numpy.log(1 - a)).sum() / len(y),
    "cross_entropy": lambda y, a: -(y * numpy.log(a)).sum(),
}
LOSS_PRIME = {
    "mse": lambda y, a: -2 * (y - a) / len(y),
    "squared_error": lambda y, a: -(y - a) / len(y),
    "binary_cross_entropy": lambda y, a: (a - y) / (a * (1 - a)) / len(y),
    "cross_entropy": lambda y, a: -y / a,
}


def forward(columns: Pairs, names: Sequence[str], x: Any, masks: Any = None) -> tuple[list[Any], list[Any]]:
    """Return z_1..z_L and what each layer is given, h_0..h_{L-1}, followed by a_L; equations 1 and 2."""
    zs, hs = [], [x]
    for l, ((W, b), name) in enumerate(zip(columns, names, strict=True)):
        zs.append(W @ hs[-1] + b)
        a = SIGMA[name](zs[-1])
        hs.append(a * masks[l] if masks is not None and l < len(names) - 1 else a)
    return zs, hs


def one_example(
    columns: Pairs, names: Sequence[str], loss: str, x: Any, y: Any, masks: Any = None
) -> tuple[Any, Pairs]:
    """Return the loss of one example and [(∂L/∂W_1, ∂L/∂b_1), ...] in columns; equations 3 to 6 without any 1/N."""
    zs, hs = forward(columns, names, x, masks)
    delta = SIGMA_PRIME[names[-1]](zs[-1]).T @ LOSS_PRIME[loss](y, hs[-1])
    gradients: Pairs = []
    for l in range(len(columns) - 1, -1, -1):
        gradients.insert(0, (numpy.outer(delta, hs[l]), delta))
        if l > 0:
            back = columns[l][0].T @ delta
            back = back if masks is None else back * masks[l - 1]
            delta = SIGMA_PRIME[names[l - 1]](zs[l - 1]).T @ back
    return LOSS[loss](y, hs[-1]), gradients


def batch(
    columns: Pairs,
    names: Sequence[str],
    loss: str,
    X: Any,
    Y: Any,
    weights: Any = None,
    masks: Any = None,
    l2: float = 0.0,
) -> tuple[float, Pairs]:
    """Return the weighted mean over single examples of loss and gradients, with the penalty λ/2 Σ W²."""
    weights = numpy.ones(len(X)) if weights is None else weights
    value = sum(l2 / 2 * (W * W).sum() for W, _ in columns)
    sums = [(l2 * W, numpy.zeros_like(b)) for W, b in columns]
    for i, share in enumerate(weights / weights.sum()):
        own = None if masks is None else [mask[i] for mask in masks]
        part, gradients = one_example(columns, names, loss, X[i], Y[i], own)
        value += share * part
        sums = [(W + share * dW, b + share * db) for (W, b), (dW, db) in zip(sums, gradients, strict=True)]
    return float(value), sums


def columns_of(parameters: Any) -> Pairs:
    """Return the package's [(W_1, b_1), ...] in columns, as copies."""
    return [(numpy.array(W).T.copy(), numpy.array(b)) for W, b in parameters]


def gradient_descent(columns: Pairs, gradients: Pairs, eta: float) -> Pairs:
    """Equations 7 and 8."""
    return [(W - eta * dW, b - eta * db) for (W, b), (dW, db) in zip(columns, gradients, strict=True)]


def assert_equal(pairs: Any, columns: Pairs, rtol: float) -> None:
    """Hold the package's pairs against pairs in columns, relative to the largest entry of each array."""
    assert len(pairs) == len(columns)
    for l, ((W, b), (W_column, b_column)) in enumerate(zip(pairs, columns, strict=True), start=1):
        for letter, given, expected in (("W", numpy.asarray(W).T, W_column), ("b", numpy.asarray(b), b_column)):
            error = abs(given - expected).max()
            assert error <= rtol * abs(expected).max(), f"{letter}_{l} is off by {error:.2e}"
