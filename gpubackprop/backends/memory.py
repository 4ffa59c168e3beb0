"""How much memory the host has free, as far as the system tells."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")  # of a container, whose limit is the group's own


def free_bytes() -> int | None:
    """Return the bytes that may be taken without swapping, the least that the system names, or None.

    That is what is available in the machine, what is left of the limit of the container, and what is left of those of
    the process (as set by `ulimit -v` and `ulimit -d`).
    """
    return min(_named(), default=None)


def _named() -> Iterator[int]:
    with contextlib.suppress(OSError, TypeError):  # TypeError: it is not named
        yield 1024 * _number(r"^MemAvailable:\s+(\d+) kB", MEMINFO)
    with contextlib.suppress(OSError, TypeError, ValueError):  # ValueError: the limit is "max"
        limit, taken = (int((CGROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        yield limit - taken + _number(r"^inactive_file (\d+)", CGROUP / "memory.stat")  # files that were read are kept
    yield from _limits_of_the_process()


def _number(pattern: str, path: Path) -> int:
    return int(re.search(pattern, path.read_text(), re.MULTILINE)[1])  # type: ignore[index]


def _limits_of_the_process() -> Iterator[int]:
    try:
        import resource
    except ImportError:  # on Windows
        return
    with contextlib.suppress(OSError):
        pages = [int(n) * os.sysconf("SC_PAGE_SIZE") for n in Path("/proc/self/statm").read_text().split()]
        for limit, taken in ((resource.RLIMIT_AS, pages[0]), (resource.RLIMIT_DATA, pages[5])):
            if (most := resource.getrlimit(limit)[0]) != resource.RLIM_INFINITY:
                yield most - taken
