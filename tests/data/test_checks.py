# SPDX-License-Identifier: Apache-2.0
import pytest
from PIL import Image
from scored import write_csv

from musiq_hf import MusiqImageProcessor
from musiq_hf.data.checks import count_tokens_of_rows
from musiq_hf.data.loading import load_scored_images
from musiq_hf.models.musiq.family import MusiqTrainingView
from musiq_hf.training.collators import Augmentation, TrainingCollator

LENGTHS = {
    "plain": ({}, {}, {}),
    "native_limit": ({"max_native_patches": 6}, {}, {}),
    "subsets": ({}, {"native_patches": 9}, {}),
    "both": ({"max_native_patches": 6}, {"resized_patches": 4, "native_patches": 9}, {}),
    "shrunk": ({}, {}, {"shorter_side": 25}),
    "all": ({"max_native_patches": 11}, {"resized_patches": 3, "native_patches": 10}, {"shorter_side": 33}),
    "no_native": ({"use_native_resolution": False}, {"resized_patches": 2}, {}),
    "square": ({"resize_mode": "square"}, {}, {"shorter_side": 25}),
}


@pytest.mark.parametrize(("own", "subsets", "shrinking"), LENGTHS.values(), ids=LENGTHS)
def test_counted_patches_are_the_lengths_of_the_training_sequences(tmp_path, own, subsets, shrinking):
    lines = ["image,mos"]
    for index, size in enumerate([(24, 32), (61, 40), (16, 16), (33, 50), (77, 31)]):
        tag = Image.Exif()
        tag[0x0112] = 6 if index == 1 else 1  # a camera that was turned
        Image.new("RGB", size).save(tmp_path / f"{index}.png", exif=tag)
        lines.append(f"{index}.png,{index}")
    rows = load_scored_images(write_csv(tmp_path, "\n".join(lines) + "\n"))["train"]
    processor = MusiqImageProcessor(patch_size=8, longer_side_lengths=[16, 24], **own)
    view = MusiqTrainingView(**({"native_patches": None} | subsets))
    collate = TrainingCollator(processor, view=view, augmentation=Augmentation(), **shrinking)
    lengths = [int(collate([row])["pixel_attention_mask"].sum()) for row in rows]
    assert count_tokens_of_rows(rows, processor, view=view, **shrinking) == lengths
    assert len(set(lengths)) > 1 or subsets


def test_patches_of_boxes_are_counted(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    rows = load_scored_images(write_csv(tmp_path, "image,mos\n0.png,1\n0.png,1\n"))["train"]
    rows = rows.add_column("box", [[0, 0, 16, 8], None])
    processor = MusiqImageProcessor(patch_size=8, longer_side_lengths=[])
    assert count_tokens_of_rows(rows, processor) == [2, 64]
    assert count_tokens_of_rows(rows, processor, shorter_side=16) == [2, 4]


def test_pictures_that_cannot_be_counted_are_named(tmp_path):
    (tmp_path / "0.png").write_bytes(b"none")
    rows = load_scored_images(write_csv(tmp_path, "image,mos\n0.png,1\n"))["train"]
    processor = MusiqImageProcessor(patch_size=8, longer_side_lengths=[16])
    with pytest.raises(ValueError, match="0.png: not a picture that Pillow can read"):
        count_tokens_of_rows(rows, processor)
    Image.new("RGB", (200, 1)).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match="0.png, 200x1 pixels: its aspect ratio is too extreme"):
        count_tokens_of_rows(rows, processor)
