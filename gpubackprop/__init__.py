"""Backpropagation for multilayer perceptrons, as equations on whole batches, on NVIDIA GPUs and on any CPU."""

from . import activations, errors, initializers, losses, optimizers, schedules
from .backends import available_backends, set_backend, use_backend, why_no_cuda
from .checkpoint import Checkpoint
from .gradcheck import GradientCheck, check_gradients
from .history import History
from .memory import bytes_of_training
from .network import Network, load
from .training import fit, warmup
from .version import __version__

__all__ = [
    "Checkpoint",
    "GradientCheck",
    "History",
    "Network",
    "__version__",
    "activations",
    "available_backends",
    "bytes_of_training",
    "check_gradients",
    "errors",
    "fit",
    "initializers",
    "load",
    "losses",
    "optimizers",
    "schedules",
    "set_backend",
    "use_backend",
    "warmup",
    "why_no_cuda",
]


def __dir__() -> list[str]:
    return __all__
