# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import load_file
from transformers import AutoModel

from musiq_hf import MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.data.batches import WHOLE_PICTURE
from musiq_hf.data.loading import load_scored_images
from musiq_hf.hub.checkpoints import save_checkpoint
from musiq_hf.metrics.report_files import read_metrics
from musiq_hf.models.musiq.family import MusiqTrainingView
from musiq_hf.pictures.synthetic import make_picture
from musiq_hf.scoring import load_quality, score_pictures
from musiq_hf.training.collators import Augmentation
from musiq_hf.training.distillation import (
    DistillCollator,
    DistillModel,
    DistillSettings,
    Teacher,
    _check_unit,
    _teach,
    distill,
)
from musiq_hf.training.recipes import load_settings
from musiq_hf.training.trainer import QualityTrainer


@pytest.fixture(scope="module")
def scores_csv(tmp_path_factory) -> str:
    """Pictures of one texture at five strengths of blur; the sharper, the higher the score."""
    folder, generator = tmp_path_factory.mktemp("blurred"), np.random.default_rng(0)
    lines = ["image,mos,split"]
    for index in range(18):
        level = index % 5
        image = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        image.filter(ImageFilter.GaussianBlur(0.6 * level)).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{80 - 15 * level},{'train' if index < 12 else 'validation'}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "scores.csv")


def save_teacher(model: MusiqForImageQualityAssessment, folder: Path) -> str:
    save_checkpoint(model, MusiqImageProcessor.from_config(model.config), folder, dtype="float32")
    return str(folder)


@pytest.fixture(scope="module")
def teacher(tiny_model, tmp_path_factory) -> str:
    """A teacher of another width and other scales than the student, with scores of 0 to 100."""
    model = tiny_model(
        hidden_size=24, num_attention_heads=2, score_offset=50.0, score_scale=20.0, score_range=[0, 100]
    )
    return save_teacher(model, tmp_path_factory.mktemp("teacher"))


def settings(scores_csv, blank, teacher, output_dir, **changes) -> DistillSettings:
    values = {"data": scores_csv, "model": blank, "teacher": teacher, "output_dir": str(output_dir), "epochs": 2}
    values |= {"batch_size": 4, "learning_rate": 3e-3, "weight_decay": 0.0}
    return DistillSettings(**(values | changes))


def losses(output_dir: Path) -> list[float]:
    log = json.loads((output_dir / "trainer_state.json").read_text())["log_history"]
    return [entry["loss"] for entry in log if "loss" in entry]


def scores_of(checkpoint: str, folder: Path) -> np.ndarray:
    model, processor = load_quality(checkpoint)
    rows = score_pictures(sorted(folder.glob("*.png")), model=model, processor=processor)
    return np.array([row.score for row in rows])


def test_student_comes_nearer_to_its_teacher_which_stays_as_it_is(scores_csv, blank, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("musiq_hf.training.trainer.LOGGING_STEPS", 1)
    before, taught = Path(teacher, "model.safetensors").read_bytes(), load_quality(teacher)[0].state_dict()
    seen = []
    original = QualityTrainer.training_step

    def note(trainer, *args, **kwargs):
        weights = {name: weight.clone() for name, weight in trainer.model.teacher.state_dict().items()}
        loss = original(trainer, *args, **kwargs)
        seen.append((weights, trainer.model.teacher.training, trainer.model.training))
        return loss

    monkeypatch.setattr(QualityTrainer, "training_step", note)
    report = distill(settings(scores_csv, blank, teacher, tmp_path, epochs=7, learning_rate=9e-3, plcc_weight=0.1))
    assert np.mean(losses(tmp_path)[-5:]) < 0.7 * np.mean(losses(tmp_path)[:5])
    for weights, teaches_in_training, student_in_training in (seen[0], seen[-1]):
        assert not teaches_in_training and student_in_training
        assert all(torch.equal(weight, taught[name]) for name, weight in weights.items())
    assert Path(teacher, "model.safetensors").read_bytes() == before
    assert list(report) == ["selection"] and read_metrics(tmp_path).reports == report
    student = AutoModel.from_pretrained(tmp_path)
    assert isinstance(student, MusiqForImageQualityAssessment)
    assert (
        load_file(tmp_path / "model.safetensors").keys() == student.state_dict().keys()
    )  # neither projection nor teacher
    assert student.config.score_range == [0, 100]
    card = (tmp_path / "README.md").read_text()
    assert "Trained with `musiq_hf.training.distill` of musiq_hf" in card
    assert f"Its teacher was `{Path(teacher).name}`." in card and "state_weight 0.5" in card
    assert str(Path(teacher).parent) not in card + (tmp_path / "run_settings.json").read_text()


def test_teacher_of_distributions_teaches_their_expectation(scores_csv, blank, tiny_model, tmp_path):
    teacher = save_teacher(tiny_model(num_labels=5), tmp_path / "teacher")
    distill(settings(scores_csv, blank, teacher, tmp_path / "out", epochs=7, learning_rate=9e-3, state_weight=0.0))
    config = AutoModel.from_pretrained(tmp_path / "out").config
    assert (config.num_labels, config.score_range) == (1, [1, 5])
    wanted, got = (scores_of(str(tmp_path / name), Path(scores_csv).parent) for name in ("teacher", "out"))
    assert abs(got - wanted).mean() < wanted.std()


def test_pictures_without_scores_have_those_of_the_teacher(scores_csv, blank, teacher, tmp_path):
    changes = {"dataset": "pictures", "data": str(Path(scores_csv).parent), "holdout_fraction": 0.3, "max_steps": 1}
    report = distill(settings(scores_csv, blank, teacher, tmp_path, **changes))
    assert report["selection"].num_pictures == 6
    assert "it is compared with the scores of the teacher" in (tmp_path / "README.md").read_text()


def test_distributions_of_scores_are_read_as_their_means(scores_csv, blank, teacher, tmp_path):
    lines = [f"{index}.png,{index % 3},1,{index % 2}" for index in range(18)]
    table = Path(scores_csv).parent / "counts.csv"
    table.write_text("\n".join(["image,c1,c2,c3", *lines]) + "\n")
    changes = {"data": str(table), "max_steps": 1, "holdout_fraction": 0.3}
    report = distill(settings(scores_csv, blank, teacher, tmp_path, **changes))
    assert report["selection"].num_pictures == 6
    assert AutoModel.from_pretrained(tmp_path).config.num_labels == 1


def test_resumed_run_repeats_an_uninterrupted_one(scores_csv, blank, teacher, tmp_path, monkeypatch, cut_off):
    monkeypatch.setattr("musiq_hf.training.trainer.LOGGING_STEPS", 1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    changes = {"fault_pairs": 1, "ema_decay": 0.7, "rates": {"head": 0.5}, "view": {"native_patches": 6}}
    changes |= {"teacher_view": {"native_patches": 8}}
    distill(settings(scores_csv, blank, teacher, whole, **changes))
    with cut_off(4):  # in the middle of the second epoch
        distill(settings(scores_csv, blank, teacher, broken, **changes))
    with pytest.raises(ValueError, match="`label_weight` was 0.0 and is 0.5 now"):
        distill(settings(scores_csv, blank, teacher, broken, resume=True, label_weight=0.5, **changes))
    distill(settings(scores_csv, blank, teacher, broken, resume=True, **changes))
    assert losses(broken) == losses(whole) and len(losses(whole)) == 6
    first, second = (load_file(folder / "model.safetensors") for folder in (whole, broken))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_batch_shows_teacher_and_student_the_same_pictures(tmp_path, teacher):
    for index in range(3):
        make_picture(seed=index, width=180, height=170).save(tmp_path / f"{index}.png")
    (tmp_path / "scores.csv").write_text("image,mos\n0.png,10\n1.png,20\n2.png,30\n")
    rows = list(load_scored_images(str(tmp_path / "scores.csv"))["train"])
    model, processor = load_quality(teacher)
    collator = DistillCollator(
        MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16]),
        teacher=Teacher(model=model, processor=processor, view=WHOLE_PICTURE),
        view=MusiqTrainingView(native_patches=None),
        augmentation=Augmentation(flip=True, fault_pairs=2, view_pairs=1, min_crop=0.5),
    )
    batch = collator(rows)
    assert batch["labels"][:3].tolist() == [10, 20, 30]
    assert batch["labels"].shape == (9,) and batch["labels"][3:].isnan().all()
    assert "num_tokens" not in batch["teacher"] and len(batch["num_tokens"]) == 9

    def native(part, scale: int, index: int) -> torch.Tensor:
        real = part["pixel_attention_mask"][index].bool() & (part["scale_position_ids"][index] == scale)
        return part["pixel_values"][index][real]

    native_scale = len(processor.longer_side_lengths)
    for index in range(9):  # the patches of the original size are those of one picture
        assert torch.equal(native(batch, 1, index), native(batch["teacher"], native_scale, index))


def test_opinion_scores_are_mixed_into_the_targets(tiny_model, pictures):
    student, teacher = tiny_model(seed=1), tiny_model(seed=2, hidden_size=24, num_attention_heads=2)
    batch = dict(MusiqImageProcessor.from_config(student.config)(pictures))
    labels = torch.tensor([1.0, float("nan"), 3.0, float("nan")])
    used = DistillSettings(data="d", output_dir="o", model="m", teacher="t", label_weight=0.25, state_weight=0.0)
    model = DistillModel(student, teacher, features=torch.rand(5, 24), settings=used).train()
    with torch.no_grad():
        wanted, own = teacher(**batch).scores, student(**batch).scores
    targets = torch.tensor([0.25 + 0.75 * wanted[0], wanted[1], 0.75 + 0.75 * wanted[2], wanted[3]])
    loss = model(labels, teacher=batch, **batch)["loss"]
    torch.testing.assert_close(loss, (own - targets).abs().mean())
    assert isinstance(model.projection, torch.nn.Identity)  # nothing that gets no gradient
    loss.backward()
    assert not any(parameter.grad is not None for parameter in teacher.parameters())


def test_features_of_one_size_need_no_projection(tiny_model, pictures):
    student, teacher = tiny_model(seed=1), tiny_model(seed=1)
    batch = dict(MusiqImageProcessor.from_config(student.config)(pictures))
    used = DistillSettings(data="d", output_dir="o", model="m", teacher="t", state_weight=3.0)
    width = student.config.hidden_size
    model = DistillModel(student, teacher, features=torch.rand(5, width), settings=used)
    model.eval()  # without dropped paths
    assert model(torch.full((4,), float("nan")), teacher=batch, **batch)["loss"] < 1e-4
    with torch.no_grad():
        student.musiq.layernorm.bias.add_(1.0)
        student.head.classifier.bias.sub_(student.head.classifier.weight.sum())  # the same scores
    loss = model(torch.full((4,), float("nan")), teacher=batch, **batch)["loss"]
    torch.testing.assert_close(loss.item(), 3 / model.spread, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label_weight": 1.5}, r"`label_weight` must lie in \[0, 1\], got 1.5"),
        ({"state_weight": -1.0}, "`state_weight` must be at least 0, got -1"),
        ({"label_weight": 0.5, "dataset": "pictures"}, '"pictures" has no opinion scores. Leave `label_weight` out'),
        ({"fixed_shapes": True}, "`fixed_shapes` needs a bound on what the teacher sees too. Set `teacher_view`"),
        ({"view_pairs": 17}, "`view_pairs` must lie between 0 and `batch_size`, got 17"),
        ({"teacher_view": {"crops": 3}}, "`teacher_view` names crops, which is no field of any family"),
        ({"teacher_view": {"native_patches": "few"}}, "`native_patches` must be .*int.*, got 'few'"),
        ({"teacher_view": 3}, "`teacher_view` must be Mapping, got 3"),
        ({"teacher": None}, "`teacher` must be str, got None"),
    ],
)
def test_wrong_settings_are_refused_at_once(changes, message):
    given = {"data": "d", "output_dir": "o", "model": "m", "teacher": "t"}
    with pytest.raises(ValueError, match=message):
        load_settings(DistillSettings, arguments=given | changes)


def test_a_teacher_is_needed():
    with pytest.raises(ValueError, match="--teacher is needed: Checkpoint of any family that teaches"):
        load_settings(DistillSettings, arguments={"data": "d", "output_dir": "o", "model": "m"})


def test_a_teacher_without_weights_is_refused(scores_csv, blank, tmp_path):
    with pytest.raises(ValueError, match="holds no weights. Give a trained or converted checkpoint"):
        distill(settings(scores_csv, blank, blank, tmp_path))


def test_opinion_scores_in_another_unit_are_refused(scores_csv, blank, tiny_model, tmp_path):
    teacher = save_teacher(tiny_model(num_labels=5), tmp_path / "teacher")
    with pytest.raises(ValueError, match="their mean and deviation are .*, and the teacher's .*: another unit"):
        distill(settings(scores_csv, blank, teacher, tmp_path / "out", label_weight=0.5))
    labels = np.array([1.0, 3.0, 5.0])
    with pytest.raises(ValueError, match="are 3 and 1.633, and .* with a deviation of 32.04: another unit"):
        _check_unit(labels, np.array([2.2, 50.0, 80.0]))  # of a scale of 0 to 100, whose lowest reaches into 1 to 5
    _check_unit(20 * labels, np.array([2.2, 50.0, 80.0]))


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_pictures_get_the_score_that_the_student_should_give(scores_csv, blank, teacher, tmp_path, weight):
    given = settings(scores_csv, blank, teacher, tmp_path, label_weight=weight)
    known = Teacher.load(given)
    rows = load_scored_images(scores_csv)["validation"]
    scores, _ = known.score(rows, shorter_side=None)
    labels = np.array(rows["mos"][:])
    assert _teach(given, rows, known)["mos"][:] == pytest.approx((1 - weight) * scores + weight * labels)
    bare = rows.remove_columns("mos").add_column("mos", [float("nan")] * len(rows))
    assert _teach(given, bare, known)["mos"][:] == pytest.approx(scores)


def test_pictures_without_scores_have_no_splits_to_draw(scores_csv, blank, tmp_path):
    with pytest.raises(ValueError, match='`dataset` "pictures" has no splits to draw. Leave `split_seed` out'):
        settings(scores_csv, blank, tmp_path, tmp_path / "out", dataset="pictures", split_seed=3)


def test_command_without_data_says_what_to_type(capsys, monkeypatch):
    from examples import distill as script

    monkeypatch.setattr("sys.argv", ["distill.py"])
    assert script.main() == 2
    shown = capsys.readouterr().err
    assert "distill: --model is needed" in shown and "accelerate launch examples/distill.py" in shown
