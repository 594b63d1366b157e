# SPDX-License-Identifier: Apache-2.0
"""Fourier analysis of feature maps: how much of high frequencies they hold, from the first block to the last.

The measure is that of Park and Kim, "How do vision transformers work?", ICLR 2022, figure 2a, as in the code
xxxnell/how-do-vits-work. The authors of LoDa (Xu et al., CVPR 2024) compare Transformers by it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from ..models import FAMILIES, family_of
from ..models.protocol import QualityModel, QualityProcessor
from ..scoring.engine import check_model, read_pixels

FLOOR = 1e-6  # added to an amplitude before its logarithm, as in the published code
Curve = tuple[torch.Tensor, torch.Tensor]  # frequencies and relative log amplitudes


def relative_log_amplitude(maps: torch.Tensor) -> Curve:
    """Compute log amplitudes of the Fourier transform of maps along its diagonal, relative to that at frequency 0.

    Log amplitudes are averaged over all maps, as in the published code. It labels its last frequency pi, although it
    leaves out that one where sides are even; here every frequency has its own value.

    Args:
        maps: Real numbers, shape (..., height, width), sides >= 2; the leading axes are pictures and channels.

    Returns:
        Frequencies of both axes in units of pi, ascending from 0, and natural log amplitudes less the one at 0. Both
        are float64 on the CPU, shape (min(height, width) // 2 + 1,). The last frequency is 1 where the shorter side
        is even. Along a longer side the nearest frequency that it has is taken.

    Raises:
        ValueError: If the shape is wrong, there is no map, or a number is not finite.
    """
    if maps.dim() < 2 or min(maps.shape[-2:]) < 2 or not maps.numel() or maps.is_complex():
        raise ValueError(
            "Real maps of shape (..., height, width) with sides of at least 2 are needed, got "
            f"{tuple(maps.shape)} of {maps.dtype}."
        )
    if not maps.isfinite().all():
        raise ValueError("Maps must be finite, got NaN or infinity. Check the weights of the model.")
    amplitudes = torch.fft.fft2(maps.detach().cpu().double()).abs().add(FLOOR).log()
    mean = amplitudes.flatten(0, -3).mean(dim=0) if maps.dim() > 2 else amplitudes
    shorter = min(mean.shape)
    frequencies = 2 * torch.arange(shorter // 2 + 1, dtype=torch.float64) / shorter
    rows, cols = ((frequencies * side / 2).round().long() for side in mean.shape)
    return frequencies, mean[rows, cols] - mean[0, 0]


@torch.no_grad()
def collect_feature_maps(
    model: QualityModel, processor: QualityProcessor, image: Any
) -> Mapping[str, Sequence[torch.Tensor]]:
    """Collect the feature maps of one picture, from the first block to the last.

    Args:
        model: Model in evaluation mode, on its device.
        processor: Processor that agrees with the model.
        image: One picture: path, URL, PIL image, array or tensor.

    Returns:
        Maps of each network or scale by its name, each of shape (crops, channels, rows, columns). LoDa has "vit", the
        patch tokens that enter each block and leave the last one, and "cnn", the maps of its stages. MUSIQ has such
        tokens for each scale that it reads.

    Raises:
        ValueError: If the family of the model gives no maps, the picture cannot be used, the model is training, or
            model and processor disagree.
    """
    family = family_of(model.config)
    if family.feature_maps is None:
        known = [name for name, other in FAMILIES.items() if other.feature_maps is not None]
        raise ValueError(f"A {family.name} model gives no feature maps. Give a checkpoint of {' or '.join(known)}.")
    check_model(model, processor)
    return family.feature_maps(model, processor, read_pixels(image, processor).to(model.device))


def _average(curves: Sequence[Curve]) -> Curve:
    """Average curves at the frequencies of the finest one; between its own frequencies a curve is a line."""
    frequencies = max((own for own, _ in curves), key=len)
    rows = [np.interp(frequencies, own, amplitudes) for own, amplitudes in curves]
    return frequencies, torch.from_numpy(np.mean(rows, axis=0))


def measure_log_amplitudes(
    model: QualityModel, processor: QualityProcessor, images: Iterable[Any]
) -> dict[str, list[Curve]]:
    """Measure the relative log amplitudes of all feature maps of a model, as the mean over pictures.

    Args:
        model: Model in evaluation mode, on its device.
        processor: Processor that agrees with the model.
        images: Pictures, at least one: paths, URLs, PIL images, arrays or tensors.

    Returns:
        Curves of each network or scale by its name, from the first map to the last. `collect_feature_maps` tells the
        names, and `relative_log_amplitude` what a curve is. Where pictures have maps of different sizes, the curves
        are interpolated to the frequencies of the largest.

    Raises:
        ValueError: If there is no picture, or one cannot be used or has too few patches. Also if the family of the
            model gives no maps, the model is training, or model and processor disagree.
    """
    collected: dict[str, list[list[Curve]]] = defaultdict(list)
    for index, image in enumerate(images):
        for name, maps in collect_feature_maps(model, processor, image).items():
            try:
                collected[name].append([relative_log_amplitude(item) for item in maps])
            except ValueError as error:
                raise ValueError(f"Picture {index}, {name}: {error}") from error
    if not collected:
        raise ValueError("At least one picture is needed, got none.")
    return {name: [_average(curves) for curves in zip(*pictures, strict=True)] for name, pictures in collected.items()}
