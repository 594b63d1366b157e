# SPDX-License-Identifier: Apache-2.0
"""Pictures made by a program: sharp shapes, stripes and cloud-like textures, without the faults of a camera."""

import math

import numpy as np
from PIL import Image, ImageDraw

OVERSAMPLING = 2  # shapes are drawn larger and shrunk, for smooth edges


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
