"""The equations as array expressions on CuPy's arrays, without a kernel: the rung between NumPy and the kernels."""

from __future__ import annotations

import importlib
from typing import Any

import numpy

from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.backends.numpy import NumpyBackend


class Expressions(CudaBackend):
    """A CUDA backend that runs the reference's operations; two of them need what CuPy lacks."""

    block = 2**62  # one pass over the whole array per operation
    forward = NumpyBackend.forward
    output_delta = NumpyBackend.output_delta
    delta = NumpyBackend.delta
    penalty = NumpyBackend.penalty
    update = NumpyBackend.update

    def _erf(self) -> Any:
        return importlib.import_module("cupyx.scipy.special").erf

    def gather(self, x: Any, rows: Any, out: Any) -> None:
        self.xp.take(x, rows, axis=0, out=out)  # CuPy's has no mode

    def draw_mask(self, key: Any, step: int, layer: int, rate: float, mask: Any) -> None:
        host = numpy.empty(mask.shape, mask.dtype)
        NumpyBackend.draw_mask(self, key, step, layer, rate, host)
        mask[...] = self.asarray(host, mask.dtype)
