# SPDX-License-Identifier: Apache-2.0
"""Scores of the files of a comparison: of pictures as `musiq score` gives them, of videos the mean over frames."""

import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

from ..pictures.lazy import escape_name
from ..pictures.video import Video, has_video_suffix, open_video
from ..scoring.rows import Scorers


class FileScore(NamedTuple):
    """Score of a file.

    Attributes:
        score: Score in MOS points; of a video the mean over every n-th frame. None if there is an error.
        width: Columns in pixels; None if they are not known.
        height: Rows in pixels; None if they are not known.
        frames: Number of frames, 1 for pictures; None if there is an error.
        error: Sentence that says why there is no score; None if there is one.
    """

    score: float | None = None
    width: int | None = None
    height: int | None = None
    frames: int | None = None
    error: str | None = None


class FileScorer:
    """Checkpoint that scores files.

    On a CPU the scores of pictures are those of `musiq score` bit by bit.

    Args:
        checkpoint: Folder, Hub id or name of an embedded checkpoint.
        device: Device that scores.
        every: Every n-th frame of a video is scored; None takes one a second.

    Attributes:
        name: Name of the checkpoint.
        signature: Signature of its scores.

    Raises:
        ValueError: If the checkpoint cannot be used.
    """

    def __init__(self, checkpoint: str, *, device: torch.device, every: int | None):
        self._scorers = Scorers([checkpoint], device=device, num_workers=2, in_processes=False)
        self.name, self.signature = self._scorers.terms.names[0], self._scorers.terms.signatures[0]
        self._every = every

    def score(self, reference: str, distorted: Sequence[str]) -> dict[str, FileScore]:
        """Score a reference and what systems have made of it, each file once.

        Args:
            reference: File, whose frame rate tells which frames of a second are scored, in all videos alike.
            distorted: Files of the systems.

        Returns:
            Scores by file.
        """
        files = dict.fromkeys((reference, *distorted))
        pictures = [path for path in files if not has_video_suffix(path)]
        found = dict(zip(pictures, self._score_pictures(pictures), strict=True))
        every = self._every
        for path in files:
            if path not in found:
                every = every or _find_rate(reference)
                found[path] = self._score_video(path, every)
        return found

    def _score_pictures(self, paths: Sequence[str]) -> Iterator[FileScore]:
        if not paths:
            return
        for (row,) in self._scorers.score((escape_name(path), Path(path)) for path in paths):
            yield FileScore(row.score, row.width, row.height, 1, row.error)

    def _score_video(self, path: str, every: int) -> FileScore:
        try:
            with open_video(path) as video:
                frames = _FrameSource(video, every)
                rows = [row for (row,) in self._scorers.score(frames.pick())]
        except (ValueError, OSError) as error:
            return FileScore(error=str(error))
        failed = next((row.error for row in rows if row.error is not None), None)
        if failed is not None:
            return FileScore(error=failed)
        mean = statistics.fmean(row.score for row in rows if row.score is not None)
        return FileScore(mean, video.width, video.height, frames.count)


class _FrameSource:
    """Frames of a video to score, and the number of all frames so far."""

    def __init__(self, video: Video, every: int):
        self.video, self.every, self.count = video, every, 0

    def pick(self) -> Iterator[tuple[str, Any]]:
        """Yield name and picture of every n-th frame, from the first one on."""
        for frame in self.video.frames():
            self.count += 1
            if (self.count - 1) % self.every == 0:
                yield f"{escape_name(self.video.name)}, frame {self.count}", Image.fromarray(frame.to_rgb())


def _find_rate(path: str) -> int:
    """Return the number of frames a second of a video, rounded; 1 if the file does not tell, or cannot be read."""
    try:
        with open_video(path) as video:
            return max(1, round(video.frame_rate or 1))
    except (ValueError, OSError):
        return 1
