"""The loss and the gradient of a batch, added up from parts of its rows: a rank's, or as many as fit the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .network import Network

if TYPE_CHECKING:
    from .backends.reducers import HostReducer, NcclReducer

    Reducer = HostReducer | NcclReducer

HEAD = 16  # elements before the gradient, which stays aligned: the loss, votes about signals, and nothing

Gradients = list[tuple[Any, Any]]
Work = Callable[[slice, Any, Gradients, Callable[[int], None] | None], None]


class Sums:
    """What a step adds up before its update.

    Args:
        net: the network.
        reducer: of the ranks that share a batch; None where there is one rank.
        rows: that a part may have.
        several: whether a rank's rows may be more than one part.

    Attributes:
        gradient: ∂L/∂θ (P,) of the batch, once a step has added it up.
    """

    def __init__(self, net: Network, reducer: Reducer | None, rows: int, several: bool) -> None:
        self._backend, self._reducer, self._rows = net.backend, reducer, rows
        self._messages = [net.backend.zeros(HEAD + net.layout.size, net.dtype) for _ in range(1 + several)]
        self._views = [net.layout.views(message[HEAD:]) for message in self._messages]
        self._losses = [message[:1].reshape(()) for message in self._messages]
        self._total, self.gradient = self._messages[0], self._messages[0][HEAD:]
        self._buckets = buckets(net.layout.starts, self._total.dtype.itemsize, reducer.bucket) if reducer else {}

    def parts(self, rows: int) -> list[slice]:
        """Return the parts of a batch of so many rows that this rank takes, one after the other."""
        own = self._reducer.group.rows(rows) if self._reducer else slice(0, rows)
        return [slice(start, min(start + self._rows, own.stop)) for start in range(own.start, own.stop, self._rows)]

    def add_up(self, rows: int, work: Work, value: Any) -> None:
        """Do the work of every part of a batch, and add up what it leaves, over the ranks too.

        Args:
            rows: of the batch.
            work: is given a part, where to write its loss and its gradients, and what to tell when a layer's are there.
            value: (), the loss of the batch, written.
        """
        parts = self.parts(rows)
        early = self._send if self._reducer and len(parts) == 1 else None
        for j, part in enumerate(parts):
            place = min(j, 1)
            work(part, self._losses[place], self._views[place], early)
            if j:
                self._backend.add(self._messages[1], self._total)
        if not parts:
            self._backend.copy(0.0, self._total)
        if self._reducer:
            if early is None:  # the messages are those of ranks that could be early
                for l in self._buckets:
                    self._send(l)
            self._reducer.finish()
        self._backend.copy(self._losses[0], value)

    def _send(self, l: int) -> None:
        """Start to add up the layers from l on, if they are enough."""
        if self._reducer and l in self._buckets:
            self._reducer.start(self._total[self._buckets[l]])


def buckets(starts: Sequence[int], itemsize: int, least: float) -> dict[int, slice]:
    """Return which part of a message is added up when the gradients of layer l are there, for some l.

    Args:
        starts: where layers 1..L begin in θ, and where L ends.
        itemsize: bytes of an element.
        least: bytes of a part; the last one, with the loss, may have fewer.
    """
    found, stop = {}, HEAD + starts[-1]
    for l in range(len(starts) - 1, 0, -1):
        start = HEAD + starts[l - 1] if l > 1 else 0
        if l == 1 or (stop - start) * itemsize >= least:
            found[l], stop = slice(start, stop), start
    return found
