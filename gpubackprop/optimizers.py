"""Optimizers: θ ← step(θ, ∂L/∂θ), equations 7 and 8 over the whole flat θ. To add one, add a class to the table.

An optimizer is its hyperparameters, the names of the arrays it keeps beside θ (`slots`), and one formula, `step`, in
the vocabulary of `gpubackprop.formula`. Hyperparameters are constants of the formula; what changes from step to step
reaches it through ``h``, as computed by `scalars`. Names and conventions follow PyTorch's, and so do the updates
at a constant learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, ClassVar

from .checks import Checked, bounded
from .errors import InvalidValue
from .formula import Trace, trace
from .schedules import Schedule, as_schedule, rate


@dataclass(frozen=True)
class Optimizer(Checked):
    """What all optimizers have.

    Attributes:
        learning_rate: η, a positive number or a schedule: how far θ moves per unit of the gradient, or of what the
            optimizer makes of it.
        weight_decay: λ ≥ 0; λθ is added to the gradient (AdamW: η λ θ is taken from θ instead). Of weights and biases.
        clip_norm: the gradient of all of θ is scaled down to this Euclidean norm, a positive number in its units, where
            it is longer; None: never (Pascanu, Mikolov, Bengio 2013, algorithm 1).

    Raises:
        InvalidValue: a hyperparameter outside its range.
        InvalidType: a hyperparameter that is no number, or a learning rate that is neither a number nor a schedule.
    """

    learning_rate: Schedule | float
    weight_decay: float = bounded(0.0, low=0, kw_only=True)
    clip_norm: float | None = bounded(None, low=0, open_low=True, kw_only=True)

    decoupled_decay: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        as_schedule(self.learning_rate)

    @property
    def slots(self) -> tuple[str, ...]:
        """Names of the arrays of the size of θ that are kept from step to step; they begin as zeros."""
        return ()

    def step(self, m: Any, h: Any, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        """Return the new w and slots, as a formula of the old ones and of the gradient.

        Args:
            m: the vocabulary of `gpubackprop.formula`.
            h: what `scalars` returns, as attributes: ``h.rate`` is the learning rate of this step.
            w: a parameter, any element of θ.
            g: ∂L/∂w, clipped, with the weight decay where that is part of it.
            slots: what is kept beside w, in the order of `slots`.

        Returns:
            A tuple of the new w and the new slots, in that order.

        Raises:
            TypeError: the class does not define it.
        """  # noqa: DOC202 - what those return that define it
        raise TypeError(f"{type(self).__name__} has no formula: define step(self, m, h, w, g, *slots)")

    def scalars(self, t: int, learning_rate: float) -> dict[str, float]:
        """Return what ``h`` holds at a step.

        Args:
            t: the number of steps taken so far: 0, 1, ...
            learning_rate: η of this step, from the schedule.

        Returns:
            Numbers by name; "w", "g", "clip" and the names of slots are taken.
        """
        return {"rate": learning_rate}

    def hyper(self, t: int, factor: float = 1.0) -> dict[str, float]:
        """Return ``h`` for step t = 0, 1, ..., with the learning rate of the schedule.

        Args:
            t: the number of steps taken so far.
            factor: what that rate is multiplied by.

        Returns:
            Numbers by name.
        """
        return self.scalars(t, factor * self.rate(t))

    def rate(self, t: int) -> float:
        """Return the learning rate of step t = 0, 1, ...: the number given, or what the schedule says.

        Args:
            t: the number of steps taken so far.

        Returns:
            η, a finite number of at least 0.
        """
        return rate(self._schedule, t)

    @cached_property
    def _schedule(self) -> Schedule:
        return as_schedule(self.learning_rate)

    @cached_property
    def scalar_names(self) -> tuple[str, ...]:
        """Names of what `hyper` returns, in order."""
        return tuple(self.scalars(0, 1.0))

    @cached_property
    def clip_factor(self) -> Trace:
        """Trace of what clipping scales the gradient by, from the input ``squares``, Σ g²; PyTorch's, stable at 0."""

        def factor(m: Any, squares: Any) -> Any:
            return 1.0 if self.clip_norm is None else m.minimum(self.clip_norm / (m.sqrt(squares) + 1e-6), 1.0)

        return trace(factor, ("squares",), outputs=1, owner=f"optimizer {type(self).__name__}")

    @cached_property
    def update(self) -> Trace:
        """Trace of the whole update: clipping by the factor ``clip``, decay, step. Inputs are its `arguments`.

        Raises:
            InvalidValue: names that collide, or a `step` that cannot be traced or does not return w and every slot.
        """
        kept, used = len(self.slots), self.arguments
        if len(set(used)) < len(used) or not all(str(name).isidentifier() for name in used):
            raise InvalidValue(
                f"optimizer {type(self).__name__}: slots and scalars must have names of their own, each a Python name "
                f"other than 'w', 'g' and 'clip', got the slots {self.slots} and the scalars {self.scalar_names}"
            )

        def whole(m: Any, w: Any, g: Any, *rest: Any) -> Any:
            h = SimpleNamespace(**dict(zip(self.scalar_names, rest[kept:], strict=False)))
            if self.clip_norm is not None:
                g = rest[-1] * g
            if self.weight_decay and self.decoupled_decay:
                w = w - h.rate * (self.weight_decay * w)
            elif self.weight_decay:
                g = g + self.weight_decay * w
            return self.step(m, h, w, g, *rest[:kept])

        returned = ", ".join(("w", *self.slots))
        owner = f"optimizer {type(self).__name__}, whose step returns the new {returned}"
        return trace(whole, used, outputs=1 + kept, owner=owner)

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the inputs of `update`: ``w``, ``g``, the slots, what `hyper` returns, ``clip``."""
        return ("w", "g", *self.slots, *self.scalar_names, "clip")


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent: w ← w − η g, and with momentum v ← μ v − η g, w ← w + v.

    The velocity is that of Polyak 1964 and of Sutskever, Martens, Dahl, Hinton 2013, equations 1 and 2; Nesterov's
    variant looks ahead, w ← w + μ v − η g (their equations 3 and 4, written for the point looked at).

    Attributes:
        learning_rate: η, a positive number or a schedule. The default is low enough for layers of 512 units on
            standardised data; narrower networks learn faster at up to 0.1.
        momentum: μ in [0, 1), the share of the velocity that is left after a step; 0 keeps no velocity.
        nesterov: whether to look ahead; without momentum it changes nothing.
    """

    learning_rate: Schedule | float = 0.005
    momentum: float = bounded(0.0, low=0, high=1, open_high=True, kw_only=True)
    nesterov: bool = False

    @property
    def slots(self) -> tuple[str, ...]:
        """The velocity, where there is momentum."""
        return ("v",) if self.momentum else ()

    def step(self, m: Any, h: Any, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        """Return the new w and v."""
        if not slots:
            return (w - h.rate * g,)
        v = self.momentum * slots[0] - h.rate * g
        return (w + self.momentum * v - h.rate * g if self.nesterov else w + v), v


@dataclass(frozen=True)
class Adam(Optimizer):
    """The running mean of the gradient over the root of that of its square (Kingma, Ba 2015, algorithm 1).

    Attributes:
        learning_rate: η, a positive number or a schedule: about the most a parameter moves in a step, in its own units.
        beta1: β₁ in [0, 1), the share of the mean of the gradient that is left after a step.
        beta2: β₂ in [0, 1), the same of the mean of its square.
        eps: ε > 0, added to the root, in the units of the gradient.
    """

    learning_rate: Schedule | float = 1e-3
    beta1: float = bounded(0.9, low=0, high=1, open_high=True, kw_only=True)
    beta2: float = bounded(0.999, low=0, high=1, open_high=True, kw_only=True)
    eps: float = bounded(1e-8, low=0, open_low=True, kw_only=True)

    @property
    def slots(self) -> tuple[str, ...]:
        """Running means of the gradient and of its square."""
        return ("mean", "square")

    def scalars(self, t: int, learning_rate: float) -> dict[str, float]:
        """Return the rate, the rate over the bias of the mean, and the root of the bias of the square, inverted."""
        step = learning_rate / (1 - self.beta1 ** (t + 1))
        return {"rate": learning_rate, "step": step, "root": 1 / math.sqrt(1 - self.beta2 ** (t + 1))}

    def step(self, m: Any, h: Any, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        """Return the new w, mean and square."""
        mean = self.beta1 * slots[0] + (1 - self.beta1) * g
        square = self.beta2 * slots[1] + (1 - self.beta2) * (g * g)
        return w - h.step * mean / (h.root * m.sqrt(square) + self.eps), mean, square


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay, w ← w − η λ w − (Adam's step) (Loshchilov, Hutter 2019, algorithm 2).

    Attributes:
        weight_decay: λ ≥ 0, the share of w that is taken from it per unit of the learning rate. PyTorch's λ: that of
            the paper is η λ here, so that it follows the schedule.
    """

    weight_decay: float = bounded(0.01, low=0, kw_only=True)

    decoupled_decay: ClassVar[bool] = True


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """The gradient over the root of the running mean of its square, with optional momentum.

    Tieleman, Hinton 2012, lecture 6e, slide 29: s ← ρ s + (1 − ρ) g², w ← w − η g / (√s + ε); with momentum
    v ← μ v + g / (√s + ε), w ← w − η v.

    Attributes:
        learning_rate: η, a positive number or a schedule, in the units of the parameters.
        decay: ρ in [0, 1), the share of the mean that is left after a step.
        eps: ε > 0, added to the root, in the units of the gradient.
        momentum: μ in [0, 1), the share of the velocity that is left after a step; 0 keeps no velocity.
    """

    learning_rate: Schedule | float = 1e-3
    decay: float = bounded(0.99, low=0, high=1, open_high=True, kw_only=True)
    eps: float = bounded(1e-8, low=0, open_low=True, kw_only=True)
    momentum: float = bounded(0.0, low=0, high=1, open_high=True, kw_only=True)

    @property
    def slots(self) -> tuple[str, ...]:
        """The running mean of the squared gradient, and the velocity where there is momentum."""
        return ("square", "v") if self.momentum else ("square",)

    def step(self, m: Any, h: Any, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        """Return the new w, square and v."""
        square = self.decay * slots[0] + (1 - self.decay) * (g * g)
        step = g / (m.sqrt(square) + self.eps)
        if not self.momentum:
            return w - h.rate * step, square
        v = self.momentum * slots[1] + step
        return w - h.rate * v, square, v


@dataclass(frozen=True)
class Adagrad(Optimizer):
    """The gradient over the root of the sum of its squares, w ← w − η g / (√Σg² + ε).

    Duchi, Hazan, Singer 2011, figure 1, with diagonal matrices.

    Attributes:
        learning_rate: η, a positive number or a schedule, in the units of the parameters.
        eps: ε > 0, added to the root, in the units of the gradient.
    """

    learning_rate: Schedule | float = 1e-2
    eps: float = bounded(1e-10, low=0, open_low=True, kw_only=True)

    @property
    def slots(self) -> tuple[str, ...]:
        """The sum of the squared gradients."""
        return ("total",)

    def step(self, m: Any, h: Any, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        """Return the new w and total."""
        total = slots[0] + g * g
        return w - h.rate * g / (m.sqrt(total) + self.eps), total


OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "adam": Adam,
    "adamw": AdamW,
    "rmsprop": RMSprop,
    "adagrad": Adagrad,
}

__all__ = ["OPTIMIZERS", "Optimizer", *(made.__name__ for made in OPTIMIZERS.values())]


def __dir__() -> list[str]:
    return __all__
