"""What `fit` is given, as what a run reads: arrays on the backend, or windows of what does not fit there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from .backends import resolve
from .errors import InvalidType, InvalidValue
from .frames import arranged
from .network import Network
from .sources import Arrays, ArrowTable, Batches, Source, are_batches, gathered, is_arrow
from .streaming import Windows, bytes_of_row, check, rows_of_window

SHARE = 0.8  # of the memory that is free, which data and training may take together
IN_MEMORY = "in memory"


def training_source(net: Network, X: Any, y: Any, sample_weight: Any) -> Source:
    """Return what `fit` is given as a source; columns with the names of the network's features are in their order."""
    source, features = source_of(X, y, sample_weight), net.features
    if features is None or source.features is None or sorted(features) != sorted(source.features):
        return source
    return source_of(X, y, sample_weight, features)


def validation_of(net: Network, data: Any, source: Source, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Return validation data on the network's backend: examples, targets, and weights or None.

    Args:
        net: the network.
        data: a pair (X, y) or a triple (X, y, sample_weight), each as `fit` takes it; a source, batches, or a table of
            Arrow with the columns of the training data.
        source: of the training data, whose features they have.
        y: targets as `fit` is given them; columns of a table of Arrow.
        sample_weight: weights as `fit` is given them.

    Raises:
        InvalidType: something that holds no examples, or not their targets.
        InvalidValue: a shape, a value or a number of items that is not accepted.
        MissingDependency: pyarrow is not installed.
    """
    try:
        held = _validation_source(data, source, y, sample_weight)
        arrays = gathered(held) if isinstance(held, Batches) else held.whole()
    except (InvalidType, InvalidValue) as error:
        raise type(error)(f"validation_data: {error}") from error
    return net._batch(*arrays, prefix="validation ")


def _validation_source(data: Any, source: Source, y: Any, sample_weight: Any) -> Source:
    accepted = "a pair (X, y) or a triple (X, y, sample_weight)"
    if isinstance(data, (list, tuple)):
        if len(data) not in (2, 3):
            raise InvalidValue(f"it must be {accepted}, got {len(data)} items; of batches, pass a function")
        X, targets, weights = (*data, None)[:3]
        return source_of(X, targets, weights, source.features)
    if is_arrow(data):
        if not isinstance(source, ArrowTable):
            raise InvalidType(f"it must be {accepted}, got a table without the names of its targets")
        return source_of(data, y, sample_weight, source.features)
    if not (isinstance(data, Source) or are_batches(data)):
        raise InvalidType(f"it must be {accepted}, batches or a table of Arrow, got {type(data).__name__}")
    return source_of(data, None, None, source.features)


def source_of(X: Any, y: Any, sample_weight: Any, features: Sequence[str] | None = None) -> Source:
    """Return what `fit` is given as a source; it may be one, of targets too.

    Args:
        X: examples.
        y: targets, or None.
        sample_weight: weights, or None.
        features: names of the columns of the examples, in order, if X is a table or a frame; None for its own.

    Raises:
        InvalidType: something that holds no examples, or not their targets.
        InvalidValue: a file that cannot be read, or an argument that does not go with the others.
        MissingDependency: pyarrow is not installed.
    """
    if isinstance(X, Source):
        return X
    if is_arrow(X):
        if y is None:
            raise InvalidType("y must name the columns of the targets where X is a table of Arrow, got None")
        return ArrowTable(X, y, sample_weight, features)
    if y is not None:
        return Arrays(arranged(X, features), y, sample_weight)
    if not (are_batches(X) or isinstance(X, (list, tuple))):
        raise InvalidType(
            f"y is missing, and X is a {type(X).__name__}, not batches (X, y) or a function that returns such"
        )
    if sample_weight is not None:
        raise InvalidValue("sample_weight is part of every batch where X is batches: (X, y, sample_weight)")
    return Batches(X, features=features)


def taken_in(net: Network, source: Source, batch_size: int, why: str | None) -> tuple[tuple[Any, Any, Any], str]:
    """Return (x, y, w) on the network's backend or (`Windows`, None, None), and one sentence about which and why.

    Args:
        net: the network.
        source: the examples.
        batch_size: N.
        why: they are read in windows; None where they are not.

    Raises:
        InvalidType: something that does not hold numbers.
        InvalidValue: a shape or a value that is not accepted.
        OutOfMemory: the device cannot hold data or windows.
    """
    if why is None:
        return net._batch(*source.whole()), IN_MEMORY
    import logging  # not imported by those who hold their data

    sizes = net.sizes[0], net.sizes[-1]
    windows = Windows(source, sizes, net.loss, net.backend, net.dtype, batch_size)
    size = windows.capacity * bytes_of_row(sizes, net.dtype)
    says = f"read in windows of {windows.capacity:,} rows ({size:,} bytes), two at a time: {why}"
    logging.getLogger("gpubackprop").info("data %s", says)
    return (windows, None, None), says


def why_streamed(
    net: Network, source: Source, batch_size: int, stream: bool | None, training: Callable[[], int], ranks: int
) -> str | None:
    """Return why data are read in windows, or None where they are not.

    They are where nobody knows how many examples there are, where there is more than one window of them and that is
    asked for, and, unless it is refused, where all would take more memory than is free.

    Args:
        net: the network.
        source: the examples.
        batch_size: N.
        stream: True, False, or None for what fits.
        training: returns the bytes that the training takes besides.
        ranks: processes on this machine that train together, each of which would hold all of the data.

    Raises:
        InvalidValue: a shape that is not accepted.
    """
    sizes = net.sizes[0], net.sizes[-1]
    if isinstance(source, Arrays):
        check(source, sizes, with_targets=True)
    if source.rows is None and stream is not False:
        return "batches of which nobody knows how many there are"
    if stream is False or source.rows is None or source.rows <= rows_of_window(sizes, net.dtype, batch_size):
        return None
    return "as asked for" if stream else _what_does_not_fit(net, source, training, ranks)


def _what_does_not_fit(net: Network, source: Source, training: Callable[[], int], ranks: int) -> str | None:
    """Return what would take more memory than there is, on the backend or on the host, or None."""
    assert source.rows is not None
    needed = source.rows * bytes_of_row((net.sizes[0], net.sizes[-1]), net.dtype) + training()
    of_files, host = source.bytes_in_files, resolve("numpy")
    if net.backend.name != "numpy":
        places = [(needed, net.backend), (ranks * of_files, host)]
    else:
        in_place = source.bytes_in_place(net.dtype) if isinstance(source, Arrays) else 0
        places = [(ranks * (needed + of_files - in_place), host)]
    for bytes_, backend in places:
        free = backend.free_bytes()
        if free is not None and bytes_ > SHARE * free:
            of_ranks = f" of {ranks} ranks" if ranks > 1 else ""
            return (
                f"{bytes_:,} bytes are predicted for data and training{of_ranks}, and {free:,} are free on "
                f"{backend.name}"
            )
    return None
