"""The outputs of a batch by `Network.predict`, beside their bare products and peers."""

from __future__ import annotations

from typing import Any

from jax_peers import JaxInference
from measuring import Plan, measured
from own_passes import Inference
from own_steps import BareProducts
from sklearn_peers import SklearnInference
from torch_peers import TorchInference
from workloads import Contender, suite_workload


def test_inference(benchmark: Any, plan: Plan, backend: str, regime: str) -> None:
    workload = suite_workload(regime, "SGD", backend, smoke=plan.smoke)
    peers: list[Contender] = [TorchInference(workload.device), JaxInference(workload.device)]
    peers += [SklearnInference()] if backend == "numpy" else []
    contenders: list[Contender] = [Inference(backend), BareProducts(backend, backward=False), *peers]
    measured(benchmark, plan, "inference", workload, backend, contenders, flops=workload.forward_flops)
    del benchmark.extra_info["optimizer"]
