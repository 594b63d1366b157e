# SPDX-License-Identifier: Apache-2.0
"""Errors that say that memory ran out, told from other errors by their class or their text."""

import pytest
import torch

from musiq_hf.common.devices import is_out_of_memory


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8000000000 bytes."),
        RuntimeError("unable to mmap 4014410 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a memory object"),
        RuntimeError("could not execute a primitive"),
        RuntimeError("can't start new thread"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
    ],
    ids=str,
)
def test_memory_that_runs_out_is_recognised(error):
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("could not create a primitive descriptor for the matmul primitive."),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        ValueError("could not create a primitive"),
    ],
    ids=str,
)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)
