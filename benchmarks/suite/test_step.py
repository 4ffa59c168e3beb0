"""A training step as `fit` takes it: beside its bare products, and beside all who can take the same."""

from __future__ import annotations

from typing import Any

import pytest
from measuring import Plan, measured
from own_passes import breakdown
from own_steps import BareProducts, Ours
from peers import peers_of_steps
from workloads import Contender, suite_workload


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_step(benchmark: Any, plan: Plan, backend: str, regime: str, optimizer: str) -> None:
    workload = suite_workload(regime, optimizer, backend, smoke=plan.smoke)
    ours = Ours(backend)
    contenders: list[Contender] = [ours, BareProducts(backend), *peers_of_steps(backend, plan.smoke or plan.quick)]
    entry = measured(benchmark, plan, "step", workload, backend, contenders)[0]
    if parts := breakdown(ours, entry.steps, plan.rounds):
        benchmark.extra_info["breakdown"] = parts
