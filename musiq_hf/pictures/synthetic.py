# SPDX-License-Identifier: Apache-2.0
"""Pictures made by a program: shapes, stripes and textures without the faults of a camera, and odd ones."""

import math
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from PIL import Image, ImageDraw, ImageFont

OVERSAMPLING = 2  # shapes are drawn larger and shrunk, for smooth edges
ODD_SIDE = 512  # pixels
WORDS = "the light of a window falls on old stone while people walk by and talk about weather and bread".split()


def _draw_texture(generator: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw colour noise whose spectrum falls with a random power of the frequency, as in natural scenes (about 1)."""
    power = generator.uniform(0.8, 2.0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequency[0, 0] = 1.0
    noise = np.fft.rfft2(generator.standard_normal((3, height, width), dtype=np.float32)) / frequency**power
    noise[:, 0, 0] = 0
    texture = np.fft.irfft2(noise, s=(height, width))
    shared = texture[:1]  # channels of natural pictures are alike
    texture = shared + generator.uniform(0.1, 0.8) * (texture - shared)
    texture = texture / (texture.std() + 1e-6) * generator.uniform(20, 60)
    return texture.transpose(1, 2, 0) + generator.uniform(60, 200, size=3)


def _pick_color(generator: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = generator.integers(0, 256, size=3).tolist()
    return red, green, blue


def _draw_shapes(generator: np.random.Generator, image: Image.Image) -> None:
    draw = ImageDraw.Draw(image)
    for _ in range(int(generator.integers(4, 24))):
        x, y = generator.uniform(0, image.width), generator.uniform(0, image.height)
        radius = generator.uniform(0.03, 0.3) * min(image.size)
        kind = generator.integers(4)
        if kind == 0:
            draw.ellipse((x - radius, y - radius * 0.7, x + radius, y + radius * 0.7), fill=_pick_color(generator))
        elif kind == 1:
            angles = np.sort(generator.uniform(0, 2 * math.pi, size=int(generator.integers(3, 8))))
            corners = [(x + radius * math.cos(a), y + radius * math.sin(a)) for a in angles]
            draw.polygon(corners, fill=_pick_color(generator))
        elif kind == 2:
            color, period = _pick_color(generator), generator.uniform(4, 24)
            for step in range(int(radius / period)):
                left = x + 2 * step * period
                draw.rectangle((left, y - radius, left + period, y + radius), fill=color)
        else:
            draw.text(
                (x, y), "".join(chr(c) for c in generator.integers(48, 123, size=12)), fill=_pick_color(generator)
            )


def make_picture(*, seed: int, width: int = 512, height: int = 512) -> Image.Image:
    """Make a picture of shapes, stripes and textures.

    Args:
        seed: Seed of everything that is drawn; the same seed gives the same picture.
        width: Number of columns, in pixels.
        height: Number of rows, in pixels.

    Returns:
        RGB picture.
    """
    generator = np.random.default_rng(seed)
    large = (height * OVERSAMPLING, width * OVERSAMPLING)
    values = _draw_texture(generator, *large)
    image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    if generator.random() < 0.8:
        _draw_shapes(generator, image)
    return image.resize((width, height), Image.Resampling.BOX)


def _fill(color: tuple[int, int, int]) -> Image.Image:
    return Image.new("RGB", (ODD_SIDE, ODD_SIDE), color)


def _make_noise() -> Image.Image:
    """Make noise in which every level of every channel is as likely."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (ODD_SIDE, ODD_SIDE, 3), dtype=np.uint8))


def _write_lines(image: Image.Image, box: tuple[int, int, int, int], *, size: int, seed: int) -> None:
    """Write lines of words in black into a box (left, top, right, bottom)."""
    generator, draw = np.random.default_rng(seed), ImageDraw.Draw(image)
    font = ImageFont.load_default(size=size)
    left, top, right, bottom = box
    for y in range(top, bottom - size, round(1.5 * size)):
        line = ""
        while True:
            longer = f"{line}{WORDS[int(generator.integers(len(WORDS)))]} "
            if draw.textlength(longer, font=font) > right - left:
                break
            line = longer
        draw.text((left, y), line, fill=(20, 20, 20), font=font)


def _make_page() -> Image.Image:
    image = _fill((255, 255, 255))
    _write_lines(image, (40, 40, 472, 480), size=15, seed=1)
    return image


def _make_screenshot() -> Image.Image:
    """Draw a window with a title, buttons, a list and a text."""
    image = _fill((58, 110, 165))
    draw = ImageDraw.Draw(image)
    draw.rectangle((30, 30, 482, 482), fill=(240, 240, 240), outline=(90, 90, 90))
    draw.rectangle((30, 30, 482, 56), fill=(40, 60, 110))
    for index, color in enumerate(((200, 70, 60), (220, 180, 60), (80, 160, 80))):
        draw.rectangle((410 + 22 * index, 36, 426 + 22 * index, 50), fill=color)
    draw.text((40, 36), "Report - Editor", fill=(255, 255, 255), font=ImageFont.load_default(size=13))
    for index, label in enumerate(("Open", "Save", "Print", "Help")):
        draw.rounded_rectangle(
            (40 + 70 * index, 64, 100 + 70 * index, 86), 4, fill=(225, 225, 225), outline=(150,) * 3
        )
        draw.text((50 + 70 * index, 68), label, fill=(20, 20, 20), font=ImageFont.load_default(size=12))
    draw.rectangle((40, 96, 150, 472), fill=(255, 255, 255), outline=(170, 170, 170))
    draw.rectangle((160, 96, 472, 472), fill=(255, 255, 255), outline=(170, 170, 170))
    draw.rectangle((42, 120, 148, 138), fill=(170, 200, 240))
    _write_lines(image, (46, 102, 146, 470), size=12, seed=2)
    _write_lines(image, (168, 104, 466, 470), size=13, seed=3)
    return image


def _make_drawing() -> Image.Image:
    """Draw a house, a tree and a sun in flat colours with black outlines."""
    large = ODD_SIDE * OVERSAMPLING
    image = Image.new("RGB", (large, large), (150, 200, 245))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 700, large, large), fill=(110, 180, 90))
    draw.ellipse((760, 80, 940, 260), fill=(250, 215, 60), outline=(0, 0, 0), width=6)
    draw.rectangle((180, 480, 560, 820), fill=(230, 205, 165), outline=(0, 0, 0), width=8)
    draw.polygon(((130, 480), (370, 260), (610, 480)), fill=(190, 60, 50), outline=(0, 0, 0), width=8)
    draw.rectangle((330, 640, 430, 820), fill=(120, 80, 50), outline=(0, 0, 0), width=6)
    draw.rectangle((730, 560, 780, 840), fill=(120, 80, 50), outline=(0, 0, 0), width=6)
    draw.ellipse((640, 360, 870, 620), fill=(60, 140, 70), outline=(0, 0, 0), width=8)
    return image.resize((ODD_SIDE, ODD_SIDE), Image.Resampling.BOX)


# Labels and makers of pictures that are no photographs, by name; each is the same every time.
ODD_PICTURES: Mapping[str, tuple[str, Callable[[], Image.Image]]] = {
    "black": ("black", partial(_fill, (0, 0, 0))),
    "white": ("white", partial(_fill, (255, 255, 255))),
    "gray": ("middle gray", partial(_fill, (128, 128, 128))),
    "blue": ("blue", partial(_fill, (40, 90, 200))),
    "noise": ("uniform noise", _make_noise),
    "page": ("page of text", _make_page),
    "screenshot": ("screenshot", _make_screenshot),
    "drawing": ("drawing", _make_drawing),
}
