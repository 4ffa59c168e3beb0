"""Every exception and warning the package raises of its own, each under the built-in type users catch already."""

from __future__ import annotations


class GpubackpropError(Exception):
    """Base of all exceptions of this package."""


class InvalidValue(GpubackpropError, ValueError):
    """An argument of the right type with a value that is not accepted: a shape, a range, an unknown name."""


class InvalidType(GpubackpropError, TypeError):
    """An argument of a type that is not accepted."""


class InUse(GpubackpropError, RuntimeError):
    """A network or an estimator is in use by a call in another thread, or by the call that this one is made within."""


class BackendUnavailable(GpubackpropError, RuntimeError):
    """The backend that was asked for cannot run here; the message names the cause and the remedy."""


class OutOfMemory(GpubackpropError, MemoryError):
    """The device has too little free memory; the message names bytes needed, bytes free and the remedy."""


class KernelError(GpubackpropError, RuntimeError):
    """A CUDA kernel does not compile; the message names its file and line."""


class CudaLibraryError(GpubackpropError, RuntimeError):
    """A library of CUDA cannot be loaded or refused a call; the message names the call and its status."""


class ModelFileError(GpubackpropError, ValueError):
    """A file that is not a model of this package: truncated, altered, foreign, or of a later format."""


class CheckpointError(GpubackpropError, ValueError):
    """None of the checkpoints in a folder can be read: truncated, altered, foreign, or of a later format."""


class RanksMissing(GpubackpropError, RuntimeError):
    """MPI knows of another number of ranks than were started; the message names both and the remedy."""


class RankLeft(GpubackpropError, RuntimeError):
    """Another rank ended, or left its call of `fit`, and this one would wait for it; the message names it and why."""


class MissingDependency(GpubackpropError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class GradientCheckFailed(GpubackpropError, AssertionError):
    """Gradients differ from their numerical derivatives by more than the bound."""


class DivergenceWarning(RuntimeWarning):
    """A loss or a parameter was not finite, and training stopped; the network has the best parameters before that."""


class MicroBatchWarning(RuntimeWarning):
    """A batch does not fit the memory, and is taken in parts whose gradients are added up, with the same result."""


class InterruptWarning(RuntimeWarning):
    """Training was interrupted from the keyboard and stopped after a whole step."""


class CheckpointWarning(RuntimeWarning):
    """A checkpoint could not be written or not be read; the one before it is as it was."""


class Terminated(SystemExit):
    """SIGTERM came while training wrote checkpoints, and the last one is written: the process ends with status 143.

    Like every SystemExit it passes by ``except Exception``.

    Args:
        message: what happened, and from where training goes on.

    Attributes:
        code: 143, the exit status: 128 and the number of SIGTERM.
    """

    code: int

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.code = 143


__all__ = [name for name, value in vars().items() if isinstance(value, type)]


def __dir__() -> list[str]:
    return __all__
