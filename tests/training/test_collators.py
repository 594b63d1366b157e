# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.data.batches import QualityCollator, open_row
from musiq_hf.data.loading import load_scored_images
from musiq_hf.models.musiq.family import MusiqTrainingView
from musiq_hf.models.protocol import TrainingView
from musiq_hf.pictures.augmentations import crop_fraction
from musiq_hf.training.collators import Augmentation, TrainingCollator

PROCESSOR = MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16])


def training(view: TrainingView | None = None, **augmentation) -> TrainingCollator:
    whole = view or TrainingView()
    return TrainingCollator(PROCESSOR, view=whole, augmentation=Augmentation(**augmentation))


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "photos").mkdir()
    for index in range(4):
        Image.new("RGB", (20 + index, 30), (60 * index, 0, 0)).save(tmp_path / "photos" / f"{index}.png")
    (tmp_path / "scores.csv").write_text("image,mos\n0.png,10\n1.png,20\n2.png,30\n3.png,40\n")
    return tmp_path


def rows_of(folder: Path) -> list[dict]:
    return list(load_scored_images(str(folder / "scores.csv"), image_root=str(folder / "photos"))["train"])


def test_collator_pads_like_the_processor_and_adds_labels(folder):
    batch = QualityCollator(PROCESSOR)(rows_of(folder))
    images = [Image.open(folder / "photos" / f"{index}.png") for index in range(4)]
    for name, values in PROCESSOR(images).items():
        torch.testing.assert_close(batch[name], values, atol=0, rtol=0)
    assert batch["labels"].tolist() == [10, 20, 30, 40]


def test_tokens_are_counted_picture_by_picture(folder):
    batch = training(MusiqTrainingView(native_patches=5), fault_pairs=1)(rows_of(folder))
    for part in (batch, batch["pairs"]):
        assert part["num_tokens"].tolist() == part["pixel_attention_mask"].sum(dim=1).tolist()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("embedding", ["hash", "fixed"])
def test_a_view_cuts_a_random_subset_of_the_patches_of_the_whole_picture(dtype, embedding):
    pixels = torch.randint(0, 256, (45, 61, 3), dtype=torch.uint8)
    pixels = pixels if dtype == torch.uint8 else pixels / 255
    settings = {"spatial_embedding": embedding, "max_native_patches": 40}
    processor = MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16, 32], **settings)
    whole, view = processor.cut(pixels), MusiqTrainingView(native_patches=11, resized_patches=5)
    torch.manual_seed(1)
    feature = view.cut(processor, pixels)
    torch.manual_seed(1)
    starts = [int((whole["scale_position_ids"] < scale).sum()) for scale in range(4)]
    kept = [
        starts[scale] + torch.randperm(starts[scale + 1] - starts[scale])[:limit].sort().values
        for scale, limit in enumerate((5, 5, 11))
    ]
    assert feature.keys() == whole.keys()
    for name, values in feature.items():
        assert torch.equal(values, whole[name][torch.cat(kept)])


def test_native_subset_keeps_the_resized_scales_and_changes_from_step_to_step(folder):
    torch.manual_seed(0)
    collator, rows = training(MusiqTrainingView(native_patches=5)), rows_of(folder)
    first, second = collator(rows), collator(rows)
    for batch in (first, second):
        native = (batch["scale_position_ids"] == 1) & (batch["pixel_attention_mask"] == 1)
        assert native.sum(dim=1).tolist() == [5] * 4
        full = PROCESSOR(Image.open(folder / "photos" / "0.png"))
        resized = int((full["scale_position_ids"] == 0).sum())
        torch.testing.assert_close(batch["pixel_values"][0, :resized], full["pixel_values"][0, :resized])
    assert not torch.equal(first["spatial_position_ids"], second["spatial_position_ids"])


def test_native_subset_larger_than_the_picture_keeps_all(folder):
    rows = rows_of(folder)
    full, subset = (
        QualityCollator(PROCESSOR)(rows),
        training(MusiqTrainingView(native_patches=1000, resized_patches=1000))(rows),
    )
    torch.testing.assert_close(subset["pixel_values"], full["pixel_values"], atol=0, rtol=0)


def test_flip_mirrors_the_picture_before_patching(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (17, 21, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    row = {"image": {"path": str(tmp_path / "p.png"), "bytes": None}, "mos": 1.0}
    torch.manual_seed(0)
    flipping = training(flip=True)
    seen = [flipping([row])["pixel_values"] for _ in range(12)]
    plain, mirrored = PROCESSOR(pixels)["pixel_values"], PROCESSOR(pixels[:, ::-1])["pixel_values"]
    matches = [torch.equal(values, mirrored) for values in seen]
    assert any(matches) and not all(matches)
    assert all(torch.equal(values, mirrored if match else plain) for values, match in zip(seen, matches, strict=True))


def test_every_scale_has_its_own_limit(folder):
    batch = training(MusiqTrainingView(resized_patches=2, native_patches=3))(rows_of(folder))
    for scale, limit in enumerate((2, 3)):
        chosen = (batch["scale_position_ids"] == scale) & (batch["pixel_attention_mask"] == 1)
        assert chosen.sum(dim=1).tolist() == [limit] * 4


def test_random_crop_is_a_window_of_the_asked_size():
    pixels = np.arange(40 * 60 * 3, dtype=np.uint32).astype(np.uint8).reshape(40, 60, 3)
    torch.manual_seed(0)
    windows = [crop_fraction(Image.fromarray(pixels), min_fraction=0.5) for _ in range(30)]
    sizes = [window.size for window in windows]
    assert all(30 <= width <= 60 and 20 <= height <= 40 for width, height in sizes)
    assert len(set(sizes)) > 10
    assert crop_fraction(Image.new("RGB", (1, 1)), min_fraction=0.1).size == (1, 1)


def test_pairs_of_copies_lie_beside_the_batch_and_leave_it_alone(folder):
    torch.manual_seed(0)
    rows = rows_of(folder)
    batch = training(MusiqTrainingView(native_patches=3), fault_pairs=3)(rows)
    assert batch["labels"].tolist() == [10, 20, 30, 40]
    assert batch["pixel_values"].shape[0] == 4
    assert batch["pairs"]["pixel_values"].shape[0] == 6
    assert (batch["pairs"]["scale_position_ids"] == 1).logical_and(batch["pairs"]["pixel_attention_mask"] == 1).sum(
        dim=1
    ).tolist() == [3] * 6
    assert "pairs" not in training()(rows)
    # A last batch may be smaller than the number of pairs.
    assert training(fault_pairs=3)(rows[:1])["pairs"]["pixel_values"].shape[0] == 2


def test_views_lie_beside_the_batch_and_repeat_with_the_seed(folder):
    rows, batches = rows_of(folder), []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        batches.append(training(view_pairs=2, fault_pairs=1)(rows))
    first, same, other = (batch["views"]["pixel_values"] for batch in batches)
    assert first.shape[0] == 4
    assert torch.equal(first, same) and not (first.shape == other.shape and torch.equal(first, other))
    assert batches[0]["pairs"]["pixel_values"].shape[0] == 2
    assert batches[0]["labels"].tolist() == [10, 20, 30, 40]
    assert "views" not in training(fault_pairs=1)(rows)


def test_sizes_change_with_scores_that_are_kept_or_averaged(folder, monkeypatch):
    monkeypatch.setattr("musiq_hf.pictures.augmentations.MIN_SIDE", 8)
    rows = rows_of(folder)
    batches = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        batches.append(training(size_fraction=1.0)(rows))
    assert torch.equal(batches[0]["pixel_values"], batches[1]["pixel_values"])
    assert batches[0]["labels"].tolist() == batches[1]["labels"].tolist()
    assert batches[0]["labels"].tolist() != [10, 20, 30, 40]
    monkeypatch.setattr("musiq_hf.training.collators.draw_others", lambda count: [1, 2, 3])
    batch = training(size_fraction=1.0)(rows)
    assert batch["labels"].tolist() == [25, 27.5, 30, 32.5]  # the picture itself and three others
    assert min(batch["num_tokens"].tolist()) > max(training()(rows)["num_tokens"].tolist())
    monkeypatch.setattr("musiq_hf.training.collators.draw_others", lambda count: [])
    assert training(size_fraction=1.0)(rows)["labels"].tolist() == [10, 20, 30, 40]


def test_mosaics_average_distributions(folder, monkeypatch):
    rows = [{"image": row["image"], "distribution": [index, 4.0 - index]} for index, row in enumerate(rows_of(folder))]
    monkeypatch.setattr("musiq_hf.training.collators.draw_others", lambda count: [0, 0, 2])
    assert training(size_fraction=1.0)(rows)["labels"][0].tolist() == [0.5, 3.5]


def test_a_picture_is_decoded_once_however_many_mosaics_show_it(folder, monkeypatch):
    opened = []
    monkeypatch.setattr("musiq_hf.data.batches.open_row", lambda row: opened.append(row) or open_row(row))
    monkeypatch.setattr("musiq_hf.training.collators.draw_others", lambda count: [0, 1, 2])
    training(size_fraction=1.0, fault_pairs=2, view_pairs=2)(rows_of(folder))
    assert len(opened) == 4


def test_every_batch_draws_its_number_of_native_patches(folder):
    view, rows = MusiqTrainingView(native_patches=9, min_native_patches=3), rows_of(folder)
    torch.manual_seed(0)
    collator = training(view, fault_pairs=1, view_pairs=1)
    seen, apart = set(), 0
    for _ in range(30):
        batch = collator(rows)
        own, pairs, views = (native_patches(part) for part in (batch, batch["pairs"], batch["views"]))
        assert len(set(own + pairs)) == 1
        seen.add(own[0])
        apart += len(set(views)) == 2
    assert seen == set(range(3, 10))
    assert apart > 15  # two views of a picture with one score may have different numbers of patches
    assert view.max_tokens(PROCESSOR) == MusiqTrainingView(native_patches=9).max_tokens(PROCESSOR)


def native_patches(batch) -> list[int]:
    return ((batch["scale_position_ids"] == 1) & (batch["pixel_attention_mask"] == 1)).sum(dim=1).tolist()


def test_wrong_numbers_of_patches_are_refused():
    with pytest.raises(ValueError, match="`min_native_patches` must be at most `native_patches`.*got 4 and 3"):
        MusiqTrainingView(native_patches=3, min_native_patches=4)
    with pytest.raises(ValueError, match="needs that bound, got 4 and None"):
        MusiqTrainingView(native_patches=None, min_native_patches=4)
    with pytest.raises(ValueError, match="`min_native_patches` must be at least 1, got 0"):
        MusiqTrainingView(min_native_patches=0)


def test_wrong_collator_settings_are_refused():
    with pytest.raises(ValueError, match=r"`size_fraction` must lie in \[0, 1\], got 2"):
        Augmentation(size_fraction=2)
    with pytest.raises(ValueError, match=r"`min_crop` must lie in \(0, 1\], got 0"):
        Augmentation(min_crop=0)
