"""The metadata of a model that `train` wrote: all that `predict` believes of them, it has checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy
import pytest

import gpubackprop as gb
from gpubackprop.cli import main
from gpubackprop.cli.about import from_metadata, to_metadata
from gpubackprop.cli.columns import Trained
from gpubackprop.cli.datasets import Dataset
from gpubackprop.errors import ModelFileError

NONE = numpy.empty(0)
CSV = Dataset("t.csv", NONE, NONE, ["cat", "dog", "cow"], ["w", "h"], "animal", 1, trained=Trained(4, [0, 3]))
BARE = Dataset("t.npy", NONE, NONE, None, None, None, 2, trained=Trained(3, [0, 1]))
NAMED = Dataset("digits", NONE, NONE, ["0", "1", "2"])


def _about(data: Dataset) -> dict[str, Any]:
    return {name: value for name, value in vars(data).items() if name not in {"X", "y"}}


def _net(data: Dataset) -> gb.Network:
    net = gb.Network([2, 3], output_activation="softmax", loss="cross_entropy", backend="numpy")
    net.metadata = to_metadata(data, 5)
    return net


@pytest.mark.parametrize("data", [CSV, BARE, NAMED], ids=lambda data: data.name)
def test_what_is_written_is_read(data: Dataset) -> None:
    found, seed = from_metadata(_net(data), "m")
    assert seed == 5
    assert _about(found) == _about(data)


def test_models_without_the_place_of_columns(tmp_path: Path) -> None:
    net = _net(CSV)
    del net.metadata["columns"]
    assert from_metadata(net, "m")[0].trained is None


def test_other_metadata_are_the_users() -> None:
    net = _net(CSV)
    net.metadata["note"] = "[ no JSON"
    assert _about(from_metadata(net, "m")[0]) == _about(CSV)
    net.metadata = {"note": "mine"}
    assert from_metadata(net, "m")[0].classes == ["0", "1", "2"]


WRONG: list[tuple[str, Any]] = [
    ("task", "clustering"),
    ("task", "regression"),  # with classes
    ("task", []),
    ("classes", None),
    ("classes", ["cat", "dog"]),
    ("classes", ["cat", "dog", "dog"]),
    ("classes", ["cat", "dog", 3]),
    ("classes", ["cat", "dog", ""]),
    ("classes", ["cat", "dog", "\ud800"]),
    ("classes", "cat"),
    ("classes", {"cat": 1, "dog": 2, "cow": 3}),
    ("features", ["w"]),
    ("features", ["w", "w"]),
    ("features", ["w", None]),
    ("features", None),  # with a target's name
    ("target", 1),
    ("target", "w"),
    ("target", None),
    ("target_index", None),
    ("target_index", 4),
    ("target_index", -1),
    ("target_index", 3),  # a feature's place
    ("target_index", True),
    ("target_index", 1.0),
    ("columns", []),
    ("columns", {"width": 4}),
    ("columns", {"width": 4, "places": [0]}),
    ("columns", {"width": 4, "places": [0, 0]}),
    ("columns", {"width": 4, "places": [0, 4]}),
    ("columns", {"width": "4", "places": [0, 3]}),
    ("columns", {"width": 4, "places": [0, [3]]}),
    ("data", None),
    ("data", ""),
    ("seed", -1),
    ("seed", 1.5),
    ("seed", float("nan")),
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=lambda x: json.dumps(x))
def test_metadata_that_do_not_fit_are_named(name: str, value: Any) -> None:
    net = _net(CSV)
    net.metadata[name] = json.dumps(value)
    with pytest.raises(ModelFileError, match=r"m: the metadata are not what train writes \(\w+ must be "):
        from_metadata(net, "m")


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, "9" * 10_000], ids=["empty", "open", "deep", "long"])
def test_metadata_that_are_no_json(text: str) -> None:
    net = _net(CSV)
    net.metadata["classes"] = text
    with pytest.raises(ModelFileError, match="the metadata are not what train writes"):
        from_metadata(net, "m")


@pytest.mark.parametrize("name", ["classes", "features", "target", "target_index", "data", "seed"])
def test_metadata_that_are_missing(name: str) -> None:
    net = _net(CSV)
    del net.metadata[name]
    with pytest.raises(ModelFileError, match="the metadata are not what train writes"):
        from_metadata(net, "m")


def test_a_model_that_claims_another_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.safetensors"
    _net(NAMED).save(path)  # of 2 features; digits have 64
    assert main(["predict", str(path), "digits"]) == 2
    assert "the network does not fit digits" in capsys.readouterr().err
