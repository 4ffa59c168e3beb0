"""An epoch of `fit` over shuffled data: on the backend already, beside peers; sent there by every call; from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jax_peers import JaxEpochs
from measuring import Plan, measured
from own_passes import Epochs, InMemory, Streamed
from sklearn_peers import SklearnEpochs
from torch_peers import TorchEpochs
from workloads import EPOCH_BATCHES, EPOCHS, STREAMED_BATCHES, Contender, suite_workload

CALLED_FOR = 2  # epochs of a call of `fit` at least, where the data are not sent


@pytest.mark.parametrize("regime", EPOCHS)
def test_epoch(benchmark: Any, plan: Plan, backend: str, regime: str) -> None:
    workload = suite_workload(regime, "Adam", backend, epochs=True, smoke=plan.smoke)
    device = workload.device
    contenders: list[Contender] = [Epochs(backend), TorchEpochs(device), JaxEpochs(device), SklearnEpochs()]
    flops = EPOCH_BATCHES * workload.flops
    measured(benchmark, plan, "epoch", workload, backend, contenders, flops=flops, epoch=CALLED_FOR)


@pytest.mark.parametrize("regime", EPOCHS)
def test_epoch_with_transfer(benchmark: Any, plan: Plan, backend: str, regime: str) -> None:
    workload = suite_workload(regime, "Adam", backend, epochs=True, smoke=plan.smoke)
    contenders: list[Contender] = [Epochs(backend, transfer=True)]
    flops = EPOCH_BATCHES * workload.flops
    measured(benchmark, plan, "epoch with transfer", workload, backend, contenders, flops=flops, epoch=1)


@pytest.mark.parametrize("regime", EPOCHS)
def test_epoch_streamed(benchmark: Any, plan: Plan, backend: str, regime: str, tmp_path: Path) -> None:
    workload = suite_workload(regime, "Adam", backend, epochs=True, smoke=plan.smoke)
    contenders: list[Contender] = [Streamed(backend, tmp_path), InMemory(backend)]
    flops = STREAMED_BATCHES * workload.flops
    measured(benchmark, plan, "epoch streamed", workload, backend, contenders, flops=flops, epoch=CALLED_FOR)
