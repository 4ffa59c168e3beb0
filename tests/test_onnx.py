"""Networks as ONNX models: what ONNX Runtime and onnx's own evaluator compute is what `predict` computes."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_rows import pseudo_huber, squash

import gpubackprop as gb
from gpubackprop.activations import ACTIVATIONS, Activation
from gpubackprop.errors import InvalidType, InvalidValue, MissingDependency
from gpubackprop.formula import FUNCTIONS

RUNTIMES = ("onnxruntime", "reference")
EPS = {dtype: float(np.finfo(dtype).eps) for dtype in ("float32", "float64")}


def _own(name: str, sigma: Callable[..., Any]) -> Activation:
    return Activation(name, sigma, lambda m, z, a: 1.0)


# Every word of the vocabulary as a row of a user's own, defined for every z.
WORDS = {
    "+": lambda m, z: z + 1.5,
    "-": lambda m, z: 1.5 - z,
    "*": lambda m, z: z * z,
    "/": lambda m, z: 2.0 / (1.0 + z * z),
    "negative": lambda m, z: -z,
    "<": lambda m, z: m.where(z < 0.0, 2.0, z),
    "<=": lambda m, z: m.where(z <= 0.0, 2.0, z),
    ">": lambda m, z: m.where(z > 0.0, 2.0, z),
    ">=": lambda m, z: m.where(z >= 0.0, 2.0, z),
    "exp": lambda m, z: m.exp(z),
    "expm1": lambda m, z: m.expm1(z),
    "log": lambda m, z: m.log(m.abs(z) + 1e-3),
    "log1p": lambda m, z: m.log1p(z * z),
    "sqrt": lambda m, z: m.sqrt(m.abs(z)),
    "tanh": lambda m, z: m.tanh(z),
    "erf": lambda m, z: m.erf(z),
    "abs": lambda m, z: m.abs(z),
    "minimum": lambda m, z: m.minimum(z, 0.5),
    "maximum": lambda m, z: m.maximum(z, 0.5),
    "where": lambda m, z: m.where(z > 1.0, m.where(z < 2.0, z * z, -z), 3.0),
    "a number": lambda m, z: 2.5,
    "functions of numbers": lambda m, z: m.erf(0.5) + m.log1p(0.25) + m.expm1(-1.0),
    "the input": lambda m, z: z,
}
OWN = {name: _own(name, sigma) for name, sigma in WORDS.items()}
ROWS = {**ACTIVATIONS, **OWN, "squash": squash(e=2.0)}


@pytest.fixture(autouse=True)
def _tool(need: Callable[[str], None]) -> None:
    need("onnx")


@pytest.fixture(params=RUNTIMES)
def runtime(request: pytest.FixtureRequest, need: Callable[[str], None]) -> Callable[[Any, Any], Any]:
    """Return the function that runs a model, given as the bytes of its file, on examples."""
    if request.param == "onnxruntime":
        need("onnxruntime")
    return globals()[f"_{request.param}"]


def _onnxruntime(content: bytes, X: Any) -> Any:
    session = importlib.import_module("onnxruntime").InferenceSession(content, providers=["CPUExecutionProvider"])
    [output] = session.run(["output"], {"X": X})
    return output


def _reference(content: bytes, X: Any) -> Any:
    with np.errstate(all="ignore"):  # it computes both branches of a choice
        [output] = importlib.import_module("onnx.reference").ReferenceEvaluator(content).run(["output"], {"X": X})
    return output


def _checked(net: gb.Network) -> bytes:
    """Return the model's file, after the checks of onnx itself: types and shapes of every value."""
    model = net.to_onnx()
    importlib.import_module("onnx.checker").check_model(model, full_check=True)
    return model.SerializeToString()


def _applying(row: Activation, dtype: str) -> gb.Network:
    """A network that is one activation: a = σ(x 1 + 0)."""
    units = 3 if row.rowwise else 1
    net = gb.Network([units, units], output_activation=row, dtype=dtype, backend="numpy")
    net.parameters[0][0][...] = np.eye(units)
    return net


def _points(dtype: str) -> Any:
    """Zero, and numbers of both signs, from 1e-6 to 30, where exp has not yet overflown."""
    sizes = np.concatenate([np.linspace(0.0, 30.0, 1501), np.logspace(-6, 0, 600)])
    return np.concatenate([sizes, -sizes]).astype(dtype)[:, None]


# -- one row -----------------------------------------------------------------------------------------------------------


def test_every_word_is_among_the_rows() -> None:
    words = {operation for row in OWN.values() for operation, _ in row.forward.values}
    assert words >= {*FUNCTIONS, "+", "-", "*", "/", "negative", "<", "<=", ">", ">="}


def _deviation(name: str, dtype: str, runtime: Callable[[Any, Any], Any]) -> float:
    """Return the greatest deviation of a row from `predict`, in units of eps · max(1, |z|, |a|)."""
    net = _applying(ROWS[name], dtype)
    X = _points(dtype) * np.arange(1, net.sizes[0] + 1, dtype=dtype)
    given, expected = runtime(_checked(net), X), net.predict(X)
    assert (given.dtype, given.shape) == (expected.dtype, expected.shape)
    scale = np.maximum(np.maximum(1.0, np.abs(X)), np.abs(expected))
    return float((np.abs(given.astype(float) - expected) / scale).max()) / EPS[dtype]


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", ROWS)
def test_every_row_is_exported(name: str, dtype: str, runtime: Callable[[Any, Any], Any]) -> None:
    """Libraries' exp, tanh and erf are within two units of eps; a formula has two, and multiplies them by z at most."""
    assert _deviation(name, dtype, runtime) <= 4


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", ["expm1", "log1p"])
def test_what_is_spelled_out_is_exact_near_zero(name: str, dtype: str, runtime: Callable[[Any, Any], Any]) -> None:
    """Relative to the result, however small: 2 eps of tanh or log, and a rounding for each of two or three steps."""
    net = _applying(_own(name, lambda m, z: getattr(m, name)(z)), dtype)
    X = _points(dtype)
    X = X[X > -1.0][:, None] if name == "log1p" else X
    given = runtime(_checked(net), X).astype(float)
    np.testing.assert_allclose(given, getattr(np, name)(X.astype(float)), rtol=4 * EPS[dtype], atol=0)


def test_ends_of_what_is_spelled_out(runtime: Callable[[Any, Any], Any]) -> None:
    """At the ends of its range a function has the limit that NumPy's has, not the NaN of a correction.

    A runtime's exp may end at the smallest number there is where NumPy's ends at 0: 1e-300 is room for that.
    """
    X = np.array([[0.0], [1e4]])
    for sigma, limits in (
        (lambda m, z: m.expm1(z * z), [0.0, np.inf]),
        (lambda m, z: m.expm1(-z), [0.0, -1.0]),
        (lambda m, z: m.log1p(m.exp(z * z)), [np.log(2.0), np.inf]),
        (lambda m, z: m.log1p(-m.exp(-z)), [-np.inf, 0.0]),
    ):
        net = _applying(_own("ends", sigma), "float64")
        np.testing.assert_allclose(runtime(_checked(net), X)[:, 0], limits, rtol=1e-15, atol=1e-300)


FAULTS = {
    "an operator for another": ("<=", {"<=": "Less"}),
    "operands of a choice": ("where", {"<": "Greater"}),
    "a function for another": ("sigmoid", {"tanh": "Erf"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_operator_is_caught(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, operators = FAULTS[fault]
    for operation, operator in operators.items():
        monkeypatch.setitem(gb.onnx.OPERATORS, operation, operator)
    assert _deviation(name, "float32", _reference) > 1000


@pytest.mark.parametrize(
    ("name", "naive"),
    [("expm1", lambda m, x: m.exp(x) - 1.0), ("log1p", lambda m, x: m.log(1.0 + x))],
)
def test_planted_cancellation_is_caught(name: str, naive: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"gpubackprop.onnx._{name}", naive)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        test_what_is_spelled_out_is_exact_near_zero(name, "float64", _reference)


# -- whole networks on real data ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits() -> tuple[Any, Any]:
    data = importlib.import_module("sklearn.datasets").load_digits()
    return data.data / 16.0, data.target


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("hidden", [["relu", "gelu"], ["mish", "elu"], ["sigmoid", squash]])
def test_trained_network(hidden: Any, dtype: str, digits: Any, runtime: Callable[[Any, Any], Any]) -> None:
    """Products of 64 and 32 terms, of size 10 at most, are off by eps · 10 · 64 · 2 at most; softmax is not steeper."""
    X, y = digits[0].astype(dtype), digits[1]
    arguments = {"output_activation": "softmax", "loss": "cross_entropy", "dropout": 0.1, "dtype": dtype}
    net = gb.Network([64, 32, 16, 10], activation=hidden, **arguments)
    gb.fit(net, X, y, optimizer=gb.optimizers.Adam(0.01), epochs=5, batch_size=64, seed=0)
    expected = net.predict(X)
    assert np.mean(expected.argmax(axis=1) == y) > 0.9
    content = _checked(net)
    np.testing.assert_allclose(runtime(content, X), expected, rtol=0, atol=EPS[dtype] * 10 * 64 * 2)
    np.testing.assert_allclose(runtime(content, X[:1]), expected[:1], rtol=0, atol=EPS[dtype] * 10 * 64 * 2)


@pytest.mark.parametrize("sizes", [[3, 1], [1, 2, 1], [4, 5, 6, 7, 2]])
def test_sizes_and_one_example(sizes: list[int], runtime: Callable[[Any, Any], Any]) -> None:
    net = gb.Network(sizes, activation="tanh", dtype="float64", seed=3)
    net.theta[...] += 0.1 * (net.theta != 0)
    X = np.random.default_rng(0).normal(size=(7, sizes[0]))
    for rows in (X, X[:1]):
        np.testing.assert_allclose(runtime(_checked(net), rows), net.predict(rows), rtol=1e-13, atol=1e-13)


def test_from_the_cuda_backend_too(device: str) -> None:
    """On the stand-in or a GPU: the file is that of the same network on NumPy."""
    net = gb.Network([4, 5, 2], activation="gelu", backend=device)
    assert net.to_onnx().SerializeToString() == net.to("numpy").to_onnx().SerializeToString()


# -- what a model says, files, errors ----------------------------------------------------------------------------------


def test_names_versions_and_metadata(tmp_path: Path) -> None:
    net = gb.Network([3, 4, 2], activation="relu", loss=pseudo_huber(s=2.0))
    net.metadata = {"trained on": "the digits"}
    model = net.to_onnx(tmp_path / "net.onnx")
    assert (model.producer_name, model.producer_version, model.ir_version) == ("gpubackprop", gb.__version__, 8)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 16)]
    properties = {each.key: each.value for each in model.metadata_props}
    assert json.loads(properties.pop("gpubackprop.loss")) == {"name": "pseudo_huber", "parameters": {"s": 2.0}}
    assert [row["name"] for row in json.loads(properties.pop("gpubackprop.activations"))] == ["relu", "identity"]
    assert properties == net.metadata
    values = {name for node in model.graph.node for name in node.output} | {x.name for x in model.graph.initializer}
    assert {"z_1", "a_1", "z_2", "output", "W_1", "b_1", "W_2", "b_2"} <= values
    for end, name, units in ((model.graph.input, "X", 3), (model.graph.output, "output", 2)):
        dims = end[0].type.tensor_type.shape.dim
        assert (end[0].name, dims[0].dim_param, dims[1].dim_value) == (name, "N", units)
    assert (tmp_path / "net.onnx").read_bytes() == model.SerializeToString()
    assert [path.name for path in tmp_path.iterdir()] == ["net.onnx"]


def test_layers_as_parts_of_another_graph() -> None:
    """Two networks behind one another, with prefixes that keep their names apart."""
    onnx = importlib.import_module("onnx")
    first, second = gb.Network([3, 4, 2], seed=1, dtype="float64"), gb.Network([2, 5, 1], seed=2, dtype="float64")
    nodes, constants = gb.onnx.layers(first.architecture, first.parameters, "X", "between", "first_")
    more = gb.onnx.layers(second.architecture, second.parameters, "between", "output", "second_")
    model = first.to_onnx()
    ends = model.graph.input, second.to_onnx().graph.output
    graph = onnx.helper.make_graph([*nodes, *more[0]], "both", *ends, [*constants, *more[1]])
    both = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=8)
    onnx.checker.check_model(both, full_check=True)
    X = np.random.default_rng(0).normal(size=(5, 3))
    expected = second.predict(first.predict(X))
    np.testing.assert_allclose(_reference(both.SerializeToString(), X), expected, rtol=1e-13)


def test_a_failed_export_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, net = tmp_path / "net.onnx", gb.Network([3, 2])
    net.to_onnx(path)
    before = path.read_bytes()
    monkeypatch.setattr("os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError("the disk is full")))
    net.theta[0] += 1
    with pytest.raises(OSError, match="full"):
        net.to_onnx(path)
    net.theta[0] = np.nan
    with pytest.raises(InvalidValue, match="NaN or infinity"):
        net.to_onnx(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["net.onnx"]


def test_what_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = gb.Network([3, 2])
    with pytest.raises(InvalidType, match="path must be"):
        net.to_onnx(3)  # type: ignore[arg-type]
    net.metadata = {"gpubackprop.loss": "mine"}
    with pytest.raises(InvalidValue, match=r"'gpubackprop\.loss', which the model says itself"):
        net.to_onnx()
    net.metadata = {"epochs": 3}  # type: ignore[dict-item]
    with pytest.raises(InvalidType, match="dict of strings"):
        net.to_onnx()
    net.metadata = {}
    monkeypatch.setattr("gpubackprop.onnx.LARGEST", 4 * net.n_parameters - 1)
    with pytest.raises(InvalidValue, match="at most 31 bytes of parameters, got 32"):
        net.to_onnx(tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingDependency, match=r"pip install 'gpubackprop\[onnx\]'"):
        gb.Network([3, 2]).to_onnx()
