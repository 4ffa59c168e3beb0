"""The command `gpubackprop`: its arguments, its errors as one line each, its exit status."""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import __version__, parallel
from ..errors import CheckpointError, GpubackpropError, InvalidType, InvalidValue, ModelFileError, Terminated
from ..optimizers import OPTIMIZERS
from ..streams import Dropping, flush, is_open
from . import bench, doctor, launch, predict, train
from .datasets import NAMED
from .lines import told
from .targets import TASKS

BAD_INPUT, FAILURE, BROKEN_PIPE = 2, 1, 141  # the last as a program ended by SIGPIPE: 128 and its number

DATA = f"a data set by name ({', '.join(NAMED)}), or a file: .csv, .npy with a matrix, .npz with X and y"


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """Write every line: to nowhere if a stream is closed, and escaped if its encoding lacks a letter."""
    with (
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(sys.stdout if is_open(sys.stdout) else nowhere),
        contextlib.redirect_stderr(Dropping(error := sys.stderr if is_open(sys.stderr) else nowhere)),
    ):
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            yield
        finally:
            flush(sys.stdout)
            flush(error)


@_streams()
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: the arguments, None for those of the process.

    Returns:
        The exit status: 0, 1 for a failure, 2 for arguments or files that are not accepted, 130 for Ctrl-C, 143 where
        SIGTERM ended a training after its last checkpoint.
    """
    arguments = parser().parse_args(argv)
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
        return int(status)
    except (InvalidValue, InvalidType, ModelFileError, CheckpointError) as error:
        return _complain(error, BAD_INPUT)
    except Terminated as error:
        return _complain(error, error.code)
    except BrokenPipeError:
        return BROKEN_PIPE
    except (GpubackpropError, OSError, MemoryError) as error:
        return _complain(error, FAILURE)
    except KeyboardInterrupt:
        return _complain("interrupted", train.INTERRUPTED)


def _complain(error: object, status: int) -> int:
    if parallel.rank_by_launcher():
        time.sleep(1.0)  # where all ranks meet the same error, rank 0 says so, and ends the others
    print(f"gpubackprop: error: {told(error)}", file=sys.stderr)
    return status


class _Parser(argparse.ArgumentParser):
    """A parser for which ``--option=--`` has the value ``--``, which Python before 3.12.5 drops."""

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if not action.option_strings or action.nargs is not None or arg_strings != ["--"]:
            return super()._get_values(action, arg_strings)
        value = self._get_value(action, "--")
        self._check_value(action, value)
        return value


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = _Parser(prog="gpubackprop", description="Train multilayer perceptrons by backpropagation, on a GPU or a CPU.")
    top.add_argument("--version", action="version", version=f"gpubackprop {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)
    _add_predict(commands)
    _add_launch(commands)
    _add_bench(commands)
    check = commands.add_parser(
        "doctor", help="say what would run here, and why", description="Say what would run here, and why."
    )
    check.set_defaults(run=doctor.doctor)
    return top


def _add_train(commands: Any) -> None:
    about = "Train a network on data, test it on rows held out, and write the model, its history and its curves."
    add = commands.add_parser("train", help="train a network on data", description=about).add_argument
    add("data", metavar="DATA", help=DATA)
    _add_backend(add)
    add(
        "--hidden", metavar="N,N", type=_sizes, default=[512, 256], help="units of the hidden layers (default: 512,256)"
    )
    add("--epochs", metavar="N", type=_positive, help="passes over the data (default: 25 to 200, more for fewer rows)")
    add("--batch-size", metavar="N", type=_positive, help="rows in a step (default: 8 to 512, more for more rows)")
    add(
        "--optimizer",
        metavar="NAME",
        choices=OPTIMIZERS,
        default="adam",
        help=f"{', '.join(OPTIMIZERS)} (default: adam); sgd has momentum 0.9 and clipped gradients",
    )
    add("--lr", metavar="X", type=_rate, help="learning rate to begin with (default: what suits the optimizer)")
    add(
        "--dropout",
        metavar="P",
        type=_share,
        help="share of hidden units dropped in each step, from 0 to below 1 (default: up to 0.4 for classes, "
        "less in narrow layers; 0 for values)",
    )
    add("--patience", metavar="N", type=_positive, help="epochs without progress that end training (default: by size)")
    add("--out", metavar="DIR", help="folder for the results (default: DATA-model)")
    add("--seed", metavar="N", type=_natural, default=0, help="of weights, batches and the rows held out (default: 0)")
    add(
        "--target",
        metavar="COLUMN",
        help="a file's column to predict: its name, or its number from 1 (default: the last)",
    )
    add(
        "--drop",
        metavar="COLUMN",
        action="append",
        default=[],
        help="a file's column to leave out: its name, or its number from 1; may be given several times",
    )
    add(
        "--columns",
        metavar="COLUMN,COLUMN",
        type=_listed,
        action="extend",
        help="a file's columns to use as features: names, or numbers from 1; may be given several times (default: all "
        "except the target)",
    )
    add("--task", choices=TASKS, help="what to do with a file whose targets may be either")
    add(
        "--stream",
        action="store_true",
        help="do not load a .npy file, but read a window of rows at a time: for more data than memory holds",
    )
    add("--checkpoint", metavar="DIR", help="folder for checkpoints, from which --resume goes on (default: none)")
    add("--checkpoint-every", metavar="N", type=_positive, help="epochs between two checkpoints (default: 1)")
    add(
        "--resume",
        action="store_true",
        help="go on from the newest checkpoint, if there is one; all other arguments have to be as they were",
    )
    add.__self__.set_defaults(run=train.train)


def _add_launch(commands: Any) -> None:
    about = "Start several processes that train one network together, each with its part of every batch."
    add = commands.add_parser("launch", help="train with several processes", description=about).add_argument
    add("-n", dest="ranks", metavar="N", type=_positive, required=True, help="so many processes; each takes a device")
    add(
        "command",
        metavar="train ... | SCRIPT.py ...",
        nargs=argparse.REMAINDER,
        help="what each runs; a script calls fit(..., distributed=True)",
    )
    add.__self__.set_defaults(run=_launch)


def _launch(arguments: argparse.Namespace) -> None:
    if arguments.command[:1] == ["train"]:
        parser().parse_args(arguments.command)  # what is wrong with them is said once
    launch.launch(arguments)


def _add_predict(commands: Any) -> None:
    about = "Predict with a trained model. Where the targets are known, how well it does is said too."
    add = commands.add_parser("predict", help="predict with a trained model", description=about).add_argument
    add("model", metavar="MODEL", help="a model.safetensors that train wrote")
    add("data", metavar="DATA", help=f"{DATA}; of a data set by name, the part held out is predicted")
    _add_backend(add)
    add("--out", metavar="FILE", help="CSV file for the predictions (default: standard output)")
    add.__self__.set_defaults(run=predict.predict)


def _add_bench(commands: Any) -> None:
    about = (
        "Run the benchmark suite: print its figures, and write them as JSON and as a page. Or compare two such files."
    )
    add = commands.add_parser("bench", help="measure this machine, or compare two", description=about).add_argument
    add("--quick", action="store_true", help="the quick part of the suite alone")
    add("-k", dest="select", metavar="EXPRESSION", help="only these benchmarks, as for pytest: 'step and not cuda'")
    add("--out", metavar="DIR", help="folder for results.json and report.html (default: bench- and the machine's name)")
    add("--compare", metavar=("A.json", "B.json"), nargs=2, help="run nothing, and set two results.json side by side")
    add.__self__.set_defaults(run=bench.bench)


def _add_backend(add: Callable[..., Any]) -> None:
    add("--backend", metavar="NAME", help="auto, numpy, cuda or cuda:N (default: GPUBACKPROP_BACKEND, else auto)")


def _checked(text: str, kind: Callable[[str], Any], accepts: Callable[[Any], bool], accepted: str) -> Any:
    """Return the value of an argument, or let argparse say what is accepted."""
    try:
        value = kind(text)
    except ValueError:
        value = None
    if value is None or not accepts(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted; give {accepted}")
    return value


def _positive(text: str) -> int:
    return _checked(text, int, lambda n: n >= 1, "a whole number of at least 1")


def _natural(text: str) -> int:
    return _checked(text, int, lambda n: n >= 0, "a whole number of at least 0")


def _rate(text: str) -> float:
    return _checked(text, float, lambda x: 0 < x < float("inf"), "a number above 0")


def _share(text: str) -> float:
    return _checked(text, float, lambda x: 0 <= x < 1, "a number of at least 0 and below 1")


def _listed(text: str) -> list[str]:
    """Return names separated by commas; a name that holds a comma is in double quotes."""
    return _checked(
        text, lambda t: next(iter(csv.reader([t]))), all, "names or numbers of columns, as in length,width,5"
    )


def _sizes(text: str) -> list[int]:
    return _checked(
        text,
        lambda t: [int(n) for n in t.split(",")],
        lambda ns: min(ns) >= 1,
        "whole numbers of at least 1, as in 256,128",
    )
