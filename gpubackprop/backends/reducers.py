"""How the ranks of a group add up what their backward passes leave: through MPI on the host, by NCCL on devices.

A message is one flat array (P,) of loss and gradient, whose end is ready first: the gradients of the last layer.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from typing import Any, Protocol

from ..errors import CudaLibraryError
from .graphs import Beside
from .tape import Tape

VOTES = {signal.SIGINT: 1, signal.SIGTERM: 2}  # places in a message of how many ranks got a signal; at 0 is the loss


class Ranks(Protocol):
    """A group of processes, this one among them."""

    rank: int
    size: int

    def rows(self, rows: int) -> slice:
        """Return this rank's part of the rows of a batch."""

    def most(self, rows: int) -> int:
        """Return how many rows of a batch a rank has at most."""

    def sum(self, x: Any) -> None:
        """x ← Σ x over the ranks; x is an array of NumPy."""

    def highest(self, number: int) -> int:
        """Return the largest number that a rank gives."""

    def first(self, x: Any) -> Any:
        """Return what rank 0 gives."""

    def alike(self, settings: dict[str, Any]) -> None:
        """Raise InvalidValue if a setting differs between ranks."""


class HostReducer:
    """Adds up messages in the memory of the host, in one call, which also counts who got signals.

    Args:
        group: the ranks.
        asked: returns the signal that this rank got, 0 where it got none.
        tape: on which recorded steps note the call.

    Attributes:
        bucket: bytes of a message that are added up at once, at least: all.
    """

    bucket = math.inf

    def __init__(self, group: Ranks, asked: Callable[[], int], tape: Tape) -> None:
        self.group, self._asked, self._tape = group, asked, tape
        self._agreed = 0

    def start(self, x: Any) -> None:
        """x ← Σ x over the ranks; x is a whole message."""
        self._tape.do(self._sum, x)

    def finish(self) -> None:
        """Order what follows after the sums."""

    def agree(self) -> None:
        """Agree about signals once a portion of steps is enqueued: here the sum of each step did so."""

    def signalled(self) -> int:
        """Return the signal that a rank got before the last portion was agreed about, or 0: one answer for all."""
        return self._agreed

    def _sum(self, x: Any) -> None:
        for number, place in VOTES.items():
            x[place] = self._asked() == number
        self.group.sum(x)
        self._agreed = max((number for number, place in VOTES.items() if x[place] > 0), default=0)


class NcclReducer(HostReducer):
    """Adds up messages in the memory of devices, from their end on, beside the rest of the backward pass.

    Args:
        group: the ranks, each on a device of its own.
        asked: returns the signal that this rank got, 0 where it got none.
        xp: CuPy.
        beside: the stream of the weights' gradients.

    Attributes:
        bucket: bytes of a message that are added up at once, at least. A sum costs some ten microseconds before its
            first byte, in which a link of 300 GB/s moves 3 MB.

    Raises:
        CudaLibraryError: NCCL is missing, or refuses: two ranks on one device, for one thing.
    """

    bucket = 4.0 * 2**20

    def __init__(self, group: Ranks, asked: Callable[[], int], xp: Any, beside: Beside) -> None:
        self.group, self._asked, self._agreed = group, asked, 0
        self._nccl, self._xp = xp.cuda.nccl, xp
        self._beside, self._sending = beside, Beside(xp)
        try:
            unique = group.first(self._nccl.get_unique_id() if group.rank == 0 else None)
            self._ranks = self._nccl.NcclCommunicator(group.size, unique, group.rank)
        except (AttributeError, RuntimeError) as error:
            raise CudaLibraryError(
                f"NCCL, which adds up gradients of several devices, cannot be used ({error}): it comes with CuPy's "
                "extra ctk, or as nvidia-nccl-cu13, and takes one device for each rank"
            ) from error

    def start(self, x: Any) -> None:
        """x ← Σ x over the ranks, after all that both streams were given so far; x is part of a message."""
        kind = {"float32": self._nccl.NCCL_FLOAT32, "float64": self._nccl.NCCL_FLOAT64}[str(x.dtype)]
        with self._beside.work(), self._sending.work():
            stream = self._xp.cuda.get_current_stream().ptr
            self._ranks.allReduce(x.data.ptr, x.data.ptr, x.size, kind, self._nccl.NCCL_SUM, stream)

    def finish(self) -> None:
        """Order what follows on the current stream after the sums."""
        self._sending.join()

    def agree(self) -> None:
        """Agree about signals by the host, which does not wait for the device."""
        self._agreed = self.group.highest(self._asked())
