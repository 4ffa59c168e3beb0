"""CONTRIBUTING.md: its recipe makes a working row, its commands and the files it links to exist."""

from __future__ import annotations

import re
from pathlib import Path

import numpy

import gpubackprop as gb
from gpubackprop.activations import Activation

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_recipe_for_an_activation_has_the_right_gradients() -> None:
    [code] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    names = {"Activation": Activation}
    exec(code, names)
    net = gb.Network([4, 5, 3], activation=names["swish2"], backend="numpy", dtype="float64")
    rng = numpy.random.default_rng(0)
    assert gb.check_gradients(net, rng.normal(size=(7, 4)), rng.normal(size=(7, 3))).largest_error < 1e-12


def test_commands_are_targets_of_the_makefile() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    named = set(re.findall(r"`make ([a-z-]+)", TEXT))
    assert {"environment", "check", "test", "test-long"} <= named <= set(targets)


def test_linked_files_exist() -> None:
    linked = re.findall(r"\]\(([^):]+)\)", TEXT)
    assert linked
    assert [path for path in linked if not (ROOT / path).is_file()] == []
