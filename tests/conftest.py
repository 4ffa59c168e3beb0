"""Tools that some tests need: found, required with ``--require``, and accounted for at the end of the run."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import pytest
from cuda_backends import backend, device, stand_in  # noqa: F401 - fixtures

os.environ.pop("GPUBACKPROP_BACKEND", None)  # tests say themselves which backend they mean


def _distribution(name: str) -> str | None:
    """Return the version of an installed package without importing it, None where there is none."""
    return importlib.metadata.version(name) if importlib.util.find_spec(name) else None


def _program(name: str) -> str | None:
    """Return the first line a program prints of its version, None where it is not on the PATH."""
    path = shutil.which(name)
    if path is None:
        return None
    run = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    return run.stdout.partition("\n")[0]


def _in_wheels(pattern: str) -> str | None:
    """Return the file of NVIDIA's wheels whose name fits, None where there is none."""
    wheels = importlib.util.find_spec("nvidia")
    roots = wheels.submodule_search_locations or [] if wheels else []
    return next((str(path) for root in roots for path in sorted(Path(root).rglob(pattern))), None)


def _nvrtc() -> str | None:
    """Return the library that compiles kernels here as on a GPU, of a wheel or of the system."""
    name = "nvrtc64_*_0.dll" if os.name == "nt" else "libnvrtc.so*"
    return _in_wheels(name) or ctypes.util.find_library("nvrtc")


def _nvdisasm() -> str | None:
    """Return the program that writes machine code as text."""
    return shutil.which("nvdisasm") or _in_wheels("nvdisasm.exe" if os.name == "nt" else "nvdisasm")


def _chromium() -> str | None:
    """Return the browser that opens pages."""
    import browser

    return browser.program()


def _cuda_device() -> str | None:
    """Return what the CUDA backend runs on, None where it does not run."""
    import gpubackprop

    return gpubackprop.available_backends().get("cuda")


@dataclass(frozen=True)
class Tool:
    """Something tests may need: how it is called, which version is here, how it is had."""

    title: str
    version: Callable[[], str | None]
    remedy: str


TOOLS = {
    "torch": Tool("PyTorch oracle", partial(_distribution, "torch"), "pip install gpubackprop[oracle]"),
    "scipy": Tool("SciPy oracle", partial(_distribution, "scipy"), "pip install scipy"),
    "hypothesis": Tool("formulas by hypothesis", partial(_distribution, "hypothesis"), "pip install hypothesis"),
    "array_api_strict": Tool(
        "array API, strict", partial(_distribution, "array_api_strict"), "pip install array-api-strict"
    ),
    "cloudpickle": Tool("cloudpickle", partial(_distribution, "cloudpickle"), "pip install cloudpickle"),
    "onnx": Tool("ONNX models", partial(_distribution, "onnx"), "pip install gpubackprop[onnx]"),
    "onnxruntime": Tool("ONNX Runtime", partial(_distribution, "onnxruntime"), "pip install onnxruntime"),
    "host": Tool("kernels on the host", partial(_program, "g++"), "install g++ (Debian: apt-get install g++)"),
    "compile": Tool("kernels compiled for CUDA", _nvrtc, "pip install 'nvidia-cuda-nvrtc>=13,<14'"),
    "sass": Tool("machine code of kernels", _nvdisasm, "pip install 'nvidia-cuda-nvdisasm>=13,<14'"),
    "cublaslt": Tool("descriptors of cuBLASLt", partial(_in_wheels, "libcublasLt.so*"), "pip install nvidia-cublas"),
    "nvcc": Tool("kernels compiled by nvcc", partial(shutil.which, "nvcc"), "install the CUDA toolkit"),
    "chromium": Tool("pages in a browser", _chromium, "install Chromium (Debian: apt-get install chromium)"),
    "cuda": Tool("CUDA device", _cuda_device, "`gpubackprop doctor` says what is missing"),
}
WANTED = pytest.StashKey[dict[str, list[str]]]()


@cache
def _version(tool: str) -> str | None:
    return TOOLS[tool].version()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require",
        default="",
        metavar="TOOL,...",
        help=f"tools without which the run is an error instead of skipping tests: {', '.join(TOOLS)}",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[WANTED] = {}
    _version.cache_clear()
    required = [name.strip() for name in config.getoption("--require").split(",") if name.strip()]
    if unknown := [name for name in required if name not in TOOLS]:
        raise pytest.UsageError(f"--require knows {', '.join(TOOLS)}; not {', '.join(unknown)}")
    if missing := [name for name in required if _version(name) is None]:
        lines = [f"--require {name}: {TOOLS[name].title} missing - {TOOLS[name].remedy}" for name in missing]
        raise pytest.UsageError("\n".join(lines))


def _need(item: pytest.Item, tool: str) -> None:
    """Skip the test that is running where `tool` is missing; a required one was found before any test ran."""
    item.config.stash[WANTED].setdefault(tool, []).append(item.nodeid)
    if _version(tool) is None:
        pytest.skip(f"{TOOLS[tool].title} missing - {TOOLS[tool].remedy}")


@pytest.fixture
def need(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Return the function by which a test or fixture says which of TOOLS it needs: ``need("torch")``."""
    return partial(_need, request.node)


@pytest.fixture
def unrecorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have NumPy go through every operation in every step, so that a test can look into them."""
    monkeypatch.setattr("gpubackprop.backends.numpy.NumpyBackend.record", lambda self, work: work)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        _need(item, "cuda")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say of each tool whether it was used; of PyTorch in every run, because a run without it proves less."""
    wanted = config.stash[WANTED]
    for name in sorted({"torch", *wanted}, key=list(TOOLS).index):
        terminalreporter.write_line(f"{TOOLS[name].title}: {_account(name, wanted.get(name, []))}")


def _account(tool: str, tests: list[str]) -> str:
    version = _version(tool)
    if version and tests:
        return f"used ({version})"
    if version:
        return f"installed ({version}); no test of this run asked for it"
    files = ", ".join(sorted({test.partition("::")[0] for test in tests}))
    return f"not installed; {files or 'nothing'} skipped - {TOOLS[tool].remedy}"
