"""The memory of a network: where each layer lies in the flat θ, and the buffers of one step."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .architecture import Architecture

Buffers = list[Any]

_ALIGNMENT = 16  # elements from the start of one layer in θ to the next, a multiple: 64 bytes of float32


class Layout:
    """Where W_l and b_l of every layer lie in one flat vector: b_l right behind W_l, so that [W_l; b_l] is one view.

    Args:
        shapes: (n_{l-1}, n_l) of every W_l.
    """

    def __init__(self, shapes: list[tuple[int, int]]) -> None:
        self.shapes = shapes
        self.starts = [0]
        for m, n in self.shapes:
            self.starts.append(-(-(self.starts[-1] + m * n + n) // _ALIGNMENT) * _ALIGNMENT)

    @property
    def size(self) -> int:
        """Elements of the flat vector, with what lies between the layers."""
        return self.starts[-1]

    def views(self, flat: Any) -> list[tuple[Any, Any]]:
        """Return [(W_1, b_1), ...] as views of a flat vector."""
        return [
            (flat[start : start + m * n].reshape(m, n), flat[start + m * n : start + m * n + n])
            for start, (m, n) in zip(self.starts, self.shapes, strict=False)
        ]


class Workspace:
    """The buffers of a step on N examples; every step overwrites them. Lists are indexed by layer, 1..L.

    The examples may be part of a larger batch, over which the mean is taken: `weigh` is then told of all of it.

    Args:
        architecture: of the network whose step it is.
        backend: where the buffers are.
        rows: N, the most examples a step may have.
        batch: the most examples of the batch that these are part of; N if it is None.
        training: False where only the forward pass and the loss are to run.
        dropout: True where the step has masks.
        shares_penalty: True where the penalty is divided by what the examples of a batch weigh together.

    Attributes:
        z: (N, n_l); the same array as a where the derivative does not use z.
        a: (N, n_l).
        h: (N, n_l), what the next layer is given: a_l, or its product with the mask; h[0] is x.
        mask: (N, n_l) of dropout, or None.
        delta: (N, n_l).
        y: (N, n_L), the targets.
        weight: what each row counts in the mean loss: a number, or (N, 1).
        value: (), the loss, written by every step.
        total: (), the sum of the sample weights, written by every step that has such.
        l2: λ of the penalty of the batch, divided by the number of examples where they share it and have no weights.
        divisor: `total` where they share it and have weights, else None: what the step is yet to divide λ by.
    """

    def __init__(
        self,
        architecture: Architecture,
        backend: Any,
        rows: int,
        *,
        batch: int | None = None,
        training: bool = True,
        dropout: bool = False,
        shares_penalty: bool = False,
    ) -> None:
        L, dtype, zeros = len(architecture.shapes), architecture.dtype, backend.zeros
        stored = backend.storage(dtype)
        shapes = [(rows, n) for n in architecture.sizes]
        keeps_z = [False, *(row.needs_z for row in architecture.activations)]
        keeps_z[L] |= architecture.loss.fits(architecture.activations[-1])
        dropped = [dropout and 0 < l < L for l in range(L + 1)]
        self.rows, self.dropout, self.shares_penalty = rows, dropout, shares_penalty
        self._lambda, self.l2 = architecture.l2, architecture.l2
        self.divisor: Any = None
        self._backend = backend
        self._share = 1.0 / (shapes[L][1] if architecture.loss.over_outputs == "mean" else 1)
        self.a: Buffers = [None, *(zeros(shape, stored) for shape in shapes[1:])]
        self.z: Buffers = [zeros(shapes[l], stored) if keeps_z[l] else self.a[l] for l in range(L + 1)]
        self.mask: Buffers = [zeros(shapes[l], stored) if dropped[l] else None for l in range(L + 1)]
        self.h: Buffers = [zeros(shapes[l], stored) if dropped[l] else self.a[l] for l in range(L + 1)]
        self.delta: Buffers = [zeros(shapes[l], stored) if l and (training or l == L) else None for l in range(L + 1)]
        self.weights = zeros((batch or rows, 1), dtype)
        self.y: Any = None
        self.weight: Any = None
        self.value, self.total = zeros((), dtype), zeros((), dtype)
        self._part: tuple[int, Workspace] | None = None  # not itself, or its memory would wait for the collector

    def first(self, rows: int) -> Workspace:
        """Return the workspace of a smaller batch, in the same memory."""
        if rows == self.rows:
            return self
        if self._part is None or rows != self._part[0]:
            part = copy.copy(self)
            part._part, self._part = None, (rows, part)
            views: dict[int, Any] = {}  # what is one array stays one
            for name in ("z", "a", "h", "mask", "delta"):
                buffers = getattr(self, name)
                views |= {id(b): None if b is None else b[:rows] for b in buffers if id(b) not in views}
                setattr(part, name, [views[id(b)] for b in buffers])
        return self._part[1]

    def unload(self) -> None:
        """Let go of the batch, and of that of the last smaller one, which are the caller's."""
        for part in (self, self._part[1] if self._part else self):
            part.h[0] = part.y = None

    def load(self, x: Any, y: Any = None, w: Any = None) -> Workspace:
        """Set a batch of at most N rows: examples (n, n_0) as stored, targets (n, n_L), sample weights (n, 1) or None.

        Returns:
            The workspace of n rows that holds the batch.
        """
        self.weigh(len(x), w)
        return self.load_part(slice(0, len(x)), x, y)

    def weigh(self, rows: int, w: Any = None) -> None:
        """Set what each row of a batch counts in its mean: as its sample weights (n, 1) say, or alike."""
        self._weighed: Any = self._share / rows
        self._penalty, self._divisor = self._lambda, None
        if w is not None:
            self._weighed = self.weights[:rows]
            self._backend.mean_weights(w, self._share, self.total, self._weighed)
            self._divisor = self.total if self.shares_penalty else None
        elif self.shares_penalty:
            self._penalty = self._lambda / rows

    def load_part(self, part: slice, x: Any, y: Any = None) -> Workspace:
        """Set part of the batch that was weighed: its examples and targets. The penalty counts with the first row.

        Returns:
            The workspace of so many rows that holds the part.
        """
        ws = self.first(len(x))
        ws.value, ws.total, ws.divisor = self.value, self.total, self._divisor
        ws.h[0], ws.y = x, y
        ws.weight = self._weighed if isinstance(self._weighed, float) else self._weighed[part]
        ws.l2 = 0.0 if part.start else self._penalty
        return ws
