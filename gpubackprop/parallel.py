"""The processes that train one network together: ranks of MPI, each with its part of every batch.

Every rank is given the same data and settings, computes the gradient of its rows, adds it to those of the others, and
takes the same step as they do. mpi4py is imported where a group is asked for.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy

from .backends.threads import cores
from .callbacks import Callback, any_stops
from .errors import DivergenceWarning, InterruptWarning, InvalidValue, MissingDependency, RanksMissing

if TYPE_CHECKING:
    from .backends.numpy import NumpyBackend
    from .backends.reducers import HostReducer
    from .history import History
    from .network import Network

ASKED = "GPUBACKPROP_RANKS"  # set by `gpubackprop launch`: how many ranks there are to be
STARTED = (ASKED, "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # what launchers tell a rank: ours, Open MPI's, MPICH's
RANK = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")  # what they tell it of itself


def launched() -> Alone:
    """Return the ranks that `gpubackprop launch` started, this one among them; where it did not, this process alone."""
    return world() if ASKED in os.environ else Alone()


def rank_by_launcher() -> int:
    """Return the number that a launcher gave this process, before MPI is asked; 0 where there is none."""
    return int(next((os.environ[name] for name in RANK if name in os.environ), 0))


@cache
def world() -> Alone:
    """Return all processes that were started together; where this one is alone, a group that does nothing.

    Raises:
        MissingDependency: mpi4py or an MPI library is not installed.
        RanksMissing: MPI knows of another number of ranks than were started.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # the latter: mpi4py is there, and no library of MPI
        raise MissingDependency(f"distributed training needs MPI: pip install 'gpubackprop[mpi]' ({error})") from error
    size = MPI.COMM_WORLD.size
    for name in STARTED:
        if os.environ.get(name, str(size)) != str(size):
            library = MPI.Get_library_version().split("\n")[0].strip("\0 ")
            raise RanksMissing(
                f"{os.environ[name]} ranks were asked for ({name}), and MPI knows of {size}: mpi4py runs on {library}. "
                "Either this was started without mpiexec, or by that of another MPI: use `gpubackprop launch`, in an "
                "environment with one MPI alone"
            )
    return Group(MPI) if size > 1 else Alone()


class Alone:
    """One process, which has nobody to ask.

    Attributes:
        rank: the number of this process, from 0.
        size: how many there are.
        here: how many of them on this machine.
    """

    rank, size, here = 0, 1, 1

    def rows(self, rows: int) -> slice:
        """Return this rank's part of the rows of a batch: contiguous, sizes differ by one at most."""
        return slice(*(r * (rows // self.size) + min(r, rows % self.size) for r in (self.rank, self.rank + 1)))

    def most(self, rows: int) -> int:
        """Return how many rows of a batch a rank has at most; rank 0 has so many."""
        return -(-rows // self.size)

    def first(self, x: Any) -> Any:
        """Return what rank 0 gives: any object of Python."""
        return x

    def begun_alike(self, net: Network, seed: int | None, given: dict[str, Any]) -> int | None:
        """Give the network the parameters of rank 0, return its seed; refuse what ranks were given differently."""
        return seed

    def reducer(self, backend: NumpyBackend, asked: Callable[[], int]) -> HostReducer | None:
        """Return what adds up gradients over the ranks, and agrees with them about signals; None where one is alone.

        Args:
            backend: where the gradients are.
            asked: returns the signal that this rank got, 0 where it got none.
        """
        return None

    def led(self, callbacks: Sequence[Callback]) -> Sequence[Callback]:
        """Return callbacks that rank 0 runs, and all obey."""
        return callbacks

    def warning_once(self) -> contextlib.AbstractContextManager[Any]:
        """Let rank 0 alone warn of what happens to all."""
        return contextlib.nullcontext()


class Group(Alone):
    """The ranks of MPI's world.

    Args:
        mpi: the module mpi4py.MPI.
    """

    def __init__(self, mpi: Any) -> None:
        self._mpi, self._comm = mpi, mpi.COMM_WORLD.Dup()  # so that no call of the user's own is taken for one of ours
        self.rank, self.size = int(self._comm.rank), int(self._comm.size)
        self.here = int(self._comm.Split_type(mpi.COMM_TYPE_SHARED).size)
        self._crowded = self.here > cores()
        sys.excepthook = _ending_all(sys.excepthook)

    def sum(self, x: numpy.ndarray) -> None:
        """x ← Σ x over the ranks, the same bits in each."""
        self._finish(self._comm.Iallreduce(self._mpi.IN_PLACE, x))

    def highest(self, number: int) -> int:
        """Return the largest number that a rank gives."""
        numbers = numpy.array([number], "int32")
        self._finish(self._comm.Iallreduce(self._mpi.IN_PLACE, numbers, self._mpi.MAX))
        return int(numbers[0])

    def first(self, x: Any) -> Any:
        """Return what rank 0 gives."""
        self._finish(self._comm.Ibarrier())  # rank 0 may have much to do before
        return self._comm.bcast(x)

    def _finish(self, request: Any) -> None:
        """Wait for the others; with fewer cores than ranks, so that they may have this one's core.

        MPI itself spins: on two cores four ranks took 6.4 ms to add up 4 MB, and 4.0 this way, 1.8 and 0.23 for 4 B.
        """
        if not self._crowded:
            request.Wait()
            return
        while not request.Test():
            time.sleep(0)

    # -- what rank 0 does for all ----------------------------------------------------------------------------------

    def begun_alike(self, net: Network, seed: int | None, given: dict[str, Any]) -> int | None:
        """Give the network the parameters of rank 0, and return its seed."""
        architecture = net.architecture
        rows = [row.name for row in (*architecture.activations, architecture.loss)]
        kind = (architecture.sizes, rows, architecture.l2, architecture.dropout, architecture.dtype, net.backend.name)
        self._refuse_differences(given | {"the network": kind})
        self._share_parameters(net)
        return self.first(numpy.random.SeedSequence().entropy if seed is None else seed)

    def _refuse_differences(self, given: dict[str, Any]) -> None:
        everyone = self._comm.allgather(given)
        for name in given:
            values = [each[name] for each in everyone]
            if values.count(values[0]) < self.size:
                raise InvalidValue(f"{name} must be the same in every rank, got {', '.join(map(repr, values))}")

    def _share_parameters(self, net: Network) -> None:
        theta = numpy.array(net.backend.to_numpy(net.theta))
        self._finish(self._comm.Ibcast(theta))
        with net.backend.running(0.0):
            net.theta[...] = net.backend.asarray(theta, net.dtype)

    def reducer(self, backend: NumpyBackend, asked: Callable[[], int]) -> HostReducer | None:
        """Return what adds up gradients over the ranks."""
        return backend.reducer(self, asked)

    def led(self, callbacks: Sequence[Callback]) -> Sequence[Callback]:
        """Return one callback, in which rank 0 runs these."""

        def lead(net: Network, history: History) -> bool:
            stop = bool(self.first(any_stops(callbacks if self.rank == 0 else (), net, history)))
            self._share_parameters(net)  # which callbacks may change
            return stop

        return [lead] if self.first(len(callbacks)) else []

    @contextlib.contextmanager
    def warning_once(self) -> Iterator[None]:
        """Let rank 0 alone warn."""
        if self.rank == 0:
            yield
            return
        with warnings.catch_warnings():
            for kind in (DivergenceWarning, InterruptWarning):
                warnings.simplefilter("ignore", kind)
            yield


Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]


def _ending_all(hook: Hook) -> Hook:
    """Return a hook for an exception that ends this process: it ends the others too, which would wait for it."""

    def ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        from mpi4py.run import set_abort_status

        hook(kind, error, trace)
        set_abort_status(error)

    return ended
