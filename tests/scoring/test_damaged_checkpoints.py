# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are damaged or were tampered with: one sentence and exit code 2, never a traceback or a hang."""

import json
import os
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from places import ROOT
from safetensors.torch import load_file
from transformers import AutoConfig

from musiq_hf import MusiqConfig, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.cli import main
from musiq_hf.common.files import read_json
from musiq_hf.models import FAMILIES
from musiq_hf.scoring import score_pixels
from musiq_hf.scoring.loading import load_quality

CONFIG, PROCESSOR, WEIGHTS = "config.json", "preprocessor_config.json", "model.safetensors"
INDEX = "model.safetensors.index.json"
PICTURE = torch.from_numpy(np.random.default_rng(3).random((3, 30, 41), dtype=np.float32))
WRONG = [None, True, -1, 10**12, 10**30, 1.5, float("nan"), float("inf"), "abc", [[1]], {"a": 1}]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tiny_model):
    """A whole checkpoint; tests must leave it as they found it."""
    folder, model = tmp_path_factory.mktemp("whole"), tiny_model()
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "mine")


def change(folder, file, **fields):
    """Change fields of a JSON file, as `json.dumps` writes them: with NaN and Infinity."""
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | fields))


def split(folder, **entries):
    """Give a checkpoint an index, with its weights in one part."""
    (folder / WEIGHTS).rename(folder / "part.safetensors")
    names = dict.fromkeys(load_file(folder / "part.safetensors"), "part.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names} | entries))


def refuse(folder, capsys):
    """Return the sentence of a command about a checkpoint, and check that it is one, of a user's mistake."""
    code = main(["info", str(folder)])
    printed, errors = capsys.readouterr()
    assert (code, printed) == (2, ""), (code, errors)
    sentence = errors.strip()
    assert sentence.startswith("musiq info: ") and "\n" not in sentence and "Traceback" not in sentence
    assert len(sentence) < 1500
    return sentence


OWN = MusiqConfig.__annotations__
FIELDS = {
    "hidden_size": (10**9, "`hidden_size` must be at most 65536, got 1000000000"),
    "num_hidden_layers": (10**12, "`num_hidden_layers` must be at most 1024, got 1000000000000"),
    "patch_size": ("32", "`patch_size` must be a whole number, got '32'"),
    "hash_grid_size": (True, "`hash_grid_size` must be a whole number, got True"),
    "longer_side_lengths": ([16, 10**9], r"`longer_side_lengths` must be at most \d+ pixels with patches of"),
    "score_offset": (float("nan"), "`score_offset` must be finite, got nan"),
    "score_scale": (1e30, "must be at most 1,000,000, got"),
    "score_range": ({"low": 0}, "`score_range` must be a list or null, got {'low': 0}"),
    "initializer_range": (-1.0, r"`initializer_range` must lie in \[0, 10\], got -1.0"),
    "layer_norm_eps": (1e308, r"`layer_norm_eps` must lie in \[0, 1\]"),
    "spatial_embedding": (3, "`spatial_embedding` must be 'hash' or 'sinusoid' or 'fixed' or 'none', got 3"),
    "model_type": (
        ["musiq"],
        rf"A {' or '.join(FAMILIES)} checkpoint was expected, got one of type \['musiq'\]",
    ),
    "dtype": ("float7", "`dtype` must be 'float32' or 'float16' or .*, got 'float7'"),
    "architectures": ("MusiqModel", "`architectures` must be a list or null, got 'MusiqModel'"),
    "id2label": ({"one": "MOS"}, "`id2label` must number its labels from 0 to 0, got"),
    "num_labels": (10**12, "`num_labels` must be at most 131072, got 1000000000000"),
    "auto_map": (None, "`auto_map` must be an object, got None"),
    "to_dict": (1, "'to_dict' is no field of a MusiqConfig. Remove it"),
    "attribute_map": ({"hidden_size": "patch_size"}, "'attribute_map' is no field of a MusiqConfig"),
    "quantization_config": ({"quant_method": "awq"}, "'quantization_config' is no field of a MusiqConfig"),
    "__class__": ("x", "'__class__' is no field of a MusiqConfig"),
    "self": (1, "'self' is no field of a MusiqConfig"),
    "layer_types": (["full_attention"], "'layer_types' is no field of a MusiqConfig"),
    "_attn_implementation": ("eager", "'_attn_implementation' is no field of a MusiqConfig"),
    "_attn_implementation_internal": ("eager", "'_attn_implementation_internal' is no field of a MusiqConfig"),
    "_validate_sizes": (1, "'_validate_sizes' is no field of a MusiqConfig"),
    "__deepcopy__": (1, "'__deepcopy__' is no field of a MusiqConfig"),
}


@pytest.mark.parametrize(
    ("lengths", "patch_size"),
    [(range(1025, 2049), 32), (range(1, 257), 1), (range(1, 1000), 1024), ([8192, 8191], 32)],
)
def test_resized_copies_are_bounded_together(lengths, patch_size):
    fields = {"longer_side_lengths": list(lengths), "patch_size": patch_size, "use_scale_embedding": False}
    for make in (
        lambda: MusiqConfig.from_dict(fields),
        lambda: MusiqImageProcessor(longer_side_lengths=list(lengths), patch_size=patch_size),
    ):
        with pytest.raises(ValueError, match=r"must make copies of at most \d+ patches of \d+ pixels in all, got"):
            make()


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_a_wrong_type_or_size_is_named(folder, capsys, name):
    value, sentence = FIELDS[name]
    change(folder, CONFIG, **{name: value})
    with pytest.raises(ValueError, match=sentence):
        load_quality(str(folder))
    assert str(folder) in refuse(folder, capsys)
    if name != "auto_map":  # alone, the class passes over it as every installed class does
        with pytest.raises((ValueError, OSError)):
            MusiqForImageQualityAssessment.from_pretrained(folder)


@pytest.mark.parametrize("name", [*OWN, "dtype", "architectures", "id2label", "num_labels", "model_type"])
def test_every_field_refuses_every_wrong_type_with_a_value_error(whole, name):
    stored = json.loads((whole / CONFIG).read_text())
    for value in WRONG:
        try:
            config = MusiqConfig.from_dict(stored | {name: value})
        except ValueError as error:
            assert len(str(error)) < 600
        else:
            assert getattr(config, name) == value or value is None, (name, value)
            assert not isinstance(value, dict | list) and value not in (float("inf"), 10**30)


@pytest.mark.parametrize("name", MusiqImageProcessor.valid_kwargs.__annotations__)
def test_every_setting_of_the_processor_refuses_every_wrong_type(whole, name):
    stored = json.loads((whole / PROCESSOR).read_text())
    for value in WRONG:
        try:
            processor = MusiqImageProcessor.from_dict(stored | {name: value})
        except ValueError as error:
            assert f"`{name}`" in str(error) or name == "use_native_resolution"
        else:
            assert value is None or value is True or isinstance(getattr(processor, name), int | str)


def test_a_misspelt_field_is_no_default_and_a_note_is_kept(folder, capsys):
    values = json.loads((folder / CONFIG).read_text())
    values["score_ofset"] = values.pop("score_offset", 0)
    (folder / CONFIG).write_text(json.dumps(values))
    assert "'score_ofset' is no field of a MusiqConfig. Is it `score_offset`?" in refuse(folder, capsys)
    assert MusiqConfig.from_dict({"model_type": "musiq", "trained_by": "me", "use_cache": False}).trained_by == "me"


NOTES = {"transformers.js_config": {"dtype": "fp32"}, "my-key": 1, "_note": "mine", "two words": [], "9": None}


def test_notes_that_shadow_nothing_are_kept(folder):
    change(folder, CONFIG, **NOTES)
    config = load_quality(str(folder))[0].config
    config.save_pretrained(folder / "saved")
    for read in (config, MusiqConfig.from_pretrained(folder / "saved"), AutoConfig.from_pretrained(folder)):
        assert {name: getattr(read, name) for name in NOTES} == NOTES


def test_null_for_a_refused_name_is_passed_over(folder):
    names = ("quantization_config", "layer_types", "rope_parameters", "rope_scaling", "_attn_implementation")
    expected = score_pixels(*load_quality(str(folder)), [PICTURE])
    change(folder, CONFIG, **dict.fromkeys(names))
    model, processor = load_quality(str(folder))
    assert not hasattr(model.config, "quantization_config") and not hasattr(model.config, "layer_types")
    assert torch.equal(score_pixels(model, processor, [PICTURE]), expected)
    assert MusiqForImageQualityAssessment.from_pretrained(folder).config.to_dict() == model.config.to_dict()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"colour": 3}, r"\['colour'\] are no settings of a MusiqImageProcessor. Known are do_convert_rgb, "),
        ({"image_processor_type": ["a"]}, "as its image processor, but a musiq model needs MusiqImageProcessor"),
        ({"image_processor_type": "ViTImageProcessor"}, "names ViTImageProcessor as its image processor"),
        ({"resize_mode": "none"}, "`resize_mode` must be 'arp' or 'square', got 'none'"),
        ({"auto_map": None}, "`auto_map` must be an object, got None"),
        ({"patch_size": 10**12}, "`patch_size` must be at most 1024"),
    ],
    ids=["unknown", "list", "other", "value", "auto_map", "size"],
)
def test_a_wrong_setting_of_the_processor_is_named(folder, capsys, fields, sentence):
    change(folder, PROCESSOR, **fields)
    with pytest.raises(ValueError, match=sentence):
        load_quality(str(folder))
    assert str(folder) in refuse(folder, capsys)


NO_OBJECT = {
    "empty": b"",
    "list": b"[]",
    "number": b"3",
    "null": b"null",
    "open": b"{",
    "deep list": b"[" * 100_000,
    "deep object": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "marked": b"\xef\xbb\xbf{}",
    "latin-1": '{"é": 1}'.encode("latin-1"),
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "digits": b'{"a": ' + b"9" * 5000 + b"}",
    "twice": b'{"patch_size": 8, "patch_size": 16}',
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("content", NO_OBJECT.values(), ids=NO_OBJECT)
@pytest.mark.parametrize("file", [CONFIG, PROCESSOR, INDEX])
def test_a_json_file_without_one_object_is_named(folder, capsys, file, content):
    if file == INDEX:
        split(folder)
    (folder / file).write_bytes(content)
    assert str(folder / file) in (sentence := refuse(folder, capsys))
    assert "must hold one JSON object" in sentence
    if content.startswith(b'{"patch_size"'):
        assert "it names 'patch_size' twice" in sentence
    else:
        with pytest.raises((ValueError, OSError)):
            MusiqForImageQualityAssessment.from_pretrained(folder)
            MusiqImageProcessor.from_pretrained(folder)


def test_a_json_file_of_any_size_is_not_read(folder, capsys):
    with (folder / CONFIG).open("ab") as file:
        file.truncate(2**33)
    assert "config.json has 8,589,934,592 bytes; at most 67,108,864 are read" in refuse(folder, capsys)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "device", "loop", "dangling"])
@pytest.mark.parametrize("file", [CONFIG, PROCESSOR, WEIGHTS])
def test_a_file_must_be_one(folder, capsys, file, kind):
    path = folder / file
    path.unlink()
    make = {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}
    targets = {"device": "/dev/zero", "loop": path, "dangling": folder / "nothing"}
    if kind in targets:
        path.symlink_to(targets[kind])
    make.get(kind, lambda: None)()
    sentence = {CONFIG: "neither a directory with a config.json", WEIGHTS: "holds no weights"}
    assert sentence.get(file, "holds no preprocessor_config.json") in refuse(folder, capsys)


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"weight_map": []}, "`weight_map` must be an object, got []"),
        ({"weight_map": {"a": 1}}, "`weight_map` must be an object, got {'a': 1}"),
        ({"weight_map": {}}, "names no file of weights"),
        ({"metadata": 3}, "`metadata` must be an object, got 3"),
        ({"weight_map": {"a": "../other/model.safetensors"}}, "which is no .safetensors file in its own folder"),
        ({"weight_map": {"a": "/etc/model.safetensors"}}, "which is no .safetensors file in its own folder"),
        ({"weight_map": {"a": "part.bin"}}, "names 'part.bin', which is no .safetensors file"),
        ({"weight_map": {"a": "gone.safetensors"}}, "lacks gone.safetensors, named in"),
    ],
    ids=["list", "number", "empty", "metadata", "outside", "absolute", "pickle", "missing"],
)
def test_an_index_names_files_of_its_folder(folder, capsys, entries, sentence):
    split(folder, **entries)
    assert sentence in refuse(folder, capsys)
    with pytest.raises((ValueError, OSError)):
        MusiqForImageQualityAssessment.from_pretrained(folder)


def test_weights_in_parts_give_the_same_score(whole, folder):
    split(folder)
    assert score(folder) == score(whole)


def test_additions_to_the_weights_are_not_passed_over(folder, capsys):
    (folder / "adapter_config.json").write_text("{}")
    assert "holds adapter_config.json: additions to its weights. Merge them" in refuse(folder, capsys)


def test_a_folder_must_be_one_with_a_name(whole, folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "empty", folder / WEIGHTS):
        assert "neither a directory with a config.json nor an id" in refuse(place, capsys)
    place = os.fsdecode(os.fsencode(tmp_path / "named ") + b"\xff")
    shutil.copytree(whole, place)
    assert "the name is not UTF-8" in refuse(place, capsys)


@pytest.mark.parametrize("command", ["score", "explain", "verify", "convert", "evaluate", "finetune"])
@pytest.mark.parametrize("kind", ["dtype", "list", "deep"])
def test_every_command_has_the_same_door(folder, capsys, tmp_path, command, kind):
    if kind == "dtype":
        change(folder, CONFIG, dtype=["float7"])
    else:
        (folder / CONFIG).write_bytes({"list": b"[]", "deep": b"[" * 100_000}[kind])
    picture = str(tmp_path / "a.png")
    Image.new("RGB", (40, 30)).save(picture)
    (tmp_path / "scores.csv").write_text("image,mos,split\n" + "a.png,1,train\na.png,2,test\n" * 5)
    data = ["--data", str(tmp_path / "scores.csv")]
    words = {
        "score": [picture, "-m", str(folder)],
        "explain": [picture, "-m", str(folder), "-o", str(tmp_path / "page.html")],
        "verify": [str(folder)],
        "convert": [str(folder), str(tmp_path / "back.npz"), "--to_original"],
        "evaluate": ["--model", str(folder), *data],
        "finetune": ["--model", str(folder), *data, "--output_dir", str(tmp_path / "out")],
    }[command]
    assert main([command, *words]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" not in errors and str(folder) in errors
    assert ("`dtype` must be" if kind == "dtype" else "must hold one JSON object") in errors


def score(folder):
    model, processor = load_quality(str(folder))
    return score_pixels(model, processor, [PICTURE]).item()


def score_by_hand(folder):
    """Return the score that the files of a checkpoint mean, without any code that loads checkpoints; None if none."""
    try:
        config = MusiqConfig(**read_json(folder / CONFIG))
        model = MusiqForImageQualityAssessment(config).eval()
        weights = load_file(folder / WEIGHTS)
        model.load_state_dict(weights, strict=True)
        processor = MusiqImageProcessor(**read_json(folder / PROCESSOR))
        processor.check_config(config)
        is_float = all(weight.is_floating_point() for weight in weights.values())
        value = score_pixels(model, processor, [PICTURE]).item() if is_float else None
    except Exception:
        return None
    return value if value is not None and np.isfinite(value) else None


def tamper(folder, draw):
    """Change one thing about a checkpoint; return whether it cannot be used any more, None if that must be seen."""
    file = draw.choice((CONFIG, PROCESSOR, WEIGHTS))
    kind = draw.choice(("field", "byte", "byte", "cut", "longer", "gone", "folder", "pipe", "object"))
    path = folder / file
    content = bytearray(path.read_bytes())
    if kind == "field":
        name = draw.choice([*OWN, "dtype", "id2label"])
        value = draw.choice([value for value in WRONG if value is not None])
        change(folder, CONFIG, **{name: value})
        return None
    if kind == "byte":
        last = 8 + int.from_bytes(content[:8], "little") + 200 if file == WEIGHTS else len(content)
        content[draw.randrange(min(last, len(content)))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
        return None
    if kind in ("cut", "longer", "object"):
        end = draw.randrange(len(content) - 1)
        path.write_bytes({"cut": content[:end], "longer": content + b"}", "object": b"{}"}[kind])
        return True if file == WEIGHTS or kind != "object" else None
    path.unlink()
    {"folder": path.mkdir, "pipe": lambda: os.mkfifo(path)}.get(kind, lambda: None)()
    return True


@pytest.mark.slow
def test_a_hundred_tampered_checkpoints_are_refused_or_mean_what_they_say(whole, tmp_path, capsys):
    draw, refused = random.Random(14), 0
    for number in range(100):
        folder = shutil.copytree(whole, tmp_path / str(number))
        is_lost = tamper(folder, draw)
        expected = None if is_lost else score_by_hand(folder)
        assert not is_lost or expected is None
        code = main(["info", str(folder)])
        errors = capsys.readouterr().err
        assert "Traceback" not in errors and code in (0, 2), number
        if code == 2:
            assert len(errors.strip().splitlines()) == 1 and errors.startswith("musiq info: "), number
            refused += 1
            assert expected is None or read_fields(folder) != read_fields(whole), (
                number
            )  # some stand in no file of ours
        else:
            assert expected is not None and score(folder) == expected, number
        if number % 25 == 0:  # the command line itself
            words = [sys.executable, "-m", "musiq_hf.cli", "info", str(folder)]
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
            assert done.returncode == code and "Traceback" not in done.stderr
        shutil.rmtree(folder)
    assert refused > 60


def read_fields(folder):
    """Return the fields of both JSON files; None if one has none."""
    try:
        return read_json(folder / CONFIG), read_json(folder / PROCESSOR)
    except (ValueError, OSError):
        return None
