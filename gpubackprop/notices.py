"""What a rank that leaves tells the others, so that none waits for it.

Ranks take part in the same collectives in the same order. A notice says how far its rank came. One that waits for a
collective beyond that waits in vain. This is decided by counting, without any time limit.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy

SIZE = 4096  # bytes of a message
LETTERS = 500  # of a reason at most: six bytes each in JSON


@dataclass(frozen=True)
class Notice:
    """One rank's message that it leaves.

    Attributes:
        rank: its number.
        stage: in which it was: counts the beginnings and ends of distributed calls of `fit`.
        calls: collectives of that stage in which it takes part.
        why: what happened.
        ended: whether its process ends; otherwise only its call of `fit` does.
        status: the exit status, if `SystemExit` ended the call.
    """

    rank: int
    stage: int
    calls: int
    why: str
    ended: bool = False
    status: int | None = None

    def lacks(self, stage: int, calls: int) -> bool:
        """Return whether its rank takes no part in a collective."""
        return (self.stage, self.calls) < (stage, calls) and (self.ended or self.stage == stage)


class Notices:
    """The notices of all ranks.

    Args:
        mpi: the module mpi4py.MPI.
        comm: a communicator for notices only.

    Attributes:
        received: those of the others, in the order in which they came.
    """

    def __init__(self, mpi: Any, comm: Any) -> None:
        self._mpi, self._comm = mpi, comm
        self.received: list[Notice] = []
        self._sent: list[Any] = []
        self._others = [rank for rank in range(comm.size) if rank != comm.rank]
        self._buffers = {rank: numpy.zeros(SIZE, "uint8") for rank in self._others}
        self._expected = [self._expect(rank) for rank in self._others]

    def send(self, notice: Notice) -> None:
        """Send a notice to all others, without waiting for them."""
        text = json.dumps(asdict(notice) | {"why": notice.why[:LETTERS]}).encode()
        message = numpy.zeros(SIZE, "uint8")
        message[: len(text)] = list(text)
        self._sent += [(message, self._comm.Isend(message, dest=rank)) for rank in self._others]

    def wait(self, request: Any, sleep: float | None = None) -> bool:
        """Wait until a request is done, or a notice came.

        Args:
            request: of MPI.
            sleep: seconds between two looks, in which other processes may have this core; None to spin.

        Returns:
            Whether the request is done.
        """
        requests = [request, *self._expected]
        if sleep is None:
            k = self._mpi.Request.Waitany(requests)
        else:
            k, done = self._mpi.Request.Testany(requests)
            while not done:
                time.sleep(sleep)
                k, done = self._mpi.Request.Testany(requests)
        if k > 0:
            self._receive(k - 1)
        return k == 0

    def all_end(self) -> None:
        """Wait until all others have sent their last notice."""
        while any(request != self._mpi.REQUEST_NULL for request in self._expected):
            self.wait(self._mpi.REQUEST_NULL, sleep=1e-3)

    def _expect(self, rank: int) -> Any:
        return self._comm.Irecv(self._buffers[rank], source=rank)

    def _receive(self, k: int) -> None:
        rank = self._others[k]
        notice = Notice(**json.loads(self._buffers[rank].tobytes().rstrip(b"\0")))
        self.received.append(notice)
        if not notice.ended:
            self._expected[k] = self._expect(rank)
