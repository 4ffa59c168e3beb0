"""What each rank runs: a script or a module, as `python` does, among the others from its first line on.

    mpiexec -n 4 python -m gpubackprop.cli.rank script.py

MPI is started before the script. So the other ranks learn how a script ends that never calls `fit`.
"""

from __future__ import annotations

import os
import sys
from typing import NoReturn

from .. import parallel
from ..errors import GpubackpropError


def main(command: list[str]) -> None:
    """Run a script; end all ranks if it fails, and tell them if it ends.

    Args:
        command: a script with its arguments, or -m and a module with its.

    Raises:
        SystemExit: as the script asks for it, or there is no group of ranks to be in.
    """
    try:
        group = parallel.world()
        from mpi4py.run import run_command_line
    except GpubackpropError as error:
        raise SystemExit(f"gpubackprop: error: {error}") from error
    _hear_of_os_exit(group)
    try:
        run_command_line(command)
    except SystemExit as end:
        group.fail(end)
        raise


def _hear_of_os_exit(group: parallel.Alone) -> None:
    """Have `os._exit` in this process tell the others; mpiexec ends them without a word, with status 0 if that is."""
    leave = os._exit

    def told(status: int) -> NoReturn:
        group.fail(SystemExit(status))
        group.end()
        leave(status)

    os._exit = told


if __name__ == "__main__":
    main(sys.argv[1:])
