"""How many threads the matrix products of NumPy take: all of them, or one where the products are too small to share.

threadpoolctl sets the number where it is installed (extra ``threads``); without it the BLAS keeps its own.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy

from ..locks import held_over_forks, importing

# Floating-point operations of a step below which one thread is taken. On two cores that nothing else used, steps took
# as long with a second one up to 3e6, 1.2 to 1.5 times as long from 5e6 to 1.5e7 where layers are narrow, and 0.7 times
# as long at 2.6e7 (784-128-10, N 64). Where other work kept the cores busy, two took 5 to 30 times as long at any size.
SMALL = 2e7


@cache
def _controller() -> Any:
    """Return threadpoolctl's view of the BLAS libraries that are loaded, or None."""
    try:
        with importing:
            from threadpoolctl import ThreadpoolController
    except ImportError:
        return None
    return ThreadpoolController().select(user_api="blas")


def cores() -> int:
    """Return how many cores of the CPU this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def for_products_of(flops: float) -> contextlib.AbstractContextManager[Any]:
    """Return a context in which products of `flops` operations per step run on the threads that suit them.

    Enter it twice, by ``with context, context:``, and the number of threads is restored even if an exception of a
    signal handler comes while it is left.

    Args:
        flops: floating-point operations of a step; 0 changes nothing.
    """
    controller = _controller()
    if controller is None or not 0 < flops < SMALL:
        return contextlib.nullcontext()
    return _Limit(controller.lib_controllers)


class _Limit:
    """One computation that wants libraries at one thread.

    Args:
        libraries: the library controllers of threadpoolctl.
    """

    def __init__(self, libraries: Sequence[Any]) -> None:
        self._parts = [
            (holders, chosen)
            for holders, per_thread in ((_process, False), (_threads.own, True))
            if (chosen := [library for library in libraries if _is_per_thread(library) == per_thread])
        ]

    def __enter__(self) -> None:
        try:
            for holders, libraries in self._parts:
                holders.enter(self, libraries)
        except BaseException:  # of a signal handler
            self.__exit__()
            raise

    def __exit__(self, *error: object) -> None:
        for holders, libraries in self._parts:
            holders.leave(self, libraries)


class _Holders:
    """Who wants libraries at one thread: the number is 1 while anybody does, since computations may overlap.

    It is whole at any instruction: a signal handler may compute, raise or fork wherever it interrupts this.
    """

    def __init__(self) -> None:
        self._threads: dict[_Limit, int] = {}  # in which thread each holder runs
        self._original: list[int] | None = None  # numbers to restore

    def enter(self, holder: _Limit, libraries: Sequence[Any]) -> None:
        with _lock:
            self._threads[holder] = threading.get_ident()
            self._settle(libraries)

    def leave(self, holder: _Limit, libraries: Sequence[Any]) -> None:
        with _lock:
            self._threads.pop(holder, None)
            self._settle(libraries)

    def forget_other_threads(self) -> None:
        """Drop the holders whose threads are not in this process, which is a forked child."""
        for holder, thread in list(self._threads.items()):
            if thread != threading.get_ident():
                holder.__exit__()

    def _settle(self, libraries: Sequence[Any]) -> None:
        """Set the numbers that the holders want. After an interruption, call it again."""
        original = self._original
        if self._threads and original is None:
            numbers = [library.get_num_threads() for library in libraries]
            self._original = self._original or numbers  # a signal handler may have found them, and set them to 1
            _set(libraries, [1] * len(libraries))
        elif not self._threads and original is not None:
            _set(libraries, original)
            self._original = None


class _OfThread(threading.local):
    """The holders of each thread."""

    def __init__(self) -> None:
        self.own = _Holders()


def _is_per_thread(library: Any) -> bool:
    """Return whether each thread has a number of its own: OpenBLAS on OpenMP, by threadpoolctl 3.8."""
    return hasattr(library, "_real_set_num_threads") and library.threading_layer == "openmp"


def _set(libraries: Sequence[Any], numbers: Sequence[int]) -> None:
    """Set the numbers of threads by the libraries' own functions.

    threadpoolctl 3.8 obeys only the first thread that sets a number, and has a lock that no forked child gets back.
    """
    for library, number in zip(libraries, numbers, strict=True):
        getattr(library, "_real_set_num_threads", library.set_num_threads)(number)


_process, _threads = _Holders(), _OfThread()
# A thread that starts the threads of OpenBLAS holds a lock of the library, which a child would never get back.
_lock = held_over_forks(in_child=_process.forget_other_threads)


def blas_description() -> str:
    """Return the BLAS library and its threads, as far as they can be told."""
    controller = _controller()
    if controller is None:
        return str(numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"])
    libraries = [library for library in controller.info() if "numpy" in library["filepath"]] or controller.info()
    return ", ".join(f"{x['internal_api']} {x['version']} with {x['num_threads']} threads" for x in libraries)
