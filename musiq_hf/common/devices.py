# SPDX-License-Identifier: Apache-2.0
"""Devices of this machine, and the errors that say that their memory ran out.

PyTorch has a class for such an error on a GPU, and only texts on a CPU, one of them from oneDNN, which computes there.
"""

import os
import platform
import re
from pathlib import Path

import torch
from transformers.utils import is_torch_xla_available

OUT_OF_CPU_MEMORY = re.compile(
    r"(can't|cannot) allocate memory|not enough memory|bad_alloc|can't start new thread|"
    r"DataLoader worker .* is killed|"
    r"could not (create a memory|create a primitive|execute a primitive)\b(?! descriptor)",  # of oneDNN
    re.IGNORECASE,
)


def count_cores() -> int:
    """Count the cores that this process may use."""
    # Not every system tells which these are.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that the memory of a device, or of a process that decodes, was too small."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or bool(
        isinstance(error, RuntimeError) and OUT_OF_CPU_MEMORY.search(str(error))
    )


def without_accelerator() -> bool:
    """Return whether the machine has nothing but its CPU.

    Accelerate must be told so, or several processes on a CPU would not find each other.
    """
    return not (torch.accelerator.is_available() or is_torch_xla_available())


def find_device(name: str) -> torch.device:
    """Return the device of a name; "auto" is this process's GPU, or the CPU where there is none.

    Raises:
        ValueError: If the device cannot be used.
    """
    if name == "auto":
        accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        if accelerator is None:
            return torch.device("cpu")
        return torch.device(accelerator.type, int(os.environ.get("LOCAL_RANK", "0")))
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:  # a build without CUDA raises the latter
        reason = str(error).splitlines()[0]
        raise ValueError(f"--device {name} cannot be used here ({reason}). Use cpu, or leave it out.") from error
    return device


def name_processor() -> str:
    """Return the name of the processor, or of its kind where the system tells no more."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
