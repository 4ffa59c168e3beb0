"""Which devices there are, and why there is none. CuPy is imported here alone."""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from typing import Any

from ..errors import BackendUnavailable
from .choices import Choices
from .cublaslt import Library
from .cuda import CudaBackend
from .graphs import Recording
from .products import Products

# What launchers of MPI tell a process of its number on its machine: Open MPI's, and MPICH's.
LOCAL_RANK = ("OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID")


def cuda_backend(index: int | None) -> CudaBackend:
    """Return the backend of a device; of None the first, or of several processes under mpiexec each another one's.

    Raises:
        BackendUnavailable: it cannot run here, or there is no such device.
    """
    cause = why_not()
    if cause is not None:
        raise BackendUnavailable(cause)
    count = _devices()
    if index is None:
        index = int(next((os.environ[name] for name in LOCAL_RANK if name in os.environ), 0)) % count
    if index >= count:
        raise BackendUnavailable(
            f"there is no device cuda:{index}: this machine has {count}, cuda:0 to cuda:{count - 1}"
        )
    return _backend(index)


@cache
def _backend(index: int) -> CudaBackend:
    cupy = importlib.import_module("cupy")
    with cupy.cuda.Device(index):
        return CudaBackend(index, cupy, _products(cupy))


def _products(cupy: Any) -> Products | str:
    """Return what multiplies matrices on the current device by cuBLASLt, or why it cannot be had."""
    try:
        library = _library()
        device = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())["name"].decode()
        name = "".join(letter if letter.isalnum() else "-" for letter in f"{device} cublaslt {library.version}")
        products = Products(cupy, library, Choices(name))
        _probe_recording(cupy, products)
    except Exception as error:  # of three packages and of the device: each is a reason
        return _first_line(error)
    return products


def _library() -> Library:
    """Return cuBLASLt, open on the current device."""
    pathfinder = importlib.import_module("cuda.pathfinder")  # which CuPy depends on
    library = Library(pathfinder.load_nvidia_dynamic_lib("cublasLt").abs_path)
    library.open()
    return library


def _probe_recording(cupy: Any, products: Products) -> None:
    """Launch a product, and replay it from a graph."""
    x, out = cupy.ones((4, 4), "float32"), cupy.zeros((4, 4), "float32")
    record = Recording(cupy, lambda: products(x, x, out), list)
    for kind in ("launched", "replayed"):
        out[...] = 0.0
        record()
        if float(out.sum()) != 64.0:
            raise ArithmeticError(f"a {kind} product of matrices of ones came out wrong")


@cache
def why_not() -> str | None:
    """Return None where a matrix product and a kernel run on a device, else one sentence with cause and remedy."""
    if importlib.util.find_spec("cupy") is None:
        return (
            "CuPy is not installed: install it with pip install 'gpubackprop[cuda13]' for a driver of CUDA 13, "
            "or 'gpubackprop[cuda12]' for one of CUDA 12."
        )
    try:
        importlib.import_module("cupy")
    except Exception as error:  # it fails in as many ways as it has libraries: each is a reason
        return _no_libraries(error)
    try:
        count = _devices()
    except Exception as error:
        return _no_driver(_first_line(error))
    if count == 0:
        return _no_driver("it reports no device")
    try:
        _probe()
    except Exception as error:
        return _no_libraries(error)
    return None


def _no_driver(reason: str) -> str:
    return (
        f"no NVIDIA driver or device answers ({reason}): install the driver, see that nvidia-smi lists a GPU and that "
        'CUDA_VISIBLE_DEVICES does not hide it, or use backend="numpy".'
    )


def _no_libraries(error: Exception) -> str:
    return (
        f"the CUDA libraries that CuPy needs are missing or do not fit ({_first_line(error)}): install them with "
        "pip install 'cupy-cuda13x[ctk]', or 'cupy-cuda12x[ctk]' for a driver of CUDA 12."
    )


def _first_line(error: Exception) -> str:
    """Return the first line of a message that says something; CuPy's own puts the error that it met at its end."""
    text = str(error).rpartition("Original error:")[2]
    return next((line.strip() for line in text.splitlines() if line.strip(" =")), repr(error))


def _devices() -> int:
    """Return the number of devices that the driver reports."""
    return int(importlib.import_module("cupy").cuda.runtime.getDeviceCount())


def _probe() -> None:
    """Run a matrix product and a compiled kernel on the first device."""
    cupy = importlib.import_module("cupy")
    with cupy.cuda.Device(0):
        x = cupy.ones((2, 2), "float32")
        double = cupy.ElementwiseKernel("T x", "T y", "y = x + x", "gpubackprop_probe")
        if float(double(x @ x).sum()) != 16.0:
            raise ArithmeticError("a product of matrices of ones came out wrong")
