"""What both estimators share: scikit-learn's own class checks and records, the network of this package computes.

The estimators are scikit-learn's classes, so that its checks, messages, draws of initial weights and attributes are its
own. Replaced are the three places where it computes: a training by batches, the loss with its gradient for L-BFGS, and
the forward pass.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy
from sklearn.base import is_classifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, SGDOptimizer
from sklearn.utils.validation import validate_data

from ..architecture import Architecture
from ..backends import resolve
from ..errors import BackendUnavailable
from ..network import PREDICT_ROWS, Network
from ..run import Run
from ..training import _interruptible
from ..workspace import Workspace
from . import rules

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_WEIGHT = "Weights sum to zero, can't be normalized"  # NumPy's words, by which scikit-learn takes its means


class OnNetwork:
    """The parts of scikit-learn's `BaseMultilayerPerceptron` that compute."""

    # -- the network ---------------------------------------------------------------------------------------------

    def _network_of(self: Any, dtype: str, l2: float = 0.0, backend: str | None = None) -> Network:
        """Return a network with the estimator's parameters."""
        output, outputs = self.out_activation_, len(self.intercepts_[-1])
        architecture = Architecture.checked(
            sizes=[len(self.coefs_[0]), *map(len, self.intercepts_)],
            activation=rules.ACTIVATIONS.get(self.activation, self.activation),
            output_activation=rules.ACTIVATIONS.get(output, output),
            loss=rules.loss_of(self.loss, output, outputs, dtype),
            l2=l2,
            dropout=0.0,
            dtype=dtype,
        )
        net = Network.__new__(Network)
        net._build(architecture, resolve(self.backend if backend is None else backend), self.precision)
        net._set_parameters(zip(self.coefs_, self.intercepts_, strict=True))
        return net

    def _adopt(self: Any, net: Network) -> None:
        """Make a network that of the estimator, and its parameters the attributes: on NumPy they are one memory."""
        parameters = net._host_parameters()
        self.coefs_, self.intercepts_ = ([pair[j] for pair in parameters] for j in (0, 1))
        if net.backend.name != "numpy":  # what is written into a copy would not be seen
            for x in (*self.coefs_, *self.intercepts_):
                x.setflags(write=False)
        self._network = net, self._identity()
        self.backend_, self.device_ = net.backend.name, net.backend.description

    def _identity(self: Any) -> list[Any]:
        """Return what a network is made of, to be compared by identity."""
        return [self.activation, self.out_activation_, *self.coefs_, *self.intercepts_]

    def _current_network(self: Any, dtype: str) -> Network:
        """Return the network in a type; another one where somebody has set other parameters."""
        kept, identity = self.__dict__.get("_network", (None, []))
        now = self._identity()
        if kept is None or len(now) != len(identity) or any(a is not b for a, b in zip(now, identity, strict=True)):
            return self._network_of(dtype)
        return kept if kept.dtype == dtype else kept._copy(kept.backend, dtype)

    # -- scikit-learn's forward pass -----------------------------------------------------------------------------

    def _forward_pass_fast(self: Any, X: Any, check_input: bool = True) -> numpy.ndarray:
        """Return the outputs (N, n_L) of examples (N, n_0), dense or sparse."""
        if check_input:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        dtype = str(numpy.result_type(X.dtype, self.coefs_[0].dtype, numpy.float32))
        net = self._current_network(dtype)
        x, rows = _examples(net, X), min(PREDICT_ROWS, X.shape[0])
        if not hasattr(x, "toarray"):
            return net.backend.to_numpy(net._outputs(x, rows))
        parts = [x[start : start + rows].toarray() for start in range(0, X.shape[0], rows)]
        return numpy.concatenate([net._outputs(part, len(part)) for part in parts])

    # -- L-BFGS --------------------------------------------------------------------------------------------------

    def _fit_lbfgs(self: Any, X: Any, y: Any, sample_weight: Any, *rest: Any) -> None:
        """Minimise by SciPy's L-BFGS, which leaves parameters in double precision; the loss has the type of X."""
        total = float(len(y) if sample_weight is None else sample_weight.sum())
        if not total:
            raise ZeroDivisionError(_NO_WEIGHT)
        net = self._network_of(str(X.dtype), self.alpha / total)
        self._objective = _Objective(net, *_batch(net, X, y, sample_weight, dense=True))
        try:
            super()._fit_lbfgs(X, y, sample_weight, *rest)  # type: ignore[misc]
        finally:
            del self._objective
        self._adopt(self._network_of(str(self.coefs_[0].dtype)))

    def _loss_grad_lbfgs(self: Any, packed: numpy.ndarray, *rest: Any) -> tuple[float, numpy.ndarray]:
        """Return the loss and its gradient at packed parameters."""
        return self._objective(packed)

    # -- training by batches -------------------------------------------------------------------------------------

    def _fit_stochastic(
        self: Any,
        X: Any,
        y: Any,
        sample_weight: Any,
        activations: Any,
        deltas: Any,
        coef_grads: Any,
        intercept_grads: Any,
        layer_units: Any,
        incremental: bool,
    ) -> None:
        """Train by steps on batches; for the arguments see scikit-learn."""
        if not incremental or not hasattr(self, "_optimizer"):
            self._optimizer, self._optimizer_state = self._rates(), None
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        training, validation = self._split(X, y, sample_weight) if self.early_stopping else ((X, y, sample_weight), ())
        net = self._network_of(str(self.coefs_[0].dtype), self.alpha)
        self._adopt(net)
        rows = self._rows(len(training[1]))
        with _interruptible() as interrupted, net.backend.running(net.flops(rows)):
            run = Run(
                net,
                *_batch(net, *training),
                rules.optimizer_of(self),
                rows,
                self.shuffle,
                self._random_state,
                shares_penalty=True,
            )
            if self._optimizer_state is not None:
                run.go_on(*self._optimizer_state)
            try:
                self._epochs(run, validation, incremental, interrupted)
            except KeyboardInterrupt:
                run.keep_if_finite(0.0)
                warnings.warn("Training interrupted by user.", stacklevel=4)
            self._optimizer_state = run.state
        if self.early_stopping:
            net._set_parameters(zip(self._best_coefs, self._best_intercepts, strict=True))
        self._adopt(net)

    def _rates(self: Any) -> Any:
        """Return scikit-learn's object of the solver, which here keeps the learning rate alone."""
        if self.solver == "adam":
            return AdamOptimizer([], self.learning_rate_init, self.beta_1, self.beta_2, self.epsilon)
        return SGDOptimizer(
            [], self.learning_rate_init, self.learning_rate, self.momentum, self.nesterovs_momentum, self.power_t
        )

    def _rows(self: Any, examples: int) -> int:
        """Return the batch size."""
        if self.batch_size == "auto":
            return min(200, examples)
        if self.batch_size > examples:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=5
            )
        return int(min(self.batch_size, examples))

    def _split(self: Any, X: Any, y: Any, sample_weight: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Return (X, y, sample_weight) to train on and to stop early by."""
        arrays = [X, y] if sample_weight is None else [X, y, sample_weight]
        parts = train_test_split(
            *arrays,
            random_state=self._random_state,
            test_size=self.validation_fraction,
            stratify=y if is_classifier(self) and self.n_outputs_ == 1 else None,
        )
        training, (X_val, y_val, *w_val) = parts[::2], parts[1::2]
        if X_val.shape[0] < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        if is_classifier(self):
            y_val = self._label_binarizer.inverse_transform(y_val)
        weight = w_val[0] if w_val else None
        return (*training, None)[:3], (X_val, y_val, weight)

    def _epochs(
        self: Any, run: Run, validation: tuple[Any, ...], incremental: bool, interrupted: Callable[[], bool]
    ) -> None:
        """Take epochs until scikit-learn's rules stop them, and record each as it does."""
        self.n_iter_ = 0
        for _ in range(self.max_iter):
            run.epoch(interrupted)
            if interrupted():
                raise KeyboardInterrupt
            self._record(run)
            if validation:
                if run.net.backend.name != "numpy":
                    self._adopt(run.net)
                self._update_no_improvement_count(True, *validation)
            else:
                self._update_no_improvement_count(False, None, None, None)
            self._optimizer.iteration_ends(self.t_)
            if self._no_improvement_count > self.n_iter_no_change:
                if self._optimizer.trigger_stopping(self._why_stopped(), self.verbose):
                    break
                self._no_improvement_count = 0
            if incremental:
                break
            if self.n_iter_ == self.max_iter:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                    "converged yet.",
                    ConvergenceWarning,
                    stacklevel=6,
                )

    def _record(self: Any, run: Run) -> None:
        """Set the attributes of an epoch; its loss is the mean over batches by their examples, whatever they weigh."""
        losses, examples, weights = run.figures_of_steps
        if not weights.all():
            raise ZeroDivisionError(_NO_WEIGHT)
        self.n_iter_ += 1
        self.loss_ = float(losses @ examples) / len(run.order)
        self.t_ += len(run.order)
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if not run.keep_if_finite(0.0):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
                f"preprocessed. Epoch {self.n_iter_} is the first that is not finite; kept are the weights before it."
            )

    def _why_stopped(self: Any) -> str:
        """Return what scikit-learn prints when it stops, or divides the learning rate."""
        what = "Validation score" if self.early_stopping else "Training loss"
        return f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} consecutive epochs."

    # -- copies and files ----------------------------------------------------------------------------------------

    def __getstate__(self: Any) -> dict[str, Any]:
        """Return the attributes without the network, which is made of them."""
        state: dict[str, Any] = dict(super().__getstate__())  # type: ignore[call-overload]
        state.pop("_network", None)
        return state

    def __setstate__(self: Any, state: dict[str, Any]) -> None:
        """Set the attributes, and make the network on the backend or, where that cannot run, on NumPy."""
        super().__setstate__(state)  # type: ignore[misc]
        if "coefs_" not in state:
            return
        dtype = str(self.coefs_[0].dtype)
        try:
            self._adopt(self._network_of(dtype))
        except BackendUnavailable as error:
            warnings.warn(f"{error}; this {type(self).__name__} runs on NumPy", RuntimeWarning, stacklevel=2)
            self._adopt(self._network_of(dtype, backend="numpy"))


def _examples(net: Network, X: Any, dense: bool = False) -> Any:
    """Return examples as the network's steps take them: an array of its backend, or sparse rows on NumPy."""
    if not hasattr(X, "toarray"):
        return net.backend.asarray(X, net.dtype)
    if dense or net.backend.name != "numpy":
        return net.backend.asarray(X.toarray(), net.dtype)
    return X.tocsr().astype(net.dtype)


def _batch(net: Network, X: Any, y: Any, sample_weight: Any, dense: bool = False) -> tuple[Any, Any, Any]:
    """Return checked examples, targets and weights as the network's steps take them."""
    w = None if sample_weight is None else net.backend.asarray(sample_weight.reshape(-1, 1), net.dtype)
    return _examples(net, X, dense), net.backend.asarray(y, net.dtype), w


class _Objective:
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
