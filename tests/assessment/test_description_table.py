# SPDX-License-Identifier: Apache-2.0
import time
from contextlib import closing

import numpy as np
from clips import write_clip

from musiq_hf.assessment.description_table import DescriptionSettings
from musiq_hf.pictures import video
from musiq_hf.scoring.tables.row_jobs import measure_rows


def test_a_run_that_ends_does_not_wait_for_a_long_video(tmp_path, monkeypatch):
    short = write_clip(tmp_path / "a.mkv", np.full((1, 16, 16), 90, np.uint8))
    long = write_clip(tmp_path / "b.mkv", np.zeros((4000, 16, 16), np.uint8))
    taken, read = [], video.VideoFrame.to_rgb

    def count(frame):
        taken.append(frame)
        time.sleep(0.001)
        return read(frame)

    monkeypatch.setattr(video.VideoFrame, "to_rgb", count)
    job = DescriptionSettings([str(short), str(long)]).make_job()
    with closing(measure_rows(job)) as rows:
        assert next(rows)[0].error is None
    assert len(taken) < 4000
