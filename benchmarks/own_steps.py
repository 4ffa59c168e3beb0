"""Our own training steps, and the floors they are held to: their bare products, launches, and the device's ceilings."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy
from kernel_times import WARM_UP, device_seconds, launch_seconds
from workloads import DISTINCT, PASSES, Data, Workload, network, tiled

import gpubackprop as gb
from gpubackprop.backends import resolve
from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.backends.graphs import Recording
from gpubackprop.parallel import Alone
from gpubackprop.run import Run
from gpubackprop.workspace import Workspace

NODES = 256  # of a chain in one graph
GRAPHS = 64  # launched in one go
WIDTH = 8192  # of the square matrices whose product is the ceiling
ELEMENTS = 2**26  # that are copied

OPTIMIZERS = {"SGD": gb.optimizers.SGD, "Adam": gb.optimizers.Adam}


class Ours:
    """Steps as `fit` takes them: epochs of a `Run` without validation, callbacks and history.

    What an epoch sends to the device besides its steps (the optimizer's numbers) and waits for (the losses) counts; it
    is of many steps, so that this is little. The order of the examples, which never changes here, lies there already.

    Args:
        backend: "numpy" or "cuda".
        group: the ranks that take them together, if there are several.
    """

    name = "gpubackprop"

    def __init__(self, backend: str, group: Alone | None = None) -> None:
        self._backend, self._group = backend, group or Alone()

    def unavailable(self, workload: Workload) -> str | None:
        """Return why the backend cannot take the step, or None."""
        return _without(self._backend, workload.precision)

    def prepare(self, workload: Workload, data: Data) -> None:
        """Repeat the data until they are those of an epoch."""
        self._workload, self._data = workload, data
        self._net = network(workload, self._backend)
        self._run = self._run_of(self._net, *tiled(data, workload.batches // DISTINCT))

    def _run_of(self, net: gb.Network, x: numpy.ndarray, y: numpy.ndarray) -> Run:
        optimizer = OPTIMIZERS[self._workload.optimizer](self._workload.rate)
        with net.backend.running(0.0):
            reducer = self._group.reducer(net.backend, _never)
            run = Run(net, *net._batch(x, y, None), optimizer, self._workload.rows, False, 0, reducer=reducer)
            run.order = net.backend.asarray(run.order, "int64") if run.gathers else run.order
        return run

    def loss_curve(self) -> list[float]:
        """Return the losses of passes over the distinct batches, by a copy of the network."""
        run = self._run_of(copy.copy(self._net), self._data.x, self._data.y)
        losses: list[float] = []
        with run.net.backend.running(self._workload.flops):
            for _ in range(PASSES):
                run.epoch(_never)
                losses += run.net.backend.to_numpy(run.losses).tolist()
        return losses

    def steps(self, k: int) -> None:
        """Take k steps; each epoch waits for its losses."""
        with self._net.backend.running(self._workload.flops):
            for _ in range(k // self._workload.batches):
                self._run.epoch(_never)

    def wait(self) -> None:
        """Wait until all steps are done."""
        self._net.backend.synchronize()


class BareProducts:
    """The matrix products of the step and nothing else: our operations, in the order and the graphs of our steps.

    Args:
        backend: "numpy" or "cuda".
        forward: whether those of the forward pass are among them.
        backward: whether those of the backward pass are.
    """

    name = "bare products"

    def __init__(self, backend: str, *, forward: bool = True, backward: bool = True) -> None:
        self._backend, self._forward, self._backward = backend, forward, backward

    def unavailable(self, workload: Workload) -> str | None:
        """Return why the backend cannot multiply in the precision, or None."""
        return _without(self._backend, workload.precision)

    def prepare(self, workload: Workload, data: Data) -> None:
        """Fill what products read with weights and data: the clocks of a device depend on the numbers."""
        self._workload = workload
        self._net = net = network(workload, self._backend)
        backend, rows = net.backend, workload.rows
        with backend.running(0.0):
            x = backend.narrow(backend.asarray(data.x[:rows], net.dtype))
            self._ws = Workspace(net.architecture, backend, rows).load(x)
            backend.narrow(net.theta, net._narrow)
            output = numpy.resize(data.x[:rows] / rows, (rows, workload.sizes[-1]))
            self._ws.delta[-1][...] = backend.narrow(backend.asarray(output, net.dtype))
        portion = backend.portion(workload.flops)
        self._portion = max(d for d in range(1, portion + 1) if workload.batches % d == 0)
        self._recorded = backend.record(self._products)

    def _products(self) -> None:
        """Enqueue the products of a portion of steps."""
        for _ in range(self._portion):
            self._step()

    def _step(self) -> None:
        backend, ws, W = self._net.backend, self._ws, self._net._operands
        gradients = self._net.layout.views(self._net.gradient)
        for l in range(1, len(W) + 1 if self._forward else 1):
            backend._product(ws.h[l - 1], W[l - 1], ws.z[l])
        for l in range(len(W) if self._backward else 0, 0, -1):
            backend.weight_gradient(ws.h[l - 1], ws.delta[l], gradients[l - 1][0])
            if l > 1:
                backend._product(ws.delta[l], W[l - 1].T, ws.delta[l - 1])
        backend.join()

    def loss_curve(self) -> list[float]:
        """Return nothing: it does not train."""
        return []

    def steps(self, k: int) -> None:
        """Enqueue the products of k steps."""
        with self._net.backend.running(self._workload.flops):
            for _ in range(k // self._portion):
                self._recorded()

    def wait(self) -> None:
        """Wait until all products are done."""
        self._net.backend.synchronize()


def _never() -> bool:
    return False


def _without(backend: str, precision: str) -> str | None:
    """Return why a backend has no products in a precision, or None."""
    made = resolve(backend)
    return None if precision in made.precisions else f"no products in {precision}: {made.engine}"


# -- the device --------------------------------------------------------------------------------------------------------


def constants(backend: CudaBackend, rounds: int, clock: Callable[[], float]) -> dict[str, Any]:
    """Measure what launches cost on a device, and how fast it multiplies and copies.

    Args:
        backend: of the device.
        rounds: how often; medians count.
        clock: seconds of the host.

    Returns:
        Seconds, floating-point operations a second by precision, and bytes a second.
    """
    with backend.running(0.0):
        empty = _graph_seconds(backend, 0, rounds, clock)
        return {
            "host_seconds_per_launch": launch_seconds(backend, rounds, clock),
            "seconds_per_empty_graph": empty,
            "seconds_per_node_of_a_chain": (_graph_seconds(backend, NODES, rounds, clock) - empty) / NODES,
            "product_flops_per_second": {p: _product_rate(backend, p, rounds) for p in backend.precisions},
            "copy_bytes_per_second": _copy_rate(backend, rounds),
        }


def _graph_seconds(backend: CudaBackend, nodes: int, rounds: int, clock: Callable[[], float]) -> float:
    """Return the time of a graph of kernels with next to nothing to do, each after the last, launched back to back."""
    x, rows, out = backend.zeros((1, 1), "float32"), backend.zeros(1, "int64"), backend.zeros((1, 1), "float32")

    def chain() -> None:
        for _ in range(nodes):
            backend.gather(x, rows, out)

    graph = Recording(backend.xp, chain, list)
    graph()  # not from a graph yet
    taken = []
    for _ in range(WARM_UP + rounds):
        backend.synchronize()
        begin = clock()
        for _ in range(GRAPHS):
            graph()
        backend.synchronize()
        taken.append((clock() - begin) / GRAPHS)
    return statistics.median(taken[WARM_UP:])


def _product_rate(backend: CudaBackend, precision: str, rounds: int) -> float:
    """Return the rate of a large square product in floating-point operations a second."""
    made = backend.with_precision(precision)
    A, B = (made.narrow(_normal(backend, WIDTH * WIDTH).reshape(WIDTH, WIDTH)) for _ in range(2))
    out = backend.zeros((WIDTH, WIDTH), "float32")
    return 2.0 * WIDTH**3 / _median(backend, rounds, partial(made._product, A, B, out))


def _copy_rate(backend: CudaBackend, rounds: int) -> float:
    """Return the rate of a copy from device to device in bytes a second, read and written."""
    source, target = _normal(backend, ELEMENTS), backend.zeros(ELEMENTS, "float32")
    return 2.0 * source.nbytes / _median(backend, rounds, partial(backend.xp.copyto, target, source))


def _normal(backend: CudaBackend, size: int) -> Any:
    pattern = numpy.random.default_rng(0).standard_normal(2**16, dtype="float32")
    return backend.asarray(numpy.resize(pattern, size), "float32")


def _median(backend: CudaBackend, rounds: int, run: Callable[[], None]) -> float:
    """Return the time that the device takes for something, which is enqueued while it does the same."""
    return statistics.median([device_seconds(backend.xp, run, run) for _ in range(WARM_UP + rounds)][WARM_UP:])
