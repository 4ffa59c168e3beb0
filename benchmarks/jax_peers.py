"""JAX taking the same training steps, epochs and predictions. It is imported where it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from typing import Any

import numpy
from workloads import CURVE, DISTINCT, PASSES, Data, Workload, epoch_data

PRECISIONS = {"float32": "float32", "tf32": "tensorfloat32", "bfloat16": "default"}  # the last: of its operands


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

    def _logits(self, weights: Any, x: Any) -> Any:
        z, storage = x, "bfloat16" if self._workload.precision == "bfloat16" else "float32"
        for l, (W, b) in enumerate(weights):
            h = self._jnp.maximum(z, 0) if l else z
            z = h.astype(storage) @ W.astype(storage) + b.astype(storage)
        return z.astype("float32")

    def _loss(self, weights: Any, x: Any, y: Any) -> Any:
        jnp, log_p = self._jnp, self._jax.nn.log_softmax(self._logits(weights, x))
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
        with self._precision():
            self._state, losses = self._many(k, self._state, self._x, self._y, self._taken % DISTINCT)
        self._taken += k
        return losses

    def _precision(self) -> Any:
        return self._jax.default_matmul_precision(PRECISIONS[self._workload.precision])

    def loss_curve(self) -> list[float]:
        """Return the losses of the first steps."""
        return [float(loss) for loss in numpy.asarray(self._run(CURVE))]

    def steps(self, k: int) -> None:
        """Take k steps; another k is compiled anew."""
        self._run(k)

    def wait(self) -> None:
        """Wait until all steps are done."""
        self._jax.block_until_ready(self._state)


class JaxEpochs(Jax):
    """JAX: epochs over shuffled data, each compiled as one."""

    def prepare(self, workload: Workload, data: Data) -> None:
        """Put weights, state and data on the device."""
        super().prepare(workload, data)
        x, y = epoch_data(data)
        self._x, self._y = self._jnp.asarray(x), self._jnp.asarray(y.astype("int32"))
        self._key = self._jax.random.key(0)
        self._many = self._jax.jit(self._epoch, donate_argnums=(0,))
        self._shuffled = self._jax.jit(lambda key: self._jax.random.permutation(key, len(y)))

    def _epoch(self, state: Any, x: Any, y: Any, order: Any) -> tuple[Any, Any]:
        def body(state: Any, rows: Any) -> tuple[Any, Any]:
            return self._step(state, x[rows], y[rows])

        state, losses = self._jax.lax.scan(body, state, order.reshape(-1, self._workload.rows))
        return state, losses.mean()

    def _over(self, order: Any) -> float:
        with self._precision():
            self._state, loss = self._many(self._state, self._x, self._y, order)
        return float(loss)

    def loss_curve(self) -> list[float]:
        """Return the mean losses of the first epochs, in order."""
        return [self._over(self._jnp.arange(len(self._y))) for _ in range(PASSES)]

    def steps(self, k: int) -> None:
        """Go k times over the data; each epoch waits for its loss."""
        for _ in range(k):
            self._key, key = self._jax.random.split(self._key)
            self._over(self._shuffled(key))


class JaxInference(Jax):
    """JAX: the outputs of a batch, compiled."""

    def prepare(self, workload: Workload, data: Data) -> None:
        """Put weights and batch on the device."""
        super().prepare(workload, data)
        self._outputs = self._jax.jit(lambda weights, x: self._jax.nn.softmax(self._logits(weights, x)))

    def _predict(self) -> Any:
        with self._precision():
            return self._outputs(self._state[0], self._x[0])

    def loss_curve(self) -> list[float]:
        """Return the loss of the batch."""
        p = numpy.asarray(self._predict())
        return [float(-numpy.log(p[numpy.arange(len(p)), numpy.asarray(self._y[0])]).mean())]

    def steps(self, k: int) -> None:
        """Compute the outputs k times."""
        for _ in range(k):
            self._last = self._predict()

    def wait(self) -> None:
        """Wait until all outputs are there."""
        self._jax.block_until_ready(getattr(self, "_last", self._state))
