"""Every activation with its derivative, every loss and every optimizer, held to the bandwidth of a copy."""

from __future__ import annotations

import statistics
from typing import Any

import pytest
from figures import floor
from kernel_runs import COLS, Arrays, copy_case
from measuring import Plan
from operations import ELEMENTS, Operation, Runs, arrays, operations
from rounds import interleaved

from gpubackprop.backends import resolve


@pytest.fixture(scope="module")
def memory(plan: Plan, backend: str) -> Arrays:
    """The arrays of all operations."""
    return arrays(backend, COLS if plan.smoke else ELEMENTS[backend])


@pytest.mark.parametrize("operation", [pytest.param(o, id=o.name) for o in operations()])
def test_operation(benchmark: Any, plan: Plan, backend: str, memory: Arrays, operation: Operation) -> None:
    runs, copy = Runs(memory, operation.case(memory)), Runs(memory, copy_case(memory))
    for each in (runs, copy):
        each.steps(1)
    times, copies = interleaved([(runs, 1), (copy, 1)], plan.rounds, before=memory.refresh)
    moved, seconds = runs.bytes, statistics.median(times)
    benchmark.group = f"{operation.name}, {memory.elements // COLS} × {COLS}"
    benchmark.extra_info.update(
        what=operation.what,
        row=operation.row,
        workload=f"{memory.elements // COLS} × {COLS}",
        sizes=[COLS],
        rows=memory.elements // COLS,
        precision="float32",
        backend=backend,
        device=resolve(backend).description,
        bytes=moved,
        gbps=moved / seconds / 1e9,
        floor=floor("copy bandwidth", times, [c * moved / copy.bytes for c in copies]),
    )
    benchmark.pedantic(runs.once, setup=memory.refresh, rounds=plan.rounds)
