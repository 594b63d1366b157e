# SPDX-License-Identifier: Apache-2.0
"""Videos of viewing sessions: what a panel sees, cell after cell, as one file for each session.

Clips lie in a folder for each clip, CLIPS/<clip>/reference.* and CLIPS/<clip>/<version>.*: videos or still pictures.
Sessions are H.264 in MP4, 8 bits and 4:2:0, without sound, as large and fast as the clips are.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..common.extras import require
from ..common.files import replace_file
from ..common.outputs import SESSIONS
from ..pictures.finding import has_picture_suffix
from ..pictures.opening import open_picture, to_rgb_tensor
from ..pictures.video import FULL_RANGE, LIMITED_RANGE, has_video_suffix, open_video
from .planner import SECONDS_OF_MESSAGE, SECONDS_TO_VOTE, SHOWINGS, Presentation, list_sessions
from .sheets import name_session

REFERENCE = "reference"  # stem of the file of a clip's reference
PICTURE_RATE = Fraction(25)  # frames a second, where all clips are pictures
LARGEST_DENOMINATOR = 1001  # of a frame rate, such as 30000/1001
RATE_TOLERANCE = 1e-5  # part by which files round their frame rate, as 60000/1001 to 19001/317
MIN_RATE = 5  # with fewer frames a second none may be left for a message
MAX_SIDE = 16384  # of H.264 as x264 writes it
# x264's constant quality: 48 dB and more on clips, beyond what viewers can tell. Lossless H.264 few players take.
ENCODER = {"crf": "10", "preset": "fast"}
BT_709, BT_601, UNKNOWN_MATRIX = 1, 6, 2  # numbers of ITU-T H.273
SAME_MATRIX = {5: BT_601}  # BT.601 has two numbers, of 625 lines and of 525
ROWS_OF_HD = 720  # from which on players take untagged colours for those of BT.709
GREY, BLACK = (128, 128, 128), (0, 0, 0)
PART_OF_TEXT = 6  # the shorter side of the picture to the size of a text


class _Form(NamedTuple):
    """Size, shape of pixels, rate and matrix of a clip; the last two are None for a picture, which fits any."""

    width: int
    height: int
    pixel_aspect: Fraction
    rate: Fraction | None
    matrix: int | None


@dataclass(frozen=True)
class Clips:
    """Files of the clips of a test, with what all clips share.

    Attributes:
        files: File of each clip and version; that of a reference has the name "reference".
        width: Columns, in pixels.
        height: Rows, in pixels.
        pixel_aspect: Width of a pixel to its height.
        rate: Frames a second.
        matrix: Number of the matrix of colours after ITU-T H.273.
    """

    files: Mapping[tuple[str, str], Path]
    width: int
    height: int
    pixel_aspect: Fraction
    rate: Fraction
    matrix: int


def _find_file(folder: Path, version: str) -> Path | None:
    """Return the video or picture of a version, whose name may be given with or without its ending; None if missing.

    Raises:
        ValueError: If several files have the name.
    """
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [path for path in entries if has_video_suffix(path.name) or has_picture_suffix(path.name)]
    found = [path for path in files if path.name == version] or [path for path in files if path.stem == version]
    if len(found) > 1:
        raise ValueError(
            f"{folder / version} could be {' or '.join(path.name for path in found)}. Remove all but one, or name the "
            "version with its ending."
        )
    return found[0] if found else None


def _find_clips(folder: Path, plan: Sequence[Presentation]) -> dict[tuple[str, str], Path]:
    """Return the files of all clips and versions of a plan; raise a ValueError if one is missing."""
    wanted = dict.fromkeys((shown.clip, name) for shown in plan for name in (REFERENCE, shown.a, shown.b))
    found = {key: _find_file(folder / key[0], key[1]) for key in wanted}
    missing = [str(folder / clip / version) for (clip, version), path in found.items() if path is None]
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(wanted)} clips are missing, the first is {missing[0]}.*. Put videos or pictures "
            f"there, as CLIP/{REFERENCE}.mp4 and CLIP/VERSION.mp4."
        )
    return {key: path for key, path in found.items() if path is not None}


def _count_frames(seconds: float, rate: Fraction) -> int:
    """Return the number of frames in a time, which begins with one."""
    return round(Fraction(seconds) * rate)


def _read_form(path: Path, clip_seconds: float) -> _Form:
    """Return the size, rate and colours of a clip; raise a ValueError if it cannot be shown for so long."""
    if not has_video_suffix(path.name):
        height, width = _read_picture(path).shape[:2]
        return _Form(width, height, Fraction(1), None, None)
    with open_video(path) as video:
        if video.frame_rate is None:
            raise ValueError(f"{path} does not tell its frame rate. Put it into another container, such as MKV.")
        rate = _name_rate(video.frame_rate)
        needed = _count_frames(clip_seconds, rate)
        num_frames, matrix = 0, UNKNOWN_MATRIX
        for frame in islice(video.frames(), needed):
            num_frames, matrix = num_frames + 1, frame.matrix
    if num_frames < needed:
        raise ValueError(
            f"{path} has {num_frames} frames, {float(num_frames / rate):g} s, and a cell shows {clip_seconds:g} s. "
            "Take longer clips, or a shorter --clip_seconds."
        )
    if matrix == UNKNOWN_MATRIX:
        matrix = _guess_matrix(video.height)
    return _Form(video.width, video.height, video.pixel_aspect, rate, SAME_MATRIX.get(matrix, matrix))


def _name_rate(rate: float) -> Fraction:
    """Return a frame rate as a fraction, without what the file has rounded."""
    usual = (Fraction(round(rate)), Fraction(1000 * round(1.001 * rate), 1001))
    meant = [one for one in usual if abs(one - rate) < RATE_TOLERANCE * rate]
    return meant[0] if meant else Fraction(rate).limit_denominator(LARGEST_DENOMINATOR)


def _guess_matrix(height: int) -> int:
    """Return the matrix of colours that players take for a video without tags."""
    return BT_709 if height >= ROWS_OF_HD else BT_601


def _describe(form: _Form) -> str:
    colours = {None: "", BT_709: ", colours of BT.709", BT_601: ", colours of BT.601"}
    rate = "" if form.rate is None else f", {float(form.rate):g} frames a second"
    aspect = "" if form.pixel_aspect == 1 else f" of the shape {form.pixel_aspect}"
    matrix = colours.get(form.matrix, f", colours of matrix {form.matrix}")
    return f"{form.width}x{form.height} pixels{aspect}{rate}{matrix}"


def _agree(first: _Form, second: _Form) -> bool:
    """Return whether two clips can be shown in one video."""
    return all(one == other or None in (one, other) for one, other in zip(first, second, strict=True))


def _check_form(path: Path, form: _Form, rate: Fraction) -> None:
    """Raise a ValueError if no session can be made of clips like this one."""
    if form.width % 2 or form.height % 2:
        raise ValueError(f"{path} has {form.width}x{form.height} pixels, and H.264 needs even sides. Crop the clips.")
    if max(form.width, form.height) > MAX_SIDE:
        raise ValueError(
            f"{path} has {form.width}x{form.height} pixels, and H.264 has at most {MAX_SIDE} along a side. Crop or "
            "shrink the clips."
        )
    if rate < MIN_RATE:
        raise ValueError(
            f"{path} has {float(rate):g} frames a second, too few for messages of {SECONDS_OF_MESSAGE:g} s. Repeat "
            f"its frames to {MIN_RATE} a second or more."
        )


def read_clips(folder: str | os.PathLike[str], plan: Sequence[Presentation]) -> Clips:
    """Find the clips of a plan, and check that sessions can be rendered of them.

    Args:
        folder: Folder with a folder for each clip. That holds its reference, `reference.*`, and its versions. They are
            named as in the plan, with or without their endings. A picture is a clip that stands still.
        plan: Presentations.

    Returns:
        Clips, each decoded once as far as it is shown.

    Raises:
        ValueError: If a clip is missing, damaged or too short, or has sides that are odd or too long, or too few
            frames a second. Also if two differ in their size, the shape of their pixels, frame rate or colours.
        ImportError: If PyAV is missing.
    """
    require("av", extra="video")
    files, clip_seconds = _find_clips(Path(folder), plan), _find_clip_seconds(plan[0])
    first, form = next(iter(files.values())), None
    for path in files.values():
        found = _read_form(path, clip_seconds)
        if form is not None and not _agree(form, found):
            raise ValueError(
                f"Clips must be alike: {first} has {_describe(form)}, and {path} has {_describe(found)}. Convert one."
            )
        if form is None or form.rate is None:  # a video tells more than a picture
            first, form = path, found
    assert form is not None
    rate = form.rate or PICTURE_RATE
    _check_form(first, form, rate)
    if _count_frames(clip_seconds, rate) < 1:
        raise ValueError(f"Clips of {clip_seconds:g} s are shorter than a frame. Choose a longer --clip_seconds.")
    matrix = form.matrix or _guess_matrix(form.height)
    return Clips(files, form.width, form.height, form.pixel_aspect, rate, matrix)


def _find_clip_seconds(shown: Presentation) -> float:
    """Return how long the clips of a plan are, in seconds."""
    return round((shown.duration - SECONDS_TO_VOTE) / SHOWINGS - SECONDS_OF_MESSAGE, 9)


def _read_picture(path: Path) -> np.ndarray:
    """Read a picture as scoring does: RGB, shape (height, width, 3), uint8."""
    return np.rint(to_rgb_tensor(open_picture(path)).numpy() * 255).astype(np.uint8)


class _Session:
    """Video of a session that is being written.

    Args:
        container: Open container of PyAV.
        clips: Clips.
    """

    def __init__(self, container: Any, clips: Clips):
        self._av, self._container, self._clips = require("av", extra="video"), container, clips
        self._num_frames = 0
        self._stream = container.add_stream("libx264", rate=clips.rate, options=ENCODER)
        self._stream.width, self._stream.height, self._stream.pix_fmt = clips.width, clips.height, "yuv420p"
        context = self._stream.codec_context
        context.colorspace, context.color_range = clips.matrix, LIMITED_RANGE
        context.sample_aspect_ratio = clips.pixel_aspect

    def show(self, part: Presentation) -> None:
        """Add a cell. Each change comes at the frame that is nearest to its time in the plan."""
        seconds = _find_clip_seconds(part)
        length = _count_frames(seconds, self._clips.rate)
        for place, (text, version) in enumerate((("", REFERENCE), ("A", part.a), ("B", part.b))):
            begin = part.start + place * (SECONDS_OF_MESSAGE + seconds) + SECONDS_OF_MESSAGE
            self._add_text(text, until=begin)
            for planes in self._read_clip(self._clips.files[part.clip, version], length):
                self._add(planes)
        self._add_text(f"Vote {part.vote}", until=part.start + part.duration)

    def close(self) -> None:
        """Write what the encoder still holds."""
        self._container.mux(self._stream.encode(None))

    def _add_text(self, text: str, *, until: float) -> None:
        planes = self._draw(text)
        while self._num_frames < _count_frames(until, self._clips.rate):
            self._add(planes)

    def _draw(self, text: str) -> np.ndarray:
        """Draw a text in the middle of a grey picture."""
        width, height = self._clips.width, self._clips.height
        image = Image.new("RGB", (width, height), GREY)
        font = ImageFont.load_default(size=max(min(width, height) // PART_OF_TEXT, 1))
        ImageDraw.Draw(image).text((width / 2, height / 2), text, fill=BLACK, font=font, anchor="mm")
        return self._convert(np.asarray(image))

    def _convert(self, pixels: np.ndarray) -> np.ndarray:
        """Convert RGB, shape (height, width, 3), to the planes of 4:2:0, shape (1.5 height, width)."""
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        planes = frame.reformat(
            format="yuv420p",
            dst_colorspace=self._clips.matrix,
            src_color_range=FULL_RANGE,
            dst_color_range=LIMITED_RANGE,
        )
        return np.asarray(planes.to_ndarray())

    def _read_clip(self, path: Path, num_frames: int) -> Iterator[np.ndarray]:
        """Yield the planes of the first frames of a clip; a picture stands still."""
        if not has_video_suffix(path.name):
            yield from [self._convert(_read_picture(path))] * num_frames
            return
        with open_video(path) as video:
            for frame in islice(video.frames(), num_frames):
                yield frame.to_yuv420p()

    def _add(self, planes: np.ndarray) -> None:
        """Add a frame."""
        frame = self._av.VideoFrame.from_ndarray(planes, format="yuv420p")
        frame.pts, frame.time_base = self._num_frames, 1 / self._clips.rate
        self._num_frames += 1
        self._container.mux(self._stream.encode(frame))


@contextmanager
def _open_session(path: Path, clips: Clips) -> Iterator[_Session]:
    """Open the video of a session, which takes its name at the end of the block."""
    av = require("av", extra="video")
    with replace_file(path) as temporary, av.open(os.fspath(temporary), "w", format="mp4") as container:
        session = _Session(container, clips)
        yield session
        session.close()


def render_sessions(
    folder: str | os.PathLike[str],
    plan: Sequence[Presentation],
    clips: Clips,
    *,
    on_cell: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Write a video for each session of a plan.

    Args:
        folder: Folder of the plan, which gets the folder `sessions` with files such as panel1_session1.mp4. One that
            is there stays as it is, so that a run that was ended can go on.
        plan: Presentations.
        clips: Clips of the plan.
        on_cell: Function that is called after each cell, also of sessions that were there.

    Returns:
        The videos that were written.

    Raises:
        ValueError: If a clip can no longer be decoded.
        OSError: If a video cannot be written.
        ImportError: If PyAV is missing.
    """
    written = []
    (Path(folder) / SESSIONS).mkdir(parents=True, exist_ok=True)
    for (panel, number), part in list_sessions(plan).items():
        path = Path(folder) / SESSIONS / f"{name_session(panel, number)}.mp4"
        if path.exists():
            for _ in part:
                on_cell()
            continue
        for left in path.parent.glob(f".{path.name}.*.tmp"):  # of a run that was killed
            left.unlink(missing_ok=True)
        with _open_session(path, clips) as session:
            for shown in part:
                session.show(shown)
                on_cell()
        written.append(path)
    return written
