# SPDX-License-Identifier: Apache-2.0
"""Table of how far rewards can be cheated: pixels climb them, while the picture gets worse.

python examples/analysis/measure_rewards.py examples/pictures/*_sharp.jpg --shorter_side 128 --steps 16

Each picture climbs four rewards: that of the default checkpoint, of both embedded ones, and both of them over four
random crops. A step changes all pixels by half a level of 255 in the root mean square, in the direction of the
gradient. Noise of the size that the climb has ended with is the comparison.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

from musiq_hf import DEFAULT_CHECKPOINT, TINY_CHECKPOINT
from musiq_hf.assessment import psnr, ssim
from musiq_hf.common.arguments import CommandParser, parse_arguments, positive, run_command
from musiq_hf.common.files import write_text
from musiq_hf.common.markdown import markdown_table, put_into
from musiq_hf.pictures import find_pictures, open_picture, shrink_shorter_side, to_rgb_tensor
from musiq_hf.scoring import QualityReward, load_quality, score_pixels

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
import torch
from transformers.utils import logging

DOCUMENT = Path(__file__).parents[2] / "docs" / "rewards.md"
PLACE = "measure_rewards"  # comments in the document that enclose the table
STEP = 0.5 / 255
HEADS = ("climbed reward", "that reward", "default checkpoint", "smaller checkpoint", "PSNR, dB", "SSIM")


def compute_reward(reward: QualityReward, pixels: torch.Tensor) -> torch.Tensor:
    """Compute what a reward answers, but not clipped and with a gradient, for pixels (3, height, width)."""
    views = [
        pixels[:, top:bottom, left:right] for top, left, bottom, right in reward.choose_views(pixels.permute(1, 2, 0))
    ]
    places = []
    for model, processor in reward.loaded:
        low, high = model.config.answer_range
        places += [(score_pixels(model, processor, view[None])[0] - low) / (high - low) for view in views]
    return torch.stack(places).mean()


def climb(reward: QualityReward, pixels: torch.Tensor, steps: int) -> torch.Tensor:
    """Climb a reward from pixels (3, height, width), and return those after the last step as 8 bits hold them."""
    current = pixels
    for _ in range(steps):
        current = current.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(compute_reward(reward, current), current)
        length = gradient.square().mean().sqrt().clamp(min=torch.finfo(gradient.dtype).tiny)
        current = (current.detach() + STEP * gradient / length).clamp(0, 1)
    return (current * 255).round() / 255


def add_noise(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Add noise to pixels, as large as the difference to others."""
    size = (after - before).square().mean().sqrt()
    noise = torch.randn(before.shape, generator=torch.Generator().manual_seed(0))
    return ((before + size * noise).clamp(0, 1) * 255).round() / 255


def measure(rewards: dict[str, QualityReward], pixels: list[torch.Tensor], steps: int) -> list[list[Any]]:
    """Measure all rewards on all pictures, and return the rows of the table: differences as means over pictures."""
    first = next(iter(rewards.values()))

    @torch.inference_mode()
    def compare(reward: QualityReward, before: torch.Tensor, after: torch.Tensor) -> list[float]:
        gains = [100 * (reward([after])[0] - reward([before])[0])]
        for model, processor in rewards["both"].loaded:
            old, new = (score_pixels(model, processor, picture[None]).item() for picture in (before, after))
            gains.append(new - old)  # not clipped, unlike the reward
        arrays = [(picture * 255).round().to(torch.uint8).permute(1, 2, 0).numpy() for picture in (before, after)]
        return [*gains, psnr(*arrays), ssim(*arrays)]

    rows = []
    noise: list[list[float]] = []
    for name, reward in rewards.items():
        found = []
        for before in pixels:
            after = climb(reward, before, steps)
            found.append(compare(reward, before, after))
            if reward is first:
                noise.append(compare(reward, before, add_noise(before, after)))
            print(name, *(f"{value:.2f}" for value in found[-1]), file=sys.stderr, flush=True)
        rows.append(render_row(name, found))
    return [*rows, render_row("none: noise of the same size as in the first row", noise)]


def render_row(name: str, found: list[list[float]]) -> list[Any]:
    """Render the means of a row."""
    gains: list[str] = []
    fidelity: list[str] = []
    for index, values in enumerate(zip(*found, strict=True)):
        mean = statistics.mean(values)
        (gains if index < 3 else fidelity).append(
            f"{mean:+.1f}" if index < 3 else f"{mean:.{1 if index == 3 else 3}f}"
        )
    return [name, *gains, *fidelity]


def run(arguments: argparse.Namespace) -> None:
    """Load, climb, and print the table or write it into the document."""
    logging.disable_progress_bar()
    default, smaller = (load_quality(str(path)) for path in (DEFAULT_CHECKPOINT, TINY_CHECKPOINT))
    for model, _ in (default, smaller):
        model.requires_grad_(False)
    rewards = {
        "default": QualityReward(default),
        "both": QualityReward([default, smaller]),
        "default, 4 views": QualityReward(default, views=4),
        "both, 4 views": QualityReward([default, smaller], views=4),
    }
    files = [file for path in arguments.paths for file in (find_pictures(path) if path.is_dir() else [path])]
    pixels = [
        to_rgb_tensor(shrink_shorter_side(open_picture(file), arguments.shorter_side)).permute(2, 0, 1).contiguous()
        for file in files
    ]
    table = markdown_table(HEADS, measure(rewards, pixels, arguments.steps))
    if not arguments.update_document:
        print(table)
        return
    write_text(DOCUMENT, put_into(DOCUMENT.read_text(encoding="utf-8"), PLACE, table))


def main() -> int:
    """Measure; return 2 for a mistake in the arguments or a picture."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("paths", nargs="+", type=Path, help="pictures, or folders of pictures")
    add("--shorter_side", type=positive, default=128, help="to which pictures are shrunk first, in pixels (128)")
    add("--steps", type=positive, default=16, help="of each climb (16)")
    add("--update_document", action="store_true", help=f"write the table into {DOCUMENT.name}")
    arguments = parse_arguments(parser)
    return run_command("measure_rewards", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main())
