"""The option --require, the fixture `need` and the closing lines, in small test sessions of their own."""

from __future__ import annotations

from pathlib import Path

import pytest

ASKS = """
import pytest

def test_asks(need):
    need("host")

@pytest.mark.gpu
def test_marked():
    assert False, "runs only on a CUDA device"
"""


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A folder with this project's conftest.py, two tests, and neither PyTorch nor a device."""
    source = Path(__file__).with_name("conftest.py").read_text()
    absent = "\nTOOLS['torch'] = Tool('PyTorch oracle', lambda: None, 'pip install gpubackprop[oracle]')"
    absent += "\nTOOLS['cuda'] = Tool('CUDA device', lambda: None, 'get one')\n"
    pytester.makeconftest(source + absent)
    pytester.makeini("[pytest]\nmarkers = gpu: needs a device")
    pytester.makepyfile(test_small=ASKS)
    return pytester


def _program(folder: Path, name: str, prints: str) -> None:
    folder.joinpath(name).write_text(f"#!/bin/sh\necho '{prints}'\n")
    folder.joinpath(name).chmod(0o755)


@pytest.mark.skipif("sys.platform == 'win32'", reason="the stand-in for g++ is a shell script")
def test_present_tool_is_used_and_named(session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    _program(session.path, "g++", "g++ 99.1")
    monkeypatch.setenv("PATH", str(session.path), prepend=":")
    result = session.runpytest("--require", "host")
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(["kernels on the host: used (g++ 99.1)"])


def test_missing_tool_skips_with_the_remedy(session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(session.path))
    result = session.runpytest("-ra")
    result.assert_outcomes(skipped=2)
    result.stdout.fnmatch_lines(
        [
            "PyTorch oracle: not installed; nothing skipped - pip install gpubackprop[[]oracle]",
            "kernels on the host: not installed; test_small.py skipped - install g++*",
            "CUDA device: not installed; test_small.py skipped - get one",
            "SKIPPED*kernels on the host missing - install g++*",
        ]
    )


def test_missing_tool_that_is_required_is_an_error(session: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(session.path))
    result = session.runpytest("--require", "host,cuda")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*--require host: * missing - install g++*", "*--require cuda: * missing - get one"])


def test_unknown_tool_is_an_error(session: pytest.Pytester) -> None:
    result = session.runpytest("--require", "hots")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        [
            "*--require knows torch, scipy, hypothesis, array_api_strict, cloudpickle, onnx, onnxruntime, host, "
            "compile, sass, cublaslt, nvcc, chromium, cuda; not hots"
        ]
    )
