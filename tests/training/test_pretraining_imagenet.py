# SPDX-License-Identifier: Apache-2.0
import importlib.util
import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from PIL import Image
from places import ROOT
from transformers import AutoModelForImageClassification

from musiq_hf import MusiqForImageClassification, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.data.batches import cut_picture
from musiq_hf.models import FAMILIES
from musiq_hf.models.musiq.family import MusiqTrainingView
from musiq_hf.models.protocol import TrainingView
from musiq_hf.training.collators_imagenet import ClassificationCollator, Mixing, MixupCollator, mix_pair
from musiq_hf.training.pretraining_imagenet import (
    ImageNetSettings,
    load_classifier,
    load_labelled_images,
    pretrain_imagenet,
)
from musiq_hf.training.recipes import load_settings

NAMES = ["bright", "dark"]
PLAIN = {"min_crop_area": 0.08, "num_operations": 0, "magnitude": 0.0, "mixup_alpha": 0.5}


@pytest.fixture(scope="module")
def blank(tmp_path_factory, tiny_config) -> str:
    """A directory with a configuration for a thousand classes, but without weights."""
    folder, config = tmp_path_factory.mktemp("blank"), tiny_config(longer_side_lengths=[16], num_labels=1000)
    config.save_pretrained(folder)
    MusiqImageProcessor.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Eight pictures of different sizes in two classes that differ in brightness."""
    root, generator = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    for index in range(8):
        name, size = NAMES[index % 2], (20 + 4 * index, 44 - 3 * index, 3)
        (root / "train" / name).mkdir(parents=True, exist_ok=True)
        values = generator.integers(0, 100, size) + (150 if name == "bright" else 0)
        Image.fromarray(values.astype(np.uint8)).save(root / "train" / name / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def processor() -> MusiqImageProcessor:
    return MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16])


WHOLE = TrainingView()


def collator(processor, *, view: TrainingView = WHOLE, length: int | None = None, **changes) -> MixupCollator:
    return MixupCollator(processor, view=view, num_labels=3, mixing=Mixing(**(PLAIN | changes)), length=length)


def uniform_row(level: int, label: int, tmp_path: Path, size=(30, 20)) -> dict:
    path = tmp_path / f"{level}_{label}_{size[0]}.png"
    Image.new("RGB", size, (level, level, level)).save(path)
    return {"image": {"path": str(path), "bytes": None}, "label": label}


@pytest.fixture
def seen(monkeypatch) -> list[Image.Image]:
    """The pictures that the collators hand to the processor."""
    pictures: list[Image.Image] = []

    def spy(processor, picture, view):
        pictures.append(picture)
        return cut_picture(processor, picture, view)

    monkeypatch.setattr("musiq_hf.training.collators_imagenet.cut_picture", spy)
    return pictures


def settings(folder, blank, output_dir, **changes) -> ImageNetSettings:
    values = {"data": str(folder), "model": blank, "output_dir": str(output_dir), "epochs": 1, "batch_size": 4}
    return ImageNetSettings(**(values | {"holdout_fraction": 0.25} | changes))


def test_mixed_pixels_are_the_weighted_mean():
    generator = np.random.default_rng(0)
    arrays = [generator.integers(0, 256, (6, 9, 3), dtype=np.uint8) for _ in range(2)]
    pair = [Image.fromarray(array) for array in arrays]
    first, second = (np.asarray(mixed, dtype=float) for mixed in mix_pair(pair, 0.25))
    np.testing.assert_allclose(first, 0.25 * arrays[0] + 0.75 * arrays[1], atol=1)
    np.testing.assert_allclose(second, 0.25 * arrays[1] + 0.75 * arrays[0], atol=1)
    for share, expected in ((1.0, arrays), (0.0, arrays[::-1])):
        for mixed, array in zip(mix_pair(pair, share), expected, strict=True):
            np.testing.assert_array_equal(np.asarray(mixed), array)


def test_labels_are_mixed_with_the_share_of_the_pixels(processor, tmp_path, seen):
    rows = [uniform_row(level, label, tmp_path) for level, label in ((200, 0), (40, 2), (120, 1), (80, 0))]
    torch.manual_seed(0)
    labels = collator(processor)(rows)["labels"]
    assert labels.shape == (4, 3) and labels.dtype == torch.float32
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(4))
    levels = [np.asarray(picture, dtype=float).mean() for picture in seen]
    expected = [40 + 160 * labels[0, 0], 40 + 160 * labels[1, 0], 80 + 40 * labels[2, 1], 80 + 40 * labels[3, 1]]
    np.testing.assert_allclose(levels, expected, atol=1)
    torch.testing.assert_close(labels[0, 0], labels[1, 2])  # the roles swapped
    assert len({round(float(value), 4) for value in labels[[0, 2]].max(dim=1).values}) == 2  # a share per pair


def test_pairs_share_a_size_that_fits_both_and_nothing_is_made_square(processor, tmp_path, seen):
    rows = [
        uniform_row(level, 0, tmp_path, size) for level, size in enumerate([(60, 40), (50, 90), (90, 20), (64, 30)])
    ]
    torch.manual_seed(0)
    sizes = []
    for _ in range(10):
        seen.clear()
        collator(processor)(rows)
        first, second, third, fourth = (picture.size for picture in seen)
        assert first == second != third == fourth
        assert first[0] <= 50 and first[1] <= 40 and third[0] <= 64 and third[1] <= 20
        sizes += [first, third]
    assert len(set(sizes)) > 15
    assert sum(width == height for width, height in sizes) < 5


def test_without_mixup_every_picture_has_its_own_size_and_class(processor, tmp_path, seen):
    rows = [uniform_row(100, label, tmp_path, (60 + label, 40)) for label in range(3)]
    torch.manual_seed(0)
    batch = collator(processor, mixup_alpha=0.0)(rows)
    torch.testing.assert_close(batch["labels"], torch.eye(3))
    assert len({picture.size for picture in seen}) == 3


def test_the_last_of_an_odd_batch_is_not_mixed(processor, tmp_path, seen):
    rows = [uniform_row(level, label, tmp_path) for label, level in enumerate((200, 40, 120))]
    torch.manual_seed(0)
    labels = collator(processor)(rows)["labels"]
    assert labels[2].tolist() == [0, 0, 1]
    assert 0 < labels[0, 0] < 1
    assert set(np.asarray(seen[2]).ravel()) == {120}


def test_flips_and_rand_augment_are_applied_to_each_picture_before_mixing(processor, tmp_path, monkeypatch):
    calls = []

    def spy(picture, *, num_operations, magnitude):
        calls.append((np.asarray(picture)[0, 0, 0], num_operations, magnitude))
        return picture

    monkeypatch.setattr("musiq_hf.training.collators_imagenet.rand_augment", spy)
    rows = [uniform_row(level, 0, tmp_path) for level in (200, 40)]
    torch.manual_seed(0)
    collator(processor, num_operations=3, magnitude=9.0)(rows)
    assert calls == [(200, 3, 9.0), (40, 3, 9.0)]


def test_half_of_the_pictures_are_mirrored(processor, tmp_path, seen):
    slope = np.broadcast_to(np.arange(40, dtype=np.uint8)[:, None], (30, 40, 3))
    Image.fromarray(np.ascontiguousarray(slope)).save(tmp_path / "slope.png")
    row = {"image": {"path": str(tmp_path / "slope.png"), "bytes": None}, "label": 0}
    torch.manual_seed(0)
    collator(processor, mixup_alpha=0.0)([row] * 60)
    mirrored = [np.asarray(picture)[0, 0, 0] > np.asarray(picture)[0, -1, 0] for picture in seen]
    assert 15 < sum(mirrored) < 45


def test_patches_are_limited_per_scale_and_to_one_length_if_asked_for(processor, tmp_path):
    rows = [uniform_row(90, 0, tmp_path, (90, 60))] * 2
    torch.manual_seed(0)
    batch = collator(processor, view=MusiqTrainingView(native_patches=5), min_crop_area=1.0)(rows)
    native = (batch["scale_position_ids"] == 1) & (batch["pixel_attention_mask"] == 1)
    assert native.sum(dim=1).tolist() == [5, 5]
    small = [uniform_row(90, 0, tmp_path, (9, 9))] * 2
    view = MusiqTrainingView(native_patches=5)
    fixed = collator(processor, view=view, length=view.max_tokens(processor))
    assert [fixed(rows_)["pixel_values"].shape[1] for rows_ in (rows, small)] == [4 + 5, 4 + 5]
    assert processor.max_native_patches is None


def test_undecodable_pictures_stop_with_their_name(processor, tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    row = {"image": {"path": str(tmp_path / "broken.jpg"), "bytes": None}, "label": 0}
    for collate in (collator(processor), ClassificationCollator(processor, view=WHOLE, seed=0)):
        with pytest.raises(ValueError, match=r"broken\.jpg: not a picture that Pillow can read"):
            collate([row])


def test_pictures_too_narrow_to_resize_are_named(processor, tmp_path):
    rows = [uniform_row(level, 0, tmp_path, (1, 600)) for level in (7, 8)]
    with pytest.raises(ValueError, match=r"7_0_1\.png and .*8_0_1\.png"):
        collator(processor)(rows)


def test_evaluation_reads_whole_pictures_the_same_way_in_any_batch(processor, folder):
    rows = list(load_labelled_images(str(folder))["train"])
    collate = ClassificationCollator(processor, view=MusiqTrainingView(native_patches=6), seed=3)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batch, alone = collate(rows), collate(rows[5:6])
    assert torch.equal(torch.get_rng_state(), before)
    assert batch["labels"].tolist() == [row["label"] for row in rows]
    length = alone["pixel_values"].shape[1]
    torch.testing.assert_close(batch["pixel_values"][5:6, :length], alone["pixel_values"], atol=0, rtol=0)
    everything = ClassificationCollator(processor, view=WHOLE, seed=3)(rows)
    picture = Image.open(rows[2]["image"]["path"])
    assert int(everything["pixel_attention_mask"][2].sum()) == len(processor(picture)["pixel_values"][0])


def test_folders_of_classes_are_read_undecoded(folder):
    splits = load_labelled_images(str(folder))
    assert list(splits) == ["train"]
    rows = splits["train"]
    assert rows.features["label"].names == NAMES
    assert rows.column_names == ["image", "label"]
    assert all(NAMES[row["label"]] in row["image"]["path"] for row in rows)


def test_pictures_that_datasets_does_not_know_are_counted(folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("musiq_hf"), "propagate", True)
    shutil.copytree(folder, tmp_path / "copy")
    for name in ("a.avif", "b.AVIF", "c.heic", "notes.txt"):
        (tmp_path / "copy" / "train" / "dark" / name).touch()
    assert len(load_labelled_images(str(tmp_path / "copy"))["train"]) == 8
    assert caplog.messages == ["3 files were left out (endings that `datasets` does not read): 2 .avif, 1 .heic"]


def test_pictures_outside_of_classes_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "train" / "a.png")
    with pytest.raises(ValueError, match=r"columns \['label'\] are missing.*train/<class>/picture\.jpg"):
        load_labelled_images(str(tmp_path))


def test_unreadable_data_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot be read .*Expected is `train/<class>/picture\.jpg`"):
        load_labelled_images(str(tmp_path))


def labelled(kind, labels, **splits) -> DatasetDict:
    rows = {"image": ["a.png"] * len(labels), "label": labels}
    made = Dataset.from_dict(rows, features=Features({"image": Value("string"), "label": kind}))
    return DatasetDict({name: made for name in splits})


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        (labelled(ClassLabel(names=["a", "b"]), [0, 1], test=1), r"`train` split is needed, got \['test'\]"),
        (labelled(Value("int64"), [0, 1], train=1), "`label` must be a `ClassLabel`"),
        (labelled(ClassLabel(names=["a"]), [0], train=1), r"at least 2 classes are needed, got \['a'\]"),
        (labelled(ClassLabel(names=["a", "b"]), [0, -1], train=1), r"row 1: the class is unknown \(-1\)"),
    ],
)
def test_data_without_usable_classes_are_refused(loaded, message, monkeypatch):
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **kwargs: loaded)
    with pytest.raises(ValueError, match=message):
        load_labelled_images("someone/something")


def test_hidden_test_labels_do_not_matter(monkeypatch):
    good, hidden = (labelled(ClassLabel(names=["a", "b"]), labels, s=1)["s"] for labels in ([0, 1], [-1, -1]))
    loaded = DatasetDict({"train": good, "validation": good, "test": hidden})
    monkeypatch.setattr("datasets.load_dataset", lambda *args, **kwargs: loaded)
    assert sorted(load_labelled_images("someone/something")) == ["train", "validation"]


def test_fresh_classifier_has_the_classes_of_the_data(blank):
    model = load_classifier(blank, NAMES, architecture={"spatial_embedding": "none", "resize_mode": "square"})
    assert isinstance(model, MusiqForImageClassification)
    assert model.config.id2label == dict(enumerate(NAMES)) and model.config.label2id == {"bright": 0, "dark": 1}
    assert model.config.spatial_embedding == "none"
    assert model.head.classifier.out_features == 2


def test_quality_checkpoint_gives_its_body_and_a_fresh_head(tiny_model, tmp_path):
    quality = tiny_model(score_offset=50.0, score_scale=20.0, score_range=(0, 100))
    quality.save_pretrained(tmp_path)
    model = load_classifier(str(tmp_path), NAMES, architecture={})
    torch.testing.assert_close(model.musiq.state_dict(), quality.musiq.state_dict())
    assert not model.head.classifier.weight.any() and model.head.classifier.out_features == 2
    assert (model.config.score_offset, model.config.score_scale, model.config.score_range) == (0, 1, None)
    assert model.config.problem_type is None


def test_foreign_checkpoints_are_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ValueError, match="checkpoint was expected, got one of type 'vit'"):
        load_classifier(str(tmp_path), NAMES, architecture={})


def test_two_steps_train_measure_and_save(folder, blank, tmp_path):
    report = pretrain_imagenet(settings(folder, blank, tmp_path, gradient_accumulation_steps=1))
    assert sorted(report) == ["loss", "num_pictures", "top1_accuracy"]
    assert report["num_pictures"] == 2 and report["top1_accuracy"] in (0, 0.5, 1)
    assert json.loads((tmp_path / "metrics.json").read_text()) == report
    state = json.loads((tmp_path / "trainer_state.json").read_text())
    assert state["global_step"] == 2
    assert state["best_metric"] == report["top1_accuracy"]
    model = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert isinstance(model, MusiqForImageClassification)
    assert model.config.id2label == dict(enumerate(NAMES))
    quality = MusiqForImageQualityAssessment.from_pretrained(tmp_path, num_labels=1, ignore_mismatched_sizes=True)
    torch.testing.assert_close(quality.musiq.state_dict(), model.musiq.state_dict())


@pytest.mark.slow
def test_bright_and_dark_pictures_are_told_apart(folder, blank, tmp_path):
    # Solarising would invert brightness, the only clue here.
    changes = {"epochs": 6, "learning_rate": 1e-2, "weight_decay": 0.0, "num_operations": 0}
    assert pretrain_imagenet(settings(folder, blank, tmp_path, **changes))["top1_accuracy"] == 1
    log = json.loads((tmp_path / "trainer_state.json").read_text())["log_history"]
    losses = [entry["eval_loss"] for entry in log if "eval_loss" in entry]
    assert losses[0] > 0.5 and losses[5] < 0.25


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 5}, "`batch_size` must be even, got 5.*set `mixup_alpha` to 0"),
        ({"mixup_alpha": -0.1}, "`mixup_alpha` must be finite and at least 0, got -0.1"),
        ({"min_crop_area": 0.0}, r"`min_crop_area` must lie in \(0, 1\], got 0.0"),
        ({"magnitude": 40.0}, "`magnitude` must lie in .* got 40.0"),
        ({"num_operations": -1}, "`num_operations` must be at least 0"),
        ({"epochs": 0}, "`epochs` must be positive"),
    ],
)
def test_wrong_settings_are_refused_at_once(changes, message):
    with pytest.raises(ValueError, match=message):
        ImageNetSettings(data="d", output_dir="o", model="m", **changes)
    assert ImageNetSettings(data="d", output_dir="o", model="m", batch_size=5, mixup_alpha=0).batch_size == 5


def test_recipe_and_defaults_have_the_settings_of_the_paper():
    needed = {"data": "d", "model": "m", "output_dir": "o"}
    recipe = load_settings(ImageNetSettings, recipe="imagenet_pretrain", arguments=needed)
    assert recipe.batch_size * recipe.gradient_accumulation_steps * 8 == 4096  # on eight devices
    for made in (recipe, ImageNetSettings(**needed)):
        assert (made.epochs, made.learning_rate, made.weight_decay) == (300, 1e-3, 0.1)
        assert made.training_view(FAMILIES["musiq"]).native_patches == 512
        assert (made.num_operations, made.magnitude, made.mixup_alpha, made.min_crop_area) == (2, 15, 0.2, 0.08)
        assert made.optimizer == "adamw"


def run_example(*words, monkeypatch) -> int:
    path = ROOT / "examples" / "pretrain_imagenet.py"
    spec = importlib.util.spec_from_file_location("pretrain_imagenet_example", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [str(path), *words])
    return module.main()


def test_command_answers_mistakes_with_one_sentence(blank, tmp_path, monkeypatch, capsys):
    assert run_example("--model", blank, "--output_dir", str(tmp_path), monkeypatch=monkeypatch) == 2
    assert capsys.readouterr().err.startswith("pretrain_imagenet: --data is needed")
    words = ("--data", str(tmp_path), "--model", blank, "--output-dir", str(tmp_path), "--batch-size", "3")
    assert run_example(*words, monkeypatch=monkeypatch) == 2
    assert "`batch_size` must be even, got 3" in capsys.readouterr().err


@pytest.mark.slow
def test_command_trains_from_the_recipe(folder, blank, tmp_path, monkeypatch, capsys):
    words = ["--recipe", "imagenet_pretrain", "--data", str(folder), "--model", blank, "--output_dir", str(tmp_path)]
    small = ["--epochs", "2", "--batch_size", "4", "--num_workers", "0", "--holdout_fraction", "0.25"]
    assert run_example(*words, *small, monkeypatch=monkeypatch) == 0
    assert '"top1_accuracy"' in capsys.readouterr().out
    assert json.loads((tmp_path / "trainer_state.json").read_text())["global_step"] == 2  # gradients accumulate
