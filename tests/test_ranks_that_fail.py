"""Ranks that fail, end or disagree, under a real mpiexec: the job ends, and says which rank and why."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import processes
import pytest
from test_parallel import ENVIRONMENT, LAUNCH, PLAIN

HUNG = 120.0  # seconds: no job that ends takes so long, however busy the machine
IN_TIME = 10.0  # seconds in which a job that fails has ended, or as many times what one takes that succeeds

BEGIN = """
import os, signal, sys, time
import gpubackprop as gb
from gpubackprop.parallel import rank_by_launcher
import numpy as np
rank = rank_by_launcher()
X, y = np.random.default_rng(0).normal(size=(40, 5)), np.ones((40, 3))
net = gb.Network([5, 4, 3], seed=0)
def fit(X=X, y=y, epochs=2, **more):
    return gb.fit(net, X, y, epochs=epochs, tol=None, batch_size=8, distributed=True, **more)
def batches(count, at=None, error=None):
    def go_on():
        for k in range(count):
            if k == at:
                raise error
            yield X[:8], y[:8]
    return go_on
def at_second_epoch(error):
    def end(net, history):
        if len(history.loss) == 2:
            raise error
    return end
class Rate:
    def __call__(self, t):
        return 0.1 if t < 7 or rank == 0 else 1 / 0
"""


@dataclass
class Case:
    """A job that ends because of one rank.

    Attributes:
        script: what follows `BEGIN`.
        says: a pattern of what is printed.
        status: of the job; None for any but 0.
        ranks: their number.
        plain: whether mpiexec starts the ranks, not `gpubackprop launch`.
        quick: whether every run of the suite has it.
    """

    script: str
    says: str
    status: int | None = None
    ranks: int = 2
    plain: bool = False
    quick: bool = False


CASES = {
    "raises first of all": Case("if rank == 1: raise OSError('why')\nfit()", "OSError: why.*rank 1 left by OSError"),
    "rank 0 raises before fit": Case("if rank == 0: 1 / 0\nfit()", "rank 0 left by ZeroDivisionError", quick=True),
    "cannot import": Case("if rank == 1: import no_such_module\nfit()", "rank 1 left by ModuleNotFoundError"),
    "exits with 3": Case("if rank == 1: sys.exit(3)\nfit()", "rank 1 left by SystemExit: 3", 3, quick=True),
    "exits with words": Case("if rank == 1: sys.exit('no data')\nfit()", "rank 1 left by SystemExit: no data", 1),
    "exits with 0": Case("if rank == 1: sys.exit(0)\nfit()", "rank 1 of 2 ended; it called fit.* 0 times"),
    "never calls fit": Case("if rank == 0: fit()", "rank 1 of 2 ended; it called fit.* 0 times", quick=True),
    "one of three never calls fit": Case("if rank != 1: fit()", "rank 1 of 3 ended; it called fit.* 0 times", ranks=3),
    "calls fit once less": Case("fit()\nif rank == 1: fit()", "rank 0 of 2 ended; it called fit.* 1 times"),
    "is killed": Case("if rank == 1: os.kill(os.getpid(), signal.SIGKILL)\nfit()", "signal 9|Killed|code: 9"),
    "leaves without cleaning up": Case("if rank == 1: os._exit(4)\nfit()", "rank 1 left by SystemExit: 4", 4),
    "leaves without cleaning up, with 0": Case("if rank == 1: os._exit(0)\nfit()", "rank 1 of 2 ended"),
    "raises, and a thread goes on": Case(
        "from threading import Event, Thread\nif rank == 1:\n    Thread(target=Event().wait).start()\n    1 / 0\nfit()",
        "rank 1 left by ZeroDivisionError",
    ),
    "an argument": Case("fit(epochs=2 - 3 * rank)", "epochs must be an integer.*rank 1 left by InvalidValue"),
    "data that are not finite": Case("X[3, 2] = np.nan if rank else 0\nfit()", "rank 1 left by InvalidValue"),
    "fails, and goes on without": Case(
        "try: fit(epochs=2 - 3 * rank)\nexcept gb.errors.InvalidValue as error: pass", "RankLeft: rank 1 left by Inval"
    ),
    "a callback raises": Case("fit(callbacks=[at_second_epoch(OSError('full'))])", "full.*rank 0 left by OSError"),
    "a callback exits with 3": Case(
        "fit(epochs=9, callbacks=[at_second_epoch(SystemExit(3))])\nprint('on')", "rank 0 left by SystemExit: 3", 3,
        quick=True,
    ),
    "a callback exits with 0": Case(
        "fit(epochs=9, callbacks=[at_second_epoch(SystemExit(0))])\nsys.exit(7)", "rank 0 left by SystemExit: 0", 0
    ),
    "a callback is interrupted": Case(
        "fit(callbacks=[at_second_epoch(KeyboardInterrupt())])", "rank 0 left by KeyboardInterrupt", 130
    ),
    "fewer batches": Case(
        "fit(batches(6 + rank), None)", "rows of X in window . of an epoch must be .*got 48 in rank 0, 56 in rank 1",
        quick=True,
    ),
    "batches that end with an error": Case(
        "fit(batches(9, 7 + 9 * (rank == 0), OSError('gone')), None, epochs=9)", "OSError: gone.*rank 1 left by OSError"
    ),
    "batches that exit": Case("fit(batches(9, 9 - 2 * rank, SystemExit(5)), None)", "left by SystemExit: 5", 5),
    "a schedule that fails": Case("fit(optimizer=gb.optimizers.SGD(Rate()))", "schedule.*rank 1 left by InvalidValue"),
    "by mpiexec: calls fit once less": Case(
        "fit()\nif rank == 1: fit()", "rank 0 of 2 ended; it called fit.* 1 times", plain=True, quick=True
    ),
    "by mpiexec: a callback exits with 3": Case(
        "fit(epochs=9, callbacks=[at_second_epoch(SystemExit(3))])", "rank 0 left by SystemExit: 3", 3, plain=True
    ),
}  # fmt: skip


def ended(script: str, folder: Path, ranks: int = 2, plain: bool = False) -> tuple[int, str, float]:
    """Run a job to its end, and no longer; return its status, what it printed and its seconds."""
    path = folder / "script.py"
    path.write_text(BEGIN + script)
    command = [*PLAIN, str(path)] if plain else [*LAUNCH, str(ranks), str(path)]
    since = time.monotonic()
    with processes.started(
        command, env=ENVIRONMENT, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    ) as job:  # fmt: skip
        try:
            output, _ = job.communicate(timeout=HUNG)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the job goes on after {HUNG:.0f} s")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(job.pid, signal.SIGKILL)
    return job.returncode, output, time.monotonic() - since


@pytest.fixture(scope="module")
def a_job_that_succeeds(tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds that a job takes in which nothing fails."""
    status, output, seconds = ended("fit()", tmp_path_factory.mktemp("succeeds"))
    assert status == 0, output
    return seconds


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if case.quick else pytest.mark.slow) for name, case in CASES.items()]
)
def test_a_job_ends_with_its_rank(name: str, need: Any, tmp_path: Path, request: Any, record_property: Any) -> None:
    need("mpi")
    case, usual = CASES[name], request.getfixturevalue("a_job_that_succeeds")
    status, output, seconds = ended(case.script, tmp_path, case.ranks, case.plain)
    sys.stdout.write(f"{name}: status {status} after {seconds:.1f} s\n{output}")
    assert re.search(case.says, output, re.DOTALL)
    assert status == case.status if case.status is not None else status != 0
    assert seconds < IN_TIME * max(usual, 1.0)


@pytest.mark.parametrize("exit_status", [0, 3])
def test_ranks_that_all_exit_alike_end_as_they_ask(exit_status: int, need: Any, tmp_path: Path) -> None:
    need("mpi")
    status, output, _ = ended(f"fit()\nsys.exit({exit_status})", tmp_path)
    assert status == exit_status, output


def test_ranks_train_on_after_a_failure_that_they_caught(need: Any, tmp_path: Path) -> None:
    """One rank leaves in an epoch, the others wait in a sum: the next call is not disturbed."""
    need("mpi")
    script = """
for error in (OSError("gone"), None, None):
    try:
        fit(batches(9, 7 if rank == 1 else 99, error) if error else X, None if error else y, epochs=9)
        print(f"rank {rank} trained {net.theta.sum()}\\n", end="", flush=True)  # a whole line, so that none mix
    except (OSError, gb.errors.RankLeft) as error:
        print(f"rank {rank} goes on:", error)
"""
    status, output, _ = ended(script, tmp_path)
    assert status == 0, output
    assert "rank 1 goes on: gone" in output and "rank 0 goes on: rank 1 left by OSError: gone" in output
    sums = [line.split()[-1] for line in output.splitlines() if "trained" in line]
    assert len(sums) == 4 and len(set(sums)) == 2, output
