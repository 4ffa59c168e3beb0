"""Training on examples that are not all in memory: a window of rows at a time, the next one read meanwhile.

A window is as many whole batches as fit `WINDOW_BYTES`. Its rows lie in one of two buffers on the backend, from which
the steps gather their batches as they do from data that are there as a whole, which are the case of one window.
"""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from . import inputs
from .backends import resolve
from .errors import InvalidType, InvalidValue, OutOfMemory
from .sources import Arrays, Source

if TYPE_CHECKING:
    from .losses import Loss

WINDOW_BYTES = 2**26  # of the rows in a window, as steps read them; the same on all backends, as is the order then
BLOCK_BYTES = 2**20  # of the rows that are read, checked and converted in one go; a window consists of such


class Window(NamedTuple):
    """Examples on the backend for some steps.

    Attributes:
        buffer: which of the buffers they lie in.
        arrays: examples, targets and weights, or None; the first so many rows count.
        rows: so many.
        order: in which steps go over them (rows,).
    """

    buffer: int
    arrays: list[Any]
    rows: int
    order: Any


class Held:
    """All of the data on the backend: the one window of every epoch.

    Args:
        arrays: examples, targets and weights, or None.

    Attributes:
        rows, capacity: M.
        order: that of the last epoch (M,); the next is drawn by shuffling it.
        drawn_from: None: what was drawn is in the order.
    """

    drawn_from = None

    def __init__(self, arrays: list[Any]) -> None:
        self.arrays = arrays
        self.rows = self.capacity = int(arrays[0].shape[0])
        self.order: Any = numpy.arange(self.rows)

    def epoch(self, rng: Any, again: bool, skipped: int) -> Generator[Window]:
        """Yield the window; for the arguments see `Windows`."""
        if rng is not None and not again:
            rng.shuffle(self.order)
        yield Window(0, self.arrays, self.rows, self.order)


class Windows:
    """Examples from a source, a window at a time.

    Args:
        source: the examples.
        sizes: n_0 and n_L.
        loss: what targets are for; None for predictions, which have none.
        backend: where the windows are to lie.
        dtype: of the network.
        batch_size: N.

    Attributes:
        arrays: those of the first buffer.
        rows: M, or None where it is not known.
        capacity: rows of a window, a multiple of N.
        order: (), since every window has its own.
        drawn_from: the state from which the generator drew the last epoch; None before the first.

    Raises:
        InvalidValue: a shape that is not accepted.
    """

    def __init__(
        self, source: Source, sizes: tuple[int, int], loss: Loss | None, backend: Any, dtype: str, batch_size: int
    ) -> None:
        self._source, self._sizes, self._loss, self._dtype, self._backend = source, sizes, loss, dtype, backend
        self._host = resolve("numpy")
        if isinstance(source, Arrays):
            check(source, sizes, with_targets=loss is not None)
        self.rows, self.capacity = source.rows, rows_of_window(sizes, dtype, batch_size)
        if source.rows is not None:
            self.capacity = min(self.capacity, -(-source.rows // batch_size) * batch_size)
        self._block = max(1, min(self.capacity, BLOCK_BYTES // bytes_of_row(sizes, dtype)))
        columns = [sizes[0], *([sizes[1]] if loss else []), *([1] if source.weighted else [])]
        self._pair = backend.pair([(self.capacity, n) for n in columns], dtype)
        self._stored = [backend.narrow(self._pair.taken(k)[0]) if loss else None for k in (0, 1)]
        self.arrays = self._arrays(0)
        for k in (0, 1):
            self._pair.given_back(k)
        self._rest: list[Any] = []
        self.order: Any = numpy.arange(0)
        self.drawn_from: Any = None
        self._largest = self._largest_weight()

    def epoch(self, rng: Any, again: bool = False, skipped: int = 0) -> Generator[Window]:
        """Go through the windows; each is read by a thread while the one before is being used.

        Args:
            rng: draws the order of the blocks, where they can be had in any and there is more than one window, and then
                that of the rows of each window; None for theirs.
            again: whether the same is drawn as for the epoch before, or, in a process that has had none, what the
                generator was about to draw in another.
            skipped: windows that are passed over.

        Yields:
            The windows, each to be used before the next is asked for.

        Raises:
            InvalidValue: a value that is not accepted.
            InvalidType: something that does not hold numbers.
        """
        if rng is not None:
            if again and self.drawn_from is not None:
                rng.bit_generator.state = self.drawn_from
            self.drawn_from = rng.bit_generator.state
        from concurrent.futures import ThreadPoolExecutor  # not imported by those who hold their data

        blocks, self._rest = self._checked(self._order(rng)), []
        with ThreadPoolExecutor(1) as reader:
            following = reader.submit(self._fill, 0, blocks)
            for number in itertools.count():
                k, rows = number % 2, following.result()
                if not rows:
                    return
                following = reader.submit(self._fill, 1 - k, blocks)
                order = numpy.arange(rows) if rng is None else rng.permutation(rows)
                try:
                    arrays = self._arrays(k)
                    if number >= skipped:
                        yield Window(k, arrays, rows, order)
                finally:
                    self._pair.given_back(k)

    def _order(self, rng: Any) -> Any:
        if rng is None or self._source.in_order or self.rows is None or self.rows <= self.capacity:
            return None
        return rng.permutation(self._source.count(self._block)).tolist()

    def _fill(self, k: int, blocks: Iterator[list[Any]]) -> int:
        """Put the next rows into buffer k; return how many there were."""
        filled, host = 0, self._pair.host(k)
        while filled < self.capacity:
            if not self._rest:
                self._rest = next(blocks, [])
                if not self._rest:
                    break
            count = min(self.capacity - filled, len(self._rest[0]))
            for buffer, part in zip(host, self._rest, strict=True):
                buffer[filled : filled + count] = part[:count]
            self._rest = [part[count:] for part in self._rest] if count < len(self._rest[0]) else []
            filled += count
        if filled:
            self._pair.sent(k)
        return filled

    def _arrays(self, k: int) -> list[Any]:
        """Return what lies in buffer k; for training, examples in the type of storage, and None for no weights."""
        arrays = list(self._pair.taken(k))
        if not self._loss:
            return arrays
        x, w = self._backend.narrow(arrays[0], self._stored[k]), arrays[2] if self._source.weighted else None
        return [x, arrays[1], w]

    # -- checks --------------------------------------------------------------------------------------------------

    def _checked(self, order: Any) -> Iterator[list[Any]]:
        """Go through the blocks, checked and converted."""
        n_0, n_L = self._sizes
        for place, X, y, w in self._source.blocks(self._block, order):
            x = inputs.examples(X, n_0, self._host, self._dtype, f"X{place}")
            arrays = [x]
            if self._loss:
                arrays.append(inputs.targets(y, len(x), n_L, self._loss, self._host, self._dtype, f"y{place}"))
            if (w is not None) != self._source.weighted:
                raise InvalidValue(f"sample_weight{place} must be given in all batches or in none")
            if w is not None:
                name = f"sample_weight{place}"
                arrays.append(inputs.weights(w, len(x), self._host, self._dtype, name, self._largest))
            yield arrays

    def _largest_weight(self) -> float | None:
        """Return the largest weight, by which all are divided; 1 where that would take an epoch to find."""
        if not self._source.weighted:
            return None
        parts = self._source.weights(self._block)
        if parts is None:
            return 1.0
        return max(float(self._host.asarray(part, self._dtype).max()) for part in parts)


class Collected:
    """Outputs that come one part after the other.

    Args:
        out: the array to write them into, or None.
        rows: how many there will be, or None where that is not known.
        outputs: n_L.
        dtype: of the outputs.

    Raises:
        InvalidType: `out` is no array of floats that can be written.
        InvalidValue: it has another shape.
    """

    def __init__(self, out: Any, rows: int | None, outputs: int, dtype: str) -> None:
        if out is not None:
            _check_out(out, rows, outputs)
        elif rows is not None:
            out = _room(rows, outputs, dtype)
        self._out, self._parts, self._filled = out, list[numpy.ndarray](), 0

    def add(self, part: numpy.ndarray) -> None:
        """Take the next part."""
        start, self._filled = self._filled, self._filled + len(part)
        if self._out is None:
            self._parts.append(part)
        elif self._filled <= len(self._out):
            self._out[start : self._filled] = part

    def all(self) -> numpy.ndarray:
        """Return all parts as one array."""
        if self._out is None:
            return numpy.concatenate(self._parts)
        if self._filled != len(self._out):
            raise InvalidValue(f"out must have a row for each example, got {len(self._out)} for {self._filled}")
        return self._out


def _room(rows: int, outputs: int, dtype: str) -> numpy.ndarray:
    try:
        return numpy.empty((rows, outputs), dtype)
    except (MemoryError, ValueError) as error:
        raise OutOfMemory(
            f"outputs of {rows:,} examples do not fit in memory ({error}): predict some at a time"
        ) from error


def _check_out(out: Any, rows: int | None, outputs: int) -> None:
    if not isinstance(out, numpy.ndarray) or out.dtype.kind != "f" or not out.flags.writeable:
        kind = f"of type {out.dtype}" if isinstance(out, numpy.ndarray) else f"a {type(out).__name__}"
        raise InvalidType(f"out must be an array of NumPy of floats that can be written, got {kind}")
    if out.ndim != 2 or out.shape[1] != outputs or rows not in (None, len(out)):
        raise InvalidValue(f"out must have the shape ({'N' if rows is None else rows}, {outputs}), got {out.shape}")


def check(source: Arrays, sizes: tuple[int, int], *, with_targets: bool) -> None:
    """Refuse arrays whose shapes do not fit a network, or each other."""
    x, y, w = source.columns
    inputs.check_examples(x.shape, sizes[0])
    if with_targets:
        inputs.check_targets(y.shape, x.shape[0], sizes[1])
    if w is not None:
        inputs.check_weights(w.shape, x.shape[0])


def bytes_of_row(sizes: tuple[int, int], dtype: str) -> int:
    """Return the bytes of an example, its targets and its weight, as steps read them."""
    return (sum(sizes) + 1) * numpy.dtype(dtype).itemsize


def rows_of_window(sizes: tuple[int, int], dtype: str, batch_size: int) -> int:
    """Return how many rows a window has: as many whole batches as fit, and at least one."""
    return batch_size * max(1, WINDOW_BYTES // (batch_size * bytes_of_row(sizes, dtype)))
