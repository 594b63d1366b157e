# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.data import QualityCollator, load_scored_images, open_picture

PROCESSOR = MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16])


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "photos").mkdir()
    for index in range(4):
        Image.new("RGB", (20 + index, 30), (60 * index, 0, 0)).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path


def write_csv(folder: Path, text: str) -> str:
    (folder / "scores.csv").write_text(text)
    return str(folder / "scores.csv")


def test_csv_is_read_with_splits_groups_and_root(folder):
    csv = write_csv(
        folder, "image,mos,split,group\n0.png,10,train,a\n1.png,20.5,train,b\n2.png,30,validation,a\n3.png,40,test,a\n"
    )
    splits = load_scored_images(csv, image_root=str(folder / "photos"))
    assert sorted(splits) == ["test", "train", "validation"]
    assert splits["train"]["mos"][:] == [10.0, 20.5]
    assert splits["train"]["group"][:] == ["a", "b"]
    assert open_picture(splits["validation"][0]["image"]).size == (22, 30)


def test_csv_without_split_is_all_train_and_starts_from_its_own_directory(folder):
    splits = load_scored_images(write_csv(folder, "image,mos\nphotos/0.png,1\nphotos/1.png,2\n"))
    assert list(splits) == ["train"]
    assert len(splits["train"]) == 2


def test_imagefolder_is_read(folder):
    (folder / "photos" / "metadata.csv").write_text("file_name,mos\n0.png,1.5\n1.png,2\n2.png,3\n3.png,4\n")
    splits = load_scored_images(str(folder / "photos"))
    assert sorted(splits["train"]["mos"][:]) == [1.5, 2.0, 3.0, 4.0]
    assert open_picture(splits["train"][0]["image"]).size[1] == 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,mos\n0.png,1\n", r"scores.csv: columns \['image'\] are missing, got \['picture', 'mos'\]"),
        ("image,mos\n0.png,1\n9.png,2\n", "line 3: picture .*9.png does not exist. Check `--image_root`"),
        ("image,mos\n0.png,good\n", "line 2: `mos` must be a number, got good"),
        ("image,mos\n0.png,\n", "line 2: `mos` must be a number, got nan"),
        ("", "scores.csv: not a CSV table"),
    ],
)
def test_mistakes_in_a_csv_name_file_and_line(folder, text, message):
    with pytest.raises(ValueError, match=message):
        load_scored_images(write_csv(folder, text), image_root=str(folder / "photos"))


def test_missing_csv_is_named():
    with pytest.raises(ValueError, match="absent.csv: no such file"):
        load_scored_images("absent.csv")


def test_undecodable_picture_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    with pytest.raises(ValueError, match="broken.jpg"):
        open_picture({"path": str(tmp_path / "broken.jpg"), "bytes": None})


def rows_of(folder: Path) -> list[dict]:
    csv = write_csv(folder, "image,mos\n0.png,10\n1.png,20\n2.png,30\n3.png,40\n")
    return list(load_scored_images(csv, image_root=str(folder / "photos"))["train"])


def test_collator_pads_like_the_processor_and_adds_labels(folder):
    batch = QualityCollator(PROCESSOR)(rows_of(folder))
    images = [Image.open(folder / "photos" / f"{index}.png") for index in range(4)]
    for name, values in PROCESSOR(images).items():
        torch.testing.assert_close(batch[name], values, atol=0, rtol=0)
    assert batch["labels"].tolist() == [10, 20, 30, 40]


def test_native_subset_keeps_the_resized_scales_and_changes_from_step_to_step(folder):
    torch.manual_seed(0)
    collator, rows = QualityCollator(PROCESSOR, native_patches=5), rows_of(folder)
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
    full, subset = QualityCollator(PROCESSOR)(rows), QualityCollator(PROCESSOR, native_patches=1000)(rows)
    torch.testing.assert_close(subset["pixel_values"], full["pixel_values"], atol=0, rtol=0)


def test_flip_mirrors_the_picture_before_patching(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (17, 21, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    row = {"image": {"path": str(tmp_path / "p.png"), "bytes": None}, "mos": 1.0}
    torch.manual_seed(0)
    flipping = QualityCollator(PROCESSOR, flip=True)
    seen = [flipping([row])["pixel_values"] for _ in range(12)]
    plain, mirrored = PROCESSOR(pixels)["pixel_values"], PROCESSOR(pixels[:, ::-1])["pixel_values"]
    matches = [torch.equal(values, mirrored) for values in seen]
    assert any(matches) and not all(matches)
    assert all(torch.equal(values, mirrored if match else plain) for values, match in zip(seen, matches, strict=True))


def test_wrong_collator_settings_are_refused():
    with pytest.raises(ValueError, match="`native_patches` must be at least 1, got 0"):
        QualityCollator(PROCESSOR, native_patches=0)
    resized_only = MusiqImageProcessor(use_native_resolution=False)
    with pytest.raises(ValueError, match="this processor makes none"):
        QualityCollator(resized_only, native_patches=4)
