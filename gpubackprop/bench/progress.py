"""A plugin of pytest that tells the process that started it how far it is, a line of standard output for each event.

The line begins with MARK; what pytest itself prints in front of it, dots, belongs to nobody.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

MARK = "\x1egpubackprop "
MOST_LETTERS = 4000  # of what is said of a failure


class _Teller:
    def __init__(self, config: pytest.Config) -> None:
        self.config = config  # whose writer pytest makes later

    def tell(self, **event: Any) -> None:
        writer = self.config.get_terminal_writer()
        writer.line(f"{MARK}{json.dumps(event)}")
        writer.flush()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tell(total=len(session.items))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.tell(begun=nodeid.rpartition("::")[2])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.tell(failed=report.nodeid.rpartition("::")[2], why=report.longreprtext[-MOST_LETTERS:])

    def pytest_runtest_logfinish(self) -> None:
        self.tell(done=1)


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin."""
    config.pluginmanager.register(_Teller(config))
