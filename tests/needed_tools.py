"""What some tests need: how it is called, whether it is here, and how it is had."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path


def _distribution(name: str) -> str | None:
    """Return the version of an installed package without importing it, None where there is none."""
    return importlib.metadata.version(name) if importlib.util.find_spec(name) else None


def _program(name: str) -> str | None:
    """Return the first line a program prints of its version, None where it is not on the PATH."""
    path = shutil.which(name)
    if path is None:
        return None
    run = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    return run.stdout.partition("\n")[0]


def _in_wheels(pattern: str) -> str | None:
    """Return the file of NVIDIA's wheels whose name fits, None where there is none."""
    wheels = importlib.util.find_spec("nvidia")
    roots = wheels.submodule_search_locations or [] if wheels else []
    return next((str(path) for root in roots for path in sorted(Path(root).rglob(pattern))), None)


def _nvrtc() -> str | None:
    """Return the library that compiles kernels here as on a GPU, of a wheel or of the system."""
    name = "nvrtc64_*_0.dll" if os.name == "nt" else "libnvrtc.so*"
    return _in_wheels(name) or ctypes.util.find_library("nvrtc")


def _nvdisasm() -> str | None:
    """Return the program that writes machine code as text."""
    return shutil.which("nvdisasm") or _in_wheels("nvdisasm.exe" if os.name == "nt" else "nvdisasm")


def _chromium() -> str | None:
    """Return the browser that opens pages."""
    import browser

    return browser.program()


def _mpi() -> str | None:
    """Return the version of mpi4py, None where that or mpiexec is missing."""
    from gpubackprop.cli import launch

    return _distribution("mpi4py") if launch.mpiexec() else None


def _cuda_device() -> str | None:
    """Return what the CUDA backend runs on, None where it does not run."""
    import gpubackprop

    return gpubackprop.available_backends().get("cuda")


@dataclass(frozen=True)
class Tool:
    """Something tests may need: how it is called, which version is here, how it is had."""

    title: str
    version: Callable[[], str | None]
    remedy: str


TOOLS = {
    "torch": Tool("PyTorch oracle", partial(_distribution, "torch"), "pip install gpubackprop[oracle]"),
    "scipy": Tool("SciPy oracle", partial(_distribution, "scipy"), "pip install scipy"),
    "hypothesis": Tool("formulas by hypothesis", partial(_distribution, "hypothesis"), "pip install hypothesis"),
    "onnx": Tool("ONNX models", partial(_distribution, "onnx"), "pip install gpubackprop[onnx]"),
    "skl2onnx": Tool("ONNX models of pipelines", partial(_distribution, "skl2onnx"), "pip install gpubackprop[onnx]"),
    "pyarrow": Tool("Parquet and Arrow", partial(_distribution, "pyarrow"), "pip install gpubackprop[arrow]"),
    "onnxruntime": Tool("ONNX Runtime", partial(_distribution, "onnxruntime"), "pip install onnxruntime"),
    "pandas": Tool("frames of pandas", partial(_distribution, "pandas"), "pip install pandas"),
    "polars": Tool("frames of polars", partial(_distribution, "polars"), "pip install polars"),
    "rich": Tool("progress bar of scikit-learn", partial(_distribution, "rich"), "pip install rich"),
    "cloudpickle": Tool("cloudpickle", partial(_distribution, "cloudpickle"), "pip install cloudpickle"),
    "mypy": Tool("types of a users script", partial(_distribution, "mypy"), "pip install mypy"),
    "mpi": Tool("ranks under mpiexec", _mpi, "pip install 'gpubackprop[mpi]'"),
    "array_api_strict": Tool(
        "array API, strict", partial(_distribution, "array_api_strict"), "pip install array-api-strict"
    ),
    "host": Tool("kernels on the host", partial(_program, "g++"), "install g++ (Debian: apt-get install g++)"),
    "cc": Tool("formulas as loops in C", partial(_program, "cc"), "install a C compiler (Debian: apt-get install gcc)"),
    "compile": Tool("kernels compiled for CUDA", _nvrtc, "pip install 'nvidia-cuda-nvrtc>=13,<14'"),
    "sass": Tool("machine code of kernels", _nvdisasm, "pip install 'nvidia-cuda-nvdisasm>=13,<14'"),
    "cublaslt": Tool("descriptors of cuBLASLt", partial(_in_wheels, "libcublasLt.so*"), "pip install nvidia-cublas"),
    "nvcc": Tool("kernels compiled by nvcc", partial(shutil.which, "nvcc"), "install the CUDA toolkit"),
    "chromium": Tool("pages in a browser", _chromium, "install Chromium (Debian: apt-get install chromium)"),
    "cuda": Tool("CUDA device", _cuda_device, "`gpubackprop doctor` says what is missing"),
}
