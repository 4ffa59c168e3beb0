"""Initial weights, by the number of inputs (fan_in) and outputs (fan_out) of a layer. To add one, add a row.

Weights are drawn on the host in float64, layer by layer, so that one seed gives one network on every backend.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy


@dataclass(frozen=True)
class Initializer:
    """One distribution of initial weights; biases begin at zero.

    Attributes:
        name: what users call it.
        variance: ``variance(fan_in, fan_out)`` returns the variance of a weight.
        distribution: "uniform" on (−√3 s, √3 s) or "normal", with the standard deviation s.
    """

    name: str
    variance: Callable[[int, int], float]
    distribution: Literal["normal", "uniform"]

    def draw(self, rng: numpy.random.Generator, fan_in: int, fan_out: int) -> numpy.ndarray:
        """Return a weight matrix (fan_in, fan_out) in float64, drawn from rng."""
        s = math.sqrt(self.variance(fan_in, fan_out))
        if self.distribution == "normal":
            return rng.normal(0.0, s, (fan_in, fan_out))
        return rng.uniform(-math.sqrt(3) * s, math.sqrt(3) * s, (fan_in, fan_out))


def _glorot(fan_in: int, fan_out: int) -> float:
    return 2 / (fan_in + fan_out)  # Glorot, Bengio 2010, eq. 12


def _he(fan_in: int, fan_out: int) -> float:
    return 2 / fan_in  # He et al. 2015, eq. 10


def _lecun(fan_in: int, fan_out: int) -> float:
    return 1 / fan_in  # LeCun et al. 1998, section 4.6


INITIALIZERS = {
    f"{name}_{distribution}": Initializer(f"{name}_{distribution}", variance, distribution)
    for name, variance in (("glorot", _glorot), ("he", _he), ("lecun", _lecun))
    for distribution in ("normal", "uniform")
}

__all__ = ["INITIALIZERS", "Initializer"]


def __dir__() -> list[str]:
    return __all__
