# SPDX-License-Identifier: Apache-2.0
import functools
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import golden
import musiq_golden_ckpt
import numpy as np
import pytest
import torch
from fake_hub import TOKEN, FakeHub
from huggingface_hub import HfApi, ModelCard, constants
from isolated import run_isolated
from places import ROOT
from transformers import AutoImageProcessor, AutoModel

from musiq_hf import MusiqForImageClassification
from musiq_hf.common.files import read_json
from musiq_hf.conversion import command
from musiq_hf.conversion import musiq as converter
from musiq_hf.conversion.checkpoints import read_checkpoint
from musiq_hf.conversion.command import main
from musiq_hf.conversion.infer_config import Flags
from musiq_hf.conversion.key_mapping import ORIGINAL, PYIQA, from_ours, to_ours
from musiq_hf.conversion.musiq import convert
from musiq_hf.conversion.original import to_original

CONFIGURATIONS = ROOT / "configuration" / "checkpoints"
PICTURE = "p12_27x192"
FLAGS = {
    "noscale1": Flags(longer_side_lengths=[224, 384]),
    "four1": Flags(longer_side_lengths=[512, 224, 384]),
    "resized_only1": Flags(longer_side_lengths=[384, 224], use_native_resolution=False),
}
REMOTE_KEYS = {"auto_map", "custom_pipelines"}


def golden_arrays(name, **changes):
    """Arrays of a golden checkpoint with its prefix; a change of None leaves one out."""
    arrays = golden.checkpoint_arrays(name) | {golden.ORIGINAL_PREFIX + key: value for key, value in changes.items()}
    return {key: value for key, value in arrays.items() if value is not None}


def save_npz(path, arrays):
    np.savez(path, **arrays)
    return path


def pyiqa_state(name):
    """A golden checkpoint as pyiqa would hold it, with the softmax of its heads for distributions."""
    arrays = {key.removeprefix(golden.ORIGINAL_PREFIX): value for key, value in golden.checkpoint_arrays(name).items()}
    ours, _ = to_ours(arrays, source=ORIGINAL)
    state, _ = from_ours(ours, target=PYIQA, num_attention_heads=musiq_golden_ckpt.get(name)["heads"])
    several = len(state["head.bias"]) > 1
    return {
        (key.replace("head.", "head.0.") if several else key): torch.from_numpy(np.ascontiguousarray(value))
        for key, value in state.items()
    }


def run(capsys, *words):
    """Run the command; returns status and standard error, and checks that a failure is one line without traceback."""
    status = main([str(word) for word in words])
    error = capsys.readouterr().err
    if status:
        assert error.startswith("convert: ") and "Traceback" not in error
    return status, error


def check_logits(directory, name, picture=PICTURE):
    processor, model = AutoImageProcessor.from_pretrained(directory), AutoModel.from_pretrained(directory)
    with torch.no_grad():
        output = model.eval()(**processor(golden.pixels(picture)))
    expected = golden.arrays(f"outputs_{name}")
    golden.check(output.logits[0], expected[f"{picture}/logits"], golden.LOGIT_TOLERANCE, name)
    golden.check(output.scores[0], expected[f"{picture}/score"], golden.LOGIT_TOLERANCE, name)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """Convert a golden checkpoint by name, once per module."""
    folder = tmp_path_factory.mktemp("converted")

    @functools.cache
    def make(name):
        path = save_npz(folder / f"{name}.npz", golden.checkpoint_arrays(name))
        return convert(path, folder / name, flags=FLAGS.get(name))

    return make


@pytest.mark.parametrize("name", [name for name in golden.SMALL if name not in ("small1", "small10", "eps1")])
def test_converted_checkpoint_gives_the_golden_logits(converted, name):
    conversion = converted(name)
    expected = golden.config(name)
    for field in (*expected.to_dict(), "num_labels"):
        if field not in ("architectures", "id2label", "label2id", "score_range", "dtype", "transformers_version"):
            assert getattr(conversion.config, field) == getattr(expected, field), field
    assert conversion.largest_difference <= 1e-6
    check_logits(conversion.directory, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("checkpoint", "name"), [("full1", "koniq"), ("full10", "ava"), ("full1_single", "spaq-single")]
)
def test_published_architecture_end_to_end(tmp_path, checkpoint, name):
    path = save_npz(tmp_path / "original.npz", golden.checkpoint_arrays(checkpoint))
    conversion = convert(path, tmp_path / "out", name=f"musiq-{name}")
    assert conversion.largest_difference <= 1e-6
    check_logits(tmp_path / "out", checkpoint, "p10_gray_96x128")
    for file in ("config.json", "preprocessor_config.json"):
        ours = read_json(tmp_path / "out" / file)
        assert {k: v for k, v in ours.items() if k not in REMOTE_KEYS} == read_json(
            CONFIGURATIONS / f"musiq-{name}" / file
        )
    to_original(tmp_path / "out", tmp_path / "back.npz")
    assert read_checkpoint(tmp_path / "back.npz").arrays.keys() == conversion.checkpoint.arrays.keys()
    for key, value in read_checkpoint(tmp_path / "back.npz").arrays.items():
        assert value.tobytes() == conversion.checkpoint.arrays[key].tobytes(), key


def test_imagenet_checkpoint_becomes_a_classifier(tmp_path):
    arrays = musiq_golden_ckpt.build(musiq_golden_ckpt.config(16, 2, 2, 32, 1000))
    conversion = convert(save_npz(tmp_path / "imagenet.npz", arrays), tmp_path / "out", name="musiq-imagenet")
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert type(model) is MusiqForImageClassification and model.config.num_labels == 1000
    config = read_json(tmp_path / "out" / "config.json")
    assert config["num_labels"] == 1000 and not {"id2label", "score_range", "custom_pipelines"} & {
        name for name, value in config.items() if value is not None
    }
    assert conversion.largest_difference <= 1e-5
    assert "predicts no quality" in (tmp_path / "out" / "README.md").read_text()
    to_original(tmp_path / "out", tmp_path / "back.npz")
    back = read_checkpoint(tmp_path / "back.npz").arrays
    assert all(back[key].tobytes() == value.tobytes() for key, value in conversion.checkpoint.arrays.items())


def test_labels_are_named(converted):
    one, ten = converted("small1_single").config, converted("tiny10").config
    assert one.id2label == {0: "MOS"} and ten.id2label == {index: str(index + 1) for index in range(10)}
    assert one.score_range is None and ten.score_range == [1, 10]


def test_directory_holds_weights_configs_card_and_code(converted):
    conversion = converted("tiny10")
    files = {path.name for path in conversion.directory.iterdir()}
    code = {"handler.py", *(path.name for path in (ROOT / "musiq_hf/models/musiq").glob("*_musiq.py"))}
    data = {"config.json", "preprocessor_config.json", "model.safetensors", "README.md", "self_test.json"}
    assert files == data | code
    config = read_json(conversion.directory / "config.json")
    assert config["dtype"] == "float32" and config["architectures"] == ["MusiqForImageQualityAssessment"]
    card = ModelCard.load(conversion.directory / "README.md").content
    digest = hashlib.sha256(conversion.checkpoint.path.read_bytes()).hexdigest()
    assert digest in card and f"{conversion.largest_difference:.1e}" in card and "# tiny10" in card


def test_card_of_a_published_name_tells_its_peculiarity(converted):
    source = converted("small1_single")
    words = {
        "musiq-spaq": "shorter side of 512 pixels",
        "koniq-single": "Which split of KonIQ-10k",
        "mine": "Not known",
    }
    for name, needed in words.items():
        assert needed in converter.model_card(name, source.checkpoint, source.config, 0.0).render()


def test_optimizer_state_is_left_out_knowingly(tmp_path, converted):
    conversion = convert(golden.DIRECTORY / "golden" / "ckpt_tiny10_opt.npz", tmp_path / "out")
    assert conversion.checkpoint.num_optimizer_arrays == 57
    assert "57 of the optimizer's state left out" in conversion.report()
    weights = [(path / "model.safetensors").read_bytes() for path in (tmp_path / "out", converted("tiny10").directory)]
    assert weights[0] == weights[1]
    assert "left out" not in converted("tiny10").report()


def test_report_says_what_was_found(converted):
    conversion = converted("four1")
    report = conversion.report()
    for needed in (
        conversion.checkpoint.sha256,
        "56 with 352,881 parameters",
        "width 16, layers 2, heads 2, MLP 32",
        "scales 224 384 512 native",
        f"{conversion.largest_difference:.1e}",
        str(conversion.directory),
    ):
        assert needed in report
    assert len(report.splitlines()) <= 8


@pytest.mark.parametrize(("name", "wrap"), [("small1_single", False), ("tiny10", True)])
def test_pth_of_pyiqa_gives_the_golden_logits(tmp_path, name, wrap):
    state = pyiqa_state(name)
    torch.save({"params": state} if wrap else state, tmp_path / "pyiqa.pth")
    heads = musiq_golden_ckpt.get(name)["heads"]
    conversion = convert(tmp_path / "pyiqa.pth", tmp_path / "out", flags=Flags(num_attention_heads=heads))
    check_logits(conversion.directory, name)
    assert "differ from pyiqa's" in (tmp_path / "out" / "README.md").read_text()


def test_half_precision_arrays_are_widened(tmp_path, converted):
    arrays = {key: value.astype(np.float16) for key, value in golden.checkpoint_arrays("tiny10").items()}  # exact
    convert(save_npz(tmp_path / "half.npz", arrays), tmp_path / "npz")
    torch.save({key: value.half() for key, value in pyiqa_state("tiny10").items()}, tmp_path / "half.pth")
    convert(tmp_path / "half.pth", tmp_path / "pth", flags=Flags(num_attention_heads=2))
    expected = (converted("tiny10").directory / "model.safetensors").read_bytes()
    assert all((tmp_path / kind / "model.safetensors").read_bytes() == expected for kind in ("npz", "pth"))


@pytest.mark.parametrize("name", ["tiny10", "sinusoid1"])
def test_to_original_is_bit_identical(converted, tmp_path, name):
    original, back = golden.checkpoint_arrays(name), tmp_path / "back.npz"
    assert to_original(converted(name).directory, back) == len(original)
    with np.load(back) as file:
        assert sorted(file) == sorted(original)
        for key, value in original.items():
            assert file[key].dtype == np.float32 and file[key].shape == value.shape
            assert file[key].tobytes() == value.tobytes(), key
    assert [path.name for path in tmp_path.iterdir()] == ["back.npz"]


@pytest.mark.parametrize("name", ["tiny10", "small1_single", "sinusoid1"])
def test_the_way_back_to_pyiqa_is_bit_identical(converted, tmp_path, name):
    state, back = pyiqa_state(name), tmp_path / "back.pth"
    assert to_original(converted(name).directory, back) == len(state)
    found = torch.load(back, weights_only=True)
    assert sorted(found) == sorted(state)
    assert all(torch.equal(found[key], value) and found[key].shape == value.shape for key, value in state.items())
    heads = musiq_golden_ckpt.get(name)["heads"]
    flags = Flags(num_attention_heads=heads, longer_side_lengths=converted(name).config.longer_side_lengths)
    again = convert(back, tmp_path / "again", flags=flags)
    weights = [(one.directory / "model.safetensors").read_bytes() for one in (again, converted(name))]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("name", ["back", "back.pt", "back.safetensors", "back.npz.gz"])
def test_the_way_back_writes_no_other_kind_of_file(converted, tmp_path, name):
    with pytest.raises(ValueError, match=f"The original's file ends in .npz, and pyiqa's in .pth, got .*{name}"):
        to_original(converted("tiny10").directory, tmp_path / name)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("file", "name", "message"),
    [
        (
            "small1_single",
            "musiq-ava",
            "'musiq-ava' is a published .* 10 label.* several scales, but this file has 1 and",
        ),
        (
            "tiny10",
            "you/musiq-koniq",
            r"with 1 label\(s\) and several scales, but this file has 10 and 3. Give another",
        ),
        ("small1_single", "koniq", r"with 1 label\(s\) and several scales, but this file has 1 and 1."),
        ("tiny10", "imagenet", r"with 1000 label\(s\) and several scales, but this file has 10 and 3."),
        ("tiny10", "musiq-ava-single", r"with 10 label\(s\) and one scale, but this file has 10 and 3."),
    ],
)
def test_a_published_name_needs_a_checkpoint_of_its_kind(tmp_path, file, name, message):
    path = save_npz(tmp_path / "own.npz", golden.checkpoint_arrays(file))
    with pytest.raises(ValueError, match=message):
        convert(path, tmp_path / "out", name=name)
    assert not (tmp_path / "out").exists()


def test_to_original_works_the_scale_of_scores_into_the_head(tmp_path, tiny_model, tiny_config):
    sizes = {"patch_encoder_width": 32, "patch_encoder_groups": 32, "score_offset": 40, "score_scale": 7.5}
    model = tiny_model(**sizes)
    model.save_pretrained(tmp_path / "hf")
    to_original(tmp_path / "hf", tmp_path / "out.npz")
    lengths = tiny_config().longer_side_lengths
    back = convert(tmp_path / "out.npz", tmp_path / "back", flags=Flags(longer_side_lengths=lengths))
    assert (back.config.score_offset, back.config.score_scale, back.config.patch_size) == (0, 1, 8)
    processor = AutoImageProcessor.from_pretrained(back.directory)
    inputs = processor(golden.pixels("p05_97x61"))
    with torch.no_grad():
        scores = [one.eval()(**inputs).scores for one in (model, AutoModel.from_pretrained(back.directory))]
    assert scores[0].item() == pytest.approx(scores[1].item(), abs=1e-4)
    assert abs(scores[0].item()) > 1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"patch_encoder_width": 8, "patch_encoder_groups": 4}, "has no {'patch_encoder_groups': 4}"),
        ({"patch_encoder": "linear", "layer_norm_eps": 1e-5}, "has no {'layer_norm_eps': 1e-05}"),
        ({"patch_encoder": "linear", "spatial_embedding": "none"}, "has no {'spatial_embedding': 'none'}"),
        ({"patch_encoder": "linear", "pooling": "cls+covariance"}, "has no {'pooling': 'cls\\+covariance'}"),
    ],
)
def test_to_original_refuses_what_the_original_cannot_compute(tmp_path, tiny_model, overrides, message):
    tiny_model(**overrides).save_pretrained(tmp_path / "hf")
    with pytest.raises(ValueError, match=message):
        to_original(tmp_path / "hf", tmp_path / "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_to_original_needs_a_whole_directory_and_a_new_file(converted, tmp_path):
    with pytest.raises(ValueError, match=r"out.npz exists\. Choose another name"):
        (tmp_path / "out.npz").touch()
        to_original(converted("tiny10").directory, tmp_path / "out.npz")
    with pytest.raises(ValueError, match="not a Hugging Face directory: it holds no config.json"):
        to_original(tmp_path, tmp_path / "other.npz")
    broken = shutil.copytree(converted("tiny10").directory, tmp_path / "broken")
    config = read_json(broken / "config.json")
    (broken / "config.json").write_text(json.dumps(config | {"pre_logits_size": 5}))
    with pytest.raises(ValueError, match=r"of a wrong shape head.classifier.weight \(10, 12\)"):
        to_original(broken, tmp_path / "other.npz")
    (broken / "config.json").write_text(json.dumps(config | {"architectures": ["MusiqModel"]}))
    with pytest.raises(ValueError, match=r"must name one of .*, got MusiqModel"):
        to_original(broken, tmp_path / "other.npz")


def test_every_array_is_accounted_for_and_nothing_is_written(tmp_path):
    changes = {
        "Transformer/cls": None,
        "Transformer/encoderblock_1/LayerNorm_2/bias": None,
        "head/gain": np.zeros(3, np.float32),
        "Transformer/encoder_norm/scale": np.zeros(13, np.float32),
        "head/bias": np.zeros(10, np.int64),
    }
    path = save_npz(tmp_path / "bad.npz", golden_arrays("tiny10", **changes) | {"step": np.zeros(1)})
    with pytest.raises(ValueError, match="does not hold the arrays of one MUSIQ model") as caught:
        convert(path, tmp_path / "parent" / "out")
    assert sorted(line.strip() for line in str(caught.value).splitlines()[1:]) == [
        "missing: Transformer/cls (1, 1, 12)",
        "missing: Transformer/encoderblock_1/LayerNorm_2/bias (12,)",
        "unknown: head/gain (3,)",
        "unknown: step",
        "wrong shape: Transformer/encoder_norm/scale (13,), expected (12,)",
        "wrong type: head/bias int64, expected float32",
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["bad.npz"]


def test_failure_after_writing_leaves_nothing_either(tmp_path):
    arrays = golden_arrays("tiny10")
    arrays["opt/target/head/bias"] = np.full(10, np.nan, np.float32)
    with pytest.raises(ValueError, match="largest difference nan. Are all of the source's numbers finite"):
        convert(save_npz(tmp_path / "nan.npz", arrays), tmp_path / "out")
    assert [file.name for file in tmp_path.iterdir()] == ["nan.npz"]


class Malicious:
    def __reduce__(self):
        return (print, ("code ran",))


def bad_files(folder):
    """File names and what is said about them."""
    whole = save_npz(folder / "whole.npz", golden.checkpoint_arrays("tiny10")).read_bytes()
    (folder / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    (folder / "flipped.npz").write_bytes(whole[:5000] + bytes(100) + whole[5100:])
    np.savez(folder / "objects.npz", **{"opt/target/head/bias": np.array([Malicious()], dtype=object)})
    np.savez(folder / "other.npz", weight=np.zeros(3), bias=np.zeros(3))
    (folder / "noise.pth").write_bytes(b"noise " * 100)
    torch.save({"head.weight": Malicious()}, folder / "pickle.pth")
    torch.save([1, 2], folder / "list.pth")
    torch.save({"weight": torch.zeros(3)}, folder / "foreign.pth")
    return {
        "truncated.npz": "cannot be read as an .npz of plain arrays: it is damaged",
        "flipped.npz": "cannot be read as an .npz of plain arrays: it is damaged",
        "objects.npz": "holds Python objects, which are refused",
        "other.npz": "is not a MUSIQ checkpoint: it has no array `opt/target/...`, but weight, bias",
        "noise.pth": "cannot be read as a file of tensors: it is damaged",
        "pickle.pth": "holds pickled objects, which could run code and are refused",
        "list.pth": "must hold a state dict, names and tensors",
        "foreign.pth": "These are not the arrays of a MUSIQ model",
        "absent.npz": "no such file, and not one of the published names koniq, koniq-single",
        ".": "is a directory. Give the .npz or .pth or .pt or .state or .ckpt file",
    }


def test_bad_files_get_one_sentence(tmp_path, capsys):
    for name, words in bad_files(tmp_path).items():
        status, error = run(capsys, tmp_path / name, tmp_path / "out")
        assert status == 2 and words in error, name
        assert len(error.splitlines()) == 1 and "code ran" not in error, name
        assert not (tmp_path / "out").exists(), name


def test_command_line_there_and_back(tmp_path, capsys):
    path = save_npz(tmp_path / "four.npz", golden.checkpoint_arrays("four1"))
    words = ["--longer-side-lengths", 512, 224, 384, "--name", "musiq-paq2piq"]
    assert main([str(word) for word in (path, tmp_path / "hf", *words)]) == 0
    assert f"written   {tmp_path / 'hf'}" in capsys.readouterr().out
    config = read_json(tmp_path / "hf" / "config.json")
    assert (config["longer_side_lengths"], config["score_range"]) == ([224, 384, 512], [0, 100])
    assert run(capsys, tmp_path / "hf", tmp_path / "back.npz", "--to_original")[0] == 0
    with np.load(tmp_path / "back.npz") as back, np.load(path) as original:
        assert all(back[key].tobytes() == original[key].tobytes() for key in original) and len(back) == len(original)
    status, error = run(capsys, path, tmp_path / "hf", *words)
    assert status == 2 and "exists and is not an empty directory" in error
    status, error = run(capsys, path, tmp_path / "wrong", "--num_attention_heads", 4, *words)
    assert status == 2 and "`--num_attention_heads 4` contradicts" in error
    (tmp_path / "empty").mkdir()
    assert run(capsys, path, tmp_path / "empty", *words)[0] == 0


@pytest.mark.slow
def test_wheel_layout_runs_and_its_directory_loads_as_remote_code(tmp_path, capfd):
    site = tmp_path / "site"
    ignore = shutil.ignore_patterns("__pycache__", "checkpoints")
    shutil.copytree(ROOT / "musiq_hf", site / "musiq_hf", ignore=ignore)
    path = save_npz(tmp_path / "tiny10.npz", golden.checkpoint_arrays("tiny10"))
    words = [sys.executable, "-m", "musiq_hf.cli", "convert", path, tmp_path / "out"]
    done = subprocess.run(words, cwd=site, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "56 with 285,134 parameters" in done.stdout and done.stderr == ""
    result = run_isolated(
        'result |= load("out", trust_remote_code=True)',
        home=tmp_path / "home",
        cwd=tmp_path,
        picture=golden.path(PICTURE),
        package=False,
    )
    expected = pytest.approx(float(golden.arrays("outputs_tiny10")[f"{PICTURE}/score"]), abs=1e-4)
    assert result["AutoModel"]["scores"] == [expected] and result["image-quality-assessment"] == expected
    assert result["AutoModelForImageClassification"]["module"].startswith("transformers_modules.")


@pytest.mark.slow
def test_module_runs_in_a_clone(tmp_path):
    path = golden.DIRECTORY / "golden" / "ckpt_tiny10.npz"
    words = [sys.executable, "-m", "conversion.convert_musiq_checkpoint", path, tmp_path / "out"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "written" in done.stdout and done.stderr == ""


def test_converted_directory_needs_no_trust_where_the_package_is_imported(converted):
    model = AutoModel.from_pretrained(converted("tiny10").directory)
    assert type(model).__module__ == "musiq_hf.models.musiq.modeling_musiq"


def test_push_uploads_the_directory(converted, monkeypatch, capsys):
    directory = converted("tiny10").directory
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with FakeHub() as hub:
        monkeypatch.setattr(command, "HfApi", functools.partial(HfApi, endpoint=hub.url, token=TOKEN))
        assert command.push(directory, "someone/musiq-mine") == f"{hub.url}/someone/musiq-mine"
        pushed = hub.files("someone/musiq-mine")
        local = {path.name: path.read_bytes() for path in directory.iterdir()}
        command.push(directory, "us/mine")
        again = hub.files("us/mine")["README.md"]
    assert {name: pushed[name] for name in pushed if name != ".gitattributes"} == local
    assert b'model="someone/musiq-mine"' in pushed["README.md"]
    assert again == pushed["README.md"].replace(b'model="someone/musiq-mine"', b'model="us/mine"')


@pytest.mark.parametrize("repo_id", ["someone/musiq-mine", "not a/repository/id"])
def test_failed_push_keeps_the_directory(tmp_path, monkeypatch, capsys, repo_id):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    with FakeHub() as hub:
        monkeypatch.setattr(command, "HfApi", functools.partial(HfApi, endpoint=hub.url, token="hf_wrong"))
        path = golden.DIRECTORY / "golden" / "ckpt_tiny10.npz"
        status, error = run(capsys, path, tmp_path / "out", "--push_to_hub", repo_id)
    assert status == 2 and f"{repo_id} could not be pushed (" in error and "push it later" in error
    assert len(error.splitlines()) == 1
    check_logits(tmp_path / "out", "tiny10")


def test_published_name_is_downloaded_and_names_the_checkpoint(monkeypatch, tmp_path, capsys):
    path = golden.DIRECTORY / "golden" / "ckpt_tiny10.npz"
    monkeypatch.setattr(converter, "download", {"ava": path}.get)
    assert run(capsys, "musiq-ava", tmp_path / "out")[0] == 0
    assert "# musiq-ava\n" in (tmp_path / "out" / "README.md").read_text()
    (tmp_path / "ava").write_bytes(path.read_bytes())
    monkeypatch.chdir(tmp_path)  # a file of that name comes first
    assert command.resolve("ava") == (Path("ava"), None)


def test_the_way_back_takes_no_argument_of_the_way_there(tmp_path, capsys):
    assert main([str(tmp_path), str(tmp_path / "o.npz"), "--to_original", "--push_to_hub", "a/b", "--name", "n"]) == 2
    assert "`--to_original` takes no other argument, got --name, --push_to_hub" in capsys.readouterr().err
