"""Losses L(y, a) and their derivatives ∂L/∂a. To add one, add a row.

A row states the loss of one output of one example. The loss of a batch is the mean over its examples, weighted where
they have weights, of the sum or of the mean over the outputs; the division is made once, in δ_L. So the derivative
of the mean squared error over n examples is −2(y − ŷ)/n; texts that write −2(y − ŷ) have dropped the 1/n.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from .activations import Activation, identity, sigmoid, softmax, softplus
from .checks import choice
from .errors import InvalidValue
from .formula import Formula, Row, Trace

OverOutputs = Literal["mean", "sum"]
Targets = Literal["any", "nonnegative", "fraction", "distribution"]


@dataclass(frozen=True)
class Loss(Row):
    """One loss.

    Attributes:
        loss: ``loss(m, y, a)`` returns the loss of one output a with the target y.
        loss_prime: ``loss_prime(m, y, a)`` returns its derivative by a.
        over_outputs: "mean" or "sum" over the outputs of one example.
        targets: which targets are accepted: "any", "nonnegative", "fraction" (each in [0, 1]) or "distribution"
            (each row non-negative, with the sum 1). Outputs must be of the same kind.
        analytic: False where the loss has a kink; see `Activation.analytic`.
        canonical: the output activation with which δ_L is simply a − y, or None.
        canonical_loss: ``canonical_loss(m, y, s)`` returns the loss, safe from overflow, from s: the z of an
            elementwise canonical activation, or log softmax(z).

    Raises:
        InvalidValue: a formula that cannot be traced, a parameter outside its limits, or another word than those above.
        InvalidType: a parameter that is no number, or something other than a word.
    """

    loss: Formula
    loss_prime: Formula
    over_outputs: OverOutputs = "mean"
    targets: Targets = "any"
    analytic: bool = True
    canonical: Activation | None = None
    canonical_loss: Formula | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, accepted in (("over_outputs", get_args(OverOutputs)), ("targets", get_args(Targets))):
            object.__setattr__(self, name, choice(f"loss {self.name!r}: {name}", getattr(self, name), accepted))
        _ = self.value, self.slope, self.canonical_value

    @cached_property
    def value(self) -> Trace:
        """Trace of the loss; inputs ``y`` and ``a``."""
        return self.trace(self.loss, "y", "a")

    @cached_property
    def slope(self) -> Trace:
        """Trace of ∂L/∂a; inputs ``y`` and ``a``."""
        return self.trace(self.loss_prime, "y", "a")

    @cached_property
    def canonical_value(self) -> Trace | None:
        """Trace of the loss for the canonical activation; inputs ``y`` and ``s``."""
        return self.trace(self.canonical_loss, "y", "s") if self.canonical_loss else None

    @property
    def output(self) -> Activation:
        """The output activation of a network that names none."""
        return self.canonical or _OUTPUTS[self.targets]

    def check_output(self, activation: Activation, outputs: int) -> None:
        """Refuse an output activation whose values the loss cannot take.

        Args:
            activation: of the last layer. A row states no range, so its values are computed.
            outputs: number of outputs n_L.

        Raises:
            InvalidValue: the two cannot go together; the message says what can.
        """
        cannot = f"output_activation {activation.name!r} cannot go with the loss {self.name!r}"
        if activation.rowwise and outputs == 1:
            remedy = "two outputs, or one with 'sigmoid' and the loss 'binary_cross_entropy'"
            if self.targets == "fraction":
                remedy = f"None and {self.output.name!r}"
            raise InvalidValue(f"{cannot} on 1 output: it would always return 1; accepted are {remedy}")
        if self.targets == "distribution" and not activation.rowwise:
            raise InvalidValue(f"{cannot}, which takes rows that sum to 1: accepted are None and {self.output.name!r}")
        if self.targets == "fraction" and activation.rowwise:
            reason = f"on {outputs} outputs that are each their own: it returns rows of sum 1"
            raise InvalidValue(f"{cannot} {reason}; accepted are None and {self.output.name!r}")
        (low, high), (least, most) = activation.range, _RANGES[self.targets]
        if not least <= low <= high <= most:
            raise InvalidValue(
                f"{cannot}, which takes outputs from {least:g} to {most:g}: it returns such from {low:g} to {high:g}; "
                f"accepted are None and {self.output.name!r}"
            )

    def fits(self, activation: Activation) -> bool:
        """Return whether an output activation is the canonical one, with which δ_L is a − y."""
        return self.canonical_loss is not None and self.canonical == activation


_RANGES = {
    "any": (-math.inf, math.inf),
    "nonnegative": (0.0, math.inf),
    "fraction": (0.0, 1.0),
    "distribution": (0.0, 1.0),
}
_OUTPUTS = {"any": identity, "nonnegative": softplus, "fraction": sigmoid, "distribution": softmax}

_TINY = 1e-30  # the least argument of a logarithm: y / _TINY still fits float32


def _log(m: Any, a: Any) -> Any:
    """log a, and constant below the least argument."""
    return m.log(m.maximum(a, _TINY))


def _over(m: Any, y: Any, a: Any) -> Any:
    """y / a, the derivative of y log a, and 0 where that is constant."""
    return m.where(a > _TINY, y / m.maximum(a, _TINY), 0.0)


def _huber(m: Any, y: Any, a: Any, delta: float) -> Any:
    d = m.abs(a - y)
    return m.where(d <= delta, 0.5 * d * d, delta * (d - 0.5 * delta))


mse = Loss("mse", lambda m, y, a: (y - a) * (y - a), lambda m, y, a: -2.0 * (y - a))
squared_error = Loss("squared_error", lambda m, y, a: 0.5 * (y - a) * (y - a), lambda m, y, a: a - y)  # half of mse
mae = Loss(
    "mae", lambda m, y, a: m.abs(a - y), lambda m, y, a: m.where(a > y, 1.0, m.where(a < y, -1.0, 0.0)), analytic=False
)
huber = Loss(  # Huber 1964; delta is where the parabola becomes a line, in the targets' units
    "huber",
    _huber,
    lambda m, y, a, delta: m.maximum(m.minimum(a - y, delta), -delta),
    analytic=False,
    parameters={"delta": 1.0},
    limits={"delta": (1e-12, math.inf)},
)
quantile = Loss(  # Koenker, Bassett 1978: the pinball loss, whose minimum is the q-quantile
    "quantile",
    lambda m, y, a, q: m.maximum(q * (y - a), (q - 1.0) * (y - a)),
    lambda m, y, a, q: m.where(y > a, -q, m.where(y < a, 1.0 - q, 0.0)),
    analytic=False,
    parameters={"q": 0.5},
    limits={"q": (0.0, 1.0)},
)
poisson = Loss(  # negative log-likelihood of the count y at the rate a, less log y!
    "poisson", lambda m, y, a: a - y * _log(m, a), lambda m, y, a: 1.0 - _over(m, y, a), targets="nonnegative"
)
binary_cross_entropy = Loss(
    "binary_cross_entropy",
    lambda m, y, a: -(y * _log(m, a) + (1.0 - y) * _log(m, 1.0 - a)),
    lambda m, y, a: _over(m, 1.0 - y, 1.0 - a) - _over(m, y, a),
    targets="fraction",
    canonical=sigmoid,
    canonical_loss=lambda m, y, z: m.maximum(z, 0.0) - y * z + m.log1p(m.exp(-m.abs(z))),
)
cross_entropy = Loss(
    "cross_entropy",
    lambda m, y, a: -(y * _log(m, a)),
    lambda m, y, a: -_over(m, y, a),
    over_outputs="sum",
    targets="distribution",
    canonical=softmax,
    canonical_loss=lambda m, y, log_a: -(y * log_a),
)

LOSSES = {
    row.name: row for row in (mse, squared_error, mae, huber, quantile, poisson, binary_cross_entropy, cross_entropy)
}

__all__ = ["LOSSES", "Loss", *LOSSES]


def __dir__() -> list[str]:
    return __all__
