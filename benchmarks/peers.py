"""What else takes the same training steps: PyTorch in three ways, JAX, plain CuPy or NumPy, and scikit-learn.

Libraries are imported where they are asked for.
"""

from __future__ import annotations

import gc
import importlib
import sys
from typing import Any

import numpy
from jax_peers import Jax
from sklearn_peers import SklearnSteps
from torch_peers import TorchCompiled, TorchEager, TorchGraph
from workloads import CURVE, DISTINCT, Contender, Data, Workload


def peers(device: str, xp: Any) -> list[Contender]:
    """Return all peers.

    Args:
        device: "cuda" or "cpu".
        xp: CuPy, or NumPy on a CPU.

    Returns:
        Those that are not installed too, which say so.
    """
    return [TorchEager(device), TorchCompiled(device), TorchGraph(device), Jax(device), Plain(xp)]


def peers_of_steps(backend: str, quick: bool) -> list[Contender]:
    """Return the peers of the suite.

    Args:
        backend: "numpy" or "cuda".
        quick: whether to leave out what takes long to compile.
    """
    if backend == "numpy":
        everyone = [*peers("cpu", numpy), SklearnSteps()]
    else:
        everyone = peers("cuda", importlib.import_module("cupy"))
    left_out = (TorchCompiled if quick else ()), (TorchGraph if backend == "numpy" else ())
    return [peer for peer in everyone if not isinstance(peer, left_out)]


def versions() -> dict[str, str]:
    """Return the versions of the peers that were imported."""
    names = ("torch", "jax", "sklearn", "cupy")
    return {name: str(sys.modules[name].__version__) for name in names if name in sys.modules}


def release() -> None:
    """Give back the memory of what is no longer used, and forget what was compiled for it."""
    gc.collect()
    if "torch._dynamo" in sys.modules:  # beyond some compilations of a function PyTorch would run it as it is
        sys.modules["torch"].compiler.reset()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


class Plain:
    """The equations as one writes them with CuPy, an operation each, with new arrays.

    Args:
        xp: CuPy, or NumPy on a CPU.
    """

    def __init__(self, xp: Any) -> None:
        self._xp, self.name = xp, f"plain {'NumPy' if xp is numpy else 'CuPy'}"

    def unavailable(self, workload: Workload) -> str | None:
        """Return why the array module cannot take the step, or None."""
        if workload.precision == "bfloat16":
            return "no arrays of bfloat16 of its own"
        return "NumPy has no TF32" if workload.precision == "tf32" and self._xp is numpy else None

    def prepare(self, workload: Workload, data: Data) -> None:
        """Put weights, state and batches on the device; labels as rows of 0 and 1."""
        xp, self._workload, self._t = self._xp, workload, 0
        if xp is not numpy:
            _cupy_tf32(workload.precision == "tf32")
        self._theta = [xp.asarray(a.copy()) for pair in data.weights for a in pair]
        self._m, self._v = ([xp.zeros_like(a) for a in self._theta] for _ in range(2))
        one_hot = numpy.eye(workload.sizes[-1], dtype="float32")
        self._batches = [
            (xp.asarray(x), xp.asarray(one_hot[y]))
            for x, y in zip(numpy.split(data.x, DISTINCT), numpy.split(data.y, DISTINCT), strict=True)
        ]

    def _next(self) -> Any:
        xp, (x, y), h = self._xp, self._batches[self._t % DISTINCT], list[Any]()
        z = x
        for W, b in self._layers():
            h.append(xp.maximum(z, 0) if h else z)
            z = h[-1] @ W + b
        z -= z.max(axis=1, keepdims=True)
        log_p = z - xp.log(xp.exp(z).sum(axis=1, keepdims=True))
        self._update(self._backward(h, (xp.exp(log_p) - y) / numpy.float32(len(x))))
        return -(y * log_p).sum() / len(x)

    def _layers(self) -> list[tuple[Any, Any]]:
        return list(zip(self._theta[::2], self._theta[1::2], strict=True))

    def _backward(self, h: list[Any], delta: Any) -> list[Any]:
        gradient: list[Any] = []
        for (W, _), below in zip(reversed(self._layers()), reversed(h), strict=True):
            gradient = [below.T @ delta, delta.sum(axis=0), *gradient]
            if below is not h[0]:
                delta = (delta @ W.T) * (below > 0)
        return gradient

    def _update(self, gradient: list[Any]) -> None:
        self._t += 1
        rate, c, d = self._workload.rate, 1 - 0.9**self._t, 1 - 0.999**self._t
        for w, g, m, v in zip(self._theta, gradient, self._m, self._v, strict=True):
            if self._workload.optimizer == "SGD":
                w -= rate * g
                continue
            m += (1 - 0.9) * (g - m)
            v += (1 - 0.999) * (g * g - v)
            w -= rate * (m / c) / (self._xp.sqrt(v / d) + 1e-8)

    def loss_curve(self) -> list[float]:
        """Return the losses of the first steps."""
        return [float(self._next()) for _ in range(CURVE)]

    def steps(self, k: int) -> None:
        """Take k steps."""
        for _ in range(k):
            self._next()

    def wait(self) -> None:
        """Wait until all steps are done."""
        if self._xp is not numpy:
            self._xp.cuda.get_current_stream().synchronize()


def _cupy_tf32(wanted: bool) -> None:
    """Let the products of CuPy round their operands to TF32, or not: what CUPY_TF32=1 does when CuPy is imported."""
    linalg = importlib.import_module("cupy._core._routines_linalg")
    linalg.set_compute_type("float32", linalg.COMPUTE_TYPE_TF32 if wanted else linalg.COMPUTE_TYPE_DEFAULT)
