# SPDX-License-Identifier: Apache-2.0
import math
import subprocess

import numpy as np
import pytest
from clips import write_clip
from golden_assessment import DIRECTORY, REFERENCE

from musiq_hf.assessment import compare, psnr, ssim, vmaf

CLIPS = DIRECTORY / "clips"
STILL, NOISY = DIRECTORY / "still1.png", DIRECTORY / "still1_jpeg25.jpg"


@pytest.mark.parametrize("pair", REFERENCE["clip_pairs"])
def test_clips_compare_as_by_scikit_image_and_libvmaf(pair):
    expected, paths = REFERENCE["clip_pairs"][pair], [CLIPS / name for name in pair.split("|")]
    found = compare(*paths, metrics=("psnr", "ssim", "vmaf"))
    assert (found.width, found.height, found.num_frames) == (320, 180, expected["num_frames"])
    for name in ("psnr_y", "ssim_y"):
        assert getattr(found, name) == pytest.approx(expected[name], rel=0, abs=1e-6)
        assert found.frames[name] == pytest.approx(expected[f"{name}_frames"], rel=0, abs=1e-6)
    assert found.frames["vmaf"] == pytest.approx(expected["vmaf_frames"], rel=0, abs=0.05)
    assert found.vmaf == pytest.approx(expected["vmaf_mean"], rel=0, abs=0.02)
    assert found.vmaf_harmonic_mean == pytest.approx(expected["vmaf_harmonic_mean"], rel=0, abs=0.02)
    assert found.vmaf_min == pytest.approx(expected["vmaf_min"], rel=0, abs=0.02)
    assert found.psnr_rgb is None and found.ssim_rgb is None


def test_pictures_compare_as_by_the_functions():
    found = compare(STILL, NOISY, crop_border=2)
    for channels in ("y", "rgb"):
        options = {"channels": channels, "crop_border": 2}
        assert getattr(found, f"psnr_{channels}") == psnr(STILL, NOISY, **options)
        assert getattr(found, f"ssim_{channels}") == ssim(STILL, NOISY, **options)
    assert (found.width, found.height, found.num_frames, found.vmaf) == (127, 161, 1, None)
    assert found.frames["psnr_y"] == [found.psnr_y]
    assert compare(STILL, NOISY, metrics=["ssim"]).psnr_y is None


def test_what_is_not_asked_for_is_none_and_equal_clips_are_infinitely_near():
    clip = CLIPS / "full.mkv"
    found = compare(clip, clip, metrics=["psnr"])
    assert found.psnr_y == math.inf and found.ssim_y is None and found.vmaf is None
    assert list(found.frames) == ["psnr_y"] and np.isinf(found.frames["psnr_y"]).all()


def test_borders_are_cut_off_for_every_measure(tmp_path):
    frames = np.random.default_rng(0).integers(40, 200, (2, 64, 96), np.uint8)
    framed = frames.copy()
    framed[:, :3], framed[:, -3:], framed[:, :, :3], framed[:, :, -3:] = 90, 90, 90, 90
    first, second = write_clip(tmp_path / "a.mkv", frames), write_clip(tmp_path / "b.mkv", framed)
    found = compare(first, second, metrics=("psnr", "ssim", "vmaf"), crop_border=3)
    assert found.psnr_y == math.inf and found.ssim_y == pytest.approx(1, abs=1e-12)
    whole = compare(first, second, metrics=("psnr", "vmaf"))
    assert whole.psnr_y < 30 and whole.vmaf < found.vmaf


def test_names_of_files_are_no_options_or_filters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = np.random.default_rng(0).integers(40, 200, (2, 64, 64), np.uint8)
    names = ["-y.mkv", "a b:c'd\";,[x]=é%d.mkv"]
    for name in names:
        write_clip(name, frames)
    assert compare(*names, metrics=("psnr", "vmaf")).psnr_y == math.inf


def flip_size(frames):
    return frames.transpose(0, 2, 1)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (flip_size, {}, "must have one size, got 96x64 and 64x96"),
        (lambda frames: frames[:2], {}, "must have one number of frames, got 4 in .*a.mkv and 2 in .*b.mkv"),
        (lambda frames: frames.astype(np.uint16) * 4, {}, "must have one bit depth, got 8 and 10 bits"),
        (lambda frames: frames, {"full_range": True}, "got limited and full range"),
    ],
)
def test_videos_that_differ_are_refused(tmp_path, change, options, message):
    frames = np.full((4, 64, 96), 90, np.uint8)
    first = write_clip(tmp_path / "a.mkv", frames)
    second = write_clip(tmp_path / "b.mkv", change(frames), **options)
    with pytest.raises(ValueError, match=message):
        compare(first, second)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((STILL, NOISY), {"metrics": ["vmaf"]}, ValueError, "VMAF is made for videos"),
        (
            (STILL, CLIPS / "cut.mkv"),
            {},
            ValueError,
            "A picture cannot be compared with a video .*still1.png.*cut.mkv",
        ),
        ((np.zeros((20, 20), np.uint8), CLIPS / "cut.mkv"), {}, ValueError, "A picture cannot be compared"),
        ((STILL, NOISY), {"metrics": ["lpips"]}, ValueError, "a list of psnr, ssim, vmaf, got lpips"),
        ((STILL, NOISY), {"metrics": "psnr"}, ValueError, "a list of psnr, ssim, vmaf, got psnr"),
        ((STILL, NOISY), {"metrics": []}, ValueError, "got none"),
        ((STILL, NOISY), {"crop_border": 64}, ValueError, "leave pixels of 127x161, got 64"),
        ((CLIPS / "cut.mkv",) * 2, {"crop_border": 90}, ValueError, "leave pixels of 320x180, got 90"),
        ((CLIPS / "cut.mkv", "missing.mkv"), {}, FileNotFoundError, "missing.mkv"),
        ((CLIPS / "cut.mkv", STILL.with_suffix(".mkv")), {}, FileNotFoundError, "still1.mkv"),
    ],
)
def test_mistakes_are_refused(arguments, options, error, message):
    with pytest.raises(error, match=message):
        compare(*arguments, **options)


def test_vmaf_names_its_programs_and_its_failures(tmp_path, monkeypatch):
    assert vmaf.describe_vmaf().startswith("ffmpeg-") and "+libvmaf-" in vmaf.describe_vmaf()
    assert [vmaf.name_model(height) for height in (720, 2159, 2160)] == ["vmaf_v0.6.1"] * 2 + ["vmaf_4k_v0.6.1"]
    clip = write_clip(tmp_path / "a.mkv", np.full((2, 64, 64), 90, np.uint8))
    run = subprocess.run

    def fail(command, **options):
        return run([command[0], "-hide_banner", "-i", "nothing"], **options)

    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(ValueError, match="a.mkv: ffmpeg cannot compute VMAF"):
        compare(clip, clip, metrics=["vmaf"])


def test_an_ffmpeg_without_libvmaf_is_passed_over(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho ' T.C scale'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    vmaf.find_ffmpeg.cache_clear()
    assert "imageio_ffmpeg" in vmaf.find_ffmpeg()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    vmaf.find_ffmpeg.cache_clear()
    with pytest.raises(OSError, match="has no libvmaf"):
        vmaf.find_ffmpeg()
    program.write_text("#!/bin/sh\necho ' .. libvmaf'\n")
    vmaf.find_ffmpeg.cache_clear()
    assert vmaf.find_ffmpeg() == str(program)
    vmaf.find_ffmpeg.cache_clear()
