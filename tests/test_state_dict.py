"""Weights to and from PyTorch: what keys and shapes are accepted, and that PyTorch computes the same with them."""

from __future__ import annotations

import importlib
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest

import gpubackprop as gb
from gpubackprop.errors import InvalidType, InvalidValue

X = np.random.default_rng(3).normal(size=(9, 4))
# Sums of five products of numbers of size 1 or so, twice, and functions that no rounding grows in.
BOUND = {"float32": 1e-6, "float64": 2e-15}


@pytest.fixture
def torch(need: Callable[[str], None]) -> Any:
    need("torch")
    return importlib.import_module("torch")


def _network(dtype: str = "float64", seed: int = 5) -> gb.Network:
    """A network with all its parameters, biases too, drawn at random."""
    net = gb.Network([4, 5, 3, 2], activation=["tanh", "relu"], dtype=dtype, backend="numpy", seed=seed)
    for _, b in net.parameters:
        b[...] = np.random.default_rng(seed).normal(size=b.shape)
    return net


def _sequential(torch: Any, dtype: str) -> Any:
    nn = torch.nn
    layers = nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3), nn.ReLU(), nn.Linear(3, 2)
    return nn.Sequential(*layers).to(getattr(torch, dtype))


def _state(net: gb.Network, **changes: Any) -> dict[str, Any]:
    """Return a state dict with other values under some keys, "0_weight" for "0.weight"; None takes a key out."""
    changed = {**net.to_state_dict(), **{key.replace("_", "."): value for key, value in changes.items()}}
    return {key: value for key, value in changed.items() if value is not None}


@pytest.mark.parametrize("dtype", BOUND)
def test_pytorch_computes_the_same_with_our_weights(dtype: str, torch: Any) -> None:
    net, module = _network(dtype), _sequential(torch, dtype)
    module.load_state_dict({key: torch.from_numpy(x) for key, x in net.to_state_dict().items()})
    x = X.astype(dtype)
    given = module(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(given, net.predict(x), rtol=0, atol=BOUND[dtype])


@pytest.mark.parametrize("dtype", BOUND)
def test_we_compute_the_same_with_pytorchs_weights(dtype: str, torch: Any) -> None:
    torch.manual_seed(1)
    net, module = _network(dtype), _sequential(torch, dtype)
    x = X.astype(dtype)
    for state in (module.state_dict(), dict(module.named_parameters())):  # the latter are tracked by autograd
        net.theta[...] = 0
        net.load_state_dict(state)
        expected = module(torch.from_numpy(x)).detach().numpy()
        np.testing.assert_allclose(net.predict(x), expected, rtol=0, atol=BOUND[dtype])


def test_there_and_back_is_the_same_to_the_last_bit(torch: Any) -> None:
    net, other = _network(seed=5), _network(seed=6)
    module = _sequential(torch, "float64")
    module.load_state_dict({key: torch.from_numpy(x) for key, x in net.to_state_dict().items()})
    other.load_state_dict(module.state_dict())
    assert other.theta.tobytes() == net.theta.tobytes()


def test_keys_shapes_and_copies() -> None:
    net = _network("float32")
    state = net.to_state_dict()
    shapes = {"0": (5, 4), "2": (3, 5), "4": (2, 3)}
    assert {key: x.shape for key, x in state.items()} == {
        f"{k}.{name}": shape[:length] for k, shape in shapes.items() for name, length in (("weight", 2), ("bias", 1))
    }
    before = net.theta.copy()
    for x in state.values():
        assert (x.dtype, x.flags.c_contiguous, x.flags.writeable) == (np.dtype("float32"), True, True)
        x[...] = 0
    assert net.theta.tobytes() == before.tobytes()


class OnlyDLPack:
    """An array of a library that NumPy knows by DLPack alone."""

    def __init__(self, values: Any) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()


class OnDevice(OnlyDLPack):
    """A tensor of PyTorch in the memory of a GPU, of which nothing can be read before it is on the host."""

    __cuda_array_interface__: ClassVar[dict[str, Any]] = {}

    def detach(self) -> OnDevice:
        return self

    def cpu(self) -> Any:
        return self.values

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("on a device")


@pytest.mark.parametrize("kind", [np.asarray, np.ndarray.tolist, OnlyDLPack, OnDevice])
def test_what_is_like_an_array_is_taken(kind: Any) -> None:
    net, other = _network(seed=5), _network(seed=6)
    other.load_state_dict(OrderedDict((key, kind(x)) for key, x in net.to_state_dict().items()))
    assert other.theta.tobytes() == net.theta.tobytes()


def test_the_type_is_the_networks() -> None:
    net = _network("float32")
    net.load_state_dict(_network("float64").to_state_dict())
    assert net.theta.dtype == np.float32
    assert net.theta.tobytes() == _network("float64").theta.astype(np.float32).tobytes()


def test_views_of_the_network_itself_are_taken() -> None:
    """Two layers change places: what is written first is still to be read."""
    net = gb.Network([3, 3, 3], dtype="float64", backend="numpy")
    net.theta[...] = np.arange(net.theta.size)
    (V, c), (W, b) = net.parameters
    expected = [x.copy() for x in (W, b, V, c)]
    net.load_state_dict({"0.weight": W.T, "0.bias": b, "2.weight": V.T, "2.bias": c})
    for given, wanted in zip((V, c, W, b), expected, strict=True):
        np.testing.assert_array_equal(given, wanted)


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a key is missing": ({"2_bias": None}, InvalidValue, "lacks 2.bias; accepted are 0.weight, 0.bias"),
    "a key too many": ({"6_weight": np.ones((2, 2))}, InvalidValue, "has also 6.weight"),
    "another numbering": (
        {"2_weight": None, "1_weight": np.ones((3, 5))},
        InvalidValue,
        "lacks 2.weight and has also 1.weight",
    ),
    "not transposed": ({"4_weight": np.ones((3, 2))}, InvalidValue, r"4.weight must have the shape \(2, 3\)"),
    "a bias of two axes": ({"4_bias": np.ones((2, 1))}, InvalidValue, r"4.bias must have the shape \(2,\), got"),
    "NaN": ({"4_bias": [np.nan, 0.0]}, InvalidValue, "4.bias must be finite"),
    "too large": ({"4_bias": [1e300, 0.0]}, InvalidValue, "4.bias must be finite in float32"),
    "strings": ({"4_bias": ["a", "b"]}, InvalidType, "4.bias must hold real numbers"),
    "ragged": ({"4_bias": [[1.0], [1.0, 2.0]]}, InvalidType, "4.bias must be an array"),
    "nothing": ({"4_bias": ()}, InvalidValue, "4.bias must have the shape"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_refused_leaves_the_network_as_it_was(fault: str) -> None:
    """Faults are in the last layer, where all before it could have been written."""
    changes, kind, says = REFUSED[fault]
    net = _network("float32")
    before = net.theta.copy()
    with pytest.raises(kind, match=says):
        net.load_state_dict(_state(_network("float32", seed=6), **changes))
    assert net.theta.tobytes() == before.tobytes()


def test_a_module_or_a_list_is_refused(torch: Any) -> None:
    with pytest.raises(InvalidType, match=r"a Sequential: pass its state_dict\(\)"):
        _network().load_state_dict(_sequential(torch, "float64"))
    with pytest.raises(InvalidType, match=r"mapping of arrays by key, got a list$"):
        _network().load_state_dict([1.0])  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["bfloat16", "meta"])
def test_tensors_that_numpy_cannot_read_are_refused_by_name(what: str, torch: Any) -> None:
    options = {"dtype": torch.bfloat16} if what == "bfloat16" else {"device": "meta"}
    with pytest.raises(InvalidType, match=r"4\.bias must be an array of real numbers, got Tensor"):
        _network().load_state_dict(_state(_network(), **{"4_bias": torch.ones(2, **options)}))


def test_pytorch_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    net, other = _network(seed=5), _network(seed=6)
    other.load_state_dict(net.to_state_dict())
    assert other.theta.tobytes() == net.theta.tobytes()


def test_the_cuda_backend_too(device: str, torch: Any) -> None:
    """On the stand-in or a GPU: copies to the host, tensors of the host to it, and views of what lies there."""
    net = gb.Network([4, 5, 5], backend=device, dtype="float64", seed=1)
    state = gb.Network([4, 5, 5], backend="numpy", dtype="float64", seed=2).to_state_dict()
    net.load_state_dict({key: torch.from_numpy(x) for key, x in state.items()})
    W = net.parameters[1][0]
    net.load_state_dict({**state, "2.weight": W})  # its transpose, then
    written = net.to_state_dict()
    for key, x in written.items():
        assert type(x) is np.ndarray
        np.testing.assert_array_equal(x, state[key].T if key == "2.weight" else state[key])


@pytest.mark.gpu
def test_tensors_on_a_gpu(torch: Any) -> None:
    state = _network(seed=5).to_state_dict()
    on_device = {key: torch.from_numpy(x).cuda().requires_grad_() for key, x in state.items()}
    for backend in ("numpy", "cuda"):
        net = _network(seed=6).to(backend)
        net.load_state_dict(on_device)
        for key, x in net.to_state_dict().items():
            np.testing.assert_array_equal(x, state[key])
