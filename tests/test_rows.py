"""The tables of rows: every one against its own definition, and a user's rows beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import pytest
from own_rows import TwoAgo, pseudo_huber, squash

import gpubackprop as gb
from gpubackprop.activations import ACTIVATIONS, Activation
from gpubackprop.backends import resolve
from gpubackprop.errors import InvalidType, InvalidValue, ModelFileError
from gpubackprop.initializers import INITIALIZERS
from gpubackprop.losses import LOSSES
from gpubackprop.optimizers import OPTIMIZERS, Optimizer
from gpubackprop.schedules import SCHEDULES, Constant, Cosine, Exponential, InverseScaling, Step, WarmUp

ELEMENTWISE = [name for name, row in ACTIVATIONS.items() if not row.rowwise]
H = 1e-200


def _evaluate(source: Any, inputs: dict[str, Any], dtype: str) -> Any:
    backend = resolve("numpy")
    out = backend.zeros(len(next(iter(inputs.values()))), dtype)
    with backend.running(0.0):
        backend._run(source, {name: a.astype(dtype) for name, a in inputs.items()}, [out])
    return out


# -- activations and losses --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("table", [ACTIVATIONS, LOSSES, INITIALIZERS])
def test_rows_are_found_by_their_names(table: dict[str, Any]) -> None:
    assert len(table) >= 6
    assert all(name == row.name for name, row in table.items())


def test_the_tables_are_whole() -> None:
    promised = "identity sigmoid tanh relu leaky_relu elu selu softplus gelu gelu_tanh silu mish hard_sigmoid softmax"
    assert list(ACTIVATIONS) == promised.split()
    promised = "mse squared_error mae huber quantile poisson binary_cross_entropy cross_entropy"
    assert list(LOSSES) == promised.split()
    assert list(OPTIMIZERS) == ["sgd", "adam", "adamw", "rmsprop", "adagrad"]
    assert sorted(SCHEDULES) == sorted(["constant", "step", "exponential", "inverse_scaling", "cosine", "warm_up"])
    kinds = [f"{name}_{kind}" for name in ("glorot", "he", "lecun") for kind in ("normal", "uniform")]
    assert sorted(INITIALIZERS) == sorted(kinds)


VALUES = {  # σ(1) and σ(−2), from the definitions
    "identity": (1, -2),
    "sigmoid": (math.e / (1 + math.e), 1 / (1 + math.e**2)),
    "tanh": ((math.e**2 - 1) / (math.e**2 + 1), (1 - math.e**4) / (1 + math.e**4)),
    "relu": (1, 0),
    "leaky_relu": (1, -0.02),
    "elu": (1, math.exp(-2) - 1),
    "selu": (1.0507009873554805, 1.0507009873554805 * 1.6732632423543772 * (math.exp(-2) - 1)),
    "softplus": (math.log(1 + math.e), math.log(1 + math.exp(-2))),
    "gelu": ((1 + math.erf(1 / math.sqrt(2))) / 2, -(1 - math.erf(math.sqrt(2)))),
    "gelu_tanh": (
        (1 + math.tanh(math.sqrt(2 / math.pi) * 1.044715)) / 2,
        -(1 - math.tanh(math.sqrt(2 / math.pi) * (2 + 8 * 0.044715))),
    ),
    "silu": (math.e / (1 + math.e), -2 / (1 + math.e**2)),
    "mish": (math.tanh(math.log(1 + math.e)), -2 * math.tanh(math.log(1 + math.exp(-2)))),
    "hard_sigmoid": (4 / 6, 1 / 6),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_values_of_activations(name: str) -> None:
    given = _evaluate(ACTIVATIONS[name].forward, {"z": numpy.array([1.0, -2.0])}, "float64")
    numpy.testing.assert_allclose(given, VALUES[name], rtol=4e-15)


LOSS_VALUES = {  # y, a, L
    "mse": [(1, 3, 4)],
    "squared_error": [(1, 3, 2)],
    "mae": [(1, 3, 2), (3, 1, 2), (1, 1, 0)],
    "huber": [(1, 1.5, 0.125), (1, 3, 1.5), (3, 1, 1.5)],  # d²/2 up to 1, then d − 1/2
    "quantile": [(1, 3, 1), (3, 1, 1)],
    "poisson": [(2, 3, 3 - 2 * math.log(3)), (0, 3, 3)],
    "binary_cross_entropy": [(1, 0.25, math.log(4)), (0, 0.25, -math.log(0.75)), (0.5, 0.5, math.log(2))],
    "cross_entropy": [(1, 0.25, math.log(4)), (0, 0.25, 0), (0.5, 0.5, math.log(2) / 2)],
}


@pytest.mark.parametrize("name", LOSSES)
def test_values_of_losses(name: str) -> None:
    y, a, expected = numpy.array(LOSS_VALUES[name], float).T
    numpy.testing.assert_allclose(_evaluate(LOSSES[name].value, {"y": y, "a": a}, "float64"), expected, rtol=1e-15)


@pytest.mark.parametrize("row", [*(ACTIVATIONS[name] for name in ELEMENTWISE), squash, squash(e=3.0)], ids=str)
def test_slope_is_the_derivative(row: Activation) -> None:
    """σ'(z) against Im σ(z + ih) / h, at points that avoid the kinks at 0 and ±3."""
    z = numpy.concatenate([numpy.linspace(-8, 8, 400), [-30.0, 30.0, 1e-9, -1e-9]])
    a = _evaluate(row.forward, {"z": z}, "float64")
    given = _evaluate(row.backward, {"g": numpy.full(z.shape, 2.0), "z": z, "a": a}, "float64") / 2
    expected = _evaluate(row.forward, {"z": z + 1j * H}, "complex128").imag / H
    numpy.testing.assert_allclose(given, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", [name for name in ELEMENTWISE if not ACTIVATIONS[name].analytic])
def test_slope_at_a_kink(name: str) -> None:
    """It is that of the left, except where hard_sigmoid reaches 1: there, as at its other end, it is 0."""
    row, kinks = ACTIVATIONS[name], numpy.array([-3.0, 3.0] if name == "hard_sigmoid" else [0.0])
    slopes = []
    for z in (kinks, kinks - 1e-9):
        a = _evaluate(row.forward, {"z": z}, "float64")
        slopes.append(_evaluate(row.backward, {"g": numpy.ones(z.shape), "z": z, "a": a}, "float64"))
    at, left = slopes
    numpy.testing.assert_allclose(at, [0.0, 0.0] if name == "hard_sigmoid" else left, rtol=1e-8)


@pytest.mark.parametrize(
    "row", [*LOSSES.values(), LOSSES["huber"](delta=0.3), LOSSES["quantile"](q=0.9), pseudo_huber], ids=str
)
def test_loss_prime_is_the_derivative(row: Any) -> None:
    y, a = (x.reshape(-1) for x in numpy.meshgrid(numpy.linspace(0, 1, 21), numpy.linspace(0.013, 0.991, 23)))
    given = _evaluate(row.slope, {"y": y, "a": a}, "float64")
    expected = _evaluate(row.value, {"y": y, "a": a + 1j * H}, "complex128").imag / H
    numpy.testing.assert_allclose(given, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(("name", "activation"), [("binary_cross_entropy", "sigmoid"), ("cross_entropy", "softmax")])
def test_canonical_pairs_agree_with_their_parts(name: str, activation: str) -> None:
    """Fused or not, loss and gradients are the same; fused, they survive any z."""
    row = LOSSES[name]
    assert row.canonical is ACTIVATIONS[activation]
    apart = replace(row, canonical=None, canonical_loss=None)
    nets = [
        gb.Network([3, 4], output_activation=activation, loss=loss, dtype="float64", backend="numpy")
        for loss in (row, apart)
    ]
    X, y = numpy.random.default_rng(0).normal(size=(5, 3)), numpy.eye(4)[[0, 1, 2, 3, 0]]
    (value, [(dW, db)]), (other, [(dW_other, db_other)]) = [net.loss_and_gradients(X, y) for net in nets]
    assert value == pytest.approx(other, rel=1e-14)
    numpy.testing.assert_allclose(dW, dW_other, rtol=1e-12, atol=1e-15)
    numpy.testing.assert_allclose(db, db_other, rtol=1e-12, atol=1e-15)
    nets[0].parameters[0][1][...] = [-1000.0, 0.0, 0.0, 0.0]  # the first example is labelled 0
    value, [(_, db)] = nets[0].loss_and_gradients(X[:1], y[:1])
    assert value > 200
    assert numpy.isfinite(db).all()
    assert db[0] == pytest.approx(-1.0 if name == "cross_entropy" else -0.25)


def test_softmax_of_large_z() -> None:
    net = gb.Network([2, 3], output_activation="softmax", dtype="float32", backend="numpy")
    net.parameters[0][0][...] = 0
    net.parameters[0][1][...] = [1e30, 1e30, -1e30]
    assert net.forward([[0.0, 0.0]]).tolist() == [[0.5, 0.5, 0.0]]


SELU = 1.0507009873554805
LIMITS = {  # σ(z) and σ'(z) far to the left and to the right, where they are not those of relu: 0, 0, z, 1
    "identity": (lambda z: z, 1, lambda z: z, 1),
    "sigmoid": (lambda z: 0 * z, 0, lambda z: z / z, 0),
    "tanh": (lambda z: -z / z, 0, lambda z: z / z, 0),
    "leaky_relu": (lambda z: 0.01 * z, 0.01, lambda z: z, 1),
    "elu": (lambda z: -z / z, 0, lambda z: z, 1),
    "selu": (lambda z: -SELU * 1.6732632423543772 * z / z, 0, lambda z: SELU * z, SELU),
    "hard_sigmoid": (lambda z: 0 * z, 0, lambda z: z / z, 0),
}


@pytest.mark.parametrize(("dtype", "far"), [("float32", [100, 1e4, 1e30]), ("float64", [100, 1e4, 1e30, 1e200])])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_far_out_there_is_no_overflow(name: str, dtype: str, far: list[float]) -> None:
    left, left_slope, right, right_slope = LIMITS.get(name, (lambda z: 0 * z, 0, lambda z: z, 1))
    z = numpy.array(far)
    for points, sigma, sigma_prime in ((-z, left, left_slope), (z, right, right_slope)):
        a = _evaluate(ACTIVATIONS[name].forward, {"z": points}, dtype)
        slope = _evaluate(ACTIVATIONS[name].backward, {"g": numpy.ones(z.shape), "z": points, "a": a}, dtype)
        numpy.testing.assert_allclose(a, sigma(points), rtol=1e-6, atol=1e-30)
        numpy.testing.assert_allclose(slope, numpy.full(z.shape, sigma_prime), rtol=1e-6, atol=2e-7)


# -- parameters of rows ------------------------------------------------------------------------------------------------


def test_a_row_with_another_parameter() -> None:
    leaky = ACTIVATIONS["leaky_relu"](slope=0.2)
    z = numpy.array([-2.0, 3.0])
    assert _evaluate(leaky.forward, {"z": z}, "float64").tolist() == [-0.4, 3.0]
    assert _evaluate(leaky.backward, {"g": z, "z": z, "a": z}, "float64").tolist() == [-0.4, 3.0]
    assert _evaluate(ACTIVATIONS["leaky_relu"].forward, {"z": z}, "float64").tolist() == [-0.02, 3.0]
    assert leaky.name == "leaky_relu"
    net = gb.Network([1, 1, 1], activation=leaky, dtype="float64", backend="numpy")
    assert dict(net.activations[0].parameters) == {"slope": 0.2}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: ACTIVATIONS["leaky_relu"](slope=-0.1),
            InvalidValue,
            r"leaky_relu slope must be .* \[0, inf\), got -0.1",
        ),
        (lambda: ACTIVATIONS["leaky_relu"](alpha=1.0), InvalidValue, "'slope', got 'alpha'"),
        (lambda: ACTIVATIONS["elu"](alpha="1"), InvalidType, "elu alpha must be a number"),
        (lambda: LOSSES["quantile"](q=1.5), InvalidValue, r"quantile q must be .* \[0, 1\], got 1.5"),
        (lambda: LOSSES["huber"](delta=0.0), InvalidValue, "huber delta must be"),
        (lambda: LOSSES["mse"](delta=1.0), InvalidValue, "'mse'"),
        (lambda: squash(e=math.nan), InvalidValue, "squash e must be"),
        (lambda: replace(squash, parameters={"e": 101}), InvalidValue, r"squash e must be .* \[0, 100\], got 101"),
        (lambda: replace(squash, limits={"e": (2.0, 3.0)}), InvalidValue, r"squash e must be .* \[2, 3\], got 1"),
    ],
)
def test_parameters_out_of_limits_are_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# -- initializers ------------------------------------------------------------------------------------------------------

VARIANCE = {"glorot": 2 / (300 + 200), "he": 2 / 300, "lecun": 1 / 300}  # of fan_in 300, fan_out 200


@pytest.mark.parametrize("name", INITIALIZERS)
def test_initial_weights_have_their_distribution(name: str) -> None:
    """60,000 draws: mean and variance within five of their standard errors, and the right shape of distribution."""
    family, kind = name.split("_")
    W = INITIALIZERS[name].draw(numpy.random.default_rng(1), 300, 200)
    count, s = W.size, math.sqrt(VARIANCE[family])
    fourth = {"normal": 3.0, "uniform": 9 / 5}[kind]  # the kurtosis
    assert W.shape == (300, 200)
    assert abs(W.mean()) < 5 * s / math.sqrt(count)
    assert abs(W.var() / s**2 - 1) < 5 * math.sqrt((fourth - 1) / count)
    assert (W**4).mean() / s**4 == pytest.approx(fourth, rel=0.1)
    if kind == "uniform":
        assert 0.999 * math.sqrt(3) * s < abs(W).max() <= math.sqrt(3) * s
    else:
        assert abs(W).max() > 3 * s


def test_a_network_draws_each_layer_for_its_activation() -> None:
    net = gb.Network([400, 300, 200, 100], activation=["relu", "selu"], output_activation="sigmoid", backend="numpy")
    he, lecun, glorot = (W for W, _ in net.parameters)
    assert he.var() == pytest.approx(2 / 400, rel=0.03)
    assert abs(he).max() <= math.sqrt(6 / 400)
    assert lecun.var() == pytest.approx(1 / 300, rel=0.03)
    assert abs(lecun).max() > 3 / math.sqrt(300)
    assert glorot.var() == pytest.approx(2 / 300, rel=0.03)
    assert abs(glorot).max() <= math.sqrt(6 / 300)
    assert all((b == 0).all() for _, b in net.parameters)
    for name in INITIALIZERS:
        net = gb.Network([400, 100], initializer=name, backend="numpy", seed=2)
        expected = INITIALIZERS[name].draw(numpy.random.default_rng(2), 400, 100).astype("float32")
        assert numpy.array_equal(net.parameters[0][0], expected)


@pytest.mark.parametrize("row", ACTIVATIONS.values(), ids=str)
def test_automatic_initializers_exist(row: Activation) -> None:
    assert row.initializer in INITIALIZERS


# -- schedules ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(0.5), {0: 0.5, 10**9: 0.5}),
        (Step(0.8, every=10, factor=0.5), {0: 0.8, 9: 0.8, 10: 0.4, 19: 0.4, 20: 0.2, 100: 0.8 / 1024}),
        (Exponential(0.8, factor=0.5), {0: 0.8, 1: 0.4, 3: 0.1}),
        (InverseScaling(0.6), {0: 0.6, 3: 0.3, 8: 0.2}),
        (InverseScaling(0.6, power=1e3), {0: 0.6, 10**9: 0.0}),  # beyond floats the power is infinite
        (InverseScaling(0.6, power=1.0), {0: 0.6, 1: 0.3, 5: 0.1}),
        (Cosine(0.4, steps=6), {0: 0.4, 2: 0.3, 3: 0.2, 4: 0.1, 6: 0.0, 7: 0.0, 999: 0.0}),
        (Cosine(0.5, steps=2, least=0.1), {0: 0.5, 1: 0.3, 2: 0.1, 3: 0.1}),
        (WarmUp(0.8, steps=4), {0: 0.2, 1: 0.4, 2: 0.6, 3: 0.8, 4: 0.8, 50: 0.8}),
        (WarmUp(Exponential(0.8, factor=0.5), steps=2), {0: 0.4, 1: 0.8, 2: 0.8, 3: 0.4, 4: 0.2}),
    ],
    ids=lambda value: repr(value) if callable(value) else "",
)
def test_schedules_by_hand(schedule: Any, expected: dict[int, float]) -> None:
    assert {t: schedule(t) for t in expected} == pytest.approx(expected, rel=1e-14, abs=1e-17)


def test_every_schedule_is_tested_by_hand() -> None:
    tested = {type(mark) for mark, _ in test_schedules_by_hand.pytestmark[0].args[1]}
    assert tested == set(SCHEDULES.values())


def test_a_schedule_counts_steps() -> None:
    """Three batches an epoch: the rate of the last step of epoch e is η(3 e − 1)."""
    net = gb.Network([1, 1], backend="numpy")
    X = numpy.linspace(0, 1, 6).reshape(6, 1)
    history = gb.fit(net, X, X, optimizer=gb.optimizers.SGD(Exponential(0.5, factor=0.5)), epochs=3, batch_size=2)
    assert history.learning_rate == pytest.approx([0.5**3, 0.5**6, 0.5**9])
    history = gb.fit(net, X, X, optimizer=gb.optimizers.Adam(lambda t: 0.1 / (t + 1)), epochs=2, batch_size=2)
    assert history.learning_rate == pytest.approx([0.1 / 3, 0.1 / 6])


# -- a user's own ------------------------------------------------------------------------------------------------------


def _own(**arguments: Any) -> gb.Network:
    return gb.Network(
        [2, 6, 1],
        activation=squash(e=2.0),
        output_activation=squash,
        loss=pseudo_huber(s=0.25),
        backend="numpy",
        **arguments,
    )


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", [TwoAgo(0.3), gb.optimizers.Adam(0.03)], ids=lambda o: type(o).__name__)
def test_own_rows_train_save_and_load(dtype: str, optimizer: Optimizer, tmp_path: Path) -> None:
    net = _own(dtype=dtype)
    X = numpy.random.default_rng(0).normal(size=(64, 2))
    y = numpy.tanh(X[:, 0] - X[:, 1]) / 2
    gb.check_gradients(net, X[:5], y[:5])
    history = gb.fit(net, X, y, optimizer=optimizer, epochs=60, batch_size=16)
    assert history.loss[-1] < 0.2 * history.loss[0]
    net.save(tmp_path / "own.safetensors")
    with pytest.raises(ModelFileError, match="rows="):
        gb.load(tmp_path / "own.safetensors")
    loaded = gb.load(tmp_path / "own.safetensors", rows=[squash, pseudo_huber], backend="numpy")
    assert numpy.array_equal(loaded.theta, net.theta)
    assert numpy.array_equal(loaded.predict(X), net.predict(X))
    assert loaded.evaluate(X, y) == net.evaluate(X, y)
    assert [dict(row.parameters) for row in (*loaded.activations, loaded.loss)] == [{"e": 2.0}, {"e": 1.0}, {"s": 0.25}]


def test_own_optimizer_keeps_the_last_gradients() -> None:
    """With one parameter, ŷ = w x and x = 1, the gradient is w − y: three steps by hand, from w = 1 towards 0.

    Step 1: g = 1, the mean with two zeros is 1/3: w = 1 − 0.3/3 = 0.9. Step 2: g = 0.9, w = 0.9 − 0.1 · 1.9 = 0.71.
    Step 3: g = 0.71, w = 0.71 − 0.1 · 2.61 = 0.449. Step 4: g = 0.449, w = 0.449 − 0.1 (0.449 + 0.71 + 0.9) = 0.2431.
    """
    net = gb.Network([1, 1], loss="squared_error", dtype="float64", backend="numpy")
    (W, b) = net.parameters[0]
    seen = []
    W[...], b[...] = 1.0, 0.0

    def only_the_weight(net: gb.Network, history: Any) -> None:
        seen.append(float(W[0, 0]))

    x = 1e8  # so long that the bias, whose gradient is x times smaller, stays where it is to 1e-8
    W[...] /= x
    gb.fit(net, [[x]], [0.0], optimizer=TwoAgo(0.3 / x**2), epochs=4, tol=None, callbacks=[only_the_weight])
    numpy.testing.assert_allclose(numpy.array(seen) * x, [0.9, 0.71, 0.449, 0.2431], rtol=1e-12)


@dataclass(frozen=True)
class Forgetful(Optimizer):
    """It returns what it is told to, whatever its slots are."""

    learning_rate: float = 0.1
    returns: int = 1

    @property
    def slots(self) -> tuple[str, ...]:
        return ("v",)

    def step(self, m: Any, h: Any, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        return (w - h.rate * g,) * self.returns


@pytest.mark.parametrize("returns", [0, 1, 3])
def test_an_optimizer_returns_w_and_every_slot(returns: int) -> None:
    """It is refused before the first step: nothing is trained with a slot that stays zero."""
    net = gb.Network([1, 1], backend="numpy")
    before, message = (
        net.theta.copy(),
        f"optimizer Forgetful.* new w, v: .* a tuple of 2 values, got a tuple of {returns}",
    )
    with pytest.raises(InvalidValue, match=message):
        gb.fit(net, [[1.0]], [1.0], optimizer=Forgetful(returns=returns))
    assert numpy.array_equal(net.theta, before)
    assert len(gb.fit(net, [[1.0]], [1.0], optimizer=Forgetful(returns=2), epochs=1).loss) == 1


def test_an_optimizer_without_a_formula_says_so() -> None:
    with pytest.raises(TypeError, match="define step"):
        Optimizer(0.1).step(None, None, None, None)
