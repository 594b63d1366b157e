# SPDX-License-Identifier: Apache-2.0
"""Files that the converter refuses: damaged, of another kind, or larger than any checkpoint; each by a sentence."""

import io
import struct
import zipfile

import golden
import numpy as np
import pytest
import torch

from musiq_hf.conversion.checkpoints import read_checkpoint
from musiq_hf.conversion.command import main

FIRST = "opt/target/Transformer/cls"
DAMAGED = "cannot be read as an .npz of plain arrays: it is damaged, or holds Python objects"


def header(shape, descr="<f4"):
    """The header of an array, which may promise any shape."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    text = text.ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def refuse(path, capsys):
    """Return the sentence of the command about a file."""
    code = main([str(path), str(path.with_name("out"))])
    printed, errors = capsys.readouterr()
    assert (code, printed) == (2, ""), errors
    assert len(errors.strip().splitlines()) == 1 and errors.startswith("convert: "), errors
    assert not path.with_name("out").exists()
    return errors


def save_npz(path, members):
    """Save a golden checkpoint with other or further members, given as bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in golden.checkpoint_arrays("tiny10").items():
            file = io.BytesIO()
            np.save(file, array)
            archive.writestr(f"{name}.npy", members.pop(f"{name}.npy", file.getvalue()))
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def saved(value):
    file = io.BytesIO()
    np.save(file, value, allow_pickle=True)
    return file.getvalue()


MEMBERS = {
    "no magic": b"hello world",
    "empty": b"",
    "objects": saved(np.array([{}], dtype=object)),
    "too large": header((10**12,)) + bytes(12),
    "overflow": header((10**30,)) + bytes(12),
    "negative": header((-3, -1)) + bytes(12),
    "longer": header((1,)) + bytes(12),
    "nested header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2000) + b"(" * 2000,
    "long header": b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + bytes(9),
    "unknown version": b"\x93NUMPY\x09\x00" + bytes(99),
}


@pytest.mark.parametrize("content", MEMBERS.values(), ids=MEMBERS)
def test_a_member_that_is_no_array_of_its_size_is_damage(tmp_path, capsys, content):
    assert DAMAGED in refuse(save_npz(tmp_path / "a.npz", {f"{FIRST}.npy": content}), capsys)


@pytest.mark.parametrize("descr", ["V8", "complex128", "int64", "bool", "M8[s]", "<U3", ">f4", [("a", "<f4")]])
def test_a_type_that_is_no_weight_is_named(tmp_path, capsys, descr):
    shape = golden.checkpoint_arrays("tiny10")[FIRST].shape
    content = saved(np.zeros(shape, dtype=descr))
    assert "wrong type: Transformer/cls " in refuse(save_npz(tmp_path / "a.npz", {f"{FIRST}.npy": content}), capsys)


def flip(path, signature, offset, content):
    """Overwrite a field of every record of an archive."""
    data, place = bytearray(path.read_bytes()), 0
    while (place := data.find(signature, place)) >= 0:
        data[place + offset : place + offset + len(content)] = content
        place += 4
    path.write_bytes(data)


CENTRAL = b"PK\x01\x02"
RECORDS = {
    "encrypted": (8, b"\x01\x00", "is encrypted. Decrypt it first"),
    "method": (10, b"\x63\x00", DAMAGED),
    "size": (24, b"\x00\x00\x00\x7f", "unpacks to "),
    "offset": (42, b"\x00\x00\x00\x7f", DAMAGED),
    "other size": (24, b"\x00\x00\x00\x00", DAMAGED),
}


@pytest.mark.parametrize("name", RECORDS)
def test_what_an_archive_says_of_its_members_is_checked(tmp_path, capsys, name):
    offset, content, sentence = RECORDS[name]
    path = save_npz(tmp_path / "a.npz", {})
    flip(path, CENTRAL, offset, content)
    assert sentence in refuse(path, capsys)


def test_arrays_larger_than_a_checkpoint_are_not_unpacked(tmp_path, capsys, monkeypatch):
    path = save_npz(tmp_path / "a.npz", {})
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    monkeypatch.setattr("musiq_hf.conversion.checkpoints.LARGEST_CHECKPOINT", size - 1)
    monkeypatch.setattr(zipfile.ZipFile, "open", None)  # nothing is unpacked
    assert f"unpacks to {size:,} bytes; a checkpoint has at most {size - 1:,}" in refuse(path, capsys)
    monkeypatch.undo()
    monkeypatch.setattr("musiq_hf.conversion.checkpoints.LARGEST_CHECKPOINT", size)
    save_npz(path, {"opt/state/x.npy": header((2**20,)) + bytes(2**22)})  # of the optimizer, which is not read
    assert read_checkpoint(path).num_optimizer_arrays == 1


def test_a_member_given_twice_and_a_cut_archive_are_refused(tmp_path, capsys):
    path = save_npz(tmp_path / "a.npz", {})
    whole = path.read_bytes()
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{FIRST}.npy", saved(np.zeros(3)))
    assert f"holds {FIRST}.npy twice" in refuse(path, capsys)
    for size in (0, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:size])
        assert DAMAGED in refuse(path, capsys)


ONE = torch.ones(4)
TENSORS = {
    "sparse": (ONE.to_sparse(), "not dense"),
    "rows": (torch.eye(4).to_sparse_csr(), "not dense"),
    "quantised": (torch.quantize_per_tensor(ONE, 1.0, 0, torch.qint8), "quantised"),
    "integers": (ONE.long(), "int64"),
    "complex": (ONE.to(torch.complex64).conj(), "complex64"),
    "eighth": (ONE.to(torch.float8_e4m3fn), "float8_e4m3fn"),
    "meta": (ONE.to("meta"), "without its values"),
    "expanded": (torch.zeros(1).expand(10**12), "without its values"),
    "half expanded": (torch.zeros(1).half().expand(10**12), "without its values"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_is_no_weight_is_named(tmp_path, capsys, name):
    tensor, sentence = TENSORS[name]
    torch.save({"transformer_encoder.cls": tensor, "head.bias": ONE}, tmp_path / "a.pth")
    assert f"must hold dense floating-point tensors, got transformer_encoder.cls ({sentence}). Save" in refuse(
        tmp_path / "a.pth", capsys
    )


@pytest.mark.parametrize("state", [{"model": {"a": ONE}}, {"a": ONE, "epoch": 3}, [ONE], ONE, None, {"a": "b"}])
def test_anything_but_names_and_tensors_is_refused(tmp_path, capsys, state):
    torch.save(state, tmp_path / "a.pth")
    assert "must hold a state dict, names and tensors" in refuse(tmp_path / "a.pth", capsys)


PICKLES = {
    "deep": b"\x80\x02" + b"]" * 9000 + b"a" * 8999 + b".",
    "stack": b"\x80\x02a.",
    "text": b"hello",
    "empty": b"",
    "protocol": b"\x80\x04\x95\x00\x00\x00\x00\x00\x00\x00\x00cposix\nsystem\n.",
}


@pytest.mark.parametrize("content", PICKLES.values(), ids=PICKLES)
def test_a_wrong_pickle_is_one_sentence(tmp_path, capsys, content):
    (tmp_path / "a.pth").write_bytes(content)
    assert "it is damaged, or holds pickled objects, which could run code" in refuse(tmp_path / "a.pth", capsys)
