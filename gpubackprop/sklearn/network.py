"""The network behind an estimator: made of its parameters, kept beside them, and run to predict."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy
from sklearn.base import is_classifier
from sklearn.utils._array_api import check_same_namespace
from sklearn.utils.validation import check_is_fitted, validate_data

from .. import inputs
from ..activations import identity
from ..architecture import Architecture
from ..backends import resolve
from ..network import PREDICT_ROWS, Network
from . import dispatch, rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..backends.numpy import NumpyBackend

NO_WEIGHT = "Weights sum to zero, can't be normalized"  # NumPy's words, by which scikit-learn takes its means
INTERRUPTED = "Training interrupted by user."
NEGATIVE_WEIGHT = "sample_weight sums to a negative number over a batch: a mean needs weights whose sum is positive"


class HasNetwork:
    """Parameters of an estimator as a network, a network's parameters as attributes, and scikit-learn's forward pass.

    `coefs_` and `intercepts_` are the network's own memory on NumPy, and read-only copies elsewhere.
    """

    def _network_of(self: Any, dtype: str, backend: str | None = None) -> Network:
        """Return a network with the estimator's parameters, in float32's own precision where there is no other."""
        place = resolve(self.backend if backend is None else backend)
        precision = self.precision if dtype == "float32" and self.precision in place.precisions else "float32"
        return self._built(dtype, 0.0, place, precision)

    def _training_network(self: Any, dtype: str, l2: float) -> Network:
        """Return a network to train, which must have as many outputs as there are targets."""
        outputs, given = len(self.intercepts_[-1]), self.n_outputs_
        if given != outputs:
            self.n_outputs_ = outputs
            raise ValueError(
                f"y has {given} outputs, but {type(self).__name__} is expecting {outputs} of them as before"
            )
        return self._built(dtype, l2, resolve(self.backend), self.precision)

    def _built(self: Any, dtype: str, l2: float, backend: NumpyBackend, precision: str) -> Network:
        """Return a network with the estimator's parameters."""
        coefs, intercepts = self._host_parameters()
        output, outputs = self.out_activation_, len(intercepts[-1])
        architecture = Architecture.checked(
            sizes=[len(coefs[0]), *map(len, intercepts)],
            activation=rules.activation_of(self.activation),
            output_activation=rules.activation_of(output),
            loss=rules.loss_of(self.loss, output, outputs, dtype),
            l2=l2,
            dropout=self.dropout,
            dtype=dtype,
        )
        net = Network.__new__(Network)
        net._build(architecture, backend, precision)
        net._set_parameters(zip(coefs, intercepts, strict=True))
        return net

    def _host_parameters(self: Any) -> tuple[list[numpy.ndarray], list[numpy.ndarray]]:
        """Return `coefs_` and `intercepts_`, of whatever library they are, as NumPy's arrays."""
        coefs, intercepts = (
            [inputs.host(dispatch.on_host(x), name) for x in getattr(self, name)] for name in ("coefs_", "intercepts_")
        )
        return coefs, intercepts

    @property
    def _dtype(self: Any) -> str:
        """Type of the parameters, which other libraries write with their names before it."""
        return str(self.coefs_[0].dtype).rpartition(".")[2]

    @property
    def _first_weight(self: Any) -> Any:
        return self.coefs_[0]

    def _adopt(self: Any, net: Network) -> None:
        """Make a network that of the estimator, and its parameters the attributes: on NumPy they are one memory."""
        parameters = net._host_parameters()
        self.coefs_, self.intercepts_ = ([pair[j] for pair in parameters] for j in (0, 1))
        if net.backend.name != "numpy":  # what is written into a copy would not be seen
            for x in (*self.coefs_, *self.intercepts_):
                x.setflags(write=False)
        self._keep(net)

    def _keep(self: Any, net: Network) -> None:
        """Say that a network has the parameters that are the attributes."""
        self._network = net, self._identity()
        self.backend_, self.device_ = net.backend.name, net.backend.description

    def _move(self: Any, place: dispatch.Place) -> None:
        """Make the parameters arrays of another library; what is read-only is copied, for not all have such."""
        net = self._current_network(self._dtype)
        for name in ("coefs_", "intercepts_"):
            own = [x if x.flags.writeable else x.copy() for x in getattr(self, name)]
            setattr(self, name, [dispatch.moved(x, place) for x in own])
        self._keep(net)

    def _fitted(self: Any, net: Network) -> dict[str, Any]:
        """Return what an estimator that is to predict as a network does needs of the attributes."""
        fitted = {name: value for name, value in vars(self).items() if name.endswith("_") and not name.endswith("__")}
        parameters = [(W.copy(), b.copy()) for W, b in net._host_parameters()]
        fitted |= {name: [pair[j] for pair in parameters] for j, name in enumerate(("coefs_", "intercepts_"))}
        return fitted | ({"_label_binarizer": self._label_binarizer} if is_classifier(self) else {})

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

    def _following(self: Any, X: Any, name: str, compute: Callable[[Any], numpy.ndarray]) -> Any:
        """Return what a method computes of examples, in the library of X where scikit-learn dispatches on it."""
        check_is_fitted(self)
        check_same_namespace(X, self, attribute="_first_weight", method=name)
        return dispatch.moved(compute(dispatch.on_host(X)), dispatch.place_of(X))

    def _forward_pass_fast(self: Any, X: Any, check_input: bool = True, logits: bool = False) -> numpy.ndarray:
        """Return the outputs (N, n_L) of examples (N, n_0), dense or sparse, or what the output activation is given."""
        if check_input:
            X = validate_data(self, X, accept_sparse=["csr", "csc"], reset=False)
        dtype = str(numpy.result_type(X.dtype, self._dtype, numpy.float32))
        net = self._current_network(dtype)
        net = without_output_activation(net) if logits else net
        x, rows = examples(net, X), min(PREDICT_ROWS, X.shape[0])
        if not hasattr(x, "toarray"):
            return net.backend.to_numpy(net._outputs(x, rows))
        parts = [x[start : start + rows].toarray() for start in range(0, X.shape[0], rows)]
        return numpy.concatenate([net._outputs(part, len(part)) for part in parts])


def without_output_activation(net: Network) -> Network:
    """Return a network of the same parameters that returns what the last activation is given."""
    twin = Network.__new__(Network)
    rows = (*net.activations[:-1], identity)
    twin._build(dataclasses.replace(net.architecture, activations=rows), net.backend, net.precision)
    twin.theta[...] = net.theta
    return twin


def examples(net: Network, X: Any, dense: bool = False) -> Any:
    """Return examples as the network's steps take them: an array of its backend, or sparse rows on NumPy."""
    if not hasattr(X, "toarray"):
        return net.backend.asarray(X, net.dtype)
    if dense or net.backend.name != "numpy":
        return net.backend.asarray(X.toarray(), net.dtype)
    return X.tocsr().astype(net.dtype)


def batch(net: Network, X: Any, y: Any, sample_weight: Any, dense: bool = False) -> tuple[Any, Any, Any]:
    """Return checked examples, targets and weights as the network's steps take them."""
    w = None if sample_weight is None else net.backend.asarray(sample_weight.reshape(-1, 1), net.dtype)
    return examples(net, X, dense), net.backend.asarray(y, net.dtype), w
