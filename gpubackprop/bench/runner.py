"""The benchmark suite run in a process of its own, which knows nothing of what was imported here."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import MissingDependency, Terminated
from .progress import MARK

_PACKAGE = Path(__file__).parent.parent
NEEDED = {"pytest": "pytest", "pytest_benchmark": "pytest-benchmark", "tqdm": "tqdm"}
MOST_LINES = 200  # of what the suite printed


@dataclass
class Outcome:
    """How a run of the suite ended.

    Attributes:
        status: pytest's exit status: 0, or 1 where benchmarks failed, or more.
        stopped: 128 and the number of the signal that ended it early, otherwise 0.
        total: the number of benchmarks that were selected.
        done: the number of benchmarks that were run.
        running: the benchmark that was not over, or None.
        failures: of each that failed, its name and what went wrong.
        printed: the last lines of the suite.
    """

    status: int = 0
    stopped: int = 0
    total: int = 0
    done: int = 0
    running: str | None = None
    failures: dict[str, str] = field(default_factory=dict)
    printed: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_LINES))


def suite() -> Path:
    """Return the folder of the suite: inside the package in a wheel, beside it in a checkout.

    Returns:
        The folder.

    Raises:
        MissingDependency: it is in neither place, or what it runs with is not installed.
    """
    missing = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise MissingDependency(f"`bench` needs {', '.join(missing)}: pip install 'gpubackprop[bench]'")
    places = [folder / "benchmarks" / "suite" for folder in (_PACKAGE, _PACKAGE.parent)]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise MissingDependency(f"there is no benchmark suite in {' or '.join(map(str, places))}; a checkout has it")
    return found


def run(folder: Path, quick: bool, select: str | None, file: Path) -> Outcome:
    """Run the suite with a progress bar on standard error.

    Args:
        folder: of the suite.
        quick: whether only its quick part.
        select: which benchmarks, as for `pytest -k`; all if it is None.
        file: that pytest-benchmark is to write.

    Returns:
        How it ended. After Ctrl-C or SIGTERM the file holds what was measured before.

    Raises:
        KeyboardInterrupt: Ctrl-C was pressed once more; the suite has ended too.
    """
    options = [
        "--benchmark-only",
        f"--benchmark-json={file}",
        "-q",
        "-p",
        "no:cacheprovider",
        *(["--quick"] if quick else []),
        *([f"-k={select}"] if select is not None else []),
    ]
    command = [sys.executable, "-u", "-m", "pytest", str(folder), *options, "-p", f"{__package__}.progress"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    path = os.pathsep.join(filter(None, [str(_PACKAGE.parent), os.environ.get("PYTHONPATH")]))
    environment |= {"PYTHONPATH": path, "PYTHONIOENCODING": "utf-8"}
    outcome = Outcome()
    with (
        _sigterm_raises(),
        subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
        try:
            try:
                _watch(process, outcome)
            except (KeyboardInterrupt, Terminated) as stop:
                outcome.stopped = 128 + (signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM)
                _stop(process)
            outcome.status = process.wait()
        except BaseException:
            process.kill()
            raise
    return outcome


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Have SIGTERM raise `Terminated`, in the one thread that may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise Terminated("terminated")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(process: subprocess.Popen[str]) -> None:
    """Have the suite write what it measured. On Windows the console has sent Ctrl-C to it already."""
    if os.name == "posix":
        process.send_signal(signal.SIGINT)
    for _ in process.stdout or ():  # read to the end, so that it does not wait for a reader
        pass


def _watch(process: subprocess.Popen[str], outcome: Outcome) -> None:
    """Move the bar by what the suite says, and keep the rest."""
    from tqdm import tqdm

    seconds = 0.1 if sys.stderr.isatty() else 30.0  # between two states of the bar: in a log each is a line
    with tqdm(unit=" benchmarks", mininterval=seconds, dynamic_ncols=True) as bar:
        for event in _events(process, outcome):
            if "total" in event:
                outcome.total = event["total"]
                bar.reset(total=outcome.total)
            if "begun" in event:
                outcome.running = event["begun"]
                bar.set_postfix_str(event["begun"][:48], refresh=False)
            if "failed" in event:
                outcome.failures[event["failed"]] = event["why"]
            if "done" in event:
                outcome.done, outcome.running = outcome.done + 1, None
                bar.update()


def _events(process: subprocess.Popen[str], outcome: Outcome) -> Iterator[dict[str, Any]]:
    for line in process.stdout or ():
        _, mark, event = line.partition(MARK)
        if mark:
            yield json.loads(event)
        else:
            outcome.printed.append(line.rstrip())
