"""`gpubackprop doctor`: what would run here and why, as plain text for a bug report."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy

from .. import __version__, backends
from ..backends import caches
from ..backends.sources import KERNELS
from ..errors import GpubackpropError

PACKAGES = [
    *("numpy", "safetensors", "scipy", "threadpoolctl", "cupy", "cupy-cuda12x", "cupy-cuda13x"),
    *("scikit-learn", "mlxtend", "pillow", "matplotlib", "tqdm", "mpi4py", "mpich", "openmpi"),
]
VARIABLES = [
    *(backends.ENVIRONMENT_VARIABLE, "CUDA_VISIBLE_DEVICES", "CUDA_PATH", "CUPY_TF32", "CUPY_CACHE_DIR"),
    *("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"),
]
WIDTH = 22  # of the column of names


def doctor(arguments: argparse.Namespace) -> int:
    """Print the report.

    Args:
        arguments: as the command line gives them; there are none.

    Returns:
        0, or 1 where the backend that the environment asks for cannot run.
    """
    chosen, status = _chosen()
    sections = {
        "what would run": [chosen, *_usable()],
        "versions": list(_versions()),
        "processor": list(_processor()),
        "graphics processor": list(_gpu()),
        "environment": [(name, repr(os.environ[name]) if name in os.environ else "not set") for name in VARIABLES],
        "files": [("package", str(Path(__file__).parents[1])), ("kernels", _kernels()), _cache()],
    }
    for title, lines in sections.items():
        print(f"{title}")
        for name, text in lines:
            print(f"  {name:<{WIDTH}} {text}")
    return status


def _chosen() -> tuple[tuple[str, str], int]:
    """Return what a network without a `backend` of its own gets, or why there is nothing, and the exit status."""
    asked = os.environ.get(backends.ENVIRONMENT_VARIABLE)
    why = f"{backends.ENVIRONMENT_VARIABLE}={asked}" if asked else f"{backends.ENVIRONMENT_VARIABLE} is not set: auto"
    try:
        return ("backend", f"{backends.resolve().name} ({why})"), 0
    except GpubackpropError as error:
        return ("backend", f"NONE: {error}"), 1


def _usable() -> Iterator[tuple[str, str]]:
    """Say of each backend what it is, or why it cannot run."""
    for name, what in backends.available_backends().items():
        yield name, what
        yield "", backends.resolve(name).engine
    reason = backends.why_no_cuda()
    if reason is not None:
        yield "cuda", f"cannot run: {reason}"


def _versions() -> Iterator[tuple[str, str]]:
    yield "gpubackprop", __version__
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()})"
    yield "system", platform.platform()
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "not installed"


def _processor() -> Iterator[tuple[str, str]]:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield "CPU", _cpu_name()
    yield "cores usable", f"{usable} of {os.cpu_count()}"
    yield from _blas()


def _cpu_name() -> str:
    """Return the processor's name as Linux gives it, or what else the system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _blas() -> Iterator[tuple[str, str]]:
    """Say which BLAS libraries are loaded and how many threads they take; what NumPy was built with, failing that."""
    try:
        import threadpoolctl
    except ImportError:
        built = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
        yield "BLAS", f"{built.get('name')} {built.get('version')} by NumPy's build; its threads: install threadpoolctl"
        return
    for library in threadpoolctl.threadpool_info():
        kind = "BLAS" if library["user_api"] == "blas" else "OpenMP"
        details = [library.get(key) for key in ("internal_api", "version", "architecture", "threading_layer")]
        yield (
            kind,
            f"{' '.join(filter(None, details))}, {library['num_threads']} threads, {Path(library['filepath']).name}",
        )


def _gpu() -> Iterator[tuple[str, str]]:
    """Say what nvidia-smi lists, or why it does not."""
    command = shutil.which("nvidia-smi")
    if command is None:
        yield "nvidia-smi", "not found: no NVIDIA driver is installed, or it is not on the PATH"
        return
    query = [command, "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
    try:
        run = subprocess.run(query, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield "nvidia-smi", f"does not answer: {error}"
        return
    said = " ".join((run.stdout + run.stderr).split())
    if run.returncode:
        yield "nvidia-smi", f"does not answer, exit status {run.returncode}: {said}"
    elif not said:
        yield "nvidia-smi", "lists no GPU"
    for i, line in enumerate(run.stdout.splitlines() if run.returncode == 0 else []):
        match line.split(", "):
            case [name, driver, memory, capability]:
                yield f"GPU {i} (nvidia-smi)", f"{name}, driver {driver}, {memory}, compute capability {capability}"
            case _:
                yield "nvidia-smi", line


def _kernels() -> str:
    return f"{KERNELS} ({len(list(KERNELS.glob('*.cu')))} of .cu, {len(list(KERNELS.glob('*.cuh')))} of .cuh)"


def _cache() -> tuple[str, str]:
    """Return the folder of compiled loops and measured choices, or the reason why there is none."""
    reason = caches.why_not()
    return "cache", str(caches.cache_folder()) if reason is None else f"NOT USED: {reason}"
