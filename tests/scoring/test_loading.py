# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that are used as they are: which are loaded, and the sentences of those that are not."""

import json

import pytest
import torch
from PIL import Image

from musiq_hf import MusiqForImageClassification, MusiqImageProcessor, MusiqModel
from musiq_hf.cli import main
from musiq_hf.models import FAMILIES
from musiq_hf.scoring.loading import (
    has_quality,
    has_weights,
    is_classifier,
    load_config,
    load_quality,
    load_with_head,
)

ANY_FAMILY = " or ".join(FAMILIES)


def save(model, folder):
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return str(folder)


def test_a_quality_checkpoint_is_loaded_as_it_was_saved(tiny_model, tmp_path):
    saved = tiny_model(num_labels=5)
    folder = save(saved, tmp_path / "mine")
    for load in (load_quality, load_with_head):
        model, processor = load(folder)
        assert has_quality(model) and not is_classifier(model) and not model.training
        assert type(processor) is MusiqImageProcessor
        for name, weight in saved.state_dict().items():
            torch.testing.assert_close(model.state_dict()[name], weight, rtol=0, atol=0)
    assert load_config(folder).num_labels == 5


def test_half_precision_is_for_the_layers_that_bear_it(tiny_model, tmp_path):
    model, _ = load_quality(save(tiny_model(), tmp_path / "mine"), dtype=torch.bfloat16)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32, torch.bfloat16}


def test_a_classifier_answers_but_predicts_no_quality(tiny_config, tmp_path):
    folder = save(MusiqForImageClassification(tiny_config(num_labels=7)), tmp_path / "classes")
    model, _ = load_with_head(folder)
    assert is_classifier(model) and not has_quality(model) and not model.training
    with pytest.raises(ValueError, match="holds a MusiqForImageClassification, which predicts no quality. Fine-tune"):
        load_quality(folder)


@pytest.mark.parametrize("load", [load_quality, load_with_head])
def test_what_cannot_be_used_gets_a_sentence(load, blank, tiny_config, tiny_model, tmp_path):
    with pytest.raises(ValueError, match="holds no weights. Give a trained or converted checkpoint"):
        load(blank)
    assert not has_weights(blank) and has_weights("an/id")
    with pytest.raises(ValueError, match=r"missing: no such directory, and ids on the Hub have an owner"):
        load("missing")
    with pytest.raises(ValueError, match="holds a MusiqModel, which (answers nothing|predicts no quality)"):
        load(save(MusiqModel(tiny_config()), tmp_path / "backbone"))
    folder = save(tiny_model(), tmp_path / "mine")
    MusiqImageProcessor().save_pretrained(folder)
    with pytest.raises(ValueError, match="must agree on `patch_size`"):
        load(folder)


def test_a_checkpoint_of_no_family_is_refused_by_its_type(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    with pytest.raises(ValueError, match=rf": A {ANY_FAMILY} checkpoint was expected, got one of type 'vit'\."):
        load_config(str(tmp_path))


HOSTILE = "from pathlib import Path\nPath({flag!r}).touch()\n\nclass Own:\n    pass\n"


@pytest.mark.parametrize("command", ["info", "verify", "score", "explain", "convert", "evaluate", "finetune"])
@pytest.mark.parametrize("kind", ["another family", "its own model", "its own processor"])
def test_no_command_runs_code_of_a_checkpoint_or_asks(tiny_model, tmp_path, capsys, monkeypatch, command, kind):
    folder, flag = tmp_path / "hostile", tmp_path / "flag"
    save(tiny_model(), folder)
    (folder / "own.py").write_text(HOSTILE.format(flag=str(flag)))
    config, processor = (folder / "config.json"), (folder / "preprocessor_config.json")
    names = dict.fromkeys(("AutoConfig", "AutoModel", "AutoModelForImageClassification"), "own.Own")
    changes = {"auto_map": names} | ({"model_type": "own"} if kind == "another family" else {})
    if kind == "its own processor":
        changes = {}
        own = {"auto_map": {"AutoImageProcessor": "own.Own"}, "image_processor_type": "Own"}
        processor.write_text(json.dumps(json.loads(processor.read_text()) | own))
    config.write_text(json.dumps(json.loads(config.read_text()) | changes))
    for number in range(12):
        Image.new("RGB", (40, 30), (20 * number, 0, 0)).save(tmp_path / f"{number}.png")
    lines = [f"{number}.png,{number},{'validation' if number < 4 else 'train'}" for number in range(12)]
    (tmp_path / "scores.csv").write_text("\n".join(("image,mos,split", *lines)))
    data = ["--data", str(tmp_path / "scores.csv")]
    words = {
        "info": [str(folder)],
        "verify": [str(folder)],
        "score": [str(tmp_path / "1.png"), "-m", str(folder)],
        "explain": [str(tmp_path / "1.png"), "-m", str(folder), "-o", str(tmp_path / "page.html")],
        "convert": [str(folder), str(tmp_path / "back.npz"), "--to_original"],
        "evaluate": ["--model", str(folder), *data, "--output", str(tmp_path / "report.json")],
        "finetune": ["--model", str(folder), *data, "--output_dir", str(tmp_path / "out"), "--max_steps", "1"],
    }[command]

    def fail(*_):
        raise AssertionError("a question was asked")

    monkeypatch.setattr("builtins.input", fail)
    code = main([command, *words])
    assert not flag.exists()
    errors = capsys.readouterr().err
    if kind == "another family":
        assert code == 2 and f"A {ANY_FAMILY} checkpoint was expected, got one of type 'own'." in errors
    if kind == "its own processor" and command != "convert":
        assert code == 2 and "names Own as its image processor, but a musiq model needs MusiqImageProcessor" in errors
