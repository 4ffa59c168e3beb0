"""Networks as ONNX models: a layer is one Gemm, its activation the operators that its traced formula names.

This is one more reader of the traces of `gpubackprop.formula`, so that every row is exported, a user's own too, and
none has a second form. Three functions of the vocabulary are spelled out in the others: ONNX has no expm1 and no
log1p, and runtimes have its Erf for float32 alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from .activations import Activation
from .architecture import Architecture
from .backends.erf import erf
from .errors import InvalidValue, MissingDependency
from .formula import Row, Trace, spell_out
from .version import __version__

OPSET = 16  # has every operator below, and is not the newest: a runtime refuses later ones than it knows
IR_VERSION = 8  # of the same release of ONNX, 1.11
INPUT, OUTPUT = "X", "output"
LARGEST = 2**31 - 2**20  # bytes of parameters: a message of Protocol Buffers ends at 2 GiB, and the rest needs room

OPERATORS = {
    "+": "Add", "-": "Sub", "*": "Mul", "/": "Div", "negative": "Neg", "abs": "Abs", "minimum": "Min", "maximum": "Max",
    "<": "Less", "<=": "LessOrEqual", ">": "Greater", ">=": "GreaterOrEqual", "where": "Where",
    "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh", "erf": "Erf",
}  # fmt: skip


def model(architecture: Architecture, metadata: Mapping[str, str], parameters: Sequence[Any]) -> Any:
    """Return a network as an ONNX model; see `Network.to_onnx`.

    Args:
        architecture: what the network is.
        metadata: strings by name, which become properties of the model beside its own.
        parameters: [(W_1, b_1), ...] of NumPy.

    Returns:
        An ``onnx.ModelProto``.

    Raises:
        MissingDependency: the package onnx is not installed.
        InvalidValue: the parameters are larger than such a file may be, or the metadata has a name that the model's
            own properties have.
    """
    helper = _library().helper
    size = sum(x.nbytes for pair in parameters for x in pair)
    if size > LARGEST:
        raise InvalidValue(f"an ONNX model holds at most {LARGEST:,} bytes of parameters, got {size:,}")
    own = _properties(architecture)
    if taken := sorted(set(own) & set(metadata)):
        raise InvalidValue(f"metadata has {', '.join(map(repr, taken))}, which the model says itself: rename yours")
    nodes, constants = layers(architecture, parameters)
    kind = helper.np_dtype_to_tensor_dtype(numpy.dtype(architecture.dtype))
    ends = [
        [helper.make_tensor_value_info(name, kind, ["N", units])]
        for name, units in ((INPUT, architecture.sizes[0]), (OUTPUT, architecture.sizes[-1]))
    ]
    result = helper.make_model(
        helper.make_graph(nodes, "gpubackprop", *ends, constants),
        producer_name="gpubackprop",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(result, {**metadata, **own})
    return result


def layers(
    architecture: Architecture, parameters: Sequence[Any], source: str = INPUT, target: str = OUTPUT, prefix: str = ""
) -> tuple[list[Any], list[Any]]:
    """Return the layers of a network as parts of an ONNX graph of opset 16 or later.

    Args:
        architecture: what the network is.
        parameters: [(W_1, b_1), ...] of NumPy.
        source: name of the value (N, n_0) that they read.
        target: name of the value (N, n_L) that they compute.
        prefix: of the names of all other values, which are W_l, b_l, z_l, a_l, those between z_l and a_l, and numbers.

    Returns:
        The nodes, as ``onnx.NodeProto`` in the order in which they run, and the constants, as ``onnx.TensorProto``.

    Raises:
        MissingDependency: the package onnx is not installed.
    """
    graph = _Graph(architecture.dtype, prefix)
    last = len(architecture.activations)
    for l, (sigma, pair) in enumerate(zip(architecture.activations, parameters, strict=True), start=1):
        names = [graph.constant(f"{letter}_{l}", x) for letter, x in zip("Wb", pair, strict=True)]
        z = graph.node("Gemm", [source, *names], f"{prefix}z_{l}")
        source = graph.activation(sigma, z, target if l == last else f"{prefix}a_{l}")
    return graph.nodes, graph.constants


class _Graph:
    """Nodes and constants of an ONNX graph in the making; methods return the name of the value that they add."""

    def __init__(self, dtype: str, prefix: str) -> None:
        self.onnx, self.dtype, self.prefix = _library(), dtype, prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.numbers: dict[str, str] = {}

    def node(self, operator: str, operands: Sequence[str], name: str, **attributes: int) -> str:
        self.nodes.append(self.onnx.helper.make_node(operator, operands, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: numpy.ndarray) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(values, self.prefix + name))
        return self.prefix + name

    def number(self, value: float) -> str:
        if repr(value) not in self.numbers:
            with numpy.errstate(over="ignore", under="ignore"):  # rounded to the type as a backend rounds it
                rounded = numpy.asarray(value).astype(self.dtype)
            self.numbers[repr(value)] = self.constant(f"c_{len(self.numbers) + 1}", rounded)
        return self.numbers[repr(value)]

    def activation(self, sigma: Activation, z: str, a: str) -> str:
        """Add a = σ(z)."""
        if sigma.rowwise:
            return self.node("Softmax", [z], a, axis=1)
        return self.formula(_spelled_out(sigma.forward, self.dtype), z, a)

    def formula(self, source: Trace, z: str, a: str) -> str:
        """Add a traced formula of z."""
        names: list[str] = []
        for position, (operation, operands) in enumerate(source.values):
            if operation == "input":
                names.append(z)
            elif operation == "number":
                names.append(self.number(operands[0]))
            else:
                terms = [names[k] for k in operands]
                names.append(self.node(OPERATORS[operation], terms, f"{z}_{position}"))
        [result] = source.outputs
        if source.inputs:
            return self.node("Identity", [names[result]], a)
        return self.node("Expand", [names[result], self.node("Shape", [z], f"{z}_shape")], a)  # a number for every z


def _spelled_out(source: Trace, dtype: str) -> Trace:
    """Return a trace of operations that ONNX has, and its runtimes in this type."""
    source = spell_out(spell_out(source, "expm1", _expm1), "log1p", _log1p)
    return source if dtype == "float32" else spell_out(source, "erf", erf)


def _expm1(m: Any, x: Any) -> Any:
    """Return exp(x) − 1 without its cancellation: tanh(x/2) = (exp(x) − 1) / (exp(x) + 1)."""
    return m.tanh(0.5 * x) * (m.exp(x) + 1.0)


def _log1p(m: Any, x: Any) -> Any:
    """Return log(1 + x) as log(u) + (x − (u − 1)) / u, where u is 1 + x rounded and x − (u − 1) what that lost."""
    u = 1.0 + x
    lost = m.where(m.abs(x) < 0.5, (x - (u - 1.0)) / u, 0.0)  # beyond, no more than a rounding of the result
    return m.log(u) + lost


def _properties(architecture: Architecture) -> dict[str, str]:
    """Return what the model says of itself, as JSON by name."""
    rows = {"loss": architecture.loss, "activations": architecture.activations}
    return {f"gpubackprop.{name}": json.dumps(value, default=Row.as_dict) for name, value in rows.items()}


def _library() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingDependency("an ONNX model needs the package onnx: pip install 'gpubackprop[onnx]'") from error
    return onnx
