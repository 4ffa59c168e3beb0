"""What `gpubackprop launch` does: it becomes the mpiexec that starts the ranks of a distributed training."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from .. import parallel
from ..backends.threads import cores
from ..errors import InvalidValue, MissingDependency
from .lines import say

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def launch(arguments: argparse.Namespace) -> None:
    """Replace this process by mpiexec, so that signals reach it and its exit status is that of the command.

    Args:
        arguments: as the command line gives them.

    Raises:
        InvalidValue: neither `train` nor a script is to be launched.
        MissingDependency: there is no mpiexec.
    """
    program = mpiexec()
    if program is None:
        raise MissingDependency("there is no mpiexec: pip install 'gpubackprop[mpi]'")
    is_open, about = _about(program)
    ranks, added = arguments.ranks, _threads(arguments.ranks) | {parallel.ASKED: str(arguments.ranks)}
    options = _for_open_mpi(added) if is_open else []
    command = [
        program,
        *options,
        "-n",
        str(ranks),
        sys.executable,
        "-m",
        "gpubackprop.cli.rank",
        *_ranks_do(arguments.command),
    ]
    threads = added.get(THREADS[0], "as the environment says")
    say("mpi", f"{about}, {program}; ranks: {ranks}, BLAS threads of each: {threads}")
    os.execve(program, command, os.environ | added)


def _ranks_do(command: list[str]) -> list[str]:
    """Return what each rank runs: a command of ours, or a script."""
    what = command[0] if command else "nothing"
    if what == "train":
        return ["-m", "gpubackprop", *command]
    if what.endswith(".py"):
        return command
    raise InvalidValue(f"launch takes `train` with its arguments, or a script of Python, as in script.py; got {what}")


def mpiexec() -> str | None:
    """Return the mpiexec of this environment, which is that of its MPI, before any other; None where there is none.

    Returns:
        Its path.
    """
    beside = [str(Path(sys.executable).parent), sysconfig.get_path("scripts")]
    return shutil.which("mpiexec", path=os.pathsep.join([*beside, os.environ.get("PATH", "")]))


def _about(mpiexec: str) -> tuple[bool, str]:
    """Return whether an mpiexec is Open MPI's, and what it says it is."""
    said = subprocess.run([mpiexec, "--version"], capture_output=True, text=True, check=False).stdout
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if "Open MPI" in said or "OpenRTE" in said:
        return True, lines[0]
    version = next((line.rpartition(" ")[2] for line in lines if line.startswith("Version:")), "of some version")
    return False, f"MPICH (Hydra) {version}" if "HYDRA" in said else (lines or ["an MPI that says nothing"])[0]


def _for_open_mpi(variables: dict[str, str]) -> list[str]:
    """Return what Open MPI wants said: it refuses root and more ranks than cores, and binds each to a single core."""
    root = ["--allow-run-as-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    return [*root, "--oversubscribe", "--bind-to", "none", *(word for name in variables for word in ("-x", name))]


def _threads(ranks: int) -> dict[str, str]:
    """Return the variables that give each rank its share of the cores for products; none where any is set already."""
    if any(name in os.environ for name in THREADS):
        return {}
    return dict.fromkeys(THREADS, str(max(1, cores() // ranks)))
