"""What `make` decides by itself: the CUDA extra that fits the driver, and which Python will do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OLD_HEADER = "| NVIDIA-SMI 580.95.05    Driver Version: 580.95.05    CUDA Version: 13.0     |"
NEW_HEADER = "| NVIDIA-SMI 610.57.04    KMD Version: 610.57.04    CUDA UMD Version: 13.3     |"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-ins for programs are shell scripts")


def _script(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def _cuda_extra(folder: Path) -> tuple[str, str]:
    run = subprocess.run(
        [sys.executable, ROOT / "tools" / "cuda_extra.py"],
        env={"PATH": str(folder)},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip(), run.stderr


@pytest.mark.parametrize(
    ("header", "extra"),
    [
        (OLD_HEADER, "cuda13"),
        (NEW_HEADER, "cuda13"),
        (OLD_HEADER.replace("13.0", "14.1"), "cuda13"),
        (OLD_HEADER.replace("13.0", "12.9"), "cuda12"),
        (OLD_HEADER.replace("13.0", "11.8"), ""),
        ("| no version here |", ""),
    ],
)
def test_extra_fits_the_driver(tmp_path: Path, header: str, extra: str) -> None:
    _script(tmp_path / "nvidia-smi", f"echo 'Sun Nov 22 07:00:00 2026'; echo '{header}'")
    chosen, why = _cuda_extra(tmp_path)
    assert chosen == extra
    assert why.startswith("CUDA: ")
    assert ("CPU" in why) == (extra == "")


def test_no_nvidia_smi_is_no_extra(tmp_path: Path) -> None:
    chosen, why = _cuda_extra(tmp_path)
    assert chosen == ""
    assert "nvidia-smi did not run" in why


def test_failing_nvidia_smi_is_no_extra_even_if_it_names_a_version(tmp_path: Path) -> None:
    _script(tmp_path / "nvidia-smi", f"echo 'could not reach the driver'; echo '{OLD_HEADER}'; exit 9")
    chosen, why = _cuda_extra(tmp_path)
    assert chosen == ""
    assert "could not reach the driver" in why


def _make(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    make = shutil.which("make")
    if make is None:
        pytest.skip("make is not installed")
    command = [make, "-C", str(ROOT), f"ENVIRONMENTS={tmp_path / 'environments'}", *arguments]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_make_refuses_an_old_python(tmp_path: Path) -> None:
    old = _script(tmp_path / "python3", 'case "$1" in --version) echo Python 3.8.20;; *) exit 1;; esac')
    run = _make(tmp_path, "check", f"PYTHON={old}")
    assert run.returncode != 0
    assert f"gpubackprop needs Python 3.11 or newer, and {old} is Python 3.8.20" in run.stderr
    assert not (tmp_path / "environments").exists()


def test_make_names_the_package_that_brings_venv(tmp_path: Path) -> None:
    bare = _script(tmp_path / "python3", 'case "$2" in *ensurepip*) exit 1;; esac')
    run = _make(tmp_path, "check", f"PYTHON={bare}")
    assert run.returncode != 0
    assert "apt-get install python3-venv" in run.stderr


@pytest.mark.parametrize(
    ("extra", "installed"), [("cuda13", ".[demo,cuda13]"), ("cuda12", ".[demo,cuda12]"), ("", ".[demo]")]
)
def test_demo_installs_the_extra(tmp_path: Path, extra: str, installed: str) -> None:
    """A stand-in for Python answers the tool, makes an "environment" of itself, and records what pip gets."""
    log = tmp_path / "log"
    fake = _script(
        tmp_path / "python3",
        f'echo "$@" >>{log}',
        f'case "$*" in *cuda_extra*) echo "{extra}";;',
        '*"-m venv"*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && ln -s /bin/true "$3/bin/gpubackprop";;',
        "esac",
    )
    run = _make(tmp_path, "demo", f"PYTHON={fake}")
    assert run.returncode == 0, run.stderr
    *_, install, example = log.read_text().splitlines()
    assert install == f"-m pip install --quiet --editable {installed}"
    assert example == "examples/scikit_learn.py"
