"""Estimators in files without pickle: what they need to predict and to go on training."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy
from sklearn.base import is_classifier
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer, BaseOptimizer, SGDOptimizer
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils._metadata_requests import SIMPLE_METHODS, MetadataRequest
from sklearn.utils.validation import check_is_fitted

from .. import container, storage
from ..errors import InvalidType, InvalidValue
from ..workspace import Layout
from . import rules, values

if TYPE_CHECKING:
    from collections.abc import Iterator

_COUNTS = ("n_iter_", "t_", "_no_improvement_count")
_NUMBERS = ("loss_", "best_loss_", "best_validation_score_")  # or None
_CURVES = ("loss_curve_", "validation_scores_", "validation_loss_curve_")  # or None
_RATES: dict[str, Any] = {kind.__name__: kind for kind in (BaseOptimizer, SGDOptimizer, AdamOptimizer)}
_TASKS = ("binary", "multiclass", "multilabel-indicator")


def save(estimator: Any, path: Any) -> None:
    """Write a fitted estimator; see its `save`."""
    check_is_fitted(estimator)
    if estimator.__dict__.get("_skl_callbacks"):
        raise InvalidType("callbacks cannot be written without pickle: call set_callbacks() before save")
    tensors = storage.tensors(list(zip(*estimator._host_parameters(), strict=True)))
    if not all(numpy.isfinite(x).all() for x in tensors.values()):
        raise InvalidValue("coefs_ or intercepts_ hold NaN or infinity, which no file may: nothing was written")
    parameters = estimator.get_params(deep=False)
    content = {
        "class": type(estimator).__name__,
        "parameters": {name: values.written(name, value, tensors) for name, value in parameters.items()},
        **{name: values.written(name, value, tensors) for name, value in _learnt(estimator)},
    }
    container.write(path, {"estimator": content}, tensors, "parameters, labels and names of features")


def _learnt(estimator: Any) -> Iterator[tuple[str, Any]]:
    """Go through what was learnt besides W_l and b_l: names in the file, and values."""
    has = vars(estimator)
    yield "attributes", {name: has[name] for name in ("out_activation_", *_COUNTS, *_NUMBERS) if name in has}
    yield "curves", {n: None if has[n] is None else numpy.array(has[n], float) for n in _CURVES if n in has}
    yield "names", has.get("feature_names_in_")
    if "classes_" in has:
        binarizer = estimator._label_binarizer
        yield "labels", {"classes": binarizer.classes_, "task": binarizer.y_type_, "sparse": binarizer.sparse_input_}
    if has.get("_optimizer_state") is not None:
        t, slots = estimator._optimizer_state
        yield "optimizer", {"t": t, "slots": slots, "rates": [type(estimator._optimizer).__name__, _rates(estimator)]}
    yield "requests", _requests(estimator)


def _rates(estimator: Any) -> dict[str, Any]:
    """Return what scikit-learn's object of the solver keeps, but for arrays and its steps, which are the core's."""
    kept = vars(estimator._optimizer).items()
    return {name: value for name, value in kept if name != "t" and isinstance(value, (bool, int, float, str))}


def _requests(estimator: Any) -> dict[str, Any]:
    """Return which metadata each method asks for, where `set_fit_request` and the like have said so."""
    request = vars(estimator).get("_metadata_request")
    return {} if request is None else {method: dict(asked) for method, asked in request._serialize().items()}


def load(kind: Any, path: Any, rows: Any) -> Any:
    """Read an estimator of a class; see its `load`."""
    known = storage.Known.of(rows)
    with container.reading(path, f"{kind.__name__}.save") as file, file.refusing():
        return _estimator(kind, dict(file.content["estimator"]), file.tensors(), known)


def _estimator(kind: Any, stored: dict[str, Any], tensors: dict[str, numpy.ndarray], known: storage.Known) -> Any:
    if (name := stored.pop("class")) != kind.__name__:
        raise ValueError(f"it holds a {name!r}")
    parameters = {name: values.read(value, tensors, known) for name, value in stored.pop("parameters").items()}
    estimator = kind(**parameters)
    estimator._validate_params()
    learnt = {name: values.read(value, tensors, known) for name, value in stored.items()}
    state = vars(estimator)
    state.update(_parameters_of(_weights(tensors)), **_records(learnt["attributes"], learnt["curves"]))
    state.update(_names(learnt["names"], estimator.n_features_in_))
    if is_classifier(estimator):
        state.update(_labels(estimator.n_outputs_, **learnt["labels"]))
    if "optimizer" in learnt:
        state.update(_optimizer(estimator, **learnt["optimizer"]))
    if learnt["requests"]:
        state["_metadata_request"] = _request(estimator, learnt["requests"])
    if tensors:
        raise ValueError(f"it has also the tensors {', '.join(tensors)}")
    estimator.__setstate__(dict(state))
    return estimator


def _weights(tensors: dict[str, numpy.ndarray]) -> list[tuple[numpy.ndarray, numpy.ndarray]]:
    """Return [(W_1, b_1), ...], whose shapes and types must fit each other."""
    layers = sum(name.startswith("W_") for name in tensors)
    pairs = [(tensors.pop(f"W_{l}"), tensors.pop(f"b_{l}")) for l in range(1, layers + 1)]
    types = {str(x.dtype) for pair in pairs for x in pair}
    if types not in ({"float32"}, {"float64"}):
        raise ValueError(f"its weights are of the types {', '.join(sorted(types))}")
    widths = [len(pairs[0][0]), *(len(b) for _, b in pairs)]
    if [(W.shape, b.shape) for W, b in pairs] != [((m, n), (n,)) for m, n in itertools.pairwise(widths)]:
        raise ValueError(f"its weights do not fit each other: {[W.shape for W, _ in pairs]}")
    if not all(numpy.isfinite(x).all() for pair in pairs for x in pair):
        raise ValueError("its weights hold NaN or infinity")
    return pairs


def _parameters_of(pairs: list[tuple[numpy.ndarray, numpy.ndarray]]) -> dict[str, Any]:
    """Return the attributes that are weights and biases, or sizes."""
    coefs, intercepts = ([pair[j] for pair in pairs] for j in (0, 1))
    return {
        "coefs_": coefs,
        "intercepts_": intercepts,
        "_best_coefs": [W.copy() for W in coefs],
        "_best_intercepts": [b.copy() for b in intercepts],
        "n_features_in_": len(coefs[0]),
        "n_outputs_": len(intercepts[-1]),
        "n_layers_": len(coefs) + 1,
    }


def _records(attributes: Any, curves: Any) -> dict[str, Any]:
    """Return the attributes that say how training went, checked."""
    if not (attributes.keys() <= {"out_activation_", *_COUNTS, *_NUMBERS} and curves.keys() <= set(_CURVES)):
        raise ValueError(f"its attributes are {', '.join(map(repr, [*attributes, *curves]))}")
    for name, value in attributes.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if name in _COUNTS and not (isinstance(value, int) and number and value >= 0):
            raise ValueError(f"{name} is {value!r}")
        if name in _NUMBERS and not (number or value is None):
            raise ValueError(f"{name} is {value!r}")
    for name, value in curves.items():
        if value is not None and (value.ndim != 1 or value.dtype != float):
            raise ValueError(f"{name} is an array {value.shape} of {value.dtype}")
    return {**attributes, **{name: None if curve is None else curve.tolist() for name, curve in curves.items()}}


def _names(names: Any, features: int) -> dict[str, Any]:
    """Return the names of the features, where there are such."""
    if names is None:
        return {}
    if names.shape != (features,) or names.dtype != object:
        raise ValueError(f"there are {features} features, and names {names.shape} of {names.dtype}")
    return {"feature_names_in_": names}


def _labels(outputs: int, classes: Any, task: Any, sparse: Any) -> dict[str, Any]:
    """Return the attributes that make labels of outputs."""
    fits = classes.shape == (outputs,) or (outputs == 1 and classes.shape == (2,))
    if not fits or task not in _TASKS or not isinstance(sparse, bool):
        raise ValueError(f"there are {outputs} outputs for labels {classes.shape} of a task {task!r}")
    binarizer = LabelBinarizer()
    binarizer.classes_, binarizer.y_type_, binarizer.sparse_input_ = classes, task, sparse
    return {"classes_": classes, "_label_binarizer": binarizer}


def _optimizer(estimator: Any, t: Any, slots: Any, rates: Any) -> dict[str, Any]:
    """Return what training goes on from: the learning rate as it is now, the steps taken, what was kept of them."""
    name, given = rates
    made = _RATES[name]() if name == "BaseOptimizer" else _RATES[name]([])
    estimator._optimizer = made
    own = _rates(estimator)
    if given.keys() != own.keys() or any(isinstance(given[n], str) != isinstance(own[n], str) for n in own):
        raise ValueError(f"its {name} is {given!r}")
    if not all(isinstance(x, str) or math.isfinite(x) for x in given.values()):
        raise ValueError(f"its {name} is {given!r}")
    vars(made).update(given)
    size = Layout([W.shape for W in estimator.coefs_]).size
    expected = (len(rules.optimizer_of(estimator).slots), size)
    if slots.shape != expected or slots.dtype != estimator.coefs_[0].dtype or not numpy.isfinite(slots).all():
        raise ValueError(f"its optimizer keeps {slots.shape} of {slots.dtype}, not {expected}")
    if not isinstance(t, int) or isinstance(t, bool) or t < 0:
        raise ValueError(f"its optimizer took {t!r} steps")
    return {"_optimizer": made, "_optimizer_state": (t, slots)}


def _request(estimator: Any, requests: dict[str, dict[str, Any]]) -> MetadataRequest:
    """Return scikit-learn's object for what each method asks for; it refuses what it does not know."""
    request = MetadataRequest(owner=estimator)
    if not requests.keys() <= set(SIMPLE_METHODS):
        raise ValueError(f"it asks for metadata of {', '.join(map(repr, requests))}")
    for method, asked in requests.items():
        for name, alias in asked.items():
            getattr(request, method).add_request(param=name, alias=alias)
    return request
