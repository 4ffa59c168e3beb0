"""Frames and columns of pandas as arrays: numbers of any of its types, and messages that name columns."""

from __future__ import annotations

from typing import Any

import numpy

from .errors import InvalidType, InvalidValue

KINDS = "biuf"  # booleans, integers and floats of NumPy


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
