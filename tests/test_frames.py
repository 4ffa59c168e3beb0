"""Frames of pandas as examples and targets: every type that holds numbers, and messages that name columns."""

from __future__ import annotations

import importlib
from typing import Any

import numpy
import pytest

import gpubackprop as gb
from gpubackprop.errors import InvalidType, InvalidValue
from gpubackprop.frames import numbers

N = 50
RNG = numpy.random.default_rng(0)
VALUES, WORDS = RNG.normal(size=N), RNG.choice(["u", "v"], N)


@pytest.fixture
def pd(need: Any) -> Any:
    need("pandas")
    return importlib.import_module("pandas")


def _frames(pd: Any) -> dict[str, Any]:
    plain = pd.DataFrame({"a": VALUES, "b": range(N), "c": 1.0})
    return {
        "get_dummies": pd.get_dummies(pd.DataFrame({"len": VALUES, "kind": WORDS})),
        "sparse dummies": pd.get_dummies(pd.DataFrame({"len": VALUES, "kind": WORDS}), sparse=True),
        "bool and float": plain.assign(b=VALUES > 0),
        "int and bool": plain.assign(a=range(N), b=VALUES > 0, c=False),
        "float and Int64": plain.assign(b=pd.Series(range(N), dtype="Int64")),
        "nullable": plain.assign(b=VALUES > 0).convert_dtypes(),
        "one name twice": pd.DataFrame(RNG.normal(size=(N, 3)), columns=["a", "a", "b"]),
        "several levels": pd.DataFrame(
            RNG.normal(size=(N, 3)), columns=pd.MultiIndex.from_product([["a"], list("xyz")])
        ),
        "all booleans": pd.DataFrame(RNG.normal(size=(N, 3)) > 0),
    }


FRAMES = [
    "get_dummies", "sparse dummies", "bool and float", "int and bool", "float and Int64", "nullable", "one name twice",
    "several levels", "all booleans", "arrow",
]  # fmt: skip


@pytest.mark.parametrize("name", FRAMES)
def test_frames_of_numbers(name: str, pd: Any, need: Any) -> None:
    if name == "arrow":
        need("pyarrow")
        frame = pd.DataFrame({"a": VALUES, "b": range(N), "c": VALUES > 0}).convert_dtypes(dtype_backend="pyarrow")
    else:
        frame = _frames(pd)[name]
    plain, net = frame.to_numpy(dtype=float), gb.Network([3, 4, 1], seed=0, backend="numpy", dtype="float64")
    numpy.testing.assert_array_equal(net.predict(frame), net.predict(plain))
    numpy.testing.assert_array_equal(net.forward(frame), net.forward(plain))
    y = frame.iloc[:, 0]
    assert net.evaluate(frame, y) == net.evaluate(plain, plain[:, 0])
    other = net.to("numpy")
    history = gb.fit(net, frame, y, sample_weight=abs(frame.iloc[:, 1].astype(float)) + 1, epochs=2)
    assert history.loss == gb.fit(other, plain, plain[:, 0], sample_weight=abs(plain[:, 1]) + 1, epochs=2).loss


def test_the_type_holds_every_column(pd: Any) -> None:
    large = pd.DataFrame({"a": pd.Series([2**53 + 1], dtype="Int64"), "b": pd.Series([3], dtype="int8")})
    assert numbers(large, "X").tolist() == [[2**53 + 1, 3]]
    small = pd.DataFrame({"a": pd.Series([1, 2], dtype="Int32"), "b": pd.Series([True, False], dtype="boolean")})
    assert numbers(small, "X").dtype == "int32"
    single = pd.DataFrame(numpy.ones((2, 2), "float32"))
    assert numbers(single, "X").dtype == "float32"
    assert numpy.shares_memory(numbers(single, "X"), single.to_numpy())


@pytest.mark.parametrize("dtype", ["Int64", "int64", "Int8", "boolean", "uint8"])
def test_labels_in_a_column(dtype: str, pd: Any) -> None:
    net = gb.Network([1, 2], loss="cross_entropy", backend="numpy")
    labels = pd.Series(numpy.arange(N) % 2).astype(dtype)
    assert net.evaluate(VALUES[:, None], labels) == net.evaluate(VALUES[:, None], numpy.arange(N) % 2)


MISSING = {"Int64": [1, None, 3], "Float64": [1, None, 3], "boolean": [True, None, False], "float64": [1.0, None, 3.0]}


@pytest.mark.parametrize("dtype", MISSING)
def test_missing_values_are_named_by_column(dtype: str, pd: Any) -> None:
    column = pd.Series(MISSING[dtype], dtype=dtype)
    frame, net = pd.DataFrame({"a": [1, 2, 3], "age": column}), gb.Network([2, 1])
    for call in (net.predict, net.forward, lambda x: gb.fit(net, x, [1, 2, 3]), lambda x: net.evaluate(x, [1, 2, 3])):
        with pytest.raises(InvalidValue, match="X: the column 'age' has 1 missing values: drop those rows or fill"):
            call(frame)
    with pytest.raises(InvalidValue, match="y has 1 missing values"):
        net.evaluate(frame[["a", "a"]], column)


def test_columns_of_other_things_are_named(pd: Any) -> None:
    net = gb.Network([2, 1])
    others = {
        "words": WORDS[:3],
        "classes": pd.Categorical(["u", "v", "u"]),
        "days": pd.date_range("2020-01-01", periods=3),
        "numbers": pd.Series([1, 2, 3], dtype=object),
        "spans": pd.to_timedelta([1, 2, 3]),
        "complex": [1j, 2, 3],
    }
    for name, column in others.items():
        frame = pd.DataFrame({"a": [1.0, 2.0, 3.0], name: column})
        with pytest.raises(
            InvalidType, match=f"X: the column '{name}' must hold real numbers, got the type .*get_dumm"
        ):
            net.predict(frame)
    with pytest.raises(InvalidType, match=r"y must hold real numbers, got the type .*pandas\.factorize"):
        gb.fit(net, numpy.ones((3, 2)), pd.Series(["u", "v", "u"]))


def test_a_frame_without_rows_or_columns(pd: Any) -> None:
    net = gb.Network([2, 1])
    for frame in (pd.DataFrame({"a": [], "b": []}), pd.DataFrame(index=range(3)), pd.DataFrame()):
        with pytest.raises((InvalidValue, InvalidType), match="X"):
            net.predict(frame)


class _Raises:
    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise self._error


@pytest.mark.parametrize(
    "error", [KeyError("k"), ZeroDivisionError("z"), OSError(5, "o"), StopIteration(), Exception()]
)
def test_whatever_an_array_of_the_users_raises_is_named(error: Exception) -> None:
    net, x, y = gb.Network([2, 1]), numpy.ones((3, 2)), numpy.ones(3)
    for name, call in {
        "X": lambda: net.predict(_Raises(error)),
        "y": lambda: net.evaluate(x, _Raises(error)),
        "sample_weight": lambda: gb.fit(net, x, y, sample_weight=_Raises(error)),
        "0.weight": lambda: net.load_state_dict({"0.weight": _Raises(error), "0.bias": [0.0]}),
    }.items():
        with pytest.raises(InvalidType, match=f"^{name} must be .*_Raises: {type(error).__name__}: ") as raised:
            call()
        assert raised.value.__cause__ is error


def test_memory_that_does_not_suffice_is_no_wrong_type() -> None:
    with pytest.raises(MemoryError) as raised:
        gb.Network([2, 1]).predict(_Raises(MemoryError()))
    assert type(raised.value) is MemoryError
