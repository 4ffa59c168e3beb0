"""Training steps by several ranks under mpiexec, one BLAS thread each, as contenders; and the rank that takes them.

As a program it is one of the ranks: rank 0 reads lines, all do what they say, and rank 0 answers each with one of JSON.

    curve        the losses of the first steps
    steps K      seconds of so many, together
    apart K      seconds of so many that each takes for itself, at the same time, of the rows that it has of a batch
    sums B K     seconds of so many sums of B bytes
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy
from own_steps import Ours
from workloads import Data, Workload, data_of

import gpubackprop
from gpubackprop.cli import launch

PAUSE = 2e-3  # seconds between two looks of the others for a line that rank 0 was given: they keep no core busy


class OnRanks:
    """Ranks of a job of their own, which waits while others have their turn.

    Args:
        ranks: how many.
    """

    def __init__(self, ranks: int) -> None:
        self.ranks, self.name = ranks, f"{ranks} rank{'s' if ranks > 1 else ''} of one thread"
        self._job: subprocess.Popen[str] | None = None

    def unavailable(self, workload: Workload) -> str | None:
        """Return why there are no ranks, or None."""
        if importlib.util.find_spec("mpi4py") is None or launch.mpiexec() is None:
            return "there is no MPI: pip install 'gpubackprop[mpi]'"
        return None

    def prepare(self, workload: Workload, data: Data) -> None:
        """Start the job."""
        self.close()
        paths = [str(Path(gpubackprop.__file__).parents[1]), str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
        environment |= dict.fromkeys(launch.THREADS, "1")
        command = [sys.executable, "-m", "gpubackprop", "launch", "-n", str(self.ranks), __file__]
        command.append(json.dumps(dataclasses.asdict(workload)))
        self._job = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def ask(self, *words: object) -> Any:
        """Have something done; return the answer.

        Args:
            words: of the line.

        Returns:
            What rank 0 says.

        Raises:
            RuntimeError: the job has ended.
        """
        assert self._job is not None and self._job.stdin is not None and self._job.stdout is not None
        self._job.stdin.write(" ".join(map(str, words)) + "\n")
        for line in self._job.stdout:
            if line.startswith("answer "):
                return json.loads(line.removeprefix("answer "))
        raise RuntimeError(f"the job of {self.name} ended with the status {self._job.wait()}")

    def loss_curve(self) -> list[float]:
        """Return the losses of the first steps."""
        return self.ask("curve")

    def steps(self, k: int) -> None:
        """Take k steps."""
        self.ask("steps", k)

    def wait(self) -> None:
        """All is done once it is answered."""

    def close(self) -> None:
        """End the job."""
        if self._job is not None:
            self._job.communicate()
            self._job = None


class _Rank:
    """What one rank does; `workload` is what all do together."""

    def __init__(self, workload: Workload, group: Any) -> None:
        self._group, self._workload = group, workload
        self._together = Ours("numpy", group)
        self._together.prepare(workload, data_of(workload))
        own = dataclasses.replace(workload, rows=group.most(workload.rows))
        self._apart = Ours("numpy")
        self._apart.prepare(own, data_of(own))

    def curve(self) -> list[float]:
        return self._together.loss_curve()

    def steps(self, k: int) -> float:
        return self._seconds(lambda: self._together.steps(k))

    def apart(self, k: int) -> float:
        return self._seconds(lambda: self._apart.steps(k))

    def sums(self, size: int, k: int) -> float:
        x = numpy.zeros(max(size // 4, 1), "float32")
        return self._seconds(lambda: [self._group.sum(x) for _ in range(k)])

    def _seconds(self, work: Any) -> float:
        self._group.first(None)
        begin = time.perf_counter()
        work()
        self._group.first(None)  # all of them
        return time.perf_counter() - begin


def main(workload: str) -> None:
    """Do what the lines say."""
    from mpi4py import MPI

    comm, group = MPI.COMM_WORLD, gpubackprop.parallel.world()
    made = json.loads(workload)
    rank = _Rank(Workload(**made | {"sizes": tuple(made["sizes"])}), group)
    while True:
        line = sys.stdin.readline() if comm.rank == 0 else ""
        arrived = comm.Ibarrier()
        while not arrived.Test():
            time.sleep(PAUSE)
        line = comm.bcast(line)
        if not line:
            return
        what, *numbers = line.split()
        answer = getattr(rank, what)(*map(int, numbers))
        if comm.rank == 0:
            print("answer", json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
