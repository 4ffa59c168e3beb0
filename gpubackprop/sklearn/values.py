"""Values of parameters and attributes as JSON with tensors beside it: a closed list of kinds, and no other is made.

JSON has None, truth values, numbers, strings and lists as themselves; every other kind is an object with one entry that
names it.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy

from ..checks import Checked
from ..errors import InvalidType
from ..formula import Row
from ..losses import Loss
from ..optimizers import OPTIMIZERS
from ..schedules import SCHEDULES
from ..storage import Known, refuse_namesakes, row_of

_MADE: dict[str, Any] = {kind.__name__: kind for kind in (*OPTIMIZERS.values(), *SCHEDULES.values())}  # type: ignore[attr-defined]


def written(name: str, value: Any, tensors: dict[str, numpy.ndarray]) -> Any:
    """Return a value as JSON holds it.

    Args:
        name: what messages call it.
        value: the value.
        tensors: arrays by name, to which those of the value are added.

    Returns:
        What `read` makes the value of.

    Raises:
        InvalidType: a value of another kind than a file holds.
        InvalidValue: a row of the user's with the name of one of this package.
    """
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, numpy.generic) and value.dtype.kind in "biuf":
        return value.item()
    if isinstance(value, (list, tuple)):
        items = [written(f"{name}[{k}]", item, tensors) for k, item in enumerate(value)]
        return items if isinstance(value, list) else {"tuple": items}
    if isinstance(value, dict):
        return {"dict": [[written(name, part, tensors) for part in pair] for pair in value.items()]}
    if isinstance(value, numpy.ndarray) and not isinstance(value, numpy.ma.MaskedArray):  # no file holds a mask
        return _written_array(name, value, tensors)
    if isinstance(value, Row):
        refuse_namesakes([value])
        return {"loss" if isinstance(value, Loss) else "activation": value.as_dict()}
    if isinstance(value, Checked) and _MADE.get(type(value).__name__) is type(value):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}  # type: ignore[arg-type]
        return {"made": [type(value).__name__, {n: written(f"{name}.{n}", v, tensors) for n, v in fields.items()}]}
    raise InvalidType(_without_pickle(name, f"a {type(value).__name__}"))


def _without_pickle(name: str, given: str) -> str:
    return (
        f"{name} cannot be written without pickle: it is {given}; accepted are numbers, strings, lists, tuples, dicts, "
        "arrays of numbers or of strings (n,), and rows, optimizers and schedules of gpubackprop. Set another before "
        "save, or use pickle or joblib"
    )


def _written_array(name: str, value: numpy.ndarray, tensors: dict[str, numpy.ndarray]) -> Any:
    if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        key = f"array_{len(tensors)}"
        tensors[key] = value
        return {"array": key}
    if value.ndim == 1 and all(isinstance(item, str) for item in value.tolist()):
        return {"strings": [value.tolist(), "O" if value.dtype.kind == "O" else "U"]}
    raise InvalidType(_without_pickle(name, f"an array {value.shape} of {value.dtype}"))


def read(stored: Any, tensors: dict[str, numpy.ndarray], known: Known) -> Any:
    """Return the value that `written` wrote.

    Args:
        stored: what JSON holds.
        tensors: those of the file by name; each is taken out that is part of the value.
        known: the rows that it may name.

    Returns:
        The value.

    Raises:
        ValueError: something else than `written` writes.
    """
    if isinstance(stored, (bool, int, float, str, type(None))):
        return stored
    if isinstance(stored, list):
        return [read(item, tensors, known) for item in stored]
    ((kind, content),) = stored.items()
    if kind == "tuple":
        return tuple(read(item, tensors, known) for item in content)
    if kind == "dict":
        return {read(key, tensors, known): read(value, tensors, known) for key, value in content}
    if kind == "array":
        return tensors.pop(content)
    if kind == "strings":
        return strings(*content)
    if kind in ("activation", "loss"):
        return row_of(content, known.losses if kind == "loss" else known.activations)
    if kind == "made":
        name, fields = content
        return _MADE[name](**{field: read(value, tensors, known) for field, value in fields.items()})
    raise ValueError(f"{kind!r} is no kind of value")


def strings(items: Any, kind: Any) -> numpy.ndarray:
    """Return strings as an array (n,) of NumPy's own kind, "U", or of objects, "O"."""
    if kind not in ("U", "O") or not all(isinstance(item, str) for item in items):
        raise ValueError(f"{items!r} are no strings")
    return numpy.array(list(items), dtype=object if kind == "O" else str)
