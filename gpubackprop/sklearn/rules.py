"""What scikit-learn calls by other names than this package, and the formulas in which the two differ."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy
from sklearn.utils import check_array

from ..activations import ACTIVATIONS as OWN_ACTIVATIONS
from ..activations import Activation
from ..checks import bounded
from ..losses import LOSSES as OWN_LOSSES
from ..losses import Loss, binary_cross_entropy, cross_entropy, poisson
from ..optimizers import SGD, Adam, Optimizer
from ..training import _optimizer as as_optimizer

exp = Activation("exp", lambda m, z: m.exp(z), lambda m, z, a: a)  # the inverse of Poisson's canonical link
ACTIVATIONS: dict[str, Any] = {"logistic": "sigmoid", "exp": exp}
"""Activations by scikit-learn's names, where they differ."""


def _half_deviance(m: Any, y: Any, a: Any) -> Any:
    return _y_log_y(m, y) - y * m.log(m.maximum(a, 1e-30)) - y + a


def _y_log_y(m: Any, y: Any) -> Any:
    return y * m.log(m.maximum(y, 1e-30))


def _clipped(m: Any, log_p: Any, eps: float) -> Any:
    """log p of a probability that is clipped to [eps, 1 − eps]: what a line search sees of a step that is too long."""
    return m.minimum(m.maximum(log_p, math.log(eps)), math.log1p(-eps))


def _binary_log_loss(m: Any, y: Any, z: Any, eps: float) -> Any:
    softplus = m.log1p(m.exp(-m.abs(z)))
    log_p, log_q = -(m.maximum(-z, 0.0) + softplus), -(m.maximum(z, 0.0) + softplus)
    return -(y * _clipped(m, log_p, eps) + (1.0 - y) * _clipped(m, log_q, eps))


_EPS: dict[str, Any] = {"parameters": {"eps": 2.0**-52}}

LOSSES = {
    "log_loss": dataclasses.replace(
        cross_entropy,
        **_EPS,
        name="log_loss",
        loss=lambda m, y, a, eps: -(y * _clipped(m, m.log(a), eps)),
        loss_prime=lambda m, y, a, eps: cross_entropy.loss_prime(m, y, a),
        canonical_loss=lambda m, y, log_a, eps: -(y * _clipped(m, log_a, eps)),
    ),
    "binary_log_loss": dataclasses.replace(
        binary_cross_entropy,
        **_EPS,
        name="binary_log_loss",
        over_outputs="sum",
        loss=lambda m, y, a, eps: -(y * _clipped(m, m.log(a), eps) + (1.0 - y) * _clipped(m, m.log(1.0 - a), eps)),
        loss_prime=lambda m, y, a, eps: binary_cross_entropy.loss_prime(m, y, a),
        canonical_loss=_binary_log_loss,
    ),
    # It reports the mean over the outputs, and descends along the derivative of the sum.
    "squared_error": Loss(
        "squared_error",
        lambda m, y, a, share: 0.5 * share * ((y - a) * (y - a)),
        lambda m, y, a, share: a - y,
        over_outputs="sum",
        parameters={"share": 1.0},
    ),
    "poisson": Loss(
        "half_poisson_deviance",
        _half_deviance,
        poisson.loss_prime,
        over_outputs="sum",
        targets="nonnegative",
        canonical=exp,
        canonical_loss=lambda m, y, z: _y_log_y(m, y) - y * z - y + m.exp(z),
    ),
}
"""Losses by scikit-learn's names, where they differ from those of this package."""


def loss_of(loss: str | Loss, output_activation: str | Activation, outputs: int, dtype: str) -> str | Loss:
    """Return the loss that an estimator's parameters mean.

    Args:
        loss: scikit-learn's name or one of this package, or a row.
        output_activation: scikit-learn's name of it, or one of this package, or a row.
        outputs: number of outputs.
        dtype: of the network.

    Returns:
        The loss: a row, or one's name.
    """
    if isinstance(loss, Loss):
        return loss
    name = "binary_log_loss" if loss == "log_loss" and not _row_of(output_activation).rowwise else loss
    if name not in LOSSES:
        return loss
    return _row(name, 1.0 / outputs, float(numpy.finfo(dtype).eps))


@cache  # a formula is traced when its row is made, which takes as long as an epoch on a few hundred examples
def _row(name: str, share: float, eps: float) -> Loss:
    known = {"share": share, "eps": eps}
    return LOSSES[name](**{parameter: known[parameter] for parameter in LOSSES[name].parameters})


def activation_of(activation: Any) -> Any:
    """Return an activation, or a list of such, as this package takes it, from what scikit-learn may call it."""
    if isinstance(activation, (list, tuple)):
        return [activation_of(each) for each in activation]
    return ACTIVATIONS.get(activation, activation) if isinstance(activation, str) else activation


def _row_of(activation: str | Activation) -> Activation:
    """Return the row of an activation's name."""
    known = activation_of(activation)
    return known if isinstance(known, Activation) else OWN_ACTIVATIONS[known]


def check_output(activation: str | Activation, loss: str | Loss, outputs: int) -> None:
    """Refuse an output activation whose values a loss cannot take.

    Args:
        activation: its name, scikit-learn's or this package's, or a row.
        loss: the loss, a row or a name of this package.
        outputs: number of outputs.

    Raises:
        InvalidValue: the two cannot go together; the message says what can.
    """
    row = loss if isinstance(loss, Loss) else OWN_LOSSES[loss]
    row.check_output(_row_of(activation), outputs)


def initial(name: str, given: Any, drawn: list[numpy.ndarray]) -> list[numpy.ndarray]:
    """Return what was given in place of the parameters that were drawn, checked, in their type."""
    shapes = [x.shape for x in drawn]
    checked = [
        check_array(x, dtype=drawn[0].dtype, ensure_2d=False, allow_nd=True, input_name=f"{name}[{l}]")
        for l, x in enumerate(given)
    ]
    if [x.shape for x in checked] != shapes:
        got = ", ".join(str(x.shape) for x in checked)
        raise ValueError(
            f"{name} must hold {len(shapes)} arrays of the shapes {', '.join(map(str, shapes))}, got {len(checked)} of "
            f"the shapes {got or 'none'}"
        )
    return checked


@dataclass(frozen=True)
class Momentum(SGD):
    """Gradient descent that may keep all of its velocity, μ = 1.

    Attributes:
        momentum: μ in [0, 1].
    """

    momentum: float = bounded(0.0, low=0, high=1, kw_only=True)


@dataclass(frozen=True)
class EfficientAdam(Adam):
    """Adam in the order of Kingma, Ba 2015, end of section 2, where ε is added to the root as it is, biased."""

    def scalars(self, t: int, learning_rate: float) -> dict[str, float]:
        """Return the rate, and the rate with both biases taken out."""
        step = learning_rate * math.sqrt(1 - self.beta2 ** (t + 1)) / (1 - self.beta1 ** (t + 1))
        return {"rate": learning_rate, "step": step}

    def step(self, m: Any, h: Any, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        """Return the new w, mean and square."""
        mean = self.beta1 * slots[0] + (1 - self.beta1) * g
        square = self.beta2 * slots[1] + (1 - self.beta2) * (g * g)
        return w - h.step * mean / (m.sqrt(square) + self.eps), mean, square


def optimizer_of(estimator: Any) -> Optimizer:
    """Return the optimizer of an estimator's parameters; its rate is what scikit-learn's own object says.

    Args:
        estimator: with the attribute `_optimizer`, of the solver with which training began.

    Returns:
        The optimizer.
    """
    if estimator.optimizer is not None:
        return as_optimizer(estimator.optimizer)
    rates = estimator._optimizer
    if hasattr(rates, "momentum"):
        return Momentum(lambda t: rates.learning_rate, momentum=rates.momentum, nesterov=rates.nesterov)
    return _adam(rates.learning_rate_init, rates.beta_1, rates.beta_2, rates.epsilon)


@lru_cache(maxsize=64)
def _adam(learning_rate: float, beta1: float, beta2: float, eps: float) -> EfficientAdam:
    return EfficientAdam(learning_rate, beta1=beta1, beta2=beta2, eps=eps)
