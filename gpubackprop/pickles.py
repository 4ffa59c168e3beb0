"""Networks through pickle: rows by their names, parameters as NumPy arrays. `load` reads files without pickle."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

from .backends import resolve
from .errors import BackendUnavailable, InvalidValue

if TYPE_CHECKING:
    from .architecture import Architecture


def reduced(net: Any) -> tuple[Any, ...]:
    """Return a function and its arguments that make the network again, as pickle takes them.

    Raises:
        InvalidValue: a formula that pickle could not find again.
    """
    try:
        pickle.dumps([*net.activations, net.loss])
    except Exception as error:  # of a user's formula, whatever it is
        raise InvalidValue(
            f"pickle cannot find a formula of the network again ({error}): define its row at the top of a module, or "
            "write the network with net.save(path) and read it with gb.load(path, rows=[...])"
        ) from error
    backend = f"cuda:{net.backend.index}" if net.backend.name == "cuda" else net.backend.name
    state = net.architecture, backend, net.precision, net.metadata, net._host_parameters()
    return _restored, (type(net), *state)


def _restored(
    kind: Any, architecture: Architecture, backend: str, precision: str, metadata: dict[str, str], parameters: Any
) -> Any:
    """Return the network that was pickled, on its backend."""
    try:
        place = resolve(backend)
    except BackendUnavailable as error:
        raise BackendUnavailable(
            f"a pickled network comes back on its backend, {backend!r}: {error}. Pickle net.to('numpy') instead, or "
            "write it with net.save(path) and read it with gb.load(path, backend='numpy')"
        ) from error
    network = kind.__new__(kind)
    network._build(architecture, place, precision)
    network._set_parameters(parameters)
    network.metadata = metadata
    return network
