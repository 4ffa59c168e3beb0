"""The same networks in PyTorch: losses, gradients, optimizers and schedules, in float64."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy
import pytest

import gpubackprop as gb
from gpubackprop import optimizers, schedules
from gpubackprop.activations import ACTIVATIONS
from gpubackprop.losses import LOSSES

BOUND = 1e-12
HIDDEN = [name for name, row in ACTIVATIONS.items() if not row.rowwise]


@pytest.fixture
def torch(need: Callable[[str], None]) -> Any:
    need("torch")
    return importlib.import_module("torch")


def _activation(torch: Any, name: str) -> Any:
    F = torch.nn.functional
    special = {
        "identity": lambda z: z,
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "gelu_tanh": lambda z: F.gelu(z, approximate="tanh"),
        "hard_sigmoid": lambda z: torch.clamp(z / 6 + 0.5, 0, 1),  # F.hardsigmoid has a slope of float32's 1/6
        "softmax": lambda z: torch.softmax(z, dim=1),
    }
    return special.get(name) or getattr(F, name)


def _loss(torch: Any, name: str) -> Any:
    """Return the loss of every example."""
    F = torch.nn.functional
    apiece = {
        "mse": lambda a, y: F.mse_loss(a, y, reduction="none"),
        "squared_error": lambda a, y: F.mse_loss(a, y, reduction="none") / 2,
        "mae": lambda a, y: F.l1_loss(a, y, reduction="none"),
        "huber": lambda a, y: F.huber_loss(a, y, delta=1.0, reduction="none"),
        "quantile": lambda a, y: torch.maximum(0.5 * (y - a), -0.5 * (y - a)),
        "poisson": lambda a, y: F.poisson_nll_loss(a, y, log_input=False, eps=1e-30, reduction="none"),
        "binary_cross_entropy": lambda a, y: F.binary_cross_entropy(a, y, reduction="none"),
        "cross_entropy": lambda a, y: -y * torch.log(a),
    }
    return lambda a, y: apiece[name](a, y).sum(1) if name == "cross_entropy" else apiece[name](a, y).mean(1)


def _problem(hidden: Any, output: str, loss: Any, sizes: tuple[int, ...] = (4, 6, 5, 3), **arguments: Any) -> Any:
    """Return a network, X and Y, with outputs inside (0, 1), where every loss is defined."""
    net = gb.Network(
        sizes,
        activation=hidden,
        output_activation=output,
        loss=replace(LOSSES[loss], targets="any"),  # for output activations that no training has, too
        dtype="float64",
        backend="numpy",
        seed=6,
        **arguments,
    )
    rng = numpy.random.default_rng(8)
    for _, b in net.parameters:
        b[...] = rng.normal(0, 0.3, b.shape)
    W, b = net.parameters[-1]
    W[...], b[...] = rng.uniform(0.02, 0.06, W.shape), rng.uniform(0.2, 0.5, b.shape)
    Y = rng.uniform(0.05, 0.95, (9, sizes[-1]))
    return net, rng.normal(0, 1, (9, sizes[0])), Y / Y.sum(axis=1, keepdims=True) if loss == "cross_entropy" else Y


class Twin:
    """A network of PyTorch with the parameters of one of ours."""

    def __init__(self, torch: Any, net: gb.Network) -> None:
        self.torch, self.net = torch, net
        self.parameters = [torch.tensor(x, requires_grad=True) for pair in net.parameters for x in pair]
        self.sigma = [_activation(torch, row.name) for row in net.activations]

    def loss(self, X: Any, Y: Any, weights: Any = None, masks: Any = None, l2: float = 0.0) -> Any:
        a, Y = self.torch.tensor(X), self.torch.tensor(Y)
        weights = self.torch.tensor(numpy.ones(len(X)) if weights is None else weights)
        for l, sigma in enumerate(self.sigma):
            a = sigma(a @ self.parameters[2 * l] + self.parameters[2 * l + 1])
            if masks is not None and l < len(masks):
                a = a * self.torch.tensor(masks[l])
        mean = (weights * _loss(self.torch, self.net.loss.name)(a, Y)).sum() / weights.sum()
        return mean + l2 / 2 * sum((W * W).sum() for W in self.parameters[::2])

    def assert_gradients(self, gradients: Any) -> None:
        for given, expected in zip([x for pair in gradients for x in pair], self.parameters, strict=True):
            _assert_near(given, expected.grad.numpy())


def _assert_near(given: Any, expected: Any, bound: float = BOUND) -> None:
    """Relative to the largest entry."""
    assert abs(given - expected).max() <= bound * abs(expected).max()


def _agrees(torch: Any, problem: Any, weights: Any = None, masks: Any = None, l2: float = 0.0) -> None:
    net, X, Y = problem
    twin = Twin(torch, net)
    expected = twin.loss(X, Y, weights, masks, l2)
    expected.backward()
    loss, gradients = net.loss_and_gradients(X, Y, weights, masks)
    assert loss == pytest.approx(expected.item(), rel=BOUND)
    twin.assert_gradients(gradients)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("output", ACTIVATIONS)
def test_every_output_activation_with_every_loss(torch: Any, output: str, loss: str) -> None:
    _agrees(torch, _problem("tanh", output, loss))


@pytest.mark.parametrize("hidden", HIDDEN)
def test_every_hidden_activation(torch: Any, hidden: str) -> None:
    _agrees(torch, _problem(hidden, "identity", "mse"))


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_dropout_and_penalty(torch: Any, loss: str) -> None:
    weights = numpy.array([1.0, 2.0, 0.0, 0.5, 3.0, 0.0, 1.0, 0.1, 4.0])
    for arguments in ({}, {"l2": 0.3}, {"l2": 0.3, "dropout": 0.4}):
        problem = _problem("silu", "softmax" if loss == "cross_entropy" else "sigmoid", loss, **arguments)
        masks = problem[0].draw_masks(9, seed=3) if "dropout" in arguments else None
        _agrees(torch, problem, weights, masks, arguments.get("l2", 0.0))


@pytest.mark.parametrize("scale", [1.0, 30.0, 1000.0])
def test_labels_and_logits(torch: Any, scale: float) -> None:
    """PyTorch's own fused forms, also where softmax and sigmoid are 0 or 1 to the last place."""
    F = torch.nn.functional
    for output, loss, y in (
        ("softmax", "cross_entropy", [0, 1, 2, 0, 1, 2, 0, 1, 2]),
        ("sigmoid", "binary_cross_entropy", None),
    ):
        net, X, Y = _problem("tanh", output, loss)
        net.parameters[-1][0][...] *= scale
        twin = Twin(torch, net)
        twin.sigma[-1] = lambda z: z
        z = twin.sigma[0](torch.tensor(X) @ twin.parameters[0] + twin.parameters[1])
        z = twin.sigma[1](z @ twin.parameters[2] + twin.parameters[3]) @ twin.parameters[4] + twin.parameters[5]
        expected = F.cross_entropy(z, torch.tensor(y)) if y else F.binary_cross_entropy_with_logits(z, torch.tensor(Y))
        expected.backward()
        value, gradients = net.loss_and_gradients(X, y or Y)
        assert value == pytest.approx(expected.item(), rel=BOUND)
        twin.assert_gradients(gradients)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_kinks_have_the_slopes_of_pytorch(torch: Any, dtype: str) -> None:
    """At z = 0, and at ±3 where hard_sigmoid has its kinks."""
    functional = torch.nn.functional
    z = numpy.array([[0.0], [3.0], [-3.0]], dtype)
    for name in ("relu", "leaky_relu", "elu", "hard_sigmoid"):
        net = gb.Network([1, 1], output_activation=name, loss="squared_error", dtype=dtype, backend="numpy")
        net.parameters[0][0][...] = 1.0
        for x in z:
            _, [(_, db)] = net.loss_and_gradients(x[None], net.forward(x[None]) - 1)  # ∂L/∂a = 1
            t = torch.tensor(x, requires_grad=True)
            getattr(functional, name.replace("hard_", "hard"))(t).sum().backward()
            assert db[0] == pytest.approx(t.grad.item(), rel=1e-6), f"{name} at {x[0]}"


# -- optimizers: twenty steps ------------------------------------------------------------------------------------------

RULES = {
    "SGD": (optimizers.SGD(0.2), "SGD", {"lr": 0.2}),
    "SGD, decay": (optimizers.SGD(0.2, weight_decay=0.05), "SGD", {"lr": 0.2, "weight_decay": 0.05}),
    "momentum": (optimizers.SGD(0.1, momentum=0.8), "SGD", {"lr": 0.1, "momentum": 0.8}),
    "Nesterov": (
        optimizers.SGD(0.1, momentum=0.8, nesterov=True),
        "SGD",
        {"lr": 0.1, "momentum": 0.8, "nesterov": True},
    ),
    "Nesterov, decay": (
        optimizers.SGD(0.1, momentum=0.8, nesterov=True, weight_decay=0.05),
        "SGD",
        {"lr": 0.1, "momentum": 0.8, "nesterov": True, "weight_decay": 0.05},
    ),
    "Adam": (optimizers.Adam(0.01), "Adam", {"lr": 0.01}),
    "Adam, all its numbers": (
        optimizers.Adam(0.02, beta1=0.7, beta2=0.9, eps=1e-4, weight_decay=0.1),
        "Adam",
        {"lr": 0.02, "betas": (0.7, 0.9), "eps": 1e-4, "weight_decay": 0.1},
    ),
    "AdamW": (optimizers.AdamW(0.01), "AdamW", {"lr": 0.01}),
    "AdamW, decay": (optimizers.AdamW(0.01, weight_decay=0.2), "AdamW", {"lr": 0.01, "weight_decay": 0.2}),
    "RMSprop": (optimizers.RMSprop(0.01), "RMSprop", {"lr": 0.01}),
    "RMSprop, momentum": (
        optimizers.RMSprop(0.01, decay=0.9, eps=1e-6, momentum=0.5),
        "RMSprop",
        {"lr": 0.01, "alpha": 0.9, "eps": 1e-6, "momentum": 0.5},
    ),
    "RMSprop, decay": (optimizers.RMSprop(0.01, weight_decay=0.1), "RMSprop", {"lr": 0.01, "weight_decay": 0.1}),
    "Adagrad": (optimizers.Adagrad(0.1), "Adagrad", {"lr": 0.1}),
    "Adagrad, decay": (
        optimizers.Adagrad(0.1, eps=1e-3, weight_decay=0.1),
        "Adagrad",
        {"lr": 0.1, "eps": 1e-3, "weight_decay": 0.1},
    ),
    "clipped": (optimizers.SGD(0.2, clip_norm=0.01), "SGD", {"lr": 0.2}),
    "clipped sometimes": (optimizers.SGD(2.0, clip_norm=0.05), "SGD", {"lr": 2.0}),
    "clipped, momentum, decay": (
        optimizers.SGD(0.1, momentum=0.8, weight_decay=0.05, clip_norm=0.02),
        "SGD",
        {"lr": 0.1, "momentum": 0.8, "weight_decay": 0.05},
    ),
}


def _clips(twin: Twin, rule: Any) -> bool:
    """Clip the gradients of PyTorch; return whether that changed them."""
    if rule.clip_norm is None:
        return False
    return twin.torch.nn.utils.clip_grad_norm_(twin.parameters, rule.clip_norm).item() > rule.clip_norm


@pytest.mark.parametrize("name", RULES)
def test_twenty_steps(torch: Any, name: str) -> None:
    rule, kind, arguments = RULES[name]
    net, X, Y = _problem("tanh", "sigmoid", "mse")
    twin = Twin(torch, net)
    theirs = getattr(torch.optim, kind)(twin.parameters, **arguments)
    losses, clipped = [], []
    for _ in range(20):
        theirs.zero_grad()
        loss = twin.loss(X, Y)
        loss.backward()
        losses.append(loss.item())
        clipped.append(_clips(twin, rule))
        theirs.step()
    history = gb.fit(net, X, Y, optimizer=rule, epochs=20, batch_size=9, shuffle=False, tol=None)
    numpy.testing.assert_allclose(history.loss, losses, rtol=BOUND)
    for given, expected in zip([x for pair in net.parameters for x in pair], twin.parameters, strict=True):
        _assert_near(given, expected.detach().numpy())
    assert losses[0] - losses[-1] > 1e-3
    assert any(clipped) == (rule.clip_norm is not None)
    assert (set(clipped) == {True, False}) == (name == "clipped sometimes")


def test_every_optimizer_is_compared() -> None:
    assert {type(rule) for rule, _, _ in RULES.values()} == set(optimizers.OPTIMIZERS.values())


# -- schedules ---------------------------------------------------------------------------------------------------------

SCHEDULES: dict[str, tuple[Any, Callable[[Any, Any], Any]]] = {
    "step": (schedules.Step(0.4, every=7, factor=0.3), lambda s, o: s.StepLR(o, 7, gamma=0.3)),
    "exponential": (schedules.Exponential(0.4, factor=0.9), lambda s, o: s.ExponentialLR(o, 0.9)),
    "cosine": (schedules.Cosine(0.4, steps=30, least=0.05), lambda s, o: s.CosineAnnealingLR(o, 30, eta_min=0.05)),
    "warm-up": (
        schedules.WarmUp(0.4, steps=8),
        lambda s, o: s.LinearLR(o, start_factor=1 / 8, end_factor=1.0, total_iters=7),
    ),
    "inverse scaling": (
        schedules.InverseScaling(0.4, power=0.3),
        lambda s, o: s.LambdaLR(o, lambda t: (t + 1) ** -0.3),
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_thirty_rates(torch: Any, name: str) -> None:
    schedule, make = SCHEDULES[name]
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.4)
    theirs = make(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(31):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        theirs.step()
    numpy.testing.assert_allclose([schedule(t) for t in range(31)], rates, rtol=1e-12)


def test_momentum_under_a_schedule_keeps_the_rates_of_past_steps() -> None:
    """Sutskever's form, v ← μ v − η_t g: unlike PyTorch's, a new rate does not scale past gradients.

    On L = b²/2 · 2, with ∂L/∂b = b, from b = 1 with μ = 1/2 and η = 1/2, then 1/4: v = −1/2, b = 1/2;
    v = −1/4 − 1/8 = −3/8, b = 1/8.
    """
    net = gb.Network([1, 1], loss="squared_error", dtype="float64", backend="numpy")
    (W, b) = net.parameters[0]
    W[...], b[...] = 0.0, 1.0
    rule = optimizers.SGD(lambda t: 0.5 / 2**t, momentum=0.5)
    gb.fit(net, [[0.0]], [0.0], optimizer=rule, epochs=2, tol=None)
    assert b[0] == 0.125
