"""Start-up of a new process: the import, and the first step with nothing and with everything compiled before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from figures import of_workload
from measuring import Plan
from startup import seconds_of_a_new_process
from workloads import suite_workload

from gpubackprop.backends import loops

ROWS = {"import": "import", "first step": "first step", "first step, warm cache": "first step"}  # and what it prints


class _Told:
    """A clock that moves by what another process says that it took."""

    now = 0.0


def told() -> float:
    """Return the time of that clock."""
    return _Told.now


@pytest.mark.benchmark(timer=told)
@pytest.mark.parametrize("row", ROWS)
def test_startup(benchmark: Any, plan: Plan, backend: str, row: str, tmp_path: Path) -> None:
    if backend == "numpy" and "cache" in row and loops.of_this_machine() is None:
        pytest.skip("nothing is compiled: there is no C compiler")
    workload = suite_workload("tiny", "SGD", backend, smoke=plan.smoke)
    cache = iter([tmp_path / "warm"] * 99 if "warm" in row else [tmp_path / str(k) for k in range(99)])

    def start() -> None:
        taken = seconds_of_a_new_process(backend, workload.sizes, workload.rows, next(cache))
        _Told.now += taken[ROWS[row]]

    benchmark.group = f"start-up, {row}"
    benchmark.extra_info.update(of_workload("start-up", workload, backend), row=row)
    benchmark.pedantic(start, rounds=plan.rounds, warmup_rounds=1)
