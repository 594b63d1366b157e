# SPDX-License-Identifier: Apache-2.0
"""Time of a frame of 1920x1080, and memory over 100 and 600 frames of 1280x720, of what `assessment` measures.

OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.videos

It makes its clips in a temporary folder, needs the extra `video`, and prints a table. Each measure runs in a process
of its own; what its ffmpeg took is counted with it.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from musiq_hf.assessment import compare, describe
from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.common.extras import require
from musiq_hf.common.markdown import markdown_table

FULL_HD, HD = (1920, 1080), (1280, 720)
SQUARE = 8  # pixels
MEASURES = ("psnr", "ssim", "vmaf", "describe")
# Measure, size, number of frames.
RUNS = [*((name, FULL_HD, 30) for name in MEASURES), *(("psnr,ssim,vmaf", HD, count) for count in (100, 600))]


def write_clip(path: Path, size: tuple[int, int], num_frames: int, crf: int) -> Path:
    """Write a clip of squares of noise that move, by x264 with a constant quality."""
    av: Any = require("av", extra="video")
    width, height = size
    shape = height // SQUARE, (width + 2 * num_frames) // SQUARE + 1
    squares = np.random.default_rng(0).integers(16, 236, shape, np.uint8)
    noise = squares.repeat(SQUARE, axis=0).repeat(SQUARE, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": str(crf), "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(num_frames):
            luma = noise[:, 2 * number : 2 * number + width]
            planes = np.full((height * 3 // 2, width), 128, np.uint8)
            planes[:height] = luma
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    return path


def measure(name: str, reference: str, distorted: str) -> str:
    """Measure a clip, and return seconds of CPU a frame and the peak of the memory in megabytes, as text."""
    start = time.process_time()
    if name == "describe":
        num_frames = describe(reference).num_frames
    else:
        num_frames = compare(reference, distorted, metrics=name.split(",")).num_frames
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = time.process_time() - start + children.ru_utime + children.ru_stime
    peak = max(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, children.ru_maxrss) / 1024
    return f"{seconds / num_frames:.3f} {peak:.0f}"


def run_all(folder: Path) -> list[list[str]]:
    """Measure all in processes of their own, and return the rows of the table."""
    rows = []
    for name, size, num_frames in RUNS:
        stem = f"{size[1]}_{num_frames}"
        clips = [folder / f"{stem}_{crf}.mkv" for crf in (12, 32)]
        for clip, crf in zip(clips, (12, 32), strict=True):
            if not clip.exists():
                write_clip(clip, size, num_frames, crf)
        command = [sys.executable, "-m", "benchmarks.videos", "--only", name, *map(str, clips)]
        words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        rows.append([name, f"{size[0]}x{size[1]}", str(num_frames), *words])
    return rows


def main() -> int:
    """Measure, and print the table."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="MEASURE", help="measure two clips in this process, and print two numbers")
    parser.add_argument("clips", nargs="*", metavar="CLIP", help="reference and distorted clip, with --only")
    arguments = parse_arguments(parser)

    def run() -> None:
        if arguments.only is not None:
            print(measure(arguments.only, *arguments.clips))
            return
        with tempfile.TemporaryDirectory(prefix="musiq-") as folder:
            rows = run_all(Path(folder))
        print(markdown_table(["measure", "size", "frames", "CPU seconds a frame", "peak memory, MB"], rows))

    return run_command("benchmarks.videos", run)


if __name__ == "__main__":
    sys.exit(main())
