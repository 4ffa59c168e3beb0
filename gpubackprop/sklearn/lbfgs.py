"""Training by SciPy's L-BFGS, which scikit-learn calls with a loss and its gradient: here is what computes them."""

from __future__ import annotations

import functools
import math
import warnings
import weakref
from typing import TYPE_CHECKING, Any

import numpy

from ..network import Network
from ..training import _interruptible
from ..workspace import Workspace
from .network import INTERRUPTED, NEGATIVE_WEIGHT, NO_WEIGHT, HasNetwork, batch

if TYPE_CHECKING:
    from collections.abc import Callable


class TrainsByLBFGS(HasNetwork):
    """The part of scikit-learn's estimators that trains with ``solver="lbfgs"``."""

    def _fit_lbfgs(self: Any, X: Any, y: Any, sample_weight: Any, *rest: Any) -> None:
        """Minimise by SciPy's L-BFGS, which leaves parameters in double precision; the loss has the type of X."""
        if self.dropout or self.optimizer is not None:
            raise ValueError("dropout and optimizer are for the solvers 'sgd' and 'adam', got solver='lbfgs'")
        total = float(len(y) if sample_weight is None else sample_weight.sum())
        if total <= 0:
            raise ValueError(NEGATIVE_WEIGHT) if total else ZeroDivisionError(NO_WEIGHT)
        net = self._training_network(str(X.dtype), self.alpha / total)
        context = self._init_callback_context()
        context.call_on_fit_task_begin(estimator=self, **self._given)
        with _interruptible() as interrupted:
            self._objective = Objective(net, *batch(net, X, y, sample_weight, dense=True), interrupted)
            try:
                super()._fit_lbfgs(X, y, sample_weight, *rest)  # type: ignore[misc]
            except KeyboardInterrupt:
                if self._objective.calls:
                    self.n_iter_, self.loss_ = self._objective.calls, self._objective.least
                    self._unpack(self._objective.best)
                warnings.warn(INTERRUPTED, stacklevel=4)
            finally:
                del self._objective
        self._adopt(self._network_of(self._dtype))
        fitted = functools.partial(self._fitted, self._network[0])
        context.call_on_fit_task_end(estimator=self, reconstruction_attributes=fitted, **self._given)

    def _loss_grad_lbfgs(self: Any, packed: numpy.ndarray, *rest: Any) -> tuple[float, numpy.ndarray]:
        """Return the loss and its gradient at packed parameters."""
        return self._objective(packed)


class Objective:
    """The loss of all examples and its gradient, as a function of scikit-learn's packed parameters.

    Args:
        net: the network, whose parameters it changes.
        x: examples (N, n_0).
        y: targets (N, n_L).
        w: sample weights (N, 1), or None.
        interrupted: whether Ctrl-C was pressed.

    Attributes:
        calls: how often it was computed: at least as often as L-BFGS has taken a step.
        least: the least loss so far.
        best: where it was.
    """

    def __init__(self, net: Network, x: Any, y: Any, w: Any, interrupted: Callable[[], int]) -> None:
        self.net, self.interrupted = net, interrupted
        self.calls, self.least, self.best = 0, math.inf, numpy.empty(0)
        with (running := net.backend.running(0.0)), running:
            self.workspace = Workspace(net.architecture, net.backend, len(x)).load(x, y, w)
        self.gradients = net.layout.views(net.gradient)
        proxy: Any = weakref.proxy(self)  # no cycle: memory is freed at once
        self.step = net.backend.record(functools.partial(Objective._step, proxy))

    def _step(self) -> None:
        self.net._forward(self.workspace)
        self.net._backward(self.workspace, self.gradients)

    def __call__(self, packed: numpy.ndarray) -> tuple[float, numpy.ndarray]:
        """Return the loss and its gradient at (all W_l, all b_l) in one vector."""
        backend, start = self.net.backend, 0
        with (running := backend.running(self.net.flops(len(self.workspace.y)))), running:
            for view in _by_kind(self.net.parameters):
                view[...] = backend.asarray(packed[start : start + view.size].reshape(view.shape), self.net.dtype)
                start += view.size
            self.step()
            gradient = numpy.concatenate([backend.to_numpy(x).ravel() for x in _by_kind(self.gradients)])
            loss = float(self.workspace.value)
        self.calls += 1
        if loss < self.least or not self.best.size:
            self.least, self.best = loss, packed.copy()
        if self.interrupted():
            raise KeyboardInterrupt
        return loss, gradient


def _by_kind(parameters: list[tuple[Any, Any]]) -> list[Any]:
    """Return [W_1, ..., W_L, b_1, ..., b_L]."""
    return [pair[j] for j in (0, 1) for pair in parameters]
