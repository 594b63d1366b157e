# SPDX-License-Identifier: Apache-2.0
"""Read original `.npz` and pyiqa's `.pth` files: arrays only, never code."""

import hashlib
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .key_mapping import ORIGINAL, ORIGINAL_PREFIX, PYIQA, Array

OPTIMIZER_PREFIX = "opt/state/"
_READ_ERRORS = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
_PICKLE_ERRORS = (pickle.UnpicklingError, RuntimeError, AttributeError, ImportError, TypeError)


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint as it was found.

    Attributes:
        path: The file.
        sha256: Of the file.
        source: `ORIGINAL` or `PYIQA`: whose names and layouts the arrays have.
        arrays: By name, without the prefix `opt/target/`; half precision widened to float32.
        unknown: Names in an npz that are neither parameters nor optimizer state.
        num_optimizer_arrays: Arrays of optimizer state, skipped.
    """

    path: Path
    sha256: str
    source: int
    arrays: dict[str, Array]
    unknown: tuple[str, ...] = ()
    num_optimizer_arrays: int = 0

    @property
    def num_parameters(self) -> int:
        """Numbers in all arrays."""
        return sum(array.size for array in self.arrays.values())


def _widen(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _read_npz(path: Path, sha256: str) -> Checkpoint:
    arrays, unknown, skipped = {}, [], 0
    try:
        with np.load(path, allow_pickle=False) as file:
            for name in file.files:
                if name.startswith(ORIGINAL_PREFIX):
                    arrays[name.removeprefix(ORIGINAL_PREFIX)] = _widen(file[name])
                elif name.startswith(OPTIMIZER_PREFIX):
                    skipped += 1
                else:
                    unknown.append(name)
    except _READ_ERRORS as error:
        raise ValueError(
            f"{path} cannot be read as an .npz of plain arrays: it is damaged, or holds Python objects, which are "
            "refused."
        ) from error
    if not arrays:
        found = ", ".join(unknown[:5]) or "nothing else"
        raise ValueError(f"{path} is not a MUSIQ checkpoint: it has no array `{ORIGINAL_PREFIX}...`, but {found}.")
    return Checkpoint(
        path=path,
        sha256=sha256,
        source=ORIGINAL,
        arrays=arrays,
        unknown=tuple(unknown),
        num_optimizer_arrays=skipped,
    )


def _read_pth(path: Path, sha256: str) -> Checkpoint:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (*_READ_ERRORS, *_PICKLE_ERRORS) as error:
        raise ValueError(
            f"{path} cannot be read as a .pth of tensors: it is damaged, or holds pickled objects, which could run "
            "code and are refused. Save its state dict alone."
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("params"), Mapping):
        state = state["params"]  # as pyiqa's training saves it
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} must hold a state dict, names and tensors. Save `model.state_dict()`.")
    halves = (torch.float16, torch.bfloat16)
    arrays = {
        str(name): (tensor.float() if tensor.dtype in halves else tensor).detach().numpy()
        for name, tensor in state.items()
    }
    return Checkpoint(path=path, sha256=sha256, source=PYIQA, arrays=arrays)


def _is_npz(path: Path) -> bool:
    """Both formats are zip archives; the name decides only where the content cannot."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    return path.suffix == ".npz"


def read_checkpoint(path: Path) -> Checkpoint:
    """Read an original `.npz` or pyiqa's `.pth`, told apart by their content.

    Args:
        path: The file.

    Returns:
        Its arrays, without optimizer state.

    Raises:
        ValueError: If it cannot be read, holds pickled objects, or is not a checkpoint of either kind.
    """
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return _read_npz(path, sha256) if _is_npz(path) else _read_pth(path, sha256)
