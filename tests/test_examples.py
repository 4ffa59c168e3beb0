"""The examples run, and reach what they are to show."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import installed
import pytest

ROOT = Path(__file__).parents[1]


def _run(backend: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "scikit_learn.py"), "--backend", backend]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _shown(run: subprocess.CompletedProcess[str], device: str) -> None:
    assert run.returncode == 0, run.stderr
    accuracy, r2 = (float(score) for score in re.findall(r"(?:accuracy|R²) ([\d.]+)", run.stdout))
    assert accuracy > 0.95
    assert r2 > 0.93
    assert len(re.findall(rf"epochs on [\d,]+ rows in [\d.]+ s, on .*{device}", run.stdout)) == 2


def test_scikit_learn_on_the_cpu_with_the_extra_that_it_names(tmp_path: Path) -> None:
    example = str(ROOT / "examples" / "scikit_learn.py")
    code = f"import runpy, sys; sys.argv = ['', '--backend', 'numpy']; runpy.run_path({example!r}, run_name='__main__')"
    (tmp_path / "codes.json").write_text(json.dumps([(installed.modules_left_out(["sklearn"]), code)]))
    command = [sys.executable, installed.__file__, "codes.json"]
    _shown(subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False), "NumPy")


@pytest.mark.gpu
def test_scikit_learn_on_a_gpu() -> None:
    _shown(_run("cuda"), "CUDA")


def test_a_backend_that_there_is_not_is_named() -> None:
    run = _run("abacus")
    assert run.returncode != 0
    assert "'abacus'" in run.stderr
