"""The columns of users' files: row numbers, pandas' names, missing targets, --drop and --columns, and predict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

from gpubackprop import load
from gpubackprop.cli import main
from gpubackprop.cli.columns import Asked, Trained
from gpubackprop.cli.datasets import Dataset, to_predict, to_train_on
from gpubackprop.cli.tables import number, unknown
from gpubackprop.errors import InvalidValue

QUICK = ["--hidden", "4", "--epochs", "1"]
RNG = numpy.random.default_rng(5)
KINDS = numpy.repeat(["low", "mid", "top"], 20)
NOISE = RNG.normal(size=(60, 3)).round(3)


def _csv(path: Path, columns: dict[str, Any], header: bool = True) -> str:
    rows = [list(columns)] * header + [list(row) for row in zip(*columns.values(), strict=True)]
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def _noise(**first: Any) -> dict[str, Any]:
    return first | dict(zip("abc", NOISE.T, strict=True)) | {"kind": KINDS}


# -- a column that only numbers the rows -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", '""', "Unnamed: 0", "Unnamed: 0.1", "...1"])
@pytest.mark.parametrize("numbers", [range(60), range(1, 61), RNG.permutation(60), 3 * RNG.permutation(60) + 7])
def test_row_numbers_without_a_name_are_left_out(name: str, numbers: Any, tmp_path: Path) -> None:
    data = to_train_on(_csv(tmp_path / "t.csv", {name: numbers} | _noise()), Asked(), None)
    assert (data.X == NOISE).all()
    assert data.features == ["a", "b", "c"]
    assert len(data.notes) == 1
    assert data.notes[0].startswith("left out: column 1")


def test_two_of_them_are_left_out(tmp_path: Path) -> None:
    columns = {"": range(60), "Unnamed: 0": RNG.permutation(60)} | _noise()
    data = to_train_on(_csv(tmp_path / "t.csv", columns), Asked(), None)
    assert (data.features, len(data.notes)) == (["a", "b", "c"], 2)


@pytest.mark.parametrize("numbers", [numpy.arange(60) // 2, numpy.arange(60) + 0.5])
def test_other_columns_without_a_name_are_features(numbers: Any, tmp_path: Path) -> None:
    data = to_train_on(_csv(tmp_path / "t.csv", {"": numbers} | _noise()), Asked(), None)
    assert (data.features, data.notes) == (["column 1", "a", "b", "c"], [])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("start", [0, 1, 2])
def test_matrices_without_names(start: int, stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A count from 0 or 1 is left out, from memory and from the file, which is read in blocks of 7 rows."""
    monkeypatch.setattr("gpubackprop.cli.ondisk.BLOCK_BYTES", 7 * 5 * 8)
    table = numpy.column_stack([numpy.arange(start, start + 60), NOISE, numpy.arange(60) % 2])
    numpy.save(tmp_path / "t.npy", table)
    numpy.savetxt(tmp_path / "t.csv", table, delimiter=",")
    for name in ["t.npy"] if stream else ["t.npy", "t.csv"]:
        data = to_train_on(str(tmp_path / name), Asked(), None, stream)
        X = data.X.part(numpy.arange(60)).whole()[0] if stream else data.X
        numpy.testing.assert_array_equal(X, table[:, 1:-1] if start < 2 else table[:, :-1])
        assert data.trained == Trained(5, [1, 2, 3] if start < 2 else [0, 1, 2, 3])
        assert [note.startswith("left out: column 1,") for note in data.notes] == [True] * (start < 2)


@pytest.mark.parametrize("stream", [True, False])
def test_grey_levels_beside_row_numbers(stream: bool, tmp_path: Path) -> None:
    pixels = RNG.integers(0, 256, (600, 64))
    pixels[0, 0] = 0
    numpy.save(tmp_path / "t.npy", numpy.column_stack([numpy.arange(600), pixels, numpy.arange(600) % 3]))
    assert to_train_on(str(tmp_path / "t.npy"), Asked(), None, stream).one_unit


def test_the_only_feature_and_a_named_one_stay_and_are_said(tmp_path: Path) -> None:
    alone = to_train_on(_csv(tmp_path / "t.csv", {"": range(60), "kind": KINDS}), Asked(), None)
    named = to_train_on(_csv(tmp_path / "u.csv", _noise(Id=range(1, 61))), Asked(), None)
    assert (alone.X.shape, named.X.shape) == ((60, 1), (60, 4))
    assert "column 1 counts the rows" in alone.notes[0]
    assert named.notes == ["column 1 (Id) counts the rows; if it is no feature: --drop 1"]


def test_who_asks_for_row_numbers_has_them(tmp_path: Path) -> None:
    path = _csv(tmp_path / "t.csv", {"": range(60)} | _noise())
    assert to_train_on(path, Asked(columns=["1", "b"]), None).X.shape == (60, 2)


def test_noise_is_not_learnt_from_row_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = _csv(tmp_path / "t.csv", {"": range(60)} | _noise())
    assert main(["train", path, "--hidden", "32", "--out", str(tmp_path / "m")]) == 0
    assert "left out: column 1, which only numbers the rows" in capsys.readouterr().out
    assert json.loads((tmp_path / "m/history.json").read_text())["test"]["accuracy"] < 0.75  # with it: 0.9 and more
    assert main(["predict", str(tmp_path / "m/model.safetensors"), path]) == 0
    assert "ignored: column 1" in capsys.readouterr().err


# -- what a cell and a line mean -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["1_5", "1_000", "infinity", "-inf", "NaN", "１", "1e999", "0x10", "\u00a05", ""])
def test_no_number(cell: str, tmp_path: Path) -> None:
    assert number(cell) is None
    path = _csv(tmp_path / "t.csv", {"a": [1.5, cell or "''", 2], "b": [1, 2, 3], "y": [0, 1, 1]})
    with pytest.raises(InvalidValue, match=r"line 3, column 1 \(a\)"):
        to_train_on(path, Asked(), None)


@pytest.mark.parametrize("cell", ["15", " -1.5 ", "+.5", "1.", "1e-3", "1E5"])
def test_number(cell: str) -> None:
    assert number(cell) == float(cell)


@pytest.mark.parametrize(
    "mark", ["NA", "N/A", "n/a", "null", "NULL", "#N/A", "?", "nan", "-NaN", "<NA>", "", " ", "inf"]
)
@pytest.mark.parametrize("text", [True, False])
def test_missing_targets_are_no_class(mark: str, text: bool, tmp_path: Path) -> None:
    y = numpy.array(["yes", "no"] if text else ["1", "2"], dtype="U9")[RNG.integers(0, 2, 40)]
    y[[3, 13, 23]] = mark
    assert unknown(mark)
    numpy.savez(tmp_path / "t.npz", X=NOISE[:40], y=y)
    table = _csv(tmp_path / "t.csv", {"a": NOISE[:40, 0], "y": y})
    for path, row in ((table, "line 5"), (str(tmp_path / "t.npz"), "y, row 4")):
        with pytest.raises(InvalidValue, match=rf"{row}: the target is .*a missing value \(3 such rows in all\)"):
            to_train_on(path, Asked(), "classification")


@pytest.mark.parametrize("name", ["None", "none", "nano", "??", "NAN1"])
def test_names_like_missing_values_are_classes(name: str, tmp_path: Path) -> None:
    path = _csv(tmp_path / "t.csv", {"a": NOISE[:4, 0], "y": [name, "b"] * 2})
    assert name in (to_train_on(path, Asked(), None).classes or [])


@pytest.mark.parametrize(
    ("text", "X"),
    [
        ("0,1,2\n1.5,2.5,0\n3.5,4.5,1\n5.5,4.5,1\n", [[1.5, 2.5], [3.5, 4.5], [5.5, 4.5]]),
        (",0,1,2\n7,1.5,2.5,0\n3,3.5,4.5,1\n5,5.5,4.5,1\n", [[1.5, 2.5], [3.5, 4.5], [5.5, 4.5]]),
        ("1,2,3\n1.5,2.5,0\n3.5,4.5,3\n", [[1, 2], [1.5, 2.5], [3.5, 4.5]]),
    ],
)
def test_numbers_from_0_in_the_first_line_are_names(text: str, X: Any, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    data = to_train_on(str(tmp_path / "t.csv"), Asked(), "classification")
    assert data.X.tolist() == X
    assert any("line 1 names the columns" in note for note in data.notes) == (len(data.features or []) > 0)


@pytest.mark.parametrize("first", ["sep=;\r\n", "\ufeffsep=;\n", '"sep=;"\n', "SEP=;\n"])
def test_separator_of_excel(first: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes((first + "a;b;y\r\n1;2;x\r\n3;4;y\r\n3;4;y\r\n").encode())
    data = to_train_on(str(path), Asked(), None)
    assert (data.X.tolist(), data.features) == ([[1, 2], [3, 4], [3, 4]], ["a", "b"])
    path.write_bytes((first + "a;b;y\r\n1;2;x\r\n3;4,5;y\r\n").encode())
    with pytest.raises(InvalidValue, match=r"line 4, column 2 \(b\) is '4,5'"):
        to_train_on(str(path), Asked(), None)


# -- --drop and --columns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "features", "target"),
    [
        (Asked(drop=["note"]), ["a", "b"], "y"),
        (Asked(drop=["2", "a"]), ["b"], "y"),
        (Asked(columns=["b", "1"]), ["b", "a"], "y"),
        (Asked(columns=["b", "y", "a"], target="y", drop=["a"]), ["b"], "y"),
        (Asked(target="a", drop=["note", "y"]), ["b"], "a"),
        (Asked(drop=["note", "y"]), ["a"], "b"),
    ],
)
def test_columns_that_are_asked_for(asked: Asked, features: list[str], target: str, tmp_path: Path) -> None:
    columns = {"a": [1.5, 2, 4, 4], "note": ["x", "y", "", "z"], "b": [5, 6.5, 6.5, 8], "y": [0, 1, 0, 1]}
    data = to_train_on(_csv(tmp_path / "t.csv", columns), asked, "regression")
    assert (data.features, data.target) == (features, target)
    assert data.X.tolist() == numpy.column_stack([columns[name] for name in features]).astype(float).tolist()
    assert data.y.tolist() == columns[target]


@pytest.mark.parametrize("stream", [True, False])
def test_columns_of_a_matrix(stream: bool, tmp_path: Path) -> None:
    """A column that is dropped may hold NaN."""
    table = numpy.column_stack([NOISE, numpy.full(60, numpy.nan), numpy.arange(60) % 2])
    numpy.save(tmp_path / "t.npy", table)
    for asked in (Asked(drop=["4", "1"]), Asked(columns=["2", "3"])):
        data = to_train_on(str(tmp_path / "t.npy"), asked, None, stream)
        X = data.X.part(numpy.arange(60)).whole()[0] if stream else data.X
        numpy.testing.assert_array_equal(X, NOISE[:, 1:])
        assert data.trained == Trained(5, [1, 2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--drop", "x"], "no column 'x'; accepted is a name, or a number from 1"),
        (["--columns", "a,9"], "no column '9'"),
        (["--drop", "y", "--target", "y"], "--drop names column 3 .y., which is the target"),
        (["--drop", "a", "--drop", "b"], "no feature is left"),
        (["--columns", "y"], "no feature is left"),
    ],
)
def test_columns_that_are_not_there(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = _csv(tmp_path / "t.csv", {"a": [1, 2, 2], "b": [3, 4, 5], "y": ["u", "v", "u"]})
    assert main(["train", path, *QUICK, *arguments, "--out", str(tmp_path / "m")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert __import__("re").search(message, error)


def test_columns_may_be_given_several_times(tmp_path: Path) -> None:
    path = _csv(tmp_path / "t.csv", {"a": [1, 2, 2], "b": [3, 4, 5], "c": [1, 0, 4], "y": ["u", "v", "u"]})
    out = tmp_path / "m"
    assert main(["train", path, *QUICK, "--columns", "b", "--columns", "c,a", "--out", str(out)]) == 0
    assert load(out / "model.safetensors").features == ["b", "c", "a"]


# -- predict ---------------------------------------------------------------------------------------------------------

LIKE = Dataset("t.csv", NOISE, KINDS, ["u", "v"], ["b", "a"], "y", 3, trained=Trained(5, [2, 0]))


@pytest.mark.parametrize(
    ("name", "content", "y", "note"),
    [
        ("t.csv", "a,b\n1,2\n3,4\n", None, ""),
        ("t.csv", "n,b,z,a\nx,2,?,1\ny,4,,3\n", None, "ignored: n, z, which the model does not need"),
        ("t.csv", "y,b,z,a\nv,2,?,1\nu,4,,3\n", [1, 0], "ignored: z, which"),
        ("t.csv", "2,1\n4,3\n", None, ""),
        ("t.csv", "1,-9,2,v,-9\n3,-9,4,u,-9\n", [1, 0], ""),
        ("t.csv", "1,-9,2,-9\n3,-9,4,-9\n", None, ""),
        ("t.npy", numpy.array([[1, -9, 2, -9], [3, -9, 4, -9]]), None, ""),
        ("t.npz", {"X": numpy.array([[1, -9, 2, -9], [3, -9, 4, -9]]), "y": numpy.array(["v", "u"])}, [1, 0], ""),
    ],
)
def test_a_file_to_predict(name: str, content: Any, y: Any, note: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, str):
        path.write_text(content)
    else:
        numpy.savez(path, **content) if isinstance(content, dict) else numpy.save(path, content)
    X, targets, notes = to_predict(str(path), 2, LIKE)
    assert X.tolist() == [[2, 1], [4, 3]]
    assert (targets is None) if y is None else (targets is not None and targets.tolist() == y)
    assert len(notes) == bool(note)
    assert note in "".join(notes)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,z\n1,2\n", "has no column b, but a, z; the model takes b, a"),
        ("1,2,3\n", "has 3 columns; the model takes 2 features .*or the 5 columns of the training file"),
        ("1,2,3,4,5,6\n", "has 6 columns"),
    ],
)
def test_a_file_that_lacks_what_the_model_needs(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(InvalidValue, match=message):
        to_predict(str(tmp_path / "t.csv"), 2, LIKE)


@pytest.mark.parametrize("name", ["t.csv", "t.npy"])
def test_a_file_with_two_readings_names_its_features(name: str, tmp_path: Path) -> None:
    """It lacks one column of the training file: the target, or the one that was left out."""
    path, table = tmp_path / name, numpy.array([[9.0, 1, 2], [9, 3, 4]])
    numpy.savetxt(path, table, delimiter=",") if path.suffix == ".csv" else numpy.save(path, table)
    like = Dataset("t", NOISE, KINDS, ["u", "v"], target_index=3, trained=Trained(4, [1, 2]))
    X, targets, notes = to_predict(str(path), 2, like)
    assert (X.tolist(), targets) == ([[1, 2], [3, 4]], None)
    assert notes == ["without names: the features are columns 2, 3, as in the training file without its target"]


@pytest.mark.parametrize("kind", ["csv", "bare.csv", "npy"])
def test_a_model_predicts_the_file_it_was_trained_on(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With columns left out: by name, and by place, from the whole file and from one without the target."""
    columns = {"a": NOISE[:, 0], "n": NOISE[:, 1], "y": NOISE[:, 0].round(1), "b": NOISE[:, 2]}
    path, bare = tmp_path / f"t.{kind}", tmp_path / f"u.{kind}"
    without = {name: column for name, column in columns.items() if name != "y"}
    for place, table in ((path, columns), (bare, without)):
        if kind == "npy":
            numpy.save(place, numpy.column_stack(list(table.values())))
        else:
            _csv(place, table, header=kind == "csv")
    arguments = ["--target", "3", "--drop", "2", "--task", "regression", "--out", str(tmp_path / "m")]
    assert main(["train", str(path), *QUICK, *arguments]) == 0
    tables = []
    for place in (path, bare):
        capsys.readouterr()
        assert main(["predict", str(tmp_path / "m/model.safetensors"), str(place)]) == 0
        tables.append(capsys.readouterr())
    assert tables[0].out == tables[1].out
    assert ["test" in each.err for each in tables] == [True, False]
