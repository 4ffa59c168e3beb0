"""Every fault planted in the kernels is caught by their checks: a third of them always, all where slow tests run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mutants
import pytest
from mutants import BROKEN, MUTANTS, SURVIVED, tries

from gpubackprop.backends import sources

HERE = Path(__file__).parent


def _tried(number: int) -> subprocess.CompletedProcess[str]:
    """Try one mutant in a process of its own, which it may take down."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    command = [sys.executable, HERE / "mutants.py", str(number)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[Any]:
    """What became of each mutant; those of this run are tried two at a time, from the first that is asked for."""
    futures: dict[int, Future[subprocess.CompletedProcess[str]]] = {}
    calls = [getattr(item, "callspec", None) for item in request.session.items if item.path == Path(__file__)]
    numbers = [call.params["number"] for call in calls if call]
    with ThreadPoolExecutor(2) as pool:

        def outcome(number: int) -> subprocess.CompletedProcess[str]:
            if not futures:
                futures.update({k: pool.submit(_tried, k) for k in numbers})
            return futures[number].result()

        yield outcome
        pool.shutdown(cancel_futures=True)


def _always(number: int) -> bool:
    return number % 3 == 0


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(number, id=str(mutant), marks=[] if _always(number) else [pytest.mark.slow])
        for number, mutant in enumerate(MUTANTS)
    ],
)
def test_mutant_is_caught(number: int, need: Any, outcomes: Any) -> None:
    need("host")
    run = outcomes(number)
    assert run.returncode != BROKEN, f"the mutant does not compile: {run.stderr}"
    assert run.returncode != SURVIVED, "no check sees the fault"
    assert "Traceback" not in run.stderr, run.stderr


def test_every_file_has_mutants() -> None:
    files = {path.name for path in sources.KERNELS.iterdir()}
    assert {mutant.file for mutant in MUTANTS} == files
    assert len(MUTANTS) >= 30


def test_kernels_without_a_fault_are_not_caught(need: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    need("host")
    monkeypatch.setattr(sources, "_read", sources._read)  # put back after the mutant
    mutant = mutants.Mutant("delta.cu", "sum_rows_of_block(sum);", "sum_rows_of_block(sum);")
    assert len(list(tries(mutant))) > 20
    assert not mutants.is_caught(mutant)
