"""What both estimators share: scikit-learn's own class checks and records, the network of this package computes.

The estimators are scikit-learn's classes, so that its checks, messages, draws of initial weights and attributes are its
own. Replaced are the three places where it computes: a training by batches, the loss with its gradient for L-BFGS, and
the forward pass.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy
from sklearn.callback import CallbackSupportMixin
from sklearn.utils._param_validation import Interval, StrOptions

from ..activations import ACTIVATIONS, Activation
from ..checks import integer
from ..errors import BackendUnavailable, InvalidType
from ..in_use import Use
from ..losses import Loss
from ..optimizers import OPTIMIZERS, Optimizer
from . import convert, dispatch, files, rules
from .epochs import TrainsByEpochs
from .lbfgs import TrainsByLBFGS

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

    from ..formula import Row

_NAMES = {*ACTIVATIONS, *rules.ACTIVATIONS}
ADDED: dict[str, list[Any]] = {
    "activation": [StrOptions(_NAMES - {"softmax"}), Activation, list, tuple],
    "backend": [str, None],
    "precision": [StrOptions({"float32", "tf32", "bfloat16"})],
    "dropout": [Interval(Real, 0, 1, closed="left")],
    "optimizer": [StrOptions(set(OPTIMIZERS)), Optimizer, None],
    "output_activation": [StrOptions(_NAMES), Activation, None],
    "coefs_init": [list, tuple, None],
    "intercepts_init": [list, tuple, None],
}
"""What scikit-learn is to accept of the parameters that both estimators add."""


class OnNetwork(TrainsByEpochs, TrainsByLBFGS, CallbackSupportMixin):  # type: ignore[misc]
    """The parts of scikit-learn's `BaseMultilayerPerceptron` that compute, and what is given to `fit`."""

    _theirs: type  # scikit-learn's class
    _validation_data: tuple[Any, Any] | None = None  # while `fit` runs, what it was given as X_val, y_val
    _partial_epochs = 1  # while `partial_fit` runs, how many it takes

    # -- what is given to fit ------------------------------------------------------------------------------------

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, X_val: Any = None, y_val: Any = None) -> Self:
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
                L-BFGS, or weights that are not finite: the message names the first such epoch. With
                ``early_stopping=True`` that is a warning, and the weights of the best validation score are kept.
            InUse: the estimator is being fitted already, in another thread or by the call that this is a callback of.
        """
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val must be given together")
        if X_val is not None and self.solver == "lbfgs":
            raise ValueError("X_val and y_val are for the solvers 'sgd' and 'adam', got solver='lbfgs'")
        use = Use(self, "fit", trains=True)
        with use, use, self._on_host(X, y, sample_weight, X_val, y_val) as (X, y, sample_weight, *validation):
            self._validation_data = None if X_val is None else tuple(validation)
            try:
                return super().fit(X, y, sample_weight)
            finally:
                del self._validation_data

    @contextlib.contextmanager
    def _on_host(self: Any, X: Any, *others: Any) -> Iterator[list[Any]]:
        """Train on NumPy's arrays, whatever they were; the parameters then follow X, or where that fails stay."""
        place = None
        if hasattr(self, "coefs_"):
            place = dispatch.place_of(self.coefs_[0])
            self.coefs_, self.intercepts_ = self._host_parameters()
        try:
            yield [dispatch.on_host(x) for x in (X, *others)]
            place = dispatch.place_of(X)
        finally:
            if place is not None:
                self._move(place)

    def _fit(self: Any, X: Any, y: Any, sample_weight: Any = None, incremental: bool = False) -> Any:
        """Fit; what callbacks are told of the data is what the user gave."""
        self._given = {"X": X, "y": y, "metadata": {} if sample_weight is None else {"sample_weight": sample_weight}}
        try:
            return super()._fit(X, y, sample_weight, incremental)
        finally:
            del self._given

    @contextlib.contextmanager
    def _taking(self: Any, epochs: Any) -> Iterator[None]:
        """Have `partial_fit` take so many epochs."""
        if integer("epochs", epochs, 1) > 1 and self.solver == "lbfgs":
            raise ValueError("epochs are of the solvers 'sgd' and 'adam', got solver='lbfgs'")
        self._partial_epochs = int(epochs)
        try:
            yield
        finally:
            del self._partial_epochs

    def _initialize(self: Any, y: Any, layer_units: Any, dtype: Any) -> None:
        """Draw the parameters as scikit-learn does, and put in their place, and in that of its choice, what was given.

        What is drawn after them, the order of the examples, is then the same.
        """
        super()._initialize(y, layer_units, dtype)
        vars(self).pop("validation_loss_curve_", None)
        output = self.out_activation_ if self.output_activation is None else self.output_activation
        if self.output_activation is not None or isinstance(self.loss, Loss):
            loss = rules.loss_of(self.loss, self.out_activation_, self.n_outputs_, str(dtype))
            rules.check_output(output, loss, self.n_outputs_)
            self.out_activation_ = output
        for name in ("coefs", "intercepts"):
            given = getattr(self, f"{name}_init")
            if given is not None:
                initial = rules.initial(f"{name}_init", given, getattr(self, f"{name}_"))
                setattr(self, f"{name}_", initial)
                setattr(self, f"_best_{name}", [x.copy() for x in initial])

    def predict(self, X: Any) -> numpy.ndarray:
        """Return the labels or the values that are predicted.

        Args:
            X: examples (N, n_0), dense or sparse.

        Returns:
            (N,), or (N, n_L) of several outputs or labels.
        """
        return self._following(X, "predict", super().predict)

    # -- copies and files ----------------------------------------------------------------------------------------

    def to_sklearn(self: Any) -> Any:
        """Return scikit-learn's own estimator with the same parameters and attributes; it needs this package no more.

        Returns:
            The estimator, without callbacks; `partial_fit` goes on there where it was here, but for an `optimizer`, in
            whose place `solver` begins anew.

        Raises:
            InvalidValue: an activation or a loss that scikit-learn does not have.
        """
        return convert.to_sklearn(self, self._theirs)

    @classmethod
    def from_sklearn(cls, estimator: Any, **parameters: Any) -> Self:
        """Return an estimator of this package with the parameters and attributes of scikit-learn's own.

        Args:
            estimator: scikit-learn's estimator of the same name, fitted or not.
            parameters: those that scikit-learn does not have, such as ``backend="cuda"``.

        Returns:
            The estimator; `partial_fit` goes on here where it was there.

        Raises:
            InvalidType: an object of another class.
        """
        if not isinstance(estimator, cls._theirs) or isinstance(estimator, OnNetwork):
            raise InvalidType(f"estimator must be scikit-learn's {cls.__name__}, got {type(estimator).__name__}")
        return convert.from_sklearn(estimator, cls, parameters)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted estimator to a safetensors file, without pickle; `load` reads it.

        It holds the parameters, W_l and b_l, labels, names of features, how training went, and what `partial_fit` goes
        on from. The file is written as that of `Network.save`.

        Args:
            path: of the file.

        Raises:
            NotFittedError: the estimator is not fitted.
            InvalidType: a parameter, or labels, of a kind that only pickle can write: a generator as `random_state`, a
                function as learning rate, an optimizer of your own; or there are callbacks.
            InvalidValue: W_l or b_l that are not finite, more than 1 MiB of labels and names, or a row of your own with
                the name of one of this package.
            ValueError: a parameter that `fit` would refuse.
            OSError: the file cannot be written.
        """
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, rows: Sequence[Row] = ()) -> Self:
        """Read an estimator that `save` wrote. Nothing in the file is believed, and nothing in it is run.

        Args:
            path: of the file.
            rows: your own activations and losses that the estimator has; the file names them.

        Returns:
            The estimator, on its backend, or on NumPy, with a warning, where that cannot run.

        Raises:
            ModelFileError: the file is not a whole estimator of this class, or names a row that is not known.
            OSError: the file cannot be opened.
        """
        return files.load(cls, path, rows)

    def __sklearn_array_api_convert__(self: Any, convert: Callable[[Any], Any]) -> Any:
        """Return a copy whose parameters are of another library, for scikit-learn's `move_estimator_to`."""
        twin = copy.copy(self)
        twin.coefs_, twin.intercepts_ = ([convert(x) for x in xs] for xs in self._host_parameters())
        twin._keep(twin._network[0])
        return twin

    def __sklearn_tags__(self: Any) -> Any:
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags

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
        settle = self._adopt if isinstance(self.coefs_[0], numpy.ndarray) else self._keep
        try:
            settle(self._network_of(self._dtype))
        except BackendUnavailable as error:
            warnings.warn(f"{error}; this {type(self).__name__} runs on NumPy", RuntimeWarning, stacklevel=2)
            settle(self._network_of(self._dtype, backend="numpy"))
