"""Activation functions a = σ(z) and their derivatives σ'(z). To add one, add a row.

A row states σ and σ' once, in the vocabulary of `gpubackprop.formula`, and both backends take it from there. σ' may
use z and the stored a = σ(z); where it uses a alone, z need not be kept. At a kink the slope is that of the left, and
that of hard_sigmoid is 0 at both its ends, as in PyTorch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import numpy

from .errors import InvalidValue
from .formula import FUNCTIONS, Formula, Row, Trace


@dataclass(frozen=True)
class Activation(Row):
    """One activation function.

    Attributes:
        sigma: ``sigma(m, z)`` returns a = σ(z). None for softmax alone, which needs the whole row of z.
        sigma_prime: ``sigma_prime(m, z, a)`` returns σ'(z).
        analytic: False where σ has a kink; `check_gradients` then takes central differences unless told otherwise.
        initializer: name of the initializer that ``initializer="auto"`` takes for a layer that feeds this function.
        epilogue: what libraries of matrix products call the same function where they offer it at the end of a product:
            "identity", "relu", or "gelu", which is its approximation by tanh there; None: they have none.

    Raises:
        InvalidValue: a formula that cannot be traced or is missing, or a parameter outside its limits.
        InvalidType: a parameter that is no number.
    """

    sigma: Formula | None
    sigma_prime: Formula | None
    analytic: bool = True
    initializer: str = "glorot_uniform"
    epilogue: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        missing = (self.sigma is None) + (self.sigma_prime is None)
        if missing and (missing, self.name) != (2, "softmax"):
            raise InvalidValue(
                f"activation {self.name!r} must have two formulas, sigma(m, z) and sigma_prime(m, z, a), got "
                f"{self.sigma!r} and {self.sigma_prime!r}; only softmax has none"
            )
        if not self.rowwise:
            _ = self.forward, self.backward  # a formula that cannot be traced is refused when the row is made

    @property
    def rowwise(self) -> bool:
        """True for softmax, where an output depends on every z of its row."""
        return self.sigma is None

    @cached_property
    def forward(self) -> Trace:
        """Trace of a = σ(z); input ``z``."""
        assert self.sigma is not None
        return self.trace(self.sigma, "z")

    @cached_property
    def backward(self) -> Trace:
        """Trace of g σ'(z); inputs ``g``, ``z`` and ``a``."""
        return self.trace(lambda m, g, z, a, **parameters: g * self.slope(m, z, a, **parameters), "g", "z", "a")

    def slope(self, m: Any, z: Any, a: Any, **parameters: float) -> Any:
        """Return σ'(z), as the row's formula has it.

        Args:
            m: the vocabulary of `gpubackprop.formula`.
            z: the weighted input.
            a: σ(z).
            parameters: those of the row, by name.

        Returns:
            σ'(z), a value like z or a number.
        """
        assert self.sigma_prime is not None
        return self.sigma_prime(m, z, a, **parameters)

    @cached_property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest σ(z) of z from −40 to 40; those of softmax are 0 and 1."""
        if self.sigma is None:
            return 0.0, 1.0
        with numpy.errstate(all="ignore"):
            a = self.sigma(_ON_NUMPY, _Z, **self.parameters) + 0.0 * _Z
        return float(numpy.nanmin(a)), float(numpy.nanmax(a))

    @property
    def needs_z(self) -> bool:
        """True where σ' uses z, so that a may not be written over it."""
        return not self.rowwise and "z" in self.backward.inputs


_Z = numpy.linspace(-40.0, 40.0, 161)  # 1 − sigmoid(40) is 4e-18, less than half an ulp of 1: its end is reached
_ON_NUMPY = SimpleNamespace(
    **{name: getattr(numpy, name) for name in FUNCTIONS if name != "erf"}, erf=numpy.vectorize(math.erf)
)


def _logistic(m: Any, z: Any) -> Any:
    """1 / (1 + exp(-z)), without overflow, through the tanh that NumPy has vectorised."""
    return 0.5 * m.tanh(0.5 * z) + 0.5


def _softplus(m: Any, z: Any) -> Any:
    """log(1 + exp(z)), without overflow and exact for very negative z."""
    return m.maximum(z, 0.0) + m.log1p(m.exp(-m.abs(z)))


def _gelu_prime(m: Any, z: Any, a: Any) -> Any:
    return 0.5 * (1.0 + m.erf(z / _SQRT_2)) + z * m.exp(-0.5 * z * z) / _SQRT_2_PI


def _gelu_tanh_inner(m: Any, z: Any) -> Any:
    return m.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z * z * z))


def _gelu_tanh_prime(m: Any, z: Any, a: Any) -> Any:
    t = _gelu_tanh_inner(m, z)
    # Beyond |z| = 10 the tanh is ±1, in float64 too: its argument is 43. So 1 − t² is 0, and may not meet infinity.
    u = m.minimum(m.abs(z), 10.0)
    inner = math.sqrt(2 / math.pi) * (1.0 + 3 * 0.044715 * u * u)
    return 0.5 * (1.0 + t) + 0.5 * z * (1.0 - t * t) * inner


def _silu_prime(m: Any, z: Any, a: Any) -> Any:
    s = _logistic(m, z)
    return s * (1.0 + z * (1.0 - s))


def _mish_prime(m: Any, z: Any, a: Any) -> Any:
    t = m.tanh(_softplus(m, z))
    return t + z * (1.0 - t * t) * _logistic(m, z)


_SQRT_2 = math.sqrt(2)
_SQRT_2_PI = math.sqrt(2 * math.pi)
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934, 1.6732632423543772848  # Klambauer et al. 2017, section 2

identity = Activation("identity", lambda m, z: z, lambda m, z, a: 1.0, epilogue="identity")
sigmoid = Activation("sigmoid", _logistic, lambda m, z, a: a * (1.0 - a))
tanh = Activation("tanh", lambda m, z: m.tanh(z), lambda m, z, a: 1.0 - a * a)
relu = Activation(
    "relu",
    lambda m, z: m.maximum(z, 0.0),
    lambda m, z, a: m.where(a > 0.0, 1.0, 0.0),
    analytic=False,
    initializer="he_uniform",
    epilogue="relu",
)
leaky_relu = Activation(
    "leaky_relu",
    lambda m, z, slope: m.where(z > 0.0, z, slope * z),
    lambda m, z, a, slope: m.where(a > 0.0, 1.0, slope),
    analytic=False,
    initializer="he_uniform",
    parameters={"slope": 0.01},
    limits={"slope": (0.0, math.inf)},  # a and z have one sign, so that the derivative can do without z
)
elu = Activation(  # Clevert, Unterthiner, Hochreiter 2016, eq. 15
    "elu",
    lambda m, z, alpha: m.where(z > 0.0, z, alpha * m.expm1(m.minimum(z, 0.0))),
    lambda m, z, a, alpha: m.where(a > 0.0, 1.0, a + alpha),
    analytic=False,
    initializer="he_uniform",
    parameters={"alpha": 1.0},
    limits={"alpha": (0.0, math.inf)},
)
selu = Activation(
    "selu",
    lambda m, z: _SELU_SCALE * m.where(z > 0.0, z, _SELU_ALPHA * m.expm1(m.minimum(z, 0.0))),
    lambda m, z, a: m.where(a > 0.0, _SELU_SCALE, a + _SELU_SCALE * _SELU_ALPHA),
    analytic=False,
    initializer="lecun_normal",
)
softplus = Activation("softplus", _softplus, lambda m, z, a: -m.expm1(-a))
gelu = Activation(  # Hendrycks, Gimpel 2016
    "gelu", lambda m, z: 0.5 * z * (1.0 + m.erf(z / _SQRT_2)), _gelu_prime, initializer="he_uniform"
)
gelu_tanh = Activation(  # its approximation, section 2 there
    "gelu_tanh",
    lambda m, z: 0.5 * z * (1.0 + _gelu_tanh_inner(m, z)),
    _gelu_tanh_prime,
    initializer="he_uniform",
    epilogue="gelu",
)
silu = Activation("silu", lambda m, z: z * _logistic(m, z), _silu_prime, initializer="he_uniform")
mish = Activation(  # Misra 2020
    "mish", lambda m, z: z * m.tanh(_softplus(m, z)), _mish_prime, initializer="he_uniform"
)
hard_sigmoid = Activation(
    "hard_sigmoid",
    lambda m, z: m.minimum(m.maximum(z / 6.0 + 0.5, 0.0), 1.0),
    lambda m, z, a: m.where(a > 0.0, m.where(a < 1.0, 1.0 / 6.0, 0.0), 0.0),
    analytic=False,
)
softmax = Activation("softmax", None, None)

ACTIVATIONS = {
    row.name: row
    for row in (
        identity, sigmoid, tanh, relu, leaky_relu, elu, selu, softplus, gelu, gelu_tanh, silu, mish, hard_sigmoid,
        softmax,
    )
}  # fmt: skip

__all__ = ["ACTIVATIONS", "Activation", *ACTIVATIONS]


def __dir__() -> list[str]:
    return __all__
