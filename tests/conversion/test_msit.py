# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the published MSIT, there and back."""

import copy

import golden_msit as golden
import pytest
import torch
from transformers import AutoModelForImageToImage

from musiq_hf.cli import main
from musiq_hf.conversion import CONVERTERS, converter_of_file
from musiq_hf.conversion.command import build_parser
from musiq_hf.conversion.msit import convert, from_ours, make_fixed, read_checkpoint, read_config, to_original
from musiq_hf.models.msit import MsitConfig, MsitForImageSuperResolution
from musiq_hf.scoring.loading import load_with_head
from musiq_hf.scoring.verification import run_self_test

WAYS_BACK = [
    pytest.param(name, marks=pytest.mark.slow if name in ("edsr_wide", "rdn") else ()) for name in golden.CONFIGS
]


def describe(**changes):
    """What a checkpoint says of the configuration `edsr`; a dotted name is that of a part of the network."""
    model = copy.deepcopy(golden.CONFIGS["edsr"]["model"])
    for name, value in changes.items():
        part, _, key = name.rpartition("__")
        (model["args"][part]["args"] if part else model["args"])[key] = value
    return model


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("msit")
    source = golden.save(folder / "edsr.pth", "edsr")
    return source, convert(source, folder / "out", name="small")


def test_a_checkpoint_becomes_a_directory_with_all_that_belongs_to_it(converted):
    source, conversion = converted
    assert CONVERTERS["msit"] is converter_of_file(source) and conversion.largest_difference == 0
    assert "largest difference of RGB after reloading" in conversion.report()
    assert "6 fixed arrays left out" in conversion.report()
    model, processor = load_with_head(str(conversion.directory))
    assert type(model) is MsitForImageSuperResolution and model.config.shift_padding == "circular"
    assert all(one.is_within(1e-4) for one in run_self_test(model, processor, conversion.directory))
    with torch.no_grad():
        model.value.bias.add_(0.1)
    assert not all(one.is_within(1e-4) for one in run_self_test(model, processor, conversion.directory))
    card = (conversion.directory / "README.md").read_text()
    assert "Jinchen2028/MSIT" in card and "license: other" in card and "pipeline_tag: image-to-image" in card
    assert 'AutoModelForImageToImage.from_pretrained("small")' in card


@torch.no_grad()
def test_merged_kernels_give_the_same_picture(converted, tmp_path, capsys):
    source, conversion = converted
    assert main(["convert", str(source), str(tmp_path / "merged"), "--merge"]) == 0
    assert "folded: RGB changes by at most" in capsys.readouterr().out
    plain, merged = (
        AutoModelForImageToImage.from_pretrained(folder) for folder in (conversion.directory, tmp_path / "merged")
    )
    assert plain.config.use_rim and not merged.config.use_rim
    first, second = (model(golden.read_pixels("3"), scale=3).reconstruction for model in (plain, merged))
    torch.testing.assert_close(first, second, rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match="has plain kernels or a shift that repeats the border"):
        to_original(tmp_path / "merged", tmp_path / "back.pth")


@pytest.mark.parametrize("name", WAYS_BACK)
def test_the_way_back_gives_the_file(name, converted, tmp_path):
    directory = converted[1].directory
    if name != "edsr":
        directory = convert(golden.save(tmp_path / "a.pth", name), tmp_path / "out").directory
    count, original = to_original(directory, tmp_path / "back.pth"), golden.make_state(name)
    back = torch.load(tmp_path / "back.pth", weights_only=True)["model"]
    assert back["sd"].keys() == original.keys() and count == len(original)
    assert all(torch.equal(value, original[key]) for key, value in back["sd"].items())
    assert read_config(tmp_path, back).to_dict() == read_config(tmp_path, golden.CONFIGS[name]["model"]).to_dict()


@pytest.mark.parametrize("name", golden.PUBLISHED)
def test_the_published_sizes_have_these_arrays(name, tmp_path):
    described = golden.PUBLISHED[name]
    config = read_config(tmp_path, described["model"])
    assert config.to_dict() == MsitConfig(encoder_type=config.encoder_type).to_dict()
    with torch.device("meta"):
        state = MsitForImageSuperResolution(config).state_dict()
    fixed = dict(make_fixed(config))
    assert {from_ours(key, config) for key in state} | fixed.keys() == described["keys"].keys()
    assert all(list(value.shape) == described["keys"][key] for key, value in fixed.items())
    sizes = {from_ours(key, config): value.numel() for key, value in state.items()}
    assert all(torch.Size(described["keys"][key]).numel() == size for key, size in sizes.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"amsno.lem.mask": torch.ones(32, 1, 3, 3)}, "another `amsno.lem.mask` than the published program sets"),
        ({"amsno.lem.mix_margin": torch.tensor(2.0)}, "another `amsno.lem.mix_margin`"),
        ({"encoder.sub_mean.bias": torch.zeros(3)}, "another `encoder.sub_mean.bias`"),
        ({"conv_ch.bias": None}, "missing: conv_ch.bias"),
        ({"conv_ch.scale": torch.ones(1)}, "unknown: conv_ch.scale"),
        ({"conv_ch.bias": torch.ones(31)}, r"wrong shape: conv_ch.bias \(31,\), expected \(32,\)"),
        ({"conv_ch.bias": torch.ones(32).half()}, r"got conv_ch.bias \(float16\)"),
        ({"conv_ch.bias": "x"}, r"conv_ch.bias \(no tensor\)"),
        ({"imnets.0.layers.0.weight": None}, "is no checkpoint of MSIT"),
    ],
)
def test_arrays_that_are_not_the_published_ones_are_named(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        convert(golden.save(tmp_path / "wrong.pth", "edsr", **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"imnet_num": 2}, "has `imnet_num: 2` in its `args`, but only networks with 1"),
        ({"imnet_spec__act": "relu"}, "has `act: 'relu'` in its `imnet_spec`"),
        ({"pb_spec__posenc_type": "gauss"}, "`posenc_type: 'gauss'`"),
        ({"encoder_spec__res_scale": 0.1}, "`res_scale: 0.1`"),
        ({"encoder_spec": {"name": "rcan", "args": {"no_upsampling": True}}}, "has the encoder 'rcan', but only"),
        ({"encoder_spec": None}, "must describe the network with a `encoder_spec`, got None"),
        ({"base_dim": "wide"}, "`hidden_size` must be a whole number, got 'wide'"),
        ({"imnet_spec__hidden_list": None}, "`decoder_hidden_sizes` must be a list"),
    ],
)
def test_other_networks_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_config(tmp_path, describe(**changes))
    with pytest.raises(ValueError, match="must hold a network 'amsit'"):
        read_config(tmp_path, describe() | {"name": "other"})


def test_arguments_that_are_absent_have_the_defaults_of_the_program(tmp_path):
    encoder = {"name": "edsr-baseline", "args": {"no_upsampling": True}}
    decoder = {"name": "mlp", "args": {"out_dim": 3, "hidden_list": [256], "act": "gelu"}}
    config = read_config(tmp_path, {"name": "amsit", "args": {"encoder_spec": encoder, "imnet_spec": decoder}})
    expected = MsitConfig(hidden_size=192, position_encoding_scale=None, decoder_hidden_sizes=[256])
    assert config.to_dict() == expected.to_dict()


def test_numbers_that_are_not_finite_are_told(tmp_path):
    source = golden.save(tmp_path / "edsr.pth", "edsr")
    content = torch.load(source, weights_only=True)
    content["model"]["sd"]["imnets.0.layers.0.weight"][0, 0] = float("nan")
    torch.save(content, source)
    with pytest.raises(ValueError, match="the source's numbers finite"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_code_in_a_checkpoint_is_refused(tmp_path):
    torch.save({"model": {"sd": golden.make_state("edsr"), "note": MsitConfig()}}, tmp_path / "pickled.pth")
    with pytest.raises(ValueError, match="pickled objects, which could run code and are refused"):
        read_checkpoint(tmp_path / "pickled.pth")


def test_the_door_has_its_name():
    text = build_parser("convert_msit_checkpoint").format_help()
    assert "--merge" in text and "python -m conversion.convert_msit_checkpoint" in text
