# SPDX-License-Identifier: Apache-2.0
"""Pairs of copies of a picture, of which the better one is known without asking anyone.

They are a choice of ours; the paper has no such pairs. Random numbers come from torch's generator, so that a resumed
run repeats them.
"""

import torch
from PIL import Image, ImageOps

from .augmentations import WINDOW_MIN_SIDE, crop_window
from .degradations import DEGRADATIONS, apply_degradations

KINDS = tuple(DEGRADATIONS)
MIN_SHRINKAGE, MAX_CLEAN_SHRINKAGE = 0.4, 0.7
P_CLEAN, P_TWO_KINDS, P_SHRUNK = 0.5, 0.3, 0.5
MIN_GAP, MIN_CLEAN_GAP = 0.15, 0.05  # smallest difference between the two strengths of a pair


def shrink_at_random(image: Image.Image, *, largest: float) -> Image.Image:
    """Shrink a picture, which hides the faults of a photograph.

    Args:
        image: Picture of any size.
        largest: Largest size of the copy, as a part of the picture's size. The smallest is 0.4, or more where a side
            would fall below 160 pixels.
    """
    floor = min(1.0, max(MIN_SHRINKAGE, WINDOW_MIN_SIDE / min(image.size)))
    factor = floor + max(0.0, largest - floor) * float(torch.rand(()))
    size = (round(image.width * factor), round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def draw_strengths() -> tuple[dict[str, float], dict[str, float]]:
    """Draw one or two kinds of faults, and for each a lower (or no) and a higher strength.

    Where the lower strength is 0, weak faults are drawn more often than strong ones: they are the hardest to tell
    from no fault.
    """
    clean, two = (torch.rand(2) < torch.tensor([P_CLEAN, P_TWO_KINDS])).tolist()
    chosen = torch.randperm(len(KINDS))[: 1 + two].tolist()
    lower, higher = {}, {}
    for index in chosen:
        start, gap = torch.rand(2).tolist()
        low = 0.0 if clean else start * (1 - MIN_GAP)
        lower[KINDS[index]] = low
        higher[KINDS[index]] = (
            MIN_CLEAN_GAP + gap**2 * (1 - MIN_CLEAN_GAP) if clean else low + MIN_GAP + gap * (1 - MIN_GAP - low)
        )
    return lower, higher


def make_fault_pair(image: Image.Image) -> tuple[list[Image.Image], list[list[float]]]:
    """Make two copies of a random window of a picture, with weaker and with stronger faults.

    Where one copy has no faults, the picture is shrunk to at most 0.7 times its size first. Most photographs have been
    compressed before, so the "clean" copy of a pair could be the worse one otherwise.

    Args:
        image: RGB picture.

    Returns:
        The two copies, the better one first, and the strength of each of `KINDS` in them; 0 stands for no fault.
    """
    both = draw_strengths()
    if not any(both[0].values()):
        image = shrink_at_random(image, largest=MAX_CLEAN_SHRINKAGE)
    elif torch.rand(()) < P_SHRUNK:
        image = shrink_at_random(image, largest=1.0)
    image = crop_window(image)
    if torch.rand(()) < 0.5:
        image = ImageOps.mirror(image)
    seed = int(torch.randint(2**31, ()))
    copies = [apply_degradations(image, strengths, seed=seed) for strengths in both]
    return copies, [[strengths.get(kind, 0.0) for kind in KINDS] for strengths in both]
