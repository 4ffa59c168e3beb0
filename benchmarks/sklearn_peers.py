"""scikit-learn's MLPClassifier taking the same steps, epochs and predictions. It is imported where it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import warnings
from typing import Any

import numpy
from workloads import CURVE, DISTINCT, PASSES, Data, Workload, epoch_data, tiled


class SklearnSteps:
    """scikit-learn: `partial_fit` on the batches of an epoch, in order."""

    name = "scikit-learn"

    def unavailable(self, workload: Workload) -> str | None:
        """Return why scikit-learn cannot take part, or None."""
        if importlib.util.find_spec("sklearn") is None:
            return "scikit-learn is not installed"
        return None if workload.precision == "float32" else f"no products in {workload.precision}"

    def prepare(self, workload: Workload, data: Data) -> None:
        """Make the classifier with the weights to begin with."""
        self._workload, self._data = workload, data
        self._x, self._y = tiled(data, workload.batches // DISTINCT)
        self._net = self._made(data)

    def _made(self, data: Data, **options: Any) -> Any:
        workload, neural_network = self._workload, importlib.import_module("sklearn.neural_network")
        net = neural_network.MLPClassifier(
            workload.sizes[1:-1],
            solver=workload.optimizer.lower(),
            learning_rate_init=workload.rate,
            momentum=0.0,
            alpha=0.0,
            batch_size=workload.rows,
            tol=0.0,
            n_iter_no_change=10**9,
            random_state=0,
            **{"shuffle": False, **options},
        )
        net.partial_fit(data.x[: workload.rows], data.y[: workload.rows], classes=numpy.arange(workload.sizes[-1]))
        for own, (W, b) in zip(zip(net.coefs_, net.intercepts_, strict=True), data.weights, strict=True):
            own[0][...], own[1][...] = W, b
        del net._optimizer  # of the step that only made the arrays
        return net

    def loss_curve(self) -> list[float]:
        """Return the losses of the first steps."""
        rows, losses = self._workload.rows, []
        for k in range(CURVE):
            batch = slice(k % DISTINCT * rows, (k % DISTINCT + 1) * rows)
            losses.append(float(self._net.partial_fit(self._data.x[batch], self._data.y[batch]).loss_))
        return losses

    def steps(self, k: int) -> None:
        """Take k steps, a multiple of the batches of an epoch."""
        for _ in range(k // self._workload.batches):
            self._net.partial_fit(self._x, self._y)

    def wait(self) -> None:
        """Return at once: all steps are done."""


class SklearnEpochs(SklearnSteps):
    """scikit-learn: `fit` over shuffled data, so many epochs in a call."""

    def prepare(self, workload: Workload, data: Data) -> None:
        """Make the classifier with the weights to begin with; `fit` goes on from them."""
        self._workload = workload
        self._x, self._y = epoch_data(data)
        self._net = self._made(data, warm_start=True)

    def _fit(self, epochs: int, shuffle: bool) -> Any:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it has not converged
            return self._net.set_params(max_iter=epochs, shuffle=shuffle).fit(self._x, self._y)

    def loss_curve(self) -> list[float]:
        """Return the mean losses of the first epochs, in order."""
        return [float(loss) for loss in self._fit(PASSES, False).loss_curve_[-PASSES:]]

    def steps(self, k: int) -> None:
        """Go k times over the data."""
        self._fit(k, True)


class SklearnInference(SklearnSteps):
    """scikit-learn: `predict_proba` of a batch."""

    def prepare(self, workload: Workload, data: Data) -> None:
        """Make the classifier with the weights."""
        self._workload, self._x, self._y = workload, data.x[: workload.rows], data.y[: workload.rows]
        self._net = self._made(data)

    def loss_curve(self) -> list[float]:
        """Return the loss of the batch."""
        p = self._net.predict_proba(self._x)
        return [float(-numpy.log(p[numpy.arange(len(p)), self._y]).mean())]

    def steps(self, k: int) -> None:
        """Predict k times."""
        for _ in range(k):
            self._net.predict_proba(self._x)
