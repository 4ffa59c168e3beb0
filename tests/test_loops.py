"""Formulas as loops in C: the bits of NumPy's passes, compiled once, and never needed."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import formulas
import numpy
import pytest
from formulas import CASES, Case, backend_of, run

import gpubackprop as gb
from gpubackprop.backends import loops
from gpubackprop.backends.loops import Loops
from gpubackprop.backends.numpy import NumpyBackend
from gpubackprop.formula import trace

ARITHMETIC = [case for case in CASES if {operation for operation, _ in case.trace.values} <= loops.OPERATIONS]
OTHER = [case for case in CASES if case not in ARITHMETIC]


@pytest.fixture
def command(need: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the command of a compiler that counts its calls in tmp_path/calls; the cache is a folder of its own."""
    need("cc")
    monkeypatch.setenv("GPUBACKPROP_CACHE_DIR", str(tmp_path / "cache"))
    script = tmp_path / "counting"
    script.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path / "calls"}\nexec {shutil.which("cc")} "$@"\n')
    script.chmod(0o755)
    return [str(script)]


def _compiled(tmp_path: Path) -> int:
    calls = tmp_path / "calls"
    return calls.read_text().count("loop.c") if calls.exists() else 0


@pytest.fixture
def backend(need: Callable[[str], None]) -> NumpyBackend:
    """Return a backend that runs loops."""
    need("cc")
    return NumpyBackend(loops=loops.of_this_machine())


def _bound(made: Loops, source: object, size: int = 5) -> Callable[[], None] | None:
    x = numpy.arange(1.0, size + 1)
    return made.bound(source, {"x": x}, [x])  # type: ignore[arg-type]


DOUBLE = trace(lambda m, x: x + x, ("x",))


def test_what_is_arithmetic() -> None:
    """Every optimizer's update is, and relu both ways; what calls exp is not."""
    names = {case.name for case in ARITHMETIC}
    assert {*formulas.OPTIMIZERS, "relu_sigma", "relu_backward", "mse_loss"} <= names
    assert {"tanh_sigma", "gelu_sigma", "cross_entropy_loss"} <= {case.name for case in OTHER}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", ARITHMETIC, ids=str)
def test_a_loop_gives_the_bits_of_numpys_passes(backend: NumpyBackend, case: Case, dtype: str) -> None:
    """At NaN, infinities and numbers below the least normal one too: each operation is rounded as NumPy rounds it."""
    arrays = formulas.inputs(case, dtype)
    inputs = [arrays[name] for name in case.trace.inputs]
    assert backend._loops is not None
    assert backend._loops.bound(case.trace, arrays, [inputs[0].copy() for _ in case.trace.outputs]) is not None
    for one, other in zip(run(backend, case, arrays), run(backend_of(), case, arrays), strict=True):
        numpy.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("optimizer", formulas.OPTIMIZERS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_with_loops_and_without(backend: NumpyBackend, optimizer: str, dtype: str) -> None:
    """Numbers of a step and of clipping are no arrays there; steps are recorded, the last batch is a smaller one."""
    rng = numpy.random.default_rng(0)
    X, y = rng.normal(size=(50, 6)), rng.normal(size=(50, 2))
    parameters = []
    for made in (backend, NumpyBackend()):
        net = gb.Network([6, 8, 7, 2], activation=["leaky_relu", "relu"], l2=0.1, dtype=dtype, backend="numpy")
        net.backend = made
        gb.fit(net, X, y, optimizer=formulas.OPTIMIZERS[optimizer], epochs=3, batch_size=16, progress=False)
        parameters.append(net.theta)
    numpy.testing.assert_array_equal(*parameters)


def test_numbers_of_a_formula_are_not_compiled_into_it(command: list[str], tmp_path: Path) -> None:
    """A search for hyperparameters compiles once."""
    made = Loops(command)
    for factor in (0.1, 0.2):
        x = numpy.ones(3)
        loop = made.bound(trace(lambda m, x: factor * x, ("x",)), {"x": x}, [x])  # noqa: B023
        assert loop is not None
        loop()
        assert x.tolist() == [factor] * 3
    assert _compiled(tmp_path) == 1


def test_another_process_finds_what_was_compiled(command: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        assert _bound(Loops(command), DOUBLE) is not None
    assert _compiled(tmp_path) == 1


def test_another_process_finds_it_whatever_the_umask(command: list[str], tmp_path: Path) -> None:
    """Of groups of one user, as many systems have them: files are their group's to write."""
    before = os.umask(0o002)
    try:
        for _ in range(2):
            assert _bound(Loops(command), DOUBLE) is not None
    finally:
        os.umask(before)
    assert _compiled(tmp_path) == 1


def test_a_folder_of_others_is_not_used(command: list[str], tmp_path: Path) -> None:
    """Whoever may write there may put another file in the place of what was compiled."""
    folder = tmp_path / "cache" / "loops"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert _bound(Loops(command), DOUBLE) is None
    folder.chmod(0o700)
    assert _bound(Loops(command), DOUBLE) is not None


@pytest.mark.parametrize("damage", ["empty", "half", "a page", "a bit", "longer", "no checksum", "writable"])
def test_what_cannot_be_trusted_is_compiled_anew(command: list[str], tmp_path: Path, damage: str) -> None:
    """A file that others may have written, one that is damaged: to run what was cut off would end the process."""
    _bound(Loops(command), DOUBLE)
    [path] = (tmp_path / "cache" / "loops").iterdir()
    whole = path.read_bytes()
    damaged = {
        "empty": b"",
        "half": whole[: len(whole) // 2],
        "a page": whole[:-4096],
        "a bit": whole[:4096] + bytes([whole[4096] ^ 1]) + whole[4097:],
        "longer": whole + b"\0",
        "no checksum": whole[:-32],
    }
    path.write_bytes(damaged.get(damage, whole))
    path.chmod(0o666 if damage == "writable" else 0o600)
    x = numpy.arange(3.0)
    loop = Loops(command).bound(DOUBLE, {"x": x}, [x])
    assert loop is not None
    loop()
    assert x.tolist() == [0.0, 2.0, 4.0]
    assert _compiled(tmp_path) == 2
    assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    assert len(path.read_bytes()) == len(whole)


def test_a_loop_runs_on_if_its_file_is_cut_off(command: list[str], tmp_path: Path) -> None:
    """No page of it is read from there: of a file in a map the system would end the process."""
    program = (
        "import numpy, os, sys\n"
        "from gpubackprop.backends.loops import Loops\n"
        "from gpubackprop.formula import trace\n"
        "x = numpy.ones(3)\n"
        "loop = Loops(sys.argv[1:2]).bound(trace(lambda m, x: x + x, ('x',)), {'x': x}, [x])\n"
        "for name in os.listdir(sys.argv[2]):\n"
        "    os.truncate(os.path.join(sys.argv[2], name), 0)\n"
        "loop()\n"
        "print(x.tolist())\n"
    )
    for _ in range(2):  # compiled, and found
        arguments = [sys.executable, "-c", program, *command, str(tmp_path / "cache" / "loops")]
        run = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert (run.returncode, run.stdout) == (0, "[2.0, 2.0, 2.0]\n"), run.stderr


@pytest.mark.parametrize("fails", ["memfd_create", "write"])
def test_a_system_without_files_in_memory(
    command: list[str], fails: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("not here")

    monkeypatch.setattr(os, fails, fail, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    x = numpy.ones(3)
    loop = Loops(command).bound(DOUBLE, {"x": x}, [x])
    assert loop is not None
    loop()
    assert x.tolist() == [2.0] * 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "calls", "counting"]


def test_loops_are_not_taken_for_each_other(command: list[str]) -> None:
    """The loader of the system goes by names."""
    for k in range(5):
        x = numpy.ones(3)
        loop = Loops(command).bound(trace(_nested(k), ("x",)), {"x": x}, [x])
        assert loop is not None
        loop()
        assert x.tolist() == [2.0**k] * 3


def _nested(k: int) -> Callable[[object, numpy.ndarray], numpy.ndarray]:
    return lambda m, x: x if k == 0 else _nested(k - 1)(m, x + x)


NO_PROGRAM = "no program"
WRITES_NOTHING = "#!/bin/sh\nexit 0\n"
SAYS_NOTHING = "#!/bin/sh\nexec sleep 100\n"


@pytest.mark.parametrize(
    "given",
    ["false", "sleep 100", "/nowhere/cc", "", "cc 'unfinished", NO_PROGRAM, WRITES_NOTHING, SAYS_NOTHING],
)
def test_without_a_compiler_numpy_does_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str) -> None:
    """One that fails, one that takes too long, one that is not there, none; what is no command, or does not answer."""
    monkeypatch.setenv("GPUBACKPROP_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(loops, "_SECONDS", 0.2)
    if given in (NO_PROGRAM, WRITES_NOTHING, SAYS_NOTHING):
        (tmp_path / "cc").write_text(given)
        (tmp_path / "cc").chmod(0o755)
        given = str(tmp_path / "cc")
    monkeypatch.setenv("CC", given)
    backend = NumpyBackend(loops=loops.of_this_machine.__wrapped__())
    x = numpy.array([1.0, 2.0])
    backend._run(DOUBLE, {"x": x}, [x])
    assert x.tolist() == [2.0, 4.0]
    assert not list(tmp_path.rglob("*.so"))


def test_a_compiler_that_fails_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take a minute for that each time."""
    monkeypatch.setenv("GPUBACKPROP_CACHE_DIR", str(tmp_path / "cache"))
    script = tmp_path / "failing"
    script.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path / "calls"}\nexit 1\n')
    script.chmod(0o755)
    made = Loops([str(script)])
    assert _bound(made, DOUBLE) is None
    assert _bound(made, trace(lambda m, x: x * x, ("x",))) is None
    assert _compiled(tmp_path) == 1


def test_what_a_compiler_is_called_in_another_encoding(command: list[str], tmp_path: Path) -> None:
    script = tmp_path / "latin"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] && printf "\\351" || exec {command[0]} "$@"\n')
    script.chmod(0o755)
    assert _bound(Loops([str(script)]), DOUBLE) is not None


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_arguments_of_a_compiler_change_no_bits(command: list[str], dtype: str) -> None:
    """-ffast-math would take a quotient for a product, and NaN for something that does not occur."""
    made, source = Loops([*command, "-ffast-math"]), trace(lambda m, x: m.maximum(x / 3.0, 0.5), ("x",))
    x = numpy.append(numpy.arange(100.0), numpy.nan).astype(dtype)
    expected = numpy.maximum(x / x.dtype.type(3), x.dtype.type(0.5))
    loop = made.bound(source, {"x": x}, [x])
    assert loop is not None
    loop()
    numpy.testing.assert_array_equal(x, expected)


def test_a_process_that_forks_while_a_thread_compiles(command: list[str], tmp_path: Path) -> None:
    """The thread is not in the child, and nobody there ever gives back what it held."""
    script = tmp_path / "slow"
    script.write_text(f'#!/bin/sh\ntouch {tmp_path / "begun"}\nsleep 1\nexec {command[0]} "$@"\n')
    script.chmod(0o755)
    program = (
        "import os, pathlib, threading, time, numpy\n"
        "from gpubackprop.backends.loops import Loops\n"
        "from gpubackprop.formula import trace\n"
        f"made, x, begun = Loops([{str(script)!r}]), numpy.ones(3), pathlib.Path({str(tmp_path / 'begun')!r})\n"
        "def bound(factor):\n"
        "    return made.bound(trace(lambda m, x: factor(x), ('x',)), {'x': x}, [x])\n"
        "thread = threading.Thread(target=bound, args=[lambda x: x + x])\n"
        "thread.start()\n"
        "while not begun.exists():\n"
        "    time.sleep(0.01)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    os._exit(0 if bound(lambda x: x * x) else 1)\n"
        "thread.join()\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    run = subprocess.run(
        [
            sys.executable,
            "-W",
            "ignore::DeprecationWarning",
            "-c",
            program,
        ],  # Python 3.12 warns of forks beside threads
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr


def test_a_cache_that_cannot_be_written(command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBACKPROP_CACHE_DIR", os.devnull)
    assert _bound(Loops(command), DOUBLE) is None


def test_types_that_differ_have_no_loop(backend: NumpyBackend) -> None:
    """The arithmetic of a loop is in one type; NumPy's widens."""
    x, out = numpy.ones(3, "float32"), numpy.empty(3)
    assert backend._loops is not None
    assert backend._loops.bound(DOUBLE, {"x": x}, [out]) is None
    backend._run(DOUBLE, {"x": x}, [out])
    assert out.tolist() == [2.0] * 3


def test_where_training_runs_is_told(backend: NumpyBackend) -> None:
    assert "loops of C" in backend.engine
    assert "loops of C" not in NumpyBackend().engine


def test_where_training_no_longer_runs_is_not_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of a compiler that turned out to fail."""
    monkeypatch.setenv("GPUBACKPROP_CACHE_DIR", str(tmp_path))
    backend, x = NumpyBackend(loops=Loops(["false"])), numpy.ones(2)
    assert "loops of C" in backend.engine
    backend._run(DOUBLE, {"x": x}, [x])
    assert "loops of C" not in backend.engine
