"""From scikit-learn's estimators and to them, with all that was learnt and what training goes on from."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy

from ..errors import InvalidValue
from ..workspace import Layout

_OWN = ("_network", "_optimizer_state", "backend_", "device_", "validation_loss_curve_")


_THEIRS = {
    "activation": ("identity", "logistic", "tanh", "relu"),
    "loss": ("squared_error", "poisson", "log_loss"),
    "out_activation_": ("identity", "logistic", "softmax", "exp"),
}


def to_sklearn(estimator: Any, kind: type) -> Any:
    """Return scikit-learn's estimator with the same parameters and attributes, which needs this package no more.

    Args:
        estimator: one of this package, fitted or not.
        kind: scikit-learn's class.

    Returns:
        An estimator of that class.

    Raises:
        InvalidValue: an activation or a loss that scikit-learn does not have.
    """
    for name, accepted in _THEIRS.items():
        value = getattr(estimator, name, accepted[0])
        if not isinstance(value, str) or value not in accepted:
            raise InvalidValue(f"scikit-learn has as {name} {', '.join(map(repr, accepted))}, got {value!r}")
    names, parameters = inspect.signature(kind).parameters, estimator.get_params(deep=False)
    plain = kind(**{name: value for name, value in parameters.items() if name in names})
    learnt = {name: value for name, value in vars(estimator).items() if name not in (*parameters, *_OWN)}
    if "coefs_" in learnt:
        learnt["coefs_"], learnt["intercepts_"] = estimator._host_parameters()
    vars(plain).update(copy.deepcopy(learnt))
    if getattr(estimator, "_optimizer_state", None) is not None:
        _unpack_state(estimator, plain)
    return plain


def from_sklearn(plain: Any, kind: type, parameters: dict[str, Any]) -> Any:
    """Return an estimator of this package with the parameters and attributes of one of scikit-learn's.

    Args:
        plain: scikit-learn's estimator, fitted or not.
        kind: the class of this package.
        parameters: those that scikit-learn does not have.

    Returns:
        An estimator of that class.
    """
    estimator = kind(**plain.get_params(deep=False), **parameters)
    state = {**vars(estimator), **copy.deepcopy({n: v for n, v in vars(plain).items() if n not in vars(estimator)})}
    if hasattr(plain, "_optimizer"):
        state["_optimizer_state"] = _packed_state(plain)
        for name in _slots(plain._optimizer):
            setattr(state["_optimizer"], name, [])
    estimator.__setstate__(state)
    return estimator


def _slots(optimizer: Any) -> tuple[str, ...]:
    """Return the names under which scikit-learn's object keeps what belongs to parameters, in the core's order."""
    return tuple(name for name in ("velocities", "ms", "vs") if hasattr(optimizer, name))


def _layout(estimator: Any) -> Layout:
    return Layout([W.shape for W in estimator.coefs_])


def _unpack_state(estimator: Any, plain: Any) -> None:
    """Write the core's state of an optimizer into scikit-learn's object: all that belongs to W, then all to b."""
    optimizer, (t, slots) = plain._optimizer, estimator._optimizer_state
    for name, flat in zip(_slots(optimizer), slots, strict=False):
        pairs = _layout(estimator).views(flat)
        setattr(optimizer, name, [pair[j].copy() for j in (0, 1) for pair in pairs])
    if not len(slots):  # no momentum
        optimizer.velocities = [numpy.zeros_like(x) for x in (*plain.coefs_, *plain.intercepts_)]
    if hasattr(optimizer, "t"):
        optimizer.t = t


def _packed_state(plain: Any) -> tuple[int, numpy.ndarray]:
    """Return the core's state of scikit-learn's optimizer."""
    optimizer, layout = plain._optimizer, _layout(plain)
    names = () if getattr(optimizer, "momentum", 1.0) == 0 else _slots(optimizer)
    slots = numpy.zeros((len(names), layout.size), plain.coefs_[0].dtype)
    for name, flat in zip(names, slots, strict=True):
        pairs = layout.views(flat)
        views = [pair[j] for j in (0, 1) for pair in pairs]
        for view, values in zip(views, getattr(optimizer, name), strict=True):
            view[...] = values
    return getattr(optimizer, "t", 0), slots
