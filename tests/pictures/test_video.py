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
