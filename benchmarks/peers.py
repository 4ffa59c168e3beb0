"""What else takes the same training steps: PyTorch in three ways, JAX, plain CuPy or NumPy, and scikit-learn.

Libraries are imported where they are asked for.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import math
import os
import sys
from typing import Any

import numpy
from sklearn_peers import SklearnSteps
from torch_peers import TorchCompiled, TorchEager, TorchGraph
from workloads import CURVE, DISTINCT, Contender, Data, Workload

JAX_PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "default"}  # the last: of its operands


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


class Jax:
    """JAX: a scan over the steps, compiled, whose parameters and state are donated.

    Args:
        device: "cuda" or "cpu".
    """

    name = "JAX, jit and scan"

    def __init__(self, device: str) -> None:
        self._device = device

    def unavailable(self, workload: Workload) -> str | None:
        """Return why JAX cannot take part, or None."""
        if importlib.util.find_spec("jax") is None:
            return "JAX is not installed"
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # else it takes most of the device at once
        jax = importlib.import_module("jax")
        if self._device == "cuda" and jax.default_backend() != "gpu":
            return "the JAX that is installed sees no CUDA device"
        return None

    def prepare(self, workload: Workload, data: Data) -> None:
        """Put weights, state and batches on the device."""
        self._jax, self._jnp = (importlib.import_module(name) for name in ("jax", "jax.numpy"))
        self._workload, self._taken = workload, 0
        arrays = self._jnp.asarray
        weights = [(arrays(W.copy()), arrays(b.copy())) for W, b in data.weights]
        zeros = self._jax.tree.map(self._jnp.zeros_like, weights)
        moments = () if workload.optimizer == "SGD" else (zeros, self._jax.tree.map(self._jnp.copy, zeros))
        self._state = weights, moments, arrays(0.0)
        self._x = arrays(data.x).reshape(DISTINCT, workload.rows, -1)
        self._y = arrays(data.y.astype("int32")).reshape(DISTINCT, workload.rows)
        self._many = self._jax.jit(self._scan, static_argnums=(0,), donate_argnums=(1,))

    def _loss(self, weights: Any, x: Any, y: Any) -> Any:
        jnp, storage = self._jnp, "bfloat16" if self._workload.precision == "bfloat16" else "float32"
        z = x
        for l, (W, b) in enumerate(weights):
            h = jnp.maximum(z, 0) if l else z
            z = h.astype(storage) @ W.astype(storage) + b.astype(storage)
        log_p = self._jax.nn.log_softmax(z.astype("float32"))
        return -jnp.take_along_axis(log_p, y[:, None], axis=1).mean()

    def _step(self, state: Any, x: Any, y: Any) -> tuple[Any, Any]:
        (weights, moments, t), map_ = state, self._jax.tree.map
        loss, g = self._jax.value_and_grad(self._loss)(weights, x, y)
        rate, t = self._workload.rate, t + 1
        if not moments:
            return (map_(lambda w, g: w - rate * g, weights, g), (), t), loss
        m = map_(lambda m, g: 0.9 * m + (1 - 0.9) * g, moments[0], g)
        v = map_(lambda v, g: 0.999 * v + (1 - 0.999) * g * g, moments[1], g)
        c, d = (-self._jnp.expm1(t * math.log(beta)) for beta in (0.9, 0.999))  # 1 - beta^t loses digits in float32
        weights = map_(lambda w, m, v: w - rate * (m / c) / (self._jnp.sqrt(v / d) + 1e-8), weights, m, v)
        return (weights, (m, v), t), loss

    def _scan(self, k: int, state: Any, x: Any, y: Any, first: Any) -> tuple[Any, Any]:
        def body(state: Any, i: Any) -> tuple[Any, Any]:
            return self._step(state, x[i % DISTINCT], y[i % DISTINCT])

        return self._jax.lax.scan(body, state, first + self._jnp.arange(k))

    def _run(self, k: int) -> Any:
        with self._jax.default_matmul_precision(JAX_PRECISIONS[self._workload.precision]):
            self._state, losses = self._many(k, self._state, self._x, self._y, self._taken % DISTINCT)
        self._taken += k
        return losses

    def loss_curve(self) -> list[float]:
        """Return the losses of the first steps."""
        return [float(loss) for loss in numpy.asarray(self._run(CURVE))]

    def steps(self, k: int) -> None:
        """Take k steps; another k is compiled anew."""
        self._run(k)

    def wait(self) -> None:
        """Wait until all steps are done."""
        self._jax.block_until_ready(self._state)


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
