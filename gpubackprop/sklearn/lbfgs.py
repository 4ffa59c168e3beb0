"""Training by SciPy's L-BFGS, which scikit-learn calls with a loss and its gradient: here is what computes them."""

from __future__ import annotations

from typing import Any

import numpy

from ..network import Network
from ..workspace import Workspace
from .network import NO_WEIGHT, HasNetwork, batch


class TrainsByLBFGS(HasNetwork):
    """The part of scikit-learn's estimators that trains with ``solver="lbfgs"``."""

    def _fit_lbfgs(self: Any, X: Any, y: Any, sample_weight: Any, *rest: Any) -> None:
        """Minimise by SciPy's L-BFGS, which leaves parameters in double precision; the loss has the type of X."""
        if self.dropout or self.optimizer is not None:
            raise ValueError("dropout and optimizer are for the solvers 'sgd' and 'adam', got solver='lbfgs'")
        total = float(len(y) if sample_weight is None else sample_weight.sum())
        if not total:
            raise ZeroDivisionError(NO_WEIGHT)
        net = self._network_of(str(X.dtype), self.alpha / total)
        self._objective = Objective(net, *batch(net, X, y, sample_weight, dense=True))
        try:
            super()._fit_lbfgs(X, y, sample_weight, *rest)  # type: ignore[misc]
        finally:
            del self._objective
        self._adopt(self._network_of(self._dtype))

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
    """

    def __init__(self, net: Network, x: Any, y: Any, w: Any) -> None:
        self.net = net
        with net.backend.running(0.0):
            self.workspace = Workspace(net.architecture, net.backend, len(x)).load(x, y, w)
        self.gradients = net.layout.views(net.gradient)
        self.step = net.backend.record(self._step)

    def _step(self) -> None:
        self.net._forward(self.workspace)
        self.net._backward(self.workspace, self.gradients)

    def __call__(self, packed: numpy.ndarray) -> tuple[float, numpy.ndarray]:
        """Return the loss and its gradient at (all W_l, all b_l) in one vector."""
        backend, start = self.net.backend, 0
        with backend.running(self.net.flops(len(self.workspace.y))):
            for view in _by_kind(self.net.parameters):
                view[...] = backend.asarray(packed[start : start + view.size].reshape(view.shape), self.net.dtype)
                start += view.size
            self.step()
            gradient = numpy.concatenate([backend.to_numpy(x).ravel() for x in _by_kind(self.gradients)])
            return float(self.workspace.value), gradient


def _by_kind(parameters: list[tuple[Any, Any]]) -> list[Any]:
    """Return [W_1, ..., W_L, b_1, ..., b_L]."""
    return [pair[j] for j in (0, 1) for pair in parameters]
