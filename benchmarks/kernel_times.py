"""How long every kernel takes, and what share of the device's own copy bandwidth that is."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy
from kernel_runs import STORAGES, Arrays, Case, cases

from gpubackprop.backends.cuda import CudaBackend

GOAL = 0.9  # of the copy bandwidth, in float32
ACROSS = ("output_rows", "softmax", "sum_rows")  # results of whole rows or columns: the goal is for the others
WARM_UP = 2  # rounds: compilation, and the clocks of the device
LAUNCHES = 256  # in one go: fewer than the queue of a device holds

Seconds = Callable[[Callable[[], None], Callable[[], None]], float]  # of the second function, run after the first
Row = dict[str, Any]


def device_seconds(cupy: Any, prepare: Callable[[], None], run: Callable[[], None]) -> float:
    """Return the time that the device takes for `run`, which the host enqueues while the device is at `prepare`."""
    start, stop = cupy.cuda.Event(), cupy.cuda.Event()
    prepare()
    start.record()
    run()
    stop.record()
    stop.synchronize()
    return float(cupy.cuda.get_elapsed_time(start, stop)) / 1e3


def launch_seconds(backend: CudaBackend, rounds: int, clock: Callable[[], float]) -> float:
    """Return the time that the host takes to launch a kernel with next to nothing to do, its arguments checked.

    Args:
        backend: whose kernel.
        rounds: how often; the median counts.
        clock: seconds of the host.

    Returns:
        Seconds.
    """
    x, rows, out = backend.zeros((1, 1), "float32"), backend.zeros(1, "int64"), backend.zeros((1, 1), "float32")
    taken = []
    for _ in range(WARM_UP + rounds):
        backend.synchronize()
        begin = clock()
        for _ in range(LAUNCHES):
            backend.gather(x, rows, out)
        taken.append((clock() - begin) / LAUNCHES)
    return statistics.median(taken[WARM_UP:])


def kernel_rows(backend: CudaBackend, storage: str, elements: int, rounds: int, seconds: Seconds) -> list[Row]:
    """Measure the copy and every kernel in one type of storage, all of them once in every round.

    Args:
        backend: what runs them.
        storage: a key of STORAGES.
        elements: of each array.
        rounds: how often; medians count.
        seconds: the timer: `device_seconds` of a module.

    Returns:
        A row for each, the copy first; shares are of the copy in the same rounds.
    """
    memory = Arrays(backend, storage, elements)
    measured = cases(memory)
    taken: list[list[float]] = [[] for _ in measured]
    for _ in range(WARM_UP + rounds):
        for case, times in zip(measured, taken, strict=True):
            times.append(seconds(memory.refresh, case.run))
    rows = [_row(case, storage, times[WARM_UP:]) for case, times in zip(measured, taken, strict=True)]
    for row in rows:
        row["share_of_copy_bandwidth"] = row["bytes_per_second"] / rows[0]["bytes_per_second"]
    return rows


def _row(case: Case, storage: str, times: list[float]) -> Row:
    median, moved = statistics.median(times), sum(array.nbytes for array in case.moved)
    is_copy = case.kernel == "copy"
    has_goal = storage == "float32" and not is_copy and case.kernel not in ACROSS
    return {
        "kernel": case.kernel,
        "formula": case.formula,
        "storage": "float32" if is_copy else STORAGES[storage],
        "shape": list(case.shape),
        "elements": int(numpy.prod(case.shape)),
        "bytes_moved": moved,
        "median_seconds": median,
        "least_seconds": min(times),
        "most_seconds": max(times),
        "bytes_per_second": moved / median,
        "goal_share_of_copy_bandwidth": GOAL if has_goal else None,
    }
