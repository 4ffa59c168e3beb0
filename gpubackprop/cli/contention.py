"""Whether threads of the BLAS wait for each other, as on a machine whose cores other programs use."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import numpy

from ..backends import threads
from .lines import say

SIZE, PAIRS = 256, 9  # of the products: 34 MFLOP each, about 1 ms
TOO_LONG = 1.5  # several threads that help take at most as long as one


@contextlib.contextmanager
def one_thread_if_several_wait() -> Iterator[None]:
    """Hold the BLAS at one thread, and say so, if all threads together take longer than one."""
    ratio = slowdown() if _has_several() else 1.0
    if ratio <= TOO_LONG:
        yield
        return
    say("", f"one thread for products, which take {ratio:.1f} times as long with all: other programs use the cores")
    with threads.for_products_of(1.0):
        yield


def slowdown() -> float:
    """Return the time of a product with all threads over that with one: the median of pairs, timed in turn."""
    ratios = []
    for _ in range(PAIRS):
        several = seconds()
        with threads.for_products_of(1.0):
            ratios.append(several / seconds())
    return sorted(ratios)[PAIRS // 2]


def seconds() -> float:
    """Return the time of a product."""
    a = numpy.ones((SIZE, SIZE), "float32")
    numpy.dot(a, a)  # wakes threads that sleep
    start = time.perf_counter()
    numpy.dot(a, a)
    return time.perf_counter() - start


def _has_several() -> bool:
    """Return whether the BLAS runs on several threads, and their number can be set."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return False
    return any(library["user_api"] == "blas" and library["num_threads"] > 1 for library in threadpool_info())
