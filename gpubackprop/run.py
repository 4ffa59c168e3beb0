"""One training run: the data, the buffers of its steps, the optimizer's state, and where it is."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from .backends.numpy import dropout_key
from .network import Network
from .optimizers import Fold, Optimizer
from .streaming import Held, Window, Windows
from .workspace import Workspace

STEPS_AT_ONCE = 1024  # for which the optimizer's numbers are computed and sent to a device together


class Run:
    """The steps of a training run.

    A portion is a number of steps that a backend takes in one go: one on NumPy, as many as a graph holds on CUDA. What
    changes from portion to portion, the order of the examples and the optimizer's numbers, is put where the steps read
    it, and their losses are taken from where they write them, so that a recording of the steps can be repeated.

    Args:
        net: the network, trained in place.
        x: examples (M, n_0), on NumPy SciPy's sparse rows too; or `Windows` of all three.
        y: targets (M, n_L); None beside windows, as w is.
        w: sample weights (M, 1), or None.
        optimizer: the optimizer.
        batch_size: N, at most M.
        shuffle: whether each epoch goes over the examples in a new order.
        seed: of the order and of dropout: an integer, None, or a generator of NumPy's, old or new, to draw from.
        shares_penalty: whether the penalty of a batch is divided by what its examples weigh together: λ/2 Σ W² / Σ w.
    """

    def __init__(
        self,
        net: Network,
        x: Any,
        y: Any,
        w: Any,
        optimizer: Optimizer,
        batch_size: int,
        shuffle: bool,
        seed: int | numpy.random.RandomState | numpy.random.Generator | None,
        *,
        shares_penalty: bool = False,
    ) -> None:
        self.net, self.optimizer, self.batch_size = net, optimizer, batch_size
        self.windows: Held | Windows = x if isinstance(x, Windows) else Held([net.backend.narrow(x), y, w])
        self.data = self.windows.arrays
        dropout = net.architecture.dropout > 0
        self.workspace = Workspace(
            net.architecture, net.backend, batch_size, dropout=dropout, shares_penalty=shares_penalty
        )
        self.validation: Workspace | None = None
        self.kept, self.before = net.theta.copy(), net.theta.copy()
        self.rng: Any = seed
        if seed is None or isinstance(seed, int):
            self.rng = numpy.random.default_rng(seed)
        else:
            seed = int.from_bytes(seed.bytes(8), "little") if dropout else 0
        self.dropout_key = dropout_key(seed)
        self.shuffle, self.order = shuffle, numpy.arange(min(self.windows.rows or batch_size, self.windows.capacity))
        self.t = self.taken = self.samples = 0
        self._buffers()

    def _buffers(self) -> None:
        """Make what the steps read and write besides the workspace."""
        zeros, dtype, N = self.net.backend.zeros, self.net.dtype, self.batch_size
        steps = -(-(self.windows.rows or self.windows.capacity) // N)
        self.portion = min(steps, self.net.backend.portion(self.net.flops(N)))
        # One batch of all examples in order is the data itself; any other is gathered, to lie where recordings read it.
        streams = isinstance(self.windows, Windows)
        self.gathers = self.shuffle or steps > 1 or streams or hasattr(self.data[0], "toarray")
        self.slots = zeros((len(self.optimizer.slots), self.net.layout.size), dtype)
        self.fold = self._fold()
        self.gradients = self.net.layout.views(self._target())
        self.batch = [
            zeros((N, a.shape[1]), str(a.dtype)) if self.gathers and a is not None else None for a in self.data
        ]
        self.rows = zeros(self.portion * N, "int64")
        self.hyper = zeros((self.portion, 2 if self.fold else len(self.optimizer.scalar_names)), dtype)
        self.first: Any = zeros((), "int64")
        self.losses, self.totals = zeros(steps, dtype), zeros(steps, dtype)
        figures = zeros((self.portion, 2), dtype)  # of each step: its loss, and the sum of its sample weights
        self.figures, self.values = figures, [[row[j : j + 1].reshape(()) for j in (0, 1)] for row in figures]
        self.recordings: dict[tuple[int, int, int], Callable[[], None]] = {}

    def _fold(self) -> Fold | None:
        """Return how the update is part of the products of the gradient, or None where it follows them."""
        net, fold = self.net, self.optimizer.fold
        if fold is None or net.architecture.l2:  # the penalty's gradient is added after the product
            return None
        return fold if net.backend.folds(self.optimizer, net.layout.shapes, self.batch_size, net.dtype) else None

    def _target(self) -> Any:
        """Return what the backward pass writes: the gradient, or what the update would add it to."""
        if self.fold is None:
            return self.net.gradient
        return self.slots[0] if self.fold.velocity else self.net.theta

    @property
    def state(self) -> tuple[int, numpy.ndarray]:
        """How many steps were taken, and what the optimizer keeps (its slots, P), with which another run can go on."""
        return self.t, numpy.array(self.net.backend.to_numpy(self.slots))

    def go_on(self, t: int, slots: numpy.ndarray) -> None:
        """Take up the `state` of another run on the same network and optimizer."""
        self.t, self.slots[...] = t, self.net.backend.asarray(slots, self.net.dtype)

    @contextlib.contextmanager
    def undone_by_failure(self) -> Iterator[None]:
        """Put back the parameters from before training where it fails: memory runs out, or a schedule has no rate."""
        try:
            yield
        except Exception:
            self.net.backend.join()  # what runs beside may be changing them
            self.net.theta[...] = self.before
            raise

    # -- an epoch ------------------------------------------------------------------------------------------------

    def epoch(self, interrupted: Callable[[], bool]) -> float:
        """Take one step per batch; return the mean loss."""
        self.net._narrowed()
        self.taken = self.samples = 0
        with contextlib.closing(self.windows.epoch(self.rng if self.shuffle else None)) as windows:
            for window in windows:
                if not self._go_through(window, interrupted):
                    break
        return self._mean_loss()

    def _go_through(self, window: Window, interrupted: Callable[[], bool]) -> bool:
        """Take the steps of a window; return whether all were taken."""
        order, done = self._drawn(window.rows), 0
        steps, at_once = -(-window.rows // self.batch_size), STEPS_AT_ONCE // self.portion * self.portion
        self.data = window.arrays
        self._make_room(self.taken + steps)
        for count, rows in self._portions(window.rows):
            if interrupted():
                return False
            if done % at_once == 0:
                table = self._table(min(at_once, steps - done))
            start = done * self.batch_size
            chosen = None if order is None else order[start : start + count * rows]
            self._take(window.buffer, chosen, table[done % at_once :][:count], rows)
            done += count
        return True

    def _drawn(self, rows: int) -> Any:
        """Return in which order to go over so many examples, on the backend; None where they need not be gathered."""
        if len(self.order) != rows:
            self.order = numpy.arange(rows)
        if self.shuffle:
            self.rng.shuffle(self.order)
        return self.net.backend.asarray(self.order, "int64") if self.gathers else None

    def _make_room(self, steps: int) -> None:
        """Have room for the losses of so many steps of an epoch, twice as much where it was not known."""
        if steps > len(self.losses):
            for name in ("losses", "totals"):
                room = self.net.backend.zeros(max(steps, 2 * len(self.losses)), self.net.dtype)
                room[: self.taken] = getattr(self, name)[: self.taken]
                setattr(self, name, room)

    def _portions(self, examples: int) -> Iterator[tuple[int, int]]:
        """Go through the portions of a window: how many steps, on how many rows each."""
        full, rest = divmod(examples, self.batch_size)
        for start in range(0, full, self.portion):
            yield min(self.portion, full - start), self.batch_size
        if rest:
            yield 1, rest

    def _table(self, steps: int) -> Any:
        """Return what the update is given in each of the next steps (steps, its scalars)."""
        table = [self._scalars(t) for t in range(self.t, self.t + steps)]
        return self.net.backend.asarray(table, self.net.dtype)

    def _scalars(self, t: int) -> list[float]:
        """Return what the update of step t is given: the numbers of its formula, or α and β where it is folded."""
        h = self.optimizer.hyper(t)
        if self.fold is not None:
            return [-h["rate"], self.fold.keeps]
        return [h[name] for name in self.optimizer.scalar_names]

    def _mean_loss(self) -> float:
        """Return the mean loss of the steps taken in this epoch; NaN where there was none."""
        losses, _, weights = self.figures_of_steps
        total = float(weights.sum())
        return float(losses @ weights) / total if total else math.nan

    @property
    def figures_of_steps(self) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """Loss, examples and their weight in each step of the last epoch; an example has the weight 1 unless told."""
        counts = numpy.full(self.taken, float(self.batch_size))
        counts[-1:] -= self.taken * self.batch_size - self.samples
        losses, totals = (
            self.net.backend.to_numpy(x[: self.taken]).astype("float64") for x in (self.losses, self.totals)
        )
        return losses, counts, counts if self.data[2] is None else totals

    # -- its steps -----------------------------------------------------------------------------------------------

    def _take(self, buffer: int, order: Any, hyper: Any, rows: int) -> None:
        """Take the steps of a portion, one for each row of `hyper`, on examples of a buffer in an order."""
        backend, count, taken = self.net.backend, len(hyper), self.taken
        if order is not None:
            self.rows = backend.put(self.rows, order)
        self.hyper, self.first = backend.put(self.hyper, hyper), backend.put(self.first, self.t)
        if (count, rows, buffer) not in self.recordings:
            self.recordings[count, rows, buffer] = backend.record(functools.partial(self._steps, count, rows))
        self.recordings[count, rows, buffer]()
        self.losses[taken : taken + count] = self.figures[:count, 0]
        if self.data[2] is not None:
            self.totals[taken : taken + count] = self.figures[:count, 1]
        self.t, self.taken, self.samples = self.t + count, taken + count, self.samples + count * rows

    def _steps(self, count: int, rows: int) -> None:
        for k in range(count):
            self.step(k, rows)

    def step(self, k: int, rows: int) -> None:
        """Take the k-th step of a portion, on so many examples."""
        net, backend = self.net, self.net.backend
        self.workspace.value, self.workspace.total = self.values[k]
        ws = self.workspace.load(*self._batch(k, rows))
        for l, mask in enumerate(ws.mask):
            if mask is not None:
                backend.draw_mask(self.dropout_key, self.first, k, l, net.architecture.dropout, mask)
        net._forward(ws)
        if self.fold is None:
            net._backward(ws, self.gradients)
            backend.update(self.optimizer, self.hyper[k], net.theta, net.gradient, self.slots, net._narrow)
            return
        net._backward(ws, self.gradients, self.hyper[k])
        if self.fold.velocity:
            backend.add(self.slots[0], net.theta, net._narrow)
        else:
            net._narrowed()

    def _batch(self, k: int, rows: int) -> list[Any]:
        """Return the examples, targets and weights of a step: all of the data, or rows gathered from it."""
        if not self.gathers:
            return self.data
        batch = [a if a is None else a[:rows] for a in self.batch]
        for source, out in zip(self.data, batch, strict=True):
            if source is not None:
                self.net.backend.gather(source, self.rows[k * rows : (k + 1) * rows], out)
        return batch

    # -- between epochs ------------------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """The rate of the last step."""
        return self.optimizer.rate(max(self.t - 1, 0))

    def keep_if_finite(self, loss: float) -> bool:
        """Remember the parameters if they and the loss are finite, else go back to those remembered."""
        theta = self.net.theta
        finite = math.isfinite(loss) and self.net.backend.is_finite(theta)
        source, target = (theta, self.kept) if finite else (self.kept, theta)
        target[...] = source
        return finite

    def evaluate(self, x: Any, y: Any, w: Any) -> float:
        """Return the loss of the validation data."""
        if self.validation is None:
            self.validation = self.net._evaluation_workspace(len(x))
        return self.net._evaluate(self.validation, x, y, w)
