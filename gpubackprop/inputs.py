"""What users hand over, checked and turned into arrays of the backend: examples, targets, weights."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy

from .errors import GpubackpropError, InvalidType, InvalidValue
from .frames import KINDS, numbers

if TYPE_CHECKING:
    from .backends.numpy import NumpyBackend
    from .losses import Loss


def examples(X: Any, columns: int, backend: NumpyBackend, dtype: str, name: str = "X") -> Any:
    """Return examples as a matrix (N, columns) of the backend.

    Args:
        X: anything like an array: NumPy, CuPy, DLPack, the array interfaces, nested lists.
        columns: number of features the network takes.
        backend: where the matrix is to lie.
        dtype: its type.
        name: what messages call it.

    Raises:
        InvalidType: not numbers, or a sparse matrix.
        InvalidValue: another shape, no rows, NaN, infinity or masked values.
    """
    x = array(X, name)
    check_examples(x.shape, columns, name)
    return _converted(x, backend, dtype, name)


def check_examples(shape: tuple[int, ...], columns: int, name: str = "X") -> None:
    """Refuse examples of another shape than (N, columns)."""
    if len(shape) != 2 or shape[0] == 0 or shape[1] != columns:
        hint = f"; one example alone is {name}[None, :]" if len(shape) == 1 else ""
        raise InvalidValue(f"{name} must have the shape (N, {columns}) with N at least 1, got {shape}{hint}")


def targets(y: Any, rows: int, outputs: int, loss: Loss, backend: NumpyBackend, dtype: str, name: str = "y") -> Any:
    """Return targets as a matrix (rows, outputs) of the backend.

    Args:
        y: class labels 0..outputs-1 (rows,) where there are several outputs, values (rows,) where there is one, or
            one-hot rows, distributions or values (rows, outputs).
        rows: number of examples.
        outputs: number of outputs of the network.
        loss: the loss, which says what targets it accepts.
        backend: where the matrix is to lie.
        dtype: its type.
        name: what messages call it.

    Raises:
        InvalidType: not numbers.
        InvalidValue: another shape, labels out of range, or values that the loss does not accept.
    """
    t = array(y, name)
    accepted = check_targets(t.shape, rows, outputs, name)
    if t.shape == (rows,) and outputs > 1:
        return backend.asarray(_one_hot(t, outputs, accepted, name), dtype)
    t = _converted(t.reshape(rows, outputs), backend, dtype, name)
    with (running := backend.running(0.0)), running:
        return _accepted_by(loss, t, name)


def check_targets(shape: tuple[int, ...], rows: int, outputs: int, name: str = "y") -> str:
    """Refuse targets of a shape that is neither that of labels or values (rows,) nor (rows, outputs); return these."""
    accepted = f"({rows}, {outputs})" + (f", or ({rows},)" if outputs == 1 else f", or integer labels ({rows},)")
    if shape not in {(rows, outputs), (rows,)}:
        hint = f"; labels in one column are {name}[:, 0]" if shape == (rows, 1) else ""
        raise InvalidValue(f"{name} must have the shape {accepted}, got {shape}{hint}")
    return accepted


def weights(
    sample_weight: Any,
    rows: int,
    backend: NumpyBackend,
    dtype: str,
    name: str = "sample_weight",
    largest: float | None = None,
) -> Any:
    """Return sample weights as a column (rows, 1) of the backend, scaled so that the largest is 1.

    Args:
        sample_weight: the weights (rows,).
        rows: number of examples.
        backend: where the column is to lie.
        dtype: its type.
        name: what messages call them.
        largest: of all weights, where these are a part of them; None for the largest of these.

    Raises:
        InvalidType: not numbers.
        InvalidValue: another shape, a negative weight, NaN or infinity, or no positive weight.
    """
    w = array(sample_weight, name)
    check_weights(w.shape, rows, name)
    w = _converted(w.reshape(rows, 1), backend, dtype, name)
    with (running := backend.running(0.0)), running:
        low, high = float(w.min()), float(w.max())
        if low < 0 or (high if largest is None else largest) <= 0:
            raise InvalidValue(
                f"{name} must be non-negative with at least one positive weight, got weights from {low:g} to {high:g}"
            )
        # a mean does not change with the scale of its weights, and no sum overflows
        return w / (high if largest is None else largest)


def check_weights(shape: tuple[int, ...], rows: int, name: str = "sample_weight") -> None:
    """Refuse weights of another shape than (rows,)."""
    if shape != (rows,):
        raise InvalidValue(f"{name} must have the shape ({rows},), one weight an example, got {shape}")


def masks(given: Any, rows: int, hidden: tuple[int, ...], backend: NumpyBackend, dtype: str) -> list[Any]:
    """Return dropout masks, one (rows, n_l) per hidden layer, on the backend.

    Raises:
        InvalidType: not a sequence of arrays of numbers.
        InvalidValue: another number of masks or another shape, or values that are not finite.
    """
    if not isinstance(given, (list, tuple)):
        raise InvalidType(f"masks must be a list of arrays, one per hidden layer, got {type(given).__name__}")
    arrays = [array(mask, f"masks[{l}]") for l, mask in enumerate(given)]
    shapes, accepted = [tuple(mask.shape) for mask in arrays], [(rows, n) for n in hidden]
    if shapes != accepted:
        raise InvalidValue(f"masks must have the shapes {accepted}, one per hidden layer, got {shapes}")
    return [_converted(mask, backend, dtype, f"masks[{l}]") for l, mask in enumerate(arrays)]


def parameter(given: Any, shape: tuple[int, ...], backend: NumpyBackend, dtype: str, name: str) -> Any:
    """Return weights or biases of one layer on the backend, of a tensor of PyTorch on any device too.

    Raises:
        InvalidType: not numbers.
        InvalidValue: another shape, or values that are not finite.
    """
    x = array(_detached(given, name), name)
    if tuple(x.shape) != shape:
        hint = "; a weight is (n_out, n_in)" if len(shape) == 2 else ""
        raise InvalidValue(f"{name} must have the shape {shape}, got {tuple(x.shape)}{hint}")
    return _converted(x, backend, dtype, name)


def host(x: Any, name: str) -> numpy.ndarray:
    """Return an array of any library, on any device, as NumPy's.

    Raises:
        InvalidType: not numbers.
    """
    found = array(_detached(x, name), name)
    return found.get() if hasattr(found, "get") else found


def _detached(x: Any, name: str) -> Any:
    """Return a tensor that autograd tracks, or that lies where NumPy cannot read, as one on the host that it can."""
    if not (hasattr(x, "detach") and hasattr(x, "cpu")):
        return x
    try:
        return x.detach().cpu()
    except (TypeError, RuntimeError) as error:
        raise InvalidType(f"{name} must be an array of real numbers, got {type(x).__name__}: {error}") from error


def like(result: Any, given: Any, backend: NumpyBackend) -> Any:
    """Return a result as the kind of array that was given: NumPy unless it is another library's array."""
    if isinstance(given, (numpy.ndarray, list, tuple)):
        return backend.to_numpy(result)
    namespace = _namespace(given)
    if namespace is None or not hasattr(namespace, "from_dlpack"):
        return backend.to_numpy(result)
    if namespace.__name__ == "cupy":
        return namespace.asarray(result)
    on_device = hasattr(given, "__cuda_array_interface__")
    return namespace.from_dlpack(sys.modules["cupy"].asarray(result) if on_device else backend.to_numpy(result))


def _namespace(x: Any) -> Any:
    """Return the library of an array: by the array API standard, or the package its type comes from."""
    if hasattr(x, "__array_namespace__"):
        return x.__array_namespace__()
    return sys.modules.get(type(x).__module__.partition(".")[0])


def array(x: Any, name: str) -> Any:
    """Return x as an array of NumPy, or of CuPy if it lies on a device, of real numbers."""
    try:
        found = _array(x, name)
    except (GpubackpropError, MemoryError):
        raise
    except Exception as error:  # whatever an object of the user's raises
        raise InvalidType(
            f"{name} must be an array of real numbers, got {type(x).__name__}: {type(error).__name__}: {error}"
        ) from error
    if found.dtype.kind not in KINDS:
        hint = _STRINGS.format(name=name) if found.dtype.kind in "UTSO" else ""
        raise InvalidType(f"{name} must hold real numbers, got an array of type {found.dtype}{hint}")
    return found


_STRINGS = (
    "; of strings, class labels become numbers by numpy.unique({name}, return_inverse=True)[1], features by "
    "pandas.get_dummies"
)


def _array(x: Any, name: str) -> Any:
    if x is None:
        raise InvalidType(f"{name} must be an array of real numbers, got None")
    if hasattr(x, "__cuda_array_interface__"):
        return _device_array(x, name)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(x, (pandas.DataFrame, pandas.Series)):
        return numbers(x, name)
    if hasattr(x, "toarray"):
        raise InvalidType(f"{name} is a sparse {type(x).__name__}; accepted are dense arrays: pass {name}.toarray()")
    return _host_array(x, name)


def _device_array(x: Any, name: str) -> Any:
    if "cupy" not in sys.modules:
        raise InvalidType(
            f"{name} is a {type(x).__name__} in the memory of a GPU, and CuPy is not loaded to read it: pass a NumPy "
            "array"
        )
    return sys.modules["cupy"].asarray(x)


def _host_array(x: Any, name: str) -> numpy.ndarray:
    if isinstance(x, numpy.ma.MaskedArray) and numpy.ma.is_masked(x):
        raise InvalidValue(
            f"{name} is a masked array with missing values: drop those rows, or pass {name}.filled(value)"
        )
    if hasattr(x, "__dlpack__") and not hasattr(x, "__array__"):
        return numpy.from_dlpack(x)
    return numpy.asarray(x)


def _converted(x: Any, backend: NumpyBackend, dtype: str, name: str) -> Any:
    """Return x on the backend, after a check for what is not finite, before and after the change of type."""
    with (
        (running := backend.running(0.0)),
        running,
    ):  # a float64 too large for float32 becomes infinite, and is reported as such
        converted = backend.asarray(x, dtype)
    if not backend.is_finite(converted):
        with (running := backend.running(0.0)), running:
            count = int((~backend.xp.isfinite(converted)).sum())
        raise InvalidValue(
            f"{name} must be finite in {dtype}, got NaN, infinity or values beyond its range in {count} places: "
            "drop or impute those rows, or scale the values"
        )
    return converted


def _one_hot(labels: Any, classes: int, accepted: str, name: str) -> numpy.ndarray:
    """Return labels (N,) as one-hot rows (N, classes)."""
    host = labels.get() if hasattr(labels, "__cuda_array_interface__") else labels
    if host.dtype.kind not in "bui":
        raise InvalidValue(
            f"{name} must have the shape {accepted}, got {host.shape} of type {host.dtype}; whole numbers are labels "
            f"as {name}.astype(int)"
        )
    low, high = int(host.min()), int(host.max())
    if low < 0 or high >= classes:
        raise InvalidValue(f"labels in {name} must lie in 0..{classes - 1}, got labels from {low} to {high}")
    hot = numpy.zeros((len(host), classes), numpy.float32)
    hot[numpy.arange(len(host)), host.astype(numpy.intp)] = 1.0
    return hot


def _accepted_by(loss: Loss, t: Any, name: str) -> Any:
    """Return targets that the loss accepts; the rows of distributions are brought to the sum 1 exactly."""
    low, high = float(t.min()), float(t.max())
    if (loss.targets != "any" and low < 0) or (loss.targets in ("fraction", "distribution") and high > 1):
        within = "non-negative" if loss.targets == "nonnegative" else "between 0 and 1"
        raise InvalidValue(f"{name} must be {within} for the loss {loss.name!r}, got values from {low:g} to {high:g}")
    if loss.targets != "distribution":
        return t
    sums = t.sum(axis=1, keepdims=True)
    worst = float(abs(sums - 1).max())
    if worst > 1e-3:
        raise InvalidValue(
            f"each row of {name} must sum to 1 for the loss {loss.name!r}: one-hot rows, distributions, or integer "
            f"labels; got a sum that is off by {worst:g}"
        )
    return t / sums
