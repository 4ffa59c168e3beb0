"""Training: equation 9. Batches, epochs, stopping, history, callbacks."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from . import parallel
from .callbacks import Callback
from .checkpoint import Checkpoint, Keeper
from .checks import boolean, choice, integer, real
from .epochs import Epochs, Patience
from .errors import InvalidType, InvalidValue, MissingDependency, Terminated
from .history import History
from .in_use import Use
from .intake import taken_in, training_source, validation_of, why_streamed
from .locks import importing
from .network import Network
from .optimizers import OPTIMIZERS, Optimizer
from .parallel import Alone
from .promises import bytes_of
from .run import Run
from .sources import Source
from .streams import Dropping, is_open, is_terminal

# The arguments of `fit` that ranks do not compare by their values: data are compared once they are on the backend, and
# the last three are rank 0's, or true in all.
APART = ("net", "X", "y", "sample_weight", "validation_data", "callbacks", "progress", "distributed")


@parallel.together
def fit(
    net: Network,
    X: Any,
    y: Any = None,
    *,
    optimizer: str | Optimizer = "sgd",
    epochs: int = 100,
    batch_size: int = 256,
    validation_data: Any = None,
    sample_weight: Any = None,
    shuffle: bool = True,
    seed: int | None = 0,
    stream: bool | None = None,
    tol: float | None = 1e-4,
    patience: int = 10,
    callbacks: Sequence[Callback] = (),
    progress: bool | None = None,
    checkpoint: Checkpoint | str | os.PathLike[str] | None = None,
    resume: bool = False,
    retries: int = 0,
    distributed: bool = False,
) -> History:
    """Train a network in place until its loss converges or the epochs are over (equation 9).

    All arguments are checked before the first step; a call that is refused leaves the network as it was. Training
    ends early, with a warning, at the first epoch whose loss or parameters are not finite, and on Ctrl-C (after a whole
    step). After an epoch that is not finite the network has the parameters of the best epoch: of the least validation
    loss if there is validation data, otherwise of the least training loss. If even these are worse on the examples
    than the parameters from before training, it has the latter. An exception from a callback passes through, and
    the network is as its last epoch left it.

    With checkpoints a training that was killed goes on where the newest one was written, and ends with the same
    parameters and history (but for seconds) as if nothing had happened, to the last bit on the same backend. What was
    given has to be given again, the data too; epochs, tol, patience, callbacks and the backend may be others. That the
    data are the same is not checked but for their number, nor what a schedule of yours does but for its name, and what
    callbacks remember is theirs to keep. SIGTERM, in the main thread, ends the step, writes a last checkpoint and the
    process.

    While `fit` runs, other threads may call `Network.predict` and `Network.evaluate`. They see the parameters as they
    are at that moment, perhaps within a step, and do not change the training. Calls that would change it, or that need
    parameters that stand still, raise `InUse`: `fit`, `loss_and_gradients` and `load_state_dict`. A callback may call
    all of them on its network except `fit`.

    Data that would not fit are read a window of rows at a time, while the steps of the window before run. A window is
    as many whole batches as fit 64 MiB, and at least one. With shuffle=False the steps are those of data in memory, to
    the last bit. Else blocks of about 1 MiB are read in a drawn order (batches and tables of Arrow in theirs), and the
    rows of each window are shuffled. What is not accepted in such data is found when it is read: the network is then
    as it was before the call.

    Args:
        net: the network; its parameters go on from what they are.
        X: examples (N, n_0): an array, perhaps mapped from a file, or the path of a .npy file. Or the path of a
            .parquet, .arrow or .feather file, a table or a data set of pyarrow, whose columns other than y and
            sample_weight are the features. The names of their columns, or of those of a DataFrame, are then
            `net.features`, by which tables are matched in any order. Or batches: a function that returns an
            iterator over pairs (X, y) or triples (X, y, sample_weight), or what can be iterated over in every epoch.
        y: class labels 0..n_L-1 (N,) for several outputs, values (N,) for one, or targets (N, n_L), or their path; for
            tables of Arrow the name of a column, or a list of such; None for batches.
        optimizer: an object of `gpubackprop.optimizers`, or one's name for its defaults.
        epochs: the most passes over the data.
        batch_size: examples in a step; the last batch of an epoch may have fewer.
        validation_data: (X, y) or (X, y, sample_weight), each as above, or batches, or a table of Arrow with the
            columns of X. Their loss is computed after each epoch, and then decides about stopping. They are held in
            memory.
        sample_weight: weights (N,) of the examples in the mean loss of their batch, or their path or column, or None.
        shuffle: whether each epoch goes over the examples in a new order.
        seed: of the order and of dropout: an integer, or None for another each time.
        stream: True reads data of more than a window in windows, False never does, None does where data and training
            are predicted to take more than four fifths of the memory that is free; `History.data` says what was done.
        tol: least fall of the loss that counts as progress, in units of the loss; None never stops early.
        patience: epochs without progress after which training stops.
        callbacks: each is called after every epoch as ``callback(net, history)`` and stops training by returning True.
        progress: True shows a bar (tqdm), False does not, None does where tqdm is installed and stderr is a terminal.
        checkpoint: a folder for checkpoints, written after every epoch, or a `Checkpoint` that says how often.
        resume: whether to go on from the newest checkpoint in that folder; where there is none, training begins.
        retries: how many times an epoch that is not finite is repeated, from the parameters and the optimizer's state
            of its start, at half the rate, which stays so; `History.retried` names the epochs.
        distributed: whether the processes that `mpiexec` started, each of which calls this with the same arguments,
            train together: each takes its part of every batch. Rank 0 says how the network begins, has the callbacks,
            the bar and the warnings, and all end with the same network and history. One process alone trains alone.

    Returns:
        The history, with the reason why training stopped.

    Raises:
        Terminated: SIGTERM came; only with checkpoints.
        CheckpointError: none of the checkpoints can be read.
        OSError: the folder of the checkpoints cannot be made or read.
        InvalidValue: a shape or a value that is not accepted.
        InvalidType: an argument of a type that is not accepted.
        InUse: another call uses the network: in another thread, or the one whose callback or signal handler this is.
        MissingDependency: progress=True without tqdm, Arrow without pyarrow, or distributed=True without MPI.
        RanksMissing: MPI knows of another number of ranks than were started.
        RankLeft: another rank ended, or left this call.
        OutOfMemory: the device cannot hold the data, or the buffers of one example.
    """
    given = dict(locals())
    net = _network(net)
    group = parallel.world() if boolean("distributed", distributed) else Alone()
    epochs, patience = integer("epochs", epochs, 1), integer("patience", patience, 1)
    batch_size, shuffle = integer("batch_size", batch_size, 1), boolean("shuffle", shuffle)
    tol = math.nan if tol is None else real("tol", tol, 0.0)
    seed = seed if seed is None else integer("seed", seed, 0)
    rule, calls = _optimizer(optimizer), _callbacks(callbacks)
    checkpoint, resume, retries = _checkpoint(checkpoint, resume), bool(resume), integer("retries", retries, 0)
    source, batch_size = _source(net, X, y, sample_weight, batch_size, checkpoint)
    stream = stream if stream is None else boolean("stream", stream)
    needed = functools.partial(bytes_of, net.architecture, net.backend, net.precision, rule, batch_size)
    why = group.first(why_streamed(net, source, batch_size, stream, needed, group.here))
    data, says = taken_in(net, source, batch_size, why)
    validation = None if validation_data is None else validation_of(net, validation_data, source, y, sample_weight)
    history = History(samples=source.rows or 0, backend=net.backend.description, data=says)
    examples = None if validation is None else len(validation[0])
    compared = {"data": data if why is None else (), "validation_data": validation or ()}
    told = {name: value for name, value in given.items() if name not in APART} | {
        "optimizer": rule,
        "batch_size": batch_size,
        "examples": source.rows,
        "weighted": source.weighted,
    }
    use, running = Use(net, "fit", trains=True), net.backend.running(net.flops(group.most(batch_size)))
    with (
        use,
        use,
        _interruptible(*(() if checkpoint is None else (signal.SIGTERM,))) as asked,
        group.warning_once(),
        _bar(progress if group.rank == 0 else False, epochs) as show,
        running,
        running,
        contextlib.ExitStack() as ends,
    ):
        drawn_from = group.begun_alike(net, seed, told, compared)
        reducer = group.reducer(net.backend, asked)
        run = Run(net, *data, rule, batch_size, shuffle, drawn_from, repeatable=retries > 0, reducer=reducer)
        ends.callback(run.close)
        history.at_once = run.at_once if run.at_once < group.most(batch_size) else None
        keeper = Keeper(checkpoint, run, history, seed, examples, group)
        ends.callback(keeper.close)
        keeper.start(resume)
        interrupted = reducer.signalled if reducer else asked
        training = Epochs(
            run,
            history,
            keeper,
            most=epochs,
            patience=Patience(tol, patience),
            validation=validation,
            callbacks=group.led(calls),
            show=show,
            interrupted=interrupted,
            retries=retries,
        )
        history.stopped_because = training.take()
        net._name_features(source.features)
        if interrupted() == signal.SIGTERM:
            newest = group.first(keeper.newest)  # who ends first ends the others
            left = f"the last checkpoint is {newest}" if newest else "no checkpoint could be written"
            raise Terminated(f"{history.stopped_because}; {left}")
    return history


def warmup(net: Network, *, optimizer: str | Optimizer = "sgd", batch_size: int = 256) -> None:
    """Take one training step on a copy of a network, so that the first step of `fit` finds everything made.

    On CUDA that is the kernels of its formulas, compiled or read from the cache on disk, and handles of libraries: a
    program that measures time, or answers to somebody, calls it first.

    Args:
        net: the network; it stays as it is.
        optimizer: that of the training to come: an object of `gpubackprop.optimizers`, or one's name.
        batch_size: that of the training to come; memory for such a batch is needed meanwhile.

    Raises:
        InvalidValue: batch_size is not positive, or no optimizer has that name.
        InvalidType: an argument of a type that is not accepted.
        KernelError: a formula does not compile.
        OutOfMemory: the device cannot hold a batch.
    """
    rows, rule = integer("batch_size", batch_size, 1), _optimizer(optimizer)
    twin = copy.copy(_network(net))
    with (running := twin.backend.running(twin.flops(rows))), running:
        x, y, w = (twin.backend.zeros((rows, n), twin.dtype) for n in (twin.sizes[0], twin.sizes[-1], 1))
        w[...] = 1.0
        run = Run(twin, x, y, w, rule, rows, True, 0)
        run.epoch(lambda: False)
        run.evaluate(x, y, w)
        twin.backend.synchronize()


def _network(net: Any) -> Network:
    if not isinstance(net, Network):
        raise InvalidType(f"net must be a Network, got {type(net).__name__}")
    return net


def _source(net: Network, X: Any, y: Any, sample_weight: Any, batch_size: int, checkpoint: Any) -> tuple[Source, int]:
    """Return the data, and the batch size, which is no larger."""
    source = training_source(net, X, y, sample_weight)
    if source.rows is None and checkpoint is not None:
        raise InvalidValue("checkpoints are for data of a known number of examples, and X is batches: leave them out")
    return source, min(batch_size, source.rows or batch_size)


def _optimizer(optimizer: Any) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        return optimizer
    if not isinstance(optimizer, str):
        raise InvalidType(
            f"optimizer must be {', '.join(map(repr, OPTIMIZERS))}, or an object such as optimizers.Adam(1e-3), "
            f"got {optimizer!r}"
        )
    return OPTIMIZERS[choice("optimizer", optimizer, OPTIMIZERS)]()


def _callbacks(callbacks: Any) -> list[Callback]:
    if not isinstance(callbacks, (list, tuple)) or not all(map(callable, callbacks)):
        raise InvalidType(f"callbacks must be a list of functions callback(net, history), got {callbacks!r}")
    return list(callbacks)


def _checkpoint(checkpoint: Any, resume: Any) -> Checkpoint | None:
    if boolean("resume", resume) and checkpoint is None:
        raise InvalidValue("resume=True needs the folder of the checkpoints: checkpoint=...")
    return checkpoint if checkpoint is None or isinstance(checkpoint, Checkpoint) else Checkpoint(checkpoint)


@contextlib.contextmanager
def _interruptible(*ends: signal.Signals) -> Iterator[Callable[[], int]]:
    """Turn signals into a number that is asked for between steps.

    After the first Ctrl-C a second one interrupts at once, as usual.

    Args:
        ends: other signals; they may come several times: launchers send SIGTERM to a process and to its group.

    Yields:
        A function that returns the highest number of those that came, 0 before the first.
    """
    came: list[int] = []
    previous: dict[signal.Signals, Any] = {}

    def note(number: int, frame: Any) -> None:
        came.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, previous[signal.SIGINT])

    try:
        for number in (signal.SIGINT, *ends):
            handler = signal.getsignal(number)
            # Python gives signals to the main thread alone; what is ignored, or is not Python's to put back, stays
            if threading.current_thread() is threading.main_thread() and handler not in (None, signal.SIG_IGN):
                previous[number] = handler
                signal.signal(number, note)
        yield lambda: max(came, default=0)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _tqdm(required: bool) -> Any:
    """Return the class of progress bars, or None if tqdm is not installed and not required."""
    try:
        with importing:
            from tqdm import tqdm
    except ImportError as error:
        if required:
            raise MissingDependency("progress=True needs tqdm: pip install 'gpubackprop[progress]'") from error
        return None
    return tqdm


@contextlib.contextmanager
def _bar(progress: bool | None, epochs: int) -> Iterator[Callable[[History], None]]:
    """Show a progress bar over the epochs; yield what is called with the history after each."""
    wanted = is_terminal(sys.stderr) if progress is None else boolean("progress", progress)
    tqdm = _tqdm(required=bool(progress)) if wanted else None
    if tqdm is None or not is_open(sys.stderr):
        yield lambda history: None
        return
    with tqdm(total=epochs, unit="epoch", file=Dropping(sys.stderr)) as bar:

        def show(history: History) -> None:
            figures = {"loss": f"{history.loss[-1]:.4g}"}
            if history.validation_loss:
                figures["validation"] = f"{history.validation_loss[-1]:.4g}"
            bar.set_postfix(figures)
            bar.update(len(history.loss) - bar.n)

        yield show
