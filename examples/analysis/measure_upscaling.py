# SPDX-License-Identifier: Apache-2.0
"""Shares of right scales, verdicts and names of photographs and clips that Pillow and FFmpeg have enlarged.

python examples/analysis/measure_upscaling.py --pictures photos --clips lossless_photos --update_document

Photographs of `--pictures` are shrunk 1.4 to 2.3 times first, by a random filter. Copies are made by Pillow's filters
and FFmpeg's scalers at x1.5, x2 and x3, and are judged as they are, cropped, and after JPEG. The first 300 photographs
are those that training on the same folder holds out.

Clips are pans of 12 frames over the photographs of `--clips`, which are not shrunk: give photographs without losses.
FFmpeg enlarges the frames and encodes them in H.264.

`--update_document` writes the tables into docs/upscaling.md too. FFmpeg and clips need the extra `video`.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from musiq_hf.common.arguments import CommandParser, parse_arguments, positive, run_command
from musiq_hf.common.extras import require
from musiq_hf.common.markdown import markdown_table, update_document
from musiq_hf.pictures import degrade, find_pictures, open_picture, to_rgb_tensor
from musiq_hf.upscaling import (
    DEFAULT_CHECKPOINT,
    Detector,
    UpscalingReport,
    detect_upscaling,
    load_detector,
    order_photographs,
    shrink_photograph,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "upscaling.md"
SEED = 0
SCALES = (1.5, 2.0, 3.0)
TOLERANCE = 0.02  # of a scale that counts as right
NATIVE = "native"
# The kind that is the right answer; None where the detector has no name for it.
PILLOW = {
    "Pillow, nearest": "nearest",
    "Pillow, bilinear": "bilinear",
    "Pillow, hamming": "bilinear",
    "Pillow, bicubic": "bicubic",
    "Pillow, lanczos": "lanczos",
}
FFMPEG = {
    "FFmpeg, neighbor": "nearest",
    "FFmpeg, bilinear": "bilinear",
    "FFmpeg, bicubic": "bicubic",
    "FFmpeg, lanczos": "lanczos",
    "FFmpeg, spline": None,
    "FFmpeg, area": None,
    "FFmpeg, gauss": None,
    "FFmpeg, sinc": None,
}
KINDS = {**PILLOW, **FFMPEG}
CASES = list(product(KINDS, SCALES))
NUM_CASES = 5  # of each photograph, in turn
AS_IT_IS, CROPPED, JPEG = "as they are", "cropped", "JPEG {}"
QUALITIES = (90, 75)
MAX_MARGIN = 32  # pixels that are cropped off a side

CLIP_METHODS = tuple(FFMPEG)[:6]  # Gauss and sinc are rare in videos
CLIP_SIZE = (624, 432)  # divisible by all scales, and even then
NUM_FRAMES, STEP, RATE = 12, (4, 2), 24  # frames; pixels to the right and down from one to the next; frames a second
CRFS = (18, 23)  # constant rate factors of x264: good, and the default


class Answer(NamedTuple):
    """Answer of the detector on one copy, beside what is true.

    Attributes:
        method: "native", or program and filter.
        scale: True scale; 1 of a native.
        copy: Name of what was done to the copy afterwards.
        report: Verdict, method and scale that were found.
    """

    method: str
    scale: float
    copy: str
    report: UpscalingReport

    @property
    def has_right_verdict(self) -> bool:
        """Agreement of the verdict: a native is said to be native, and an enlarged picture to be upscaled."""
        return self.report.verdict == (NATIVE if self.method == NATIVE else "upscaled")

    @property
    def has_right_scale(self) -> bool:
        """Agreement of the scale within 2 %; of a native there must be none."""
        found = self.report.scale
        if self.method == NATIVE:
            return found is None
        return found is not None and abs(found / self.scale - 1) <= TOLERANCE

    @property
    def has_right_name(self) -> bool:
        """Agreement of the name: the picture is said to be upscaled, and by the right kind of method."""
        return self.has_right_verdict and self.report.method == KINDS[self.method]


Column = tuple[str | None, Callable[[Sequence[Answer]], str]]  # copies, None for all, and what a cell says of them


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of the measurement, by the names of the flags."""

    pictures: Path | None
    num_pictures: int
    clips: Path | None
    num_clips: int
    model: str
    update_document: bool


def run_ffmpeg(words: Sequence[str], frames: Sequence[np.ndarray]) -> bytes:
    """Give frames of pixels, uint8 (height, width, 3), to FFmpeg, and return what it writes to its output."""
    program = require("imageio_ffmpeg", extra="video").get_ffmpeg_exe()
    height, width = frames[0].shape[:2]
    source = f"-v error -y -threads 1 -f rawvideo -pix_fmt rgb24 -s {width}x{height} -r {RATE} -i -".split()
    content = b"".join(frame.tobytes() for frame in frames)
    done = subprocess.run([program, *source, *words], input=content, capture_output=True, check=False)
    if done.returncode:
        raise OSError(f"{program} failed: {done.stderr.decode(errors='replace').strip()[-300:]}")
    return done.stdout


def scale_by_ffmpeg(method: str, size: tuple[int, int]) -> list[str]:
    """Return the words that make FFmpeg enlarge to a size."""
    return ["-vf", f"scale={size[0]}:{size[1]}:flags={method.removeprefix('FFmpeg, ')}"]


def enlarge(image: Image.Image, method: str, scale: float) -> Image.Image:
    """Enlarge a picture by a filter of Pillow or FFmpeg."""
    size = (round(image.width * scale), round(image.height * scale))
    if method in PILLOW:
        return image.resize(size, Image.Resampling[method.removeprefix("Pillow, ").upper()])
    pixels = [np.asarray(image)]
    words = [*scale_by_ffmpeg(method, size), *"-f rawvideo -pix_fmt rgb24 -".split()]
    return Image.frombytes("RGB", size, run_ffmpeg(words, pixels))


def compress(image: Image.Image, quality: int) -> Image.Image:
    """Write a picture to a JPEG file, and read it."""
    return degrade(image, blur_sigma=0, noise_sigma=0, seed=SEED, jpeg_quality=quality)


def crop(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    """Crop a random margin off each side."""
    left, top, right, bottom = generator.integers(1, MAX_MARGIN + 1, 4).tolist()
    return image.crop((left, top, image.width - right, image.height - bottom))


def judge_copies(photograph: Path, number: int, detector: Detector) -> Iterator[Answer]:
    """Yield the answers on native copies of a photograph, and on enlarged ones by the cases whose turn it is."""
    generator = np.random.default_rng((SEED, number))
    native = shrink_photograph(photograph, generator)
    copies = [(NATIVE, 1.0, AS_IT_IS, native)]
    copies += [(NATIVE, 1.0, JPEG.format(quality), compress(native, quality)) for quality in QUALITIES]
    for place in range(number * NUM_CASES, (number + 1) * NUM_CASES):
        method, scale = CASES[place % len(CASES)]
        large = enlarge(native, method, scale)
        copies.append((method, scale, AS_IT_IS, large))
        copies.append((method, scale, CROPPED, crop(large, generator)))
        copies.append((method, scale, JPEG.format(QUALITIES[0]), compress(large, QUALITIES[0])))
    for method, scale, copy, image in copies:
        yield Answer(method, scale, copy, detect_upscaling(image, detector))


def read_scene(photograph: Path) -> np.ndarray:
    """Read a photograph that is large enough for a pan; one that stands is laid on its side."""
    pixels = to_rgb_tensor(open_picture(photograph), keep_uint8=True).numpy()
    if pixels.shape[0] > pixels.shape[1]:
        pixels = pixels.transpose(1, 0, 2)
    width, height = (length + step * (NUM_FRAMES - 1) for length, step in zip(CLIP_SIZE, STEP, strict=True))
    if pixels.shape[0] < height or pixels.shape[1] < width:
        raise ValueError(
            f"{photograph.name}: clips need photographs of at least {width} x {height} pixels, got "
            f"{pixels.shape[1]} x {pixels.shape[0]}. Remove it, or give larger ones."
        )
    return pixels


def cut_frames(scene: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Cut the frames of a pan out of a scene."""
    corners = [(number * STEP[0], number * STEP[1]) for number in range(NUM_FRAMES)]
    return [scene[top : top + size[1], left : left + size[0]] for left, top in corners]


def judge_clips(photograph: Path, detector: Detector, folder: Path) -> Iterator[Answer]:
    """Yield the answers on native clips of a photograph, and on clips that are enlarged by every scaler."""
    scene, clip = read_scene(photograph), folder / "clip.mp4"
    for (method, scale), crf in product([(NATIVE, 1.0), *product(CLIP_METHODS, SCALES)], CRFS):
        width, height = (round(length / scale) for length in CLIP_SIZE)
        enlargement = [] if method == NATIVE else scale_by_ffmpeg(method, CLIP_SIZE)
        encoder = f"-c:v libx264 -threads 1 -pix_fmt yuv420p -crf {crf}".split()
        run_ffmpeg([*enlargement, *encoder, str(clip)], cut_frames(scene, (width, height)))
        yield Answer(method, scale, f"CRF {crf}", detect_upscaling(clip, detector))


def write_share(values: Sequence[bool]) -> str:
    """Write the share of what is right; a dash stands for none."""
    return f"{np.mean(values):.2f}" if values else "-"


def share_verdicts(answers: Sequence[Answer]) -> str:
    """Write the share of right verdicts."""
    return write_share([answer.has_right_verdict for answer in answers])


def share_scales(answers: Sequence[Answer]) -> str:
    """Write the share of right scales."""
    return write_share([answer.has_right_scale for answer in answers])


def share_names(answers: Sequence[Answer]) -> str:
    """Write the share of right names, where the detector has one."""
    return write_share([answer.has_right_name for answer in answers if KINDS[answer.method] is not None])


def name_most(answers: Sequence[Answer]) -> str:
    """Write the name that most pictures get; a dash stands for none."""
    names = Counter(answer.report.method for answer in answers if answer.report.method is not None)
    return str(names.most_common(1)[0][0]) if names else "-"


def make_native_table(answers: Sequence[Answer], copies: Sequence[str]) -> str:
    """Write the table of natives."""
    natives = [[answer for answer in answers if (answer.method, answer.copy) == (NATIVE, copy)] for copy in copies]
    rows = [["said to be native", *map(share_verdicts, natives)], ["no scale found", *map(share_scales, natives)]]
    return markdown_table([NATIVE, *copies], rows)


def make_table(answers: Sequence[Answer], methods: Iterable[str], columns: Mapping[str, Column]) -> str:
    """Write a table with a row for each method, whose cells have a value for each scale."""
    rows = []
    for method in methods:
        cells = []
        for copy, write in columns.values():
            own = [answer for answer in answers if answer.method == method and copy in (None, answer.copy)]
            cells.append(" / ".join(write([answer for answer in own if answer.scale == scale]) for scale in SCALES))
        rows.append([method, *cells])
    return markdown_table([" / ".join(f"x{scale:g}" for scale in SCALES), *columns], rows)


def measure_pictures(folder: Path, count: int, detector: Detector) -> str:
    """Measure on enlarged pictures, and return the tables."""
    photographs = order_photographs(folder, report=partial(print, file=sys.stderr))[:count]
    answers = [
        answer
        for number, photograph in enumerate(photographs)
        for answer in judge_copies(photograph, number, detector)
    ]
    num_enlarged = len(photographs) * NUM_CASES / len(CASES)
    compressed = [JPEG.format(quality) for quality in QUALITIES]
    copies = (AS_IT_IS, CROPPED, compressed[0])
    verdicts: dict[str, Column] = {copy: (copy, share_verdicts) for copy in copies}
    parts = [
        f"Natives, {len(photographs)} photographs a share.",
        make_native_table(answers, (AS_IT_IS, *compressed)),
        f"Scales right within {TOLERANCE:.0%}, about {num_enlarged:.0f} pictures a share.",
        make_table(answers, KINDS, {copy: (copy, share_scales) for copy in copies}),
        "The same pictures, said to be upscaled, and by the right kind of method.",
        make_table(answers, KINDS, verdicts | {"right name, as they are": (AS_IT_IS, share_names)}),
    ]
    return "\n\n".join(parts)


def measure_clips(folder: Path, count: int, detector: Detector) -> str:
    """Measure on clips, and return the tables."""
    photographs = find_pictures(folder)[:count]
    with tempfile.TemporaryDirectory(prefix="musiq-") as place:
        answers = [answer for path in photographs for answer in judge_clips(path, detector, Path(place))]
    copies = [f"CRF {crf}" for crf in CRFS]
    parts = [
        f"Natives, {len(photographs)} clips a share.",
        make_native_table(answers, copies),
        f"Verdicts and scales of enlarged clips, {len(photographs)} clips a share.",
        make_table(
            answers,
            CLIP_METHODS,
            {f"upscaled, {copy}": (copy, share_verdicts) for copy in copies}
            | {f"scale, {copy}": (copy, share_scales) for copy in copies},
        ),
        "Right names of their methods, and the name that most of them get.",
        make_table(
            answers,
            CLIP_METHODS,
            {f"right name, {copy}": (copy, share_names) for copy in copies} | {"most are called": (None, name_most)},
        ),
    ]
    return "\n\n".join(parts)


def run(settings: Settings) -> None:
    """Measure what has a folder, print the tables, and write them into the document."""
    if settings.pictures is None and settings.clips is None:
        raise ValueError("There is nothing to measure. Give `--pictures`, `--clips`, or both.")
    detector = load_detector(settings.model)
    for place, folder, count, measure in (
        ("pictures", settings.pictures, settings.num_pictures, measure_pictures),
        ("clips", settings.clips, settings.num_clips, measure_clips),
    ):
        if folder is None:
            continue
        if settings.update_document:
            update_document(DOCUMENT, place, partial(measure, folder, count, detector))
        else:
            print(measure(folder, count, detector))
        print()


def main() -> int:
    """Measure; return 2 for a mistake in the arguments or a picture."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--pictures", type=Path, help="folder of photographs, which are shrunk, of 269 x 269 pixels or more")
    add("--num_pictures", type=positive, default=200, help="photographs of them (default: %(default)s)")
    add("--clips", type=Path, help="folder of photographs without losses, of 668 x 454 pixels or more, for clips")
    add("--num_clips", type=positive, default=24, help="photographs of them (default: %(default)s)")
    add("--model", default=DEFAULT_CHECKPOINT.name, help="detector (default: %(default)s)")
    add("--update_document", action="store_true", help="write the tables into docs/upscaling.md")
    settings = Settings(**vars(parse_arguments(parser)))
    return run_command("measure_upscaling", lambda: run(settings))


if __name__ == "__main__":
    sys.exit(main())
