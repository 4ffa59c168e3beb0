"""The CUDA backend: the equations on the arrays of one GPU, through CuPy, which is imported here alone."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy

from ..errors import BackendUnavailable, OutOfMemory
from .numpy import NumpyBackend


class CudaBackend(NumpyBackend):
    """The equations on CuPy arrays of one device.

    Attributes:
        name: "cuda".
        index: number of the device.
    """

    name = "cuda"
    block = 2**62  # a GPU has no cache to work in: one pass over the whole array per operation

    def __init__(self, index: int, xp: Any = None) -> None:
        self.index = index
        super().__init__(xp or importlib.import_module("cupy"))

    def _erf(self) -> Any:
        return importlib.import_module("cupyx.scipy.special").erf

    @property
    def description(self) -> str:
        """What runs here, and on which device."""
        properties = self.xp.cuda.runtime.getDeviceProperties(self.index)
        version = self.xp.cuda.runtime.runtimeGetVersion()
        name = properties["name"].decode()
        return (
            f"CuPy {self.xp.__version__}, CUDA {version // 1000}.{version % 1000 // 10}, on {name} (cuda:{self.index})"
        )

    def zeros(self, shape: int | tuple[int, ...], dtype: str) -> Any:
        """Return zeros on the device."""
        with self.running(0.0):
            return self.xp.zeros(shape, dtype)

    def asarray(self, x: Any, dtype: str) -> Any:
        """Return an array on the device with x's values, contiguous; x itself where it is one already."""
        with self.running(0.0):
            if not hasattr(x, "__cuda_array_interface__"):
                x = numpy.asarray(x, dtype)  # on the host: fewer bytes to send, and types that CuPy does not have
            return self.xp.ascontiguousarray(self.xp.asarray(x), dtype)

    def to_numpy(self, x: Any) -> numpy.ndarray:
        """Return an array of the device as a NumPy array."""
        with self.running(0.0):
            return x.get() if hasattr(x, "get") else numpy.asarray(x)

    @contextlib.contextmanager
    def running(self, flops: float) -> Iterator[None]:
        """Make the device current; its lack of memory becomes an error that says what would help."""
        with self.xp.cuda.Device(self.index), numpy.errstate(all="ignore"):  # of numbers that are cast on the host
            try:
                yield
            except self.xp.cuda.memory.OutOfMemoryError as error:
                free, total = self.xp.cuda.runtime.memGetInfo()
                raise OutOfMemory(
                    f"the device cuda:{self.index} has {free:,} of {total:,} bytes free: {error}; take a smaller "
                    'batch_size, keep the data on the host, or use backend="numpy"'
                ) from error

    def synchronize(self) -> None:
        """Wait until the device has done everything asked for."""
        with self.running(0.0):
            self.xp.cuda.get_current_stream().synchronize()

    def gather(self, x: Any, rows: Any, out: Any) -> None:
        """out = x[rows]; x (M, n), rows (N,), out (N, n)."""
        self.xp.take(x, rows, axis=0, out=out)

    def draw_mask(self, rng: numpy.random.Generator, rate: float, mask: Any, uniform: numpy.ndarray) -> None:
        """Fill a mask of dropout: drawn on the host, so that both backends drop the same units."""
        host = numpy.empty(mask.shape, mask.dtype)
        super().draw_mask(rng, rate, host, uniform)
        mask[...] = self.asarray(host, mask.dtype)


def cuda_backend(index: int) -> CudaBackend:
    """Return the backend of a device.

    Raises:
        BackendUnavailable: it cannot run here, or there is no such device.
    """
    cause = why_not()
    if cause is not None:
        raise BackendUnavailable(cause)
    count = _devices()
    if index >= count:
        raise BackendUnavailable(
            f"there is no device cuda:{index}: this machine has {count}, cuda:0 to cuda:{count - 1}"
        )
    return _backend(index)


@cache
def _backend(index: int) -> CudaBackend:
    return CudaBackend(index)


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
