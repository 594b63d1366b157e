# SPDX-License-Identifier: Apache-2.0
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import golden
import numpy as np
import pytest
import torch
from toy_family.configuration_toy import ToyConfig
from toy_family.family import TOY

from musiq_hf.cli import convert, words
from musiq_hf.cli import main as musiq
from musiq_hf.cli.recording import record_words
from musiq_hf.common.files import hash_file
from musiq_hf.conversion import CONVERTERS, Checkpoint, Conversion, command, converter_of_config, converter_of_file
from musiq_hf.conversion.checkpoints import read_names, read_state_dict
from musiq_hf.conversion.directories import measure_difference
from musiq_hf.conversion.protocol import SHARED_OPTIONS
from musiq_hf.models import FAMILIES

GOLDEN = golden.DIRECTORY / "golden" / "ckpt_tiny10.npz"


class ToyConverter:
    """Converter of a toy family: a .pth with one brightness, or a text."""

    family = "toy"
    accepts = "a toy checkpoint, a .pth or .toy"
    endings = (".pth", ".toy")
    published = ("toy-small",)
    shared = ()
    left_out = ""

    def __init__(self, folder):
        self.folder = folder

    def fetch(self, name):
        return (self.folder / "small.pth", "toy-small") if name == "toy-small" else None

    def recognises(self, path):
        return "brightness" in read_names(path)

    def add_arguments(self, parser):
        parser.add_argument("--gain", type=float, default=1.0)

    def convert(self, path, output, *, name=None, arguments=None):
        arrays = read_state_dict(path)
        output.mkdir()
        (output / "config.json").write_text(json.dumps({"name": name, **arguments}))
        return Conversion(
            checkpoint=Checkpoint(path=path, sha256=hash_file(path), kind="pth", arrays=arrays),
            config=SimpleNamespace(model_type="toy"),
            inferred=("toy of one number",),
            largest_difference=0.0,
            directory=output,
        )

    def to_original(self, directory, output):
        shutil.copy(directory / "config.json", output)
        return 1


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """Toy converter in the table and in the words of the command line, and the file that it publishes."""
    torch.save({"brightness": torch.ones(1)}, tmp_path / "small.pth")
    converter = ToyConverter(tmp_path)
    monkeypatch.setitem(CONVERTERS, "toy", converter)
    monkeypatch.setattr(convert, "DESCRIPTION", command.describe("musiq convert"))
    (tmp_path / "words.json").write_text(record_words())
    monkeypatch.setattr(words, "FILE", tmp_path / "words.json")
    return converter


def run(capsys, *words):
    code = musiq([str(word) for word in ("convert", *words)])
    printed, errors = capsys.readouterr()
    return code, printed, errors


def test_each_file_goes_to_the_converter_that_recognises_it(toy, tmp_path, capsys):
    code, printed, errors = run(capsys, tmp_path / "small.pth", tmp_path / "out", "--gain", 2, "--name", "mine")
    assert code == 0, errors
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"name": "mine", "gain": 2.0}
    assert printed.splitlines()[2:] == [
        "arrays    1 with 1 parameters",
        "inferred  toy of one number",
        "check     largest difference of a logit after reloading 0.0e+00; arrays back bit by bit",
        f"written   {tmp_path / 'out'}",
    ]
    assert run(capsys, GOLDEN, tmp_path / "musiq")[0] == 0
    assert json.loads((tmp_path / "musiq" / "config.json").read_text())["model_type"] == "musiq"


def test_a_published_name_goes_to_the_converter_that_publishes_it(toy, tmp_path, capsys):
    assert run(capsys, "toy-small", tmp_path / "out")[0] == 0
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {"name": "toy-small"}
    assert "koniq-single" in (errors := run(capsys, "toy-big", tmp_path / "no")[2]) and "toy-small" in errors


def test_options_of_another_converter_are_refused(toy, tmp_path, capsys):
    words = ["--longer_side_lengths", "32", "--no_native_resolution"]
    code, _, errors = run(capsys, tmp_path / "small.pth", tmp_path / "out", *words)
    assert code == 2 and "\n" not in errors.partition("\nExample")[0]
    assert (
        "is a toy checkpoint, whose converter has no `--longer_side_lengths`, `--no_native_resolution`. Leave"
        in errors
    )
    code, _, errors = run(capsys, GOLDEN, tmp_path / "out", "--gain", 2, "--vit", "a", "--cnn", "b")
    assert code == 2
    assert "ckpt_tiny10.npz is a musiq checkpoint, whose converter has no `--vit`, `--cnn`, `--gain`. Leave" in errors
    code, _, errors = run(capsys, tmp_path / "small.pth", tmp_path / "out", "--num_attention_heads", 2)
    assert code == 2 and "is a toy checkpoint, whose converter has no `--num_attention_heads`. Leave" in errors
    assert not (tmp_path / "out").exists()


def test_the_way_back_is_chosen_by_the_family_of_the_directory(toy, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "load_config", lambda directory: ToyConfig())
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "config.json").write_text("{}")
    code, _, errors = run(capsys, tmp_path / "toy", tmp_path / "back", "--to_original")
    assert code == 2 and "got one of type 'toy'" in errors
    monkeypatch.setitem(FAMILIES, "toy", TOY)
    code, printed, errors = run(capsys, tmp_path / "toy", tmp_path / "back", "--to_original")
    assert code == 0 and printed == f"written   {tmp_path / 'back'}, 1 arrays\n", errors
    code, _, errors = run(capsys, tmp_path / "toy", tmp_path / "again", "--to_original", "--gain", 3)
    assert code == 2 and "`--to_original` takes no other argument, got --gain." in errors
    monkeypatch.delitem(CONVERTERS, "toy")
    with pytest.raises(
        ValueError, match="Only musiq, loda, sudds, msit checkpoints can be converted back, got one of toy"
    ):
        converter_of_config(ToyConfig())


def test_a_file_that_nobody_recognises_is_one_sentence(toy, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("notes")
    code, _, errors = run(capsys, tmp_path / "notes.txt", tmp_path / "out")
    assert (
        code == 2
        and "notes.txt is no checkpoint that can be converted. Give a MUSIQ checkpoint, the original" in errors
    )
    assert "with --vit and --cnn; or a checkpoint of an upscaling detector, a .ckpt" in errors
    assert "; or a toy checkpoint, a .pth or .toy.\nExample: " in errors
    code, _, errors = run(capsys, tmp_path, tmp_path / "out")
    assert code == 2
    assert "is a directory. Give the .npz or .pth or .pt or .state or .ckpt or .toy file, or add --to_ori" in errors


def test_the_ending_decides_about_a_damaged_file_and_content_about_a_whole_one(toy, tmp_path):
    (tmp_path / "damaged.toy").write_bytes(b"noise")
    (tmp_path / "damaged.pth").write_bytes(b"noise")
    assert converter_of_file(tmp_path / "damaged.toy") is toy
    assert converter_of_file(tmp_path / "damaged.pth") is CONVERTERS["musiq"]
    shutil.copy(GOLDEN, tmp_path / "weights.bin")
    assert converter_of_file(tmp_path / "weights.bin") is CONVERTERS["musiq"]
    torch.save({"params": {"transformer_encoder.cls": torch.ones(1)}}, tmp_path / "pyiqa.bin")
    legacy = {"brightness": torch.ones(1)}
    torch.save(legacy, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    assert converter_of_file(tmp_path / "pyiqa.bin") is CONVERTERS["musiq"]
    assert converter_of_file(tmp_path / "legacy.pth") is toy


def test_help_and_defaults_cover_all_converters(toy, capsys):
    with pytest.raises(SystemExit):
        musiq(["convert", "--help"])
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("--gain", "--hash_grid_size", "toy-small", "a toy checkpoint, a .pth"))
    job = command.read_job(vars(command.build_parser().parse_args(["a.npz", "out", "--longer_side_lengths"])))
    assert job == command.ConversionJob(checkpoint="a.npz", output=Path("out"), arguments={"longer_side_lengths": []})


def test_options_of_all_converters_have_names_of_their_own():
    names = []
    for converter in CONVERTERS.values():
        names += command.default_options(converter).keys() - set(converter.shared)
        assert set(converter.shared) <= SHARED_OPTIONS.keys()
    assert len(names) == len(set(names))
    assert not {"checkpoint", "output", "name", "to_original", *SHARED_OPTIONS} & set(names)


def test_difference_of_two_models_is_of_their_logits(tiny_model):
    first, second = tiny_model(), tiny_model()
    processor = FAMILIES["musiq"].processor.from_config(first.config)
    assert measure_difference(first, second, processor) == 0
    with torch.no_grad():
        second.head.classifier.bias.add_(0.5)
    assert measure_difference(first, second, processor) == pytest.approx(0.5, abs=1e-5)
    with torch.no_grad():
        second.head.classifier.bias.fill_(np.nan)
    assert np.isnan(measure_difference(first, second, processor))
