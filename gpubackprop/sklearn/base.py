"""What both estimators share: scikit-learn's own class checks and records, the network of this package computes.

The estimators are scikit-learn's classes, so that its checks, messages, draws of initial weights and attributes are its
own. Replaced are the three places where it computes: a training by batches, the loss with its gradient for L-BFGS, and
the forward pass.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from typing import TYPE_CHECKING, Any

import numpy
from sklearn.base import is_classifier
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, BaseOptimizer, SGDOptimizer
from sklearn.utils.validation import validate_data

from ..activations import identity
from ..architecture import Architecture
from ..backends import resolve
from ..errors import BackendUnavailable, InvalidType
from ..network import PREDICT_ROWS, Network
from ..run import Run
from ..training import _interruptible
from ..workspace import Workspace
from . import convert, rules

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_WEIGHT = "Weights sum to zero, can't be normalized"  # NumPy's words, by which scikit-learn takes its means


class OnNetwork(CallbackSupportMixin):  # type: ignore[misc]
    """The parts of scikit-learn's `BaseMultilayerPerceptron` that compute."""

    _theirs: type  # scikit-learn's class
    _validation_data: tuple[Any, Any] | None = None  # while `fit` runs, what it was given as X_val, y_val

    # -- the network ---------------------------------------------------------------------------------------------

    def _network_of(self: Any, dtype: str, l2: float = 0.0, backend: str | None = None) -> Network:
        """Return a network with the estimator's parameters."""
        output, outputs = self.out_activation_, len(self.intercepts_[-1])
        architecture = Architecture.checked(
            sizes=[len(self.coefs_[0]), *map(len, self.intercepts_)],
            activation=rules.activation_of(self.activation),
            output_activation=rules.activation_of(output),
            loss=rules.loss_of(self.loss, output, outputs, dtype),
            l2=l2,
            dropout=self.dropout,
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

    def _forward_pass_fast(self: Any, X: Any, check_input: bool = True, logits: bool = False) -> numpy.ndarray:
        """Return the outputs (N, n_L) of examples (N, n_0), dense or sparse, or what the output activation is given."""
        if check_input:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        dtype = str(numpy.result_type(X.dtype, self.coefs_[0].dtype, numpy.float32))
        net = self._current_network(dtype)
        net = _without_output_activation(net) if logits else net
        x, rows = _examples(net, X), min(PREDICT_ROWS, X.shape[0])
        if not hasattr(x, "toarray"):
            return net.backend.to_numpy(net._outputs(x, rows))
        parts = [x[start : start + rows].toarray() for start in range(0, X.shape[0], rows)]
        return numpy.concatenate([net._outputs(part, len(part)) for part in parts])

    # -- what is given to fit ------------------------------------------------------------------------------------

    def fit(self: Any, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> Any:
        """Fit the network.

        Args:
            X: examples (N, n_0), dense or sparse.
            y: labels or values (N,), or (N, n_L).
            sample_weight: weights (N,) of the examples, or None.
            X_val: examples whose loss is recorded after each epoch, in `validation_loss_curve_`; with
                ``early_stopping=True`` their score decides, and none of X is set aside.
            y_val: their labels or values.

        Returns:
            The estimator.

        Raises:
            ValueError: an argument that scikit-learn refuses, one of X_val and y_val without the other, either with
                L-BFGS, or weights that are not finite; the message names the first epoch of which they are.
        """
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val must be given together")
        if X_val is not None and self.solver == "lbfgs":
            raise ValueError("X_val and y_val are for the solvers 'sgd' and 'adam', got solver='lbfgs'")
        self._validation_data = None if X_val is None else (X_val, y_val)
        try:
            return super().fit(X, y, sample_weight)
        finally:
            del self._validation_data

    def _fit(self: Any, X: Any, y: Any, sample_weight: Any = None, incremental: bool = False) -> Any:
        """Fit; what callbacks are told of the data is what the user gave."""
        self._given = {"X": X, "y": y, "metadata": {} if sample_weight is None else {"sample_weight": sample_weight}}
        try:
            return super()._fit(X, y, sample_weight, incremental)
        finally:
            del self._given

    # -- L-BFGS --------------------------------------------------------------------------------------------------

    def _fit_lbfgs(self: Any, X: Any, y: Any, sample_weight: Any, *rest: Any) -> None:
        """Minimise by SciPy's L-BFGS, which leaves parameters in double precision; the loss has the type of X."""
        if self.dropout or self.optimizer is not None:
            raise ValueError("dropout and optimizer are for the solvers 'sgd' and 'adam', got solver='lbfgs'")
        total = float(len(y) if sample_weight is None else sample_weight.sum())
        if not total:
            raise ZeroDivisionError(_NO_WEIGHT)
        net = self._network_of(str(X.dtype), self.alpha / total)
        self._objective = _Objective(net, *_batch(net, X, y, sample_weight, dense=True))
        try:
            super()._fit_lbfgs(X, y, sample_weight, *rest)
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
        training, validation = (X, y, sample_weight), self._checked_validation(X)
        if self.early_stopping and not validation:
            training, validation = self._split(X, y, sample_weight)
        net = self._network_of(str(self.coefs_[0].dtype), self.alpha)
        self._adopt(net)
        rows = self._rows(len(training[1]))
        if self.verbose:
            print(f"Training on {self.backend_}: {self.device_}")
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
            context = self._init_callback_context(max_subtasks=self.max_iter)
            context.call_on_fit_task_begin(estimator=self, **self._given)
            try:
                self._epochs(run, validation, incremental, interrupted)
            except KeyboardInterrupt:
                run.keep_if_finite(0.0)
                warnings.warn("Training interrupted by user.", stacklevel=4)
            self._optimizer_state = run.state
        if self.early_stopping:
            net._set_parameters(zip(self._best_coefs, self._best_intercepts, strict=True))
        self._adopt(net)
        fitted = functools.partial(self._fitted, run)
        context.call_on_fit_task_end(estimator=self, reconstruction_attributes=fitted, **self._given)

    def _rates(self: Any) -> Any:
        """Return scikit-learn's object of the solver, which here keeps the learning rate alone."""
        if self.optimizer is not None:
            return BaseOptimizer(self.learning_rate_init)
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
            task = self._callback_fit_ctx.subcontext(task_name="epoch").call_on_fit_task_begin(
                estimator=self, **self._given
            )
            run.epoch(interrupted)
            if interrupted():
                raise KeyboardInterrupt
            self._record(run, validation)
            reconstruction = functools.partial(self._fitted, run)
            stop = task.call_on_fit_task_end(estimator=self, reconstruction_attributes=reconstruction, **self._given)
            if self._has_converged() or stop or incremental:
                break
            if self.n_iter_ == self.max_iter:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) reached and the optimization hasn't "
                    "converged yet.",
                    ConvergenceWarning,
                    stacklevel=7,
                )

    def _has_converged(self: Any) -> bool:
        """Return whether scikit-learn's rules stop training after an epoch; they may lower the rate instead."""
        self._optimizer.iteration_ends(self.t_)
        if self._no_improvement_count <= self.n_iter_no_change:
            return False
        stops = bool(self._optimizer.trigger_stopping(self._why_stopped(), self.verbose))
        if not stops:
            self._no_improvement_count = 0
        return stops

    def _fitted(self: Any, run: Run) -> dict[str, Any]:
        """Return what an estimator that is to predict as after this epoch needs of the attributes."""
        fitted = {name: value for name, value in vars(self).items() if name.endswith("_") and not name.endswith("__")}
        parameters = [(W.copy(), b.copy()) for W, b in run.net._host_parameters()]
        fitted |= {name: [pair[j] for pair in parameters] for j, name in enumerate(("coefs_", "intercepts_"))}
        return fitted | ({"_label_binarizer": self._label_binarizer} if is_classifier(self) else {})

    def _record(self: Any, run: Run, validation: tuple[Any, ...]) -> None:
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
        if run.net.backend.name != "numpy" and validation:
            self._adopt(run.net)
        if self._validation_data is not None:
            self.validation_loss_curve_.append(self._validation_loss(run.net, *validation[:2]))
        self._update_no_improvement_count(self.early_stopping, *(validation or (None, None, None)))

    def _checked_validation(self: Any, X: Any) -> tuple[Any, ...]:
        """Return what `fit` was given to validate on, checked as X is, and no weights; nothing where it was not."""
        if self._validation_data is None:
            return ()
        self.validation_loss_curve_: list[float] = []
        X_val, y_val = validate_data(
            self,
            *self._validation_data,
            accept_sparse=["csr", "csc"],
            multi_output=True,
            dtype=X.dtype,
            reset=False,
        )
        return X_val, y_val, None

    def _validation_loss(self: Any, net: Network, X: Any, y: Any) -> float:
        """Return the loss of the validation data that `fit` was given, without the penalty."""
        targets = self._label_binarizer.transform(y) if is_classifier(self) else y.reshape(len(y), -1)
        batch = _batch(net, X, targets, None, dense=True)
        architecture = dataclasses.replace(net.architecture, l2=0.0)
        ws = Workspace(architecture, net.backend, min(PREDICT_ROWS, len(targets)), training=False)
        return net._evaluate(ws, *batch)

    def _why_stopped(self: Any) -> str:
        """Return what scikit-learn prints when it stops, or divides the learning rate."""
        what = "Validation score" if self.early_stopping else "Training loss"
        return f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} consecutive epochs."

    # -- copies and files ----------------------------------------------------------------------------------------

    def to_sklearn(self: Any) -> Any:
        """Return scikit-learn's own estimator with the same parameters and attributes; it needs this package no more.

        Returns:
            The estimator; `partial_fit` goes on there where it was here.

        Raises:
            InvalidValue: an activation or a loss that scikit-learn does not have.
        """
        return convert.to_sklearn(self, self._theirs)

    @classmethod
    def from_sklearn(cls: Any, estimator: Any, **parameters: Any) -> Any:
        """Return an estimator of this package with the parameters and attributes of scikit-learn's own.

        Args:
            estimator: scikit-learn's estimator of the same name, fitted or not.
            parameters: those that scikit-learn does not have, such as ``backend="cuda"``.

        Returns:
            The estimator; `partial_fit` goes on here where it was there.

        Raises:
            InvalidType: an object of another class.
        """
        if not isinstance(estimator, cls._theirs):
            raise InvalidType(f"estimator must be scikit-learn's {cls.__name__}, got {type(estimator).__name__}")
        return convert.from_sklearn(estimator, cls, parameters)

    def __getstate__(self: Any) -> dict[str, Any]:
        """Return the attributes without the network, which is made of them."""
        state: dict[str, Any] = dict(super().__getstate__())
        state.pop("_network", None)
        return state

    def __setstate__(self: Any, state: dict[str, Any]) -> None:
        """Set the attributes, and make the network on the backend or, where that cannot run, on NumPy."""
        super().__setstate__(state)
        if "coefs_" not in state:
            return
        dtype = str(self.coefs_[0].dtype)
        try:
            self._adopt(self._network_of(dtype))
        except BackendUnavailable as error:
            warnings.warn(f"{error}; this {type(self).__name__} runs on NumPy", RuntimeWarning, stacklevel=2)
            self._adopt(self._network_of(dtype, backend="numpy"))


def _without_output_activation(net: Network) -> Network:
    """Return a network of the same parameters that returns what the last activation is given."""
    twin = Network.__new__(Network)
    rows = (*net.activations[:-1], identity)
    twin._build(dataclasses.replace(net.architecture, activations=rows), net.backend, net.precision)
    twin.theta[...] = net.theta
    return twin


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
