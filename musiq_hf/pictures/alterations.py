# SPDX-License-Identifier: Apache-2.0
"""Alterations that common sense calls worse: watermarks, borders, empty corners and shuffled blocks.

All functions of `ALTERATIONS` take (picture, strength in (0, 1], seed). One seed gives one text, colour, direction and
order of blocks, so that two strengths differ in nothing else.
"""

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]
BLACK, WHITE, MIDDLE_GRAY = (0, 0, 0), (255, 255, 255), (128, 128, 128)
COLORS: tuple[Color, ...] = (BLACK, BLACK, BLACK, WHITE, WHITE, MIDDLE_GRAY, (200, 30, 30), (20, 60, 160))
BLOCKS = (32, 32, 32, 16, 24, 48, 64)  # sides in pixels; 32 is the side of a patch
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .-"
ANGLES = (0.0, 0.0, 30.0, -30.0)  # degrees


def add_watermark(
    image: Image.Image,
    text: str,
    *,
    height: float,
    opacity: float,
    color: Color = WHITE,
    angle: float = 0.0,
    place: tuple[float, float] = (0.5, 0.5),
) -> Image.Image:
    """Write a text over a picture in Pillow's own font.

    Args:
        image: RGB picture.
        text: Text, on one line or several.
        height: Size of the letters, as a part of the shorter side.
        opacity: Opacity of the letters, in (0, 1].
        color: Colour of the letters.
        angle: Angle by which the written layer is turned about the middle of the picture, in degrees.
        place: Middle of the text, as parts of width and height.
    """
    mask = Image.new("L", image.size)
    font = ImageFont.load_default(size=max(4.0, height * min(image.size)))
    middle = (place[0] * image.width, place[1] * image.height)
    ImageDraw.Draw(mask).text(middle, text, fill=round(255 * opacity), font=font, anchor="mm", align="center")
    marked = image.copy()
    marked.paste(color, (0, 0), mask.rotate(angle, resample=Image.Resampling.BILINEAR) if angle else mask)
    return marked


def add_border(image: Image.Image, width: int, *, color: Color = BLACK, has_sides: bool = True) -> Image.Image:
    """Cover the edges of a picture.

    Args:
        image: RGB picture.
        width: Width of the border, in pixels.
        color: Colour of the border.
        has_sides: Whether left and right are covered beside top and bottom.
    """
    framed = Image.new("RGB", image.size, color)
    left = width if has_sides else 0
    box = (left, width, max(left, image.width - left), max(width, image.height - width))
    framed.paste(image.crop(box), box[:2])
    return framed


def rotate(image: Image.Image, degrees: float, *, color: Color = BLACK) -> Image.Image:
    """Rotate a picture within its frame; the corners that become empty get a colour."""
    return image.rotate(degrees, resample=Image.Resampling.BICUBIC, fillcolor=color)


def shuffle_blocks(image: Image.Image, block: int, *, part: float = 1.0, seed: int) -> Image.Image:
    """Shuffle blocks of a picture; what is left over at the right and at the bottom stays.

    Args:
        image: RGB picture; one with fewer than two blocks stays as it is.
        block: Side of the blocks, in pixels.
        part: Part of the blocks that move, each to the place of another one; at least two move.
        seed: Seed of the order. A larger part moves the same blocks and more.
    """
    pixels = np.array(image)
    rows, columns = image.height // block, image.width // block
    if rows * columns < 2:
        return image.copy()
    inner = pixels[: rows * block, : columns * block].reshape(rows, block, columns, block, 3)
    blocks = inner.swapaxes(1, 2).reshape(rows * columns, block, block, 3)  # a copy, so that `inner` can be written
    order = np.random.default_rng(seed).permutation(len(blocks))[: max(2, round(part * len(blocks)))]
    blocks[order] = blocks[np.roll(order, 1)]
    # (rows * columns, block, block, 3) -> (rows, block, columns, block, 3)
    inner[:] = blocks.reshape(rows, columns, block, block, 3).swapaxes(1, 2)
    return Image.fromarray(pixels)


def _watermark(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Write a random text once or on five lines, larger and more opaque as the strength grows."""
    generator = np.random.default_rng(seed)
    word = "".join(LETTERS[index] for index in generator.integers(len(LETTERS), size=generator.integers(5, 15)))
    x, y = generator.uniform(0.25, 0.75, size=2).tolist()
    lines, color, angle = generator.integers((4, 2 * len(COLORS), len(ANGLES))).tolist()
    return add_watermark(
        image,
        word if lines else "\n".join([word] * 5),
        height=0.05 + 0.2 * strength,
        opacity=0.25 + 0.65 * strength,
        color=COLORS[color] if color < len(COLORS) else WHITE,
        angle=ANGLES[angle],
        place=(x, y),
    )


def _frame(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Cover 1 to 21 % of the shorter side at each edge, or at top and bottom alone."""
    width = max(1, round((0.01 + 0.2 * strength) * min(image.size)))
    return add_border(image, width, color=COLORS[seed % len(COLORS)], has_sides=seed % 5 > 0)


def _tilt(image: Image.Image, strength: float, seed: int) -> Image.Image:
    """Rotate by 1 to 20 degrees either way."""
    degrees = 1 + 19 * strength
    return rotate(image, degrees if seed % 2 else -degrees, color=COLORS[seed % len(COLORS)])


def _shuffle(image: Image.Image, strength: float, seed: int) -> Image.Image:
    return shuffle_blocks(image, BLOCKS[seed % len(BLOCKS)], part=strength, seed=seed)


ALTERATIONS: Mapping[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "shuffled": _shuffle,
    "tilted": _tilt,
    "border": _frame,
    "watermark": _watermark,
}
