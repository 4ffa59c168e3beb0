"""A new activation is one row: defined here and nowhere else, it passes every rung of the verification."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cuda_compiler
import kernel_cases
import kernel_sources
import numpy as np
import pytest
import test_compile
from kernel_cases import Case

import gpubackprop as gb
from gpubackprop.activations import Activation
from gpubackprop.backends import sources
from gpubackprop.backends.cuda import CudaBackend
from gpubackprop.losses import mse

softsign = Activation(
    "softsign",
    lambda m, z: z / (1.0 + m.abs(z)),
    lambda m, z, a: 1.0 / ((1.0 + m.abs(z)) * (1.0 + m.abs(z))),
    analytic=False,  # its slope has a kink at 0
)
KERNELS = {
    "activate-softsign": sources.activate(softsign),
    "delta-softsign": sources.delta(softsign),
    "output-mse-softsign": sources.output(mse, softsign),
}
CASES = list(kernel_cases.activation_cases(softsign))
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 5)), RNG.normal(size=(60, 3))


def _network(**arguments: Any) -> gb.Network:
    arguments = {"activation": softsign, "output_activation": softsign, "dtype": "float64", **arguments}
    return gb.Network([5, 8, 6, 3], **arguments)


def test_its_derivative_is_that_of_its_formula() -> None:
    net = _network(backend="numpy")
    assert gb.check_gradients(net, X, Y, method="complex_step").largest_error <= 1e-12
    assert gb.check_gradients(net, X, Y).largest_error <= 1e-6


def test_it_is_that_of_pytorch(need: Any) -> None:
    need("torch")
    import torch

    net = _network(backend="numpy")
    weights = [[torch.tensor(part, requires_grad=True) for part in pair] for pair in net.parameters]
    a = torch.tensor(X)
    for W, b in weights:
        a = torch.nn.functional.softsign(a @ W + b)
    ((a - torch.tensor(Y)) ** 2).mean().backward()
    _, gradients = net.loss_and_gradients(X, Y)
    for pair, own in zip(weights, gradients, strict=True):
        for part, gradient in zip(pair, own, strict=True):
            np.testing.assert_allclose(gradient, part.grad.numpy(), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("storage", kernel_sources.STORAGES)
@pytest.mark.parametrize("name", KERNELS)
def test_it_compiles_for_every_gpu(name: str, storage: str, need: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    need("compile")
    monkeypatch.setitem(kernel_sources.SOURCES, name, KERNELS[name])
    for architecture in test_compile.ARCHITECTURES:
        built = cuda_compiler.compiled(test_compile._text(name, storage), architecture)
        assert test_compile._faults(name, storage, built) == []


@pytest.mark.parametrize("storage", kernel_sources.STORAGES)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_its_kernels_compute_it(case: Case, storage: str, backend: CudaBackend) -> None:
    kernel_cases.check(backend, case, storage)


def test_training_on_kernels_ends_at_the_parameters_of_numpy(device: str) -> None:
    on_cpu, on_gpu = _network(backend="numpy"), _network(backend=device)
    histories = [
        gb.fit(net, X, Y, optimizer=gb.optimizers.Adam(0.01), epochs=5, batch_size=16, tol=None)
        for net in (on_cpu, on_gpu)
    ]
    np.testing.assert_allclose(on_gpu.theta.get(), on_cpu.theta, rtol=1e-10, atol=1e-12)
    assert histories[1].loss == pytest.approx(histories[0].loss, rel=1e-10)


def test_a_model_with_it_is_saved_and_loaded(tmp_path: Path) -> None:
    net = _network(backend="numpy")
    net.save(tmp_path / "model.safetensors")
    again = gb.load(tmp_path / "model.safetensors", rows=[softsign])
    assert np.array_equal(again.predict(X), net.predict(X))
