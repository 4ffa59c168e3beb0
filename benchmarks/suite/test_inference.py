"""The outputs of a batch by `Network.predict`, beside their bare products and peers."""

from __future__ import annotations

from typing import Any

import pytest
from measuring import Plan, measured
from own_passes import Inference
from own_steps import BareProducts
from sklearn_peers import SklearnInference
from torch_peers import TorchInference
from workloads import ON_CUDA_ALONE, SUITE, suite_workload

QUICK = ("tiny", "small")


@pytest.mark.parametrize("regime", SUITE)
def test_inference(benchmark: Any, plan: Plan, backend: str, regime: str) -> None:
    if not plan.smoke and backend == "numpy" and regime in ON_CUDA_ALONE:
        pytest.skip("a CPU takes seconds for a step")
    if plan.quick and regime not in QUICK:
        pytest.skip("not of a quick run")
    workload = suite_workload(regime, "SGD", backend, smoke=plan.smoke)
    peers = [TorchInference(workload.device), *([SklearnInference()] if backend == "numpy" else [])]
    contenders = [Inference(backend), BareProducts(backend, backward=False), *peers]
    measured(benchmark, plan, "inference", workload, backend, contenders, flops=workload.forward_flops)
    del benchmark.extra_info["optimizer"]
