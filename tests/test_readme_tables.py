"""The tables of the README: made from the result files, and stale ones are seen."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench_files
import pytest

from gpubackprop.errors import InvalidValue

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EMPTY = (
    "# Title\n\n<!-- begin: performance -->\nold\n<!-- end -->\n\n<!-- begin: parity -->\n<!-- end -->\n\nThe end.\n"
)


def _tool() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT / "tools")
        return importlib.import_module("readme_tables")


readme_tables = _tool()


def _device_file() -> dict[str, Any]:
    """Return a file as benchmarks/gpu_steps.py writes it, of three workloads."""
    ours = {"name": "gpubackprop", "median_seconds": 20e-6}
    bare, peer = {"name": "bare products", "median_seconds": 18e-6}, {"name": "PyTorch", "median_seconds": 50e-6}
    skipped = {"name": "JAX", "remark": "skipped: not installed"}
    return {
        "machine": {"device": "Made-up GPU", "driver": "600.1, for CUDA 13.0", "date": "2026-01-02T03:04:05+00:00"},
        "workloads": [
            {"workload": "tiny 784-128-10, N 64, SGD, tf32", "contenders": [ours, bare, skipped, peer]},
            {"workload": "large", "contenders": [{"name": "gpubackprop", "remark": "failed"}, bare]},
            {"workload": "alone", "contenders": [ours, skipped]},
        ],
    }


def _parity_file(*backends: str) -> dict[str, Any]:
    """Return a file as benchmarks/sklearn_parity.py writes it."""
    machine = {"cpu": "Made-up CPU", "gpu": None, "numpy": "2.4.6", "scikit_learn": "1.9.1"}
    return {
        "machine": {**machine, "date": "2026-01-02T03:04:05+00:00"},
        "sklearn_parity": [
            {"backend": backend, "solver": solver, "dtype": dtype, "largest": 1.26e-15}
            for backend in backends
            for solver in ("sgd", "lbfgs")
            for dtype in ("float64", "float32")
        ],
    }


def test_readme_is_not_stale() -> None:
    """Where this fails: python tools/readme_tables.py."""
    assert readme_tables.rewritten(README, ROOT / "benchmarks" / "results") == README


def test_one_changed_number_makes_it_stale(tmp_path: Path) -> None:
    content = bench_files.content("numpy")
    bench_files.write(tmp_path / "machine.json", content)
    fresh = readme_tables.rewritten(EMPTY, tmp_path)
    assert readme_tables.rewritten(fresh, tmp_path) == fresh
    content["benchmarks"][0]["stats"]["median"] *= 1.1
    bench_files.write(tmp_path / "machine.json", content)
    assert readme_tables.rewritten(fresh, tmp_path) != fresh


def test_only_the_block_is_rewritten(tmp_path: Path) -> None:
    text = readme_tables.rewritten(EMPTY, tmp_path)
    assert text.startswith("# Title\n\n<!-- begin: performance -->\n\nNot yet measured.\n")
    assert text.endswith("Not yet measured.\n\nOn a GPU: **not yet run on a device**.\n\n<!-- end -->\n\nThe end.\n")
    assert text.count("On a GPU: **not yet run on a device**.") == 2
    for name in ("performance", "parity"):
        with pytest.raises(InvalidValue, match=f"must have the lines <!-- begin: {name} -->"):
            readme_tables.rewritten(EMPTY.replace(name, "other"), tmp_path)


def test_cpu_alone_leaves_the_device_open(tmp_path: Path) -> None:
    bench_files.write(tmp_path / "cpu.json", bench_files.content("numpy"))
    text = readme_tables.performance(tmp_path)
    assert text.startswith("Made-up CPU @ 2.50GHz, 2 cores; OpenBLAS 0.3.30, 2 threads; ")
    assert "NumPy 2.4.6; measured 2026-01-02:\n" in text
    assert "**Training steps, SGD, float32**" in text
    assert "| 784-128-10, N 64 | 486 µs | 87% | 1.35× PyTorch 2.13.0 |" in text
    assert text.endswith("On a GPU: **not yet run on a device**.")


def test_a_device_is_in_the_tables_of_either_program(tmp_path: Path) -> None:
    bench_files.write(tmp_path / "a.json", bench_files.content("numpy", "cuda"))
    text = readme_tables.performance(tmp_path)
    assert "not yet" not in text
    assert "| 784-128-10 | rows | from N = 16" in text
    (tmp_path / "a.json").rename(tmp_path / "a.txt")
    bench_files.write(tmp_path / "gpu-steps.json", _device_file())
    text = readme_tables.performance(tmp_path)
    assert text.startswith(
        "On a CPU: not yet measured.\n\nMade-up GPU, driver 600.1, for CUDA 13.0; measured 2026-01-02:\n"
    )
    assert "| tiny 784-128-10, N 64, SGD, tf32 | 20.0 | 90% | 2.50× PyTorch |" in text
    assert "| alone | 20.0 | – | – |" in text
    assert "large" not in text


def test_distances_from_scikit_learn(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(_parity_file("numpy")), encoding="utf-8")
    assert readme_tables.parity(tmp_path).splitlines() == [
        "Made-up CPU; scikit-learn 1.9.1, NumPy 2.4.6; measured 2026-01-02:",
        "",
        "| solver | CPU, float64 | CPU, float32 |",
        "| --- | ---: | ---: |",
        "| sgd | 1.3e-15 | 1.3e-15 |",
        "| lbfgs | 1.3e-15 | 1.3e-15 |",
        "",
        "On a GPU: **not yet run on a device**.",
    ]
    (tmp_path / "a.json").write_text(json.dumps(_parity_file("numpy", "cuda")), encoding="utf-8")
    text = readme_tables.parity(tmp_path)
    assert "| solver | CPU, float64 | CPU, float32 | GPU, float64 | GPU, float32 |" in text
    assert "not yet" not in text


@pytest.mark.parametrize("rows", [3, [3], [{"backend": "numpy"}], [{"backend": "abacus"}]])
def test_foreign_file_of_distances_is_named(tmp_path: Path, rows: Any) -> None:
    content = {**_parity_file(), "sklearn_parity": rows}
    (tmp_path / "foreign.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InvalidValue, match=r"foreign\.json: no file of benchmarks/sklearn_parity\.py"):
        readme_tables.parity(tmp_path)


def test_files_of_kernels_and_of_distances_have_no_part(tmp_path: Path) -> None:
    bench_files.write(tmp_path / "gpu.json", {"machine": {}, "kernels": []})
    (tmp_path / "parity.json").write_text(json.dumps(_parity_file("numpy")), encoding="utf-8")
    assert readme_tables.performance(tmp_path) == readme_tables.performance(ROOT / "docker")  # which holds no result


@pytest.mark.parametrize("content", [{}, {"workloads": [{}], "machine": {}}, {"workloads": 3, "machine": None}, []])
def test_foreign_file_is_named(tmp_path: Path, content: Any) -> None:
    (tmp_path / "foreign.json").write_text(json.dumps(content))
    with pytest.raises(InvalidValue, match=r"foreign\.json"):
        readme_tables.performance(tmp_path)


def test_command_rewrites_the_readme(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "README.md").write_text(EMPTY, encoding="utf-8")
    script = tmp_path / "tools" / "readme_tables.py"
    script.write_text((ROOT / "tools" / "readme_tables.py").read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, str(script)]
    subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=True)
    assert "Not yet measured." in (tmp_path / "README.md").read_text(encoding="utf-8")
    (tmp_path / "benchmarks" / "results" / "bad.json").write_text("{")
    run = subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert run.returncode == 2
    assert "bad.json" in run.stderr
