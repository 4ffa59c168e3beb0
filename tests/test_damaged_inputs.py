"""Damaged files end in a documented error, by the API and by the command, and take no memory they only promise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import KINDS, made
from hostile_files import HOSTILE

import gpubackprop as gb

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is read from /proc")

HERE = Path(__file__).parent
PATHS = os.pathsep.join([str(Path(gb.__file__).parents[1]), str(HERE)])
ENVIRONMENT = {**os.environ, "PYTHONPATH": PATHS, "OPENBLAS_NUM_THREADS": "1"}
WORKERS, LIMIT = 2, 1800  # seconds, of a machine that does much else
ALLOWED = 200 * 10**6  # bytes that reading a file may take beyond twice its size


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and the data it was trained on."""
    folder = tmp_path_factory.mktemp("whole")
    prepare = "import damaged_reads; damaged_reads.prepare()"
    subprocess.run([sys.executable, "-c", prepare], cwd=folder, env=ENVIRONMENT, check=True, timeout=LIMIT)
    return folder


def _read(whole: Path, folder: Path, *calls: list[str]) -> list[dict[str, Any]]:
    """Read files in processes side by side; return what came of each."""
    processes = []
    try:
        for k, arguments in enumerate(calls):
            place = folder / str(k)
            place.mkdir()
            (place / "whole").symlink_to(whole / "whole")
            for name in ("whole.csv", "whole.npy"):
                (place / name).symlink_to(whole / name)
            command = [sys.executable, str(HERE / "damaged_reads.py"), str(place), *arguments]
            with (folder / f"{k}.json").open("wb") as out, (folder / f"{k}.txt").open("wb") as error:
                processes.append(subprocess.Popen(command, env=ENVIRONMENT, stdout=out, stderr=error))
        for process in processes:
            process.wait(LIMIT)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    found = []
    for k, process in enumerate(processes):
        lines = [json.loads(line) for line in (folder / f"{k}.json").read_text().splitlines()]
        error = (folder / f"{k}.txt").read_text()[-2000:]
        assert process.returncode == 0, f"status {process.returncode} after {lines[-1:]}: {error}"
        found += [line for line in lines if "grown" in line]
    return found


def _check(found: list[dict[str, Any]]) -> None:
    """Hold what came of files against what is documented; memory that is the most so far was taken by that file."""
    assert [case for case in found if case["wrong"]] == []
    assert [case for case in found if case["grown"] > ALLOWED + 2 * case["size"]] == []


def _fuzz(count: int, whole: Path, folder: Path) -> None:
    calls = [[str(first), str(count), str(WORKERS)] for first in range(WORKERS)]
    found = _read(whole, folder, *calls)
    _check(found)
    assert len(found) == count
    read = defaultdict(set)
    for case in found:
        read[case["kind"]].add(case["read"])
    assert all(read[kind] == {True, False} for kind in KINDS), (
        read
    )  # or damage is too small, or too large, to test much


def test_damaged_files(whole: Path, tmp_path: Path, need: Callable[[str], None]) -> None:
    need("pyarrow")
    _fuzz(1000, whole, tmp_path)


@pytest.mark.slow
def test_ten_thousand_damaged_files(whole: Path, tmp_path: Path, need: Callable[[str], None]) -> None:
    need("pyarrow")
    _fuzz(10_000, whole, tmp_path)


def test_files_with_one_fault(whole: Path, tmp_path: Path, need: Callable[[str], None]) -> None:
    need("pyarrow")
    found = _read(whole, tmp_path, ["hostile"])
    _check(found)
    assert [case["case"] for case in found] == list(HOSTILE)


def test_a_number_makes_the_same_file_again(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(whole)
    for number in (0, 1, 2, 5, 6005):
        assert made(number) == made(number)
