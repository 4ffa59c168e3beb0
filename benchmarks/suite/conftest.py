"""The suite: what every benchmark is given, and what the file of results says beside their times.

    python -m pytest benchmarks/suite --benchmark-only --benchmark-json=results.json [--quick]

Without --benchmark-only, as in a run of all tests, every benchmark is tried once, on a net of a few units.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

if (folder := str(Path(__file__).parents[1])) not in sys.path:
    sys.path.insert(0, folder)

import figures
import machine
from measuring import Plan
from peers import release
from workloads import ON_CUDA_ALONE, SUITE

import gpubackprop as gb

QUICK_REGIMES = ("tiny", "small")
DISTURBED = pytest.StashKey[dict[str, float]]()
DISTURBANCE = 0.1  # of one core, by other processes: more may make two threads many times as slow
SKIPPED = pytest.StashKey[list[dict[str, str]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of a quick run."""
    parser.addoption("--quick", action="store_true", help="benchmarks/suite in a minute or two: less of everything")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Measure only where that is asked for."""
    config.addinivalue_line("markers", "gpu: needs a CUDA device; run with `pytest -m gpu --require cuda`")
    config.pluginmanager.register(_Skipped(config), "skipped benchmarks")
    config.stash[DISTURBED] = {}
    option = config.option
    if not (option.benchmark_only or option.benchmark_enable):
        option.benchmark_disable = True


class _Skipped:
    """Remembers which benchmarks were skipped, and why."""

    def __init__(self, config: pytest.Config) -> None:
        self._found = config.stash[SKIPPED] = list[dict[str, str]]()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and isinstance(report.longrepr, tuple):
            reason = str(report.longrepr[2]).removeprefix("Skipped: ")
            self._found.append({"name": report.nodeid.rpartition("/")[2], "reason": reason})


@pytest.fixture(scope="session")
def plan(pytestconfig: pytest.Config) -> Plan:
    """How thorough this run is."""
    option = pytestconfig.option
    return Plan(smoke=option.benchmark_disable and not option.benchmark_enable, quick=option.quick)


@pytest.fixture(scope="session", params=["numpy", pytest.param("cuda", marks=pytest.mark.gpu)])
def backend(request: pytest.FixtureRequest) -> str:
    """Where a benchmark runs; it is skipped where that is not usable."""
    if request.param == "cuda" and (reason := gb.why_no_cuda()):
        pytest.skip(reason)
    return request.param


@pytest.fixture(params=SUITE)
def regime(request: pytest.FixtureRequest, plan: Plan, backend: str) -> str:
    """Of a workload of the suite; it is skipped where it would take too long."""
    if not plan.smoke and backend == "numpy" and request.param in ON_CUDA_ALONE:
        pytest.skip("a CPU takes seconds for a step")
    if plan.quick and not plan.smoke and request.param not in QUICK_REGIMES:
        pytest.skip("not of a quick run")
    return request.param


@pytest.fixture(autouse=True)
def alone(plan: Plan, request: pytest.FixtureRequest) -> Iterator[None]:
    """Afterwards nothing of a benchmark is left in memory, and it is known whether the machine did something else."""
    begin, others = time.perf_counter(), machine.seconds_of_others()
    yield
    if plan.smoke:
        return
    release()
    measured = request.node.funcargs.get("benchmark")
    if others is not None and measured is not None and measured.stats:
        share = ((machine.seconds_of_others() or others) - others) / (time.perf_counter() - begin)
        if share > DISTURBANCE:
            request.config.stash[DISTURBED][request.node.name] = share


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Say what it ran on."""
    machine.describe(machine_info)


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: list[Any], output_json: dict[str, Any]) -> None:
    """Say what was not run; refuse to write what no reader could rely on."""
    wrong = {b["name"]: found for b in output_json["benchmarks"] if (found := figures.problems(b["extra_info"]))}
    assert wrong == {}
    output_json["skipped"] = config.stash[SKIPPED]
    output_json["disturbed"] = config.stash[DISTURBED]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name the benchmarks whose times cannot be trusted."""
    for name, share in config.stash[DISTURBED].items():
        terminalreporter.write_line(f"DISTURBED {name}: meanwhile others kept {share:.2f} cores busy")
