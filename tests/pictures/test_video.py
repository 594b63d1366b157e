# SPDX-License-Identifier: Apache-2.0
import numpy as np
from clips import write_clip

from musiq_hf.pictures.video import open_video


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
