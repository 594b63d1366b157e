# SPDX-License-Identifier: Apache-2.0
"""Analysis of feature maps: high frequencies in them, and classes of pictures that their averages tell apart.

The measure of frequencies is that of Park and Kim, "How do vision transformers work?", ICLR 2022, figure 2a, as in the
code xxxnell/how-do-vits-work. The authors of LoDa (Xu et al., CVPR 2024) compare Transformers by it.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..common.extras import require
from ..models import FAMILIES, family_of
from ..models.protocol import QualityModel, QualityProcessor
from ..scoring.engine import check_model, read_pixels

FLOOR = 1e-6  # added to an amplitude before its logarithm, as in the published code
ALL = "all"  # name of the average over all scales
MIN_POINTS, NEIGHBOURS = 10, 15  # of a map by UMAP: least number of points, and neighbours that each keeps
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
    mean = _average_log_amplitude(maps)
    shorter = min(mean.shape)
    frequencies = 2 * torch.arange(shorter // 2 + 1, dtype=torch.float64) / shorter
    rows, cols = ((frequencies * side / 2).round().long() for side in mean.shape)
    return frequencies, mean[rows, cols] - mean[0, 0]


def fourier_spectrum(maps: torch.Tensor) -> torch.Tensor:
    """Compute log amplitudes of the Fourier transform of maps, as a picture with frequency 0 in its middle.

    Args:
        maps: Real numbers, shape (..., height, width), sides >= 2; the leading axes are pictures and channels.

    Returns:
        Natural log amplitudes, averaged over all maps, float64 on the CPU, shape (height, width). Frequency 0 is at
        (height // 2, width // 2).

    Raises:
        ValueError: If the shape is wrong, there is no map, or a number is not finite.
    """
    return torch.fft.fftshift(_average_log_amplitude(maps))


def _average_log_amplitude(maps: torch.Tensor) -> torch.Tensor:
    if maps.dim() < 2 or min(maps.shape[-2:]) < 2 or not maps.numel() or maps.is_complex():
        raise ValueError(
            "Real maps of shape (..., height, width) with sides of at least 2 are needed, got "
            f"{tuple(maps.shape)} of {maps.dtype}."
        )
    if not maps.isfinite().all():
        raise ValueError("Maps must be finite, got NaN or infinity. Check the weights of the model.")
    amplitudes = torch.fft.fft2(maps.detach().cpu().double()).abs().add(FLOOR).log()
    return amplitudes.flatten(0, -3).mean(dim=0) if maps.dim() > 2 else amplitudes


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


@dataclass(frozen=True, kw_only=True)
class MapIndex:
    """Calinski-Harabasz index on maps of features, which depend on the seed.

    Attributes:
        mean: Mean over the seeds.
        low: Lowest index.
        high: Highest index.
    """

    mean: float
    low: float
    high: float


def pooled_features(
    model: QualityModel, processor: QualityProcessor, images: Iterable[Any]
) -> dict[str, list[np.ndarray]]:
    """Average the feature maps of pictures over all positions, so that each map gives one number per channel.

    Args:
        model: Model in evaluation mode, on its device.
        processor: Processor that agrees with the model.
        images: Pictures, at least one: paths, URLs, PIL images, arrays or tensors.

    Returns:
        Features of each network or scale by its name, as `collect_feature_maps` tells them, from the first map to the
        last: float64, shape (pictures, channels). Scales of one network have "all" as well, over the positions of all
        of them. MUSIQ's CLS token is in none.

    Raises:
        ValueError: If there is no picture, or one cannot be used. Also if the family of the model gives no maps, the
            model is training, or model and processor disagree.
    """
    collected: dict[str, list[list[np.ndarray]]] = defaultdict(list)
    for image in images:
        maps = {
            # (crops, channels, rows, columns) -> (channels, positions)
            name: [item.double().cpu().transpose(0, 1).flatten(1) for item in found]
            for name, found in collect_feature_maps(model, processor, image).items()
        }
        if len(maps) > 1 and len({tuple(len(item) for item in found) for found in maps.values()}) == 1:
            maps[ALL] = [torch.cat(scales, dim=1) for scales in zip(*maps.values(), strict=True)]
        for name, found in maps.items():
            collected[name].append([item.mean(dim=1).numpy() for item in found])
    if not collected:
        raise ValueError("At least one picture is needed, got none.")
    return {
        name: [np.stack(features) for features in zip(*pictures, strict=True)] for name, pictures in collected.items()
    }


def calinski_harabasz(features: np.ndarray, labels: Sequence[Any] | np.ndarray) -> float:
    """Compute the Calinski-Harabasz index: how far classes lie apart, relative to how far they spread.

    It is (sum over classes of n_c |m_c - m|^2 / (K - 1)) / (sum over classes of |x - m_c|^2 / (N - K)). Features
    without any classes have about 1. It grows with the number of pictures, so only ratios compare.

    Args:
        features: Features of N pictures, shape (N, D).
        labels: Class of each picture, N names or numbers, of which K differ.

    Returns:
        The index; infinite if every class is one point and they differ.

    Raises:
        ValueError: If shapes do not fit, a number is not finite, or not 2 <= K < N.
    """
    features, classes = np.asarray(features, dtype=np.float64), np.asarray(labels)
    if features.ndim != 2 or classes.shape != (len(features),):
        raise ValueError(
            f"Features of shape (N, D) and N labels are needed, got {features.shape} and {classes.shape}."
        )
    if not np.isfinite(features).all():
        raise ValueError("Features must be finite, got NaN or infinity. Check the weights of the model.")
    names = np.unique(classes)
    if not 2 <= len(names) < len(features):
        raise ValueError(
            f"At least 2 classes, and fewer than features, are needed, got {len(names)} of {len(features)} features."
        )
    between = within = 0.0
    for name in names:
        own = features[classes == name]
        between += len(own) * float(np.square(own.mean(axis=0) - features.mean(axis=0)).sum())
        within += float(np.square(own - own.mean(axis=0)).sum())
    between, within = between / (len(names) - 1), within / (len(features) - len(names))
    return between / within if within > 0 else math.inf if between > 0 else 0.0


def map_features(features: np.ndarray, *, seed: int = 0) -> np.ndarray:
    """Map features to a plane by UMAP, which keeps neighbours together.

    Args:
        features: Features of at least 10 pictures, shape (N, D).
        seed: Seed of the map; another one gives another map.

    Returns:
        Places, float32, shape (N, 2).

    Raises:
        ValueError: If there are fewer pictures.
        ImportError: If umap-learn is missing.
    """
    if len(features) < MIN_POINTS:
        raise ValueError(f"A map needs at least {MIN_POINTS} pictures, got {len(features)}.")
    umap = require("umap", extra="analysis")
    mapping = umap.UMAP(n_neighbors=min(NEIGHBOURS, len(features) - 1), random_state=seed, n_jobs=1)
    return np.asarray(mapping.fit_transform(features))


def measure_maps(features: np.ndarray, labels: Sequence[Any] | np.ndarray, *, num_seeds: int = 5) -> MapIndex:
    """Compute the Calinski-Harabasz index on maps with the seeds 0, 1, 2 and so on.

    Args:
        features: Features of at least 10 pictures, shape (N, D).
        labels: Class of each picture.
        num_seeds: Number of maps, at least 1.

    Raises:
        ValueError: If there are fewer pictures, or the index cannot be computed.
        ImportError: If umap-learn is missing.
    """
    found = [calinski_harabasz(map_features(features, seed=seed), labels) for seed in range(num_seeds)]
    return MapIndex(mean=float(np.mean(found)), low=min(found), high=max(found))
