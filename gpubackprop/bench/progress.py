"""A plugin of pytest that tells the process that started it how far it is, a line of standard output for each event.

The line begins with MARK; what pytest itself prints in front of it, dots, belongs to nobody.
"""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

MARK = "\x1egpubackprop "
MOST_LETTERS = 4000  # of what is said of a failure


class _Teller:
    def __init__(self, config: pytest.Config) -> None:
        self.config = config  # whose writer pytest makes later
        self.measured: Any = None  # pytest-benchmark's record of the benchmark that runs

    def tell(self, **event: Any) -> None:
        writer = self.config.get_terminal_writer()
        writer.line(f"{MARK}{json.dumps(event)}")
        writer.flush()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tell(total=len(session.items))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.tell(begun=nodeid.rpartition("::")[2])

    def pytest_runtest_call(self, item: Any) -> None:
        self.measured = item.funcargs.get("benchmark")

    def pytest_keyboard_interrupt(self) -> None:
        """Have pytest-benchmark leave out the benchmark that was not over, of which it has no or too few rounds."""
        if self.measured is not None:
            self.measured.has_error = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tell(failed=report.nodeid.rpartition("::")[2], why=report.longreprtext[-MOST_LETTERS:])

    def pytest_runtest_logfinish(self) -> None:
        self.tell(done=1)


def _stop(number: int, frame: Any) -> None:
    """Stop the suite, which then writes its measurements; ignore further signals meanwhile."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin, and let Ctrl-C and SIGTERM stop the suite."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, _stop)
    config.pluginmanager.register(_Teller(config))
