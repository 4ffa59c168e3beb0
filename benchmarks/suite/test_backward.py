"""Equations 3 to 6 alone, after a forward pass, beside their bare products and PyTorch's."""

from __future__ import annotations

from typing import Any

from measuring import Plan, measured
from own_passes import Backward
from own_steps import BareProducts
from torch_peers import TorchBackward
from workloads import Contender, suite_workload


def test_backward(benchmark: Any, plan: Plan, backend: str, regime: str) -> None:
    workload = suite_workload(regime, "SGD", backend, smoke=plan.smoke)
    contenders: list[Contender] = [
        Backward(backend),
        BareProducts(backend, forward=False),
        TorchBackward(workload.device),
    ]
    flops = workload.flops - workload.forward_flops
    measured(benchmark, plan, "backward", workload, backend, contenders, flops=flops)
    del benchmark.extra_info["optimizer"]
