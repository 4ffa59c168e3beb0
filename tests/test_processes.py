"""The limits that all tests have, in small test sessions of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import processes
import pytest

POSIX = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
CONFTEST = """
import processes
processes.restore_signals()
def pytest_configure(config):
    config.pluginmanager.register(processes)
"""
SLEEP = "import subprocess, sys\nSLEEP = [sys.executable, '-c', 'import time; time.sleep(1000)']\n"


@pytest.fixture
def session(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    pytester.makeconftest(CONFTEST)
    pytester.makeini("[pytest]\nmarkers = slow: takes long")
    return pytester


@POSIX
@pytest.mark.parametrize("how", ["ignored", "blocked"])
def test_a_session_that_is_started_in_the_background_can_be_interrupted(how: str, session: pytest.Pytester) -> None:
    session.makepyfile(
        "import os, signal, subprocess, sys\n"
        "import pytest\n"
        "def test_here():\n"
        "    with pytest.raises(KeyboardInterrupt):\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        signal.sigtimedwait([], 5)\n"
        "def test_in_a_child():\n"
        "    code = 'import os, signal; os.kill(os.getpid(), signal.SIGINT)'\n"
        "    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)\n"
        "    assert 'KeyboardInterrupt' in run.stderr\n"
    )
    start = {
        "ignored": "signal.signal(signal.SIGINT, signal.SIG_IGN)",
        "blocked": "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})",
    }[how]
    code = f"import os, signal, sys; {start}; os.execv(sys.executable, [sys.executable, '-m', 'pytest'])"
    run = subprocess.run([sys.executable, "-c", code], cwd=session.path, capture_output=True, text=True)
    assert "2 passed" in run.stdout, run.stdout


def test_every_test_has_a_limit(request: pytest.FixtureRequest, session: pytest.Pytester) -> None:
    assert request.node.get_closest_marker("timeout").args == (processes.SECONDS,)
    session.makepyfile(
        "import pytest\n"
        "def limit(request): return request.node.get_closest_marker('timeout').args[0]\n"
        f"def test_one(request): assert limit(request) == {processes.SECONDS}\n"
        "@pytest.mark.slow\n"
        f"def test_slow(request): assert limit(request) == {processes.SECONDS_IF_SLOW}\n"
        "@pytest.mark.timeout(7)\n"
        "def test_own(request): assert limit(request) == 7\n"
    )
    session.runpytest_subprocess().assert_outcomes(passed=3)


@POSIX
def test_a_test_that_waits_for_a_child_without_end_is_ended(session: pytest.Pytester) -> None:
    session.makepyfile(
        f"{SLEEP}import processes, pytest\n"
        "@pytest.mark.timeout(1)\n"
        "def test_waits():\n"
        "    with processes.started(SLEEP) as child:\n"
        "        child.wait()\n"
        "def test_next(): pass\n"
    )
    result = session.runpytest_subprocess(timeout=300)
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*Failed: Timeout*"])


@POSIX
def test_a_test_that_no_exception_reaches_ends_the_run(session: pytest.Pytester) -> None:
    """In compiled code: of `signal.pause` with all signals blocked only the limit of the run is left."""
    session.makeconftest(CONFTEST.replace("processes.restore", "processes.SECONDS_OF_GRACE = 1\nprocesses.restore"))
    session.makepyfile(
        "import signal, pytest\n"
        "@pytest.mark.timeout(1)\n"
        "def test_hangs():\n"
        "    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "    signal.pause()\n"
    )
    result = session.runpytest_subprocess(timeout=300)
    assert result.ret == 1
    result.stderr.fnmatch_lines(["Timeout (0:00:0*)!", "*test_hangs*"])


@LINUX
@pytest.mark.parametrize("via", ["at once", "through a parent that ends", "in a session of its own"])
def test_a_child_that_outlives_its_test_is_killed_and_named(via: str, session: pytest.Pytester) -> None:
    start = {
        "at once": "child = subprocess.Popen(SLEEP).pid",
        "through a parent that ends": (
            "quiet = 'stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL'\n"
            "    code = f'import subprocess; print(subprocess.Popen({SLEEP!r}, {quiet}).pid)'\n"
            "    child = int(subprocess.run([sys.executable, '-c', code], capture_output=True).stdout)"
        ),
        "in a session of its own": "child = subprocess.Popen(SLEEP, start_new_session=True).pid",
    }[via]
    session.makeconftest(CONFTEST.replace("processes.restore", "processes.SECONDS_TO_END = 0.1\nprocesses.restore"))
    session.makepyfile(
        f"{SLEEP}def test_leaves():\n    {start}\n    open('child', 'w').write(str(child))\ndef test_next(): pass\n"
    )
    result = session.runpytest_subprocess("-W", "ignore", timeout=300)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*the test left processes running*time.sleep(1000)*"])
    with pytest.raises(ProcessLookupError):
        os.kill(int((session.path / "child").read_text()), 0)


@LINUX
def test_a_child_that_is_about_to_end_may_end(session: pytest.Pytester) -> None:
    session.makepyfile("import subprocess\ndef test_leaves(): subprocess.Popen(['sleep', '0.5'])\n")
    session.runpytest_subprocess("-W", "ignore", timeout=300).assert_outcomes(passed=1)


def test_no_test_waits_for_a_process_that_it_does_not_end() -> None:
    """`with subprocess.Popen(...)` waits for the process when the block raises, for ever if need be."""
    files = {path: path.read_text(encoding="utf-8") for path in Path(__file__).parent.glob("test_*.py")}
    assert [
        path.name for path, text in files.items() if re.search(r"^ *with subprocess\.Popen\(", text, re.MULTILINE)
    ] == []
