"""The estimators in ONNX models that skl2onnx makes of scikit-learn's pipelines, searches and ensembles.

The layers are those of `gpubackprop.onnx`. Added here is what scikit-learn's estimators make of the outputs of a
network: labels, and two probabilities of one.
"""

from __future__ import annotations

from typing import Any

import numpy
from sklearn.utils.validation import check_is_fitted

from ..errors import InvalidValue, MissingDependency
from ..onnx import OPSET, layers
from .classifier import MLPClassifier
from .network import without_output_activation
from .regressor import MLPRegressor

OPTIONS = {
    "zipmap": [True, False, "columns"],
    "output_class_labels": [False, True],
    "nocl": [True, False],
    "raw_scores": [True, False],
}
"""Of skl2onnx for classifiers: how probabilities are returned, labels as indices, logits in place of probabilities."""


def register_onnx_converters() -> None:
    """Make the two estimators known to skl2onnx, whose `to_onnx` then converts what of scikit-learn they are part of.

    In the model they compute in double precision where its input is double, else in float32, as all of skl2onnx's do;
    from float32 that is what `predict` and `predict_proba` of an estimator fitted on float32 compute, within rounding.
    Every activation is converted, a user's own too. A regressor has the output (N, n_L), where `predict` returns (N,)
    for a single one; labels that are booleans, or floats that are whole numbers, are integers there. Options are those
    of skl2onnx's classifiers, ``zipmap=False`` for probabilities as an array (N, n_classes) among them, in double
    precision the only way. With ``raw_scores=True`` it holds what `decision_function` returns: of two classes −z and z.

    Converting fails with `InvalidValue` for a ``target_opset`` below 16, labels that are neither integers nor strings,
    and parameters that are not finite, and with scikit-learn's `NotFittedError` before `fit`.

    Raises:
        MissingDependency: the package skl2onnx is not installed.
    """
    try:
        from skl2onnx import update_registered_converter
    except ImportError as error:
        raise MissingDependency(
            "ONNX models of pipelines need the package skl2onnx: pip install 'gpubackprop[onnx]'"
        ) from error
    update_registered_converter(
        MLPClassifier, "GpubackpropMLPClassifier", _classifier_types, _convert_classifier, options=OPTIONS
    )
    update_registered_converter(MLPRegressor, "GpubackpropMLPRegressor", _regressor_types, _convert_regressor)


# -- types of the outputs ----------------------------------------------------------------------------------------------


def _classifier_types(operator: Any) -> None:
    """Set the types of labels and probabilities."""
    from skl2onnx.common.data_types import Int64TensorType, StringTensorType

    estimator, (label, probability) = operator.raw_operator, operator.outputs
    check_is_fitted(estimator)
    N, outputs = operator.inputs[0].get_first_dimension(), estimator.n_outputs_
    kind = StringTensorType if _labels(operator.scope_inst, estimator).dtype == object else Int64TensorType
    label.set_type(kind([N, outputs] if _is_multilabel(estimator) else [N]))
    probability.set_type(_float_type(operator)([N, max(outputs, 2)]))


def _regressor_types(operator: Any) -> None:
    """Set the type of the values."""
    check_is_fitted(operator.raw_operator)
    shape = [operator.inputs[0].get_first_dimension(), operator.raw_operator.n_outputs_]
    operator.outputs[0].set_type(_float_type(operator)(shape))


def _float_type(operator: Any) -> Any:
    """Return skl2onnx's type of the numbers with which an estimator computes."""
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType

    return DoubleTensorType if _is_double(operator) else FloatTensorType


def _is_double(operator: Any) -> bool:
    from skl2onnx.common.data_types import DoubleTensorType

    return isinstance(operator.inputs[0].type, DoubleTensorType)


def _is_multilabel(estimator: Any) -> bool:
    return bool(estimator._label_binarizer.y_type_ == "multilabel-indicator")


def _labels(scope: Any, estimator: Any) -> numpy.ndarray:
    """Return the classes as ONNX has labels: 64-bit integers, or strings as objects."""
    from skl2onnx.common.utils_classifier import get_label_classes

    classes = numpy.asarray(get_label_classes(scope, estimator))
    if classes.dtype.kind not in "biuf":
        return classes.astype(object)
    labels = classes.astype(numpy.int64)
    if (labels != classes).any():
        raise InvalidValue(f"labels in an ONNX model are integers or strings, got the classes {classes.tolist()}")
    return labels


# -- nodes -------------------------------------------------------------------------------------------------------------


def _convert_regressor(scope: Any, operator: Any, container: Any) -> None:
    """Add a regressor, whose values are the outputs of its network."""
    _Nodes(scope, operator, container).network(operator.outputs[0].full_name)


def _convert_classifier(scope: Any, operator: Any, container: Any) -> None:
    """Add a classifier: its label is that with the largest score, or all those whose score is above the middle."""
    estimator, (label, scores) = operator.raw_operator, [output.full_name for output in operator.outputs]
    raw = container.get_options(estimator, {"raw_scores": False})["raw_scores"]
    graph = _Nodes(scope, operator, container)
    if estimator.n_outputs_ > 1:
        graph.network(scores, logits=raw)
    else:
        second = graph.network(logits=raw)
        first = graph.node("Neg", second) if raw else graph.node("Sub", graph.number(1.0), second)
        graph.node("Concat", first, second, target=scores, axis=1)
    if _is_multilabel(estimator):
        above = graph.node("Greater", scores, graph.number(0.0 if raw else 0.5))
        graph.node("Cast", above, target=label, to=graph.kinds.INT64)
    else:
        largest = graph.node("ArgMax", scores, axis=1, keepdims=0)
        graph.node("Gather", graph.labels(_labels(scope, estimator)), largest, target=label)


class _Nodes:
    """Nodes of an estimator in skl2onnx's graph; methods return the name of the value that they add.

    Args:
        scope: of names.
        operator: the estimator there, its inputs and its outputs.
        container: of nodes and constants.
    """

    def __init__(self, scope: Any, operator: Any, container: Any) -> None:
        import onnx

        if container.target_opset_onnx < OPSET:
            raise InvalidValue(f"target_opset must be {OPSET} or later, got {container.target_opset_onnx}")
        self.scope, self.operator, self.container = scope, operator, container
        self.onnx, self.kinds = onnx, onnx.TensorProto
        self.dtype = "float64" if _is_double(operator) else "float32"
        self.kind = self.kinds.DOUBLE if _is_double(operator) else self.kinds.FLOAT

    def network(self, target: str | None = None, logits: bool = False) -> str:
        """Add the layers; their last value is a_L, or z_L."""
        net = self.operator.raw_operator._current_network(self.dtype)
        net = without_output_activation(net) if logits else net
        x = self.node("Cast", self.operator.inputs[0].full_name, to=self.kind)
        target = target or self.scope.get_unique_variable_name("outputs")
        prefix = self.scope.get_unique_variable_name("network") + "_"
        nodes, constants = layers(net.architecture, net._finite_parameters(), x, target, prefix)
        for constant in constants:
            self.container.add_initializer(constant.name, None, None, constant)
        for node in nodes:
            attributes = {each.name: self.onnx.helper.get_attribute_value(each) for each in node.attribute}
            self.container.add_node(node.op_type, list(node.input), list(node.output), name=node.name, **attributes)
        return target

    def node(self, operation: str, *operands: str, target: str | None = None, **attributes: int) -> str:
        target = target or self.scope.get_unique_variable_name(operation.lower())
        name = self.scope.get_unique_operator_name(operation)
        self.container.add_node(operation, list(operands), target, name=name, **attributes)
        return target

    def number(self, value: float) -> str:
        return self._constant(self.kind, [], [value])

    def labels(self, labels: numpy.ndarray) -> str:
        """Add the labels that an index may mean; where there is one class, both of an output's two mean it."""
        named = labels.tolist() if len(labels) > 1 else labels.tolist() * 2
        kind = self.kinds.STRING if labels.dtype == object else self.kinds.INT64
        return self._constant(kind, [len(named)], named)

    def _constant(self, kind: int, shape: list[int], values: list[Any]) -> str:
        name = self.scope.get_unique_variable_name("constant")
        self.container.add_initializer(name, kind, shape, values)
        return name
