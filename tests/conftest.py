"""Tools that some tests need: required with ``--require``, and accounted for at the end of the run."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache, partial

import processes
import pytest
from cuda_backends import backend, device, graphs, stand_in  # noqa: F401 - fixtures
from needed_tools import TOOLS

processes.restore_signals()  # before any test starts a process
os.environ.pop("GPUBACKPROP_BACKEND", None)  # tests say themselves which backend they mean

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
    config.pluginmanager.register(processes)
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
