"""Arrays in, arrays of the same library out, under scikit-learn's dispatch; the cases are in `dispatch_cases.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CASES = Path(__file__).with_name("dispatch_cases.py")
CHOICES = {
    "torch": "torch",
    "array_api_strict": "array_api_strict",
    "both": "elsewhere or own_checks",
    "cupy": "cupy",
}


@pytest.mark.parametrize("library", ["torch", "array_api_strict", "both", pytest.param("cupy", marks=pytest.mark.gpu)])
def test_outputs_follow_the_input(library: str, need: Any) -> None:
    for tool in ("torch", "array_api_strict") if library == "both" else (library,) * (library != "cupy"):
        need(tool)
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-m", "", str(CASES), "-k", CHOICES[library]],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "SCIPY_ARRAY_API": "1"},
    )
    assert run.returncode == 0, run.stdout[-5000:]
    assert " passed" in run.stdout
