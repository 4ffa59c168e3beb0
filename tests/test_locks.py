"""Locks after a fork and in a signal handler, and who wants the BLAS at one thread."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from typing import Any

import numpy
import pytest

from gpubackprop.backends import threads
from gpubackprop.backends.loops import Loops
from gpubackprop.formula import trace

PROGRAM = """
import os, threading
from gpubackprop.locks import Locked, held_over_forks

owner, counted, done, release = Locked(), [], threading.Event(), threading.Event()
lock = held_over_forks(lambda: counted.append(1))

def hold():
    with owner.lock:
        done.set()
        release.wait()

def enter_often():
    while not release.is_set():
        with lock:
            pass

others = [threading.Thread(target=work) for work in (hold, enter_often)]
for thread in others:
    thread.start()
done.wait()

def forked(generations):
    pid = os.fork()
    if pid == 0:
        free = owner.lock.acquire(timeout=300) and lock.acquire(timeout=300)
        lock.release()
        os._exit(0 if free and counted and (generations == 1 or forked(generations - 1) == 0) else 1)
    return os.waitpid(pid, 0)[1]

statuses = []
while len(statuses) < 20 and not any(statuses):
    statuses.append(forked(2))
release.set()
for thread in others:
    thread.join()
raise SystemExit(str(statuses) if any(statuses) else None)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_and_its_child_find_locks_free() -> None:
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_a_handler_may_compile_while_it_interrupts_a_compilation(monkeypatch: pytest.MonkeyPatch) -> None:
    made, sources = Loops(["cc"]), [trace(lambda m, x: x + x, ("x",)), trace(lambda m, x: x * x, ("x",))]
    compiled: list[str] = []
    dtype = numpy.dtype("float32")

    def compile_(text: str) -> str:
        if not compiled:
            compiled.append("begun")
            made._body(sources[1], frozenset(), dtype)  # as a signal handler does, on the same thread
        compiled.append(text)
        return text

    monkeypatch.setattr(made, "_compiled", compile_)
    worker = threading.Thread(target=made._body, args=(sources[0], frozenset(), dtype), daemon=True)
    worker.start()
    worker.join(60)
    assert not worker.is_alive(), "it waits for itself"
    assert len(compiled) == 3


class _Library:
    """A BLAS as threadpoolctl controls it: its number belongs to the process, or to each thread."""

    threading_layer = "openmp"

    def __init__(self, per_thread: bool) -> None:
        self._numbers: Any = threading.local() if per_thread else self
        if per_thread:
            self._real_set_num_threads = self.set_num_threads

    def get_num_threads(self) -> int:
        return getattr(self._numbers, "number", 4)

    def set_num_threads(self, number: int) -> None:
        self._numbers.number = number


@pytest.mark.parametrize("per_thread", [False, True])
def test_each_computation_runs_on_one_thread_and_restores_its_own(per_thread: bool) -> None:
    """Two overlap; the first to begin is the first to end, each in a thread of its own."""
    library = _Library(per_thread)
    steps = [threading.Event() for _ in range(3)]
    seen: dict[str, int] = {}

    def note(name: str) -> None:
        seen[name] = library.get_num_threads()

    def work_first() -> None:
        with threads._Limit([library]):
            note("first")
            steps[0].set()
            steps[1].wait(60)
        note("first after")
        steps[2].set()

    def work_second() -> None:
        steps[0].wait(60)
        with threads._Limit([library]):
            note("second")
            steps[1].set()
            steps[2].wait(60)
            note("second alone")
        note("second after")

    workers = [threading.Thread(target=work) for work in (work_first, work_second)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ended = 4 if per_thread else 1  # the second still wants the process at one
    assert seen == {"first": 1, "second": 1, "first after": ended, "second alone": 1, "second after": 4}
