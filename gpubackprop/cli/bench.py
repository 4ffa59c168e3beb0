"""What `gpubackprop bench` does."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..bench import results as files
from ..bench import runner, tables
from ..bench.compare import comparison
from ..bench.document import document
from ..bench.page import page
from ..bench.results import Results
from ..bench.shown import Table, text
from ..errors import InvalidValue
from ..files import replacing
from .folders import writable
from .lines import say

FILES = RESULTS, REPORT = "results.json", "report.html"
NOTHING_SELECTED = 5  # pytest's exit status
STOPPED = {128 + signal.SIGINT: "interrupted; ", 128 + signal.SIGTERM: "terminated; "}


def bench(arguments: argparse.Namespace) -> int:
    """Run the benchmark suite and show, write and draw what it measured; or compare two files.

    Args:
        arguments: as the command line gives them.

    Returns:
        The exit status: 0, 1 if a benchmark failed, or 130 or 143 after Ctrl-C or SIGTERM.

    Raises:
        InvalidValue: a file or the folder is not accepted, or no benchmark is selected.
        MissingDependency: the suite, or what it runs with, is not installed.
    """
    if arguments.compare:
        if arguments.quick or arguments.out or arguments.select is not None:
            raise InvalidValue("--compare reads two files and runs nothing: leave out --quick, -k and --out")
        a, b = (files.read(Path(path)) for path in arguments.compare)
        _print(comparison(a, b))
        return 0
    folder = runner.suite()
    writable(arguments.out or ".", FILES if arguments.out else ())
    with tempfile.TemporaryDirectory() as place:
        raw = Path(place) / "raw.json"
        outcome = runner.run(folder, arguments.quick, arguments.select, raw)
        if outcome.status == NOTHING_SELECTED:
            raise InvalidValue(f"-k {arguments.select}: no benchmark has such a name; `-k step` selects training steps")
        _complain(outcome)
        content = _content(raw, outcome)
        if not content["benchmarks"]:
            print(f"gpubackprop: error: {STOPPED.get(outcome.stopped, '')}nothing was measured", file=sys.stderr)
            return outcome.stopped or 1
        measured = files.results_of(raw, content)
    _print([*_about(measured), *tables.tables(measured)])
    _write(writable(arguments.out or f"bench-{measured.slug}", FILES), measured, content)
    if outcome.stopped:
        kept = f"{len(measured.entries)} of {outcome.total} benchmarks were measured, and are kept"
        print(f"gpubackprop: error: {STOPPED[outcome.stopped]}{kept}", file=sys.stderr)
    return outcome.stopped or int(outcome.status != 0)


def _complain(outcome: runner.Outcome) -> None:
    """Print what went wrong in the suite, if anything did."""
    for name, why in outcome.failures.items():
        print(f"\n{name}\n{why}", file=sys.stderr)
    if outcome.failures:
        print(
            f"\ngpubackprop: error: {len(outcome.failures)} of {outcome.done} benchmarks failed: "
            f"{', '.join(outcome.failures)}",
            file=sys.stderr,
        )
    elif outcome.status and not outcome.stopped:
        print("\n".join(outcome.printed), file=sys.stderr)
        print(f"gpubackprop: error: the suite ended with exit status {outcome.status}", file=sys.stderr)


def _content(raw: Path, outcome: runner.Outcome) -> dict[str, Any]:
    """Return what pytest-benchmark wrote, without those that failed once they were timed or were not over."""
    if not raw.exists() or not raw.stat().st_size:  # the file is opened before there are figures
        return {"benchmarks": []}
    content = document(raw)
    left_out = {*outcome.failures, outcome.running}
    return {**content, "benchmarks": [each for each in content["benchmarks"] if each["name"] not in left_out]}


def _about(measured: Results) -> list[Table]:
    return [Table(measured.title, ("", ""), tuple(tables.heading(measured)), 2)]


def _print(shown: list[Table]) -> None:
    for table in shown:
        print("\n".join(text(table)), end="\n\n")


def _write(folder: Path, measured: Results, content: dict[str, Any]) -> None:
    """Write the results and their page, and say where they are."""
    with replacing(folder / RESULTS) as file:
        file.write((json.dumps(files.without_details(content), indent=1, ensure_ascii=False) + "\n").encode())
    say("files", str(folder / RESULTS))
    with replacing(folder / REPORT) as file:
        file.write(page(measured).encode())
    say("", str(folder / REPORT))
