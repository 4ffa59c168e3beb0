"""A multilayer perceptron and its backpropagation, on whole batches.

Letters: N examples in a batch, n_l units in layer l, L layers. Rows are examples: a_0 = x is (N, n_0), W_l is
(n_{l-1}, n_l), b_l is (n_l,); one example in the column form of many texts is z = W a + b with the transposed W.

    forward    (1)  z_l = a_{l-1} W_l + b_l             backward   (3)  δ_L = ∂L/∂a_L ⊙ σ'_L(z_L)
               (2)  a_l = σ_l(z_l)                                 (4)  δ_l = (δ_{l+1} W_{l+1}ᵀ) ⊙ σ'_l(z_l)
                                                                   (5)  ∂L/∂W_l = a_{l-1}ᵀ δ_l
    update     (7)  W_l ← W_l − η ∂L/∂W_l                          (6)  ∂L/∂b_l = Σ_rows δ_l
               (8)  b_l ← b_l − η ∂L/∂b_l

1/N is in δ_L, so that equations 4 to 6 divide by nothing. With dropout, h_l = a_l ⊙ mask_l takes the place of a_l in
equations 1 and 5, and the mask enters equation 4; without it h_l is a_l.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy

from . import inputs, onnx, pickles, sources, state_dict, storage
from .activations import Activation
from .architecture import Architecture
from .backends import resolve
from .backends.numpy import dropout_key
from .checks import choice, integer
from .errors import InvalidValue
from .files import replacing
from .formula import Row
from .frames import arranged
from .in_use import Use
from .initializers import Initializer
from .losses import Loss
from .streaming import Collected, Windows
from .workspace import Layout, Workspace

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

PREDICT_ROWS = 1024  # rows at a time in `Network.predict`: enough to fill the products, little memory


class Network:
    """A multilayer perceptron.

    Names are understood in any case, and by some aliases such as "xavier", "bce" or "gpu".

    Threads may share a network. Any number of them may predict, evaluate and compute gradients at the same time. While
    one trains it by `fit`, or loads parameters, calls that need parameters that stand still raise `InUse` in the
    others. `predict` and `evaluate` run, on the parameters as they are at that moment.

    Args:
        sizes: units of every layer, (n_0, ..., n_L), inputs first; at least two.
        activation: of the hidden layers: a name of `ACTIVATIONS`, a row, or a list of these, one per hidden layer.
        output_activation: of the last layer: a name or a row. None for the one of the loss: "softmax" for
            "cross_entropy", "sigmoid" for "binary_cross_entropy", "softplus" for "poisson", otherwise "identity".
        loss: a name of `LOSSES` or a row.
        initializer: of the weights: a name of `INITIALIZERS`, a row, or "auto" for what suits each activation.
        l2: λ of the penalty λ/2 Σ W² over all weights, not biases, that is added to the loss.
        dropout: share of the units of every hidden layer that a training step drops, in [0, 1).
        backend: "auto", "numpy", "cuda", "cuda:N"; None for the default (`set_backend`).
        dtype: "float32" or "float64", or a type of NumPy such as ``numpy.float64``: of parameters and arithmetic.
        precision: of matrix products in float32: "float32"; on CUDA also "tf32", with operands of 11 bits, and
            "bfloat16", with 8, in which activations are stored then. Parameters, losses and sums stay float32.
        seed: of the initial weights: an integer, or None for a different network each time.

    Attributes:
        backend: where the network runs; ``backend.name`` is "numpy" or "cuda".
        metadata: strings that `save` writes into the file, by name.

    Raises:
        InvalidValue: an argument outside its range, an unknown name, or an output activation whose values the loss
            cannot take.
        InvalidType: an argument of another type.
        BackendUnavailable: the backend cannot run here.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: str | Activation | Sequence[str | Activation] = "relu",
        output_activation: str | Activation | None = None,
        loss: str | Loss = "mse",
        initializer: str | Initializer = "auto",
        l2: float = 0.0,
        dropout: float = 0.0,
        backend: str | None = None,
        dtype: DTypeLike = "float32",
        precision: str = "float32",
        seed: int | None = 0,
    ) -> None:
        architecture = Architecture.checked(
            sizes=sizes,
            activation=activation,
            output_activation=output_activation,
            loss=loss,
            l2=l2,
            dropout=dropout,
            dtype=dtype,
        )
        architecture.loss.check_output(architecture.activations[-1], architecture.sizes[-1])
        initial = architecture.initial_parameters(initializer, seed)
        self._build(architecture, resolve(backend), precision)
        self._set_parameters(initial)

    def _build(self, architecture: Architecture, backend: Any, precision: str) -> None:
        """Make a network of an architecture on a backend, with all parameters zero."""
        self.architecture = architecture
        self.precision = choice("precision", precision, backend.precisions)
        if architecture.dtype != "float32" and self.precision != "float32":
            raise InvalidValue(f"precision={precision!r} is of networks in float32, got dtype={architecture.dtype!r}")
        self.backend = backend.with_precision(self.precision)
        self.metadata: dict[str, str] = {}
        self.layout = Layout(architecture.shapes)
        self._theta = backend.zeros(self.layout.size, architecture.dtype)
        self._parameters = self.layout.views(self._theta)
        with (running := self.backend.running(0.0)), running:
            self._stored = self.backend.narrow(self._theta)  # what products multiply by: θ, or a copy of another type
        self._operands = [W for W, _ in self.layout.views(self._stored)]
        self._gradient: Any = None
        self._kept: list[Workspace] = []  # of `loss_and_gradients`, while no call has it
        self._lent: list[Workspace] = []  # of predictions

    @property
    def theta(self) -> Any:
        """All parameters in one flat array of the backend, to change by ``net.theta[...] = values``.

        W_l, then b_l, layer by layer, each layer aligned to 16 elements; what lies between is zero and stays so.
        """
        return self._theta

    @property
    def parameters(self) -> list[tuple[Any, Any]]:
        """[(W_1, b_1), ...], views of `theta`, to change by ``W[...] = values``."""
        return list(self._parameters)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Units of every layer, (n_0, ..., n_L)."""
        return self.architecture.sizes

    @property
    def activations(self) -> tuple[Activation, ...]:
        """The activations of the layers, (σ_1, ..., σ_L)."""
        return self.architecture.activations

    @property
    def loss(self) -> Loss:
        """The loss."""
        return self.architecture.loss

    @property
    def dtype(self) -> str:
        """Type of parameters and arithmetic."""
        return self.architecture.dtype

    @property
    def features(self) -> list[str] | None:
        """Names of the columns of the last table or DataFrame it was trained on, kept in `metadata`, or None.

        Columns of other tables and DataFrames are matched by these names, in any order, and further ones are ignored.
        """
        with contextlib.suppress(ValueError, RecursionError):
            names = json.loads(self.metadata.get("features", "null"))
            if isinstance(names, list) and len(names) == len({n for n in names if isinstance(n, str)}) == self.sizes[0]:
                return names
        return None

    def _name_features(self, names: list[str] | None) -> None:
        if names is not None:
            self.metadata["features"] = json.dumps(names, ensure_ascii=False)

    @property
    def gradient(self) -> Any:
        """∂L/∂θ of the last call of `loss_and_gradients`, laid out like `theta`; zero before the first."""
        if self._gradient is None:
            self._gradient = self.backend.zeros(self.layout.size, self.dtype)
        return self._gradient

    def _set_parameters(self, parameters: Iterable[tuple[Any, ...]]) -> None:
        """Copy [(W_1, b_1), ...], NumPy's or the backend's, taken one by one, into the network's own."""
        with (running := self.backend.running(0.0)), running:
            for own, given in zip(self._parameters, parameters, strict=True):
                for view, values in zip(own, given, strict=True):
                    view[...] = self.backend.asarray(values, self.dtype)

    @property
    def _narrow(self) -> Any:
        """θ in the type of storage, where that is another type, else None."""
        return None if self._stored is self._theta else self._stored

    def _narrowed(self) -> None:
        """Bring what products multiply by up to θ, which its owner may have changed."""
        self.backend.narrow(self._theta, self._stored)

    # -- the equations -------------------------------------------------------------------------------------------

    def _forward(self, ws: Workspace) -> None:
        """Equations 1 and 2, from ws.h[0] = x to ws.a[L]."""
        for l, (_, b) in enumerate(self._parameters, start=1):  # z_l = a_{l-1} W_l + b_l   (1),   a_l = σ_l(z_l)   (2)
            sigma, W = self.activations[l - 1], self._operands[l - 1]
            self.backend.forward(sigma, ws.h[l - 1], W, b, ws.mask[l], ws.z[l], ws.a[l], ws.h[l])

    def _backward(
        self,
        ws: Workspace,
        gradients: Sequence[tuple[Any, Any]],
        done: Callable[[int], None] | None = None,
    ) -> None:
        """Equations 3 to 6 after `_forward`: the loss with its penalty into ws.value, ∂L/∂θ into the gradients.

        `done` is called with each layer l once its gradients are asked for, L first.
        """
        backend, delta = self.backend, ws.delta
        self._output(ws, gradients[-1][1])  # δ_L = ∂L/∂a_L ⊙ σ'_L(z_L)   (3)
        for l in range(len(gradients), 0, -1):
            if l > 1:  # δ_{l-1} = (δ_l W_lᵀ) ⊙ σ'_{l-1}(z_{l-1})   (4),   ∂L/∂b_{l-1} = Σ_rows δ_{l-1}   (6)
                sigma, db, W = self.activations[l - 2], gradients[l - 2][1], self._operands[l - 1]
                backend.delta(sigma, delta[l], W, ws.mask[l - 1], ws.z[l - 1], ws.a[l - 1], delta[l - 1], db)
            dW = gradients[l - 1][0]
            backend.weight_gradient(ws.h[l - 1], delta[l], dW, beside=l > 1)  # ∂L/∂W_l = a_{l-1}ᵀ δ_l   (5)
            if ws.l2:
                backend.penalty(ws.l2, self._parameters[l - 1][0], dW, ws.value, ws.divisor)
            if done:
                done(l)
        backend.join()

    def _output(self, ws: Workspace, db: Any) -> None:
        """Equation 3, and 6 where db is given: δ_L into ws.delta[L], ∂L/∂b_L, the loss into ws.value."""
        sigma, z, a, delta = self.activations[-1], ws.z[-1], ws.a[-1], ws.delta[-1]
        self.backend.output_delta(self.loss, sigma, ws.y, z, a, ws.weight, delta, db, ws.value)

    def _loss(self, ws: Workspace) -> None:
        """The loss with its penalty into ws.value after `_forward`."""
        self._output(ws, None)
        if ws.l2:
            for W, _ in self._parameters:
                self.backend.penalty(ws.l2, W, None, ws.value, ws.divisor)
            self.backend.join()

    # -- what users call -----------------------------------------------------------------------------------------

    @overload
    def forward(self, X: numpy.ndarray | Sequence[Any]) -> numpy.ndarray: ...
    @overload
    def forward(self, X: Any) -> Any: ...
    def forward(self, X: Any) -> Any:
        """Return the outputs a_L of the whole batch at once, without dropout.

        Args:
            X: examples (N, n_0).

        Returns:
            a_L (N, n_L), the kind of array that X is.

        Raises:
            InvalidValue: X has another shape or holds NaN or infinity.
            InvalidType: X does not hold numbers.
        """
        x = inputs.examples(arranged(X, self.features), self.sizes[0], self.backend, self.dtype)
        return inputs.like(self._outputs(x, len(x)), X, self.backend)

    @overload
    def predict(
        self,
        X: numpy.ndarray | Sequence[Any] | str | os.PathLike[str],
        *,
        batch_size: int = ...,
        out: numpy.ndarray | None = ...,
    ) -> numpy.ndarray: ...
    @overload
    def predict(self, X: Any, *, batch_size: int = ..., out: Any = ...) -> Any: ...
    def predict(self, X: Any, *, batch_size: int = PREDICT_ROWS, out: Any = None) -> Any:
        """Return the outputs a_L, computed a part of the rows at a time: memory does not grow with N.

        Nor do examples that are not in memory have to fit there: they are read a window of rows at a time, as in `fit`.

        Args:
            X: examples (N, n_0), an array, perhaps mapped from a file; or the path of a .npy file; or what `fit` takes
                of Arrow; or batches, an iterable of such arrays or a function that returns one.
            batch_size: rows at a time.
            out: an array (N, n_L) of NumPy, perhaps mapped from a file, to write the outputs into; or None.

        Returns:
            a_L (N, n_L): `out` where it is given, else the kind of array that X is, NumPy's if it is no array.

        Raises:
            InvalidValue: X has another shape or holds NaN or infinity, or `out` another shape; batch_size is not
                positive.
            InvalidType: X does not hold numbers; batch_size is not an integer; `out` is no array of floats.
            MissingDependency: pyarrow is not installed.
        """
        rows = integer("batch_size", batch_size, 1)
        if out is not None or sources.is_elsewhere(X):
            return self._outputs_of(sources.without_targets(X, self.features), rows, out)
        x = inputs.examples(arranged(X, self.features), self.sizes[0], self.backend, self.dtype)
        return inputs.like(self._outputs(x, min(rows, len(x))), X, self.backend)

    def _outputs_of(self, source: sources.Source, rows: int, out: Any) -> numpy.ndarray:
        """Return a_L of what is read a window at a time, in an array that was given or a new one."""
        windows = Windows(source, (self.sizes[0], self.sizes[-1]), None, self.backend, self.dtype, rows)
        collected = Collected(out, source.rows, self.sizes[-1], self.dtype)
        with contextlib.closing(windows.epoch(None)) as read:
            for window in read:
                part = self._outputs(window.arrays[0][: window.rows], rows)
                collected.add(self.backend.to_numpy(part))
        return collected.all()

    def _outputs(self, x: Any, rows: int) -> Any:
        """Return a_L of examples on the backend, so many rows at a time."""
        with (running := self.backend.running(self.flops(rows))), running, self._predicting_on(rows) as ws:
            self._narrowed()
            result = self.backend.zeros((len(x), self.sizes[-1]), self.dtype)
            for start in range(0, len(x), rows):
                part = ws.load(self.backend.narrow(x[start : start + rows]))
                self._forward(part)
                self.backend.widen(part.a[-1], result[start : start + rows])
        return result

    @contextlib.contextmanager
    def _predicting_on(self, rows: int) -> Iterator[Workspace]:
        """Lend buffers for so many rows: those of the last prediction if they suffice and no other thread has them."""
        ws = _popped(self._lent)
        if ws is None or ws.rows < rows or rows <= PREDICT_ROWS < ws.rows:
            ws = Workspace(self.architecture, self.backend, rows, training=False)
        yield ws
        ws.unload()
        self._lent[:] = [ws]

    def evaluate(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return the loss of examples, with the penalty, without dropout; see `loss_and_gradients`.

        Args:
            X: examples (N, n_0).
            y: labels (N,), or targets (N, n_L).
            sample_weight: weights (N,), or None.

        Returns:
            The mean loss.

        Raises:
            InvalidValue: a shape or a value that is not accepted.
            InvalidType: something that does not hold numbers.
        """
        x, t, w = self._batch(X, y, sample_weight)
        return self._evaluate(self._evaluation_workspace(len(x)), x, t, w)

    def _evaluation_workspace(self, rows: int) -> Workspace:
        """Return buffers for the loss of so many examples, a part of them at a time."""
        return Workspace(self.architecture, self.backend, min(rows, PREDICT_ROWS), training=False)

    def _evaluate(self, ws: Workspace, x: Any, t: Any, w: Any) -> float:
        """Return the mean loss of checked examples, as many rows at a time as the workspace holds."""
        total, weights = self._total_loss(ws, x, t, w)
        return total / weights

    def _total_loss(self, ws: Workspace, x: Any, t: Any, w: Any) -> tuple[float, float]:
        """Return the mean loss of checked examples times what they weigh, and what they weigh; 0 and 0 of none."""
        total = weights = 0.0
        with (running := self.backend.running(self.flops(ws.rows))), running:
            self._narrowed()
            for start in range(0, len(x), ws.rows):
                rows = slice(start, start + ws.rows)
                part = ws.load(self.backend.narrow(x[rows]), t[rows], None if w is None else w[rows])
                self._forward(part)
                self._loss(part)
                weight = len(x[rows]) if w is None else float(part.total)
                total += float(part.value) * weight
                weights += weight
        return total, weights

    def loss_and_gradients(
        self, X: Any, y: Any, sample_weight: Any = None, masks: Sequence[Any] | None = None
    ) -> tuple[float, list[tuple[Any, Any]]]:
        """Return the loss of a batch and its derivatives by every weight and bias.

        Args:
            X: examples (N, n_0).
            y: labels (N,), or targets (N, n_L); see `fit`.
            sample_weight: weights (N,) of the examples in the mean, or None.
            masks: dropout masks as `draw_masks` returns them; None for no dropout.

        Returns:
            The loss with its penalty, and [(∂L/∂W_1, ∂L/∂b_1), ...] as arrays of the backend that are the caller's.

        Raises:
            InvalidValue: a shape or a value that is not accepted.
            InvalidType: something that does not hold numbers.
            InUse: another thread trains the network, or loads parameters.
        """
        x, t, w = self._batch(X, y, sample_weight)
        given = None if masks is None else inputs.masks(masks, len(x), self.sizes[1:-1], self.backend, self.dtype)
        use, running = Use(self, "loss_and_gradients"), self.backend.running(self.flops(len(x)))
        with use, use, running, running, self._differentiating_on(len(x), dropout=masks is not None) as kept:
            ws = kept.load(self.backend.narrow(x), t, w)
            if given is not None:
                ws.mask[1:-1] = map(self.backend.narrow, given)
            self._narrowed()
            self._forward(ws)
            gradient = self.backend.zeros(self.layout.size, self.dtype)
            self._backward(ws, self.layout.views(gradient))
            self._gradient = gradient
            return float(ws.value), self.layout.views(gradient.copy())

    def draw_masks(self, rows: int, seed: int | None = None) -> list[numpy.ndarray]:
        """Return one dropout mask per hidden layer: 0 with the probability `dropout`, else 1 / (1 − dropout).

        They are those of the first step of `fit` with the same seed and rows in its batches.

        Args:
            rows: number of examples N.
            seed: an integer, or None for other masks each time.

        Returns:
            [mask_1, ..., mask_{L-1}], each (N, n_l), as `loss_and_gradients` takes them.

        Raises:
            InvalidValue: rows is not positive, or the seed is negative.
            InvalidType: an argument is not an integer.
        """
        key = dropout_key(seed if seed is None else integer("seed", seed, 0))
        masks = [numpy.zeros((integer("rows", rows, 1), n), self.dtype) for n in self.sizes[1:-1]]
        for l, mask in enumerate(masks, start=1):
            resolve("numpy").draw_mask(key, 0, 0, l, self.architecture.dropout, mask)
        return masks

    def to(self, backend: str) -> Network:
        """Return a network with the same parameters on another backend.

        Args:
            backend: "auto", "numpy", "cuda" or "cuda:N".

        Returns:
            A new network; this one is as it was. Its precision is float32 where the backend has no other.

        Raises:
            InvalidValue: no such backend.
            BackendUnavailable: the backend cannot run here.
        """
        return self._copy(resolve(backend), self.dtype)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network, with its metadata, to a safetensors file; `load` reads it.

        The file is written beside its place and then moved there whole: whatever happens, a file of that name is the
        old one or the new one.

        Args:
            path: of the file.

        Raises:
            OSError: the file cannot be written.
            InvalidType: metadata that is not strings by name.
            InvalidValue: parameters that are not finite, or two rows with one name, which no reader could tell apart.
        """
        storage.write(path, self.architecture, self.metadata, self._finite_parameters())

    def to_onnx(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Return the network as an ONNX model, and write it to a file where a path is given.

        It computes what `predict` does, within rounding: from the input "X" (N, n_0) the output "output" (N, n_L), for
        any N, both of the network's type. It has opset 16 and IR version 8, names its values z_l and a_l, and has
        `metadata` as properties, with the loss and the activations as JSON. The file is written as that of `save`.

        Args:
            path: of the file, or None for the model alone.

        Returns:
            The model, an ``onnx.ModelProto``.

        Raises:
            MissingDependency: the package onnx is not installed.
            OSError: the file cannot be written.
            InvalidType: metadata that is not strings by name, or a path that is none.
            InvalidValue: parameters that are not finite, or take 2 GiB or more, which no such file holds; metadata with
                a name of the model's own properties; a path that names no file.
        """
        model = onnx.model(self.architecture, storage.strings(self.metadata), self._finite_parameters())
        if path is not None:
            with replacing(path) as file:
                file.write(model.SerializeToString())
        return model

    def to_state_dict(self) -> dict[str, numpy.ndarray]:
        """Return weights and biases under the keys and in the shapes of a `torch.nn.Sequential`.

        It is one of Linear, activation, Linear, ...: "0.weight" is the transposed W_1, "0.bias" is b_1, "2.weight" the
        transposed W_2, and so on. ``{key: torch.from_numpy(x) for key, x in net.to_state_dict().items()}`` is what
        PyTorch's `load_state_dict` takes.

        Returns:
            Copies by key, as NumPy arrays (n_l, n_{l-1}) and (n_l,) of the network's type.
        """
        return state_dict.written(self._host_parameters())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take weights and biases of a `torch.nn.Sequential` of Linear, activation, Linear, ...; see `to_state_dict`.

        Args:
            state: tensors of PyTorch on any device, or arrays, by key; they are rounded to the network's type.

        Raises:
            InvalidType: no mapping, or a value that does not hold real numbers; the network is as it was.
            InvalidValue: a key is missing or not of this network, or a value has another shape or is not finite; the
                network is as it was.
            InUse: another thread trains the network, or computes its gradients; the network is as it was.
        """
        parameters = state_dict.read(state, self.layout.shapes, self.backend, self.dtype)
        use, running = Use(self, "load_state_dict", writes=True), self.backend.running(0.0)
        with use, use, running, running:  # copy first: the arguments may be views of θ
            self._set_parameters([tuple(x.copy() for x in pair) for pair in parameters])

    @property
    def n_parameters(self) -> int:
        """Number of weights and biases, Σ (n_{l-1} + 1) n_l."""
        return sum((m + 1) * n for m, n in self.layout.shapes)

    def flops(self, rows: int) -> float:
        """Return the floating-point operations of the matrix products of one training step.

        Args:
            rows: examples N in the batch.

        Returns:
            2 N (3 Σ n_{l-1} n_l − n_0 n_1): forward, ∂L/∂W and δ, which the inputs do not need.
        """
        products = [m * n for m, n in self.layout.shapes]
        return 2.0 * rows * (3 * sum(products) - products[0])

    def __copy__(self) -> Network:
        return self._copy(self.backend, self.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        return self._copy(self.backend, self.dtype)

    def __reduce__(self) -> tuple[Any, ...]:
        return pickles.reduced(self)

    def __repr__(self) -> str:
        names = " ".join(row.name for row in self.activations)
        return (
            f"Network({'-'.join(map(str, self.sizes))}, {names}, loss {self.loss.name}, {self.n_parameters:,} "
            f"parameters, {self.dtype}, on {self.backend.name}: {self.backend.description})"
        )

    # -- inside --------------------------------------------------------------------------------------------------

    def _copy(self, backend: Any, dtype: str) -> Network:
        """Return the network with its parameters on a backend and of a type."""
        twin = Network.__new__(Network)
        precision = self.precision if self.precision in backend.precisions and dtype == self.dtype else "float32"
        twin._build(dataclasses.replace(self.architecture, dtype=dtype), backend, precision)
        twin._set_parameters(self._host_parameters())
        twin.metadata = dict(self.metadata)
        return twin

    def _finite_parameters(self) -> list[tuple[numpy.ndarray, numpy.ndarray]]:
        """Return [(W_1, b_1), ...] for a file as NumPy arrays."""
        if not self.backend.is_finite(self.theta):
            raise InvalidValue("the parameters hold NaN or infinity, which no file may: nothing was written")
        return self._host_parameters()

    def _host_parameters(self) -> list[tuple[numpy.ndarray, numpy.ndarray]]:
        """Return [(W_1, b_1), ...] as NumPy arrays."""
        return [(self.backend.to_numpy(W), self.backend.to_numpy(b)) for W, b in self._parameters]

    @contextlib.contextmanager
    def _differentiating_on(self, rows: int, *, dropout: bool) -> Iterator[Workspace]:
        """Lend buffers for both passes: those of the last call if they suffice and no other call has them."""
        ws = _popped(self._kept)
        if ws is None or ws.rows < rows or ws.dropout != dropout:
            ws = Workspace(self.architecture, self.backend, rows, dropout=dropout)
        yield ws.first(rows)
        ws.unload()
        self._kept[:] = [ws]

    def _batch(self, X: Any, y: Any, sample_weight: Any, prefix: str = "") -> tuple[Any, Any, Any]:
        """Return examples, targets and weights, checked, on the backend; messages call them prefix + "X" and "y"."""
        x = inputs.examples(arranged(X, self.features), self.sizes[0], self.backend, self.dtype, f"{prefix}X")
        t = inputs.targets(y, len(x), self.sizes[-1], self.loss, self.backend, self.dtype, f"{prefix}y")
        if sample_weight is None:
            return x, t, None
        return x, t, inputs.weights(sample_weight, len(x), self.backend, self.dtype, f"{prefix}sample_weight")


def _popped(pool: list[Workspace]) -> Workspace | None:
    """Take a workspace out of a pool that threads share, or return None."""
    try:
        return pool.pop()
    except IndexError:
        return None


def load(path: str | os.PathLike[str], *, backend: str | None = None, rows: Sequence[Row] = ()) -> Network:
    """Read a network from a file that `Network.save` wrote.

    Args:
        path: of the file.
        backend: where to put it: "auto", "numpy", "cuda", "cuda:N", or None for the default.
        rows: your own activations and losses that the network has; the file names them.

    Returns:
        The network.

    Raises:
        ModelFileError: the file is not a whole model of this package, or names a row it does not know.
        OSError: the file cannot be opened.
        BackendUnavailable: the backend cannot run here.
    """
    place = resolve(backend)  # what is wrong with it is not the file's fault
    network = Network.__new__(Network)
    with storage.reading(path, rows) as stored, (running := place.running(0.0)), running:
        network._build(stored.architecture, place, "float32")
        network.metadata = stored.metadata
        for l, pair in enumerate(network._parameters, start=1):
            for letter, view in zip("Wb", pair, strict=True):
                for part, values in stored.blocks(f"{letter}_{l}"):
                    view[part] = place.asarray(values, network.dtype)
    return network
