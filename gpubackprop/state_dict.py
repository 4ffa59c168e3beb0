"""Weights as PyTorch's modules keep them, without PyTorch.

A `torch.nn.Sequential` of Linear, activation, Linear, activation, ... numbers its modules from 0, so that W_l and b_l
are those of module 2 (l − 1). It has no weights between them: whether the last activation is there makes no difference.
A Linear computes x Wᵀ + b: its weight is the transposed W_l, (n_l, n_{l-1}).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy

from . import inputs
from .errors import InvalidType, InvalidValue

if TYPE_CHECKING:
    from .backends.numpy import NumpyBackend


def written(parameters: Sequence[tuple[numpy.ndarray, numpy.ndarray]]) -> dict[str, numpy.ndarray]:
    """Return NumPy's [(W_1, b_1), ...] as {"0.weight": W_1ᵀ, "0.bias": b_1, "2.weight": W_2ᵀ, ...}, all copies."""
    return {
        key: x.copy()  # in the order of C
        for (weight, bias), (W, b) in zip(_keys(len(parameters)), parameters, strict=True)
        for key, x in ((weight, W.T), (bias, b))
    }


def read(
    given: Any, shapes: Sequence[tuple[int, int]], backend: NumpyBackend, dtype: str
) -> list[tuple[numpy.ndarray, numpy.ndarray]]:
    """Return [(W_1, b_1), ...] of a state dict, checked, on the backend; they may be views of what was given.

    Args:
        given: tensors or arrays by key.
        shapes: (n_{l-1}, n_l) of the layers.
        backend: where they are to lie.
        dtype: their type.

    Returns:
        One pair per layer.

    Raises:
        InvalidType: no mapping, or a value that does not hold real numbers.
        InvalidValue: a key is missing or not of this network, or a value has another shape or is not finite.
    """
    if not isinstance(given, Mapping):
        hint = ": pass its state_dict()" if hasattr(given, "state_dict") else ""
        raise InvalidType(f"a state dict must be a mapping of arrays by key, got a {type(given).__name__}{hint}")
    keys = _keys(len(shapes))
    _check_keys(given, [key for pair in keys for key in pair])
    return [
        (
            inputs.parameter(given[weight], (n, m), backend, dtype, weight).T,
            inputs.parameter(given[bias], (n,), backend, dtype, bias),
        )
        for (weight, bias), (m, n) in zip(keys, shapes, strict=True)
    ]


def _keys(layers: int) -> list[tuple[str, str]]:
    return [(f"{2 * l}.weight", f"{2 * l}.bias") for l in range(layers)]


def _check_keys(given: Mapping[Any, Any], accepted: list[str]) -> None:
    missing = [key for key in accepted if key not in given]
    unexpected = [str(key) for key in given if key not in accepted]
    faults = [f"{what} {', '.join(keys)}" for what, keys in (("lacks", missing), ("has also", unexpected)) if keys]
    if faults:
        raise InvalidValue(
            f"the state dict {' and '.join(faults)}; accepted are {', '.join(accepted)}: those of a Sequential of "
            "Linear, activation, Linear, ..."
        )
