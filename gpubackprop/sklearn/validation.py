"""What an estimator is validated on while it trains: a part of the data that is set aside, or what `fit` was given."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy
from sklearn.base import is_classifier
from sklearn.model_selection import train_test_split
from sklearn.utils.multiclass import unique_labels
from sklearn.utils.validation import validate_data

from ..network import PREDICT_ROWS, Network
from ..workspace import Workspace
from .network import batch


def set_aside(estimator: Any, X: Any, y: Any, sample_weight: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return (X, y, sample_weight) to train on and to stop early by."""
    arrays = [X, y] if sample_weight is None else [X, y, sample_weight]
    parts = train_test_split(
        *arrays,
        random_state=estimator._random_state,
        test_size=estimator.validation_fraction,
        stratify=y if is_classifier(estimator) and estimator.n_outputs_ == 1 else None,
    )
    training, (X_val, y_val, *w_val) = parts[::2], parts[1::2]
    if X_val.shape[0] < 2:
        raise ValueError("The validation set is too small. Increase 'validation_fraction' or the size of your dataset.")
    if is_classifier(estimator):
        y_val = estimator._label_binarizer.inverse_transform(y_val)
    weight = w_val[0] if w_val else None
    return (*training, None)[:3], (X_val, y_val, weight)


def given(estimator: Any, X: Any) -> tuple[Any, ...]:
    """Return what `fit` was given to validate on, checked as X is, and no weights; nothing where it was not."""
    if estimator._validation_data is None:
        return ()
    vars(estimator).setdefault("validation_loss_curve_", [])
    X_val, y_val = validate_data(
        estimator,
        *estimator._validation_data,
        accept_sparse=["csr", "csc"],
        multi_output=True,
        y_numeric=not is_classifier(estimator),
        dtype=X.dtype,
        reset=False,
    )
    _check_targets(estimator, y_val)
    return X_val, y_val, None


def _check_targets(estimator: Any, y_val: Any) -> None:
    """Refuse labels or outputs that `y` does not have, of which there would be no loss."""
    labelled = is_classifier(estimator) and estimator._label_binarizer.y_type_ != "multilabel-indicator"
    columns, expected = (1 if y_val.ndim == 1 else y_val.shape[1]), (1 if labelled else estimator.n_outputs_)
    if columns != expected:
        raise ValueError(f"y_val has {columns} outputs, but {type(estimator).__name__} is expecting {expected} outputs")
    if labelled and not numpy.isin(y_val, estimator.classes_).all():
        raise ValueError(
            f"`y_val` has classes not in `self.classes_`. `self.classes_` has {estimator.classes_}. 'y_val' has "
            f"{unique_labels(y_val)}."
        )


def loss(estimator: Any, net: Network, X: Any, y: Any) -> float:
    """Return the loss of the validation data that `fit` was given, without the penalty."""
    targets = estimator._label_binarizer.transform(y) if is_classifier(estimator) else y.reshape(len(y), -1)
    examples = batch(net, X, targets, None, dense=True)
    architecture = dataclasses.replace(net.architecture, l2=0.0)
    ws = Workspace(architecture, net.backend, min(PREDICT_ROWS, len(targets)), training=False)
    return net._evaluate(ws, *examples)
