# SPDX-License-Identifier: Apache-2.0
"""Checkpoint files of other programs, NumPy's and PyTorch's, read as mere arrays: no code in them ever runs."""

import math
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..common.files import hash_file
from .key_mapping import ORIGINAL, ORIGINAL_PREFIX, PYIQA
from .protocol import Array, Checkpoint

OPTIMIZER_PREFIX = "opt/state/"
LARGEST_CHECKPOINT = 512 * 2**20  # bytes of all arrays, five times those of the published models
ENCRYPTED = 1  # bit of the flags of a member of a zip archive
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


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


@contextmanager
def _reading(path: Path, refusal: str) -> Iterator[None]:
    """Turn whatever is raised over a file that holds anything at all into a ValueError: the file, and a refusal."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        raise ValueError(f"{path} {refusal}") from error


def _list_members(path: Path) -> list[zipfile.ZipInfo]:
    """List the members of an archive; none if a file is no archive."""
    if not zipfile.is_zipfile(path):
        return []
    with _reading(path, "is a damaged archive. Download it again."), zipfile.ZipFile(path) as archive:
        return archive.infolist()


def _check_members(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    """Raise a ValueError if members of an archive cannot be read, by what the archive says of them."""
    names = Counter(member.filename for member in members)
    twice = [name for name, count in names.items() if count > 1]
    if twice:
        raise ValueError(f"{path} holds {twice[0]} twice. Save the checkpoint again.")
    if any(member.flag_bits & ENCRYPTED for member in members):
        raise ValueError(f"{path} is encrypted. Decrypt it first.")
    size = sum(member.file_size for member in members)
    if size > LARGEST_CHECKPOINT:
        raise ValueError(
            f"{path} unpacks to {size:,} bytes; a checkpoint has at most {LARGEST_CHECKPOINT:,}. It is damaged, or "
            "another model's."
        )


def _check_sums(path: Path) -> None:
    """Raise a ValueError if a member of an archive has not its checksum, which PyTorch does not compare."""
    if not zipfile.is_zipfile(path):
        return
    refusal = "is a damaged archive. Download or copy it again."
    with _reading(path, refusal), zipfile.ZipFile(path) as archive:
        if damaged := archive.testzip():
            raise ValueError(damaged)


def _is_npz(path: Path) -> bool:
    """Return True for an npz; a pth is a zip archive too, so the content decides, and the name only if it cannot."""
    members = _list_members(path)
    return any(member.filename.endswith(".npy") for member in members) if members else path.suffix == ".npz"


def load_content(path: Path, *, mmap: bool = False) -> object:
    """Load what is in a file of PyTorch.

    Args:
        path: File by `torch.save`.
        mmap: Whether values are read only when they are used, if the file allows it.

    Returns:
        Plain objects and tensors, on the CPU.

    Raises:
        ValueError: If the file is damaged or too large, or holds pickled objects.
    """
    _check_members(path, _list_members(path))
    if not mmap:
        _check_sums(path)
    refusal = (
        "cannot be read as a file of tensors: it is damaged, or holds pickled objects, which could run code and are "
        "refused. Save its state dict alone."
    )
    with _reading(path, refusal), warnings.catch_warnings():  # about formats that are refused, or read as well
        warnings.simplefilter("ignore")
        # Only archives can be mapped.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap and zipfile.is_zipfile(path))


def holds(path: Path, find: Callable[[object], object | None]) -> bool:
    """Return whether a function finds something in what a file of PyTorch holds; False for a damaged file."""
    try:
        return find(load_content(path, mmap=True)) is not None
    except ValueError:
        return False


def _unwrap(state: object) -> object:
    """Return the state dict alone if pyiqa's training has put it under `params`."""
    if isinstance(state, Mapping) and isinstance(state.get("params"), Mapping):
        return state["params"]
    return state


def read_names(path: Path) -> list[str]:
    """Read the names of the arrays of an `.npz` or `.pth`, without the arrays; none if the file cannot be read."""
    try:
        members = _list_members(path)
        if _is_npz(path):
            return [member.filename.removesuffix(".npy") for member in members]
        state = _unwrap(load_content(path, mmap=True))
    except ValueError:
        return []
    return list(map(str, state)) if isinstance(state, Mapping) else []


def describe_unfit(tensor: torch.Tensor, types: Sequence[torch.dtype]) -> str | None:
    """Describe a tensor that is not dense, or of none of some types; return None for one that fits."""
    if tensor.is_quantized:
        return "quantised"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "not dense"
    if tensor.dtype not in types:
        return str(tensor.dtype).removeprefix("torch.")
    # An expanded tensor says that it has more values than the file holds.
    is_whole = not tensor.is_meta and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()
    return None if is_whole else "without its values"


def read_state_dict(path: Path) -> dict[str, Array]:
    """Read the tensors of a `.pth`.

    Args:
        path: File with a state dict, or one under the name `params`.

    Returns:
        The arrays by name; half precision is widened to float32.

    Raises:
        ValueError: If the file is damaged or too large, or holds anything but names and dense floating-point tensors.
    """
    state = _unwrap(load_content(path))
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path} must hold a state dict, names and tensors. Save `model.state_dict()`.")
    unfit = [f"{name} ({why})" for name, tensor in state.items() if (why := describe_unfit(tensor, _FLOATS))]
    if unfit:
        raise ValueError(
            f"{path} must hold dense floating-point tensors, got {', '.join(unfit[:5])}. Save the weights as float32."
        )
    halves = (torch.float16, torch.bfloat16)
    return {
        str(name): (tensor.float() if tensor.dtype in halves else tensor).detach().numpy()
        for name, tensor in state.items()
    }


def _widen(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Array:
    """Read an array of an npz, after its header has been compared with the size of its data.

    Raises:
        ValueError: If it is no array of numbers, or of another size. A damaged archive raises other errors too.
    """
    with archive.open(member) as file:
        read_header = _HEADERS.get(np.lib.format.read_magic(file))
        if read_header is None:
            raise ValueError(f"{member.filename} has a header of an unknown version")
        shape, _, dtype = read_header(file)
        if dtype.hasobject or min(shape, default=0) < 0:
            raise ValueError(f"{member.filename} holds objects, or has no size")
        if file.tell() + math.prod(shape) * dtype.itemsize != member.file_size:
            raise ValueError(f"{member.filename} has the shape {shape}, but other data")
        file.seek(0)
        array: Array = np.lib.format.read_array(file, allow_pickle=False)
        return array


def _read_npz(path: Path) -> MusiqCheckpoint:
    refusal = (
        "cannot be read as an .npz of plain arrays: it is damaged, or holds Python objects, which are refused. "
        "Download it again."
    )
    members = _list_members(path)
    if not members:
        raise ValueError(f"{path} {refusal}")
    names = {member.filename.removesuffix(".npy"): member for member in members}
    wanted = {name: member for name, member in names.items() if name.startswith(ORIGINAL_PREFIX)}
    unknown = [name for name in names if not name.startswith((ORIGINAL_PREFIX, OPTIMIZER_PREFIX))]
    if not wanted:
        found = ", ".join(unknown[:5]) or "nothing else"
        raise ValueError(f"{path} is not a MUSIQ checkpoint: it has no array `{ORIGINAL_PREFIX}...`, but {found}.")
    _check_members(path, [member for member in members if member.filename.startswith(ORIGINAL_PREFIX)])
    with _reading(path, refusal), zipfile.ZipFile(path) as archive:
        arrays = {
            name.removeprefix(ORIGINAL_PREFIX): _widen(_read_member(archive, member))
            for name, member in wanted.items()
        }
    return MusiqCheckpoint(
        path=path,
        sha256=hash_file(path),
        kind="npz of the original",
        source=ORIGINAL,
        arrays=arrays,
        unknown=tuple(unknown),
        num_optimizer_arrays=len(names) - len(wanted) - len(unknown),
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
