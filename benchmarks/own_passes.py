"""Our own epochs, backward passes and predictions, as contenders."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy
from own_steps import OPTIMIZERS, Ours, _without
from workloads import EPOCH_BATCHES, PASSES, STREAMED_BATCHES, STREAMED_WINDOWS, Data, Workload, epoch_data, network

import gpubackprop as gb
from gpubackprop import streaming
from gpubackprop.workspace import Workspace

PARTS = {  # of a step: our operations
    "forward": ("forward",),
    "deltas": ("output_delta", "delta"),
    "weight gradients": ("weight_gradient", "join"),
    "update": ("update", "add"),
}


class _Pass:
    """What all have: a network with the weights to begin with, on a backend."""

    name = "gpubackprop"

    def __init__(self, backend: str) -> None:
        self._backend = backend

    def unavailable(self, workload: Workload) -> str | None:
        """Return why the backend cannot take part, or None."""
        return _without(self._backend, workload.precision)

    def wait(self) -> None:
        """Wait until all is done."""
        self._net.backend.synchronize()

    def prepare(self, workload: Workload, data: Data) -> None:
        """Make the network."""
        self._workload, self._net = workload, network(workload, self._backend)


class Epochs(_Pass):
    """`fit` over shuffled data, so many epochs in a call.

    Args:
        backend: "numpy" or "cuda".
        transfer: whether each call is given arrays of the host; else they lie on the backend already.
        batches: of an epoch.
    """

    def __init__(self, backend: str, transfer: bool = False, batches: int = EPOCH_BATCHES) -> None:
        super().__init__(backend)
        self._transfer, self._batches = transfer, batches

    def prepare(self, workload: Workload, data: Data) -> None:
        """Make the network, and put the data where they are to be."""
        super().prepare(workload, data)
        x, y = epoch_data(data, self._batches)
        self._data: list[Any] = [x, y]
        if not self._transfer:
            self._data = [self._net.backend.asarray(a, str(a.dtype)) for a in (x, y)]

    def _fit(self, epochs: int, shuffle: bool) -> gb.History:
        optimizer = OPTIMIZERS[self._workload.optimizer](self._workload.rate)
        return gb.fit(
            self._net,
            *self._data,
            optimizer=optimizer,
            epochs=epochs,
            batch_size=self._workload.rows,
            shuffle=shuffle,
            tol=None,
            progress=False,
            stream=self.streams,
        )

    streams = False

    def loss_curve(self) -> list[float]:
        """Return the mean losses of the first epochs, in order."""
        return self._fit(PASSES, False).loss

    def steps(self, k: int) -> None:
        """Go k times over the data."""
        self._fit(k, True)


class InMemory(Epochs):
    """Epochs of as many data as `Streamed` has, on the backend already."""

    name = "in memory"

    def __init__(self, backend: str) -> None:
        super().__init__(backend, batches=STREAMED_BATCHES)


class Streamed(Epochs):
    """Epochs of data in .npy files, a quarter of them at a time.

    Args:
        backend: "numpy" or "cuda".
        folder: for the files.
    """

    streams = True

    def __init__(self, backend: str, folder: Path) -> None:
        super().__init__(backend, transfer=True, batches=STREAMED_BATCHES)
        self._folder = folder

    def prepare(self, workload: Workload, data: Data) -> None:
        """Make the network, and write the data."""
        super().prepare(workload, data)
        paths = [self._folder / name for name in ("x.npy", "y.npy")]
        for path, array in zip(paths, self._data, strict=True):
            numpy.save(path, array)
        self._data = paths

    def _fit(self, epochs: int, shuffle: bool) -> gb.History:
        sizes, rows = self._workload.sizes, STREAMED_BATCHES * self._workload.rows
        window = rows // STREAMED_WINDOWS * streaming.bytes_of_row((sizes[0], sizes[-1]), "float32")
        with mock.patch.object(streaming, "WINDOW_BYTES", window):
            return super()._fit(epochs, shuffle)


class Inference(_Pass):
    """`Network.predict` of a batch that lies on the backend."""

    def prepare(self, workload: Workload, data: Data) -> None:
        """Make the network, and put the batch on the backend."""
        super().prepare(workload, data)
        rows = slice(0, workload.rows)
        self._x, self._y = self._net.backend.asarray(data.x[rows], "float32"), data.y[rows]

    def _predict(self) -> Any:
        return self._net.predict(self._x, batch_size=self._workload.rows)

    def loss_curve(self) -> list[float]:
        """Return the loss of the batch."""
        p = self._net.backend.to_numpy(self._predict())
        return [float(-numpy.log(p[numpy.arange(len(p)), self._y]).mean())]

    def steps(self, k: int) -> None:
        """Predict k times."""
        for _ in range(k):
            self._predict()


class Backward(_Pass):
    """Equations 3 to 6 after a forward pass, recorded where steps are."""

    def prepare(self, workload: Workload, data: Data) -> None:
        """Take a forward pass."""
        super().prepare(workload, data)
        net, rows = self._net, slice(0, workload.rows)
        x, y, _ = net._batch(data.x[rows], data.y[rows], None)
        with net.backend.running(workload.flops):
            self._ws = Workspace(net.architecture, net.backend, workload.rows).load(net.backend.narrow(x), y)
            net._narrowed()
            net._forward(self._ws)
        gradients = net.layout.views(net.gradient)
        self._recorded = net.backend.record(lambda: net._backward(self._ws, gradients))

    def loss_curve(self) -> list[float]:
        """Return the loss of the batch, and the norm of ∂L/∂θ: what is timed is that."""
        self.steps(1)
        return [float(self._ws.value), float(numpy.linalg.norm(self._net.backend.to_numpy(self._net.gradient)))]

    def steps(self, k: int) -> None:
        """Enqueue k backward passes."""
        with self._net.backend.running(self._workload.flops):
            for _ in range(k):
                self._recorded()


# -- what a step consists of -------------------------------------------------------------------------------------------


def breakdown(ours: Ours, steps: int, rounds: int) -> dict[str, float] | None:
    """Return how the time of a step is divided, by a clock around each operation of the backend.

    What is part of none, loops, batches and the losses of an epoch, is the rest; so are the clocks themselves. Where an
    update is part of the gradient's own products it counts there.

    Args:
        ours: prepared.
        steps: in a round.
        rounds: how often; medians count.

    Returns:
        Seconds by the name of the part, or None where the host does not run the operations one by one.
    """
    if ours._net.backend.name != "numpy":
        return None
    measured = []
    for _ in range(rounds):
        with _clocks(ours) as spent:
            begin = time.perf_counter()
            ours.steps(steps)
            measured.append({**spent, "rest": time.perf_counter() - begin - sum(spent.values())})
    return {part: statistics.median(m[part] for m in measured) / steps for part in (*PARTS, "rest")}


@contextmanager
def _clocks(ours: Ours) -> Iterator[dict[str, float]]:
    """Put a clock around the operations of steps, which nothing recorded passes by; yield the seconds of each part."""
    backend, recordings = ours._net.backend, ours._run.recordings
    spent = dict.fromkeys(PARTS, 0.0)
    operations = {name: part for part, names in PARTS.items() for name in names}
    kept = dict(recordings)
    recordings.clear()
    backend.record = lambda work: work
    for name, part in operations.items():
        setattr(backend, name, _clocked(getattr(backend, name), spent, part))
    try:
        yield spent
    finally:
        for name in ("record", *operations):
            delattr(backend, name)
        recordings.clear()
        recordings.update(kept)


def _clocked(operation: Callable[..., Any], spent: dict[str, float], part: str) -> Callable[..., Any]:
    def run(*arguments: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        result = operation(*arguments, **named)
        spent[part] += time.perf_counter() - begin
        return result

    return run
