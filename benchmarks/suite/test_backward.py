"""Equations 3 to 6 alone, after a forward pass, beside their bare products."""

from __future__ import annotations

from typing import Any

import pytest
from measuring import Plan, measured
from own_passes import Backward
from own_steps import BareProducts
from workloads import ON_CUDA_ALONE, SUITE, suite_workload

QUICK = ("tiny", "small")


@pytest.mark.parametrize("regime", SUITE)
def test_backward(benchmark: Any, plan: Plan, backend: str, regime: str) -> None:
    if not plan.smoke and backend == "numpy" and regime in ON_CUDA_ALONE:
        pytest.skip("a CPU takes seconds for a step")
    if plan.quick and regime not in QUICK:
        pytest.skip("not of a quick run")
    workload = suite_workload(regime, "SGD", backend, smoke=plan.smoke)
    contenders = [Backward(backend), BareProducts(backend, forward=False)]
    flops = workload.flops - workload.forward_flops
    measured(benchmark, plan, "backward", workload, backend, contenders, flops=flops)
    del benchmark.extra_info["optimizer"]
