"""Reads damaged files in all ways, by the API and by the command, and measures the memory that takes.

`python damaged_reads.py FOLDER FIRST STOP STEP` reads the files of some numbers, each in one way, and
`python damaged_reads.py FOLDER hostile` those of `HOSTILE`, each in all ways. Both print JSON: what came of each, and
by how much memory had grown after it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import json
import os
import re
import resource
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy
from damage import CSV, FEATURES, KINDS, LABELS, MATRIX, X, made
from hostile_files import HOSTILE

import gpubackprop as gb
from gpubackprop.cli import main
from gpubackprop.errors import InvalidType, InvalidValue, ModelFileError, OutOfMemory

ADDRESSES = 2**32  # bytes of addresses that a worker may take beyond those it has when it begins
SECONDS = 300  # after which a case is a hang, however busy the machine
DOCUMENTED = (InvalidValue, InvalidType, ModelFileError, OutOfMemory)
SAID = re.compile(r"gpubackprop: error: [^\n]+\n")


def _net(inputs: int) -> gb.Network:
    return gb.Network([inputs, 2, 3], output_activation="softmax", loss="cross_entropy", backend="numpy", seed=0)


def _fit(path: str, y: Any, inputs: int = FEATURES + 1, **how: Any) -> None:
    gb.fit(_net(inputs), path, y, epochs=1, batch_size=8, progress=False, **how)


def _predict(path: str, inputs: int) -> None:
    _net(inputs).predict(path)


def _load(path: str) -> None:
    gb.load(path, backend="numpy").predict(X)


def _command(*arguments: str) -> str:
    """Run the command and return how it ended; status 2 is an error here, and any end that is not documented."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = main(arguments)
    text = error.getvalue()
    diverged = status == 1 and ("NaN or infinite" in text or "diverged" in out.getvalue() + text)
    assert status == 0 or diverged or (status == 2 and SAID.search(text)), f"status {status}: {text[-300:]}"
    assert "Traceback" not in text, text
    if status == 2:
        raise InvalidValue(text)
    return f"status {status}"


TRAIN = ("train", "--hidden", "2", "--epochs", "1", "--out", "out")
PREDICT = ("predict", "whole/model.safetensors")


def _npy_in_all_ways(path: str) -> list[Callable[[], Any]]:
    return [
        partial(_fit, path, LABELS, stream=True),
        partial(_fit, path, LABELS),
        partial(_predict, path, FEATURES + 1),
        partial(_command, *TRAIN, path),
        partial(_command, *TRAIN, path, "--stream"),
        partial(_command, *PREDICT, path),
    ]


def _of_the_command(path: str) -> list[Callable[[], Any]]:
    return [partial(_command, *TRAIN, path), partial(_command, *PREDICT, path)]


def _table_in_all_ways(path: str) -> list[Callable[[], Any]]:
    return [
        partial(_fit, path, "y"),
        partial(_fit, path, "y", stream=True),
        partial(_fit, path, "y", FEATURES, sample_weight="w"),
        partial(_predict, path, FEATURES + 2),
    ]


def _model_in_all_ways(path: str) -> list[Callable[[], Any]]:
    return [
        partial(_load, path),
        partial(_command, "predict", path, "whole.csv"),
        partial(_command, "predict", path, "whole.npy"),
    ]


WAYS: dict[str, Callable[[str], list[Callable[[], Any]]]] = {
    ".npy": _npy_in_all_ways,
    ".npz": _of_the_command,
    ".csv": _of_the_command,
    ".parquet": _table_in_all_ways,
    ".arrow": _table_in_all_ways,
    ".safetensors": _model_in_all_ways,
}
READ = ("read", "status 0", "status 1")


def _ended(way: Callable[[], Any]) -> str:
    """Return how a file was read, or the message of the error, after "raw" if it is not documented."""
    try:
        return way() or "read"
    except DOCUMENTED as error:
        return str(error)
    except BaseException as error:
        return f"raw {type(error).__name__}: {str(error)[:300]}"


def read_damaged(number: int) -> dict[str, Any]:
    """Read the file of a number in one of its ways, and return what came of it."""
    suffix, content = made(number)
    path = Path(f"damaged{suffix}")
    path.write_bytes(content)
    ways = WAYS[suffix](str(path))
    came = _ended(ways[number // len(KINDS) % len(ways)])
    about = {"case": number, "kind": suffix, "size": len(content), "read": came in READ}
    return about | {"wrong": came if came.startswith("raw") else None}


def read_hostile(name: str) -> dict[str, Any]:
    """Read a file with one fault in all ways, and return what came of it."""
    suffix, write, says = HOSTILE[name]
    path = Path(f"hostile{suffix}")
    write(path)
    found: dict[str, Any] = {"case": name, "size": 512 * path.lstat().st_blocks, "wrong": None}
    for way in WAYS[suffix](str(path)):
        came = _ended(way)
        if says not in came if says else came not in READ:
            found["wrong"] = came
    path.rmdir() if path.is_dir() else path.unlink()
    return found


def _resident(field: str = "VmHWM") -> int:
    """Return bytes of memory from the accounts of the kernel: now (VmRSS), or the most so far (VmHWM)."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(rf"{field}:\s+(\d+) kB", text)[1])  # type: ignore[index]


def prepare() -> None:
    """Write the whole files that some ways of reading need."""
    Path("whole.csv").write_text(CSV, encoding="utf-8")
    numpy.save("whole.npy", MATRIX)
    _command("train", "--hidden", "2", "--epochs", "1", "--out", "whole", "whole.csv")


def run(cases: list[Any], read: Callable[[Any], dict[str, Any]]) -> None:
    """Read files, and print what came of each and by how much memory grew since whole files were read in all ways."""
    sys.modules["matplotlib"] = None  # type: ignore[assignment] # no pictures
    os.fsync = lambda descriptor: None
    for suffix, (whole, _) in KINDS.items():
        path = Path(f"first{suffix}")
        path.write_bytes(whole(numpy.random.default_rng(0)))
        for way in WAYS[suffix](str(path)):
            assert _ended(way) in READ, _ended(way)
    begun = _resident("VmRSS")
    addresses = _resident("VmSize") + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (addresses, addresses))
    for case in cases:
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        print(json.dumps({"begun": case}), flush=True)
        print(json.dumps(read(case) | {"grown": _resident() - begun}), flush=True)


if __name__ == "__main__":
    os.chdir(sys.argv[1])
    if sys.argv[2] == "hostile":
        run(list(HOSTILE), read_hostile)
    else:
        run(list(range(*map(int, sys.argv[2:]))), read_damaged)
