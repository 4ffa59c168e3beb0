"""The tables of docs/scaling.md are those of the files, and its model does what a model of time must."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]


def _script(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


page = _script(ROOT / "tools" / "scaling_page.py")


def test_the_page_is_not_stale() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    assert page.rewritten(text, page.RESULTS) == text, "run tools/scaling_page.py"


def test_a_page_without_a_place_for_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="begin: measured"):
        page.rewritten("nothing", tmp_path)


def test_a_folder_without_figures_says_so(tmp_path: Path) -> None:
    assert list(page.measured(tmp_path)) == ["Not yet measured."]


def test_sums_by_hand() -> None:
    """Two GPUs: 6.6 µs, two steps of 0.6 µs, and all bytes once, at 360 GB/s."""
    assert page.seconds_of_sum(36e6, 1) == 0.0
    assert page.seconds_of_sum(36e6, 2) == pytest.approx(6.6e-6 + 1.2e-6 + 1e-4)
    over_nodes = page.seconds_of_sum(36e6, 16) - page.seconds_of_sum(36e6, 8)  # two nodes: an eighth once, at 40 GB/s
    assert over_nodes == pytest.approx(6.6e-6 + 2 * 5e-6 + 36e6 / 8 / 40e9)


def test_what_is_not_hidden() -> None:
    """One layer hides nothing of its sum; of several the last bucket stays, at least."""
    single = page.Net((4096, 4096), 1024)
    assert page.exposed(single, 1024, 8) == pytest.approx(page.seconds_of_sum(4 * 4096**2, 8))
    several = page.Net((4096,) * 9, 10**6)  # with so many rows everything before fits beside the products
    assert page.exposed(several, 10**6, 8) == pytest.approx(page.seconds_of_sum(4 * 4096**2, 8))
    few = page.exposed(several, 1, 8)
    assert page.exposed(several, 10**6, 8) < few <= 8 * page.seconds_of_sum(4 * 4096**2, 8)


def test_what_was_measured_is_shown(tmp_path: Path) -> None:
    constants = {"c": [1.0, 1.0], "k": {"1": 1.0, "2": 1.5}, "a": {"2": 1e-6}, "b": {"2": 1e-9}}
    entry = {
        "workload": "3-2, N 8", "load": 0.5, "constants": constants,
        "seconds": {"1": 0.2, "2": 0.125}, "model": {"1": 0.2, "2": 0.1},
    }  # fmt: skip
    content = {"machine_info": {"cpu": "C", "cores": 2}, "datetime": "now", "ranks": [entry]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    lines = list(page.measured(tmp_path))
    assert "C, 2 cores, measured now; load is" in lines[0]
    assert lines[-1] == "| 3-2, N 8 | 0.5 | 2 | 1.00 µs | 1.00 GB/s | 1.50 | 100 ms | 125 ms | 0.80 | 80 % |"


def test_the_model_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    model = _script(ROOT / "benchmarks" / "rank_model.py")
    constants = {"c": [1.0, 0.5], "k": {"1": 1.0, "4": 2.0}, "a": {"4": 0.25}, "b": {"4": 0.125}}
    assert model.model(1, 8, 10, constants) == 1.0 + 4.0
    assert model.model(4, 8, 10, constants) == 2.0 * (1.0 + 1.0) + 0.25 + 1.25
    assert model._line((4, 24), (1.0, 3.0)) == (1.0, 0.1)
