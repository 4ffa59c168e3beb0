"""Users' files of examples in NumPy's formats. No pickle is ever loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy

from .. import npy
from ..files import data_file
from .tables import Source, shortened


class NpySource(Source):
    """One matrix of numbers, the target a column of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.names = path, None
        with data_file(path, "data") as file:
            self.loaded = npy.array(file, path.stat().st_size, str(path))
        self.matrix = _matrix(self, "the array", self.loaded)
        self.columns = self.matrix.shape[1]
        if self.columns == 0:
            self.refuse("has no columns; accepted is a matrix of features and a target")

    def read(self, features: Sequence[int], target: int | None) -> tuple[numpy.ndarray, numpy.ndarray | None]:
        """Return the features (N, n_0), and the target's column (N,)."""
        X = self.matrix[:, features]
        self.check_finite(X, features, lambda i: f"row {i + 1}")
        return X, None if target is None else self.loaded[:, target]  # as it is: float64 merges large labels


class NpzSource(Source):
    """A matrix X of numbers and targets y, which count as one column, the last."""

    def __init__(self, path: Path) -> None:
        self.path, self.names = path, None
        with data_file(path, "data") as file:
            arrays, names = npy.archived(file, ("X", "y"), str(path))
        if "X" not in arrays:
            self.refuse(
                f"holds the arrays {shortened(names) or '(none)'}; accepted are X (rows, columns) and y (rows,)"
            )
        self.X, self.y = _matrix(self, "X", arrays["X"]), arrays.get("y")
        self.columns = self.X.shape[1] + (self.y is not None)
        if self.y is not None and (self.y.ndim not in (1, 2) or len(self.y) != len(self.X) or 0 in self.y.shape[1:]):
            self.refuse(
                f"X has {len(self.X)} rows and y the shape {self.y.shape}; accepted is a y of as many rows as X"
            )

    def target_index(self, column: str | None, dropped: Sequence[int]) -> int:
        """Return the index that stands for y; another column cannot be asked for."""
        if column is not None:
            self.refuse(f"--target {column} is for .csv and .npy files; in .npz files the target is the array y")
        if self.y is None:
            self.refuse("holds X and no y; training needs X (rows, columns) and y (rows,)")
        return self.columns - 1

    def read(self, features: Sequence[int], target: int | None) -> tuple[numpy.ndarray, numpy.ndarray | None]:
        """Return columns of X (N, n_0), and y (N,) or (N, k)."""
        X = self.X[:, features]
        self.check_finite(X, features, lambda i: f"X, row {i + 1}")
        if target is not None and self.y is not None and self.y.dtype.kind == "U":
            self.check_known(self.y.ravel().tolist(), lambda i: f"y, row {i + 1}")
        return X, None if target is None else self.y


def _matrix(source: Source, name: str, x: numpy.ndarray) -> numpy.ndarray:
    """Return x as a float64 matrix."""
    if x.ndim != 2:
        source.refuse(f"{name} has the shape {x.shape}; accepted is a matrix (rows, columns): reshape it")
    if x.dtype.kind not in "biuf":
        source.refuse(f"{name} holds {x.dtype}; accepted are real numbers: encode text as numbers")
    return x.astype(numpy.float64, copy=False)
