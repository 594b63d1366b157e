# SPDX-License-Identifier: Apache-2.0
"""One list of promises for every family with a quality head; a toy among them shows what a second family costs."""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from isolated import fill_cache, run_isolated
from PIL import Image
from places import ROOT
from safetensors.torch import load_file, save_file
from toy_family.family import TOY
from transformers import AutoImageProcessor, AutoModel, pipeline

from musiq_hf.cli import main, words
from musiq_hf.cli.recording import record_words
from musiq_hf.data import load_scored_images
from musiq_hf.data.checks import count_tokens_of_rows
from musiq_hf.evaluation import collect_feature_maps, measure_log_amplitudes
from musiq_hf.explain.report import make_report
from musiq_hf.hub.model_card import CheckpointCard
from musiq_hf.hub.publishing import add_remote_code, has_pipeline
from musiq_hf.models import FAMILIES, family_of
from musiq_hf.models.auto import AutoModelForImageQualityAssessment, register_family
from musiq_hf.models.musiq import publishing_musiq
from musiq_hf.models.protocol import Family
from musiq_hf.scoring import load_quality, make_signature, score_pictures, write_calibration
from musiq_hf.scoring.verification import compare_with_official, write_self_test
from musiq_hf.training.distillation import DistillSettings, distill
from musiq_hf.training.pretraining_quality import PretrainSettings, pretrain_quality
from musiq_hf.training.trainer import QualityTrainer

SIZES = ((30, 41), (17, 60), (48, 24))
QUALITY = {name: family for name, family in FAMILIES.items() if family.quality is not None}
ALL = {**QUALITY, "toy": TOY}
OTHER_FILES = {"config.json", "preprocessor_config.json", "model.safetensors", "self_test.json", "calibration.json"}


@dataclass
class Case:
    """A family with a small model and where they are saved."""

    family: Family
    model: Any
    processor: Any
    folder: Path

    @property
    def name(self) -> str:
        return self.family.name


def tiny_settings(name: str) -> dict[str, Any]:
    """Read the fields that make the model of a family small, from tests/models/<family>/tiny.json."""
    path = ROOT / "tests" / "models" / name / "tiny.json"
    return json.loads(path.read_text()) if path.is_file() else {}


@pytest.fixture(scope="module", autouse=True)
def toy(tmp_path_factory):
    """Let the package know the toy, as one line in FAMILIES and `make style` would."""
    FAMILIES["toy"] = TOY
    register_family(TOY)
    with pytest.MonkeyPatch.context() as patch:
        recorded = tmp_path_factory.mktemp("words") / "words.json"
        recorded.write_text(record_words())
        patch.setattr(words, "FILE", recorded)
        yield
    del FAMILIES["toy"]


@pytest.fixture(scope="module", params=ALL)
def case(request, tmp_path_factory) -> Case:
    family = ALL[request.param]
    torch.manual_seed(0)
    settings = tiny_settings(family.name) | {"score_range": [0, 100], "score_scale": 20.0}
    model = family.quality(family.config(**settings)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    processor = family.processor.from_config(model.config)
    folder = tmp_path_factory.mktemp(family.name) / "checkpoint"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_self_test(model, processor, folder)
    write_calibration(folder, np.linspace(-200, 200, 101), model=model, processor=processor, data="a line")
    return Case(family, model, processor, folder)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Twenty small pictures, and a table of their scores."""
    folder, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    lines = ["image,mos,split"]
    for index in range(20):
        level = 20 + 12 * index
        values = generator.integers(0, level, (24 + index, 30, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{5 * index},{'validation' if index % 5 == 4 else 'train'}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    return folder


def pictures() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8) for size in SIZES]


@torch.no_grad()
def scores_of(case: Case, features: list[dict[str, torch.Tensor]], **padding: Any) -> list[float]:
    return case.model(**case.processor.pad(features, **({"padding": "longest"} | padding))).scores.tolist()


def test_a_picture_has_one_score_alone_and_in_a_batch(case):
    features = [case.processor.cut(picture) for picture in pictures()]
    alone = [scores_of(case, [feature])[0] for feature in features]
    assert scores_of(case, features) == pytest.approx(alone, abs=1e-4)
    length = max(map(case.processor.num_tokens, features)) + 3
    assert scores_of(case, features, padding="max_length", max_length=length) == pytest.approx(alone, abs=1e-4)
    assert len({round(score, 2) for score in alone}) == len(alone)


def test_tokens_are_known_without_cutting(case):
    for picture in pictures():
        feature = case.processor.cut(picture)
        assert case.processor.count_tokens(*picture.shape[:2]) == case.processor.num_tokens(feature)
        view = case.family.view()
        assert view.count_tokens(case.processor, *picture.shape[:2]) == case.processor.num_tokens(
            view.cut(case.processor, picture)
        )


def test_bytes_and_floats_are_one_picture(case):
    as_float = scores_of(case, [case.processor.cut((picture := pictures()[0]).float() / 255)])
    assert as_float == pytest.approx(scores_of(case, [case.processor.cut(picture)]), abs=1e-3)


def test_a_checkpoint_is_loaded_by_every_way(case):
    expected = scores_of(case, [case.processor.cut(picture) for picture in pictures()])
    for auto in (AutoModel, AutoModelForImageQualityAssessment):
        model = auto.from_pretrained(case.folder).eval()
        assert type(model) is case.family.quality and family_of(model.config) is FAMILIES[case.name]
    assert type(AutoImageProcessor.from_pretrained(case.folder)) is case.family.processor
    model, processor = load_quality(str(case.folder))
    processor.check_config(model.config)
    rows = list(score_pictures([picture.numpy() for picture in pictures()], model=model, processor=processor))
    assert [row.score for row in rows] == pytest.approx(expected, abs=1e-4)


def test_the_pipeline_scores(case, photos):
    scorer = pipeline("image-quality-assessment", model=str(case.folder), percentile=True)
    answer = scorer([str(photos / "3.png"), str(photos / "9.png")], batch_size=2)
    model, processor = load_quality(str(case.folder))
    files = [photos / "3.png", photos / "9.png"]
    rows = list(score_pictures(files, model=model, processor=processor))
    assert [own["score"] for own in answer] == pytest.approx([row.score for row in rows], abs=1e-4)
    assert [own["percentile"] for own in answer] == [round((own["score"] + 200) / 4, 1) for own in answer]


@pytest.mark.parametrize("task", ["image-quality-assessment", "image-classification", "image-feature-extraction"])
def test_no_pipeline_offers_to_run_code_that_the_package_has(case, monkeypatch, tmp_path, task):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    fill_cache(tmp_path, "someone/mine", case.folder)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in (str(case.folder), "someone/mine"):
        assert pipeline(task, model=name).model.__class__ is case.family.quality


# A process of its own takes seconds; the families that the package has show what the toy would.
fresh_process = pytest.mark.parametrize(
    "case", [*QUALITY, pytest.param("toy", marks=pytest.mark.slow)], indirect=True, scope="module"
)


@fresh_process
def test_without_the_package_a_checkpoint_is_saved_whole_however_little_was_loaded_and_scores(case, photos, tmp_path):
    files = {path.name: path.read_bytes() for path in case.folder.iterdir()}
    assert add_remote_code(shutil.copytree(case.folder, tmp_path / "renewed")) == sorted(files.keys() - OTHER_FILES)
    script = f"""
folder, trust = {str(case.folder)!r}, {{"trust_remote_code": True}}
names = {{"config": ["AutoConfig"], "processor": ["AutoImageProcessor"], "both": ["AutoModel", "AutoImageProcessor"]}}
for name, parts in names.items():
    for part in parts:
        getattr(__import__("transformers"), part).from_pretrained(folder, **trust).save_pretrained(name)

processor = AutoImageProcessor.from_pretrained(folder, **trust)
model = AutoModel.from_pretrained(folder, **trust).eval()
picture = torch.arange(30 * 41 * 3, dtype=torch.uint8).view(30, 41, 3)
with torch.no_grad():
    scores = model(**processor.pad([processor.cut(picture)], padding="longest")).scores
try:
    (answer,) = pipeline("image-classification", model=folder, **trust)(PICTURE)
    result["label"] = answer["label"]
except ValueError as error:
    result["label"] = str(error).partition(" for this kind of AutoModel")[0]
result |= {{"scores": scores.tolist(), "module": type(model).__module__}}
"""
    picture = torch.arange(30 * 41 * 3, dtype=torch.uint8).view(30, 41, 3)
    found = run_isolated(script, home=tmp_path, cwd=tmp_path, picture=photos / "3.png", package=False)
    assert found["module"].startswith("transformers_modules.")
    assert (found["label"] == "MOS") == has_pipeline(case.family)  # else a logit would be called a class
    assert found["scores"] == pytest.approx(scores_of(case, [case.processor.cut(picture)]), abs=1e-4)
    for name in ("config", "processor", "both"):
        saved = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        assert saved == {file: files[file] for file in saved}
        assert files.keys() - OTHER_FILES - {"handler.py"} <= saved.keys()  # it goes along with a model
    assert saved == files


def test_the_names_of_a_family_are_those_by_which_saving_finds_its_classes(case):
    own = case.family
    assert own.quality.__name__.endswith("ForImageQualityAssessment")
    assert own.classifier is None or own.classifier.__name__.endswith("ForImageClassification")
    files = {path.name: path.read_bytes() for path in own.config.list_code()}
    assert files[f"publishing_{own.name}.py"] == Path(publishing_musiq.__file__).read_bytes()


@pytest.mark.parametrize("command", ["info", "verify", "score", "finetune"])
def test_commands_say_which_weights_are_not_those_of_the_model(case, photos, tmp_path, capsys, command):
    folder = shutil.copytree(case.folder, tmp_path / "damaged")
    weights = load_file(folder / "model.safetensors")
    kept, renamed, whole = sorted(weights)[:3]
    weights |= {"renamed": weights.pop(renamed), whole: weights[whole].long()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    words = {
        "info": ["info", str(folder)],
        "verify": ["verify", str(folder)],
        "score": ["score", str(photos / "3.png"), "-m", str(folder)],
        "finetune": ["finetune", "--data", str(photos / "scores.csv"), "--model", str(folder)],
    }[command]
    assert main([*words, *(["--output_dir", str(tmp_path / "out")] if command == "finetune" else [])]) == 2
    printed = capsys.readouterr()
    message = f"not of a floating-point type {whole} (int64); missing {renamed}; unexpected renamed. If you changed"
    assert message in printed.err and kept not in printed.err and printed.out == ""


def test_the_command_scores_and_signs(case, photos, tmp_path):
    output = tmp_path / "scores.csv"
    assert main(["score", str(photos / "3.png"), "-m", str(case.folder), "-o", str(output), "--percentile"]) == 0
    (row,) = csv.DictReader(output.read_text().splitlines())
    assert row["error"] == "" and 0 <= float(row["score_0_1"]) <= 1
    assert float(row["percentile"]) == pytest.approx((float(row["score"]) + 200) / 4, abs=0.051)
    model, processor = load_quality(str(case.folder))
    assert row["signature"] == make_signature(model, processor, checkpoint=str(case.folder))


def change(value: Any) -> Any:
    """Return another value of the same type; None for a nested configuration, which its family tests itself."""
    if isinstance(value, dict):
        return None
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return [*value, 1] if isinstance(value, list) else "other"


def test_whatever_changes_a_score_changes_the_signature(case):
    def sign() -> str:
        return make_signature(case.model, case.processor, checkpoint="x")

    plain, (picture, *_) = sign(), pictures()
    (expected,) = scores_of(case, [case.processor.cut(picture)])
    moved = set()
    for owner in (case.model.config, case.processor):
        for name, value in owner.to_dict().items():
            if name not in vars(owner) or value is None or isinstance(value, dict):
                continue
            object.__setattr__(owner, name, change(value))  # past the checks of the field
            try:
                (score,) = scores_of(case, [case.processor.cut(picture)])
            except (ValueError, TypeError, RuntimeError, LookupError, AttributeError):  # needs another model
                score = expected
            if abs(score - expected) > 1e-3:
                moved.add(name)
                assert sign() != plain, name
            object.__setattr__(owner, name, value)
    assert sign() == plain and {"score_scale"} <= moved


def test_the_signature_moves_with_every_field_that_is_named(case):
    plain = make_signature(case.model, case.processor, checkpoint="x")
    for owner in (case.model.config, case.processor):
        for name, value in owner.signature_fields().items():
            before, other = getattr(owner, name), change(value)
            if other is not None:
                object.__setattr__(owner, name, other)
                assert make_signature(case.model, case.processor, checkpoint="x") != plain, name
                object.__setattr__(owner, name, before)


def test_the_self_test_holds_until_a_weight_changes(case, tmp_path, capsys):
    assert main(["verify", str(case.folder)]) == 0
    model, processor = load_quality(str(case.folder))
    with torch.no_grad():
        next(iter(family_of(model.config).parts(model)["head"])).weight[0, 0].add_(1.0)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert not (tmp_path / "self_test.json").exists()  # they would be the answers of other weights
    (tmp_path / "self_test.json").write_bytes((case.folder / "self_test.json").read_bytes())
    assert main(["verify", str(tmp_path)]) == 1
    assert "WRONG" in capsys.readouterr().out


def finetune(case: Case, photos: Path, output: Path, *words: str) -> int:
    command = ["finetune", "--data", str(photos / "scores.csv"), "--model", str(case.folder), "--epochs", "1"]
    command += ["--output_dir", str(output), "--batch_size", "8", "--score_range", "0", "100"]
    return main([*command, "--freeze", "none", *words])


def test_two_steps_of_training_are_saved_with_card_and_self_test(case, photos, tmp_path):
    assert finetune(case, photos, tmp_path / "out") == 0
    (model, _), before = load_quality(str(tmp_path / "out")), case.model.state_dict()
    assert type(model) is case.family.quality and model.config.score_range == [0, 100]
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())
    card = (tmp_path / "out" / "README.md").read_text()
    text = case.family.card(model.config)
    assert text.summary in card and text.citation in card and "## Evaluation" in card
    assert main(["verify", str(tmp_path / "out")]) == 0
    assert json.loads((tmp_path / "out" / "trainer_state.json").read_text())["global_step"] == 2


def test_a_family_may_fit_its_unit_after_training(case, photos, tmp_path):
    if case.family.calibrate is None:
        pytest.skip("a family whose unit is set before training")
    words = ("--save_dtype", "float16", "--epochs", "2", "--learning_rate", "0.01")
    assert finetune(case, photos, tmp_path / "out", *words) == 0
    model, processor = load_quality(str(tmp_path / "out"))
    chosen = [photos / f"{index}.png" for index in range(20)]  # all, because those of the validation split are few
    scores = [row.score for row in score_pictures(chosen, model=model, processor=processor)]
    assert np.mean(scores) == pytest.approx(47.5, abs=0.1)  # weights of 16 bits
    assert "auto_map" in json.loads((tmp_path / "out" / "config.json").read_text())
    assert main(["verify", str(tmp_path / "out")]) == 0


def test_training_goes_on_where_it_stopped(case, photos, tmp_path, monkeypatch):
    steps, plain = [], QualityTrainer.training_step

    def count(trainer, *arguments, **options):
        steps.append(trainer.state.global_step)
        return plain(trainer, *arguments, **options)

    monkeypatch.setattr(QualityTrainer, "training_step", count)
    assert finetune(case, photos, tmp_path / "parts", "--epochs", "2", "--max_steps", "2") == 0
    settings = tmp_path / "parts" / "run_settings.json"
    settings.write_text(settings.read_text().replace('"max_steps": 2', '"max_steps": null'))
    steps.clear()
    assert finetune(case, photos, tmp_path / "parts", "--epochs", "2", "--resume") == 0
    assert steps == [2, 3]
    assert json.loads((tmp_path / "parts" / "trainer_state.json").read_text())["global_step"] == 4


def test_every_part_but_the_head_can_be_frozen(case, photos, tmp_path):
    for part in set(case.family.parts(case.model)) - {"head"}:
        assert finetune(case, photos, tmp_path / part, "--freeze", part) == 0
        trained, _ = load_quality(str(tmp_path / part))
        before, after = case.family.parts(case.model), case.family.parts(trained)
        for old, new in zip(before[part], after[part], strict=True):
            assert all(torch.equal(a, b) for a, b in zip(old.parameters(), new.parameters(), strict=True))
        assert not torch.equal(before["head"][-1].weight, after["head"][-1].weight)
        frozen = {id(parameter) for module in before[part] for parameter in module.parameters()}
        pairs = zip(case.model.parameters(), trained.parameters(), strict=True)
        others = [(old, new) for old, new in pairs if id(old) not in frozen and old.dim() > 1]
        assert any(not torch.equal(old, new) for old, new in others)


VIEWS = {"musiq": ("native_patches", "2"), "toy": ("max_bands", "2")}  # a bound on what a step sees
CHANGES = {"musiq": ("hash_grid_size", 3), "toy": ("band_height", 4)}  # a field that both sides have


@pytest.mark.parametrize("wish", ["lora", "fixed", "length", "set", "scratch"])
def test_training_takes_what_every_family_promises(case, photos, tmp_path, wish):
    if case.name not in VIEWS:
        pytest.skip("a family of its own tests")
    (bound, value), (field, number) = VIEWS[case.name], CHANGES[case.name]
    words = {
        "lora": ("--lora_rank", "2"),
        "fixed": ("--fixed_shapes", f"--{bound}", value),
        "length": ("--group_by_length",),
        "set": ("--set", f"{field}={number}"),
        "scratch": ("--model", str(tmp_path / "blank")),
    }[wish]
    case.model.config.save_pretrained(tmp_path / "blank")
    case.processor.save_pretrained(tmp_path / "blank")
    assert finetune(case, photos, tmp_path / "out", *words) == 0
    model, processor = load_quality(str(tmp_path / "out"))
    if wish == "set":
        assert getattr(model.config, field) == getattr(processor, field) == number
    if wish == "fixed":
        assert json.loads((tmp_path / "out" / "run_settings.json").read_text())[bound] == int(value)


def test_quality_pretraining_leaves_a_model_to_fine_tune(case, photos, tmp_path):
    settings = PretrainSettings(
        data=str(photos), model=str(case.folder), output_dir=str(tmp_path / "out"), epochs=1, holdout_fraction=0.25
    )
    assert set(pretrain_quality(settings)) >= {"eval_pair_accuracy"}
    load_quality(str(tmp_path / "out"))


def test_a_family_teaches_another_and_learns_from_it(case, photos, tmp_path):
    torch.manual_seed(1)
    toy = TOY.start({"score_offset": 400.0, "score_scale": 90.0})
    torch.nn.init.constant_(toy.head.weight, 1.0)
    toy.save_pretrained(tmp_path / "toy")
    TOY.processor.from_config(toy.config).save_pretrained(tmp_path / "toy")
    for number, (student, teacher) in enumerate(((case.folder, tmp_path / "toy"), (tmp_path / "toy", case.folder))):
        output = tmp_path / f"out{number}"
        given = {"data": str(photos / "scores.csv"), "output_dir": str(output), "epochs": 2}
        given |= {"batch_size": 8, "freeze": "none", "learning_rate": 0.01, "plcc_weight": 1.0}
        report = distill(DistillSettings(model=str(student), teacher=str(teacher), fault_pairs=1, **given))
        assert report["selection"].num_pictures == 4
        model, _ = load_quality(str(output))
        started = load_quality(str(student))[0]
        assert type(model) is type(started) and model.state_dict().keys() == started.state_dict().keys()
        assert f"Its teacher was `{teacher.name}`." in (output / "README.md").read_text()
        if family_of(model.config).calibrate is not None:  # to all pictures, because those of the validation are few
            files = [photos / f"{index}.png" for index in range(20)]
            pairs = (load_quality(str(name)) for name in (teacher, output))
            found = [[row.score for row in score_pictures(files, model=a, processor=b)] for a, b in pairs]
            assert np.mean(found[1]) == pytest.approx(np.mean(found[0]), abs=0.01)


def test_the_commands_tell_about_a_checkpoint(case, photos, tmp_path, capsys):
    assert main(["info", str(case.folder)]) == 0
    assert case.family.quality.__name__ in capsys.readouterr().out
    folder, output = shutil.copytree(case.folder, tmp_path / "copy"), tmp_path / "report.json"
    words = ["--data", str(photos / "scores.csv"), "--model", str(folder), "--split", "train", "--update_card"]
    assert main(["evaluate", *words, "--output", str(output)]) == 0
    assert "SRCC" in output.with_suffix(".md").read_text() and "SRCC" in (folder / "README.md").read_text()


def test_a_report_explains_a_score(case, photos):
    pytest.importorskip("matplotlib")
    with Image.open(photos / "3.png") as image:
        names = {"name": "3.png", "checkpoint": "x", "signature": "y"}
        page, score = make_report(case.model, case.processor, image.copy(), **names)
    assert f"{score:.2f} MOS points, on a scale of 0 to 100" in page and "Degradation" in page


def test_feature_maps_are_analysed_or_refused(case):
    generator = np.random.default_rng(0)
    photos = [generator.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((40, 32), (32, 48))]
    if case.family.feature_maps is None:
        with pytest.raises(ValueError, match=f"A {case.name} model gives no feature maps. Give a checkpoint of"):
            measure_log_amplitudes(case.model, case.processor, photos)
        return
    maps = collect_feature_maps(case.model, case.processor, photos[0])
    curves = measure_log_amplitudes(case.model, case.processor, photos)
    assert {name: len(found) for name, found in curves.items()} == {name: len(own) for name, own in maps.items()}
    for name, own in maps.items():
        for item, (frequencies, amplitudes) in zip(own, curves[name], strict=True):
            assert item.dim() == 4 and not item.requires_grad
            assert amplitudes.isfinite().all() and frequencies[0] == amplitudes[0] == 0 != amplitudes[1]


def test_the_model_can_be_exported_as_a_graph(case):
    batch = dict(case.processor.pad([case.processor.cut(pictures()[0])], padding="longest"))
    program = torch.export.export(case.model, (), batch)
    torch.testing.assert_close(program.module()(**batch)["scores"], case.model(**batch).scores)


def test_a_foreign_checkpoint_is_named():
    with pytest.raises(ValueError, match="checkpoint was expected, got one of type 'vit'"):
        family_of(type("Other", (), {"model_type": "vit"})())


def test_turned_pictures_are_counted_upright(case, tmp_path):
    tag = Image.Exif()
    tag[0x0112] = 6
    Image.new("RGB", (80, 24)).save(tmp_path / "a.jpg", exif=tag)
    (tmp_path / "scores.csv").write_text("image,mos\na.jpg,1\n")
    rows = load_scored_images(str(tmp_path / "scores.csv"))["train"]
    assert count_tokens_of_rows(rows, case.processor) == [case.processor.count_tokens(80, 24)]


def test_a_card_promises_a_pipeline_without_the_package_only_where_it_ships(case):
    card = CheckpointCard(name="x", config=case.model.config, source="a", training_data="b", recipe="c").render()
    is_shipped = "custom_pipelines" in json.loads((case.folder / "config.json").read_text())
    assert ("trust_remote_code=True below" in card) == is_shipped == has_pipeline(case.family)
    assert ("\npipeline_tag: image-classification\n" in card) == is_shipped == (case.name == "musiq")


def test_official_scores_are_those_of_one_family(case, tmp_path):
    with pytest.raises(ValueError, match="is not a folder" if case.name == "musiq" else "known for musiq checkpoints"):
        compare_with_official(case.model, case.processor, name="koniq", folder=tmp_path / "none")
