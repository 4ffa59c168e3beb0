"""Data larger than the memory a process may take, under the system's own limits.

A path is read with plain reads, under a limit of all addresses (RLIMIT_AS). A map of a file takes addresses itself, for
all of the file: what bounds the memory behind it is a limit of what is not a file's (RLIMIT_DATA).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sets RLIMIT_AS and RLIMIT_DATA, and reads /proc")

MB, FEATURES = 10**6, 784

# The limit is for the whole process, or, with a sign, for what it takes once a small network was trained.
PROGRAM = """
import resource, sys, zlib
from pathlib import Path

kind, folder, what, limit, window = sys.argv[1:6]
limits = {"path": (resource.RLIMIT_AS, 0), "map": (resource.RLIMIT_DATA, 5)}
name, column = limits[kind]

def limited(most):
    resource.setrlimit(name, (most, most))

if limit[0] != "+":
    limited(int(limit))

import numpy
import gpubackprop as gb
from gpubackprop import streaming

net = gb.Network([784, 32, 10], output_activation="softmax", loss="cross_entropy", backend="numpy")
gb.fit(net, numpy.zeros((8, 784)), numpy.zeros(8, int), epochs=1)
if limit[0] == "+":
    taken = int(Path("/proc/self/statm").read_text().split()[column]) * resource.getpagesize()
    limited(taken + int(limit[1:]))
streaming.WINDOW_BYTES = int(window)
x, y = Path(folder, "x.npy"), Path(folder, "y.npy")
if kind == "map":
    x, y = numpy.load(x, mmap_mode="r"), numpy.load(y, mmap_mode="r")
try:
    if what == "predict":
        rows = numpy.load(folder + "/y.npy", mmap_mode="r").size
        out = numpy.lib.format.open_memmap(folder + "/out.npy", "w+", "float32", (rows, 10))
        net.predict(x, out=out)
        print("predicted", float(out.sum()))
    else:
        stream = {"stream": True, "choose": None, "hold": False}[what]
        history = gb.fit(net, x, y, epochs=1, batch_size=256, stream=stream, shuffle=False)
        print(history.data, history.samples, zlib.crc32(net.theta), sep="; ")
except MemoryError:
    print("out of memory")
"""


def _files(folder: Path, size: int, dtype: str) -> int:
    """Write data of so many bytes, of which most are holes in a file that read as zeros; return the rows."""
    rows = size // (FEATURES * np.dtype(dtype).itemsize)
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", dtype, (rows, FEATURES))
    for start in (0, rows // 2, rows - 500):
        x[start : start + 500] = np.random.default_rng(start).uniform(size=(500, FEATURES))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", "int64", (rows,))
    y[:: rows // 1000] = np.arange(len(y[:: rows // 1000])) % 10
    return rows


def _said(kind: str, folder: Path, what: str, limit: str, window: int) -> str:
    command = [sys.executable, "-c", PROGRAM, kind, str(folder), what, limit, str(window)]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A folder with 330 MB of float64."""
    folder = tmp_path_factory.mktemp("small")
    return folder, _files(folder, 330 * MB, "float64")


@pytest.mark.parametrize("kind", ["path", "map"])
def test_training_within_less_than_half_of_the_data(kind: str, small: tuple[Path, int]) -> None:
    """Windows are two of 4 MB. A new thread has 8 MB of stack, and glibc sets aside 64 MB or twice that for it."""
    folder, rows = small
    limit = {"path": "+160000000", "map": "+50000000"}[kind]
    where, _, without_limit = _said(kind, folder, "hold", "+1000000000000", 4 * MB).partition("; ")
    assert (where, without_limit.split("; ")[0]) == ("in memory", str(rows))
    assert _said(kind, folder, "hold", limit, 4 * MB) == "out of memory", "in memory it does not fit"
    for what in ("stream", "choose"):
        said = _said(kind, folder, what, limit, 4 * MB)
        assert said.startswith("read in windows of")
        assert said.partition("; ")[2] == without_limit
        assert ("are predicted" in said) == (what == "choose")
    assert _said(kind, folder, "predict", limit, 4 * MB).startswith("predicted")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["path", "map"])
def test_six_gigabytes_in_one(kind: str, tmp_path: Path) -> None:
    """The limit holds for the whole process, Python and NumPy with it, and nobody asks for windows."""
    rows = _files(tmp_path, 6000 * MB, "float32")
    assert _said(kind, tmp_path, "hold", str(1000 * MB), 2**26) == "out of memory" or kind == "map"
    said = _said(kind, tmp_path, "choose", str(1000 * MB), 2**26)
    assert said.startswith("read in windows of ")
    assert f"; {rows}; " in said
