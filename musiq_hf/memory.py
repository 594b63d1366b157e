# SPDX-License-Identifier: Apache-2.0
"""Which errors say that memory has run out: PyTorch has a class for it on a GPU, and only a text on a CPU."""

import re

import torch

OUT_OF_CPU_MEMORY = re.compile(r"can't allocate memory|DataLoader worker .* is killed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a device, or of a process that decodes pictures, was too small."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(
        isinstance(error, RuntimeError) and OUT_OF_CPU_MEMORY.search(str(error))
    )
