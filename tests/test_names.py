"""Names of rows, types and backends: any case and common aliases are understood, and others are answered."""

from __future__ import annotations

from typing import Any

import numpy
import pytest

import gpubackprop as gb
from gpubackprop.activations import ACTIVATIONS
from gpubackprop.checks import ALIASES, meant
from gpubackprop.errors import InvalidType, InvalidValue
from gpubackprop.initializers import INITIALIZERS
from gpubackprop.losses import LOSSES
from gpubackprop.optimizers import OPTIMIZERS

TABLES: dict[str, Any] = {
    "activation": ACTIVATIONS, "loss": LOSSES, "initializer": INITIALIZERS, "optimizer": OPTIMIZERS,
    "dtype": ("float32", "float64"), "precision": ("float32", "tf32", "bfloat16"), "backend": ("auto", "numpy", "cuda"),
}  # fmt: skip


def _as_others_write(name: str) -> list[str]:
    words = name.split("_")
    return [name.upper(), name.title(), "".join(word.capitalize() for word in words), "-".join(words), " ".join(words)]


@pytest.mark.parametrize("table", TABLES)
def test_case_and_joints_do_not_matter(table: str) -> None:
    for name in TABLES[table]:
        assert {meant(text, TABLES[table]) for text in [name, *_as_others_write(name)]} == {name}


def test_every_alias_means_a_name_of_one_table_and_is_no_name_itself() -> None:
    for alias, name in ALIASES.items():
        tables = [table for table in TABLES.values() if name in table]
        assert tables, name
        assert all(meant(alias, table) == name for table in tables)
        assert all(meant(alias, table) is None for table in TABLES.values() if name not in table)
    # names as others write them stay what they are
    for table in TABLES.values():
        assert all(meant(name, table) == name for name in table)


def test_names_of_a_network() -> None:
    net = gb.Network(
        [3, 4, 2], activation="ReLU", output_activation="Softmax", loss="CrossEntropy", initializer="Xavier",
        dtype="Float64", precision="FP32", backend="CPU",
    )  # fmt: skip
    plain = gb.Network(
        [3, 4, 2], activation="relu", output_activation="softmax", loss="cross_entropy",
        initializer="glorot_uniform", dtype="float64", backend="numpy",
    )  # fmt: skip
    assert (net.architecture, net.precision, net.backend) == (plain.architecture, "float32", plain.backend)
    assert net.theta.tobytes() == plain.theta.tobytes()
    auto = gb.Network([3, 4, 2], initializer="Auto", backend="numpy")
    assert auto.theta.tobytes() == gb.Network([3, 4, 2], backend="numpy").theta.tobytes()
    X = numpy.ones((2, 3))
    assert (
        gb.fit(net, X, [0, 1], optimizer="Adam", epochs=1).loss
        == gb.fit(plain, X, [0, 1], optimizer="adam", epochs=1).loss
    )
    assert gb.check_gradients(net, X, [0, 1], method="Central-Differences").method == "central_differences"


@pytest.mark.parametrize(
    "dtype", [numpy.float64, numpy.dtype("float64"), float, numpy.dtype(">f8"), "FLOAT64", "double"]
)
def test_types_as_numpy_and_python_have_them(dtype: Any) -> None:
    net = gb.Network([2, 1], dtype=dtype)
    assert net.dtype == "float64"
    assert net.theta.dtype == numpy.float64
    assert gb.bytes_of_training([2, 1], dtype=dtype) == gb.bytes_of_training([2, 1], dtype="float64")
    assert gb.Network([2, 1], dtype=numpy.float32).dtype == "float32"


@pytest.mark.parametrize("dtype", [numpy.float16, numpy.int64, "float16", "int", complex, numpy.dtype("V8")])
def test_other_types_are_refused(dtype: Any) -> None:
    with pytest.raises(InvalidValue, match="dtype must be one of 'float32', 'float64', got"):
        gb.Network([2, 1], dtype=dtype)


@pytest.mark.parametrize("dtype", [None, 64, [1], object()])
def test_what_is_no_type_is_refused(dtype: Any) -> None:
    with pytest.raises(InvalidType, match="dtype must be one of 'float32', 'float64', got"):
        gb.Network([2, 1], dtype=dtype)


@pytest.mark.parametrize(
    ("argument", "given", "nearest"),
    [
        ("activation", "rleu", "relu"), ("activation", "sofplus", "softplus"), ("loss", "hubr", "huber"),
        ("loss", "crossentropie", "cross_entropy"), ("initializer", "xaver", "glorot_uniform"),
        ("dtype", "flaot32", "float32"), ("precision", "flt32", "float32"), ("backend", "nunpy", "numpy"),
    ],
)  # fmt: skip
def test_did_you_mean(argument: str, given: str, nearest: str) -> None:
    with pytest.raises(InvalidValue, match=f"^{argument} must be .*, got '{given}'; did you mean '{nearest}'\\?$"):
        gb.Network([2, 3, 1], **{argument: given})


def test_nothing_near_is_not_guessed() -> None:
    with pytest.raises(InvalidValue, match=r"got 'qqq'$"):
        gb.Network([2, 1], loss="qqq")
    with pytest.raises(InvalidValue, match=r"'adam', .*got 'adma'; did you mean 'adam'"):
        gb.warmup(gb.Network([2, 1]), optimizer="adma")


def test_parameters_of_rows_by_their_names_in_any_case() -> None:
    assert gb.losses.huber(Delta=2.0) == gb.losses.huber(delta=2.0)


@pytest.mark.parametrize("name", ["gpu", "GPU", "CUDA", "Cuda:1", "gpu:1"])
def test_a_gpu_by_other_names(name: str, stand_in: str) -> None:
    index = 1 if name.endswith("1") else 0
    assert gb.Network([2, 1], backend=name).backend is gb.Network([2, 1], backend=f"cuda:{index}").backend
    with gb.use_backend(name):
        assert gb.Network([2, 1]).backend.index == index
