"""How much memory a training takes, as the allocators tell."""

from __future__ import annotations

import gc
import importlib
import tracemalloc
from collections.abc import Callable

import numpy
from own_steps import OPTIMIZERS
from workloads import Workload, network

from gpubackprop.run import Run


def bytes_taken(workload: Workload, backend: str) -> int:
    """Return what a network and its training hold after an epoch of one batch, whose arrays are not counted.

    Args:
        workload: its net, batch and optimizer.
        backend: "numpy", whose memory Python traces, or "cuda", whose pool tells.
    """
    rng = numpy.random.default_rng(0)
    x = rng.standard_normal((workload.rows, workload.sizes[0]), dtype="float32")
    y = numpy.eye(workload.sizes[-1], dtype="float32")[rng.integers(0, workload.sizes[-1], workload.rows)]
    if backend == "numpy":
        tracemalloc.start()
        try:
            return _held(workload, backend, x, y, lambda: tracemalloc.get_traced_memory()[0])
        finally:
            tracemalloc.stop()
    cupy = importlib.import_module("cupy")
    return _held(workload, backend, cupy.asarray(x), cupy.asarray(y), cupy.get_default_memory_pool().used_bytes)


def _held(workload: Workload, backend: str, x: object, y: object, in_use: Callable[[], int]) -> int:
    x, y, _ = network(workload, backend)._batch(x, y, None)
    optimizer = OPTIMIZERS[workload.optimizer](workload.rate)
    gc.collect()
    before = in_use()
    net = network(workload, backend)
    with net.backend.running(workload.flops):
        run = Run(net, x, y, None, optimizer, workload.rows, True, 0)
        run.epoch(lambda: False)
        net.backend.synchronize()
    return in_use() - before
