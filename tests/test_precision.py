"""Reduced precision of products: asked for, never assumed; parameters, losses and sums stay float32."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

import fake_cupy
import host_cublaslt
import numpy as np
import pytest
from cuda_backends import forget
from kernel_cases import from_bfloat16

import gpubackprop as gb
from gpubackprop.backends import devices
from gpubackprop.errors import InvalidValue

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(50, 6)), RNG.normal(size=(50, 3))
# Operands are rounded by half a unit in the last of 11 or of 8 bits; what is stored in bfloat16 is so once more.
EPSILON = {"float32": 2.0**-24, "tf32": 2.0**-11, "bfloat16": 2.0**-8}


@pytest.fixture(params=["stand-in", pytest.param("GPU", marks=pytest.mark.gpu)])
def cuda(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, need: Any) -> Iterator[str]:
    """A device whose library multiplies in every precision."""
    if request.param == "stand-in":
        need("host")
        fake_cupy.install(monkeypatch)
        monkeypatch.setattr(devices, "_products", host_cublaslt.products)
    forget()
    yield "cuda"
    forget()


def _network(precision: str, backend: str = "cuda", **arguments: Any) -> gb.Network:
    return gb.Network([6, 32, 16, 3], activation="gelu", backend=backend, precision=precision, **arguments)


@pytest.mark.parametrize("precision", EPSILON)
def test_outputs_and_gradients_are_off_by_the_precision(precision: str, cuda: str) -> None:
    """By some units of it: sums of up to 32 products whose errors have both signs, through three layers."""
    net, reference = _network(precision), _network("float32", "numpy", dtype="float64")
    within = 16 * EPSILON[precision]
    np.testing.assert_allclose(net.forward(X), reference.forward(X), rtol=within, atol=within)
    loss, gradients = net.loss_and_gradients(X, Y)
    expected, exact = reference.loss_and_gradients(X, Y)
    assert loss == pytest.approx(expected, rel=within)
    for pair, other in zip(gradients, exact, strict=True):
        for given, wanted in zip(pair, other, strict=True):
            host = net.backend.to_numpy(given)
            assert host.dtype == "float32"
            assert abs(host - wanted).max() <= within * max(1.0, abs(wanted).max())
    if precision != "float32":
        assert abs(net.forward(X) - reference.forward(X)).max() > EPSILON[precision] / 64, "products are full"


def test_loss_curves_lie_over_each_other(cuda: str) -> None:
    """On scikit-learn's digits, a real data set: the three losses fall together, and none is that of another."""
    datasets = pytest.importorskip("sklearn.datasets")
    digits, labels = datasets.load_digits(return_X_y=True)
    rows = slice(0, 400)
    curves = {}
    for precision in EPSILON:
        net = gb.Network(
            [64, 32, 10], activation="relu", output_activation="softmax", loss="cross_entropy", backend=cuda,
            precision=precision,
        )  # fmt: skip
        rule = gb.optimizers.Adam(5e-3)
        history = gb.fit(net, digits[rows] / 16, labels[rows], optimizer=rule, epochs=8, batch_size=50, tol=None)
        assert net.backend.to_numpy(net.theta).dtype == "float32"
        curves[precision] = np.array(history.loss)
    full = curves["float32"]
    assert full[-1] < 0.5 * full[0]
    for precision, curve in curves.items():
        np.testing.assert_allclose(curve, full, rtol=0 if precision == "float32" else 8 * EPSILON[precision])
    assert len({curve.tobytes() for curve in curves.values()}) == 3


@pytest.mark.parametrize("options", [{}, {"dropout": 0.3, "l2": 0.1}, {"output_activation": "softmax"}], ids=str)
def test_every_option_of_a_network_in_bfloat16(options: dict[str, Any], cuda: str) -> None:
    losses = []
    for precision in ("float32", "bfloat16"):
        net = _network(precision, **options)
        weights = np.linspace(0.5, 1.5, 50)
        history = gb.fit(net, X, Y, sample_weight=weights, epochs=5, batch_size=16, validation_data=(X, Y), tol=None)
        losses.append([*history.loss, *history.validation_loss])
        assert np.isfinite(net.predict(X, batch_size=7)).all()
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.02)
    masks = net.draw_masks(50, seed=1)
    assert np.isfinite(net.loss_and_gradients(X, Y, masks=masks)[0])


def test_products_multiply_by_the_parameters_of_now(cuda: str) -> None:
    """θ that somebody changed is what the next product takes, in its own type."""
    net = _network("bfloat16")
    assert (str(net.theta.dtype), str(net._narrow.dtype)) == ("float32", "uint16")
    net.theta[...] = 0.0
    assert not net.forward(X).any()
    net.theta[...] = 0.1
    net.forward(X)
    assert from_bfloat16(net.backend.to_numpy(net._narrow))[0] == pytest.approx(0.1, rel=2**-8)


def test_a_precision_is_a_backend_of_its_own(cuda: str) -> None:
    nets = [_network(precision) for precision in ("float32", "tf32", "bfloat16", "tf32")]
    assert [net.precision for net in nets] == ["float32", "tf32", "bfloat16", "tf32"]
    assert len({id(net.backend) for net in nets}) == 3, "one for each"
    assert "products in bfloat16" in repr(nets[2])
    assert "products in" not in repr(nets[0])
    assert nets[2].to("numpy").precision == "float32"
    assert nets[0].backend is devices._backend(0)


def test_precision_is_of_float32_on_cuda_alone(cuda: str) -> None:
    with pytest.raises(InvalidValue, match="precision='tf32' is of networks in float32, got dtype='float64'"):
        _network("tf32", dtype="float64")
    with pytest.raises(InvalidValue, match="precision must be one of 'float32', got 'tf32'"):
        _network("tf32", "numpy")


def test_without_cublaslt_there_is_full_precision_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cupy.install(monkeypatch)
    forget()
    importlib.import_module("cupy")
    with pytest.raises(InvalidValue, match="precision must be one of 'float32', got 'bfloat16'"):
        _network("bfloat16")
    forget()
