"""What can be done in a product instead of in a kernel behind it; whether that is faster, the clock says.

Not yet run on a device: there are no times of either way.

The library has relu and gelu, the latter by tanh, but not in bfloat16: a bias and its gradient must be of the type of
the result there. A step of gradient descent it can add to W_l with the product of equation 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from .cublaslt import AUX_MULTIPLE
from .products import Epilogue

if TYPE_CHECKING:
    from ..activations import Activation
    from ..optimizers import Optimizer
    from .cuda import CudaBackend

_APART = 64  # elements: a multiple of it is where a layer starts in memory that is timed, no less aligned than in θ
_FORWARD = {"identity": "bias", "relu": "relu_bias", "gelu": "gelu_aux_bias"}


def forward(activation: Activation, b: Any, mask: Any, z: Any, a: Any) -> Epilogue | None:
    """Return the epilogue that computes equations 1 and 2 behind the product; see `NumpyBackend.forward`.

    Args:
        activation: that of the layer.
        b: (n,).
        mask: that of dropout, or None.
        z: (N, n).
        a: (N, n); another array than z where z is needed later.

    Returns:
        The epilogue of a product into a, or None where there is none.
    """
    name = _FORWARD.get(activation.epilogue or "")
    keeps_z = z.data.ptr != a.data.ptr
    if name is None or mask is not None or b.dtype != a.dtype or keeps_z != (name == "gelu_aux_bias"):
        return None
    if not keeps_z:
        return Epilogue(name, b)
    return Epilogue(name, b, z) if _fits(z) else None


def delta(activation: Activation, mask: Any, z: Any, db: Any) -> Epilogue | None:
    """Return the epilogue that computes equations 4 and 6 behind the product; see `NumpyBackend.delta`.

    That of relu would need masks of bits that the product of the forward pass has written.

    Args:
        activation: that of the layer.
        mask: that of dropout, or None.
        z: (N, n).
        db: (n,), where the sums go.

    Returns:
        The epilogue of a product into δ, or None where there is none.
    """
    if activation.epilogue != "gelu" or mask is not None or db.dtype != z.dtype or not _fits(z):
        return None
    return Epilogue("dgelu_bgrad", db, z)


def _fits(z: Any) -> bool:
    return z.shape[1] % AUX_MULTIPLE == 0


class Trial:
    """A step's weight gradients and its update on memory of its own, in two ways: to be timed.

    Args:
        backend: the CUDA backend.
        optimizer: gradient descent, with or without momentum.
        shapes: of every W_l.
        rows: N.
        dtype: of the parameters.
    """

    def __init__(
        self, backend: CudaBackend, optimizer: Optimizer, shapes: Sequence[tuple[int, int]], rows: int, dtype: str
    ) -> None:
        zeros, stored = backend.zeros, backend.storage(dtype)
        self._backend, self._optimizer, self._shapes = backend, optimizer, shapes
        self._starts = [0, *accumulate(-(-m * n // _APART) * _APART for m, n in shapes)]
        self._theta, self._gradient = (zeros(self._starts[-1], dtype) for _ in range(2))
        stored_theta = backend.narrow(self._theta)
        self._narrow = None if stored_theta is self._theta else stored_theta
        self._slots = zeros((len(optimizer.slots), self._starts[-1]), dtype)
        self._hyper = zeros(len(optimizer.scalar_names), dtype)
        self._scale = backend.asarray([-1e-3, 1.0], dtype)
        self._operands = [(zeros((rows, m), stored).T, zeros((rows, n), stored)) for m, n in shapes]

    def _views(self, flat: Any) -> list[Any]:
        return [
            flat[start : start + m * n].reshape(m, n) for start, (m, n) in zip(self._starts, self._shapes, strict=False)
        ]

    def plain(self) -> None:
        """Compute ∂L/∂W of every layer, then update all of θ."""
        for (hT, delta), dW in zip(self._operands, self._views(self._gradient), strict=True):
            self._backend._product(hT, delta, dW)
        self._backend.update(self._optimizer, self._hyper, self._theta, self._gradient, self._slots, self._narrow)

    def folded(self) -> None:
        """Add to every W, or to its velocity and that to θ; θ in the type of storage is then written by itself."""
        assert self._backend.products is not None
        target = self._slots[0] if self._optimizer.slots else self._theta
        for (hT, delta), W in zip(self._operands, self._views(target), strict=True):
            self._backend.products(hT, delta, W, scale=self._scale)
        if self._optimizer.slots:
            self._backend.add(target, self._theta, self._narrow)
        else:
            self._backend.narrow(self._theta, self._narrow)
