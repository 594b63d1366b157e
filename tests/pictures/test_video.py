# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
from clips import write_clip

from musiq_hf.pictures.video import open_video, read_key_frames


def test_a_file_is_closed_with_its_block(tmp_path):
    frames = np.arange(3 * 32 * 48, dtype=np.uint8).reshape(3, 32, 48)
    with open_video(write_clip(tmp_path / "a.mkv", frames)) as video:
        rest = video.frames()
        first = next(rest)
    assert np.array_equal(first.luma, frames[0])  # what was read stays, and nothing more is read
    assert list(rest) == []


def test_gray_has_the_range_that_its_file_says(tmp_path):
    frames = np.array([[[16, 126], [235, 100]]], dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2)
    with open_video(write_clip(tmp_path / "a.mkv", frames, pixels="gray")) as video:
        (frame,) = video.frames()
    assert video.luma_range == (16, 235)
    assert np.array_equal(frame.to_yuv420p()[:32], frames[0]) and set(frame.to_yuv420p()[32:].ravel()) == {128}
    rgb = np.rint((frames[0, ::16, ::16].astype(float) - 16) * 255 / 219)
    assert np.abs(frame.to_rgb()[::16, ::16].astype(float) - rgb[..., None]).max() <= 1


def test_key_frames_are_read_at_equal_distances(tmp_path):
    levels = np.arange(20, 170, 15, dtype=np.uint8)
    frames = np.broadcast_to(levels[:, None, None], (10, 32, 48))
    intra = write_clip(tmp_path / "intra.avi", frames, codec="ffvhuff")
    shown = (levels - 16.0) * 255 / 219
    for most, expected in ((1, [0]), (3, [0, 3, 6]), (4, [0, 2, 5, 7]), (10, list(range(10))), (99, list(range(10)))):
        read = list(read_key_frames(intra, most))
        assert read[0].shape == (32, 48, 3) and read[0].dtype == np.uint8
        assert np.abs([frame.mean() - level for frame, level in zip(read, shown[expected], strict=True)]).max() <= 1
    predicted = write_clip(tmp_path / "predicted.mp4", frames, codec="libx264")
    (first,) = read_key_frames(predicted, 5)
    with open_video(predicted) as video:
        assert np.array_equal(first, next(video.frames()).to_rgb())


def test_files_without_key_frames_are_refused(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"bad\.mp4 cannot be opened as a video"):
        list(read_key_frames(tmp_path / "bad.mp4", 3))
    frames = np.random.default_rng(0).integers(16, 235, (4, 64, 96), dtype=np.uint8)
    whole = write_clip(tmp_path / "whole.mp4", frames, codec="libx264").read_bytes()
    place = whole.index(b"mdat") + 1500
    (tmp_path / "damaged.mp4").write_bytes(whole[:place] + bytes(3000) + whole[place + 3000 :])
    with pytest.raises(ValueError, match=r"damaged\.mp4 has a (key frame that cannot be decoded|damaged key frame)"):
        list(read_key_frames(tmp_path / "damaged.mp4", 3))
