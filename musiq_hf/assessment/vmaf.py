# SPDX-License-Identifier: Apache-2.0
"""VMAF of videos, computed by an ffmpeg that has libvmaf, in a process of its own."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from ..common.devices import count_cores
from ..common.extras import require
from ..pictures.video import Video

logger = logging.get_logger(__name__)

MODEL, MODEL_4K = "vmaf_v0.6.1", "vmaf_4k_v0.6.1"
LINES_4K = 2160  # height from which on the second model counts
FEW_LINES = 720  # height below which the models, made for 1080 lines seen from 3 heights, are far from home
LOG = "log.json"
# Frames are paired by time stamps, which differ from one kind of file to another: both get those of their number.
ALIGN = "settb=AVTB,setpts=N*1000"


def _has_libvmaf(program: str) -> bool:
    done = subprocess.run([program, "-hide_banner", "-filters"], capture_output=True, text=True, check=False)
    return re.search(r"\blibvmaf\b", done.stdout) is not None


@cache
def find_ffmpeg() -> str:
    """Return an ffmpeg that has libvmaf: that of the PATH, or else that of imageio-ffmpeg.

    Raises:
        ImportError: If the first has no libvmaf, and the second is not installed.
        OSError: If neither has it.
    """
    program = shutil.which("ffmpeg")
    if program is not None and _has_libvmaf(program):
        return program
    program = str(require("imageio_ffmpeg", extra="video").get_ffmpeg_exe())
    if not _has_libvmaf(program):
        raise OSError(
            f"{program} has no libvmaf, which VMAF needs. Unset IMAGEIO_FFMPEG_EXE, or name one that has it."
        )
    return program


@cache
def describe_vmaf() -> str:
    """Return the versions of ffmpeg and libvmaf, for signatures.

    Raises:
        ImportError: If there is no ffmpeg with libvmaf.
        OSError: If it cannot be run.
    """
    done = subprocess.run([find_ffmpeg(), "-version"], capture_output=True, text=True, check=True)
    words = done.stdout.split(maxsplit=3)
    flat = "color=c=gray:s=64x64:r=1:d=1"
    log = _run(["-f", "lavfi", "-i", flat, "-f", "lavfi", "-i", flat], "[0:v][1:v]", model=MODEL)
    return f"ffmpeg-{words[2]}+libvmaf-{log['version']}"


def name_model(height: int) -> str:
    """Return the name of the model for videos of so many lines."""
    return MODEL_4K if height >= LINES_4K else MODEL


def _run(inputs: Sequence[str], links: str, *, model: str) -> dict[str, Any]:
    """Run ffmpeg on inputs, whose links to libvmaf are given as a filter graph, and return the log of libvmaf.

    Raises:
        ValueError: If it fails; the message is its own last line.
    """
    with tempfile.TemporaryDirectory(prefix="musiq-") as folder:
        # The log has a plain name in the folder of the process: the signs of a path mean other things in filters.
        command = [find_ffmpeg(), "-hide_banner", "-nostdin", "-loglevel", "error", *inputs]
        vmaf = f"libvmaf=log_fmt=json:log_path={LOG}:model=version={model}:n_threads={count_cores()}"
        command += ["-filter_complex", links + vmaf, "-f", "null", "-"]
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        log = Path(folder, LOG)
        if done.returncode or not log.is_file():
            lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise ValueError(lines[-1])
        content: dict[str, Any] = json.loads(log.read_text())
        return content


def measure_vmaf(reference: Video, distorted: Video, *, num_frames: int, crop_border: int = 0) -> np.ndarray:
    """Compute the VMAF of each frame of a video.

    Args:
        reference: Video that was opened before; its file is read again.
        distorted: Video of the same size.
        num_frames: Number of frames that both have.
        crop_border: Number of pixels that are cut off each side first.

    Returns:
        VMAF of each frame, 0 to 100, shape (num_frames,).

    Raises:
        ValueError: If ffmpeg cannot measure the files, or measures another number of frames.
        ImportError: If there is no ffmpeg with libvmaf.
        OSError: If it cannot be run.
    """
    if reference.height < FEW_LINES:
        logger.warning_once(
            f"VMAF is made for videos of 1080 lines seen from 3 times their height. With fewer than {FEW_LINES} "
            "lines, compare its values with each other alone."
        )
    inputs: list[str] = []
    for video in (distorted, reference):
        inputs += ["-protocol_whitelist", "file", "-i", f"file:{os.path.abspath(video.name)}"]
    border = f",crop=iw-{2 * crop_border}:ih-{2 * crop_border}:{crop_border}:{crop_border}:exact=1"
    align = ALIGN + border * bool(crop_border)
    links = f"[0:{distorted.index}]{align}[a];[1:{reference.index}]{align}[b];[a][b]"
    try:
        log = _run(inputs, links, model=name_model(reference.height))
    except ValueError as error:
        raise ValueError(
            f"{distorted.name}: ffmpeg cannot compute VMAF ({error}). Encode both videos alike."
        ) from error
    values = np.array([frame["metrics"]["vmaf"] for frame in log["frames"]])
    if len(values) != num_frames:
        raise ValueError(
            f"{distorted.name}: ffmpeg measured {len(values)} frames and {num_frames} were decoded. Encode it again."
        )
    return values
