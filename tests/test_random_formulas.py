"""Any formula, run as a program of array operations, computes what the formula computes."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy
import pytest
from formulas import PLAIN, Case, backend_of, run

import gpubackprop as gb
from gpubackprop.activations import Activation
from gpubackprop.formula import trace

hypothesis = pytest.importorskip("hypothesis", reason="formulas are drawn by hypothesis - pip install hypothesis")
st = hypothesis.strategies

STATEMENT = st.tuples(
    st.sampled_from(["+", "-", "*", "/", "negative", "abs", "sqrt", "minimum", "maximum", "<", "<=", ">", ">="]),
    *[st.integers(0, 30)] * 4,
)
NUMBERS = (0.5, 2.0, -1.0, 0.0)


def _formula(statements: list[Any], outputs: list[int]) -> Callable[..., Any]:
    """Return a formula of single statements, each on inputs, numbers and what earlier ones computed."""

    def formula(m: Any, *inputs: Any) -> Any:
        values = list(inputs)
        for operation, i, j, k, l in statements:
            a, b, c, d = (
                values[i % len(values)],
                *([*values, *NUMBERS][n % (len(values) + len(NUMBERS))] for n in (j, k, l)),
            )
            values.append(_statement(m, operation, a, b, c, d))
        pool = [*values, *NUMBERS]
        return tuple(pool[n % len(pool)] for n in outputs)

    return formula


def _statement(m: Any, operation: str, a: Any, b: Any, c: Any, d: Any) -> Any:
    """Only what IEEE 754 rounds correctly, and no division by zero: then equal means equal."""
    conditions = {"<": lambda: a < b, "<=": lambda: a <= b, ">": lambda: a > b, ">=": lambda: a >= b}
    others = {
        "+": lambda: a + b,
        "-": lambda: b - a,
        "*": lambda: a * b,
        "/": lambda: b / (m.abs(a) + 1.0),
        "negative": lambda: -a,
        "abs": lambda: m.abs(a),
        "sqrt": lambda: m.sqrt(a),
        "minimum": lambda: m.minimum(a, b),
        "maximum": lambda: m.maximum(b, a),
    }
    return m.where(conditions[operation](), c, d) if operation in conditions else others[operation]()


@hypothesis.settings(max_examples=400, deadline=None, derandomize=True, database=None)
@hypothesis.given(
    statements=st.lists(STATEMENT, max_size=12),
    count=st.integers(1, 3),
    outputs=st.lists(st.integers(0, 30), min_size=1, max_size=3),
    places=st.permutations([0, 1, 2]),
    block=st.sampled_from([3, 16, 100]),
)
def test_any_formula_into_any_inputs(statements: Any, count: int, outputs: Any, places: Any, block: int) -> None:
    """Outputs overwrite as many inputs, in any order; a single one also lands beside them or in any of them."""
    names = ["x", "y", "z"][:count]
    formula = _formula(statements, outputs[:count])
    source = trace(formula, names)
    rng = numpy.random.default_rng(5)
    arrays = {name: numpy.round(rng.normal(0, 2, 10), 1) for name in names}
    with numpy.errstate(all="ignore"):
        expected = [numpy.broadcast_to(r, 10) for r in formula(PLAIN, *arrays.values())]
    overwrites = tuple(names[k] for k in places if k < count)[: len(expected)]
    given = run(backend_of(block), Case("", source, tuple(names), overwrites, formula), arrays)
    for one, other in zip(given, expected, strict=True):
        numpy.testing.assert_array_equal(one, other)
    if len(expected) == 1:
        for out in (None, *names):
            [one] = run(backend_of(block), Case("", source, tuple(names), (), formula), arrays, out)
            numpy.testing.assert_array_equal(one, expected[0])


@hypothesis.settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],  # `need` keeps nothing
)
@hypothesis.given(statements=st.lists(STATEMENT, max_size=12), output=st.integers(0, 30))
def test_any_formula_as_an_onnx_model(need: Callable[[str], None], statements: Any, output: int) -> None:
    """The formula is the activation of a network that adds nothing to it: z = x 1 + 0."""
    need("onnx")
    formula = _formula(statements, [output])
    row = Activation("drawn", lambda m, z: formula(m, z)[0], lambda m, z, a: 1.0)
    net = gb.Network([1, 1], output_activation=row, dtype="float64", backend="numpy")
    net.parameters[0][0][...] = 1.0
    X = numpy.round(numpy.random.default_rng(5).normal(0, 2, (10, 1)), 1)
    content = net.to_onnx().SerializeToString()
    with numpy.errstate(all="ignore"):
        expected = numpy.broadcast_to(formula(PLAIN, X)[0], X.shape)
        [given] = importlib.import_module("onnx.reference").ReferenceEvaluator(content).run(None, {"X": X})
    numpy.testing.assert_array_equal(given, expected)
