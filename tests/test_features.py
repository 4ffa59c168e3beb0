"""Columns of tables and frames by name, in training, validation and prediction; validation data of every kind."""

from __future__ import annotations

import copy
import importlib
import logging
import pickle
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpubackprop as gb
from gpubackprop.errors import InvalidType, InvalidValue
from gpubackprop.intake import source_of

RNG = numpy.random.default_rng(0)
X = RNG.normal(size=(60, 3))
Y = (X[:, 0] > 0).astype(int)
W = RNG.uniform(0.5, 2.0, size=60)
COLUMNS = {"a": X[:, 0], "b": X[:, 1], "ç": X[:, 2]}


@pytest.fixture(params=["arrow", "pandas"])
def make(request: pytest.FixtureRequest, need: Any) -> Any:
    """Return what makes a table of columns."""
    if request.param == "arrow":
        need("pyarrow")
        return importlib.import_module("pyarrow").table
    need("pandas")
    return importlib.import_module("pandas").DataFrame


@pytest.fixture
def pa(need: Any) -> Any:
    need("pyarrow")
    return importlib.import_module("pyarrow")


def _net() -> gb.Network:
    return gb.Network([3, 6, 2], loss="cross_entropy", seed=0, backend="numpy", dtype="float64")


def _fit(net: gb.Network, table: Any, **arguments: Any) -> gb.History:
    """Train on a table of Arrow with a column y, or on a frame."""
    if hasattr(table, "schema"):
        return gb.fit(net, table.append_column("y", [Y]), "y", epochs=3, **arguments)
    return gb.fit(net, table, Y, epochs=3, **arguments)


def _picked(make: Any, names: str) -> Any:
    return make({name: COLUMNS.get(name, Y) for name in names})


def test_columns_are_matched_by_name_in_any_order(make: Any, caplog: Any) -> None:
    net = _net()
    _fit(net, make(COLUMNS))
    assert net.features == ["a", "b", "ç"]
    expected = net.predict(X)
    for names in ("abç", "çab", "bça"):
        numpy.testing.assert_array_equal(net.predict(_picked(make, names)), expected)
    with caplog.at_level(logging.INFO, logger="gpubackprop"):
        numpy.testing.assert_array_equal(net.predict(_picked(make, "yçbaz")), expected)
    assert "ignored 'y', 'z', not among the features" in caplog.text
    with pytest.raises(
        InvalidValue, match=r"X has no column 'b'; the network takes 'a', 'b', 'ç', .* has 'ç', 'd', 'a'"
    ):
        net.predict(_picked(make, "çda"))


def test_a_file_of_arrow_is_matched_too(pa: Any, tmp_path: Path) -> None:
    importlib.import_module("pyarrow.parquet").write_table(_picked(pa.table, "yçba"), tmp_path / "t.parquet")
    net = _net()
    _fit(net, pa.table(COLUMNS))
    numpy.testing.assert_array_equal(net.predict(tmp_path / "t.parquet"), net.predict(X))


def test_frames_are_matched_by_every_method(need: Any) -> None:
    need("pandas")
    frame, net = importlib.import_module("pandas").DataFrame, _net()
    _fit(net, frame(COLUMNS))
    other = _picked(frame, "çyab")
    numpy.testing.assert_array_equal(net.forward(other), net.forward(X))
    assert net.evaluate(other, Y) == net.evaluate(X, Y)
    assert net.loss_and_gradients(other, Y)[0] == net.loss_and_gradients(X, Y)[0]
    out = numpy.empty((60, 2))
    numpy.testing.assert_array_equal(net.predict(other, out=out), net.predict(X))
    twice = importlib.import_module("pandas").DataFrame(X, columns=["a", "a", "b"])
    numpy.testing.assert_array_equal(net.predict(twice), net.predict(X))  # names that do not tell columns apart
    numpy.testing.assert_array_equal(net.predict(frame(X)), net.predict(X))


def _ordered(make: Any, orders: list[list[str]]) -> Any:
    rows = [slice(0, 20), slice(20, 40), slice(40, 60)]
    return lambda: [
        (make({name: COLUMNS[name][part] for name in order}), Y[part]) for part, order in zip(rows, orders, strict=True)
    ]


def test_batches_are_matched_by_name_too(make: Any) -> None:
    """In training, also if the order changes from one batch to the next, in validation and in prediction."""
    own, other = ["a", "b", "ç"], ["ç", "a", "b"]
    nets, histories = [_net(), _net()], []
    for net, orders in zip(nets, ([own] * 3, [own, other, own]), strict=True):
        validation = _ordered(make, [orders[1]] * 3)
        histories.append(gb.fit(net, _ordered(make, orders), epochs=2, validation_data=validation))
        assert net.features == own
        gb.fit(net, _ordered(make, [orders[1]] * 3), epochs=1)  # in the order of the network
        assert net.features == own
    assert histories[0].loss == histories[1].loss
    assert histories[0].validation_loss == histories[1].validation_loss
    numpy.testing.assert_array_equal(nets[0].predict(X), nets[1].predict(X))
    read = (x for x, _ in _ordered(make, [other, own, other])())
    numpy.testing.assert_array_equal(nets[0].predict(read), nets[0].predict(X))
    with pytest.raises(InvalidValue, match="X of batch 1 has no column 'b'"):
        gb.fit(nets[0], _ordered(make, [own, ["a", "ç"], own]), epochs=1)


def test_gradients_match_tables_by_name(make: Any) -> None:
    net = _net()
    _fit(net, make(COLUMNS))
    table = make({name: COLUMNS[name] for name in ["ç", "a", "b"]})
    assert net.loss_and_gradients(table, Y)[0] == net.loss_and_gradients(X, Y)[0]


def test_training_goes_on_in_the_order_of_the_network(make: Any) -> None:
    one, other = _net(), _net()
    for names in ("abç", "çba"):
        history = _fit(one, _picked(make, names))
        assert _fit(other, make(COLUMNS)).loss == history.loss
    assert one.features == ["a", "b", "ç"]
    _fit(one, make({"u": X[:, 0], "v": X[:, 1], "w": X[:, 2]}))
    assert one.features == ["u", "v", "w"]


def test_names_go_with_the_network(make: Any, tmp_path: Path) -> None:
    net = _net()
    _fit(net, make(COLUMNS))
    net.save(tmp_path / "model")
    others = [gb.load(tmp_path / "model"), copy.deepcopy(net), net.to("numpy"), pickle.loads(pickle.dumps(net))]
    for other in others:
        numpy.testing.assert_array_equal(other.predict(_picked(make, "çba")), net.predict(X))


@pytest.mark.parametrize("names", ["", "a,b,c", '["a", "b"]', '["a", "a", "b"]', "[1, 2, 3]", '{"a": 1}', "[" * 10**5])
def test_other_metadata_of_that_name_are_no_names(names: str, make: Any) -> None:
    net = _net()
    net.metadata["features"] = names
    assert net.features is None
    numpy.testing.assert_array_equal(net.predict(make(COLUMNS)), net.predict(X))


def test_a_call_that_is_refused_names_nothing(make: Any) -> None:
    net = _net()
    with pytest.raises(InvalidValue):
        _fit(net, make({"a": X[:, 0], "b": X[:, 1]}))
    assert net.metadata == {}


def test_arrays_have_no_names() -> None:
    net = _net()
    gb.fit(net, X, Y, epochs=1)
    assert net.metadata == {}


# -- validation data ---------------------------------------------------------------------------------------------------


def _batches() -> Any:
    return ((X[k : k + 25], Y[k : k + 25]) for k in (0, 25, 50))


def _weighted_batches() -> Any:
    return ((X[k : k + 25].tolist(), Y[k : k + 25], W[k : k + 25]) for k in (0, 25, 50))


def _files(folder: Path) -> tuple[Path, ...]:
    for name, array in {"X": X, "Y": Y, "W": W}.items():
        numpy.save(folder / f"{name}.npy", array)
    return tuple(folder / f"{name}.npy" for name in "XYW")


VALIDATION: dict[str, Any] = {
    "a pair": lambda folder: (X, Y),
    "a list": lambda folder: [X, Y],
    "a triple": lambda folder: (X, Y, W),
    "no weights": lambda folder: (X, Y, None),
    "paths": lambda folder: _files(folder)[:2],
    "paths with weights": _files,
    "a map": lambda folder: (numpy.load(_files(folder)[0], mmap_mode="r"), Y),
    "batches": lambda folder: _batches,
    "a list of batches behind an iterable": lambda folder: dict(enumerate(_batches())).values(),
    "weighted batches": lambda folder: _weighted_batches,
    "a source": lambda folder: source_of(X, Y, None),
    "a source of batches": lambda folder: source_of(_weighted_batches, None, None),
}
WEIGHTED = {"a triple", "paths with weights", "weighted batches", "a source of batches"}


@pytest.mark.parametrize("kind", VALIDATION)
def test_validation_data_of_every_kind(kind: str, tmp_path: Path) -> None:
    net = _net()
    history = gb.fit(net, X, Y, epochs=2, validation_data=VALIDATION[kind](tmp_path))
    assert history.validation_loss[-1] == net.evaluate(X, Y, W if kind in WEIGHTED else None)


@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("how", ["table", "pair", "triple", "file"])
def test_validation_on_tables_of_arrow(how: str, weight: str | None, pa: Any, tmp_path: Path) -> None:
    table = pa.table({**COLUMNS, "y": Y, "w": W})
    other = table.select(["y", "ç", "w", "a", "b"])
    if weight is None:
        table = table.drop(["w"])
    importlib.import_module("pyarrow.parquet").write_table(other, tmp_path / "t.parquet")
    given = {"table": other, "pair": (other, "y"), "triple": (other, "y", weight), "file": tmp_path / "t.parquet"}
    net = _net()
    history = gb.fit(net, table, "y", sample_weight=weight, epochs=2, validation_data=given[how])
    assert history.validation_loss[-1] == net.evaluate(X, Y, W if weight and how != "pair" else None)


def test_validation_on_frames_in_another_order(need: Any) -> None:
    need("pandas")
    pd, net = importlib.import_module("pandas"), _net()
    held = (_picked(pd.DataFrame, "çyab"), pd.Series(Y), pd.Series(W))
    history = gb.fit(net, pd.DataFrame(COLUMNS), Y, epochs=2, validation_data=held)
    assert history.validation_loss[-1] == net.evaluate(X, Y, W)


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "one array": (X, InvalidType, r"a pair \(X, y\) or a triple .*got ndarray"),
    "one path": ("X.npy", InvalidType, "got str"),
    "one item": ((X,), InvalidValue, "got 1 items"),
    "four items": ((X, Y, W, W), InvalidValue, "got 4 items"),
    "no targets": ((X, None), InvalidType, "y is missing"),
    "no examples": ((None, Y), InvalidType, "X must be an array of real numbers, got None"),
    "an empty function": (lambda: iter(()), InvalidValue, "there is no batch"),
    "some weights": (lambda: iter([(X, Y, W), (X, Y)]), InvalidValue, "in all batches or in none"),
    "negative weights": ((X, Y, -W), InvalidValue, "validation sample_weight must be non-negative"),
    "other shape": ((X[:, :2], Y), InvalidValue, r"validation X must have the shape \(N, 3\)"),
    "labels out of range": ((X, Y + 1), InvalidValue, "labels in validation y"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_validation_data_that_is_refused(kind: str) -> None:
    given, error, says = REFUSED[kind]
    net = _net()
    before = net.theta.copy()
    with pytest.raises(error, match=says):
        gb.fit(net, X, Y, epochs=1, validation_data=given)
    numpy.testing.assert_array_equal(net.theta, before)


def test_a_table_without_the_names_of_its_targets_is_refused(pa: Any) -> None:
    with pytest.raises(InvalidType, match=r"validation_data: it must be a pair .*names of its targets"):
        gb.fit(_net(), X, Y, validation_data=pa.table({**COLUMNS, "y": Y}))


@pytest.mark.parametrize("name", ["y", "sample_weight"])
def test_an_empty_list_names_no_column(name: str, pa: Any) -> None:
    given = {"y": "y", "sample_weight": None, name: []}
    with pytest.raises(InvalidValue, match=f"{name} must name at least one column of X"):
        gb.fit(_net(), pa.table({**COLUMNS, "y": Y}), **given)


def test_weights_are_one_column(pa: Any) -> None:
    with pytest.raises(InvalidValue, match="sample_weight must name one column of X, got 2"):
        gb.fit(_net(), pa.table({**COLUMNS, "y": Y, "w": W, "v": W}), "y", sample_weight=["w", "v"])
