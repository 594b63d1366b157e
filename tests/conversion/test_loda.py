# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of LoDa's published program, with networks as timm and Transformers save them, there and back."""

import functools
import json
import shutil

import golden
import numpy as np
import pytest
import torch
from golden_loda import loda_golden_ckpt as generator
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoBackbone, ConvNextConfig

from musiq_hf.cli import main
from musiq_hf.cli.info import describe_checkpoint
from musiq_hf.common.files import read_json
from musiq_hf.conversion import CONVERTERS, converter_of_file
from musiq_hf.conversion.command import build_parser
from musiq_hf.conversion.command import main as door
from musiq_hf.conversion.loda import LodaOptions, build_model, choose_stages, convert, load_cnn, to_original
from musiq_hf.conversion.loda_weights import check_back as check_arrays_back
from musiq_hf.conversion.loda_weights import list_names, read_checkpoint
from musiq_hf.models.loda import LodaConfig, LodaForImageQualityAssessment, LodaImageProcessor
from musiq_hf.models.loda.backbones_loda import load_backbone, load_vit
from musiq_hf.scoring import load_quality, make_signature
from musiq_hf.scoring.verification import run_self_test

FOLDER = golden.DIRECTORY / "golden_loda"
SOURCE = FOLDER / "tiny_0.pt"
TOLERANCES = {"cnn_tokens": 3e-5, "cls": 5e-5, "raw": 3e-6}
CNN_STATISTIC = "layer1.0.bn1.running_mean"


@functools.cache
def parts(name):
    """Arrays of a golden checkpoint and of its two networks."""
    arrays = generator.build(generator.get(name))
    return {part: {key: torch.from_numpy(np.asarray(value)) for key, value in arrays[part].items()} for part in arrays}


def save_timm(folder, arrays):
    """Save weights in a folder as timm does."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "some_model", "num_classes": 0}))
    save_file(arrays, folder / "model.safetensors")


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Write the two networks of a golden checkpoint: files of timm, its folders, or folders of Transformers."""
    root = tmp_path_factory.mktemp("networks")

    @functools.cache
    def make(name, kind):
        folder, arrays = root / f"{name}_{kind}", parts(name)
        folder.mkdir()
        for part in ("vit", "cnn"):
            classifier = {"head.weight" if part == "vit" else "fc.weight": torch.ones(2, 2)}
            if kind == "timm":
                save_timm(folder / part, arrays[part] | classifier)
            else:
                torch.save(arrays[part] | classifier, folder / f"{part}.pth")
        if kind == "transformers":
            load_vit(folder / "vit.pth", num_attention_heads=generator.get(name)["heads"]).save_pretrained(
                folder / "vit"
            )
            load_backbone(folder / "cnn.pth").save_pretrained(folder / "cnn")
        suffix = ".pth" if kind == "files" else ""
        return {part: str(folder / f"{part}{suffix}") for part in ("vit", "cnn")}

    return make


def make_options(networks, name, kind):
    """Options that convert a golden checkpoint."""
    settings = generator.get(name)
    return LodaOptions(
        **networks(name, kind),
        num_attention_heads=settings["heads"],
        cross_attention_heads=settings["cross_heads"],
        token_grid_size=settings["grid"],
    )


@pytest.fixture(scope="module")
def converted(networks, tmp_path_factory):
    """Conversion of the tiny checkpoint, with networks in files of timm."""
    return convert(
        SOURCE, tmp_path_factory.mktemp("converted") / "tiny", options=make_options(networks, "tiny", "files")
    )


def words(networks, name="tiny"):
    """Words of a command that name the networks of a golden checkpoint."""
    found = networks(name, "files")
    return ["--vit", found["vit"], "--cnn", found["cnn"], "--num_attention_heads", generator.get(name)["heads"]]


def refuse(capsys, *arguments):
    """Run the command, which must fail in one sentence."""
    capsys.readouterr()  # saving a network of Transformers shows a bar
    code = main(["convert", *map(str, arguments)])
    printed, errors = capsys.readouterr()
    sentence, _, example = errors.partition("\nExample: ")
    assert (code, printed) == (2, "") and example and "\n" not in sentence and "code ran" not in errors, errors
    return sentence.removeprefix("musiq convert: ")


def save(path, *, learner=None, bn_buffer=None, **others):
    """Save the tiny checkpoint with changed arrays; None leaves one out."""
    changed = {
        part: {key: value for key, value in (parts("tiny")[part] | (changes or {})).items() if value is not None}
        for part, changes in (("learner", learner), ("bn_buffer", bn_buffer))
    }
    torch.save(changed | others, path)
    return path


def check_back(path, name):
    """Assert that a file holds learner and statistics of a golden checkpoint, bit by bit."""
    back = torch.load(path, weights_only=True)
    assert back.keys() == {"learner", "bn_buffer"}
    for part, arrays in back.items():
        assert arrays.keys() == parts(name)[part].keys()
        for key, value in arrays.items():
            expected = parts(name)[part][key]
            assert (value.dtype, value.shape) == (expected.dtype, expected.shape), key
            assert value.numpy().tobytes() == expected.numpy().tobytes(), key


def check_outputs(model, name):
    """Assert that a model gives the numbers of the published program."""
    with np.load(FOLDER / f"outputs_{name}.npz") as file:
        expected = {key: file[key] for key in TOLERANCES}
    crops = torch.from_numpy(generator.inputs(generator.crops(generator.get(name), len(expected["raw"]))))
    with torch.no_grad():
        outputs = model.loda(crops)
        found = {"cnn_tokens": outputs.cnn_tokens, "cls": outputs.pooler_output, "raw": model(crops).logits[:, 0]}
    for key, tolerance in TOLERANCES.items():
        golden.check(found[key], expected[key], tolerance, f"{name} {key}")


def test_a_converted_checkpoint_gives_the_numbers_of_the_published_code(converted, tmp_path):
    assert converted.largest_difference <= 1e-6
    model, _ = load_quality(str(converted.directory))
    check_outputs(model, "tiny")
    assert to_original(converted.directory, tmp_path / "back.pt") == len(converted.checkpoint.arrays) == 86
    check_back(tmp_path / "back.pt", "tiny")


@pytest.mark.parametrize(("name", "kind"), [("bottleneck", "timm"), ("three", "transformers")])
def test_networks_are_taken_in_every_form(networks, tmp_path, name, kind):
    settings, path = generator.get(name), tmp_path / "loda.pt"
    torch.save({part: parts(name)[part] for part in ("learner", "bn_buffer")}, path)
    checkpoint = read_checkpoint(path)
    model, sizes = build_model(checkpoint, make_options(networks, name, kind))
    config = model.config
    assert (config.latent_dim, config.token_grid_size) == (settings["latent"], settings["grid"])
    assert config.cnn_config.out_features == [f"stage{stage}" for stage in settings["stages"]]
    assert config.vit_config.layer_norm_eps == 1e-6 and config.vit_config.qkv_bias == settings["qkv_bias"]
    check_outputs(model, name)
    check_arrays_back(model, checkpoint, sizes)
    with torch.no_grad():
        model.loda.interactions["1"].cross_attention.v_proj.weight.add_(1e-3)
    with pytest.raises(ValueError, match=r"do not give back .*: \['learner/cross_attn.1.kv.weight'\]"):
        check_arrays_back(model, checkpoint, sizes)


def test_statistics_of_the_checkpoint_win_over_those_of_the_network(converted):
    model, _ = load_quality(str(converted.directory))
    found = model.loda.cnn.state_dict()["encoder.stages.0.layers.0.layer.0.normalization.running_mean"]
    own, stored = (parts("tiny")[part][CNN_STATISTIC] for part in ("cnn", "bn_buffer"))
    assert torch.equal(found, stored) and not torch.equal(found, own)


def test_the_golden_file_is_that_of_the_generator():
    check_back(SOURCE, "tiny")


def test_command_converts_a_training_state_there_and_back(networks, tmp_path, capsys):
    optimizer = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]}
    rest = {"optimizer": optimizer, "scheduler": {"last_epoch": 3}, "step": 630, "epoch": 9}
    torch.save({"model": torch.load(SOURCE, weights_only=True), **rest}, tmp_path / "loda.state")
    arguments = [tmp_path / "loda.state", tmp_path / "out", *words(networks), "--resample", "bicubic"]
    assert main(["convert", *map(str, arguments)]) == 0
    printed = capsys.readouterr().out
    assert "(checkpoint of the original in a training state; optimizer, scheduler, step, epoch left out)" in printed
    assert "arrays    86 with 46,396 parameters\n" in printed
    assert "unit: cosine in [-1, 1], not calibrated to opinion scores" in printed
    assert read_json(tmp_path / "out" / "preprocessor_config.json")["resample"] == "bicubic"
    assert "by Pillow's bicubic filter" in (tmp_path / "out" / "README.md").read_text()
    assert main(["convert", str(tmp_path / "out"), str(tmp_path / "back.pt"), "--to_original"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"written   {tmp_path / 'back.pt'}, 86 arrays"
    assert second.startswith("left out  the two networks, which this format does not hold, trained or not. To convert")
    assert f" of the model in {tmp_path / 'out'} with" in second
    check_back(tmp_path / "back.pt", "tiny")


def test_a_converted_directory_has_card_self_test_and_signature(converted):
    directory = converted.directory
    card = (directory / "README.md").read_text()
    assert "`tiny_0.pt`" in card and "`vit.pth` and `cnn.pth`" in card and str(directory.parent) not in card
    assert f"SHA-256: `{converted.checkpoint.sha256}`" in card
    assert "a cosine in [-1, 1]. Higher is better. It is not calibrated to opinion scores" in card
    model, processor = load_quality(str(directory))
    assert all(comparison.is_within(1e-6) for comparison in run_self_test(model, processor, directory))
    information = describe_checkpoint(str(directory))
    assert information["unit"] == "cosine in [-1, 1], not calibrated to opinion scores"
    assert information["signature"] == make_signature(model, processor, checkpoint=str(directory))
    assert (directory / "modeling_loda.py").is_file() and (model.config.score_offset, model.config.score_scale) == (
        0,
        1,
    )


def test_every_array_is_accounted_for_and_nothing_is_written(networks, tmp_path, capsys):
    learner = {
        "cross_attn.1.kv.weight": None,
        "up_proj.0.fc2.bias": torch.zeros(47),
        "gain": torch.ones(2),
        "head.weight": torch.zeros(48, 1, dtype=torch.int64),
    }
    path = save(
        tmp_path / "bad.pt", learner=learner, bn_buffer={"bn1.running_var": None, "bn9.running_var": torch.ones(1)}
    )
    sentence = refuse(capsys, path, tmp_path / "out", *words(networks))
    assert sentence == (
        f"{path} does not hold the arrays of one LoDa model: missing: bn_buffer/bn1.running_var (64,) missing: "
        "learner/cross_attn.1.kv.weight (32, 16) unknown: bn_buffer/bn9.running_var (1,) unknown: learner/gain (2,) "
        "wrong shape: learner/up_proj.0.fc2.bias (47,), expected (48,) wrong type: learner/head.weight int64, "
        "expected float32"
    )
    path = save(tmp_path / "sizes.pt", learner={"scale_factor": None, "conv.0.0.weight": torch.ones(16)})
    sentence = refuse(capsys, path, tmp_path / "out", *words(networks))
    assert (
        "missing: learner/scale_factor wrong shape: learner/conv.0.0.weight (16,), expected 4 dimensions" in sentence
    )
    path = save(tmp_path / "gap.pt", learner={"conv.3.0.weight": None, "conv.5.2.weight": torch.ones(1)})
    sentence = refuse(capsys, path, tmp_path / "out", *words(networks))
    assert sentence.endswith(": " + " ".join(f"missing: learner/conv.{stage}.0.weight" for stage in (3, 4, 5)))
    path = save(tmp_path / "nan.pt", learner={"head.weight": torch.full((48, 1), torch.nan)})
    assert "difference nan. Are all of the source's numbers finite" in refuse(
        capsys, path, tmp_path / "out", *words(networks)
    )
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.pt", "gap.pt", "nan.pt", "sizes.pt"]


class Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


def bad_files(folder):
    """File names and what is said about them."""
    whole = SOURCE.read_bytes()
    (folder / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "flipped.pt").write_bytes(whole[:200] + bytes(200) + whole[400:])
    place = whole.index(parts("tiny")["learner"]["head.weight"].numpy().tobytes())
    (folder / "value.pt").write_bytes(whole[:place] + b"?" + whole[place + 1 :])
    (folder / "empty.pt").touch()
    (folder / "noise.state").write_bytes(b"noise " * 100)
    torch.save({"learner": {"head.weight": Malicious()}, "bn_buffer": {}}, folder / "pickle.pt")
    torch.save(parts("tiny")["vit"], folder / "vit.pt")
    torch.save([1, 2], folder / "list.pt")
    torch.save({"learner": {}, "bn_buffer": {}}, folder / "bare.pt")
    torch.save({"learner": torch.ones(1), "bn_buffer": {}}, folder / "flat.pt")
    torch.save({"model": {"learner": {}, "bn_buffer": {}}, "ema": {}}, folder / "more.pt")
    save(folder / "half.pt", learner={"scale_factor": torch.ones(3, 48).half()})
    save(folder / "objects.pt", learner={"note": "text"}, date="today")
    other = "is not a LoDa checkpoint: it must hold `learner` and `bn_buffer`, or a training state with them under"
    return {
        **dict.fromkeys(("truncated.pt", "empty.pt", "noise.state"), "file of tensors: it is damaged"),
        **dict.fromkeys(("flipped.pt", "value.pt"), "is a damaged archive. Download or copy it again."),
        "pickle.pt": "holds pickled objects, which could run code and are refused",
        **dict.fromkeys(("vit.pt", "list.pt", "flat.pt"), other),
        "bare.pt": "missing: learner/scale_factor missing: learner/conv.0.0.weight",
        "more.pt": "must hold the arrays of one LoDa model, but has also: ema.",
        "half.pt": "must hold dense tensors of float32, got learner/scale_factor (float16). Save them as float32.",
        "objects.pt": "but has also: date, learner/note.",
        "absent.pt": "no such file, and not one of the published names",
    }


def test_bad_files_get_one_sentence_and_leave_no_folder(networks, tmp_path, capsys):
    for name, expected in bad_files(tmp_path).items():
        sentence = refuse(capsys, tmp_path / name, tmp_path / "out", *words(networks))
        assert expected in sentence, (name, sentence)
        assert not (tmp_path / "out").exists(), name


def test_content_decides_about_whole_files_and_the_ending_about_damaged_ones(tmp_path):
    shutil.copy(SOURCE, tmp_path / "weights.pth")
    assert converter_of_file(tmp_path / "weights.pth") is CONVERTERS["loda"]
    for name in ("damaged.pt", "damaged.state"):
        (tmp_path / name).write_bytes(b"noise")
        assert converter_of_file(tmp_path / name) is CONVERTERS["loda"]
    assert CONVERTERS["loda"].fetch("loda") is None


def test_networks_that_are_missing_or_of_other_sizes_are_refused(networks, tmp_path, capsys, monkeypatch):
    tiny, other = networks("tiny", "files"), networks("bottleneck", "files")
    output = tmp_path / "out"

    def say(vit=None, cnn=None, *more):
        given = [*(("--vit", vit) if vit else ()), *(("--cnn", cnn) if cnn else ()), *more]
        sentence = refuse(capsys, SOURCE, output, *given)
        assert not output.exists()
        return sentence

    heads = ("--num_attention_heads", 3)
    needed = "`--vit` and `--cnn` are needed. Each takes an id on the Hub, a folder, or a file of weights of timm."
    assert needed in say() and needed in say(tiny["vit"])
    assert "of 3 blocks of width 48, but `--vit " in say(other["vit"], tiny["cnn"], "--num_attention_heads", 2)
    channels = (
        "trained on maps of [64, 128, 256, 512] channels, which do not tell the stages of `--cnn`: its stages have"
    )
    assert f"{channels} [256, 512, 1024, 2048]" in say(tiny["vit"], other["cnn"], *heads)
    assert "holds no vision Transformer of timm" in say(tiny["cnn"], tiny["vit"], *heads)
    assert "holds no ResNet of timm" in say(tiny["vit"], tiny["vit"], *heads)
    assert "no multiple of 5 heads" in say(tiny["vit"], tiny["cnn"], "--num_attention_heads", 5)
    assert "`--cross_attention_heads` must divide the latent width 16, got 5" in say(
        tiny["vit"], tiny["cnn"], *heads, "--cross_attention_heads", 5
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for given in (("timm/some_vit", tiny["cnn"], *heads), (tiny["vit"], "timm/some_cnn", *heads)):
        wanted = next(name for name in given if name.startswith("timm/"))
        sentence = say(*given)
        assert sentence.startswith(f"{wanted}: there is no such folder, and no such model on the Hub that can be")
        assert "a folder in the format of Transformers or timm, or a file" in sentence and "command lines" in sentence


def test_heads_that_a_configuration_tells_are_not_given_otherwise(networks, tmp_path, capsys):
    vit, path = networks("three", "transformers")["vit"], tmp_path / "three.pt"
    torch.save({part: parts("three")[part] for part in ("learner", "bn_buffer")}, path)
    cnn = networks("three", "transformers")["cnn"]
    options = ["--vit", vit, "--cnn", cnn, "--num_attention_heads", 2, "--cross_attention_heads", 3]
    sentence = refuse(capsys, path, tmp_path / "out", *options)
    assert f"`--num_attention_heads 2` contradicts the configuration of {vit}, which has 3" in sentence


@pytest.mark.parametrize("part", ["vit", "cnn"])
def test_networks_that_are_damaged_are_refused(networks, tmp_path, capsys, part):
    found = dict(networks("tiny", "files"))
    first = {"vit": "pos_embed", "cnn": "conv1.weight"}[part]
    lacking = {name: value for name, value in parts("tiny")[part].items() if name != first}
    contents = {f"but it lacks: {first}.": lacking, "no weights that can be read": {"a": Malicious()}}
    contents["expected, but it has: "] = parts("tiny")[part] | {
        "blocks.0.ls1.gamma" if part == "vit" else "layer1.0.se.fc1.weight": torch.ones(48)
    }
    for expected, content in contents.items():
        found[part] = str(tmp_path / "weights.pth")
        torch.save(content, found[part])
        options = ["--vit", found["vit"], "--cnn", found["cnn"], "--num_attention_heads", 3]
        assert expected in refuse(capsys, SOURCE, tmp_path / "out", *options)
        assert not (tmp_path / "out").exists()


def test_options_of_another_family_are_refused(tmp_path, capsys):
    sentence = refuse(capsys, SOURCE, tmp_path / "out", "--hash_grid_size", 5)
    assert "is a loda checkpoint, whose converter has no `--hash_grid_size`. Leave that out." in sentence
    sentence = refuse(capsys, tmp_path, tmp_path / "back.pt", "--to_original", "--vit", "a")
    assert "`--to_original` takes no other argument, got --vit." in sentence


@pytest.mark.parametrize(
    ("available", "wanted", "expected"),
    [
        ([64, 128, 256, 512], [64, 128, 256, 512], [0, 1, 2, 3]),
        ([64, 128, 256, 512], [128, 512], [1, 3]),
        ([8, 8], [8, 8], [0, 1]),
        ([8, 8, 16], [8, 16], "several stages have them"),
        ([8, 16], [16, 8], r"its stages have \[8, 16\]"),
        ([8, 16], [8, 16, 16], r"its stages have \[8, 16\]"),
    ],
)
def test_stages_are_chosen_by_their_channels(available, wanted, expected):
    if isinstance(expected, list):
        assert choose_stages(available, wanted) == expected
    else:
        with pytest.raises(ValueError, match=expected):
            choose_stages(available, wanted)


def test_table_of_names_covers_a_learner_and_names_each_of_ours_once():
    names = list_names(4, 3)
    assert names.keys() == parts("tiny")["learner"].keys()
    ours = [name for several in names.values() for name in several]
    assert len(ours) == len(set(ours))


def small_loda(folder, **fields):
    """Save a small LoDa with random weights."""
    settings = json.loads((golden.DIRECTORY.parent / "models" / "loda" / "tiny.json").read_text())
    torch.manual_seed(0)
    model = LodaForImageQualityAssessment(LodaConfig(**settings | fields))
    model.save_pretrained(folder)
    LodaImageProcessor.from_config(model.config).save_pretrained(folder)
    return folder


def test_to_original_refuses_what_the_original_cannot_hold(tmp_path, capsys):
    few = small_loda(tmp_path / "few", interaction_layers=[1])
    convnext = {"model_type": "convnext", "depths": [1, 1], "hidden_sizes": [8, 12], "num_stages": 2}
    whole = small_loda(tmp_path / "whole", cnn_config=convnext | {"out_features": ["stage1", "stage2"]})
    bare = small_loda(tmp_path / "bare")
    output = tmp_path / "back.pt"
    capsys.readouterr()  # progress of saving
    sentence = refuse(capsys, few, output, "--to_original")
    assert "adds local features before 1 of its 2 blocks, but the original's program does so before every" in sentence
    assert "ends in .pt, got" in refuse(capsys, bare, tmp_path / "back.pth", "--to_original")
    (tmp_path / "there.pt").touch()
    assert "exists. Choose another name" in refuse(capsys, bare, tmp_path / "there.pt", "--to_original")
    assert not output.exists()
    assert to_original(whole, output) == len(list_names(2, 2))  # a ConvNeXt has no statistics
    assert torch.load(output, weights_only=True)["bn_buffer"] == {}
    config = read_json(bare / "config.json")
    (bare / "config.json").write_text(json.dumps(config | {"architectures": ["LodaModel"]}))
    assert "must name one of" in refuse(capsys, bare, tmp_path / "no.pt", "--to_original")


def test_a_checkpoint_whose_networks_were_trained_too_goes_there_and_back(tmp_path):
    """The counters of batch norms stay whole numbers, also beside weights of 16 bits, which end at 65,504."""
    start = small_loda(tmp_path / "start")
    counter = "loda.cnn.embedder.embedder.normalization.num_batches_tracked"
    state = load_file(start / "model.safetensors")
    save_file(state | {counter: torch.tensor(70_000)}, start / "model.safetensors", metadata={"format": "pt"})
    lines = ["image,mos,split"]
    for index in range(12):
        Image.new("RGB", (40, 44), (20 * index, 9 * index, 99)).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{index},{'train' if index < 8 else 'validation'}")
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    words = {"model": start, "data": tmp_path / "scores.csv", "output_dir": tmp_path / "trained", "epochs": 1}
    words |= {"batch_size": 8, "freeze": "none", "save_dtype": "float16", "learning_rate": 0.1}
    assert main(["finetune", *(word for name, value in words.items() for word in (f"--{name}", str(value)))]) == 0
    trained, _ = load_quality(str(tmp_path / "trained"))
    assert trained.state_dict()[counter] == 70_001
    assert main(["convert", str(tmp_path / "trained"), str(tmp_path / "back.pt"), "--to_original"]) == 0
    options = ["--cross_attention_heads", "2", "--token_grid_size", "3"]
    for name in ("vit", "cnn"):
        getattr(trained.loda, name).save_pretrained(tmp_path / name)
        options += [f"--{name}", str(tmp_path / name)]
    assert main(["convert", str(tmp_path / "back.pt"), str(tmp_path / "again"), *options]) == 0
    again = load_quality(str(tmp_path / "again"))[0].state_dict()
    assert again.keys() == trained.state_dict().keys()
    for name, value in trained.state_dict().items():
        assert again[name].dtype == value.dtype and torch.equal(again[name], value), name


def test_a_calibrated_checkpoint_gives_back_the_same_arrays(converted, tmp_path):
    directory = shutil.copytree(converted.directory, tmp_path / "calibrated")
    config = read_json(directory / "config.json")
    (directory / "config.json").write_text(json.dumps(config | {"score_offset": 50.0, "score_scale": 20.0}))
    to_original(directory, tmp_path / "back.pt")
    check_back(tmp_path / "back.pt", "tiny")


def test_each_door_shows_its_own_name(capsys):
    assert (
        "\npython -m conversion.convert_loda_checkpoint loda_koniq.pt"
        in build_parser("convert_loda_checkpoint").format_help()
    )
    with pytest.raises(SystemExit):
        door(["--help"], door="convert_loda_checkpoint")
    printed = capsys.readouterr().out
    assert "--vit" in printed and "convert_musiq_checkpoint" not in printed


def test_a_network_keeps_what_its_chosen_stages_need(tmp_path):
    config = ConvNextConfig(depths=[1, 1], hidden_sizes=[8, 12], num_stages=2, out_features=["stage1", "stage2"])
    AutoBackbone.from_config(config).save_pretrained(tmp_path)
    chosen = load_cnn(str(tmp_path), [12])
    assert chosen.out_features == ["stage2"] and chosen.channels == [12]
