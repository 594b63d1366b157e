# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files of other programs, `.npz` and `.pth`, read as mere arrays: no code in them ever runs."""

import hashlib
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from .key_mapping import ORIGINAL, ORIGINAL_PREFIX, PYIQA
from .protocol import Array, Checkpoint

OPTIMIZER_PREFIX = "opt/state/"
_READ_ERRORS = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
_PICKLE_ERRORS = (pickle.UnpicklingError, RuntimeError, AttributeError, ImportError, TypeError)


@dataclass(frozen=True, kw_only=True)
class MusiqCheckpoint(Checkpoint):
    """Checkpoint of MUSIQ, by the original's program or by pyiqa.

    Attributes:
        source: `ORIGINAL` or `PYIQA`, the program whose names and layouts the arrays have. Names lack the prefix
            `opt/target/`.
        unknown: Names in an npz that are neither parameters nor optimizer state.
    """

    source: int
    unknown: tuple[str, ...] = ()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_npz(path: Path) -> bool:
    """Return True for an npz; a pth is a zip archive too, so the content decides, and the name only if it cannot."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".npy") for name in archive.namelist())
    return path.suffix == ".npz"


def _load_state_dict(path: Path, *, mmap: bool = False) -> object:
    """Load the content of a .pth; if pyiqa's training has put the state dict under `params`, return that alone."""
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    if isinstance(state, Mapping) and isinstance(state.get("params"), Mapping):
        return state["params"]
    return state


def read_names(path: Path) -> list[str]:
    """Read the names of the arrays of an `.npz` or `.pth`, without the arrays; none if the file cannot be read."""
    try:
        if _is_npz(path):
            with zipfile.ZipFile(path) as archive:
                return [name.removesuffix(".npy") for name in archive.namelist()]
        state = _load_state_dict(path, mmap=zipfile.is_zipfile(path))  # only archives can be mapped
    except (*_READ_ERRORS, *_PICKLE_ERRORS):
        return []
    return list(map(str, state)) if isinstance(state, Mapping) else []


def read_state_dict(path: Path) -> dict[str, Array]:
    """Read the tensors of a `.pth`.

    Args:
        path: File with a state dict, or one under the name `params`.

    Returns:
        The arrays by name; half precision is widened to float32.

    Raises:
        ValueError: If the file is damaged, or holds anything but names and tensors.
    """
    try:
        state = _load_state_dict(path)
    except (*_READ_ERRORS, *_PICKLE_ERRORS) as error:
        raise ValueError(
            f"{path} cannot be read as a .pth of tensors: it is damaged, or holds pickled objects, which could run "
            "code and are refused. Save its state dict alone."
        ) from error
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} must hold a state dict, names and tensors. Save `model.state_dict()`.")
    halves = (torch.float16, torch.bfloat16)
    return {
        str(name): (tensor.float() if tensor.dtype in halves else tensor).detach().numpy()
        for name, tensor in state.items()
    }


def _widen(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _read_npz(path: Path) -> MusiqCheckpoint:
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
    return MusiqCheckpoint(
        path=path,
        sha256=hash_file(path),
        kind="npz of the original",
        source=ORIGINAL,
        arrays=arrays,
        unknown=tuple(unknown),
        num_optimizer_arrays=skipped,
    )


def read_checkpoint(path: Path) -> MusiqCheckpoint:
    """Read an original `.npz` or pyiqa's `.pth`; the content of the file says which it is.

    Args:
        path: File to read.

    Returns:
        The checkpoint, without optimizer state.

    Raises:
        ValueError: If the file cannot be read, holds pickled objects, or is no checkpoint of either kind.
    """
    if _is_npz(path):
        return _read_npz(path)
    arrays = read_state_dict(path)
    return MusiqCheckpoint(path=path, sha256=hash_file(path), kind="pth of pyiqa", source=PYIQA, arrays=arrays)
