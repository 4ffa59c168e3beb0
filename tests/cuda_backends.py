"""The CUDA backend in the ways tests run it: on a stand-in for CuPy and on a GPU, with its kernels and without.

`conftest.py` makes the fixtures of this file those of all tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fake_cupy
import host_cublaslt
import numpy
import pytest

from gpubackprop.backends import cuda, devices, kernels, resolve
from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.backends.numpy import NumpyBackend


class Expressions(CudaBackend):
    """The equations as array expressions on CuPy's arrays, without a kernel: the rung between NumPy and the kernels."""

    block = 2**62  # one pass over the whole array per operation
    mean_weights = NumpyBackend.mean_weights
    forward = NumpyBackend.forward
    output_delta = NumpyBackend.output_delta
    delta = NumpyBackend.delta
    penalty = NumpyBackend.penalty
    update = NumpyBackend.update
    add = NumpyBackend.add

    def gather(self, x: Any, rows: Any, out: Any) -> None:
        self.xp.take(x, rows, axis=0, out=out)  # CuPy's has no mode

    def draw_mask(self, key: Any, first: Any, k: int, layer: int, rate: float, mask: Any, start: int = 0) -> None:
        host = numpy.empty(mask.shape, mask.dtype)
        NumpyBackend.draw_mask(self, key, first, k, layer, rate, host, start)
        mask[...] = self.asarray(host, mask.dtype)


def forget() -> None:
    """Let the backends be found anew."""
    devices.why_not.cache_clear()
    devices._backend.cache_clear()


@pytest.fixture(params=["cuda", "cuda:1"])
def stand_in(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, need: Any) -> Iterator[str]:
    """The name of a backend on the stand-in: the first device of two, and one that is not the current one."""
    need("host")
    fake_cupy.install(monkeypatch, devices=2)
    forget()
    yield request.param
    forget()


@pytest.fixture(
    params=[
        "expressions on cuda:1",
        "kernels on cuda",
        "graphs on cuda:1",
        pytest.param("expressions on a GPU", marks=pytest.mark.gpu),
        pytest.param("kernels on a GPU", marks=pytest.mark.gpu),
    ]
)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, need: Any) -> Iterator[str]:
    """The name of a backend: on the stand-in, as above, and on a GPU, where the same has to hold."""
    variant, _, name = request.param.partition(" on ")
    if name != "a GPU":
        fake_cupy.install(monkeypatch, devices=2)
        if variant != "expressions":
            need("host")
        if variant == "graphs":
            monkeypatch.setattr(devices, "_products", host_cublaslt.products)
    if variant == "expressions":  # which no graph can capture
        monkeypatch.setattr(devices, "CudaBackend", Expressions)
        monkeypatch.setattr(devices, "_products", lambda cupy: "array expressions")
    forget()
    yield name.replace("a GPU", "cuda")
    forget()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch, need: Any) -> Iterator[Any]:
    """The stand-in, as CuPy: a device whose products can be captured, and graphs of four steps at most."""
    need("host")
    cupy = fake_cupy.install(monkeypatch)
    monkeypatch.setattr(devices, "_products", host_cublaslt.products)
    monkeypatch.setattr(cuda, "PORTION", 4)
    monkeypatch.setattr(fake_cupy.Graph, "launches", 0)
    forget()
    yield cupy
    forget()


@pytest.fixture(params=["host", pytest.param("GPU", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, need: Any) -> Iterator[CudaBackend]:
    """The kernels on the CPU and on a GPU, with products that are taken as done."""
    if request.param == "host":
        need("host")
        monkeypatch.setattr(kernels, "THREADS", 64)
        made = CudaBackend(0, fake_cupy.module(), "not in this test")
    else:
        made = resolve("cuda")
    monkeypatch.setattr(made, "_product", lambda A, B, out: None)
    monkeypatch.setattr(made, "products", None)  # so that nothing is done inside of one
    yield made
