"""One training run: the data, the buffers of its steps, the optimizer's state, and where it is."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import numpy

from .backends.numpy import dropout_key
from .errors import MicroBatchWarning, OutOfMemory
from .network import Network
from .optimizers import Optimizer
from .streaming import Held, Window, Windows
from .streams import warn
from .sums import Sums
from .workspace import Workspace

if TYPE_CHECKING:
    from .sums import Reducer

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
        repeatable: whether an epoch that is not finite may be repeated, from a copy of what it starts from.
        reducer: adds up what the ranks of a group leave, each with its part of every batch; None where there is one.

    Attributes:
        t: steps taken.
        begun: whether an epoch is under way, its order drawn.
        taken: steps taken of it.
        steps: of an epoch; of batches whose number is not known, of the last one.
        samples: examples of an epoch, in the same way.
        factor: what the rates of the schedule are multiplied by.
        kept: the parameters of the best epoch so far; before the first epoch the initial ones.
        start: the parameters and slots from which the epoch under way started, if it may be repeated; otherwise None.
        at_once: examples in the buffers at once. Where memory does not suffice for all that a rank has of a batch, they
            are fewer, and the gradients of parts are added up.
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
        repeatable: bool = False,
        reducer: Reducer | None = None,
    ) -> None:
        self.net, self.optimizer, self.batch_size = net, optimizer, batch_size
        self.windows: Held | Windows = x if isinstance(x, Windows) else Held([net.backend.narrow(x), y, w])
        self.data = self.windows.arrays
        self.reducer, self.shares_penalty = reducer, shares_penalty
        self.validation: Workspace | None = None
        self.kept, self.before = net.theta.copy(), net.theta.copy()
        self.rng: Any = seed
        if seed is None or isinstance(seed, int):
            self.rng = numpy.random.default_rng(seed)
        else:
            seed = int.from_bytes(seed.bytes(8), "little") if net.architecture.dropout else 0
        self.dropout_key = dropout_key(seed)
        self.shuffle, self.samples = shuffle, self.windows.rows or self.windows.capacity
        self.t, self.begun, self.taken, self.factor = 0, False, 0, 1.0
        self._under_way: Generator[None] | None = None
        self._buffers()
        self.start = (net.theta.copy(), self.slots.copy()) if repeatable else None

    def _buffers(self) -> None:
        """Make what the steps read and write besides the workspace."""
        zeros, dtype, N = self.net.backend.zeros, self.net.dtype, self.batch_size
        own = self.reducer.group.most(N) if self.reducer else N
        self.steps = steps = -(-self.samples // N)
        self.portion = min(steps, self.net.backend.portion(self.net.flops(own)))
        # One batch of all examples in order is the data itself; any other is gathered, to lie where recordings read it.
        streams = isinstance(self.windows, Windows)
        self.gathers = self.shuffle or steps > 1 or streams or hasattr(self.data[0], "toarray")
        self.slots = zeros((len(self.optimizer.slots), self.net.layout.size), dtype)
        self._make_room(own)
        self.rows = zeros(self.portion * N, "int64")
        self.hyper = zeros((self.portion, len(self.optimizer.scalar_names)), dtype)
        self.first: Any = zeros((), "int64")
        self.losses, self.totals = zeros(steps, dtype), zeros(steps, dtype)
        figures = zeros((self.portion, 2), dtype)  # of each step: its loss, and the sum of its sample weights
        self.figures, self.values = figures, [[row[j : j + 1].reshape(()) for j in (0, 1)] for row in figures]
        self.recordings: dict[tuple[int, int, int], Callable[[], None]] = {}

    def _make_room(self, rows: int) -> None:
        """Make the buffers of so many examples, or of half as many as long as memory does not suffice."""
        self.at_once = rows
        while not self._has_room(several=self.at_once < rows):
            self.at_once = -(-self.at_once // 2)
        if self.at_once < rows:
            warn(
                f"memory does not suffice for batches of {rows:,} examples: {self.at_once:,} at a time are taken, and "
                "their gradients added up",
                MicroBatchWarning,
                stacklevel=6,
            )

    def _has_room(self, several: bool) -> bool:
        """Make the buffers of as many examples as are taken at once; return whether memory suffices."""
        net, N = self.net, self.batch_size
        try:
            workspace = Workspace(
                net.architecture,
                net.backend,
                self.at_once,
                batch=N,
                dropout=net.architecture.dropout > 0,
                shares_penalty=self.shares_penalty,
            )
            rows = (self.at_once, self.at_once, N)  # a mean over the batch needs all of its weights
            batch: list[Any] = [
                net.backend.zeros((n, a.shape[1]), str(a.dtype)) if self.gathers and a is not None else None
                for n, a in zip(rows, self.data, strict=True)
            ]
            sums = Sums(net, self.reducer, self.at_once, several) if several or self.reducer else None
            gradient = sums.gradient if sums else net.backend.zeros(net.layout.size, net.dtype)
            if several:  # formulas will want some memory too
                net.backend.zeros((self.at_once, max(net.sizes)), net.dtype)
        except OutOfMemory:
            if self.at_once == 1:
                raise
            return False
        self.workspace, self.batch, self.sums = workspace, batch, sums
        self.gradient, self.gradients = gradient, net.layout.views(gradient)
        return True

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

    def epoch(self, paused: Callable[[], int]) -> float:
        """Take one step per batch; return the mean loss. Paused between portions, the next call takes up the rest."""
        self.net._narrowed()
        if self._under_way is None:
            self._under_way = self._portions_taken(again=self.begun)
        self.begun, start = True, self.taken
        for _ in self._under_way:
            if self.taken > start and paused():
                return self._mean_loss(self.taken)
        loss = self._mean_loss(self.steps)
        self.begun, self.taken, self._under_way = False, 0, None
        return loss

    def close(self) -> None:
        """Leave an epoch that is under way, whose windows are being read."""
        if self._under_way is not None:
            self._under_way.close()

    def _portions_taken(self, again: bool) -> Generator[None]:
        """Take the portions that are left of an epoch, each when the next element is asked for."""
        a_window = -(-self.windows.capacity // self.batch_size)  # steps
        before, left = divmod(self.taken, a_window)
        rng, seen = self.rng if self.shuffle else None, before * self.windows.capacity
        with contextlib.closing(self.windows.epoch(rng, again, before)) as windows:
            for window in self._alike(windows):
                yield from self._of_window(window, left)
                left, seen = 0, seen + window.rows
        if self.windows.rows is None:
            self.steps, self.samples = self.taken, seen

    def _alike(self, windows: Iterator[Window]) -> Iterator[Window]:
        """Yield the windows; raise if another rank has another number of rows in one."""
        if self.reducer is None or not isinstance(self.windows, Windows):
            yield from windows
            return
        for k, window in enumerate(itertools.chain(windows, [None])):
            rows = window.rows if window else 0
            self.reducer.group.alike({f"rows of X in window {k} of an epoch": rows})
            if window:
                yield window

    def _of_window(self, window: Window, taken: int) -> Iterator[None]:
        """Take the portions of a window, of which so many steps were taken before."""
        self.data = window.arrays
        order = self.net.backend.asarray(window.order, "int64") if self.gathers else None
        steps, at_once = -(-window.rows // self.batch_size), STEPS_AT_ONCE // self.portion * self.portion
        self._keep_losses_of(self.taken + steps - taken)
        first = taken
        for count, rows in self._portions(window.rows, first):
            yield
            k = (taken - first) % at_once
            if k == 0:
                table = self._table(min(at_once, steps - taken))
            self._take(order, table[k:][:count], taken, rows, window.buffer)
            taken, self.taken = taken + count, self.taken + count

    def _keep_losses_of(self, steps: int) -> None:
        """Have room for the losses of so many steps of an epoch, and for twice as many where that was not known."""
        if steps > len(self.losses):
            for name in ("losses", "totals"):
                room = self.net.backend.zeros(max(steps, 2 * len(self.losses)), self.net.dtype)
                room[: self.taken] = getattr(self, name)[: self.taken]
                setattr(self, name, room)

    def _portions(self, examples: int, taken: int) -> Iterator[tuple[int, int]]:
        """Go through the portions that are left of a window: how many steps, on how many rows each."""
        full, rest = divmod(examples, self.batch_size)
        for start in range(taken, full, self.portion):
            yield min(self.portion, full - start), self.batch_size
        if rest:
            yield 1, rest

    @property
    def order(self) -> Any:
        """The order of the examples (M,) in this epoch, or the last; () where they are read in windows."""
        return self.windows.order

    @order.setter
    def order(self, order: Any) -> None:
        self.windows.order = order

    @property
    def generator(self) -> Any:
        """The state of the generator from which another run draws what is to come, and the windows of this epoch."""
        return (self.windows.drawn_from if self.begun else None) or self.rng.bit_generator.state

    def _table(self, steps: int) -> Any:
        """Return what the update is given in each of the next steps (steps, its scalars)."""
        table = [self._scalars(t) for t in range(self.t, self.t + steps)]
        if self.reducer:
            self.reducer.group.alike({f"optimizer in step {self.t + k}": row for k, row in enumerate(table)})
        return self.net.backend.asarray(table, self.net.dtype)

    def _scalars(self, t: int) -> list[float]:
        """Return the numbers of the update's formula in step t."""
        h = self.optimizer.hyper(t, self.factor)
        return [h[name] for name in self.optimizer.scalar_names]

    def _mean_loss(self, taken: int) -> float:
        """Return the mean loss of the steps taken in this epoch; NaN where there was none."""
        losses, _, weights = (x[:taken] for x in self.figures_of_steps)
        total = float(weights.sum())
        return float(losses @ weights) / total if total else math.nan

    @property
    def figures_of_steps(self) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
        """Loss, examples and their weight in each step of the last epoch; an example has the weight 1 unless told."""
        counts = numpy.full(self.steps, float(self.batch_size))
        counts[-1] -= len(counts) * self.batch_size - self.samples
        losses, totals = (
            self.net.backend.to_numpy(x[: self.steps]).astype("float64") for x in (self.losses, self.totals)
        )
        return losses, counts, counts if self.data[2] is None else totals

    # -- its steps -----------------------------------------------------------------------------------------------

    def _take(self, order: Any, hyper: Any, taken: int, rows: int, buffer: int = 0) -> None:
        """Take the steps of a portion, one for each row of `hyper`, when so many were taken before in this window."""
        backend, count, start = self.net.backend, len(hyper), taken * self.batch_size
        if order is not None:
            self.rows = backend.put(self.rows, order[start : start + count * rows])
        self.hyper, self.first = backend.put(self.hyper, hyper), backend.put(self.first, self.t)
        if (count, rows, buffer) not in self.recordings:
            work = functools.partial(Run._steps, weakref.proxy(self), count, rows)  # no cycle: memory is freed at once
            self.recordings[count, rows, buffer] = backend.record(work)
        self.recordings[count, rows, buffer]()
        if self.reducer:
            self.reducer.agree()
        of_epoch = slice(self.taken, self.taken + count)
        self.losses[of_epoch] = self.figures[:count, 0]
        if self.data[2] is not None:
            self.totals[of_epoch] = self.figures[:count, 1]
        self.t += count

    def _steps(self, count: int, rows: int) -> None:
        for k in range(count):
            self.step(k, rows)

    def step(self, k: int, rows: int) -> None:
        """Take the k-th step of a portion, on so many examples."""
        net, backend = self.net, self.net.backend
        value, self.workspace.total = self.values[k]
        self.workspace.weigh(rows, self._batch(2, k, slice(0, rows), rows))
        work = functools.partial(self._pass, k, rows)
        if self.sums:
            self.sums.add_up(rows, work, value)
        else:
            work(slice(0, rows), value, self.gradients)
        backend.update(self.optimizer, self.hyper[k], net.theta, self.gradient, self.slots, net._narrow)

    def _pass(
        self, k: int, rows: int, part: slice, value: Any, gradients: Any, done: Callable[[int], None] | None = None
    ) -> None:
        """Go forward and back over part of the rows of a step: its share of the loss and of the gradients."""
        net, backend = self.net, self.net.backend
        self.workspace.value = value
        ws = self.workspace.load_part(part, *(self._batch(j, k, part, rows) for j in (0, 1)))
        for l, mask in enumerate(ws.mask):
            if mask is not None:
                start = part.start * mask.shape[1]
                backend.draw_mask(self.dropout_key, self.first, k, l, net.architecture.dropout, mask, start)
        net._forward(ws)
        net._backward(ws, gradients, done)

    def _batch(self, which: int, k: int, part: slice, rows: int) -> Any:
        """Return the examples, the targets or the weights of part of a step's rows: views of the data, or gathered."""
        source, batch = self.data[which], self.batch[which]
        if source is None:
            return None
        if not self.gathers:
            return source[part]
        out = batch[: part.stop - part.start]
        self.net.backend.gather(source, self.rows[k * rows + part.start : k * rows + part.stop], out)
        return out

    # -- between epochs ------------------------------------------------------------------------------------------

    @property
    def learning_rate(self) -> float:
        """The rate of the last step."""
        return self.factor * self.optimizer.rate(max(self.t - 1, 0))

    def is_finite(self, loss: float) -> bool:
        """Return whether a loss and all parameters are finite."""
        return math.isfinite(loss) and bool(self.net.backend.is_finite(self.net.theta))

    def keep(self, best: bool = True) -> None:
        """Remember the state after an epoch, so that the next can be repeated; if it is the best, the parameters."""
        theta = self.net.theta
        if best:
            self.kept[...] = theta
        if self.start is not None:
            self.start[0][...], self.start[1][...] = theta, self.slots

    def keep_if_finite(self, loss: float) -> bool:
        """Remember the parameters if they and the loss are finite, otherwise put back those remembered."""
        finite = self.is_finite(loss)
        if finite:
            self.keep()
        else:
            self.net.theta[...] = self.kept
        return finite

    def put_back_best(self) -> bool:
        """Put back the parameters of the best epoch, or those from before training if their loss is lower.

        Both losses are those of the examples at hand: all of them, or the last window.

        Returns:
            Whether they are those of an epoch.
        """
        losses = []
        for theta in (self.before, self.kept):
            self.net.theta[...] = theta
            losses.append(self.evaluate(*self.data))
        if losses[1] < losses[0] or math.isnan(losses[0]):
            return True
        self.net.theta[...] = self.before
        return False

    def repeat_epoch(self) -> None:
        """Let the epoch just taken be repeated from its start, at half the rate."""
        assert self.start is not None
        self.net.theta[...], self.slots[...] = self.start
        self.t -= self.steps
        self.begun, self.factor = True, self.factor / 2

    def evaluate(self, x: Any, y: Any, w: Any) -> float:
        """Return the loss of the validation data, of which each rank of a group takes its part."""
        group = self.reducer.group if self.reducer else None
        part = group.rows(len(x)) if group else slice(0, len(x))
        if self.validation is None:
            self.validation = self.net._evaluation_workspace(max(part.stop - part.start, 1))
        total = numpy.array(self.net._total_loss(self.validation, x[part], y[part], None if w is None else w[part]))
        if group:
            group.sum(total)
        return float(total[0] / total[1])
