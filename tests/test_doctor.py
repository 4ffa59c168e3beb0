"""`gpubackprop doctor` says what runs here, and why, without ever failing on what is missing."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import pytest

import gpubackprop as gb
from gpubackprop.cli import main


def _report(capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, str]]:
    """Run the command; return its exit status and what it says by name."""
    status = main(["doctor"])
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = [line for line in captured.out.splitlines() if line.startswith("  ")]
    return status, {line[2:24].strip(): line[24:].strip() for line in lines}


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GPUBACKPROP_BACKEND", raising=False)


def test_report(capsys: pytest.CaptureFixture[str]) -> None:
    status, report = _report(capsys)
    assert status == 0
    assert report["backend"].endswith("(GPUBACKPROP_BACKEND is not set: auto)")
    assert report["numpy"] == version("numpy")
    assert report["gpubackprop"] == gb.__version__
    assert report["Python"].startswith(platform.python_version())
    assert report["cores usable"].split()[0].isdecimal()
    assert report["CPU"]
    assert Path(report["package"]) == Path(gb.__file__).parent
    assert Path(report["kernels"].partition(" (")[0]).is_dir()


def test_every_section_has_lines(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor"])
    lines = capsys.readouterr().out.splitlines()
    titles = [line for line in lines if not line.startswith("  ")]
    assert titles == ["what would run", "versions", "processor", "graphics processor", "environment", "files"]
    for title, below in pairwise(lines):
        assert title not in titles or below.startswith("  ")


def test_why_there_is_no_cuda(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpubackprop.backends.devices.why_not", lambda: "for a reason: with a remedy")
    status, report = _report(capsys)
    assert (status, report["cuda"]) == (0, "cannot run: for a reason: with a remedy")
    assert report["backend"].startswith("numpy")


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ("numpy", 0, "numpy (GPUBACKPROP_BACKEND=numpy)"),
        ("cuda", 1, "NONE: GPUBACKPROP_BACKEND=cuda: no device"),
        ("tpu", 1, "NONE: GPUBACKPROP_BACKEND=tpu: backend must be"),
    ],
)
def test_backend_that_the_environment_asks_for(
    asked: str, status: int, says: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gpubackprop.backends.devices.why_not", lambda: "no device")
    monkeypatch.setenv("GPUBACKPROP_BACKEND", asked)
    got, report = _report(capsys)
    assert got == status
    assert report["backend"].startswith(says)
    assert report["GPUBACKPROP_BACKEND"] == repr(asked)


@pytest.mark.parametrize(
    ("script", "name", "says"),
    [
        (
            "echo 'NVIDIA H200, 570.1, 143771 MiB, 9.0'",
            "GPU 0 (nvidia-smi)",
            "NVIDIA H200, driver 570.1, 143771 MiB, compute capability 9.0",
        ),
        ("echo 'no driver'; exit 9", "nvidia-smi", "does not answer, exit status 9: no driver"),
        ("echo 'surprise'", "nvidia-smi", "surprise"),
        ("true", "nvidia-smi", "lists no GPU"),
        (None, "nvidia-smi", "not found: "),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in for nvidia-smi is a shell script")
def test_graphics_processor(
    script: str | None,
    name: str,
    says: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    status, report = _report(capsys)
    assert status == 0
    assert report[name].startswith(says)


def test_blas_without_threadpoolctl(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with_it = _report(capsys)[1]["BLAS"]
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    status, report = _report(capsys)
    assert status == 0
    assert "threads" in with_it
    assert "install threadpoolctl" in report["BLAS"]
