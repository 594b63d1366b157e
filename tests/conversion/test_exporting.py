# SPDX-License-Identifier: Apache-2.0
import contextlib
import io
import json
import sys

import pytest
import torch
from transformers import pipeline

from musiq_hf import DEFAULT_CHECKPOINT, MusiqForImageClassification, MusiqImageProcessor
from musiq_hf.cli import main
from musiq_hf.conversion import exporting as script
from musiq_hf.models.musiq.configuration_musiq import RESNET_FIELDS

FIXED = {"spatial_embedding": "fixed", "max_native_patches": 20, "longer_side_lengths": (16,)}
# Every field that changes the graph, first several of them at once.
VARIANTS = {
    "conv, sinusoid": {
        "patch_encoder": "conv",
        "spatial_embedding": "sinusoid",
        "score_offset": 50,
        "score_scale": 20,
    },
    # Needs no ids: nothing but the signature keeps them as inputs.
    "linear, no embeddings, covariance": {
        "patch_encoder": "linear",
        "spatial_embedding": "none",
        "use_scale_embedding": False,
        "pre_logits_size": 12,
        "pooling": "cls+covariance",
        "covariance_size": 8,
    },
    "efficientnet, fixed": {
        **RESNET_FIELDS,
        **{"patch_encoder": "efficientnet_lite0", "patch_encoder_stages": 4},
        **FIXED,
    },
}
SINGLE_FIELDS = {
    "covariance": {"pooling": "cls+covariance", "covariance_size": 8},
    "efficientnet": RESNET_FIELDS | {"patch_encoder": "efficientnet_lite0", "patch_encoder_stages": 4},
    "fixed": FIXED,
    "distribution": {"num_labels": 10, "score_range": (1, 10)},
    "no scale embedding": {"use_scale_embedding": False},
    "no spatial embedding": {"spatial_embedding": "none"},
    "sinusoid": {"spatial_embedding": "sinusoid"},
    "linear": {"patch_encoder": "linear"},
    "conv": {"patch_encoder": "conv"},
    "deeper resnet": {"patch_encoder_depth": 8},
    "pre-logits": {"pre_logits_size": 12},
    "one scale": {"longer_side_lengths": ()},
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_model):
    """A tiny checkpoint of a distribution, as a directory."""
    folder, model = tmp_path_factory.mktemp("tiny"), tiny_model(num_labels=5, score_range=(1, 5))
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return folder


def command(*words):
    """Run `musiq export` with arguments; returns its exit code."""
    return main(["export", *map(str, words)])


@pytest.fixture(scope="module")
def archive(tmp_path_factory, checkpoint):
    """The tiny checkpoint as an archive, by the command, and the report on it."""
    path, printed = tmp_path_factory.mktemp("archive") / "new" / "model.pt2", io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert command(checkpoint, path) == 0
    return path, json.loads(printed.getvalue())


@pytest.fixture(scope="module")
def program(archive):
    """The graph of the tiny checkpoint."""
    return torch.export.load(archive[0])


@pytest.fixture(scope="module")
def onnx_file(tmp_path_factory, checkpoint):
    """The tiny checkpoint as ONNX, and the report on it."""
    path = tmp_path_factory.mktemp("onnx") / "new" / "model.onnx"
    model, _ = script.load_quality(str(checkpoint))
    return path, script.export(model, path)


def deviations(model, runners, *, shapes):
    """Largest deviation of a score on sequences of the given (batch_size, length), by runtime."""
    batches = [script.make_random_batch(model.config, batch_size=rows, length=length) for rows, length in shapes]
    with torch.no_grad():
        return {
            name: max(float((run(batch) - model(**batch).scores).abs().max()) for batch in batches)
            for name, run in runners.items()
        }


def test_random_batches_are_padded_sequences_of_valid_ids(tiny_config):
    config = tiny_config(spatial_embedding="fixed", max_native_patches=3)
    batch = script.make_random_batch(config, batch_size=4, length=40)
    assert list(batch) == MusiqImageProcessor.model_input_names
    assert batch["pixel_attention_mask"].sum(dim=1).tolist() == [40, 27, 14, 1]
    assert batch["pixel_attention_mask"].diff(dim=1).max() == 0  # padding at the end alone
    assert batch["spatial_position_ids"].max() == config.num_spatial_positions - 1
    assert batch["scale_position_ids"].unique().tolist() == [0, 1, 2]
    assert batch["pixel_values"].abs().max() <= 1


@pytest.mark.parametrize("variant", VARIANTS)
def test_program_of_every_variant_takes_any_batch_and_length(variant, tiny_model):
    model = tiny_model(**VARIANTS[variant])
    runners = {"program": script.make_program_runner(script.export_program(model))}
    # 1, the sizes of the example, and larger and smaller ones.
    found = deviations(model, runners, shapes=((1, 1), (1, 7), (3, 1), (3, 7), (2, 40), (9, 5)))
    assert found["program"] < 1e-4
    # The model is left as it was.
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not model.training


def test_onnx_file_runs_batches_and_lengths_that_it_never_saw(checkpoint, onnx_file):
    pytest.importorskip("onnxruntime")
    path, report = onnx_file
    assert report["output"] == str(path) and set(report["largest_deviation"]) == {"torch.export", "onnxruntime"}
    assert max(report["largest_deviation"].values()) < 4e-4
    assert [file.name for file in path.parent.iterdir()] == ["model.onnx"]
    model, _ = script.load_quality(str(checkpoint))
    found = deviations(
        model, {"file": script.make_onnx_runner(path)}, shapes=((1, 1), (1, 2), (4, 1), (7, 33), (2, 150))
    )
    assert found["file"] < 1e-4


def test_onnx_file_scores_what_the_image_processor_returns(checkpoint, onnx_file, pictures):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(onnx_file[0])
    named = {node.name: node.shape for node in (*session.get_inputs(), *session.get_outputs())}
    axes = ["batch", "sequence"]
    assert named == {
        "pixel_values": [*axes, 8 * 8 * 3],
        "pixel_attention_mask": axes,
        "spatial_position_ids": axes,
        "scale_position_ids": axes,
        "logits": ["batch", 5],
        "scores": ["batch"],
    }
    scorer = pipeline("image-quality-assessment", model=str(checkpoint))
    wanted = [scorer(picture)["score"] for picture in pictures]
    processor = MusiqImageProcessor.from_pretrained(checkpoint)
    for images, expected in ((pictures, wanted), (pictures[2], wanted[2:3])):
        logits, scores = session.run(["logits", "scores"], dict(processor(images, return_tensors="np")))
        assert logits.shape == (len(expected), 5)
        assert scores.tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS | SINGLE_FIELDS)
def test_onnx_file_of_every_variant(variant, tiny_model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    model = tiny_model(**(VARIANTS | SINGLE_FIELDS)[variant])
    report = script.export(model, tmp_path / "model.onnx")
    assert report["largest_deviation"]["onnxruntime"] < 1e-4
    names = [node.name for node in onnxruntime.InferenceSession(tmp_path / "model.onnx").get_inputs()]
    assert names == MusiqImageProcessor.model_input_names


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_command_exports_the_embedded_checkpoint(suffix, tmp_path, capsys):
    path = tmp_path / f"model{suffix}"
    assert command(DEFAULT_CHECKPOINT, path) == 0
    assert max(json.loads(capsys.readouterr().out)["largest_deviation"].values()) < 1e-2
    run = script.make_onnx_runner(path) if suffix == ".onnx" else script.make_program_runner(torch.export.load(path))
    model, _ = script.load_quality(str(DEFAULT_CHECKPOINT))
    assert deviations(model, {"file": run}, shapes=((2, 234), (1, 810)))["file"] < 1e-2


def test_command_writes_an_archive_and_reports(checkpoint, archive, program):
    path, report = archive
    assert report["output"] == str(path) and list(report["largest_deviation"]) == ["torch.export"]
    assert [file.name for file in path.parent.iterdir()] == ["model.pt2"]
    model, _ = script.load_quality(str(checkpoint))
    runners = {"archive": script.make_program_runner(program)}
    assert deviations(model, runners, shapes=((1, 1), (6, 30)))["archive"] < 1e-4


@pytest.mark.parametrize("wrong", [4.5e-4, float("nan")])
def test_a_file_with_other_scores_never_gets_its_name(wrong, checkpoint, program, tmp_path, capsys, monkeypatch):
    def write_file(program, path):
        path.write_bytes(b"new")
        right = script.make_program_runner(program)
        return {"torch.export": right, "onnxruntime": lambda batch: right(batch) + wrong}

    monkeypatch.setattr(script, "export_program", lambda model: program)
    monkeypatch.setattr(script, "write_file", write_file)
    (tmp_path / "old.onnx").write_bytes(b"old")
    for name in ("model.onnx", "old.onnx"):
        assert command(checkpoint, tmp_path / name) == 1
        error = capsys.readouterr().err
        assert error.startswith(
            f"musiq export: {tmp_path / name} was not written: scores of onnxruntime are off by up to"
        )
        assert "more than 0.0001 of their range 1..5." in error and len(error.splitlines()) == 1
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"old"]


def test_another_suffix_is_refused(tmp_path, capsys):
    assert command("musiq-koniq", tmp_path / "model.pth") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"musiq export: OUT must end in .onnx or .pt2, got {tmp_path / 'model.pth'}. Rename it.")


def test_a_missing_extra_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert command(DEFAULT_CHECKPOINT, tmp_path / "model.onnx") == 2
    assert 'onnxscript is needed here. Install it with: pip install "musiq_hf[export]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_onnxruntime_the_graph_alone_is_run(checkpoint, program, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(script, "export_program", lambda model: program)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.setattr(script, "save_onnx", lambda program, path: path.write_bytes(b"onnx"))
    assert command(checkpoint, tmp_path / "model.onnx") == 0
    output = capsys.readouterr()
    assert list(json.loads(output.out)["largest_deviation"]) == ["torch.export"]
    assert output.err == "onnxruntime is not installed: the graph was run, the file was not.\n"
    with pytest.raises(ImportError, match=r"onnxruntime is needed here.*musiq_hf\[export\]"):
        script.make_onnx_runner(tmp_path / "model.onnx")


def test_checkpoints_that_score_nothing_are_refused(blank, tiny_config, tmp_path, capsys):
    classifier = MusiqForImageClassification(tiny_config(num_labels=3))
    classifier.save_pretrained(tmp_path / "classifier")
    MusiqImageProcessor.from_config(classifier.config).save_pretrained(tmp_path / "classifier")
    sentences = {
        blank: "holds no weights",
        tmp_path / "classifier": "holds a MusiqForImageClassification, which predicts no quality",
        tmp_path / "none": "neither a directory with a config.json nor an id on the Hub",
    }
    for name, sentence in sentences.items():
        assert command(name, tmp_path / "model.pt2") == 2
        assert sentence in capsys.readouterr().err
    assert not (tmp_path / "model.pt2").exists()


@pytest.mark.parametrize("root", ["pade", "eigh"])
def test_a_root_that_onnx_cannot_express_is_refused(root, tmp_path, tiny_model):
    model = tiny_model(pooling="covariance", covariance_size=4, covariance_method=root)
    model.save_pretrained(tmp_path / "model")
    MusiqImageProcessor.from_config(model.config).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=f'ONNX cannot express `covariance_method="{root}"`, only newton_schulz and'):
        script.export_checkpoint(str(tmp_path / "model"), tmp_path / "model.onnx")
