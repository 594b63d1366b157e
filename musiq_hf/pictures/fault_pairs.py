# SPDX-License-Identifier: Apache-2.0
"""Pairs of copies of a picture, of which the better one is known without asking anyone.

They are a choice of ours; the paper has no such pairs. Five rules say which copy is the better one:

- Of two strengths of one fault, or of two faults, the weaker is better if they differ by at least `MIN_GAP`.
- No fault is better than a fault that is at least as strong as `LEAST` says. Below, it can hardly be seen, or is a
  matter of taste, as a little more light is.
- A weak fault is better than a strong one of another kind, among those in `DESTROYING`.
- A picture is better than its copy with the same or stronger faults that is enlarged 2 to 4 times.
- The pristine copy of a weak fault comes from a picture that was shrunk by 2 or more. Most photographs have been
  compressed before, and only shrinking removes the blocks.

Random numbers come from torch's generator, so that a resumed run repeats them.
"""

from collections.abc import Collection, Mapping

import torch
from PIL import Image, ImageOps

from .augmentations import MAX_SIDE, WINDOW_MIN_SIDE, crop_window
from .degradations import DEGRADATIONS, apply_degradations

KINDS = tuple(DEGRADATIONS)
MIN_SHRINKAGE, MAX_CLEAN_SHRINKAGE = 0.4, 0.5
P_CLEAN, P_TWO_KINDS, P_SHRUNK, P_ACROSS, P_ENLARGED = 0.5, 0.3, 0.5, 0.1, 0.05
MIN_ENLARGEMENT, MAX_ENLARGEMENT = 2.0, 4.0  # below, the score may stay: see `resize_mildly`
ENLARGERS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
MIN_GAP = 0.15  # smallest difference between the two strengths of a pair
# Smallest strength that ranks below no fault: noise of sigma 5, JPEG of quality 94, more than a stop of exposure, ...
LEAST = dict.fromkeys(KINDS, 0.05) | {"noise": 0.13, "jpeg": 0.003, "double_jpeg": 0.02, "banding": 0.15}
LEAST |= {"exposure": 0.4, "contrast": 0.3, "color_cast": 0.3, "chroma": 0.4, "ringing": 0.1, "jpeg2000": 0.15}
LEAST |= {"shuffled": 0.1}
# How often a kind is drawn, relative to the others; 1 if it is not named. JPEG 2000 takes ten times as long as JPEG.
WEIGHTS = dict.fromkeys(KINDS, 1.0) | {"jpeg": 3.0, "blur": 1.5, "noise": 1.5, "shuffled": 1.5, "watermark": 1.5}
WEIGHTS |= {"jpeg2000": 0.25}
# Kinds that cost detail, and at full strength more than a weak fault of any of them.
DESTROYING = {
    "blur",
    "motion_blur",
    "resampling",
    "noise",
    "banding",
    "ringing",
    "jpeg",
    "double_jpeg",
    "webp",
    "avif",
}
WEAK, STRONG = 0.2, 0.8  # the strengths of two kinds that are compared with each other
HIDING = 0.4  # strength from which a fault is worse than the faults that a photograph may have


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


def _draw_kinds(count: int, *, among: Collection[str] = KINDS) -> list[str]:
    names = [kind for kind in KINDS if kind in among]
    drawn = torch.multinomial(torch.tensor([WEIGHTS[name] for name in names]), count)
    return [names[index] for index in drawn.tolist()]


def _draw_across() -> tuple[dict[str, float], dict[str, float]]:
    """Draw a weak fault, and a strong one of another kind."""
    first, second = _draw_kinds(2, among=DESTROYING)
    weak, strong = torch.rand(2).tolist()
    lower = {first: LEAST[first] + weak * (WEAK - LEAST[first]), second: 0.0}
    return lower, {first: 0.0, second: STRONG + strong * (1 - STRONG)}


def draw_strengths() -> tuple[dict[str, float], dict[str, float]]:
    """Draw one or two kinds of faults, and for each a lower (or no) and a higher strength.

    Where the lower strength is 0, weak faults are drawn more often than strong ones: they are the hardest to tell
    from no fault. Now and then the lower strength of one kind meets the higher one of another.
    """
    clean, two, across = (torch.rand(3) < torch.tensor([P_CLEAN, P_TWO_KINDS, P_ACROSS])).tolist()
    if across:
        return _draw_across()
    lower, higher = {}, {}
    for kind in _draw_kinds(1 + two):
        start, gap = torch.rand(2).tolist()
        lower[kind] = 0.0 if clean else start * (1 - MIN_GAP)
        least = LEAST[kind] if clean else max(lower[kind] + MIN_GAP, LEAST[kind])
        higher[kind] = least + (gap**2 if clean else gap) * (1 - least)
    return lower, higher


def _shrink_source(image: Image.Image, lower: Mapping[str, float], higher: Mapping[str, float]) -> Image.Image:
    """Shrink the picture that a pair is made from, so that it has no faults of its own that would hide the drawn."""
    if not any(lower.values()) and max(higher.values()) < HIDING:
        return shrink_at_random(image, largest=MAX_CLEAN_SHRINKAGE)
    return shrink_at_random(image, largest=1.0) if torch.rand(()) < P_SHRUNK else image


def _enlarge(image: Image.Image) -> Image.Image:
    """Enlarge a picture 2 to 4 times, up to 2,048 pixels, with a random interpolation."""
    part, method = float(torch.rand(())), ENLARGERS[int(torch.randint(len(ENLARGERS), ()))]
    factor = MIN_ENLARGEMENT * (MAX_ENLARGEMENT / MIN_ENLARGEMENT) ** part
    factor = min(factor, max(1.0, MAX_SIDE / max(image.size)))
    return image.resize((round(image.width * factor), round(image.height * factor)), method)


def make_fault_pair(image: Image.Image) -> tuple[list[Image.Image], list[list[float]]]:
    """Make two copies of a random window of a picture, with weaker and with stronger faults.

    Args:
        image: RGB picture.

    Returns:
        The two copies, the better one first, and the strength of each of `KINDS` in them; 0 stands for no fault.
    """
    both = draw_strengths()
    image = crop_window(_shrink_source(image, *both))
    if torch.rand(()) < 0.5:
        image = ImageOps.mirror(image)
    seed = int(torch.randint(2**31, ()))
    copies = [apply_degradations(image, strengths, seed=seed) for strengths in both]
    if torch.rand(()) < P_ENLARGED:
        copies[1] = _enlarge(copies[1])
    return copies, [[strengths.get(kind, 0.0) for kind in KINDS] for strengths in both]
