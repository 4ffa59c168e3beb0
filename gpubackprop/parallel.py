"""The processes that train one network together: ranks of MPI, each with its part of every batch.

Every rank is given the same data and settings, computes the gradient of its rows, adds it to those of the others, and
takes the same step as they do. mpi4py is imported where a group is asked for.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import os
import sys
import threading
import time
import warnings
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import numpy

from .backends.threads import cores
from .callbacks import Callback, any_stops
from .checks import boolean
from .encoding import digest_of_array, itemized
from .errors import DivergenceWarning, InterruptWarning, InvalidValue, MissingDependency, RankLeft, RanksMissing
from .notices import Notice, Notices
from .version import __version__

if TYPE_CHECKING:
    from .backends.numpy import NumpyBackend
    from .backends.reducers import HostReducer
    from .history import History
    from .network import Network

ASKED = "GPUBACKPROP_RANKS"  # set by `gpubackprop launch`: how many ranks there are to be
STARTED = (ASKED, "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")  # what launchers tell a rank: ours, Open MPI's, MPICH's
LETTERS = 120  # of a value in a message
MOST = 9  # differences in a message, besides the first
LONGEST = 2.0  # seconds that a rank which fails has for its last words
RANK = ("OMPI_COMM_WORLD_RANK", "PMI_RANK")  # what they tell it of itself


P = ParamSpec("P")
R = TypeVar("R")
Hook = Callable[[type[BaseException], BaseException, TracebackType | None], Any]


def together(fit: Callable[P, R]) -> Callable[P, R]:
    """Have all ranks begin a distributed call of `fit` together, and none leave it unnoticed.

    Returns:
        `fit`, which also raises RankLeft if this rank would wait for one that left.
    """

    @functools.wraps(fit)
    def begun(*args: P.args, **kwargs: P.kwargs) -> R:
        group = world() if boolean("distributed", kwargs.get("distributed", False)) else Alone()
        with group.training():
            return fit(*args, **kwargs)

    return begun


def launched() -> Alone:
    """Return the ranks that `gpubackprop launch` started, this one among them; where it did not, this process alone."""
    return world() if ASKED in os.environ else Alone()


def rank_by_launcher() -> int:
    """Return the number that a launcher gave this process, before MPI is asked; 0 where there is none."""
    return int(next((os.environ[name] for name in RANK if name in os.environ), 0))


@functools.cache
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

    def training(self) -> contextlib.AbstractContextManager[Any]:
        """Begin a call of `fit` in all ranks; tell the others if it fails in this one."""
        return contextlib.nullcontext()

    def begun_alike(
        self, net: Network, seed: int | None, settings: dict[str, Any], data: Mapping[str, Sequence[Any]]
    ) -> int | None:
        """Broadcast the parameters of rank 0, and return its seed; raise if ranks disagree.

        Args:
            net: the network.
            seed: as the user gave it.
            settings: everything else that determines the result, by name.
            data: arrays on the backend, or None, by name.

        Returns:
            The seed.

        Raises:
            InvalidValue: a setting or data differ between ranks.
        """
        return seed

    def alike(self, settings: dict[str, Any]) -> None:
        """Raise InvalidValue if a setting differs between ranks; the message names ranks and values."""

    def fail(self, error: BaseException) -> None:
        """Have the end of this process, by an exception that nobody handles, end the others too."""

    def end(self) -> None:
        """Tell the others that this process ends, and wait until they end too."""

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
        self._mpi, self._world = mpi, mpi.COMM_WORLD.Dup()  # so that no call of the user's own is taken for one of ours
        self._comm = self._world  # of the stage
        self.rank, self.size = int(self._comm.rank), int(self._comm.size)
        self.here = int(self._comm.Split_type(mpi.COMM_TYPE_SHARED).size)
        self._sleep = 0.0 if self.here > cores() else None
        self._notices, self._stage, self._calls = Notices(mpi, mpi.COMM_WORLD.Dup()), 0, 0
        self._process, self._fails = os.getpid(), False
        sys.excepthook = self._ending_all(sys.excepthook)
        atexit.register(self.end)

    def sum(self, x: numpy.ndarray) -> None:
        """x ← Σ x over the ranks, the same bits in each."""
        self._finish(self._comm.Iallreduce(self._mpi.IN_PLACE, x))

    def highest(self, number: int) -> int:
        """Return the largest number that a rank gives."""
        numbers = numpy.array([number], "int64")
        self._finish(self._comm.Iallreduce(self._mpi.IN_PLACE, numbers, self._mpi.MAX))
        return int(numbers[0])

    def first(self, x: Any) -> Any:
        """Return what rank 0 gives."""
        self._finish(self._comm.Ibarrier())  # rank 0 may have much to do before
        return self._comm.bcast(x)

    def _finish(self, request: Any) -> None:
        """Wait for the others; with fewer cores than ranks, so that they may have this one's core.

        MPI itself spins: on two cores four ranks took 6.4 ms to add up 4 MB, and 4.0 this way, 1.8 and 0.23 for 4 B.

        Raises:
            RankLeft: a rank that does not take part has left.
        """
        self._calls += 1
        self._refuse_to_wait()
        while not self._notices.wait(request, self._sleep):
            self._refuse_to_wait()

    # -- who leaves ------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def training(self) -> Iterator[None]:
        """Begin a call of `fit` in all ranks; tell the others if it fails in this one."""
        self._begin_stage()
        try:
            comm, request = self._world.Idup()  # what a call that failed leaves behind disturbs no other
            self._finish(request)
            self._comm = comm
            yield
        except BaseException as error:
            self._notices.send(self._notice(_why(self.rank, error), status=_status(error)))
            raise
        else:
            comm.Free()
        finally:
            self._comm = self._world
            self._begin_stage()

    def _begin_stage(self) -> None:
        self._stage, self._calls = self._stage + 1, 0

    def _notice(self, why: str, **also: Any) -> Notice:
        return Notice(self.rank, self._stage, self._calls, why, **also)

    def _refuse_to_wait(self) -> None:
        """Raise if a rank that left takes no part in the last collective; name the one that left first."""
        left = [notice for notice in self._notices.received if notice.lacks(self._stage, self._calls)]
        if not left:
            return
        first = min(left, key=lambda notice: (notice.stage, notice.calls))
        if first.status is not None:
            _say(f"{first.why}, and rank {self.rank} with it")
            raise SystemExit(first.status)
        raise RankLeft(first.why)

    def end(self) -> None:
        """Tell the others that this process ends, and wait until they end too."""
        if os.getpid() != self._process or self._fails or self._mpi.Is_finalized():
            return
        calls = f"it called fit(..., distributed=True) {(self._stage + 1) // 2} times"
        why = f"rank {self.rank} of {self.size} ended; {calls}, and another rank calls it more often"
        self._notices.send(self._notice(why, ended=True))
        self._notices.all_end()

    def fail(self, error: BaseException) -> None:
        """Have the end of this process, by an exception that nobody handles, end the others too."""
        from mpi4py.run import set_abort_status

        if os.getpid() != self._process or _status(error) == 0:
            return
        self._fails = True
        if not isinstance(error, RankLeft):
            what = _why(self.rank, error) if isinstance(error, SystemExit) else _kind(self.rank, error)
            _say(f"{what}, which ends all ranks")
        set_abort_status(error)
        hindered = threading.Timer(LONGEST, self._world.Abort, [_status(error) or 1])  # by threads that do not end
        hindered.daemon = True
        hindered.start()

    def _ending_all(self, hook: Hook) -> Hook:
        """Return a hook for an exception that ends this process: it ends the others too, which would wait for it."""

        def ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            if isinstance(error, RankLeft):
                time.sleep(LONGEST)  # in which that rank says more, and ends this one, unless it handled its error
            hook(kind, error, trace)
            self.fail(error)

        return ended

    # -- what rank 0 does for all ----------------------------------------------------------------------------------

    def begun_alike(
        self, net: Network, seed: int | None, settings: dict[str, Any], data: Mapping[str, Sequence[Any]]
    ) -> int | None:
        """Broadcast the parameters of rank 0, and return its seed; raise if ranks disagree."""
        digests = {
            name: dict(zip("Xyw", (digest_of_array(x, net.backend.to_numpy) for x in arrays), strict=False))
            for name, arrays in data.items()
        }
        self.alike({"version": _versions(), "network": _described(net)} | settings | digests)
        self._share_parameters(net)
        return self.first(numpy.random.SeedSequence().entropy if seed is None else seed)

    def alike(self, settings: dict[str, Any]) -> None:
        """Raise InvalidValue if a setting differs between ranks; the message names ranks and values."""
        own = itemized(settings)
        checksum = zlib.crc32(repr(own).encode())
        if self.highest(checksum) == -self.highest(-checksum):
            return
        everyone = self._comm.allgather(own)
        names = dict.fromkeys(name for each in everyone for name in each)
        values = {name: [each.get(name, "nothing") for each in everyone] for name in names}
        unlike = [(name, _by_rank(given)) for name, given in values.items() if len(set(given)) > 1]
        if unlike:
            (name, given), *others = unlike
            also = "".join(f"; {name} too, got {given}" for name, given in others[:MOST])
            raise InvalidValue(f"{name} must be the same in every rank, got {given}{also}")

    def _share_parameters(self, net: Network) -> None:
        theta = numpy.array(net.backend.to_numpy(net.theta))
        self._finish(self._comm.Ibcast(theta))
        with (running := net.backend.running(0.0)), running:
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


def _versions() -> dict[str, Any]:
    """Return the versions of the packages that compute."""
    cupy = sys.modules.get("cupy")
    return {"gpubackprop": __version__, "numpy": numpy.__version__, "cupy": getattr(cupy, "__version__", None)}


def _described(net: Network) -> dict[str, Any]:
    """Return everything that determines what a network computes, except its parameters."""
    fields = {field.name: getattr(net.architecture, field.name) for field in dataclasses.fields(net.architecture)}
    return fields | {"backend": net.backend.name, "precision": net.precision}


def _by_rank(values: Sequence[str]) -> str:
    """Return different values with the ranks that have them: '1.0 in rank 0, 2.0 in ranks 1, 2'."""
    ranks = defaultdict(list)
    for rank, value in enumerate(values):
        ranks[value if len(value) <= LETTERS else f"{value[:LETTERS]}..."].append(str(rank))
    return ", ".join(f"{value} in rank{'s' * (len(having) > 1)} {', '.join(having)}" for value, having in ranks.items())


def _say(text: str) -> None:
    with contextlib.suppress(AttributeError, OSError, ValueError):  # stderr is missing or closed
        sys.stderr.write(f"gpubackprop: {text}\n")
        sys.stderr.flush()


def _why(rank: int, error: BaseException) -> str:
    """Return which rank left by which exception; one that left because of another names the other."""
    return str(error) if isinstance(error, RankLeft) else f"{_kind(rank, error)}: {error}".removesuffix(": ")


def _kind(rank: int, error: BaseException) -> str:
    return f"rank {rank} left by {type(error).__name__}"


def _status(error: BaseException) -> int | None:
    """Return the exit status that `SystemExit` asks for; None for other exceptions."""
    if not isinstance(error, SystemExit):
        return None
    return error.code if isinstance(error.code, int) else int(error.code is not None)
