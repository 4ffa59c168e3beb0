"""What the benchmarks ran on, as the file of results says it."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

import numpy
from gpu_check import machine_of

import gpubackprop
from gpubackprop.backends import threads

PRIVATE = ("node",)  # of what pytest-benchmark tells: the name of the computer


def seconds_of_others() -> float | None:
    """Return the seconds that the cores have worked for other processes than this and its children.

    Returns:
        Seconds since the machine was started, less what this process used; None where the system does not tell.
    """
    try:
        used = [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:4]]
    except (OSError, ValueError):
        return None
    own = os.times()
    return sum(used) / os.sysconf("SC_CLK_TCK") - (own.user + own.system + own.children_user + own.children_system)


def describe(machine: dict[str, Any]) -> None:
    """Add what matters here to what pytest-benchmark tells of a machine, and take out what is nobody's business.

    Args:
        machine: changed in place; values are None where there is no such thing, "no_cuda" says why.
    """
    for name in PRIVATE:
        machine.pop(name, None)
    cpu = machine.get("cpu")
    brand = cpu.get("brand_raw") if isinstance(cpu, dict) else cpu
    reason = gpubackprop.why_no_cuda()
    gpu = machine_of(importlib.import_module("cupy")) if reason is None else {}
    machine |= {
        "cpu": brand or machine.get("processor") or machine.get("machine"),
        "cores": threads.cores(),
        "blas": threads.blas_description(),
        "blas_threads": blas_threads(),
        "gpu": gpu.get("device"),
        "driver": gpu.get("driver"),
        "cuda": gpu.get("cuda_runtime"),
        "cupy": gpu.get("cupy"),
        "no_cuda": reason,
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
