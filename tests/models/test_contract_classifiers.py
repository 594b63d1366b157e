# SPDX-License-Identifier: Apache-2.0
"""One list of promises for every family whose models only classify, as test_contract.py has it for scores."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import Case, make_case
from isolated import fill_cache, run_isolated
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageClassification, pipeline

from musiq_hf.cli import main
from musiq_hf.evaluation import collect_feature_maps, pooled_features
from musiq_hf.hub.model_card import CheckpointCard
from musiq_hf.hub.publishing import add_remote_code
from musiq_hf.models import FAMILIES, family_of
from musiq_hf.scoring import load_quality, make_signature
from musiq_hf.scoring.loading import load_with_head

SIZES = ((64, 66), (150, 70), (97, 131))
NAMES = [name for name, family in FAMILIES.items() if family.quality is None and family.classifier is not None]
OTHER_FILES = {"config.json", "preprocessor_config.json", "model.safetensors", "self_test.json"}


@pytest.fixture(scope="module", params=NAMES)
def case(request, tmp_path_factory) -> Case:
    return make_case(request.param, "classifier", tmp_path_factory.mktemp("checkpoint"), noise=0.3)


def pictures() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8) for size in SIZES]


@pytest.fixture
def files(tmp_path) -> list[str]:
    paths = [str(tmp_path / f"{index}.png") for index in range(len(SIZES))]
    for path, picture in zip(paths, pictures(), strict=True):
        Image.fromarray(picture.numpy()).save(path)
    return paths


@torch.no_grad()
def logits_of(case: Case, features: list[dict[str, torch.Tensor]], **padding: Any) -> torch.Tensor:
    return case.model(**case.processor.pad(features, **({"padding": "longest"} | padding))).logits


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_a_picture_has_one_answer_alone_and_in_a_batch(case):
    features = [case.processor.cut(picture) for picture in pictures()]
    alone = torch.cat([logits_of(case, [feature]) for feature in features])
    close(logits_of(case, features), alone)
    length = max(map(case.processor.num_tokens, features)) + 3
    close(logits_of(case, features, padding="max_length", max_length=length), alone)
    assert len({round(value, 3) for value in alone[:, 0].tolist()}) == len(alone)
    counts = [case.processor.count_tokens(*picture.shape[:2]) for picture in pictures()]
    assert counts == [case.processor.num_tokens(feature) for feature in features]


def test_bytes_and_floats_are_one_picture(case):
    for picture in pictures():
        as_float = logits_of(case, [case.processor.cut(picture.float() / 255)])
        close(as_float, logits_of(case, [case.processor.cut(picture)]), 1e-3)


def test_a_checkpoint_is_loaded_by_every_way(case):
    features = [case.processor.cut(picture) for picture in pictures()]
    for auto in (AutoModel, AutoModelForImageClassification):
        model = auto.from_pretrained(case.folder).eval()
        assert type(model) is case.family.classifier and family_of(model.config) is case.family
        with torch.no_grad():
            assert torch.equal(model(**case.processor.pad(features)).logits, logits_of(case, features))
    assert type(AutoImageProcessor.from_pretrained(case.folder)) is case.family.processor
    model, processor = load_with_head(str(case.folder))
    processor.check_config(model.config)
    with pytest.raises(ValueError, match="which predicts no quality. Give a checkpoint of another family"):
        load_quality(str(case.folder))


def test_the_pipeline_answers_labels_alone_and_in_batches(case, files):
    classify = pipeline("image-classification", model=str(case.folder))
    answers = classify(files, batch_size=3, top_k=case.model.config.num_labels)
    for answer, file, picture in zip(answers, files, pictures(), strict=True):
        expected = logits_of(case, [case.processor.cut(picture)]).softmax(dim=-1)[0]
        named = {label: expected[index].item() for index, label in case.model.config.id2label.items()}
        assert {own["label"]: own["score"] for own in answer} == pytest.approx(named, abs=1e-5)
        assert classify(file, top_k=1)[0]["label"] == answer[0]["label"] == max(named, key=named.get)
    gray, alpha = Image.new("L", (80, 70)), Image.open(files[0]).convert("RGBA")
    assert len(classify([gray, alpha])) == 2
    assert classify(alpha)[0]["score"] == pytest.approx(classify(files[0])[0]["score"], abs=1e-5)


def test_pipelines_offer_to_run_no_code_that_the_package_has(case, monkeypatch, tmp_path):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    fill_cache(tmp_path, "someone/mine", case.folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (str(case.folder), "someone/mine"):
        assert type(pipeline("image-classification", model=name).model) is case.family.classifier
    with pytest.raises(ValueError, match="with a quality head is needed"):
        pipeline("image-quality-assessment", model=str(case.folder))


@pytest.mark.slow
def test_remote_code_answers_and_saves_in_a_fresh_process(case, files, tmp_path):
    saved = {path.name: path.read_bytes() for path in case.folder.iterdir()}
    assert add_remote_code(shutil.copytree(case.folder, tmp_path / "renewed")) == sorted(saved.keys() - OTHER_FILES)
    script = f"""
options = {{"trust_remote_code": True}}
classify = pipeline("image-classification", model={str(case.folder)!r}, **options)
answers = classify([PICTURE, PICTURE.replace("0.png", "1.png")], top_k=99, batch_size=2)
names = {{"config": ["AutoConfig"], "processor": ["AutoImageProcessor"], "both": ["AutoModel", "AutoImageProcessor"]}}
for folder, parts in names.items():
    for part in parts:
        auto = getattr(__import__("transformers"), part)
        auto.from_pretrained({str(case.folder)!r}, **options).save_pretrained(folder)
result |= {{"module": type(classify.model).__module__, "class": type(classify.model).__name__}}
result["answers"] = [{{own["label"]: own["score"] for own in answer}} for answer in answers]
"""
    found = run_isolated(script, home=tmp_path, cwd=tmp_path, picture=Path(files[0]), package=False)
    assert found["module"].startswith("transformers_modules.") and found["class"] == case.family.classifier.__name__
    for answer, picture in zip(found["answers"], pictures(), strict=False):
        expected = logits_of(case, [case.processor.cut(picture)]).softmax(dim=-1)[0]
        named = {label: expected[index].item() for index, label in case.model.config.id2label.items()}
        assert answer == pytest.approx(named, abs=1e-5)
    for name in ("config", "processor", "both"):
        again = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        assert again == {file: saved[file] for file in again}
        assert saved.keys() - OTHER_FILES - {"handler.py"} <= again.keys()  # it goes along with a model
    assert again == saved


def test_commands_tell_about_a_checkpoint_and_refuse_what_it_cannot(case, files, tmp_path, capsys):
    assert main(["info", str(case.folder)]) == main(["verify", str(case.folder)]) == 0
    assert case.family.classifier.__name__ in capsys.readouterr().out
    (tmp_path / "scores.csv").write_text("image,mos\n0.png,1\n")
    words = ["--data", str(tmp_path / "scores.csv"), "--model", str(case.folder)]
    assert main(["finetune", *words, "--output_dir", str(tmp_path / "out")]) == 2
    assert "has no quality head, so this command cannot train it" in capsys.readouterr().err
    assert main(["score", files[0], "-m", str(case.folder)]) == 2
    assert "predicts no quality. Give a checkpoint of another family" in capsys.readouterr().err


def test_damaged_weights_are_named(case, tmp_path, capsys):
    folder = shutil.copytree(case.folder, tmp_path / "damaged")
    weights = load_file(folder / "model.safetensors")
    first = sorted(weights)[0]
    save_file(weights | {"renamed": weights.pop(first)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert main(["info", str(folder)]) == 2
    assert f"missing {first}; unexpected renamed. If you changed" in capsys.readouterr().err


def change(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return [*value, 1] if isinstance(value, list) else "other"


def test_whatever_changes_an_answer_changes_the_signature(case):
    def sign() -> str:
        return make_signature(case.model, case.processor, checkpoint="x")

    plain, picture = sign(), pictures()[1]
    expected = logits_of(case, [case.processor.cut(picture)])
    moved = set()
    for owner in (case.model.config, case.processor):
        for name, value in owner.to_dict().items():
            if name not in vars(owner) or value is None or isinstance(value, dict):
                continue
            object.__setattr__(owner, name, change(value))  # past the checks of the field
            try:
                found = logits_of(case, [case.processor.cut(picture)])
            except (ValueError, TypeError, RuntimeError, LookupError, AttributeError):  # needs another model
                found = expected
            if found.shape != expected.shape or not torch.allclose(found, expected, atol=1e-3):
                moved.add(name)
                assert sign() != plain, name
            object.__setattr__(owner, name, value)
    assert sign() == plain and moved


def test_the_card_says_how_to_use_it_and_what_it_cannot(case):
    card = CheckpointCard(name="x", config=case.model.config, source="a", training_data="b", recipe="c").render()
    text = case.family.card(case.model.config)
    assert "\npipeline_tag: image-classification\n" in card and 'pipeline("image-classification", model="x")' in card
    assert text.limits in card and text.patents.strip() in card and text.citation in card


def test_feature_maps_belong_to_the_stages_and_are_pooled(case):
    picture = np.random.default_rng(0).integers(0, 256, (80, 70, 3), dtype=np.uint8)
    pooled = pooled_features(case.model, case.processor, [picture[::-1], picture])
    for name, maps in collect_feature_maps(case.model, case.processor, picture).items():
        assert len(maps) > 1 and all(item.dim() == 4 and not item.requires_grad for item in maps)
        for features, item in zip(pooled[name], maps, strict=True):
            np.testing.assert_allclose(features[1], item.mean(dim=(0, 2, 3)), atol=1e-5)


def test_the_names_of_a_family_are_those_by_which_saving_finds_its_classes(case):
    assert case.family.classifier.__name__.endswith("ForImageClassification")
    parts = case.family.parts(case.model)
    assert parts["head"][-1].out_features == case.model.config.num_labels


@pytest.mark.slow
def test_the_model_can_be_exported_as_a_graph(case):
    batch = dict(case.processor.pad([case.processor.cut(pictures()[2])], padding="longest"))
    program = torch.export.export(case.model, (), batch)
    close(program.module()(**batch)["logits"], case.model(**batch).logits)
