# SPDX-License-Identifier: Apache-2.0
import math

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf.models.musiq.image_processing_musiq import MusiqImageProcessor
from musiq_hf.models.protocol import TrainingView
from musiq_hf.pictures.degradations import (
    DEGRADATIONS,
    apply_degradations,
    compute_severity,
    degrade,
    degrade_at_random,
    to_rgb_picture,
)
from musiq_hf.pictures.opening import to_rgb_tensor
from musiq_hf.pictures.synthetic import make_picture
from musiq_hf.training.collators import Augmentation, TrainingCollator

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"])
def test_pictures_of_every_mode_become_the_rgb_that_models_see(mode):
    picture = PICTURE.convert(mode)
    expected = (to_rgb_tensor(picture) * 255).round().to(torch.uint8).numpy()
    converted = to_rgb_picture(picture)
    assert converted.mode == "RGB" and np.array_equal(np.asarray(converted), expected)


def gradients(image: Image.Image) -> float:
    return float(np.abs(np.diff(np.asarray(image, dtype=np.float64), axis=1)).mean())


def test_severity_grows_from_nothing_and_adds_up():
    assert compute_severity(blur_sigma=0, noise_sigma=0) == 0
    assert compute_severity(blur_sigma=2.5, noise_sigma=0) == pytest.approx(1 - np.exp(-1))
    assert 0.8 < compute_severity(blur_sigma=2.5, noise_sigma=25) < 1
    assert compute_severity(blur_sigma=1, noise_sigma=0) < compute_severity(blur_sigma=2, noise_sigma=0)
    assert compute_severity(blur_sigma=0, noise_sigma=10) < compute_severity(blur_sigma=0, noise_sigma=20)


def test_severity_of_compression_ends_at_the_highest_quality_that_is_drawn():
    def of_quality(quality):
        return compute_severity(blur_sigma=0, noise_sigma=0, jpeg_quality=quality)

    assert [of_quality(quality) for quality in (100, 90, 85)] == [0, 0, 0]
    for quality in (84, 75, 70, 60, 57, 40, 20, 5):
        assert of_quality(quality) == pytest.approx(1 - math.exp(-(math.log(85 / quality) ** 2) / 4), rel=1e-12)
    rising = [of_quality(quality) for quality in range(85, 4, -1)]
    assert rising == sorted(set(rising))
    together = compute_severity(blur_sigma=1, noise_sigma=10, jpeg_quality=60)
    apart = compute_severity(blur_sigma=1, noise_sigma=10)
    assert 1 - together == pytest.approx((1 - apart) * (1 - of_quality(60)))


def test_blur_smooths_and_noise_roughens_by_its_deviation():
    blurred = degrade(PICTURE, blur_sigma=2, noise_sigma=0, seed=0)
    noisy = degrade(Image.new("RGB", (64, 64), (128, 128, 128)), blur_sigma=0, noise_sigma=20, seed=0)
    assert gradients(blurred) < 0.5 * gradients(PICTURE)
    assert np.asarray(noisy).std() == pytest.approx(20, rel=0.05)
    assert blurred.size == PICTURE.size


def test_noise_repeats_with_its_seed():
    first, same, other = (degrade(PICTURE, blur_sigma=0, noise_sigma=9, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_random_degradation_lowers_the_score_towards_the_worst():
    torch.manual_seed(0)
    scores = [degrade_at_random(PICTURE, 80.0, worst=10.0)[1] for _ in range(50)]
    assert all(10 <= score <= 80 for score in scores)
    assert max(scores) - min(scores) > 30


def test_collator_degrades_the_given_fraction(tmp_path):
    PICTURE.save(tmp_path / "p.png")
    rows = [{"image": {"path": str(tmp_path / "p.png"), "bytes": None}, "mos": 80.0}] * 60
    processor = MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16])
    torch.manual_seed(0)
    how = Augmentation(degrade_fraction=0.5, worst_score=10)
    labels = TrainingCollator(processor, view=TrainingView(), augmentation=how)(rows)["labels"]
    assert 15 < int((labels < 80).sum()) < 45
    plain = TrainingCollator(processor, view=TrainingView(), augmentation=Augmentation())
    assert (plain(rows)["labels"] == 80).all()
    with pytest.raises(ValueError, match="`degrade_fraction` must lie in \\[0, 1\\], got 2"):
        Augmentation(degrade_fraction=2)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_stronger_faults_move_a_picture_further(kind):
    picture = make_picture(seed=5, width=128, height=96)
    original = np.asarray(picture, dtype=np.float64)
    copies = [apply_degradations(picture, {kind: strength}, seed=3) for strength in (0.1, 0.5, 1.0)]
    errors = [np.abs(np.asarray(copy) - original).mean() for copy in copies]
    assert all(copy.size == picture.size and copy.mode == "RGB" for copy in copies)
    assert 0 < errors[0] < errors[1] < errors[2]


def test_faults_repeat_with_their_seed_and_zero_leaves_them_out():
    picture = make_picture(seed=5, width=64, height=48)
    strengths = {"noise": 0.4, "motion_blur": 0.6, "color_cast": 0.5}
    first, same, other = (apply_degradations(picture, strengths, seed=seed).tobytes() for seed in (1, 1, 2))
    assert first == same != other
    assert apply_degradations(picture, dict.fromkeys(DEGRADATIONS, 0.0), seed=1).tobytes() == picture.tobytes()


def test_wrong_faults_are_named():
    with pytest.raises(ValueError, match="Unknown degradation 'rain'. Choose from exposure"):
        apply_degradations(PICTURE, {"rain": 0.5}, seed=0)
    with pytest.raises(ValueError, match=r"strength of blur must lie in \[0, 1\], got 2"):
        apply_degradations(PICTURE, {"blur": 2}, seed=0)
