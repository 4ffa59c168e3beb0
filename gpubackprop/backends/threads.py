"""How many threads the matrix products of NumPy take: all of them, or one where the products are too small to share.

threadpoolctl sets the number where it is installed (extra ``threads``); without it the BLAS keeps its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy

# Floating-point operations of a step below which one thread is taken. On two cores that nothing else used, steps took
# as long with a second one up to 3e6, 1.2 to 1.5 times as long from 5e6 to 1.5e7 where layers are narrow, and 0.7 times
# as long at 2.6e7 (784-128-10, N 64). Where other work kept the cores busy, two took 5 to 30 times as long at any size.
SMALL = 2e7


@cache
def _controller() -> Any:
    """Return threadpoolctl's view of the BLAS libraries that are loaded, or None."""
    try:
        from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def cores() -> int:
    """Return how many cores of the CPU this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_products_of(flops: float) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which products of so many operations a step take the threads that suit them; 0 is none."""
    controller = _controller()
    if controller is None or not 0 < flops < SMALL:
        return contextlib.nullcontext()
    return _one_thread.held(controller)


def _take_control() -> None:
    """Let this thread set the number: threadpoolctl 3.8 silently ignores all threads but the first that did."""
    from threadpoolctl import OpenBLASController

    with contextlib.suppress(AttributeError):  # older releases know no such thread
        OpenBLASController.clear_controlling_thread(force=True)


class _OneThread:
    """The BLAS at one thread while anybody wants that: the number belongs to the process, computations may overlap."""

    def __init__(self) -> None:
        self._lock, self._holders = threading.Lock(), 0
        self._limit: Any = None

    @contextlib.contextmanager
    def held(self, controller: Any) -> Iterator[None]:
        with self._lock:
            if self._limit is None:
                _take_control()
                self._limit = controller.limit(limits=1)
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1
                if self._holders == 0:
                    self._limit, limit = None, self._limit
                    _take_control()
                    limit.restore_original_limits()
                    _take_control()


_one_thread = _OneThread()


def blas_description() -> str:
    """Return the BLAS library and its threads, as far as they can be told."""
    controller = _controller()
    if controller is None:
        return str(numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"])
    libraries = [library for library in controller.info() if "numpy" in library["filepath"]] or controller.info()
    return ", ".join(f"{x['internal_api']} {x['version']} with {x['num_threads']} threads" for x in libraries)
