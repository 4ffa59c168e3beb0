"""Frames and columns of pandas as arrays: numbers of any of its types, and messages that name columns."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy

from .errors import InvalidType, InvalidValue

KINDS = "biuf"  # booleans, integers and floats of NumPy


def names_of(x: Any) -> list[str] | None:
    """Return the names of the columns of a DataFrame or an Arrow table, or None without any that tell them apart."""
    if _is_table(x):
        names = list(x.schema.names)
    else:
        pandas = sys.modules.get("pandas")
        if pandas is None or not isinstance(x, pandas.DataFrame):
            return None
        names = list(x.columns)
    return names if all(isinstance(name, str) for name in names) and len(set(names)) == len(names) else None


def _is_table(x: Any) -> bool:
    """Return whether x is a table or a batch of records of pyarrow in memory."""
    pyarrow = sys.modules.get("pyarrow")
    return pyarrow is not None and isinstance(x, (pyarrow.Table, pyarrow.RecordBatch))


def arranged(x: Any, features: Sequence[str] | None, place: str = "X") -> Any:
    """Return a DataFrame or an Arrow table with the columns of the features, in order; anything else as it is."""
    names = names_of(x)
    if names is None or features is None or names == features:
        return x
    columns = chosen(names, features, place)
    return x.select(columns) if _is_table(x) else x[columns]


def chosen(names: Sequence[str], features: Sequence[str] | None, place: str) -> list[str]:
    """Return which columns of a table are examples: the features, in their order, or all columns.

    Args:
        names: of the columns of the table.
        features: names of the columns that the network was trained on, or None.
        place: what messages call the table.

    Raises:
        InvalidValue: a feature is missing.
    """
    if features is None:
        return list(names)
    if missing := [name for name in features if name not in names]:
        raise InvalidValue(
            f"{place} has no column {_listed(missing)}; the network takes {_listed(features)}, by name and in any "
            f"order, and {place} has {_listed(names)}"
        )
    if others := [name for name in names if name not in features]:
        import logging  # not imported by those who have no others

        logging.getLogger("gpubackprop").info("%s: ignored %s, not among the features", place, _listed(others))
    return list(features)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")


def numbers(x: Any, name: str) -> numpy.ndarray:
    """Return a frame or a column of pandas as an array of real numbers.

    Args:
        x: a DataFrame or a Series, of types of NumPy, nullable, sparse or of Arrow.
        name: what messages call it.

    Returns:
        A matrix (N, columns) for a DataFrame, otherwise (N,).

    Raises:
        InvalidType: a column that does not hold numbers.
        InvalidValue: a column with missing values.
    """
    if x.ndim == 1:
        types = {_type_of(x, name)}
    else:
        types = {_type_of(column, f"{name}: the column {label!r}") for label, column in x.items()}
    return x.to_numpy(dtype=numpy.result_type(*types or [numpy.dtype("float64")]))


def _type_of(column: Any, which: str) -> numpy.dtype:
    """Return the type of NumPy that holds a column without loss."""
    if column.dtype.kind not in KINDS:
        raise InvalidType(
            f"{which} must hold real numbers, got the type {column.dtype}: pandas.to_numeric reads numbers, "
            "pandas.get_dummies makes features of classes, pandas.factorize labels"
        )
    if missing := int(column.isna().sum()):
        raise InvalidValue(f"{which} has {missing} missing values: drop those rows or fill them in")
    dtype = column.dtype
    if isinstance(dtype, numpy.dtype):
        return dtype
    return numpy.dtype(getattr(dtype, "numpy_dtype", None) or dtype.subtype)  # of sparse columns
