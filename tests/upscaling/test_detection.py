# SPDX-License-Identifier: Apache-2.0
"""Verdicts of tiny detectors with random weights: what a report says, joins and refuses."""

import numpy as np
import pytest
import torch
from clips import write_clip
from detectors import save_detector
from PIL import Image
from transformers import pipeline

from musiq_hf import DEFAULT_CHECKPOINT as QUALITY_CHECKPOINT
from musiq_hf.models.auto import find_embedded
from musiq_hf.upscaling import DEFAULT_CHECKPOINT, UpscalingReport, detect_upscaling, load_detector
from musiq_hf.upscaling.detection import PatchVote


@pytest.fixture(scope="module")
def detector(checkpoint):
    return load_detector(checkpoint)


@pytest.fixture(scope="module")
def picture():
    """Random blocks, enlarged twice."""
    levels = np.random.default_rng(0).integers(0, 256, (80, 96, 3), dtype=np.uint8)
    return Image.fromarray(levels).resize((192, 160), Image.Resampling.BICUBIC)


def test_a_picture_has_the_answer_of_the_pipeline_and_the_scale_of_its_spectrum(checkpoint, detector, picture):
    report = detect_upscaling(picture, detector)
    assert (report.verdict, report.size, report.frames, report.is_flat) == (
        "upscaled",
        (192, 160),
        ("upscaled",),
        False,
    )
    answers = {
        answer["label"]: answer["score"] for answer in pipeline("image-classification", str(checkpoint))(picture)
    }
    named = {name: score for name, score in answers.items() if name != "native"}
    assert report.method == max(named, key=named.get)
    assert report.method_probability == pytest.approx(named[report.method], abs=1e-5)
    assert 0.99 < report.probability <= 1
    assert (report.scale, report.source_size) == (2.0, (96, 80))
    assert str(report) == f"upscaled (probability 1.00), about 2.0x from 96x80, {report.method}-like"
    processor = detector.processor
    corners = [[patch.box[1], patch.box[0]] for patch in report.patches]
    assert corners == processor.find_corners(torch.from_numpy(np.array(picture))).tolist() and len(corners) == 3
    assert all(patch.box[2] - patch.box[0] == 32 and patch.frame == 0 for patch in report.patches)
    assert all(
        patch.label != "native" and patch.verdict == "upscaled" and 0.2 < patch.probability < 1
        for patch in report.patches
    )


def test_every_form_of_a_picture_is_one(tmp_path, detector, picture):
    picture.save(tmp_path / "a.png")
    expected = detect_upscaling(picture, detector)
    pixels = np.array(picture)
    for source in (tmp_path / "a.png", str(tmp_path / "a.png"), pixels, pixels[None], [picture], iter([picture])):
        assert detect_upscaling(source, detector) == expected
    assert detect_upscaling(torch.from_numpy(pixels), detector.name) == expected


def test_a_native_picture_has_no_method(native_checkpoint, picture):
    report = detect_upscaling(np.array(picture)[::2, ::2], native_checkpoint)
    assert (report.verdict, report.method, report.method_probability, report.scale) == ("native", None, None, None)
    assert str(report) == "native (probability 1.00)"
    report = detect_upscaling(picture, native_checkpoint)
    words = "native (probability 1.00), but its spectrum is that of an enlargement, about 2.0x from 96x80"
    assert str(report) == words


def test_flat_pictures_are_unsure(checkpoint, native_checkpoint):
    ramp = np.repeat(np.arange(200, dtype=np.uint8)[None] // 8, 128, axis=0)[..., None].repeat(3, axis=2)
    for flat in (Image.new("RGB", (100, 80), "blue"), ramp, ramp.transpose(1, 0, 2)):
        for model in (checkpoint, native_checkpoint):
            report = detect_upscaling(flat, model)
            assert (report.verdict, report.probability, report.method) == ("unsure", 0.5, None)
            assert (report.is_flat, report.patches, report.frames) == (True, (), ("unsure",))
            assert str(report) == "unsure: the picture is flat, so there is nothing to judge"


def test_a_probability_in_the_middle_is_unsure(detector, picture):
    weights = detector.model.head.layers[-1]
    bias, native = weights.bias.detach().clone(), weights.bias[0].item()
    low, high = native, native + 18
    try:
        for _ in range(40):  # the bias at which half of the vote is "native"
            with torch.no_grad():
                weights.bias[0] = (low + high) / 2
            report = detect_upscaling(picture, detector)
            low, high = ((low + high) / 2, high) if report.probability > 0.5 else (low, (low + high) / 2)
    finally:
        with torch.no_grad():
            weights.bias.copy_(bias)
    assert (report.verdict, report.probability) == ("unsure", pytest.approx(0.5, abs=1e-3))
    assert report.method is not None
    assert str(report).startswith("unsure (probability of upscaling .50), about 2.0x from 96x80, ")


def test_words_of_a_probability():
    report = UpscalingReport(
        verdict="upscaled",
        probability=0.984,
        method="bicubic",
        method_probability=0.7,
        scale=2.001,
        source_size=(1920, 1080),
        patches=(PatchVote(frame=0, box=(0, 0, 96, 96), label="bicubic", probability=0.7, verdict="upscaled"),),
        size=(3840, 2160),
        frames=("upscaled", "upscaled", "unsure", "native"),
    )
    assert str(report) == "upscaled (probability .98), about 2.0x from 1920x1080, bicubic-like"
    assert (report.share("upscaled"), report.share("unsure"), report.share("native")) == (0.5, 0.25, 0.25)


def test_frames_vote_together_and_flat_ones_do_not(detector, picture):
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).point(lambda level: level // 2)
    black = Image.new("RGB", picture.size)
    alone = [detect_upscaling(frame, detector) for frame in (picture, other)]
    report = detect_upscaling([black, picture, other, black], detector)
    assert report.probability == pytest.approx(np.mean([one.probability for one in alone]), abs=1e-6)
    assert report.frames == ("unsure", "upscaled", "upscaled", "unsure") and not report.is_flat
    assert [patch.frame for patch in report.patches] == [1] * 3 + [2] * 3 and report.scale == 2.0
    assert detect_upscaling([black, black], detector).is_flat
    texture = np.random.default_rng(1).integers(0, 256, (160, 192, 3), dtype=np.uint8)
    assert detect_upscaling([picture, texture], detector).scale is None  # half of the frames are no majority


def test_a_clip_is_judged_by_its_key_frames(tmp_path, detector):
    frames = np.random.default_rng(0).integers(16, 235, (12, 80, 96), dtype=np.uint8)
    intra = write_clip(tmp_path / "intra.avi", frames, codec="ffvhuff")
    report = detect_upscaling(intra, detector, frames=5)
    assert len(report.frames) == 5 and len(report.patches) == 15 and report.size == (96, 80)
    assert len(detect_upscaling(str(intra), detector).frames) == 8
    predicted = write_clip(tmp_path / "predicted.mp4", frames, codec="libx264")
    assert len(detect_upscaling(predicted, detector).frames) == 1


def test_sources_that_cannot_be_judged_are_one_sentence(tmp_path, detector, picture):
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "bad.mp4").write_bytes(b"no clip")
    cases = [
        (Image.new("RGB", (63, 100)), "at least 64 x 64 pixels"),
        (tmp_path, "is a folder"),
        (tmp_path / "bad.jpg", "bad.jpg"),
        (tmp_path / "bad.mp4", "cannot be opened as a video"),
        ([], "no frame"),
        (None, "a clip or its frames were expected, got NoneType"),
        (3, "got int"),
        ("https://example.org/clip.mp4", "https://example.org/clip.mp4: Videos are read from files of this machine"),
        ([picture, picture.crop((0, 0, 100, 100))], "one size, got 192x160 and 100x100"),
    ]
    for source, message in cases:
        with pytest.raises(ValueError, match=message) as raised:
            detect_upscaling(source, detector)
        assert len(str(raised.value).splitlines()) == 1
    with pytest.raises(FileNotFoundError):
        detect_upscaling(tmp_path / "nothing.png", detector)
    with pytest.raises(ValueError, match="`frames` must be at least 1, got 0"):
        detect_upscaling(picture, detector, frames=0)


@pytest.mark.parametrize("decides", ["mean", "majority"])
def test_a_detector_that_answers_no_number_gives_no_verdict(tmp_path, picture, decides):
    detector = load_detector(save_detector(tmp_path / "damaged", vote=decides))
    with torch.no_grad():
        detector.model.head.layers[-1].bias[0] = float("nan")
    with pytest.raises(ValueError, match="damaged answers NaN or infinity: its weights are damaged"):
        detect_upscaling(picture, detector)


def test_a_checkpoint_of_another_family_is_refused(picture):
    with pytest.raises(ValueError, match="does not detect upscaling. Give a checkpoint of the family sudds, such as"):
        detect_upscaling(picture, QUALITY_CHECKPOINT)


def test_the_default_checkpoint_has_a_name():
    assert find_embedded(DEFAULT_CHECKPOINT.name) == str(DEFAULT_CHECKPOINT)
