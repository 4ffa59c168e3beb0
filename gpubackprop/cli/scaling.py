"""Features and targets brought to a common scale for training, and the scale folded into the network afterwards."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from ..errors import InvalidValue
from ..network import Network

FLOAT32_REACH = 1e4  # standard deviations from zero beyond which float32 keeps too few digits of a value
FLOAT32_RANGE = 1e30

Named = Callable[[int], str]  # returns what a message calls a column, given its number from 1


@dataclass(frozen=True)
class Scale:
    """The map x ↦ (x − m) k of each column.

    Attributes:
        m: what becomes zero (n,).
        k: one over the unit (n,); 0 where a column is constant, and so says nothing.
    """

    m: numpy.ndarray
    k: numpy.ndarray

    @classmethod
    def standard(cls, x: numpy.ndarray, named: Named = "column {}".format) -> Scale:
        """Return the scale on which each column of x (N, n) has the mean 0 and the standard deviation 1."""
        with numpy.errstate(over="ignore", invalid="ignore"):
            m, s = x.mean(axis=0, dtype="float64"), x.std(axis=0, dtype="float64")
        return cls.of_columns(m, s, x.min(axis=0) == x.max(axis=0), named)

    @classmethod
    def of_columns(cls, m: numpy.ndarray, s: numpy.ndarray, constant: numpy.ndarray, named: Named) -> Scale:
        """Return the scale of columns by their means and standard deviations (n,), and whether each is constant (n,).

        Args:
            m: means.
            s: standard deviations.
            constant: whether all values of a column are equal.
            named: returns what a message calls a column, given its number from 1.

        Returns:
            The scale.

        Raises:
            InvalidValue: the values of a column are too large, or too close to each other.
        """
        small = ~constant & (s < numpy.finfo("float64").tiny)
        if not numpy.isfinite(s).all() or small.any():
            column = int(numpy.flatnonzero(~numpy.isfinite(s) | small)[0]) + 1
            raise InvalidValue(f"{named(column)} holds values too large or too close to standardise: change its unit")
        return cls(m, numpy.divide(1.0, s, out=numpy.zeros_like(s), where=~constant))

    @classmethod
    def one_unit(cls, x: numpy.ndarray) -> Scale:
        """Return the scale that divides all columns of x (N, n) by the largest absolute value."""
        return cls.of_one_unit(x.shape[1], abs(x).max())

    @classmethod
    def of_one_unit(cls, columns: int, largest: float) -> Scale:
        """Return the same of the number of columns and the largest absolute value."""
        return cls(numpy.zeros(columns), numpy.full(columns, 1.0 / (largest or 1.0)))

    def apply(self, x: numpy.ndarray, dtype: str) -> numpy.ndarray:
        """Return (x − m) k."""
        return ((x - self.m) * self.k).astype(dtype)

    @property
    def needs_float64(self) -> bool:
        """Whether float32 cannot tell the values of a column apart well, as with times in seconds since 1970."""
        used = self.k[self.k > 0]
        return bool(
            (abs(self.m * self.k) > FLOAT32_REACH).any() or ((used > FLOAT32_RANGE) | (used < 1 / FLOAT32_RANGE)).any()
        )


def fold(net: Network, features: Scale, targets: Scale | None) -> None:
    """Change the first and the last layer so that the network takes features, and gives targets, as they were.

    With x' = (x − m) k the first layer is z = x' W + b = x (k ⊙ W) + (b − m (k ⊙ W)), row i of W times kᵢ. The last
    layer's z, through the identity, is on the targets' scale: y = z / k + m, column j of W over kⱼ.

    Args:
        net: the network; its parameters are changed in place.
        features: the scale on which it was trained to see them.
        targets: the scale on which it was trained to give them, or None; its last activation is then the identity.
    """
    W, b = _read(net, 0)
    W = features.k[:, None] * W
    _write(net, 0, W, b - features.m @ W)
    if targets is not None:
        W, b = _read(net, -1)
        s = numpy.divide(1.0, targets.k, out=numpy.zeros_like(targets.k), where=targets.k > 0)
        _write(net, -1, W * s, b * s + targets.m)


def _read(net: Network, l: int) -> list[Any]:
    return [net.backend.to_numpy(part).astype("float64") for part in net.parameters[l]]


def _write(net: Network, l: int, *parts: numpy.ndarray) -> None:
    with (running := net.backend.running(0.0)), running:
        for view, values in zip(net.parameters[l], parts, strict=True):
            view[...] = net.backend.asarray(values, net.dtype)
