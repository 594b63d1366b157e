# SPDX-License-Identifier: Apache-2.0
"""Gradient ascent on the pixels of a picture, which raises its score, with a view of before and after.

python examples/optimize_with_musiq.py photo.jpg --blur 2 --output after.png
python examples/optimize_with_musiq.py photo.jpg --output after.png --steps 100 --tv_weight 5 --shorter_side 512

It shows what a model takes for quality, and that scores are differentiable in the pixels. It is no restoration: the
score rises far beyond what people would say, because nothing keeps the picture among photographs. A score as a loss
needs a partner that keeps it there: a generator, or a distance to the input. Here --tv_weight and few steps do so.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from musiq_hf import DEFAULT_CHECKPOINT, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.common.arguments import CommandParser, parse_arguments, print_report, run_command
from musiq_hf.common.files import replace_file
from musiq_hf.pictures import open_picture, shrink_shorter_side, to_rgb_tensor
from musiq_hf.scoring import load_quality, score_pixels

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
import torch
from PIL import Image, ImageFilter
from transformers.utils import logging

EXAMPLE = "python examples/optimize_with_musiq.py photo.jpg --blur 2 --output after.png"
GAP = 8  # pixels between before and after


def compute_total_variation(pixels: torch.Tensor) -> torch.Tensor:
    """Compute the mean absolute difference of neighbours, in levels of 255, of pixels (3, height, width) in 0..1."""
    return 255 * (pixels.diff(dim=1).abs().mean() + pixels.diff(dim=2).abs().mean())


def ascend(
    model: MusiqForImageQualityAssessment,
    processor: MusiqImageProcessor,
    pixels: torch.Tensor,
    *,
    steps: int,
    step_size: float = 0.5,
    tv_weight: float = 0.0,
) -> torch.Tensor:
    """Climb from a picture to one with a higher score.

    Args:
        model: Model in evaluation mode.
        processor: Image processor of the model.
        pixels: Pixels, float, shape (3, height, width), in 0..1.
        steps: Number of gradient steps.
        step_size: Root mean square change of a pixel by one step, in levels of 255.
        tv_weight: MOS points that one level of `compute_total_variation` costs.

    Returns:
        The picture with the highest value on the way, score less cost, in the form of `pixels`.
    """
    current = best = pixels.to(model.device)
    highest = -float("inf")
    for step in range(steps + 1):
        current = current.detach().requires_grad_(True)
        value = score_pixels(model, processor, current[None])[0] - tv_weight * compute_total_variation(current)
        if value.item() > highest:
            best, highest = current.detach(), value.item()
        if step < steps:
            (gradient,) = torch.autograd.grad(value, current)
            length = gradient.square().mean().sqrt().clamp(min=torch.finfo(gradient.dtype).tiny)
            current = (current.detach() + step_size / 255 * gradient / length).clamp(0, 1)
    return best


def to_picture(pixels: torch.Tensor) -> Image.Image:
    """Convert pixels (3, height, width) in 0..1 to an 8-bit picture."""
    return Image.fromarray((pixels * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy())


def to_pixels(image: Image.Image) -> torch.Tensor:
    """Convert a picture of any mode to pixels (3, height, width) in 0..1."""
    return to_rgb_tensor(image).permute(2, 0, 1).contiguous()


def join_pictures(left: Image.Image, right: Image.Image) -> Image.Image:
    """Put two pictures of one height beside each other, on white."""
    both = Image.new("RGB", (left.width + GAP + right.width, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + GAP, 0))
    return both


def save(image: Image.Image, path: Path) -> None:
    """Write a PNG under a temporary name first, so that no half-written file is left."""
    with replace_file(path) as temporary:
        image.save(temporary, format="PNG")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Read a picture, climb, save, and score the saved file."""
    # 1. Load the checkpoint; its weights stay as they are.
    model, processor = load_quality(arguments.model)
    model.requires_grad_(False)
    # 2. Make the picture before the climb, in whole numbers as a file holds them.
    image = open_picture(arguments.photo)
    if arguments.shorter_side is not None:
        image = shrink_shorter_side(image, arguments.shorter_side)
    before = to_picture(to_pixels(image)).filter(ImageFilter.GaussianBlur(arguments.blur))
    # 3. Climb, write the files, and read the picture again: its pixels are whole numbers now.
    pixels = ascend(
        model,
        processor,
        to_pixels(before),
        steps=arguments.steps,
        step_size=arguments.step_size,
        tv_weight=arguments.tv_weight,
    )
    output = arguments.output
    comparison = output.with_name(f"{output.stem}_comparison.png")
    output.parent.mkdir(parents=True, exist_ok=True)
    save(to_picture(pixels), output)
    after = open_picture(output)
    save(join_pictures(before, after), comparison)
    # 4. Score both like any other file.
    with torch.no_grad():
        scores = model(**processor([before, after], return_tensors="pt").to(model.device)).scores.tolist()
    return {"before": scores[0], "after": scores[1], "output": str(output), "comparison": str(comparison)}


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("photo", help="picture to start from")
    add("--output", type=Path, required=True, help="after.png; after_comparison.png beside it shows both")
    add("--model", default=str(DEFAULT_CHECKPOINT), help=f"checkpoint (default: {DEFAULT_CHECKPOINT.name})")
    add("--steps", type=int, default=50, help="gradient steps (default: 50)")
    add("--step_size", type=float, default=0.5, help="change of a pixel by a step, in levels of 255 (default: 0.5)")
    add("--tv_weight", type=float, default=0.0, help="MOS points that a level of total variation costs (default: 0)")
    add("--blur", type=float, default=0.0, help="blur the picture first, with so many pixels (default: 0)")
    add("--shorter_side", type=int, help="shrink the picture to this shorter side in pixels first (default: its own)")
    return parser


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise a ValueError for arguments that cannot work, before the checkpoint is loaded."""
    if arguments.output.suffix.lower() != ".png":  # other formats lose the small changes of a few steps
        raise ValueError(f"`--output` must end in .png, got {arguments.output}.")
    for name, low in (("steps", 1), ("shorter_side", 1), ("blur", 0), ("tv_weight", 0)):
        value = getattr(arguments, name)
        if value is not None and not value >= low:
            raise ValueError(f"`--{name}` must be at least {low}, got {value}.")
    if not arguments.step_size > 0:
        raise ValueError(f"`--step_size` must be above 0, got {arguments.step_size}.")


def main() -> int:
    """Climb, and print the scores before and after; return 2 for a mistake in the arguments or the picture."""
    arguments = parse_arguments(build_parser())

    def command() -> None:
        check_arguments(arguments)
        logging.disable_progress_bar()
        print_report(run(arguments))

    return run_command("optimize_with_musiq", command, example=EXAMPLE)


if __name__ == "__main__":
    sys.exit(main())
