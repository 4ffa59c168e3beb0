"""Files of tensors: safetensors, with what is not a tensor as one JSON object in the header; nothing is pickled."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import safetensors.numpy

from .errors import InvalidValue, ModelFileError
from .files import path_of, replacing
from .tensorfile import LONGEST, TensorFile, opened

FORMAT = 1
_KEY = "gpubackprop"  # of the one entry in the header's metadata
_BLOCK = 2**18  # elements read at a time
_KINDS = {"float32": "F32", "float64": "F64", "int64": "I64"}  # as safetensors calls them
_MALFORMED = (
    *(ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError),
)  # what reading a file can raise that holds something else than was written


def write(
    path: str | os.PathLike[str],
    content: Mapping[str, Any],
    tensors: dict[str, numpy.ndarray],
    long: str,
    default: Callable[[Any], Any] | None = None,
) -> None:
    """Write a file.

    Args:
        path: of the file.
        content: what JSON holds, by name.
        tensors: arrays by name.
        long: what of the content may be too long, for messages.
        default: what `json.dumps` calls for an object that it does not know.

    Raises:
        InvalidValue: content that is too long, or a path that names no file.
        InvalidType: a path that is none.
        OSError: the file cannot be written.
    """
    header = json.dumps({"format": FORMAT, **content}, default=default)
    written = safetensors.numpy.save({name: _plain(x) for name, x in tensors.items()}, {_KEY: header})
    length = int.from_bytes(written[:8], "little")
    if length > LONGEST:
        raise InvalidValue(f"{long} must take at most {LONGEST:,} bytes in the file, got {length:,}")
    with replacing(path) as file:
        file.write(written)


def _plain(x: numpy.ndarray) -> numpy.ndarray:
    """Return an array whose memory holds its elements in C order and little-endian: safetensors writes that memory."""
    return numpy.asarray(x, x.dtype.newbyteorder("<"), order="C")


class Container(NamedTuple):
    """An open file, of which nothing is believed.

    Attributes:
        refusing: a context that turns whatever goes wrong with the content into the one exception for that.
        file: its tensors; their shapes, types and places fit the file's length.
        content: what JSON holds, by name.
    """

    refusing: Callable[[], contextlib.AbstractContextManager[None]]
    file: TensorFile
    content: Any

    def check(self, expected: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        """Refuse tensors of other names, shapes and types than are expected, by name; nothing of them is read."""
        if self.file.entries.keys() != expected.keys():
            raise ValueError(f"its tensors do not fit, which have to be {', '.join(expected)}")
        for name, (shape, dtype) in expected.items():
            tensor, kind = self.file.entries[name], _KINDS[dtype]
            if tensor.shape != shape or tensor.kind != kind:
                raise ValueError(f"{name} is {list(tensor.shape)} of {tensor.kind}, not {list(shape)} of {kind}")

    def blocks(self, name: str) -> Iterator[tuple[slice, numpy.ndarray]]:
        """Yield a tensor some rows at a time: a whole tensor would be a second copy of what is made of it.

        Args:
            name: of the tensor, of floating-point numbers.

        Yields:
            Which rows, and their values, all finite.

        Raises:
            ModelFileError: it holds NaN or infinity, or the file was changed since it was opened.
        """
        with self.refusing():
            length, *rest = self.file.entries[name].shape
            step = max(_BLOCK // math.prod(rest), 1)
            for start in range(0, length, step):
                rows = slice(start, min(start + step, length))
                yield rows, _finite(name, self.file.read(name, rows))

    def tensors(self) -> dict[str, numpy.ndarray]:
        """Return all tensors by name; they take as much memory as the file."""
        return {name: self.file.read(name) for name in self.file.entries}


def _finite(name: str, block: numpy.ndarray) -> numpy.ndarray:
    if not (math.isfinite(block.min()) and math.isfinite(block.max())):
        raise ValueError(f"{name} holds NaN or infinity")
    return block


@contextlib.contextmanager
def reading(
    path: str | os.PathLike[str], writer: str, kind: str = "model", refusal: type[Exception] = ModelFileError
) -> Iterator[Container]:
    """Open a file that `write` wrote. All sizes are checked before memory is taken.

    Args:
        path: of the file.
        writer: what writes such files, for messages.
        kind: what such files are, for messages.
        refusal: the exception for what is none.

    Yields:
        The open file.

    Raises:
        ModelFileError: it is no such file, where `refusal` does not say another.
        OSError: it cannot be opened.
        InvalidType: the path is no path.
        InvalidValue: the path is no path.
    """
    place = path_of(path)
    refusing = partial(_refusing, place, writer, kind, refusal)
    with contextlib.ExitStack() as stack:
        with refusing():
            file = TensorFile(stack.enter_context(opened(place)))
            content = json.loads(file.metadata[_KEY])
            _check_format(content["format"])
        yield Container(refusing, file, content)


@contextlib.contextmanager
def _refusing(place: Path, writer: str, kind: str, refusal: type[Exception]) -> Iterator[None]:
    try:
        yield
    except ModelFileError as error:  # already complete
        raise refusal(f"{place}: {error}") from error
    except _MALFORMED as error:
        reason = f"it has no entry {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise refusal(
            f"{place} is not a {kind} that this version of gpubackprop reads ({reason[:300]}); accepted are files "
            f"written by {writer}"
        ) from error


def _check_format(number: Any) -> None:
    if number != FORMAT:
        raise ValueError(f"its format is {number!r}, this version reads {FORMAT}")
