"""An activation, a loss and two optimizers of a user's own, as the documentation tells users to write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gpubackprop.activations import Activation
from gpubackprop.losses import Loss
from gpubackprop.optimizers import Optimizer

# a = z / (1 + e z²)^(1/2), σ' = (1 + e z²)^(−3/2)
squash = Activation(
    "squash",
    lambda m, z, e: z / m.sqrt(1.0 + e * z * z),
    lambda m, z, a, e: 1.0 / ((1.0 + e * z * z) * m.sqrt(1.0 + e * z * z)),
    parameters={"e": 1.0},
    limits={"e": (0.0, 100.0)},
)
# L = s² (√(1 + ((a − y) / s)²) − 1)
pseudo_huber = Loss(
    "pseudo_huber",
    lambda m, y, a, s: s * s * (m.sqrt(1.0 + (a - y) / s * ((a - y) / s)) - 1.0),
    lambda m, y, a, s: (a - y) / m.sqrt(1.0 + (a - y) / s * ((a - y) / s)),
    parameters={"s": 0.5},
    limits={"s": (1e-6, 1e6)},
)


@dataclass(frozen=True)
class TwoAgo(Optimizer):
    """Gradient descent on the mean of the last three gradients; its slots move up by one at each step."""

    learning_rate: float = 0.1

    @property
    def slots(self) -> tuple[str, ...]:
        return ("previous", "before")

    def step(self, m: Any, h: Any, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        previous, before = slots
        return w - h.rate * ((g + previous + before) / 3.0), g, previous


@dataclass(frozen=True)
class Swapping(Optimizer):
    """A step along one slot, which then changes places with the other."""

    learning_rate: float = 0.1

    @property
    def slots(self) -> tuple[str, ...]:
        return ("p", "q")

    def step(self, m: Any, h: Any, w: Any, g: Any, *slots: Any) -> tuple[Any, ...]:
        p, q = slots
        return w - h.rate * p, q + g, p
