"""Checks of scalar arguments: each returns the value in its plain Python type, or says what was wrong with it."""

from __future__ import annotations

import dataclasses
import math
import numbers
import operator
import re
from collections.abc import Collection, Iterable
from typing import Any

import numpy

from .errors import InvalidType, InvalidValue


def integer(name: str, value: Any, least: int) -> int:
    """Return `value` as an int of at least `least`; booleans and floats are refused."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise InvalidType(f"{name} must be an integer of at least {least}, got {_show(value)}")
    if number < least:
        raise InvalidValue(f"{name} must be an integer of at least {least}, got {number}")
    return number


def real(
    name: str,
    value: Any,
    low: float = -math.inf,
    high: float = math.inf,
    *,
    open_low: bool = False,
    open_high: bool = False,
) -> float:
    """Return `value` as a finite float inside [low, high], or without an end that is named open."""
    left, right = "(" if open_low or low == -math.inf else "[", ")" if open_high or high == math.inf else "]"
    interval = f"{left}{low:g}, {high:g}{right}"
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InvalidType(f"{name} must be a number in {interval}, got {_show(value)}")
    try:
        number = float(value)
    except OverflowError:  # an integer beyond the range of floats
        number = math.inf if operator.gt(value, 0) else -math.inf
    inside = low <= number <= high and not (open_low and number == low) and not (open_high and number == high)
    if not (math.isfinite(number) and inside):
        raise InvalidValue(f"{name} must be a finite number in {interval}, got {number!r}")
    return number


ALIASES = {
    "linear": "identity", "none": "identity", "logistic": "sigmoid", "swish": "silu", "geluapproximate": "gelu_tanh",
    "xavier": "glorot_uniform", "xavieruniform": "glorot_uniform", "xaviernormal": "glorot_normal",
    "glorot": "glorot_uniform", "he": "he_uniform", "lecun": "lecun_normal",
    "kaiming": "he_uniform", "kaiminguniform": "he_uniform", "kaimingnormal": "he_normal",
    "meansquarederror": "mse", "l2": "mse", "meanabsoluteerror": "mae", "l1": "mae", "absoluteerror": "mae",
    "pinball": "quantile", "smoothl1": "huber", "bce": "binary_cross_entropy", "ce": "cross_entropy",
    "binarycrossentropy": "binary_cross_entropy", "binarylogloss": "binary_cross_entropy", "logloss": "cross_entropy",
    "categoricalcrossentropy": "cross_entropy", "sparsecategoricalcrossentropy": "cross_entropy",
    "gd": "sgd", "gradientdescent": "sgd", "gpu": "cuda", "cpu": "numpy",
    "single": "float32", "float": "float64", "double": "float64", "fp32": "float32", "f32": "float32",
    "fp64": "float64", "f64": "float64", "bf16": "bfloat16",
}  # fmt: skip
"""What others call the names of this package, without case, spaces, - and _."""


def choice(name: str, value: Any, accepted: Iterable[str]) -> str:
    """Return the accepted name that `value` means, in any case or by an alias."""
    names = list(accepted)
    if not names:
        raise InvalidValue(f"{name}: there is none to choose from, got {value!r}")
    if not isinstance(value, str):
        raise InvalidType(f"{name} must be one of {', '.join(map(repr, names))}, got {_show(value)}")
    if (found := meant(value, names)) is None:
        raise InvalidValue(f"{name} must be one of {', '.join(map(repr, names))}, got {value!r}{nearest(value, names)}")
    return found


def meant(value: str, names: Collection[str]) -> str | None:
    """Return the one of the names that `value` means, or None."""
    if value in names:
        return value
    return _by_key(names).get(_key(value))


def nearest(value: str, names: Collection[str]) -> str:
    """Return a question after the name that `value` is nearest to, for the end of a message, or an empty string."""
    from difflib import get_close_matches  # for messages only

    found = get_close_matches(_key(value), by_key := _by_key(names), 1)
    return f"; did you mean {by_key[found[0]]!r}?" if found else ""


def _by_key(names: Collection[str]) -> dict[str, str]:
    aliases = {alias: name for alias, name in ALIASES.items() if name in names}
    return aliases | {_key(name): name for name in names}


def _key(name: str) -> str:
    return re.sub(r"[\s_-]", "", name.casefold())


def boolean(name: str, value: Any) -> bool:
    """Return `value` as a bool if it is True or False, Python's or NumPy's."""
    if not isinstance(value, (bool, numpy.bool_)):
        raise InvalidType(f"{name} must be True or False, got {_show(value)}")
    return bool(value)


def _show(value: Any) -> str:
    """Return a value and its type, cut to a length fit for a message."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} of type {type(value).__name__}"


def bounded(default: Any = dataclasses.MISSING, *, kw_only: bool = False, **limits: Any) -> Any:
    """Declare a field of a `Checked` dataclass that holds a number within limits, as `real` takes them."""
    return dataclasses.field(default=default, kw_only=kw_only, metadata={"limits": limits})


def counted(default: Any = dataclasses.MISSING, *, least: int) -> Any:
    """Declare a field of a `Checked` dataclass that holds an integer of at least `least`."""
    return dataclasses.field(default=default, metadata={"least": least})


class Checked:
    """Base of dataclasses whose fields are checked when one is made; a field whose default is None may be None."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            name, value = f"{type(self).__name__}: {field.name}", getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if "limits" in field.metadata:
                value = real(name, value, **field.metadata["limits"])
            elif "least" in field.metadata:
                value = integer(name, value, field.metadata["least"])
            elif isinstance(field.default, bool):
                value = boolean(name, value)
            object.__setattr__(self, field.name, value)
