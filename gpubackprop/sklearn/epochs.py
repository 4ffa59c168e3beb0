"""Training by steps on batches, epoch after epoch, until scikit-learn's rules stop it."""

from __future__ import annotations

import functools
import math
import warnings
from typing import TYPE_CHECKING, Any

from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, BaseOptimizer, SGDOptimizer

from ..run import Run
from ..training import _interruptible
from . import rules, validation
from .network import INTERRUPTED, NEGATIVE_WEIGHT, NO_WEIGHT, HasNetwork, batch

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..network import Network


class TrainsByEpochs(HasNetwork):
    """The part of scikit-learn's estimators that trains with the solvers "sgd" and "adam"."""

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
        if not incremental or not self._goes_on():
            self._optimizer, self._optimizer_state = self._rates(), None
        if self.early_stopping and incremental:
            raise ValueError("partial_fit does not support early_stopping=True")
        training, validated = (X, y, sample_weight), validation.given(self, X)
        if self.early_stopping and not validated:
            training, validated = validation.set_aside(self, X, y, sample_weight)
        net = self._training_network(self._dtype, self.alpha)
        self._adopt(net)
        most = self._partial_epochs if incremental else self.max_iter
        context = self._init_callback_context(max_subtasks=most)
        context.call_on_fit_task_begin(estimator=self, **self._given)
        try:
            self._train(net, training, validated, most, incremental)
        finally:
            self._adopt(net)
        fitted = functools.partial(self._fitted, net)
        context.call_on_fit_task_end(estimator=self, reconstruction_attributes=fitted, **self._given)

    def _train(
        self: Any,
        net: Network,
        training: tuple[Any, ...],
        validated: tuple[Any, ...],
        most: int,
        incremental: bool,
    ) -> None:
        """Train a network, and have it the best parameters of a training that is to stop early."""
        rows = self._rows(len(training[1]))
        if self.verbose:
            print(f"Training on {self.backend_}: {self.device_}")
        running = net.backend.running(net.flops(rows))
        with _interruptible() as interrupted, running, running:
            run = Run(
                net,
                *batch(net, *training),
                rules.optimizer_of(self),
                rows,
                self.shuffle,
                self._random_state,
                shares_penalty=True,
            )
            if self._optimizer_state is not None:
                run.go_on(*self._optimizer_state)
            try:
                self._epochs(run, validated, most, incremental, interrupted)
            except KeyboardInterrupt:
                run.keep_if_finite(0.0)
                warnings.warn(INTERRUPTED, stacklevel=5)
            finally:
                run.close()
            self._optimizer_state = run.state
        if self.early_stopping:
            net._set_parameters(zip(self._best_coefs, self._best_intercepts, strict=True))

    def _goes_on(self: Any) -> bool:
        """Return whether there is something that the optimizer, which may be set anew, can go on from."""
        if not hasattr(self, "_optimizer"):
            return False
        if (type(self._optimizer) is BaseOptimizer) != (self.optimizer is not None):
            return False
        return self._optimizer_state is None or len(self._optimizer_state[1]) == len(rules.optimizer_of(self).slots)

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
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped", stacklevel=6
            )
        return int(min(self.batch_size, examples))

    def _epochs(
        self: Any, run: Run, validated: tuple[Any, ...], most: int, incremental: bool, interrupted: Callable[[], bool]
    ) -> None:
        """Take epochs until scikit-learn's rules stop them, in `partial_fit` all; record each as scikit-learn does."""
        self.n_iter_ = 0
        for _ in range(most):
            task = self._callback_fit_ctx.subcontext(task_name="epoch").call_on_fit_task_begin(
                estimator=self, **self._given
            )
            run.epoch(interrupted)
            if interrupted():
                raise KeyboardInterrupt
            finite = self._record(run, validated)
            reconstruction = functools.partial(self._fitted, run.net)
            stop = task.call_on_fit_task_end(estimator=self, reconstruction_attributes=reconstruction, **self._given)
            converged = finite and self._has_converged() and not incremental
            if converged or stop or not finite:
                break
            if self.n_iter_ == most and not incremental:
                warnings.warn(
                    f"Stochastic Optimizer: Maximum iterations ({most}) reached and the optimization hasn't "
                    "converged yet.",
                    ConvergenceWarning,
                    stacklevel=8,
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

    def _record(self: Any, run: Run, validated: tuple[Any, ...]) -> bool:
        """Set the attributes of an epoch, return whether its weights are finite; its loss is the mean over examples."""
        losses, examples, weights = run.figures_of_steps
        if (weights <= 0).any():
            run.net.theta[...] = run.kept
            raise ValueError(NEGATIVE_WEIGHT) if (weights < 0).any() else ZeroDivisionError(NO_WEIGHT)
        self.n_iter_ += 1
        self.loss_ = float(losses @ examples) / len(run.order)
        self.t_ += len(run.order)
        self.loss_curve_.append(self.loss_)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if not run.keep_if_finite(0.0):
            self._record_divergence()
            return False
        if run.net.backend.name != "numpy" and validated:
            self._adopt(run.net)
        if self._validation_data is not None:
            self.validation_loss_curve_.append(validation.loss(self, run.net, *validated[:2]))
        self._update_no_improvement_count(self.early_stopping, *(validated or (None, None, None)))
        return True

    def _record_divergence(self: Any) -> None:
        """Raise ValueError, or with `early_stopping` warn and record NaN: the best weights are those to keep."""
        said = (
            "Solver produced non-finite parameter weights. The input data may contain large values and need to be "
            f"preprocessed. Epoch {self.n_iter_} is the first that is not finite; kept are the weights "
        )
        if not self.early_stopping:
            raise ValueError(f"{said}before it.")
        self.validation_scores_.append(math.nan)
        if self._validation_data is not None:
            self.validation_loss_curve_.append(math.nan)
        if self.verbose:
            print("Validation score: nan")
        scored = math.isfinite(self.best_validation_score_)
        kept = "of the best validation score" if scored else "from before training, since no epoch has a score"
        warnings.warn(f"{said}{kept}.", ConvergenceWarning, stacklevel=9)

    def _why_stopped(self: Any) -> str:
        """Return what scikit-learn prints when it stops, or divides the learning rate."""
        what = "Validation score" if self.early_stopping else "Training loss"
        return f"{what} did not improve more than tol={self.tol:f} for {self.n_iter_no_change} consecutive epochs."
