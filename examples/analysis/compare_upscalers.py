# SPDX-License-Identifier: Apache-2.0
"""Table and figure of what a model for super-resolution restores of shrunk originals, beside bicubic and Lanczos.

python examples/analysis/compare_upscalers.py originals --scales 2 4 --figure crops.png

Each original is shrunk by each scale and enlarged again by each method. PSNR and SSIM compare the result with the
original. MUSIQ scores it alone, so it may prefer what is sharper than the truth. The figure shows crops where bicubic
is worst, at the largest scale.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from musiq_hf.common.arguments import CommandParser, parse_arguments, run_command
from musiq_hf.common.extras import require
from musiq_hf.common.files import replace_file
from musiq_hf.common.markdown import markdown_table
from musiq_hf.common.outputs import check_new_file
from musiq_hf.evaluation import measure_upscaling
from musiq_hf.explain import escape_formula
from musiq_hf.metrics import render
from musiq_hf.pictures import find_pictures, open_picture
from musiq_hf.scoring import load_quality, score_pictures
from musiq_hf.upscaling import UPSCALER_CHECKPOINT, load_upscaler, upscale_picture

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
from transformers.utils import logging

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Upscale = Callable[[Image.Image, tuple[int, int]], Image.Image]
MODEL = "MSIT"
NUM_SHOWN, CROP = 4, 96  # rows of the figure, and pixels of an original along the side of a crop


class Judge:
    """MUSIQ's scores of all that is made while it is measured, and pictures for the figure.

    Args:
        originals: Originals, in the order in which they are measured.
        scales: Scales, in the order in which they are measured.
    """

    def __init__(self, originals: Sequence[Path], scales: Sequence[float]):
        self.originals, self.scales = originals, scales
        self.quality = load_quality()
        self.scores: dict[str, list[float]] = {}
        self.shown: dict[Path, dict[str, Image.Image]] = {
            path: {} for path in originals[:: -(-len(originals) // NUM_SHOWN)]
        }

    def score(self, picture: Any) -> float:
        """Return the score of a picture.

        Raises:
            ValueError: If it cannot be scored.
        """
        (result,) = score_pictures([picture], model=self.quality[0], processor=self.quality[1])
        if result.score is None:
            raise ValueError(result.error)
        return result.score

    def watch(self, method: str, upscale: Upscale) -> Upscale:
        """Return a method whose results are scored, and kept if the figure shows them."""
        scores = self.scores.setdefault(method, [])

        def watched(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
            original, scale = divmod(len(scores), len(self.scales))
            large = upscale(picture, size)
            scores.append(self.score(large))
            shown = self.shown.get(self.originals[original])
            if shown is not None and self.scales[scale] == max(self.scales):
                shown |= {"source": picture, method: large}
            return large

        return watched

    def render(self) -> str:
        """Write the table of mean scores."""
        rows = [[name, *means] for name, means in self._average()]
        return markdown_table(["MUSIQ", *(f"x{scale:g}" for scale in self.scales)], rows)

    def _average(self) -> list[tuple[str, list[str]]]:
        """Return the mean scores of the originals and of each method, by scale."""
        whole = f"{np.mean([self.score(path) for path in self.originals]):.1f}"
        means = [("original", [whole] * len(self.scales))]
        for method, scores in self.scores.items():
            table = np.reshape(scores, (len(self.originals), len(self.scales)))
            means.append((method, [f"{mean:.1f}" for mean in table.mean(axis=0)]))
        return means


def find_crop(original: Image.Image, copy: Image.Image) -> tuple[int, int, int, int]:
    """Return the box (left, top, right, bottom) in which a copy differs most from its original."""
    errors = np.abs(np.asarray(original, float) - np.asarray(copy, float)).sum(axis=2)
    width, height = (min(CROP, side) for side in original.size)
    sums = np.pad(errors, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    top, left = (int(place) for place in np.unravel_index(windows.argmax(), windows.shape))
    return left, top, left + width, top + height


def plot_crops(shown: dict[Path, dict[str, Image.Image]], scale: float) -> "Figure":
    """Plot crops of each picture side by side: source, each method, and original."""
    columns = len(next(iter(shown.values()))) + 1
    figure = require("matplotlib.figure", extra="explain").Figure(
        figsize=(2.2 * columns, 2.3 * len(shown) + 0.4), layout="constrained"
    )
    for row, (path, pictures) in zip(figure.subplots(len(shown), columns, squeeze=False), shown.items(), strict=True):
        size = pictures["bicubic"].size
        original = open_picture(path).convert("RGB").crop((0, 0, *size))
        box = find_crop(original, pictures["bicubic"])
        panels = {**pictures, "source": pictures["source"].resize(size, Image.Resampling.NEAREST)}
        for axes, (name, picture) in zip(row, {**panels, "original": original}.items(), strict=True):
            axes.imshow(picture.crop(box), interpolation="nearest")
            axes.set(title=name, xticks=[], yticks=[])
        row[0].set_ylabel(escape_formula(path.name), fontsize="small")
    figure.suptitle(f"x{scale:g}, where bicubic differs most from the original")
    return figure


def run(paths: list[Path], scales: list[float], model: str, figure: Path | None) -> None:
    """Measure, print the tables, and write the figure."""
    # 1. Say what cannot work before anything is computed.
    if figure is not None:
        check_new_file(figure, (".png",), overwrite=True)
        require("matplotlib.figure", extra="explain")
    originals = [file for path in paths for file in (find_pictures(path) if path.is_dir() else [path])]
    upscaler = load_upscaler(model)
    # 2. Measure each method; the judge scores what they make.
    judge = Judge(originals, scales)
    methods: dict[str, Upscale] = {
        "bicubic": lambda picture, size: upscale_picture(picture, size=size, method="bicubic"),
        "Lanczos": lambda picture, size: upscale_picture(picture, size=size, method="lanczos"),
        MODEL: lambda picture, size: upscale_picture(picture, size=size, model=upscaler),
    }
    watched = {name: judge.watch(name, upscale) for name, upscale in methods.items()}
    report = measure_upscaling(originals, watched, scales=scales)
    print(render(report), judge.render(), sep="\n\n")
    # 3. Show the crops.
    if figure is not None:
        figure.parent.mkdir(parents=True, exist_ok=True)
        with replace_file(figure) as temporary:
            plot_crops(judge.shown, max(scales)).savefig(temporary, format="png", dpi=100)
        print(f"\n{figure}: crops")


def main() -> int:
    """Compare; return 2 for a mistake in the arguments or a picture."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("paths", nargs="+", type=Path, help="originals, or folders of them")
    add("--scales", nargs="+", type=float, default=[2.0, 4.0], metavar="S", help="scales above 1 (2 4)")
    add("--model", default=UPSCALER_CHECKPOINT.name, help="checkpoint of the family msit (%(default)s)")
    add("--figure", type=Path, metavar="FILE", help=".png file of crops; replaced")
    arguments = parse_arguments(parser)
    logging.disable_progress_bar()
    return run_command(
        "compare_upscalers",
        lambda: run(arguments.paths, arguments.scales, arguments.model, arguments.figure),
    )


if __name__ == "__main__":
    sys.exit(main())
