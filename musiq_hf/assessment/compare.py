# SPDX-License-Identifier: Apache-2.0
"""Comparison of a distorted picture or video with its reference, by several measures at once."""

import os
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np

from ..metrics.planes import crop, measure_error, measure_structure, split_planes, to_decibels
from ..pictures.video import Video, has_video_suffix, open_video
from .measures import check_sizes
from .pixels import Picture, read_pixels
from .vmaf import measure_vmaf

METRICS = ("psnr", "ssim", "vmaf")


@dataclass(frozen=True, eq=False)
class Comparison:
    """Measures of a distorted picture or video; None for those that were not asked for.

    Attributes:
        width: Columns, in pixels, before `crop_border`.
        height: Rows, in pixels.
        num_frames: Number of frames, 1 for pictures.
        psnr_y: PSNR of luma in decibels. That of a video is the PSNR of the mean squared error of all frames.
        psnr_rgb: PSNR of RGB in decibels; None for videos.
        ssim_y: SSIM of luma; that of a video is the mean over frames.
        ssim_rgb: Mean SSIM of the three channels; None for videos.
        vmaf: Mean VMAF over frames; None for pictures.
        vmaf_harmonic_mean: Harmonic mean of VMAF + 1 over frames, less 1, as libvmaf has it.
        vmaf_min: Lowest VMAF of a frame.
        frames: Values of "psnr_y", "ssim_y" and "vmaf" of each frame, as far as they were asked for.
    """

    width: int
    height: int
    num_frames: int
    psnr_y: float | None = None
    psnr_rgb: float | None = None
    ssim_y: float | None = None
    ssim_rgb: float | None = None
    vmaf: float | None = None
    vmaf_harmonic_mean: float | None = None
    vmaf_min: float | None = None
    frames: dict[str, np.ndarray] = field(default_factory=dict, repr=False)


def is_video(source: Picture) -> bool:
    """Return whether a source is the path of a video, by its ending."""
    return isinstance(source, str | os.PathLike) and has_video_suffix(os.fspath(source))


def check_metrics(metrics: Collection[str], known: Sequence[str] = METRICS) -> None:
    """Raise a ValueError if no metric is named, or one that is not known."""
    unknown = [name for name in metrics if name not in known]
    if isinstance(metrics, str) or unknown or not metrics:
        got = metrics if isinstance(metrics, str) else ", ".join(unknown) or "none"
        raise ValueError(f"`metrics` must be a list of {', '.join(known)}, got {got}.")


def _compare_pictures(
    reference: Picture, distorted: Picture, metrics: Collection[str], crop_border: int
) -> Comparison:
    if "vmaf" in metrics:
        raise ValueError("VMAF is made for videos, and says nothing about still pictures. Leave it out of `metrics`.")
    pixels = read_pixels(reference), read_pixels(distorted)
    sizes = [(each.shape[1], each.shape[0]) for each in pixels]
    check_sizes(sizes, crop_border)
    values: dict[str, Any] = {}
    for channels in ("y", "rgb"):
        first, second = (crop(split_planes(each, channels), crop_border) for each in pixels)
        if "psnr" in metrics:
            values[f"psnr_{channels}"] = to_decibels(measure_error(first, second))
        if "ssim" in metrics:
            values[f"ssim_{channels}"] = measure_structure(first, second)
    frames = {name: np.array([value]) for name, value in values.items() if name.endswith("_y")}
    return Comparison(*sizes[0], num_frames=1, frames=frames, **values)


def _check_videos(reference: Video, distorted: Video, crop_border: int) -> None:
    """Raise a ValueError if two videos cannot be compared sample by sample."""
    check_sizes([(video.width, video.height) for video in (reference, distorted)], crop_border)
    if reference.bit_depth != distorted.bit_depth:
        raise ValueError(
            f"Both videos must have one bit depth, got {reference.bit_depth} and {distorted.bit_depth} bits. Convert "
            "one of them."
        )
    if reference.full_range != distorted.full_range:
        ranges = ["full" if video.full_range else "limited" for video in (reference, distorted)]
        raise ValueError(
            f"Both videos must have luma of one range, got {' and '.join(ranges)} range. Convert or tag one of them."
        )


def _measure_frames(
    reference: Video, distorted: Video, metrics: Collection[str], crop_border: int
) -> tuple[int, dict[str, list[float]]]:
    """Compare two videos frame by frame, with one frame of each in memory.

    Returns:
        Number of frames, and "error" and "ssim_y" of each as far as they are asked for.
    """
    values: dict[str, list[float]] = {"error": [], "ssim_y": []}
    counts, peak = [0, 0], float(2**reference.bit_depth - 1)
    for pair in zip_longest(reference.frames(), distorted.frames()):
        counts = [count + (frame is not None) for count, frame in zip(counts, pair, strict=True)]
        if counts[0] != counts[1]:
            continue  # the number of frames of the longer one is counted, for the message
        first, second = (crop(frame.luma[None], crop_border).astype(np.float64) for frame in pair)
        if "psnr" in metrics:
            values["error"].append(measure_error(first, second))
        if "ssim" in metrics:
            values["ssim_y"].append(measure_structure(first, second, peak=peak))
    if counts[0] != counts[1]:
        raise ValueError(
            f"Both videos must have one number of frames, got {counts[0]} in {reference.name} and {counts[1]} in "
            f"{distorted.name}. Cut the longer one."
        )
    return counts[0], values


def _compare_videos(
    reference: str | os.PathLike[str], distorted: str | os.PathLike[str], metrics: Collection[str], crop_border: int
) -> Comparison:
    with ExitStack() as stack:
        first, second = (stack.enter_context(open_video(path)) for path in (reference, distorted))
        _check_videos(first, second, crop_border)
        num_frames, measured = _measure_frames(first, second, metrics, crop_border)
    values: dict[str, Any] = {}
    frames: dict[str, np.ndarray] = {}
    if "psnr" in metrics:
        peak = float(2**first.bit_depth - 1)
        values["psnr_y"] = to_decibels(float(np.mean(measured["error"])), peak=peak)
        frames["psnr_y"] = np.array([to_decibels(error, peak=peak) for error in measured["error"]])
    if "ssim" in metrics:
        values["ssim_y"] = float(np.mean(measured["ssim_y"]))
        frames["ssim_y"] = np.array(measured["ssim_y"])
    if "vmaf" in metrics:
        vmaf = frames["vmaf"] = measure_vmaf(first, second, num_frames=num_frames, crop_border=crop_border)
        values["vmaf"], values["vmaf_min"] = float(vmaf.mean()), float(vmaf.min())
        values["vmaf_harmonic_mean"] = float(1 / np.mean(1 / (vmaf + 1)) - 1)
    return Comparison(first.width, first.height, num_frames, frames=frames, **values)


def compare(
    reference: Picture,
    distorted: Picture,
    *,
    metrics: Collection[str] = ("psnr", "ssim"),
    crop_border: int = 0,
) -> Comparison:
    """Compare a distorted picture or video with its reference.

    Videos are compared on their luma as coded, whose peak is 2^bits - 1, frame by frame in their order. Time stamps do
    not count. Pictures are those of `psnr` and `ssim`.

    Args:
        reference: Path of a picture or a video, PIL image, or uint8 array of shape (height, width) or (height, width,
            3). Videos are known by their endings.
        distorted: Picture or video of the same size.
        metrics: Measures to compute: "psnr", "ssim", and "vmaf" for videos.
        crop_border: Number of pixels that are cut off each side first.

    Raises:
        ValueError: If sizes, numbers of frames, bit depths or ranges differ, or a picture meets a video. If a file
            cannot be read, a metric is unknown, VMAF is asked of pictures, or `crop_border` leaves nothing.
        OSError: If a file is missing.
        ImportError: If SciPy, PyAV, or an ffmpeg with libvmaf is missing and needed.
    """
    check_metrics(metrics)
    if is_video(reference) != is_video(distorted):
        shown = [os.fspath(each) for each in (reference, distorted) if isinstance(each, str | os.PathLike)]
        raise ValueError(f"A picture cannot be compared with a video ({', '.join(shown)}). Give two of a kind.")
    if isinstance(reference, str | os.PathLike) and isinstance(distorted, str | os.PathLike) and is_video(reference):
        return _compare_videos(reference, distorted, metrics, crop_border)
    return _compare_pictures(reference, distorted, metrics, crop_border)
