# SPDX-License-Identifier: Apache-2.0
"""Descriptors of content: spatial and temporal information after ITU-T P.910, and colourfulness."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from ..pictures.video import has_video_suffix, open_video
from .pixels import Picture, read_pixels

LUMA = np.array([0.299, 0.587, 0.114])
MIN_SIDE = 3  # pixels, which the Sobel filter needs
BLACK, WHITE, GAMMA = 0.1, 300.0, 2.4  # light of the display in cd/m2, and its exponent (BT.1886)
# Constants of the perceptual quantizer (SMPTE ST 2084).
PEAK, M1, M2 = 10_000.0, 2610 / 16384, 128 * 2523 / 4096
C1, C2, C3 = 3424 / 4096, 32 * 2413 / 4096, 32 * 2392 / 4096


@dataclass(frozen=True, eq=False)
class Description:
    """Content of a picture or a video in numbers.

    Attributes:
        width: Columns, in pixels.
        height: Rows, in pixels.
        num_frames: Number of frames, 1 for a picture.
        frame_rate: Frames a second; None for a picture, and for a file that does not tell.
        bit_depth: Bits of a sample of luma.
        full_range: Whether luma is 0 to 2^bits - 1, as it is for a picture.
        si: Spatial information, see `spatial_information`; the mean over frames.
        si_max: Largest spatial information of a frame.
        ti: Temporal information, the mean over frames of the standard deviation of the difference to the frame before;
            None for fewer than two frames.
        ti_max: Largest temporal information of a frame; None for fewer than two frames.
        cf: Colourfulness, see `colourfulness`; the mean over frames.
        share_outside_range: Part of the samples of luma outside of their range. They are clipped, but for `legacy`.
        frames: Values of "si", "ti" and "cf" for each frame. Those of "ti" begin with the second frame.
    """

    width: int
    height: int
    num_frames: int
    frame_rate: float | None
    bit_depth: int
    full_range: bool
    si: float
    si_max: float
    ti: float | None
    ti_max: float | None
    cf: float
    share_outside_range: float
    frames: dict[str, np.ndarray] = field(repr=False)


def _to_perceived(luma: np.ndarray) -> np.ndarray:
    """Turn luma in 0..1 into what is seen of it on a display, in the unit of the perceptual quantizer."""
    light = ((WHITE - BLACK) * luma**GAMMA + BLACK) / PEAK
    powers = light**M1
    return ((C1 + C2 * powers) / (1 + C3 * powers)) ** M2


def _check_sides(width: int, height: int) -> None:
    if min(height, width) < MIN_SIDE:
        raise ValueError(
            f"Spatial information needs {MIN_SIDE} pixels on each side, got {width}x{height}. Take a larger picture."
        )


def _scale_luma(luma: np.ndarray, *, legacy: bool) -> np.ndarray:
    """Turn luma in 0..1 into the values that are measured, in 0..255."""
    return 255 * (luma if legacy else _to_perceived(luma))


def _find_values(pixels: np.ndarray, *, legacy: bool) -> np.ndarray:
    """Return the values of a picture that are measured, shape (height, width), from pixels of RGB."""
    _check_sides(pixels.shape[1], pixels.shape[0])
    return _scale_luma(pixels @ LUMA / 255, legacy=legacy)


def _measure_detail(values: np.ndarray) -> float:
    """Compute the standard deviation of the Sobel slopes of values, shape (height, width)."""
    rows = values[:-2] + 2 * values[1:-1] + values[2:]
    columns = values[:, :-2] + 2 * values[:, 1:-1] + values[:, 2:]
    return float(np.sqrt((rows[:, 2:] - rows[:, :-2]) ** 2 + (columns[2:] - columns[:-2]) ** 2).std())


def _measure_colour(pixels: np.ndarray) -> float:
    """Compute the colourfulness of pixels, shape (height, width, 3)."""
    red, green, blue = np.moveaxis(pixels, -1, 0)
    opponents = red - green, (red + green) / 2 - blue  # signed: sizes alone give other numbers
    spread = np.hypot(*(plane.std() for plane in opponents))
    return float(spread + 0.3 * np.hypot(*(plane.mean() for plane in opponents)))


def spatial_information(picture: Picture, *, legacy: bool = False) -> float:
    """Compute how much detail a picture has: the standard deviation of its slopes (after ITU-T P.910).

    The luma is first turned into what is seen on a display of 0.1 to 300 cd/m2 (BT.1886, perceptual quantizer).

    Args:
        picture: Path, PIL image, or uint8 array of shape (height, width) or (height, width, 3).
        legacy: Whether the luma is taken as it is, as earlier editions and ffmpeg do. Both kinds differ by a factor of
            about 2, and can order pictures otherwise.

    Returns:
        Spatial information in the unit of luma in 0..255.

    Raises:
        ValueError: If a side has fewer than 3 pixels, or the picture cannot be read.
        FileNotFoundError: If the file is missing.
    """
    return _measure_detail(_find_values(read_pixels(picture), legacy=legacy))


def colourfulness(picture: Picture) -> float:
    """Compute how colourful a picture is (Hasler and Suesstrunk 2003); 0 for gray.

    Args:
        picture: Path, PIL image, or uint8 array of shape (height, width) or (height, width, 3).

    Raises:
        ValueError: If the picture cannot be read.
        FileNotFoundError: If the file is missing.
    """
    return _measure_colour(read_pixels(picture))


def _describe_picture(picture: Picture, *, legacy: bool) -> Description:
    pixels = read_pixels(picture)
    detail, colour = _measure_detail(_find_values(pixels, legacy=legacy)), _measure_colour(pixels)
    height, width = pixels.shape[:2]
    return Description(
        width=width,
        height=height,
        num_frames=1,
        frame_rate=None,
        bit_depth=8,
        full_range=True,
        si=detail,
        si_max=detail,
        ti=None,
        ti_max=None,
        cf=colour,
        share_outside_range=0.0,
        frames={"si": np.array([detail]), "ti": np.array([]), "cf": np.array([colour])},
    )


def describe_video(
    path: str | os.PathLike[str], *, legacy: bool, on_frame: Callable[[], None] = lambda: None
) -> Description:
    """Describe a video as `describe` does.

    Args:
        path: File of the video.
        legacy: Whether spatial and temporal information are those of earlier editions.
        on_frame: Function that is called before each frame, and may raise an error that ends the work.
    """
    details, changes, colours, num_outside = [], [], [], 0
    with open_video(path) as video:
        _check_sides(video.width, video.height)
        low, high = video.luma_range
        levels = (np.arange(2**video.bit_depth) - low) / (high - low)
        table = _scale_luma(levels if legacy else levels.clip(0, 1), legacy=legacy)
        previous = None
        for frame in video.frames():
            on_frame()
            num_outside += int(np.count_nonzero(frame.luma < low) + np.count_nonzero(frame.luma > high))
            values = table[frame.luma]
            details.append(_measure_detail(values))
            colours.append(_measure_colour(frame.to_rgb().astype(np.float64)))
            if previous is not None:
                changes.append(float((values - previous).std()))
            previous = values
    return Description(
        width=video.width,
        height=video.height,
        num_frames=len(details),
        frame_rate=video.frame_rate,
        bit_depth=video.bit_depth,
        full_range=video.full_range,
        si=float(np.mean(details)),
        si_max=max(details),
        ti=float(np.mean(changes)) if changes else None,
        ti_max=max(changes, default=None),
        cf=float(np.mean(colours)),
        share_outside_range=num_outside / (video.width * video.height * len(details)),
        frames={"si": np.array(details), "ti": np.array(changes), "cf": np.array(colours)},
    )


def describe(source: Picture, *, legacy: bool = False) -> Description:
    """Describe the content of a picture or a video.

    The luma of a video is its first plane as coded, in the range of its tag. Without a tag that is 16 to 235 for
    8 bits. RGB is what PyAV makes of a frame, in 8 bits. Two frames are in memory at a time.

    Args:
        source: Path of a picture or a video, PIL image, or uint8 array of shape (height, width) or (height, width, 3).
            Videos are known by their endings: .avi, .m4v, .mkv, .mov, .mp4, .webm, .y4m.
        legacy: Whether spatial and temporal information are those of earlier editions, see `spatial_information`.

    Raises:
        ValueError: If a side has fewer than 3 pixels, or the file cannot be read. Videos of high dynamic range,
            interlaced ones, and those of a variable frame rate are refused.
        OSError: If the file is missing.
        ImportError: If PyAV is missing, for videos.
    """
    if isinstance(source, str | os.PathLike) and has_video_suffix(os.fspath(source)):
        return describe_video(source, legacy=legacy)
    return _describe_picture(source, legacy=legacy)
