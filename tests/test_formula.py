"""One formula, three readings of it: called on arrays, run as a program of array operations, compiled from its C++."""

from __future__ import annotations

import ctypes
import functools
import importlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cuda_compiler
import formulas
import numpy
import pytest
from formulas import CASES, PLAIN, Case, backend_of, run

import gpubackprop as gb
from gpubackprop.activations import Activation
from gpubackprop.backends.erf import erf
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.backends.operations import complex_operations
from gpubackprop.errors import InvalidValue
from gpubackprop.formula import spell_out, trace
from gpubackprop.losses import Loss

DTYPES = ("float32", "float64")
each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_dtype = pytest.mark.parametrize("dtype", DTYPES)


def _direct(case: Case, arrays: dict[str, Any]) -> list[numpy.ndarray]:
    """Call the formula itself on arrays; a number it returns is spread over all points."""
    with numpy.errstate(all="ignore"):
        results = case.direct(*[arrays[name] for name in case.arguments])
    like = arrays[case.arguments[0]]
    return [
        numpy.broadcast_to(r, like.shape).astype(like.dtype)
        for r in (results if isinstance(results, tuple) else (results,))
    ]


def _assert_close(given: Any, expected: Any, ulps: float, scale: Any) -> None:
    """Hold values to so many units in the last place of `scale`; NaN and infinity must be where they are expected."""
    same = (given == expected) | (numpy.isnan(given) & numpy.isnan(expected))
    finite = numpy.isfinite(given) & numpy.isfinite(expected)
    with numpy.errstate(all="ignore"):
        error = numpy.abs(given.astype(float) - expected.astype(float))
        near = finite & (
            error <= ulps * numpy.finfo(expected.dtype).eps * numpy.maximum(scale, abs(expected.astype(float)))
        )
    wrong = numpy.flatnonzero(~(same | near))
    assert wrong.size == 0, f"{wrong.size} of {same.size} differ, first {given[wrong[0]]!r} for {expected[wrong[0]]!r}"


# -- as a program of array operations ----------------------------------------------------------------------------------


@each_dtype
@each_case
def test_program_computes_the_formula(case: Case, dtype: str) -> None:
    arrays = formulas.inputs(case, dtype)
    assert arrays[case.arguments[0]].size % 16 != 0  # the last block is a smaller one
    with numpy.errstate(all="ignore"):
        scale = formulas.magnitude(case.trace, arrays)
    for given, expected in zip(run(backend_of(), case, arrays), _direct(case, arrays), strict=True):
        assert given.dtype == dtype
        _assert_close(given, expected, 8, scale)


@each_dtype
@each_case
def test_block_size_changes_nothing(case: Case, dtype: str) -> None:
    arrays = {name: a[:33] for name, a in formulas.inputs(case, dtype).items()}
    expected = run(backend_of(1 << 20), case, arrays)
    for block in (1, 16, 32, 33):
        for given, whole in zip(run(backend_of(block), case, arrays), expected, strict=True):
            numpy.testing.assert_array_max_ulp(given, whole, maxulp=2)
    for size in (1, 2):
        short = {name: a[:size] for name, a in arrays.items()}
        for given, whole in zip(run(backend_of(), case, short), expected, strict=True):
            numpy.testing.assert_array_max_ulp(given, whole[:size], maxulp=2)


@pytest.mark.parametrize("case", [case for case in CASES if not case.overwrites], ids=str)
def test_output_may_take_the_place_of_any_input(case: Case) -> None:
    arrays = formulas.inputs(case, "float64")
    [expected] = run(backend_of(), case, arrays)
    for name in case.trace.inputs:
        [given] = run(backend_of(), case, arrays, out=name)
        numpy.testing.assert_array_equal(given, expected)


@pytest.mark.parametrize("case", [case for case in CASES if "rate" in case.arguments], ids=str)
def test_hyperparameters_may_be_numbers(case: Case) -> None:
    arrays = {name: numpy.linspace(0.1, 2, 37) for name in case.arguments}
    scalars = dict.fromkeys(case.arguments[2 + len(case.overwrites) - 1 :], 0.25)
    spread = arrays | {name: numpy.full(37, number) for name, number in scalars.items()}
    mine = {name: a.copy() for name, a in arrays.items()} | scalars
    outputs = [mine[name] for name in case.overwrites]
    backend_of()._run(case.trace, mine, outputs, case.overwrites)
    for given, expected in zip(outputs, _direct(case, spread), strict=True):
        numpy.testing.assert_allclose(given, expected, rtol=1e-15)


def test_equal_subexpressions_are_computed_once() -> None:
    source = trace(lambda m, z: m.exp(z) * m.exp(z) + m.exp(z), ["z"])
    assert [operation for operation, _ in source.values] == ["input", "exp", "*", "+"]


def test_slots_that_move_up(tmp_path: Path) -> None:
    """An output may be the old value of a slot that another output overwrites."""
    backend, [case] = backend_of(), [case for case in CASES if case.name == "two_ago"]
    arrays = {
        name: numpy.full(3, value) for name, value in zip(case.arguments, (1.0, 3.0, 6.0, 9.0, 0.5, 1.0), strict=True)
    }
    w, previous, before = run(backend, case, arrays)
    assert (w[0], previous[0], before[0]) == (-2.0, 3.0, 6.0)  # 1 − 0.5 (3 + 6 + 9) / 3; then each moves up by one
    [case] = [case for case in CASES if case.name == "swapping"]
    arrays = {
        name: numpy.full(3, value) for name, value in zip(case.arguments, (1.0, 3.0, 6.0, 9.0, 0.5, 1.0), strict=True)
    }
    w, p, q = run(backend, case, arrays)
    assert (w[0], p[0], q[0]) == (-2.0, 12.0, 6.0)  # 1 − 0.5 · 6; then p = 9 + 3 and q = 6


# -- what is no formula ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigma", "message"),
    [
        (lambda m, z: z if z > 0 else 0.0, "cannot branch"),
        (lambda m, z: max(z, 0.0), "cannot branch"),
        (lambda m, z: 1.0 if z == 0 else z, "cannot branch"),
        (lambda m, z: 1.0 if z != 0 else z, "cannot branch"),
        (lambda m, z: (z > 0) + (z > 1), "a comparison may only be"),  # True and True are True to NumPy, 2 to C++
        (lambda m, z: z > 0, "a comparison may only be"),
        (lambda m, z: m.where(z > 0, z > 1, 0.0), "a comparison may only be"),
        (lambda m, z: numpy.tanh(z), "tanh"),
        (lambda m, z: math.exp(z), "real number"),
        (lambda m, z: z**2, "unsupported operand"),
        (lambda m, z: abs(z), "bad operand"),
        (lambda m, z: m.sin(z), "m.sin is not in the vocabulary"),
        (lambda m, z: m.exp(z, z), "m.exp takes 1 operands, got 2"),
        (lambda m, z: m.where(z > 0, z), "m.where takes 3 operands, got 2"),
        (lambda m, z: m.where(z, 1.0, 0.0), "takes a comparison"),
        (lambda m, z: z + math.inf, "finite number"),
        (lambda m, z: z + numpy.ones(3), "finite number"),
        (lambda m, z: "z", "finite number"),
        (lambda m, z: functools.reduce(lambda a, _: a + 1.0, range(5000), z), "RecursionError"),
        (lambda m, z: z / (1 // 0), "ZeroDivisionError"),
        (lambda m, z: {}["slope"], "KeyError"),
    ],
)
def test_what_is_no_formula_is_refused_by_name(sigma: Any, message: str) -> None:
    with pytest.raises(InvalidValue, match="activation 'mine': ") as refusal:
        Activation("mine", sigma, lambda m, z, a: 1.0)
    assert message in str(refusal.value)
    with pytest.raises(InvalidValue, match="activation 'mine': "):
        Activation("mine", lambda m, z: z, lambda m, z, a: sigma(m, z))
    with pytest.raises(InvalidValue, match="loss 'mine': "):
        Loss("mine", lambda m, y, a: sigma(m, a), lambda m, y, a: 1.0)


@pytest.mark.parametrize(("returned", "outputs"), [((), 1), ((1.0, 2.0), 1), (1.0, 2), ((1.0,), 2), ([1.0, 2.0], 2)])
def test_a_formula_returns_as_many_values_as_it_must(returned: Any, outputs: int) -> None:
    accepted = "one value" if outputs == 1 else "a tuple of 2 values"
    given = f"a tuple of {len(returned)}" if isinstance(returned, tuple) else f"one {type(returned).__name__}"
    with pytest.raises(
        InvalidValue, match=f"mine: a formula of z cannot be traced: it must return {accepted}, got {given};"
    ):
        trace(lambda m, z: returned, ["z"], outputs=outputs, owner="mine")
    assert len(trace(lambda m, z: (z,) * outputs, ["z"], outputs=outputs).outputs) == outputs


# -- compiled from C++ -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], ctypes.CDLL]:
    return functools.cache(lambda: formulas.host_library(tmp_path_factory.mktemp("formulas")))


@each_dtype
@each_case
def test_compiled_function_computes_the_formula(case: Case, dtype: str, need: Any, library: Any) -> None:
    """To 16 units in the last place of the largest intermediate value: two libraries of mathematics, one formula."""
    need("host")
    arrays = formulas.inputs(case, dtype)
    with numpy.errstate(all="ignore"):
        scale = formulas.magnitude(case.trace, arrays)
    for given, expected in zip(formulas.on_host(library(), case, arrays), _direct(case, arrays), strict=True):
        _assert_close(given, expected, 16, scale)


def _kernels(kind: str) -> str:
    kernels = [
        f'extern "C" __global__ void k_{case}(T** in, T** out) {{ {formulas.call(case, "threadIdx.x")} }}'
        for case in CASES
    ]
    return "\n".join([formulas.functions(kind), *kernels])


def test_float_code_has_no_double_arithmetic(need: Any) -> None:
    need("compile")
    ptx = cuda_compiler.compiled(_kernels("float"), 80).ptx
    assert all(f".entry k_{case}(" in ptx for case in CASES)
    assert ".f32" in ptx
    assert ".f64" not in ptx


def test_double_code_is_seen_where_there_is_some(need: Any) -> None:
    """What the test above looks for is what a double looks like: in code for double, and from one stray literal."""
    need("compile")
    ptx = cuda_compiler.compiled(_kernels("double"), 80).ptx
    assert all(f".entry k_{case}(" in ptx for case in CASES)
    assert ".f64" in ptx
    stray = _kernels("float").replace("T(0.044715)", "0.044715")
    assert ".f64" in cuda_compiler.compiled(stray, 80).ptx


# -- the error function ------------------------------------------------------------------------------------------------

X_ERF = numpy.concatenate(
    [numpy.linspace(-7, 7, 20_001), numpy.geomspace(1e-300, 1, 2000), [0.0, 0.46875, 1e308, -1e308]]
)


def test_erf_against_the_library_of_c() -> None:
    with numpy.errstate(over="ignore"):  # of the branch that is not taken
        given = erf(PLAIN, X_ERF)
    expected = numpy.array([math.erf(x) for x in X_ERF])
    assert abs(given - expected).max() <= 1e-15
    normal = abs(expected) > 1e-300
    assert abs(given / numpy.where(normal, expected, 1) - 1)[normal].max() <= 1e-15
    with numpy.errstate(invalid="ignore"):
        assert numpy.array_equal(
            erf(PLAIN, numpy.array([numpy.inf, -numpy.inf, numpy.nan])), [1, -1, numpy.nan], equal_nan=True
        )


def test_erf_against_fifty_digits() -> None:
    mpmath = pytest.importorskip("mpmath")
    x = numpy.concatenate([numpy.linspace(-6.5, 6.5, 1001), numpy.geomspace(1e-20, 1, 100)])
    with mpmath.workdps(50):
        exact = [mpmath.erf(mpmath.mpf(float(v))) for v in x]
        errors = [
            abs((mpmath.mpf(float(g)) - e) / e) if e else abs(float(g))
            for g, e in zip(erf(PLAIN, x), exact, strict=True)
        ]
    assert max(errors) <= 1e-15


def test_erf_in_float32() -> None:
    x = numpy.linspace(-5, 5, 4001, dtype="float32")
    expected = numpy.array([math.erf(v) for v in x])
    given = erf(PLAIN, x)
    assert given.dtype == numpy.float32
    assert abs(given - expected).max() <= 4 * numpy.finfo("float32").eps


def test_erf_of_complex_numbers_carries_its_derivative() -> None:
    x = numpy.linspace(-3, 3, 61)
    z, out = x + 1e-200j, numpy.empty(61, complex)
    complex_operations(numpy)["erf"](z, out)
    numpy.testing.assert_allclose(out.real, [math.erf(v) for v in x], rtol=1e-15)
    numpy.testing.assert_allclose(out.imag / 1e-200, 2 / math.sqrt(math.pi) * numpy.exp(-x * x), rtol=1e-15)


def test_spelling_out_leaves_the_rest() -> None:
    source = trace(lambda m, z: m.erf(z) + m.tanh(z) * m.erf(z), ["z"])
    spelled = spell_out(source, "erf", erf)
    names = [operation for operation, _ in spelled.values]
    assert "erf" not in names
    assert names.count("tanh") == 1
    assert (names.count("where"), names.count("exp")) == (2, 1)  # one erf, used twice


def _trained(backend: NumpyBackend, dtype: str) -> gb.Network:
    net = gb.Network([3, 8, 8, 2], activation="gelu", output_activation="gelu", backend="numpy", dtype=dtype)
    net = net._copy(backend, dtype)
    rng = numpy.random.default_rng(3)
    gb.fit(net, rng.normal(size=(40, 3)), rng.normal(size=(40, 2)), epochs=20, batch_size=16)
    return net


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-4)])
def test_gelu_trains_as_with_the_erf_of_scipy(dtype: str, tolerance: float, need: Any) -> None:
    need("scipy")
    scipy, ours = NumpyBackend(), NumpyBackend()
    scipy._operations[False]["erf"] = functools.partial(scipy._tape.do, importlib.import_module("scipy.special").erf)
    expected, given = _trained(scipy, dtype), _trained(ours, dtype)
    assert (expected.backend, given.backend) == (scipy, ours)
    assert (expected.theta != given.theta).any()
    numpy.testing.assert_allclose(given.theta, expected.theta, rtol=tolerance, atol=tolerance)
