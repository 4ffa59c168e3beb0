"""Limits of tests: signals that work, a time limit for each, and no child process that outlives its test."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_timeout  # noqa: F401 - the plugin that ends a test at its limit

# Far above what a test takes, so that a busy machine fails none: it ends a wait without an end.
SECONDS, SECONDS_IF_SLOW = 600, 3600
SECONDS_OF_GRACE = 600  # from a test's limit to the end of the run
SECONDS_TO_END = 10.0  # for children that were stopped and are about to end
STDERR = pytest.StashKey[int]()
# They end with this process, and serve more than one test.
STAY = (
    "multiprocessing.resource_tracker",
    "multiprocessing.forkserver",
    "loky.backend.resource_tracker",
    "tests/mutants.py",  # tried two at a time, ahead of the tests that ask for them
)
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h


def restore_signals() -> None:
    """Handle the signals of the tests as in a foreground process; children inherit that.

    A shell starts `make test &` with SIGINT and SIGQUIT ignored, and children inherit what is ignored or blocked.
    SIGHUP stays ignored under `nohup`: no test sends it.
    """
    handlers = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGQUIT": signal.SIG_DFL}
    handlers |= {"SIGALRM": signal.SIG_DFL, "SIGCHLD": signal.SIG_DFL}
    numbers = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    for number, handler in numbers.items():
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


@contextlib.contextmanager
def started(*arguments: Any, **options: Any) -> Iterator[subprocess.Popen[Any]]:
    """Start a process, as `subprocess.Popen` does; kill it if the block raises, which `Popen` alone would wait for."""
    with subprocess.Popen(*arguments, **options) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            raise


def pytest_configure(config: pytest.Config) -> None:
    """Become the parent of all descendants whose own parent ends (Linux), so that none is lost from sight."""
    config.stash[STDERR] = os.dup(2)  # that of the terminal: captured by no test
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def pytest_unconfigure(config: pytest.Config) -> None:
    os.close(config.stash[STDERR])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SECONDS_IF_SLOW if item.get_closest_marker("slow") else SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """End the whole run if a test hangs where no exception reaches it: in compiled code, or while it is torn down."""
    seconds = item.get_closest_marker("timeout").args[0] + SECONDS_OF_GRACE
    faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[STDERR])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, Any, Any]:
    """Fail the test that left a child process running; kill the process."""
    outcome = yield
    if left := _end_children():
        pytest.fail(f"the test left processes running, which were killed now: {'; '.join(left)}", pytrace=False)
    return outcome


def _end_children() -> list[str]:
    """Kill every child of this process that does not end by itself soon; return their commands."""
    until = time.monotonic() + SECONDS_TO_END
    while (children := _children()) and time.monotonic() < until:
        time.sleep(0.01)
    left = []
    while children:  # the children of those that are killed become children of this process
        left += children.values()
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, 0)
        children = _children()
    return left


def _children() -> dict[int, str]:
    """Return the children of this process that run, with their commands; none on other systems than Linux."""
    if sys.platform != "linux":
        return {}
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return {}  # for most tests, without a look at all processes
    found = ((int(path.name), _command(path)) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {child: command for child, command in found if command and not any(stays in command for stays in STAY)}


def _command(process: Path) -> str | None:
    """Return the command of a process of /proc, if it is a child of this one and runs."""
    try:
        state, parent = (process / "stat").read_text().rpartition(")")[2].split()[:2]
        command = (process / "cmdline").read_text(errors="replace").replace("\0", " ").strip()
    except OSError:  # it has ended meanwhile
        return None
    return (command or process.name) if int(parent) == os.getpid() and state not in "ZX" else None
