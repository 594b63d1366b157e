# SPDX-License-Identifier: Apache-2.0
"""Random crops and pairs of views for training, and RandAugment for pre-training on classes (section 3.5).

The paper names crops of varying size and RandAugment, but gives no strengths. All random numbers come from torch's
generator, so that a resumed run repeats them.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from PIL import Image, ImageEnhance, ImageOps

from .degradations import add_noise

# Limits of the windows that `crop_window` cuts.
WINDOW_MIN_SIDE, WINDOW_MAX_SIDE = 160, 512  # pixels
WINDOW_MAX_ASPECT = 2.0
# Inception's 3:4 to 4:3 are aspects before a square resize. Nothing is resized here, so they are changes of the
# picture's own aspect, and the whole picture is the largest crop.
MAX_ASPECT_CHANGE = 4 / 3
# Largest differences between two views of a picture whose scores should be equal.
MAX_SHIFT = 16  # pixels
MAX_SIZE_CHANGE = 1.1
MAX_FAINT_NOISE = 3.0  # levels of 255, hardly visible
P_DIFFERENCES = (0.5, 0.5, 0.5, 0.25, 0.5)  # mirrored, shifted, resized, noisy; and the order of the two
# Sizes of training pictures; within a mild factor a picture keeps its score.
MILD_FACTOR = 1.4
MIN_SIDE, MAX_SIDE = 256, 2048  # pixels
P_MOSAIC = 0.5
GRIDS, GRID_WEIGHTS = (2, 3, 4), (0.7, 0.2, 0.1)  # pictures along each side of a mosaic
MAX_MAGNITUDE = 30.0
MID_GRAY = (128, 128, 128)  # fills the corners that a rotation lays bare; patches are padded with it too

# Full ranges of AutoAugment, reached at `MAX_MAGNITUDE`.
MAX_ROTATION = 30.0  # degrees
MAX_SHEAR = 0.3
MAX_TRANSLATION = 0.45  # part of the side: 100 pixels of 224
MAX_ENHANCEMENT = 0.9
MAX_LOST_BITS = 4


def draw_crop_size(sizes: Sequence[tuple[int, int]], *, min_area: float) -> tuple[int, int]:
    """Draw one crop size that fits into all given pictures.

    The area is uniform between `min_area` and all of the largest common rectangle. The aspect is log-uniform between
    3:4 and 4:3 times that of the rectangle. A side that would be too long is cut, which makes crops of full height or
    width frequent.

    Args:
        sizes: Pairs (width, height) of the pictures, in pixels.
        min_area: Smallest part of the common rectangle, in (0, 1].

    Returns:
        (width, height), in pixels, each at least 1.
    """
    area, change = torch.rand(2).tolist()
    area = min_area + (1 - min_area) * area
    ratio = MAX_ASPECT_CHANGE ** (2 * change - 1)
    width, height = (min(sides) for sides in zip(*sizes, strict=True))
    return (
        min(max(round(width * math.sqrt(area * ratio)), 1), width),
        min(max(round(height * math.sqrt(area / ratio)), 1), height),
    )


def crop_at_random(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Cut a window of `size` (width, height) pixels at a random place; the window must fit into the picture."""
    left, top = (int(torch.randint(whole - part + 1, ())) for whole, part in zip(image.size, size, strict=True))
    return image.crop((left, top, left + size[0], top + size[1]))


def crop_window(image: Image.Image) -> Image.Image:
    """Cut a random window, 160..512 pixels a side, aspect 1:2..2:1, or as much of that as the picture has."""
    size, aspect, left, top = torch.rand(4).tolist()
    area_side = WINDOW_MIN_SIDE + (WINDOW_MAX_SIDE - WINDOW_MIN_SIDE) * size
    ratio = WINDOW_MAX_ASPECT ** (aspect - 0.5)  # ratio of each side to that of a square of the same area
    limits = [min(WINDOW_MAX_SIDE, side) for side in image.size]
    width, height = (
        min(max(round(side), WINDOW_MIN_SIDE), limit)
        for side, limit in zip((area_side * ratio, area_side / ratio), limits, strict=True)
    )
    x, y = int(left * (image.width - width + 1)), int(top * (image.height - height + 1))
    return image.crop((x, y, x + width, y + height))


def crop_fraction(image: Image.Image, *, min_fraction: float) -> Image.Image:
    """Cut a random window; each of its sides is between `min_fraction` and all of the picture's side."""
    fractions = min_fraction + (1 - min_fraction) * torch.rand(2)
    width, height = (max(1, round(float(f) * side)) for f, side in zip(fractions, image.size, strict=True))
    return crop_at_random(image, (width, height))


def make_view_pair(image: Image.Image) -> list[Image.Image]:
    """Make two views of a picture that look alike, so that their scores should be equal.

    Each of four differences is there or not; noise, which takes longest, has the probability 1/4, the others 1/2.

    - one view is mirrored, which also happens if none is drawn;
    - the views are windows of one size, shifted by up to 16 pixels along each side;
    - one view is up to a tenth larger or smaller;
    - one view has noise of 1 to 3 levels of 255.

    Args:
        image: RGB picture.

    Returns:
        The two views; which of them is changed, and where the windows lie, is random.
    """
    mirrored, shifted, resized, noisy, swapped = (torch.rand(5) < torch.tensor(P_DIFFERENCES)).tolist()
    first, second = _cut_shifted(image) if shifted else (image, image)
    if mirrored or not (shifted or resized or noisy):
        second = ImageOps.mirror(second)
    if resized:
        factor = MAX_SIZE_CHANGE ** (2 * float(torch.rand(())) - 1)
        second = resize_by(second, factor)
    if noisy:
        sigma = 1 + (MAX_FAINT_NOISE - 1) * float(torch.rand(()))
        second = add_noise(second, sigma, seed=int(torch.randint(2**31, ())))
    return [second, first] if swapped else [first, second]


def _cut_shifted(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """Cut two windows of one size, shifted by up to 16 pixels along each side."""
    across, down = (int(torch.randint(min(MAX_SHIFT, side - 1) + 1, ())) for side in image.size)
    size = (image.width - across, image.height - down)
    left, top = (torch.rand(2) < 0.5).tolist()
    first, second = (across * left, down * top), (across * (not left), down * (not top))
    cut = [image.crop((x, y, x + size[0], y + size[1])) for x, y in (first, second)]
    return cut[0], cut[1]


def resize_by(image: Image.Image, factor: float) -> Image.Image:
    """Shrink or enlarge a picture by a factor, with an antialiased bicubic filter, which is faster than Lanczos."""
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def resize_mildly(image: Image.Image) -> Image.Image:
    """Shrink or enlarge a picture at random by up to 1.4, which is taken to leave its score as it is.

    A stronger shrinkage hides faults, and a stronger enlargement adds blur. The shorter side stays at or above 256
    pixels and the longer one at or below 2,048, unless the picture lies outside of that itself.
    """
    factor = MILD_FACTOR ** (2 * float(torch.rand(())) - 1)
    lowest, highest = min(1.0, MIN_SIDE / min(image.size)), max(1.0, MAX_SIDE / max(image.size))
    return resize_by(image, min(max(factor, lowest), highest))


def draw_others(count: int) -> list[int]:
    """Draw the pictures that a picture shares a mosaic with: 3, 8 or 15 of the batch, or none for no mosaic.

    Args:
        count: Number of pictures in the batch. Pictures are drawn with replacement, so that any number will do.

    Returns:
        Indices of the pictures.
    """
    if torch.rand(()) >= P_MOSAIC:
        return []
    grid = GRIDS[int(torch.multinomial(torch.tensor(GRID_WEIGHTS), 1))]
    return torch.randint(count, (grid**2 - 1,)).tolist()


def make_mosaic(images: Sequence[Image.Image]) -> Image.Image:
    """Put random windows of 4, 9 or 16 pictures side by side, at their own resolution.

    Args:
        images: RGB pictures. The windows are as large as fits into all of them, and into a mosaic of 2,048 pixels.

    Returns:
        RGB picture of two to four windows along each side.
    """
    grid = math.isqrt(len(images))
    width, height = (min(*sides, MAX_SIDE // grid) for sides in zip(*(image.size for image in images), strict=True))
    mosaic = Image.new("RGB", (grid * width, grid * height))
    for index, image in enumerate(images):
        mosaic.paste(crop_at_random(image, (width, height)), (index % grid * width, index // grid * height))
    return mosaic


def _warp(image: Image.Image, rows: tuple[float, float, float, float, float, float]) -> Image.Image:
    return image.transform(
        image.size, Image.Transform.AFFINE, rows, resample=Image.Resampling.BILINEAR, fillcolor=MID_GRAY
    )


def _shear_x(image: Image.Image, strength: float) -> Image.Image:
    shear = MAX_SHEAR * strength
    return _warp(image, (1, shear, -shear * image.height / 2, 0, 1, 0))  # the middle row stays


def _shear_y(image: Image.Image, strength: float) -> Image.Image:
    shear = MAX_SHEAR * strength
    return _warp(image, (1, 0, 0, shear, 1, -shear * image.width / 2))


def _posterize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.posterize(image, 8 - round(MAX_LOST_BITS * abs(strength)))


def _solarize(image: Image.Image, strength: float) -> Image.Image:
    return ImageOps.solarize(image, round(256 * (1 - abs(strength))))


# Operations by name. A strength lies in [-1, 1], and 0 changes nothing; `auto_contrast` and `equalize` ignore it.
OPERATIONS: Mapping[str, Callable[[Image.Image, float], Image.Image]] = {
    "identity": lambda image, strength: image,
    "auto_contrast": lambda image, strength: ImageOps.autocontrast(image),
    "equalize": lambda image, strength: ImageOps.equalize(image),
    "rotate": lambda image, strength: image.rotate(
        MAX_ROTATION * strength, resample=Image.Resampling.BILINEAR, fillcolor=MID_GRAY
    ),
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": lambda image, strength: _warp(image, (1, 0, MAX_TRANSLATION * strength * image.width, 0, 1, 0)),
    "translate_y": lambda image, strength: _warp(image, (1, 0, 0, 0, 1, MAX_TRANSLATION * strength * image.height)),
    "brightness": lambda image, strength: ImageEnhance.Brightness(image).enhance(1 + MAX_ENHANCEMENT * strength),
    "color": lambda image, strength: ImageEnhance.Color(image).enhance(1 + MAX_ENHANCEMENT * strength),
    "contrast": lambda image, strength: ImageEnhance.Contrast(image).enhance(1 + MAX_ENHANCEMENT * strength),
    "sharpness": lambda image, strength: ImageEnhance.Sharpness(image).enhance(1 + MAX_ENHANCEMENT * strength),
    "posterize": _posterize,
    "solarize": _solarize,
}


def check_rand_augment(*, num_operations: int, magnitude: float) -> None:
    """Raise a ValueError for settings that `rand_augment` does not have."""
    if num_operations < 0:
        raise ValueError(f"`num_operations` must be at least 0 (no RandAugment), got {num_operations}.")
    if not 0 <= magnitude <= MAX_MAGNITUDE:
        raise ValueError(f"`magnitude` must lie in [0, {MAX_MAGNITUDE:g}], got {magnitude}.")


def rand_augment(image: Image.Image, *, num_operations: int, magnitude: float) -> Image.Image:
    """Apply RandAugment (Cubuk et al., 2020): operations drawn from fourteen, one after the other.

    All have the same magnitude. The direction of a rotation, shear, translation or enhancement is drawn too.
    Posterising and solarising grow with the magnitude as the others do, where the first published code weakened them.

    Args:
        image: RGB picture of any size. Translations are parts of its sides, so that small crops are not emptied.
        num_operations: Number N of operations, >= 0, drawn with replacement.
        magnitude: Magnitude M in [0, 30]; 30 is AutoAugment's full range, which the authors' code writes as 10.

    Returns:
        RGB picture of the same size.

    Raises:
        ValueError: If a setting lies outside its range.
    """
    check_rand_augment(num_operations=num_operations, magnitude=magnitude)
    names = tuple(OPERATIONS)
    strength = magnitude / MAX_MAGNITUDE
    for index in torch.randint(len(names), (num_operations,)).tolist():
        sign = 1 if torch.rand(()) < 0.5 else -1
        image = OPERATIONS[names[index]](image, sign * strength)
    return image
