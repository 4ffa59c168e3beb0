"""Updates that are part of the gradient's own products: the same as the formula of the optimizer after them."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpubackprop as gb
from gpubackprop.backends import blas
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.optimizers import OPTIMIZERS, SGD, Fold
from gpubackprop.run import Run
from gpubackprop.schedules import Exponential

FOLDED = {
    "plain": SGD(0.3),
    "momentum": SGD(0.1, momentum=0.9),
    "a schedule": SGD(Exponential(0.3, 0.97), momentum=0.5),
    "nesterov without momentum": SGD(0.3, nesterov=True),
}
NOT_FOLDED = {
    "decay": SGD(0.1, weight_decay=1e-3),
    "clipping": SGD(0.1, clip_norm=1.0),
    "nesterov": SGD(0.1, momentum=0.9, nesterov=True),
    **{name: make() for name, make in OPTIMIZERS.items() if name != "sgd"},
}


class Halved(SGD):
    """A user's own: half a step."""

    def step(self, m: Any, h: Any, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        return (w - 0.5 * h.rate * g,)


def _trained(optimizer: Any, dtype: str = "float64", **about: Any) -> numpy.ndarray:
    """Return θ after 30 steps, of which every fifth is on a smaller batch."""
    net = gb.Network([5, 7, 6, 3], activation="tanh", backend="numpy", dtype=dtype, **about)
    rng = numpy.random.default_rng(2)
    X, y = rng.normal(size=(44, 5)), rng.normal(size=(44, 3))
    gb.fit(net, X, y, optimizer=optimizer, epochs=6, batch_size=10, tol=None)
    return net.theta.copy()


def _unfolded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumpyBackend, "folds", lambda *_: False)


@pytest.mark.usefixtures("unrecorded")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FOLDED)
def test_folded_updates_are_the_formula(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both round each of 30 updates by an ulp or two of θ, |θ| < 2; momentum of 0.9 makes ten times as much of it."""
    folded = _trained(FOLDED[name], dtype, dropout=0.2)
    calls: list[str] = []
    original = NumpyBackend.update
    monkeypatch.setattr(NumpyBackend, "update", lambda *a: calls.append("update") or original(*a))
    assert (_trained(FOLDED[name], dtype, dropout=0.2) == folded).all()
    assert not calls, "it was not folded"
    _unfolded(monkeypatch)
    formula = _trained(FOLDED[name], dtype, dropout=0.2)
    assert len(calls) == 30
    assert abs(folded - formula).max() < 30 * 10 * 2 * numpy.finfo(dtype).eps


@pytest.mark.parametrize("name", FOLDED)
def test_of_one_number(name: str) -> None:
    """The fold and the trace of the optimizer, on numbers: w and v after each of three gradients."""
    optimizer = FOLDED[name]
    w, v, formula = 1.0, 0.0, [numpy.array([x]) for x in (1.0, 0.0)][: 1 + len(optimizer.slots)]
    for t, g in enumerate((0.5, -2.0, 0.25)):
        assert optimizer.fold is not None
        if optimizer.fold.velocity:
            v = optimizer.fold.keeps * v - optimizer.rate(t) * g
            w = w + v
        else:
            w = optimizer.fold.keeps * w - optimizer.rate(t) * g
        theta, *slots = formula
        hyper = numpy.array(list(optimizer.hyper(t).values()))
        NumpyBackend().update(optimizer, hyper, theta, numpy.array([g]), slots)
        assert [float(x[0]) for x in formula] == pytest.approx([w, v][: len(formula)], rel=1e-14)


@pytest.mark.parametrize("name", NOT_FOLDED)
def test_what_is_more_than_a_sum_is_not_folded(name: str) -> None:
    assert NOT_FOLDED[name].fold is None


def test_a_class_of_ones_own_is_not_folded() -> None:
    assert Halved(0.2).fold is None
    assert abs(_trained(Halved(0.2)) - _trained(SGD(0.1))).max() < 1e-12


def test_a_wrong_fold_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    folded = _trained(FOLDED["momentum"])
    monkeypatch.setattr(SGD, "fold", Fold(0.9 * 1.0001, velocity=True))
    assert abs(_trained(FOLDED["momentum"]) - folded).max() > 1e-6


def test_weights_are_used_before_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of the equations with the fold: no δ is computed from a W that has been updated."""
    order: list[str] = []
    net = gb.Network([5, 7, 6, 3], backend="numpy")
    places = {W.ctypes.data: f"W_{l}" for l, (W, _) in enumerate(net.parameters, start=1)}
    for name in ("delta", "weight_gradient"):
        original = getattr(NumpyBackend, name)

        def noted(*arguments: Any, name: str = name, original: Any = original, **named: Any) -> None:
            order.append(f"{name} {places[arguments[3].ctypes.data]}")
            original(*arguments, **named)

        monkeypatch.setattr(NumpyBackend, name, noted)
    gb.fit(net, numpy.ones((4, 5)), numpy.ones((4, 3)), epochs=1)
    assert [step for step in order if "W_1" not in step] == [
        *("delta W_3", "weight_gradient W_3", "delta W_2", "weight_gradient W_2")
    ]


def test_a_penalty_is_not_folded() -> None:
    net = gb.Network([5, 3], l2=0.1, backend="numpy")
    assert Run(net, numpy.ones((4, 5), "f4"), numpy.ones((4, 3), "f4"), None, SGD(0.1), 4, True, 0).fold is None


def test_without_a_blas_to_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where NumPy's library has none of the names, or one that computes wrongly, the update follows the gradient."""
    folded = _trained(FOLDED["plain"])
    with monkeypatch.context() as patch:
        patch.setattr(blas, "_NAMES", ("no_such_{}",))
        blas.of_numpy.cache_clear()
        assert blas.of_numpy("float64") is None
        assert abs(_trained(FOLDED["plain"]) - folded).max() < 1e-12
    with monkeypatch.context() as patch:
        patch.setattr(blas, "_TRANSPOSED", 111)
        blas.of_numpy.cache_clear()
        assert blas.of_numpy("float32") is None
    blas.of_numpy.cache_clear()
    assert blas.of_numpy("float16") is None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 1), (64, 17, 10), (200, 128, 33)])
def test_products_that_are_added(shape: tuple[int, int, int], dtype: str) -> None:
    """Against NumPy in double precision: each sum has N terms below 16, rounded N times at the most."""
    N, m, n = shape
    rng = numpy.random.default_rng(3)
    A, B, out = (rng.uniform(-4, 4, size=s).astype(dtype) for s in ((N, m), (N, n), (m, n)))
    row, ones = out[0].copy(), numpy.ones((1, N), dtype)
    found = blas.of_numpy(dtype)
    assert found is not None
    expected = 0.75 * out.astype("float64") - 0.5 * A.T.astype("float64") @ B
    expected_row = 0.75 * row.astype("float64") - 0.5 * B.sum(axis=0, dtype="float64")
    scale = numpy.array([-0.5, 0.75], dtype)
    found.product_added(A, B, out, scale)()
    found.rows_added(B, ones, row, scale)()
    bound = 16 * N * N * numpy.finfo(dtype).eps + 1e-7 * (dtype == "float32")
    assert abs(out - expected).max() <= bound
    assert abs(row - expected_row).max() <= bound
