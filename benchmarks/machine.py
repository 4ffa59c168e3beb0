"""What the benchmarks ran on, as the file of results says it."""

from __future__ import annotations

import importlib
import os
from typing import Any

import numpy
from gpu_check import machine_of
from workloads import cores

import gpubackprop
from gpubackprop.backends import threads

PRIVATE = ("node",)  # of what pytest-benchmark tells: the name of the computer


def load() -> float | None:
    """Return how many processes the cores were busy with in the last minute, None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def describe(machine: dict[str, Any], load_before: float | None) -> None:
    """Add what matters here to what pytest-benchmark tells of a machine, and take out what is nobody's business.

    Args:
        machine: changed in place; values are None where there is no such thing, "no_cuda" says why.
        load_before: what `load` returned before the first benchmark: of a busy machine no time can be trusted.
    """
    for name in PRIVATE:
        machine.pop(name, None)
    cpu = machine.get("cpu")
    brand = cpu.get("brand_raw") if isinstance(cpu, dict) else cpu
    reason = gpubackprop.why_no_cuda()
    gpu = machine_of(importlib.import_module("cupy")) if reason is None else {}
    machine |= {
        "cpu": brand or machine.get("processor") or machine.get("machine"),
        "cores": cores(),
        "blas": threads.blas_description(),
        "blas_threads": blas_threads(),
        "gpu": gpu.get("device"),
        "driver": gpu.get("driver"),
        "cuda": gpu.get("cuda_runtime"),
        "cupy": gpu.get("cupy"),
        "no_cuda": reason,
        "load_before": load_before,
        "gpubackprop": gpubackprop.__version__,
        "numpy": numpy.__version__,
    }


def blas_threads() -> int | None:
    """Return how many threads NumPy's products take now; None where threadpoolctl, which tells, is not installed."""
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return None
    found = [x for x in threadpool_info() if x["user_api"] == "blas"]
    own = [x for x in found if "numpy" in x["filepath"]] or found
    return own[0]["num_threads"] if own else None
