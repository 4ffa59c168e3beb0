"""A step that two ranks take together, of one thread each, beside one rank, and beside one of two threads."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from measuring import Plan, measured
from own_steps import Ours
from ranks import OnRanks
from workloads import Contender, suite_workload

RANKS = 2


@pytest.mark.parametrize("regime", ["small", "medium"])
def test_step_on_ranks(benchmark: Any, plan: Plan, regime: str) -> None:
    """The ratio of one rank's time to theirs, over their number, is the parallel efficiency."""
    if plan.quick and regime != "small":
        pytest.skip("not of a quick run")
    workload = suite_workload(regime, "Adam", "numpy", smoke=plan.smoke)
    ours, one = OnRanks(RANKS), OnRanks(1)
    if reason := ours.unavailable(workload):
        pytest.skip(reason)
    contenders: list[Contender] = [ours, one, Ours("numpy")]
    with contextlib.closing(ours), contextlib.closing(one):
        measured(benchmark, plan, "step on ranks", workload, "numpy", contenders)
    benchmark.extra_info["row"] = ours.name
