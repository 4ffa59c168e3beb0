"""PyTorch taking the same training steps in three ways. It is imported where it is asked for.

Weights of its layers are the transposes of ours; the formulas of its optimizers are ours at a constant rate.
"""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from typing import Any

from workloads import CURVE, DISTINCT, PASSES, Data, Workload, epoch_data

from gpubackprop.backends.threads import cores

WARM_UP = 3  # steps before a capture, as PyTorch asks for


class TorchEager:
    """PyTorch, one operation after another, with the optimizer it takes by itself.

    Args:
        device: "cuda" or "cpu".
    """

    name = "PyTorch, eager"

    def __init__(self, device: str) -> None:
        self._device = device

    def unavailable(self, workload: Workload) -> str | None:
        """Return why PyTorch cannot take part, or None."""
        if importlib.util.find_spec("torch") is None:
            return "PyTorch is not installed"
        if self._device == "cuda" and not importlib.import_module("torch").cuda.is_available():
            return "the PyTorch that is installed sees no CUDA device"
        return None

    def prepare(self, workload: Workload, data: Data) -> None:
        """Make model, optimizer and batches."""
        self._torch = torch = importlib.import_module("torch")
        if self._device == "cpu":
            torch.set_num_threads(cores())
        torch.set_float32_matmul_precision("high" if workload.precision == "tf32" else "highest")
        self._narrow, self._taken = workload.precision == "bfloat16", 0
        self._model = _torch_model(torch, data).to(self._device)
        self._optimizer = self._optimizer_of(workload)
        # A copy: a tensor of the CPU would share NumPy's memory.
        x, y = (torch.tensor(a, device=self._device) for a in (data.x, data.y))
        self._batches = list(zip(x.split(workload.rows), y.split(workload.rows), strict=True))

    def _optimizer_of(self, workload: Workload, **options: Any) -> Any:
        return getattr(self._torch.optim, workload.optimizer)(self._model.parameters(), lr=workload.rate, **options)

    def _loss(self, x: Any, y: Any) -> Any:
        torch = self._torch
        with torch.autocast(self._device, torch.bfloat16, enabled=self._narrow, cache_enabled=False):
            z = self._model(x)
        return torch.nn.functional.cross_entropy(z.float(), y)

    def _step(self, x: Any, y: Any) -> Any:
        self._optimizer.zero_grad(set_to_none=True)
        loss = self._loss(x, y)
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def _next(self) -> Any:
        self._taken += 1
        return self._step(*self._batches[(self._taken - 1) % DISTINCT])

    def loss_curve(self) -> list[float]:
        """Return the losses of the first steps."""
        return [float(self._next()) for _ in range(CURVE)]

    def steps(self, k: int) -> None:
        """Take k steps."""
        for _ in range(k):
            self._next()

    def wait(self) -> None:
        """Wait until all steps are done."""
        if self._device == "cuda":
            self._torch.cuda.synchronize()


class TorchCompiled(TorchEager):
    """PyTorch with forward pass, loss and backward pass compiled, on CUDA from graphs, and the fused optimizer."""

    name = "PyTorch, torch.compile reduce-overhead"

    def unavailable(self, workload: Workload) -> str | None:
        """Return why PyTorch cannot take part or compile, or None."""
        if self._device == "cpu" and not any(map(shutil.which, ("g++", "clang++", "cl"))):
            return "no C++ compiler, which torch.compile needs on a CPU"
        return super().unavailable(workload)

    def prepare(self, workload: Workload, data: Data) -> None:
        """Wrap the loss, which is compiled when it is called first."""
        super().prepare(workload, data)
        self._compiled = self._torch.compile(super()._loss, mode="reduce-overhead", dynamic=False)

    def _optimizer_of(self, workload: Workload, **options: Any) -> Any:
        return super()._optimizer_of(workload, fused=True)

    def _loss(self, x: Any, y: Any) -> Any:
        self._torch.compiler.cudagraph_mark_step_begin()
        return self._compiled(x, y)


class TorchGraph(TorchEager):
    """PyTorch with the whole step, the fused optimizer in it, captured in a CUDA graph that reads one batch."""

    name = "PyTorch, captured graph, fused optimizer"

    def unavailable(self, workload: Workload) -> str | None:
        """Return why there is no graph, or None."""
        return "CUDA graphs are of a CUDA device" if self._device != "cuda" else super().unavailable(workload)

    def prepare(self, workload: Workload, data: Data) -> None:
        """Capture a step after some that are not, then put back the weights and the state of the optimizer."""
        super().prepare(workload, data)
        torch = self._torch
        self._x, self._y = (a.clone() for a in self._batches[0])
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                super()._step(self._x, self._y)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self._graph):
            self._value = super()._step(self._x, self._y)
        self._begin_again(data)

    def _optimizer_of(self, workload: Workload, **options: Any) -> Any:
        capturable = {"capturable": True} if workload.optimizer == "Adam" else {}
        return super()._optimizer_of(workload, fused=True, **capturable)

    def _begin_again(self, data: Data) -> None:
        with self._torch.no_grad():
            self._model.load_state_dict(_torch_model(self._torch, data).state_dict())
            for state in self._optimizer.state.values():
                for tensor in state.values():
                    if tensor is not None:
                        tensor.zero_()

    def _step(self, x: Any, y: Any) -> Any:
        self._x.copy_(x)
        self._y.copy_(y)
        self._graph.replay()
        return self._value


class TorchEpochs(TorchEager):
    """PyTorch, one operation after another, over shuffled data."""

    def prepare(self, workload: Workload, data: Data) -> None:
        """Make model, optimizer and data."""
        super().prepare(workload, data)
        self._rows = workload.rows
        self._x, self._y = (self._torch.tensor(a, device=self._device) for a in epoch_data(data))

    def _epoch(self, order: Any) -> Any:
        losses = [self._step(self._x[batch], self._y[batch]) for batch in order.split(self._rows)]
        return self._torch.stack(losses).mean()

    def loss_curve(self) -> list[float]:
        """Return the mean losses of the first epochs, in order."""
        order = self._torch.arange(len(self._x), device=self._device)
        return [float(self._epoch(order)) for _ in range(PASSES)]

    def steps(self, k: int) -> None:
        """Go k times over the data; each epoch waits for its loss."""
        for _ in range(k):
            float(self._epoch(self._torch.randperm(len(self._x), device=self._device)))


class TorchInference(TorchEager):
    """PyTorch, one operation after another: the outputs of a batch, without gradients."""

    def _outputs(self) -> Any:
        with self._torch.inference_mode():
            return self._torch.softmax(self._model(self._batches[0][0]), dim=1)

    def loss_curve(self) -> list[float]:
        """Return the loss of the batch."""
        return [float(self._torch.nn.functional.nll_loss(self._outputs().log(), self._batches[0][1]))]

    def steps(self, k: int) -> None:
        """Compute the outputs k times."""
        for _ in range(k):
            self._outputs()


class TorchBackward(TorchEager):
    """PyTorch: the gradients of a batch, from what one forward pass has kept."""

    def prepare(self, workload: Workload, data: Data) -> None:
        """Take a forward pass."""
        super().prepare(workload, data)
        self._value, self._parameters = self._loss(*self._batches[0]), list(self._model.parameters())

    def _gradients(self) -> Any:
        return self._torch.autograd.grad(self._value, self._parameters, retain_graph=True)

    def loss_curve(self) -> list[float]:
        """Return the loss of the batch, and the norm of all gradients: what is timed is those."""
        norm = self._torch.cat([g.flatten() for g in self._gradients()]).norm()
        return [float(self._value.detach()), float(norm)]

    def steps(self, k: int) -> None:
        """Compute the gradients k times."""
        for _ in range(k):
            self._gradients()


def _torch_model(torch: Any, data: Data) -> Any:
    """Return the network on the CPU with the weights to begin with."""
    layers: list[Any] = []
    for W, b in data.weights:
        layer = torch.nn.utils.skip_init(torch.nn.Linear, *W.shape)
        layer.load_state_dict({"weight": torch.tensor(W.T.copy()), "bias": torch.tensor(b)})
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])
