"""How far training on CUDA is from training on NumPy, and whether it gives the same bits when it is run again."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy

import gpubackprop as gb

EXAMPLES, EPOCHS, RERUNS = 300, 10, 3


def parity(dtype: str) -> dict[str, Any]:
    """Train the same network on NumPy and, several times over, on CUDA.

    Args:
        dtype: "float32" or "float64".

    Returns:
        The largest difference of a parameter, in units of the largest parameter; that of the last loss, in units of
        it; and a hash of the parameters after each of the runs on CUDA.
    """
    theta, loss = _trained("numpy", dtype)
    runs = [_trained("cuda", dtype) for _ in range(RERUNS)]
    other_theta, other_loss = runs[0]
    return {
        "dtype": dtype,
        "epochs": EPOCHS,
        "largest_relative_difference_of_parameters": float(abs(other_theta - theta).max() / abs(theta).max()),
        "relative_difference_of_loss": abs(other_loss - loss) / abs(loss),
        "sha256_of_reruns_on_cuda": [hashlib.sha256(run[0].tobytes()).hexdigest() for run in runs],
    }


def _trained(backend: str, dtype: str) -> tuple[numpy.ndarray, float]:
    """Return the parameters and the last loss of a classifier of points by the sign of two of their coordinates."""
    X = numpy.random.default_rng(0).normal(size=(EXAMPLES, 8))
    y = 2 * (X[:, 0] > 0) + (X[:, 1] > 0)
    net = gb.Network(
        [8, 32, 16, 4],
        activation=["gelu", "tanh"],
        output_activation="softmax",
        loss="cross_entropy",
        dropout=0.2,
        l2=1e-4,
        dtype=dtype,
        backend=backend,
        seed=0,
    )
    history = gb.fit(net, X, y, optimizer="adam", epochs=EPOCHS, batch_size=32, tol=None, progress=False)
    return net.backend.to_numpy(net.theta), history.loss[-1]
