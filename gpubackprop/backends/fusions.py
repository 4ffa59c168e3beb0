"""What can be done in a product instead of in a kernel behind it; whether that is faster, the clock says.

Not yet run on a device: there are no times of either way.

The library has relu and gelu, the latter by tanh, but not in bfloat16: a bias and its gradient must be of the type of
the result there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .cublaslt import AUX_MULTIPLE
from .products import Epilogue

if TYPE_CHECKING:
    from ..activations import Activation

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
