"""Settings as JSON: ranks and checkpoints compare the arguments of a training in this form."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import numbers
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy

from .formula import Row, Trace

BLOCK_BYTES = 2**24  # of an array that are hashed in one go


def plain(value: Any) -> Any:
    """Return a row, an optimizer, a schedule, a path or a number of NumPy as JSON can hold it."""
    if isinstance(value, Row):
        return value.as_dict()
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return {"name": type(value).__qualname__, **fields}
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return getattr(value, "__qualname__", type(value).__qualname__)


def itemized(settings: dict[str, Any]) -> dict[str, str]:
    """Return every single setting by its full name, as JSON: {"optimizer clip_norm": "1.0", ...}.

    Nothing is listed by hand: all fields of dataclasses are there, and a digest of every formula of a row or optimizer.
    """
    return dict(_flat(json.loads(json.dumps(settings, default=_with_formulas)), ()))


def _flat(value: Any, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    if isinstance(value, list) and any(isinstance(inside, dict) for inside in value):
        value = {str(k): inside for k, inside in enumerate(value, start=1)}
    if not isinstance(value, dict):
        yield " ".join(names), json.dumps(value, ensure_ascii=False)
        return
    for name, inside in value.items():
        yield from _flat(inside, (*names, name))


def _with_formulas(value: Any) -> Any:
    encoded = plain(value)
    if not isinstance(encoded, dict):
        return encoded
    fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    kinds = inspect.getmembers_static(type(value))
    traces = {name: _trace(value, name) for name, kind in kinds if isinstance(kind, functools.cached_property)}
    formulas = {name: digest([repr(t).encode()]) for name, t in traces.items() if isinstance(t, Trace)}
    return encoded | {name: x for name, x in fields.items() if not inspect.isfunction(x)} | {"formula": formulas}


def _trace(value: Any, name: str) -> Any:
    """Return what an optimizer computes on demand, or a row has computed when it was made: softmax has no formula."""
    return vars(value).get(name) if isinstance(value, Row) else getattr(value, name)


def digest(parts: Iterable[Any]) -> str:
    """Return a checksum: it is to find mistakes, not forgeries, and is ten times as fast as a cryptographic one."""
    return f"crc32 {functools.reduce(lambda found, part: zlib.crc32(part, found), parts, 0):08x}"


def digest_of_array(x: Any, on_host: Callable[[Any], numpy.ndarray]) -> str | None:
    """Return shape, type and digest of the elements of an array, in order; None for no array.

    Args:
        x: an array of a backend, or None.
        on_host: returns a part of it as an array of NumPy.
    """
    if x is None:
        return None
    step = max(1, BLOCK_BYTES * len(x) // max(x.nbytes, 1))
    rows = (numpy.ascontiguousarray(on_host(x[start : start + step])) for start in range(0, len(x), step))
    return f"{'×'.join(map(str, x.shape))} {x.dtype}, {digest(rows)}"
