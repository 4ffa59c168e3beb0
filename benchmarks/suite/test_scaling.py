"""How the time of a step and the memory of a training grow with the batch, the width and the depth."""

from __future__ import annotations

from typing import Any

import pytest
from measuring import Plan, measured
from memory_taken import bytes_taken
from own_steps import BareProducts, Ours
from workloads import GROWING, growing_workload

import gpubackprop as gb

POINTS = [(varies, k) for varies, shapes in GROWING.items() for k in range(len(shapes))]


@pytest.mark.parametrize(("varies", "point"), POINTS, ids=[f"{varies}-{GROWING[varies][k][0]}" for varies, k in POINTS])
def test_growth(benchmark: Any, plan: Plan, backend: str, varies: str, point: int) -> None:
    if plan.quick and point % 2:
        pytest.skip("not of a quick run")
    workload = growing_workload(varies, point, backend, smoke=plan.smoke)
    measured(benchmark, plan, "scaling", workload, backend, [Ours(backend), BareProducts(backend)])
    predicted = gb.bytes_of_training(
        workload.sizes,
        optimizer=workload.optimizer.lower(),
        batch_size=workload.rows,
        output_activation="softmax",
        loss="cross_entropy",
        backend=backend,
    )
    benchmark.extra_info.update(varies=varies, memory=bytes_taken(workload, backend), memory_predicted=predicted)
    benchmark.group = f"scaling with {varies}"
