"""The classifier: scikit-learn's class, with the parameters that this package adds."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy
from sklearn import neural_network
from sklearn.utils import check_array
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_sample_weight

from ..in_use import Use
from .base import ADDED, OnNetwork


class MLPClassifier(OnNetwork, neural_network.MLPClassifier):  # type: ignore[misc]
    """scikit-learn's `MLPClassifier`, computed by this package; what is not said here is as it says.

    Attributes:
        activation: scikit-learn's four, any other name or row of `gpubackprop.activations`, or a list, one per hidden
            layer.
        backend: where the network runs: "auto", "numpy", "cuda", "cuda:N", or None for the default
            (`gpubackprop.set_backend`).
        precision: of matrix products in float32: "float32", and on CUDA "tf32" or "bfloat16".
        dropout: share of the hidden units that a training step drops, in [0, 1); not with L-BFGS.
        optimizer: a name or an object of `gpubackprop.optimizers`, with its own learning rate or schedule, in place of
            what `solver` and the parameters of the learning rate say; not with L-BFGS.
        output_activation: a name or a row that returns probabilities, for two classes or several labels; None for
            scikit-learn's, "logistic", and "softmax" for more classes.
        coefs_init: the initial weights, [W_1, ..., W_L] with W_l (n_{l-1}, n_l), in place of those that are drawn; they
            must fit `hidden_layer_sizes` and the data. None: drawn. What goes on from a fit leaves them out.
        intercepts_init: the same of the biases, [b_1, ..., b_L] with b_l (n_l,).
        class_weight: weights by label, a list of such for several labels, "balanced" for those that make classes weigh
            the same, or None; they multiply those of the examples.
        coefs_: [W_1, ..., W_L], with `intercepts_` arrays of NumPy. Where scikit-learn dispatches on X (set by
            `array_api_dispatch`), they are of its library, as outputs are; in place they can be changed on NumPy alone.
        validation_loss_curve_: loss of X_val after each epoch, without the penalty, where `fit` was given such.
        backend_: "numpy" or "cuda", what the last fit ran on.
        device_: the same in words.
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        **neural_network.MLPClassifier._parameter_constraints,
        **ADDED,
        "class_weight": [StrOptions({"balanced"}), dict, list, None],
    }

    _theirs = neural_network.MLPClassifier

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: Any = "relu",
        *,
        solver: Any = "adam",
        alpha: float = 0.0001,
        batch_size: Any = "auto",
        learning_rate: Any = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        backend: Any = None,
        precision: Any = "float32",
        dropout: float = 0.0,
        optimizer: Any = None,
        output_activation: Any = None,
        coefs_init: Any = None,
        intercepts_init: Any = None,
        class_weight: Any = None,
    ) -> None:
        super().__init__(
            hidden_layer_sizes=hidden_layer_sizes,
            activation=activation,
            solver=solver,
            alpha=alpha,
            batch_size=batch_size,
            learning_rate=learning_rate,
            learning_rate_init=learning_rate_init,
            power_t=power_t,
            max_iter=max_iter,
            shuffle=shuffle,
            random_state=random_state,
            tol=tol,
            verbose=verbose,
            warm_start=warm_start,
            momentum=momentum,
            nesterovs_momentum=nesterovs_momentum,
            early_stopping=early_stopping,
            validation_fraction=validation_fraction,
            beta_1=beta_1,
            beta_2=beta_2,
            epsilon=epsilon,
            n_iter_no_change=n_iter_no_change,
            max_fun=max_fun,
        )
        self.backend = backend
        self.precision = precision
        self.dropout = dropout
        self.optimizer = optimizer
        self.output_activation = output_activation
        self.coefs_init = coefs_init
        self.intercepts_init = intercepts_init
        self.class_weight = class_weight

    def _fit(self, X: Any, y: Any, sample_weight: Any = None, incremental: bool = False) -> Any:
        """Fit, with the weights of the classes in those of the examples."""
        if self.class_weight is None or y is None:
            return super()._fit(X, y, sample_weight, incremental)
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                "class_weight 'balanced' is not supported for partial_fit. Compute the weights from all labels with "
                "sklearn.utils.class_weight.compute_class_weight, and pass them as a dict"
            )
        labels = check_array(y, accept_sparse="csc", ensure_2d=False, dtype=None)
        of_class = compute_sample_weight(self.class_weight, labels)
        of_example = _check_sample_weight(sample_weight, X) if sample_weight is not None else 1.0
        return super()._fit(X, y, of_class * of_example, incremental)

    @available_if(lambda estimator: estimator._check_solver())  # type: ignore[untyped-decorator]
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None, *, epochs: int = 1
    ) -> MLPClassifier:
        """Go on training, for one epoch or for several.

        Args:
            X: examples (N, n_0), dense or sparse.
            y: labels (N,), or (N, n_L).
            sample_weight: weights (N,) of the examples, or None.
            classes: all labels that there are; needed in the first call.
            epochs: passes over these examples, each in an order of its own; all are taken, whatever the loss does.

        Returns:
            The estimator.

        Raises:
            ValueError: an argument that scikit-learn refuses, or no positive number of epochs.
            TypeError: epochs is no integer.
            InUse: the estimator is being fitted already; see `fit`.
        """
        use = Use(self, "partial_fit", trains=True)
        with (
            use,
            use,
            self._taking(epochs),
            self._on_host(X, y, sample_weight, classes) as (X, y, sample_weight, classes),
        ):
            return super().partial_fit(X, y, sample_weight, classes)

    def decision_function(self, X: Any) -> numpy.ndarray:
        """Return the logits, what the output activation makes probabilities of.

        Args:
            X: examples (N, n_0), dense or sparse.

        Returns:
            (N,) for two classes, where the logistic function predicts the second above 0, else (N, n_classes).
        """
        return self._following(X, "decision_function", self._logits)

    def _logits(self, X: Any) -> numpy.ndarray:
        logits = self._forward_pass_fast(X, logits=True)
        return logits.ravel() if self.n_outputs_ == 1 else logits

    def predict_proba(self, X: Any) -> numpy.ndarray:
        """Return the probabilities of the labels.

        Args:
            X: examples (N, n_0), dense or sparse.

        Returns:
            (N, n_classes), in the order of `classes_`.
        """
        return self._following(X, "predict_proba", super().predict_proba)

    def predict_log_proba(self, X: Any) -> numpy.ndarray:
        """Return the logarithms of the probabilities of the labels.

        Args:
            X: examples (N, n_0), dense or sparse.

        Returns:
            (N, n_classes), in the order of `classes_`.
        """
        proba = super().predict_proba
        return self._following(X, "predict_log_proba", lambda x: numpy.log(proba(x)))
