"""Which output activation a loss gets, and which ones it cannot have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy
import pytest

import gpubackprop as gb
from gpubackprop.activations import ACTIVATIONS, Activation
from gpubackprop.errors import InvalidValue
from gpubackprop.losses import LOSSES


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_range_of_an_activation_is_that_of_its_outputs(name: str) -> None:
    units = 2 if ACTIVATIONS[name].rowwise else 1
    net = gb.Network([1, units], output_activation=name, dtype="float64", backend="numpy")
    net.parameters[0][0][...] = [1.0, -1.0][:units]
    a = net.forward(numpy.linspace(-40.0, 40.0, 161)[:, None])
    assert ACTIVATIONS[name].range == pytest.approx((a.min(), a.max()), rel=1e-12, abs=1e-15)


DEFAULTS = {"cross_entropy": "softmax", "binary_cross_entropy": "sigmoid", "poisson": "softplus"}


@pytest.mark.parametrize("name", LOSSES)
def test_the_default_output_activation_follows_the_loss(name: str) -> None:
    net = gb.Network([2, 3], loss=name)
    assert net.activations[-1].name == DEFAULTS.get(name, "identity")
    assert gb.Network([2, 3], loss=LOSSES[name]).activations == net.activations
    assert gb.bytes_of_training([2, 3], loss=name) == gb.bytes_of_training(
        [2, 3], loss=name, output_activation=net.activations[-1]
    )


def test_the_default_output_activation_of_a_loss_of_ones_own_is_its_canonical_one() -> None:
    row = replace(LOSSES["mse"], name="own", canonical=ACTIVATIONS["tanh"], canonical_loss=lambda m, y, z: y)
    assert gb.Network([2, 1], loss=row).activations[-1].name == "tanh"


CANNOT = {  # the only ones of a loss that some activation cannot go with, on two outputs
    "cross_entropy": ["softmax"],
    "binary_cross_entropy": ["sigmoid", "hard_sigmoid"],
    "poisson": ["sigmoid", "relu", "softplus", "hard_sigmoid", "softmax"],
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("output", ACTIVATIONS)
def test_combinations_that_cannot_be_right_are_refused(output: str, loss: str) -> None:
    if output in CANNOT.get(loss, ACTIVATIONS):
        gb.Network([2, 2], output_activation=output, loss=loss)
        return
    with pytest.raises(InvalidValue, match=f"'{output}' cannot go with the loss '{loss}'.*'{DEFAULTS[loss]}'"):
        gb.Network([2, 2], output_activation=output, loss=loss)


@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_softmax_on_one_output_is_refused(loss: str) -> None:
    with pytest.raises(InvalidValue, match=r"on 1 output.*'binary_cross_entropy'"):
        gb.Network([2, 1], output_activation="softmax", loss=loss)
    with pytest.raises(InvalidValue, match="on 1 output"):
        gb.Network([2, 1], loss="cross_entropy")


def test_the_values_of_a_row_of_ones_own_decide() -> None:
    exp = Activation("own_exp", lambda m, z: m.exp(z), lambda m, z, a: a)
    assert gb.Network([2, 1], output_activation=exp, loss="poisson").activations == (exp,)
    with pytest.raises(InvalidValue, match=r"from 0 to 1: it returns such from .* to 2\.35385e\+17"):
        gb.Network([2, 1], output_activation=exp, loss="binary_cross_entropy")


def test_classes_are_learnt_without_naming_the_output_activation() -> None:
    X = numpy.random.default_rng(0).normal(size=(300, 3))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    net = gb.Network([3, 16, 2], loss="cross_entropy")
    gb.fit(net, X, y, optimizer=gb.optimizers.Adam(0.01), batch_size=32, epochs=60)
    assert (net.predict(X).argmax(axis=1) == y).mean() > 0.95


def test_a_file_of_a_combination_that_is_refused_now_is_read(tmp_path: Path) -> None:
    net = gb.Network([2, 3], output_activation="identity", loss=replace(LOSSES["cross_entropy"], targets="any"))
    path = tmp_path / "model.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LOSSES, "cross_entropy", net.loss)
        net.save(path)
    X = numpy.random.default_rng(1).normal(size=(5, 2))
    numpy.testing.assert_array_equal(gb.load(path).predict(X), net.predict(X))


def test_the_remedy_for_softmax_on_one_output_goes_with_the_loss() -> None:
    with pytest.raises(InvalidValue, match=r"accepted are None and 'sigmoid'$"):
        gb.Network([2, 1], output_activation="softmax", loss="binary_cross_entropy")
    gb.Network([2, 1], output_activation="sigmoid", loss="binary_cross_entropy")
