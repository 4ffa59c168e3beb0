"""What every rank does in the tests of NCCL: cases of `rank_cases.py` on the stand-in for CuPy, with two devices."""

from __future__ import annotations

import sys

import fake_cupy
import fake_nccl
import host_cublaslt
import numpy as np
import pytest
from mpi4py import MPI
from rank_cases import together
from test_nccl import ON_CUDA

import gpubackprop as gb
from gpubackprop.backends import devices


def main(path: str) -> None:
    comm, patch = MPI.COMM_WORLD, pytest.MonkeyPatch()
    fake_nccl.install(fake_nccl.OverMpi)
    fake_cupy.install(patch, devices=2)
    patch.setattr(devices, "_products", host_cublaslt.products)
    found = together(lambda digest: len(set(comm.allgather(digest))), ON_CUDA, "cuda")
    found["devices"] = np.array(comm.gather(gb.Network([1, 1], backend="cuda").backend.index))
    if comm.rank == 0:
        np.savez(path, **found)


if __name__ == "__main__":
    main(sys.argv[1])
