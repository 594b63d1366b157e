# SPDX-License-Identifier: Apache-2.0
"""Learned upscalers: checkpoints that are given, and small convolutional ones that are trained here in seconds.

The small ones differ in scale, width, kind of enlargement and target, so that a detector does not learn one of them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import AutoModelForImageToImage

from ..models import FAMILIES
from ..scoring.loading import read_config
from .enlarging import Upscaler, load_upscaler, upscale_picture

Upscale = Callable[[np.ndarray], np.ndarray]  # uint8 (n, n, 3) to uint8 (n * scale, n * scale, 3)
BLOCK = 8  # pixels: sides of sources are multiples, as models with windows ask for
PATCH = 24  # pixels of a source in training
BATCH = 16
SCALES = (2, 3, 4)  # of a model that enlarges by any scale


@dataclass(frozen=True, kw_only=True)
class LearnedUpscaler:
    """Upscaler by its name.

    Attributes:
        name: Name for tables.
        scale: Side of a result over that of its source, a whole number.
        upscale: Function that enlarges a picture.
    """

    name: str
    scale: int
    upscale: Upscale


@dataclass(frozen=True, kw_only=True)
class SmallSettings:
    """Settings of a small upscaler.

    Attributes:
        scale: Side of a result over that of its source.
        width: Channels.
        way: "shuffle" puts channels side by side (PixelShuffle); "repeat" repeats pixels and convolves them.
        is_residual: Whether a bicubic enlargement is added.
        sharpening: Factor of the details of the target above those of the photograph; adversarial training has a
            similar effect.
        with_edges: Whether differences of neighbours enter the loss.
    """

    scale: int
    width: int
    way: str = "shuffle"
    is_residual: bool = True
    sharpening: float = 0.0
    with_edges: bool = False

    @property
    def name(self) -> str:
        """Name for tables."""
        parts = [f"x{self.scale}", f"{self.width} channels", self.way]
        parts += ["residual"] * self.is_residual + ["edges"] * self.with_edges
        return ", ".join(parts + [f"sharpened {self.sharpening:g}"] * bool(self.sharpening))


SEEN_SMALL = (
    SmallSettings(scale=2, width=16),
    SmallSettings(scale=3, width=16),
    SmallSettings(scale=4, width=16),
    SmallSettings(scale=2, width=12, way="repeat", sharpening=0.6),
    SmallSettings(scale=2, width=24, is_residual=False, with_edges=True),
    SmallSettings(scale=4, width=16, way="repeat", sharpening=1.0, with_edges=True),
    SmallSettings(scale=3, width=12, way="repeat", is_residual=False),
    SmallSettings(scale=4, width=24, sharpening=0.8, with_edges=True),
)
UNSEEN_SMALL = (
    SmallSettings(scale=2, width=20, with_edges=True, sharpening=0.3),
    SmallSettings(scale=4, width=20, way="repeat", is_residual=False, sharpening=0.5),
)


class SmallUpscaler(nn.Module):
    """Convolutional upscaler of three or four layers."""

    def __init__(self, settings: SmallSettings):
        super().__init__()
        self.settings = settings
        width, scale = settings.width, settings.scale
        layers: list[nn.Module] = [nn.Conv2d(3, width, 5, padding=2), nn.PReLU()]
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.PReLU()]
        if settings.way == "shuffle":
            layers += [nn.Conv2d(width, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
        else:
            layers += [nn.Upsample(scale_factor=scale), nn.Conv2d(width, width, 3, padding=1), nn.PReLU()]
            layers += [nn.Conv2d(width, 3, 3, padding=1)]
        self.layers = nn.Sequential(*layers)

    def forward(self, sources: torch.Tensor) -> torch.Tensor:
        """Return pictures (b, 3, h * scale, w * scale) in [0, 1] of sources (b, 3, h, w)."""
        enlarged: torch.Tensor = self.layers(sources - 0.5)
        if self.settings.is_residual:
            return enlarged + F.interpolate(sources, scale_factor=self.settings.scale, mode="bicubic")
        return enlarged + 0.5


def _measure_loss(answers: torch.Tensor, targets: torch.Tensor, settings: SmallSettings) -> torch.Tensor:
    loss = F.l1_loss(answers, targets)
    if settings.with_edges:
        for axis in (-2, -1):
            loss = loss + F.l1_loss(answers.diff(dim=axis), targets.diff(dim=axis))
    return loss


def _run(model: nn.Module, pixels: np.ndarray) -> np.ndarray:
    """Enlarge uint8 pixels (n, n, 3) by a model."""
    with torch.inference_mode():
        answer = model(torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255)
    image = answer if isinstance(answer, torch.Tensor) else answer.reconstruction
    result: np.ndarray = (image[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return result


def train_small(settings: SmallSettings, photographs: torch.Tensor, *, steps: int, seed: int) -> LearnedUpscaler:
    """Train a small upscaler on photographs that are shrunk.

    Args:
        settings: Settings of the upscaler.
        photographs: Windows of photographs, float32 (number, 3, side, side) in [0, 1], with sides of 96 or more.
        steps: Steps of training.
        seed: Seed of the weights and of the windows.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = SmallUpscaler(settings)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    side = PATCH * settings.scale
    for _ in range(steps):
        chosen = photographs[torch.randint(len(photographs), (BATCH,), generator=generator)]
        top, left = torch.randint(photographs.shape[-1] - side + 1, (2,), generator=generator).tolist()
        targets = chosen[..., top : top + side, left : left + side]
        sources = F.interpolate(targets, size=(PATCH, PATCH), mode="bicubic", antialias=True).clamp(0, 1)
        if settings.sharpening:
            blurred = F.avg_pool2d(targets, 3, stride=1, padding=1, count_include_pad=False)
            targets = (targets + settings.sharpening * (targets - blurred)).clamp(0, 1)
        optimizer.zero_grad()
        _measure_loss(model(sources), targets, settings).backward()
        optimizer.step()
        schedule.step()
    return LearnedUpscaler(name=settings.name, scale=settings.scale, upscale=partial(_run, model.eval()))


def train_all(
    settings: Sequence[SmallSettings], photographs: torch.Tensor, *, steps: int, seed: int
) -> list[LearnedUpscaler]:
    """Train small upscalers, each with a seed of its own; see `train_small`."""
    return [
        train_small(own, photographs, steps=steps, seed=seed + number) for number, own in enumerate(settings, start=1)
    ]


def _run_at(upscaler: Upscaler, scale: int, pixels: np.ndarray) -> np.ndarray:
    """Enlarge uint8 pixels (n, n, 3) by a model that takes any scale."""
    return np.asarray(upscale_picture(Image.fromarray(pixels), scale=scale, model=upscaler))


def load_learned(name: str) -> list[LearnedUpscaler]:
    """Load an upscaler of Transformers (`AutoModelForImageToImage`).

    Args:
        name: Folder, id on the Hub, or name of an embedded checkpoint.

    Returns:
        The upscaler; one that takes any scale comes with 2, 3 and 4.

    Raises:
        ValueError: If there is no such checkpoint, or it does not enlarge pictures by one whole number, nor by any
            scale.
        OSError: If its weights cannot be read.
    """
    if read_config(name).get("model_type") in FAMILIES:
        upscaler = load_upscaler(name)
        return [_name_learned(name, scale, partial(_run_at, upscaler, scale)) for scale in SCALES]
    model: Any = AutoModelForImageToImage.from_pretrained(name).eval()
    side = 4 * BLOCK
    result = _run(model, np.zeros((side, side, 3), dtype=np.uint8))
    scale, rest = divmod(len(result), side)
    if scale < 2 or rest or result.shape[:2] != (scale * side, scale * side):
        raise ValueError(
            f"{name} must enlarge pictures by a whole number from 2 on, but {side} x {side} pixels became "
            f"{result.shape[1]} x {result.shape[0]}. Give another upscaler."
        )
    return [_name_learned(name, scale, partial(_run, model))]


def _name_learned(name: str, scale: int, upscale: Upscale) -> LearnedUpscaler:
    return LearnedUpscaler(name=f"{name}, x{scale}", scale=scale, upscale=upscale)
