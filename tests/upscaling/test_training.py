# SPDX-License-Identifier: Apache-2.0
"""Training of an upscaling detector: its pictures, its upscalers, its files, and what it refuses."""

from collections import Counter
from dataclasses import replace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution, pipeline
from upscalers import save_upscaler

from musiq_hf.metrics import read_metrics
from musiq_hf.pictures import make_picture
from musiq_hf.upscaling import DetectorSettings, kernels, learned, measuring, training, training_job, upscales
from musiq_hf.upscaling.kernels import SEEN, UNSEEN, choose_side


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(6):
        make_picture(seed=seed, width=300, height=280).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="module")
def files(photographs):
    return sorted(photographs.iterdir())


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(training, "PICTURES", 4)


@pytest.fixture
def few_upscalers(monkeypatch):
    monkeypatch.setattr(training, "SEEN_SMALL", learned.SEEN_SMALL[:1])
    monkeypatch.setattr(training, "UNSEEN_SMALL", learned.UNSEEN_SMALL[:1])


@pytest.mark.parametrize(
    ("own", "filter_name"),
    [
        (kernels._tent, "BILINEAR"),
        (lambda distances: kernels._cubic(distances, c=0.5), "BICUBIC"),
        (lambda distances: kernels._lanczos(distances, lobes=3), "LANCZOS"),
    ],
)
def test_kernels_are_those_of_pillow_inside_a_picture(own, filter_name):
    pixels = np.random.default_rng(0).integers(100, 156, (24, 24, 3), dtype=np.uint8)  # Pillow clips between passes
    expected = kernels._pillow(filter_name)(pixels, 48).astype(int)
    ours = kernels._kernel(own)(pixels, 48).astype(int)
    assert np.abs(ours - expected)[8:-8, 8:-8].max() <= 1


def test_kernels_that_keep_corners_keep_them_and_bicubic_is_that_of_torch():
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    values = torch.from_numpy(pixels).permute(2, 0, 1)[None].float()
    for enlarge, options in (
        (SEEN["bicubic"]["a = -0.75"], {"mode": "bicubic", "align_corners": False}),
        (SEEN["bilinear"]["corners kept"], {"mode": "bilinear", "align_corners": True}),
        (SEEN["nearest"]["floor"], {"mode": "nearest"}),
    ):
        expected = torch.nn.functional.interpolate(values, size=(30, 30), **options)[0].permute(1, 2, 0)
        assert np.abs(enlarge(pixels, 30) - expected.round().clamp(0, 255).numpy()).max() <= 1
    assert (
        UNSEEN["nearest"]["corners kept"](pixels, 30)[[0, 0, -1, -1], [0, -1, 0, -1]]
        == pixels[[0, 0, -1, -1], [0, -1, 0, -1]]
    ).all()


@pytest.mark.parametrize("name", [f"{label}: {name}" for label in UNSEEN for name in UNSEEN[label]])
def test_every_unseen_interpolation_enlarges_and_is_none_of_those_seen(name):
    label, _, own = name.partition(": ")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    side = choose_side(40, 1.5)
    result = UNSEEN[label][own](pixels, side)
    assert result.shape == (60, 60, 3) and result.dtype == np.uint8
    assert all((enlarge(pixels, side) != result).any() for enlarge in SEEN[label].values())


def test_pictures_follow_from_the_seed_and_have_their_size_and_labels(files):
    upscalers = upscales.Upscalers(kernels=SEEN)
    first, again, other = (upscales.make_pool(files, upscalers, count=20, seed=seed) for seed in (0, 0, 1))
    assert first.labels == ["native", "nearest", "bilinear", "bicubic", "lanczos"]
    assert first.pixels.shape == (20, 192, 192, 3) and first.spectra.shape == (20, 128)
    assert torch.equal(first.pixels, again.pixels) and torch.equal(first.targets, again.targets)
    assert not torch.equal(first.pixels, other.pixels)
    assert set(first.targets.tolist()) == set(range(5)) and Counter(first.targets.tolist()).most_common()[0][0] == 0


def test_a_picture_of_repeated_pixels_has_its_label_and_scale(files):
    image = upscales.enlarge_window(files[0], np.random.default_rng(0), enlarge=SEEN["nearest"]["floor"], scale=3.0)
    pixels = np.asarray(image).astype(int)
    starts = np.flatnonzero((np.diff(pixels, axis=1) != 0).any(axis=(0, 2)))
    assert image.size == (192, 192) and set(np.diff(starts)) <= {3, 6, 9}


def test_a_small_upscaler_learns_and_follows_from_its_seed():
    windows = torch.rand(8, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    windows = torch.nn.functional.interpolate(windows, size=(96, 96), mode="bicubic").clamp(0, 1)
    own = learned.SmallSettings(scale=2, width=8, is_residual=False)
    source = (windows[0, :, ::2, ::2] * 255).to(torch.uint8).permute(1, 2, 0).numpy()
    target = (windows[0] * 255).permute(1, 2, 0).numpy()
    short, long, again = (learned.train_small(own, windows, steps=steps, seed=3) for steps in (1, 30, 30))
    first, last, same = (one.upscale(source) for one in (short, long, again))
    assert last.shape == (96, 96, 3) and (last == same).all()
    assert np.abs(last - target).mean() < 0.85 * np.abs(first - target).mean()


def test_upscalers_of_transformers_are_loaded_and_others_refused(tmp_path):
    tiny = {"embed_dim": 12, "depths": [1], "num_heads": [2], "window_size": 8, "image_size": 32}
    Swin2SRForImageSuperResolution(Swin2SRConfig(upscale=2, **tiny)).save_pretrained(tmp_path / "two")
    (upscaler,) = learned.load_learned(str(tmp_path / "two"))
    assert upscaler.scale == 2 and upscaler.upscale(np.zeros((40, 40, 3), np.uint8)).shape == (80, 80, 3)
    Swin2SRForImageSuperResolution(Swin2SRConfig(upscale=1, **tiny)).save_pretrained(tmp_path / "one")
    with pytest.raises(
        ValueError, match="must enlarge pictures by a whole number from 2 on, but 32 x 32 pixels became"
    ):
        learned.load_learned(str(tmp_path / "one"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("musiq-tiny-biq2021", "^musiq-tiny-biq2021 holds a musiq model, which enlarges no pictures. Give"),
        ("sudds-small-biq2021", "^sudds-small-biq2021 holds a sudds model, which enlarges no pictures. Give"),
        ("absent", "^absent: no such directory"),
        ("{folder}/absent", "/absent: neither a directory with a config.json nor an id on the Hub"),
    ],
)
def test_what_is_no_upscaler_is_refused_before_photographs_are_read(tmp_path, monkeypatch, name, words):
    monkeypatch.setattr(training, "split_photographs", lambda *args, **options: pytest.fail("photographs were read"))
    with pytest.raises(ValueError, match=words):
        training.prepare(DetectorSettings(pictures=tmp_path, upscalers=[name.format(folder=tmp_path)]))


def test_an_upscaler_of_any_scale_comes_with_three(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    folder = save_upscaler(tmp_path / "msit-test")
    upscalers = learned.load_learned(str(folder))
    assert [own.name for own in upscalers] == [f"{folder}, x{scale}" for scale in (2, 3, 4)]
    for upscaler in upscalers:
        side = 24 * upscaler.scale
        plain = Image.fromarray(pixels).resize((side, side), Image.Resampling.BILINEAR)
        assert np.abs(upscaler.upscale(pixels) - np.asarray(plain, float)).max() <= 1


def test_a_training_writes_a_checkpoint_that_answers_with_tables_and_a_card(
    photographs, tmp_path, monkeypatch, few_upscalers
):
    monkeypatch.setattr(measuring, "SCALES", (2.0,))
    for name, table in (("SEEN", SEEN), ("UNSEEN", UNSEEN)):  # one each, or it takes seconds
        monkeypatch.setattr(measuring, name, {"bicubic": dict([next(iter(table["bicubic"].items()))])})
    settings = DetectorSettings(
        pictures=photographs,
        steps=2,
        upscaler_steps=1,
        num_pictures=12,
        num_measured=1,
        methods=["bicubic", "learned"],
    )
    said = []
    reports = training_job.train_and_save(settings, tmp_path / "detector", command="train", report=said.append)
    assert "2 steps, loss" in said[-2]
    assert read_metrics(tmp_path / "detector").reports == reports
    (native,) = reports["Natives found to be native"].accuracy
    assert len(native.shares) == 3 and all(0 <= share <= 1 for share in native.shares)
    names = [row.name for row in reports["Upscaled pictures found, by method"].accuracy]
    assert names == ["bicubic, seen", "bicubic, unseen"]
    card = (tmp_path / "detector" / "README.md").read_text()
    assert (
        "Trained from random weights by `train`." in card
        and "| native |" in card
        and "bicubic, unseen: Mitchell" in card
    )
    answers = pipeline("image-classification", model=str(tmp_path / "detector"))(make_picture(seed=9, width=200))
    assert {answer["label"] for answer in answers} == {"native", "bicubic", "learned"}


def test_ablations_have_a_row_for_each_part_and_method(photographs, monkeypatch):
    monkeypatch.setattr(measuring, "SCALES", (2.0,))
    settings = DetectorSettings(pictures=photographs, steps=1, num_pictures=12, num_measured=1, methods=["nearest"])
    material = training.prepare(settings)
    pool = upscales.make_pool(material.train, material.seen, count=12, seed=0)
    monkeypatch.setattr(training_job, "measure_detector", fake_measurement)
    said = []
    table = training_job.run_ablations(settings, material, pool, report=said.append)
    assert table.columns == ("native", "nearest", "bilinear", "bicubic", "lanczos")
    assert [row.name for row in table.accuracy] == [
        "all",
        "last stage alone",
        "without spectrum",
        "one label for all methods",
        "nearest alone",
    ]
    assert table.accuracy[0].shares == (0.5, *(pytest.approx(0.25),) * 4)
    labels = [row.shares[0] for row in table.accuracy]
    assert labels == [0.5] * 5 and sum("Shorter training" in line for line in said) == 5


def test_shorter_trainings_have_their_own_steps_which_are_checked_first(tmp_path, monkeypatch):
    settings = DetectorSettings(pictures=tmp_path, minutes=7)
    with pytest.raises(ValueError, match="`steps` must be at least 1"):
        training_job.train_and_save(settings, tmp_path / "out", command="train", ablation_steps=0)
    ran = []
    for name in ("make_pool", "train_detector", "save_checkpoint", "measure_detector", "write_metrics"):
        monkeypatch.setattr(training_job, name, lambda *args, **options: MagicMock())
    files = [tmp_path / str(number) for number in range(17)]
    material = training.Material(train=files, held_out=files, seen=MagicMock(), unseen=[])
    monkeypatch.setattr(training_job, "prepare", lambda *args, **options: material)
    monkeypatch.setattr(training_job, "run_ablations", lambda *args, **options: ran.append(args))
    monkeypatch.setattr(training_job, "write_card", lambda *args, **options: None)
    for name in ("StoredMetrics", "DETECTOR"):
        monkeypatch.setattr(training_job, name, MagicMock())
    training_job.train_and_save(
        settings, tmp_path / "out", command="train", ablation_steps=9, report=lambda line: None
    )
    ((short, fewer, _),) = ran
    assert short == replace(settings, steps=9, num_measured=4) and fewer.held_out == files[:3]


def fake_measurement(model, material, settings):
    assert model.config.id2label[1] == ("upscaled" if settings.is_binary else "nearest")
    rows = {f"{label}, seen: one": (0.25, 0.25, 1.0) for label in UNSEEN}
    return {
        measuring.NATIVES: measuring._report(1, ["as they are"], {"native": [0.5]}),
        measuring.ALONE: measuring._report(1, ["x2", "JPEG 90", "right method"], rows),
    }


def test_the_model_of_one_seed_and_number_of_steps_is_the_same(photographs):
    settings = DetectorSettings(pictures=photographs, steps=2, num_pictures=8, methods=["nearest"])
    material = training.prepare(settings)
    pool = upscales.make_pool(material.train, material.seen, count=8, seed=0)
    first, again, other = (
        training.train_detector(own, pool, report=lambda line: None).state_dict()
        for own in (settings, settings, replace(settings, seed=1))
    )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.allclose(first["spectrum_norm.running_mean"], pool.spectra.mean(dim=0))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"minutes": 0}, "`minutes` must be above 0, got 0"),
        ({"methods": ["cubic"]}, "Unknown method 'cubic'. Choose from nearest, bilinear, bicubic, lanczos, learned."),
        ({"methods": []}, "must name at least one method"),
        ({"methods": ["nearest"], "upscalers": ["one"]}, "'learned' is not among the methods"),
        ({"steps": 0}, "`steps` must be at least 1, got 0"),
        ({"seed": -1}, "`seed` must be at least 0, got -1"),
    ],
)
def test_impossible_settings_are_refused(tmp_path, given, words):
    with pytest.raises(ValueError, match=words):
        DetectorSettings(pictures=tmp_path, **given)


def test_small_pictures_are_left_out_and_fewer_than_two_large_ones_refused(tmp_path):
    for name, size in (("small", (300, 260)), ("large", (300, 269))):
        Image.new("RGB", size).save(tmp_path / f"{name}.png")
    settings = DetectorSettings(pictures=tmp_path)
    with pytest.raises(ValueError, match="holds 1 picture of at least 269 x 269 pixels; one for"):
        training.split_photographs(settings)
    Image.new("RGB", (400, 300)).save(tmp_path / "larger.png")
    said = []
    train, held_out = training.split_photographs(settings, report=said.append)
    assert {path.name for path in train + held_out} == {"large.png", "larger.png"}
    assert said == ["Left out are 1 with a side below 269 pixels."]
    with pytest.raises(ValueError, match="small.png: photographs must have at least 269 x 269 pixels, got 300 x 260"):
        upscales.cut_window(tmp_path / "small.png", 192, np.random.default_rng(0))
    with pytest.raises(ValueError, match="small.png: photographs must have at least 269 x 269 pixels, got 300 x 260"):
        upscales.shrink_photograph(tmp_path / "small.png", np.random.default_rng(0))


def test_a_picture_that_cannot_be_read_is_named_before_training(tmp_path):
    for number in range(3):
        Image.new("RGB", (300, 300)).save(tmp_path / f"{number}.png")
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="broken.jpg"):
        training.split_photographs(DetectorSettings(pictures=tmp_path))


def test_held_out_photographs_are_not_trained_on(tmp_path):
    for number in range(25):
        Image.new("RGB", (269, 269)).save(tmp_path / f"{number}.png")
    settings = DetectorSettings(pictures=tmp_path, num_photographs=20)
    train, held_out = training.split_photographs(settings)
    assert (len(train), len(held_out)) == (20, 2) and not set(train) & set(held_out)
    assert training.split_photographs(settings) == (train, held_out)
    assert training.split_photographs(replace(settings, seed=1)) != (train, held_out)
    assert training.order_photographs(tmp_path)[:22] == held_out + train


def test_a_whole_photograph_is_shrunk_at_random_but_not_below_a_made_picture(files):
    shrunk = [upscales.shrink_photograph(files[0], np.random.default_rng(seed)) for seed in (0, 0, 1, 2)]
    sizes = [image.size for image in shrunk]
    assert len(set(sizes)) > 1 and np.array_equal(*map(np.asarray, shrunk[:2]))
    for width, height in sizes:  # of 300 x 280
        assert 192 <= height <= 200 and width == pytest.approx(height * 300 / 280, abs=1)


def test_a_batch_has_the_spectra_and_labels_of_its_patches(files, monkeypatch):
    monkeypatch.setattr(training, "PATCH_SIZE", upscales.SIDE)  # a patch is then the whole picture
    pool = upscales.make_pool(files, upscales.Upscalers(kernels=SEEN), count=6, seed=0)
    known = {
        tuple(sorted(picture.flatten().tolist())): target
        for picture, target in zip(pool.pixels, pool.targets, strict=True)
    }
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        batch = training.draw_batch(pool, generator)
        for patches, spectrum, target in zip(batch.patches, batch.spectra, batch.targets, strict=True):
            pixels = (patches[0] * 255).round().to(torch.uint8).permute(1, 2, 0)
            assert known[tuple(sorted(pixels.flatten().tolist()))] == target
            expected = upscales.describe_picture(Image.fromarray(pixels.contiguous().numpy()))[1]
            torch.testing.assert_close(spectrum, expected, atol=1e-4, rtol=0)
