"""Two buffers of rows that take turns: training steps read one while the other is filled."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .cuda import CudaBackend
    from .numpy import NumpyBackend


class Pair:
    """Two buffers in the memory of the host, where a step is done when it returns.

    The one who fills calls `host` and `sent`; the one who trains, perhaps another thread, `taken` and `given_back`, and
    only then is the same buffer filled again.

    Args:
        backend: whose steps read them.
        shapes: of the arrays of each buffer, rows first.
        dtype: of all of them.
    """

    def __init__(self, backend: NumpyBackend, shapes: Sequence[tuple[int, int]], dtype: str) -> None:
        self._arrays = [[backend.zeros(shape, dtype) for shape in shapes] for _ in range(2)]

    def host(self, k: int) -> list[numpy.ndarray]:
        """Return the arrays of NumPy to write the rows of buffer k into, once nothing reads them any more."""
        return self._arrays[k]

    def sent(self, k: int) -> None:
        """Send what was written to where steps read it."""

    def taken(self, k: int) -> list[Any]:
        """Return the arrays of buffer k on the backend, for steps that are enqueued after they were filled."""
        return self._arrays[k]

    def given_back(self, k: int) -> None:
        """Let buffer k be filled anew, after the steps that were enqueued so far."""


class DevicePair(Pair):
    """Two buffers on a device, each with one on the host in pinned memory, from which a stream of its own copies.

    Every method makes the device current, since events and streams belong to one device and callers may be on another.
    Buffers are arrays of their own, and steps are recorded for each: nothing is copied on the device, and what a step
    reads is exactly what it is given, which the tests' stand-in for a device relies on to find what is in no order.

    Args:
        backend: of the device.
        shapes: of the arrays of each buffer, rows first.
        dtype: of all of them.
    """

    def __init__(self, backend: CudaBackend, shapes: Sequence[tuple[int, int]], dtype: str) -> None:
        super().__init__(backend, shapes, dtype)
        self._backend, cuda = backend, backend.xp.cuda
        with (running := backend.running(0.0)), running:
            self._pinned = [[_pinned(cuda, shape, dtype) for shape in shapes] for _ in range(2)]
            self._stream = cuda.Stream(non_blocking=True)
            self._copied, self._read = ([cuda.Event(disable_timing=True) for _ in range(2)] for _ in range(2))
            for event in (*self._copied, *self._read):
                event.record(cuda.get_current_stream())  # on which the arrays are cleared

    def host(self, k: int) -> list[numpy.ndarray]:
        """Return the pinned arrays of buffer k, once the copy from them is done."""
        with (running := self._backend.running(0.0)), running:
            self._copied[k].synchronize()
        return self._pinned[k]

    def sent(self, k: int) -> None:
        """Copy what was written to the device, after the steps that read what lies there."""
        with (running := self._backend.running(0.0)), running:
            self._stream.wait_event(self._read[k])
            for array, pinned in zip(self._arrays[k], self._pinned[k], strict=True):
                array.set(pinned, stream=self._stream)
            self._copied[k].record(self._stream)

    def taken(self, k: int) -> list[Any]:
        """Return the arrays of buffer k, and have the current stream wait for the copy into them."""
        with (running := self._backend.running(0.0)), running:
            self._backend.xp.cuda.get_current_stream().wait_event(self._copied[k])
        return self._arrays[k]

    def given_back(self, k: int) -> None:
        """Mark the end of the steps that read buffer k."""
        with (running := self._backend.running(0.0)), running:
            self._read[k].record(self._backend.xp.cuda.get_current_stream())


def _pinned(cuda: Any, shape: tuple[int, int], dtype: str) -> numpy.ndarray:
    """Return an array of NumPy in memory that the device copies from by itself."""
    size = math.prod(shape)
    memory = cuda.alloc_pinned_memory(size * numpy.dtype(dtype).itemsize)
    return numpy.frombuffer(memory, dtype, size).reshape(shape)
