"""What a network is, apart from its parameters and from where it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar

import numpy

from .activations import ACTIVATIONS, Activation
from .checks import choice, integer, real
from .errors import InvalidType, InvalidValue
from .initializers import INITIALIZERS, Initializer
from .losses import LOSSES, Loss

DTYPES = ("float32", "float64")

_Named = TypeVar("_Named", Activation, Loss, Initializer)


@dataclass(frozen=True)
class Architecture:
    """The layers of a network and the function that training minimises.

    Attributes:
        sizes: units of every layer, (n_0, ..., n_L).
        activations: one row per layer, (σ_1, ..., σ_L).
        loss: the loss.
        l2: λ of the penalty λ/2 Σ W².
        dropout: share of the hidden units that a training step drops.
        dtype: of parameters and arithmetic.
    """

    sizes: tuple[int, ...]
    activations: tuple[Activation, ...]
    loss: Loss
    l2: float
    dropout: float
    dtype: str

    @classmethod
    def checked(
        cls, *, sizes: Any, activation: Any, output_activation: Any, loss: Any, l2: Any, dropout: Any, dtype: Any
    ) -> Architecture:
        """Return an architecture from what a user gave for it; see `Network` for the arguments.

        Raises:
            InvalidValue: an argument outside its range, or an unknown name.
            InvalidType: an argument of another type.
        """
        layers = _sizes(sizes)
        hidden = _hidden_activations(activation, len(layers) - 2)
        minimised = named("loss", loss, LOSSES, Loss)
        output = named(
            "output_activation",
            minimised.output if output_activation is None else output_activation,
            ACTIVATIONS,
            Activation,
        )
        return cls(
            sizes=layers,
            activations=(*hidden, output),
            loss=minimised,
            l2=real("l2", l2, 0.0),
            dropout=real("dropout", dropout, 0.0, 1.0, open_high=True),
            dtype=_dtype(dtype),
        )

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """Shapes (n_{l-1}, n_l) of the weights W_l."""
        return list(pairwise(self.sizes))

    def initial_parameters(self, initializer: Any, seed: Any) -> Iterator[tuple[numpy.ndarray, numpy.ndarray]]:
        """Return initial (W_1, b_1), ... in float64, drawn layer by layer from one generator.

        Args:
            initializer: a name of `INITIALIZERS`, a row, or "auto" for what suits each activation.
            seed: an integer, or None for other weights each time.

        Returns:
            An iterator; what it yields is drawn as it is taken.

        Raises:
            InvalidValue: an unknown name, or a negative seed.
            InvalidType: an argument of another type.
        """
        rng = numpy.random.default_rng(seed if seed is None else integer("seed", seed, 0))
        if isinstance(initializer, str):
            initializer = choice("initializer", initializer, ("auto", *INITIALIZERS))
        names = [row.initializer if initializer == "auto" else initializer for row in self.activations]
        rows = [named("initializer", name, INITIALIZERS, Initializer) for name in names]
        return ((row.draw(rng, m, n), numpy.zeros(n)) for row, (m, n) in zip(rows, self.shapes, strict=True))


def named(name: str, value: Any, table: Mapping[str, _Named], kind: type[_Named]) -> _Named:
    """Return a row that was given as itself or by its name in a table."""
    if isinstance(value, kind):
        return value
    if not isinstance(value, str):
        names = ", ".join(map(repr, table))
        raise InvalidType(f"{name} must be {names}, or an object of type {kind.__name__}, got {value!r}")
    return table[choice(name, value, table)]


def _dtype(dtype: Any) -> str:
    """Return the name of a type that was given by name, or as NumPy and Python have it."""
    if isinstance(dtype, (type, numpy.dtype)):
        with contextlib.suppress(TypeError):
            dtype = numpy.dtype(dtype).name
    return choice("dtype", dtype, DTYPES)


def _sizes(sizes: Any) -> tuple[int, ...]:
    if isinstance(sizes, (str, bytes, set, frozenset, dict)) or not hasattr(sizes, "__iter__"):
        raise InvalidType(f"sizes must be a sequence of integers such as [784, 256, 10], got {sizes!r}")
    checked = tuple(integer(f"sizes[{l}]", n, 1) for l, n in enumerate(sizes))
    if len(checked) < 2:
        raise InvalidValue(f"sizes must name at least the inputs and the outputs, got {list(checked)}")
    return checked


def _hidden_activations(activation: Any, count: int) -> tuple[Activation, ...]:
    """Return one activation per hidden layer."""
    if isinstance(activation, (list, tuple)):
        if len(activation) != count:
            raise InvalidValue(
                f"activation must be one name or row, or a list of {count}, one per hidden layer, got {len(activation)}"
            )
        rows = tuple(named(f"activation[{l}]", a, ACTIVATIONS, Activation) for l, a in enumerate(activation))
    else:
        rows = (named("activation", activation, ACTIVATIONS, Activation),) * count
    for row in rows:
        if row.rowwise:
            raise InvalidValue(f"activation {row.name!r} is for the last layer alone: give it as output_activation")
    return rows
