# SPDX-License-Identifier: Apache-2.0
"""Models, sequences and pictures to measure with, all made from seeds."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from musiq_hf import MusiqConfig, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.models.musiq.patching_musiq import hash_positions, patch_grids
from musiq_hf.pictures import make_picture
from musiq_hf.scoring import score_pictures

Features = dict[str, torch.Tensor]
Size = tuple[int, int]  # width and height, in pixels


def make_model(
    config: MusiqConfig, *, seed: int = 0, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> MusiqForImageQualityAssessment:
    """Make a model with random weights, in evaluation mode.

    The parts that training starts at zero are random too, or every score would be the head's bias.
    """
    torch.manual_seed(seed)
    model = MusiqForImageQualityAssessment(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm3.weight"):
                parameter.fill_(1.0)
            elif name == "head.classifier.weight" or name.endswith("cls_token"):
                parameter.normal_(std=0.05)
    return in_type(model, dtype).to(device).eval()


def in_type(model: MusiqForImageQualityAssessment, dtype: torch.dtype) -> MusiqForImageQualityAssessment:
    """Convert a model, in place, as `from_pretrained(dtype=...)` does: stem and head stay in float32."""
    for name, parameter in model.named_parameters():
        if not set(name.split(".")) & model._keep_in_fp32_modules_strict:
            parameter.data = parameter.data.to(dtype)
    return model


def _compute_grids(config: MusiqConfig, width: int, height: int) -> list[tuple[int, int]]:
    return patch_grids(
        height,
        width,
        patch_size=config.patch_size,
        longer_side_lengths=tuple(config.longer_side_lengths),
        use_native_resolution=config.use_native_resolution,
    )


def num_tokens(config: MusiqConfig, width: int, height: int) -> int:
    """Return the number of patches of all scales of a picture, without CLS and without padding."""
    return sum(rows * columns for rows, columns in _compute_grids(config, width, height))


def make_features(config: MusiqConfig, width: int, height: int, *, seed: int = 0) -> Features:
    """Make the sequence of a picture of random pixels, as the processor returns it: a batch of one.

    Args:
        config: Configuration of the model; positions are those of the hash-based embedding.
        width: Columns of the picture, in pixels.
        height: Rows of the picture, in pixels.
        seed: Seed of the pixels.

    Returns:
        The four tensors of the processor.
    """
    grids = _compute_grids(config, width, height)
    count = sum(rows * columns for rows, columns in grids)
    generator = torch.Generator().manual_seed(seed)
    patches = torch.rand((1, count, config.patch_size**2 * 3), generator=generator)
    scales = [torch.full((rows * columns,), scale) for scale, (rows, columns) in enumerate(grids)]
    positions = [hash_positions(rows, columns, config.hash_grid_size) for rows, columns in grids]
    return {
        "pixel_values": patches.mul_(2).sub_(1),
        "pixel_attention_mask": torch.ones((1, count), dtype=torch.int64),
        "spatial_position_ids": torch.cat(positions)[None],
        "scale_position_ids": torch.cat(scales)[None],
    }


def pad_features(features: Sequence[Features]) -> Features:
    """Batch several sequences, with zeros at the end, as the processor does."""
    batch = {}
    for name in features[0]:
        rows = [row for feature in features for row in feature[name]]
        batch[name] = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return batch


def to_device(features: Features, device: str) -> Features:
    """Move the tensors of a feature to a device."""
    return {name: values.to(device) for name, values in features.items()}


def mixed_sizes(count: int, *, smallest: int, largest: int, seed: int = 0) -> list[Size]:
    """Draw sizes whose longer sides are evenly spread from `smallest` to `largest` pixels, in aspects 1:2 to 2:1."""
    generator = np.random.default_rng(seed)
    sizes = []
    for longer in np.linspace(smallest, largest, count).round().astype(int).tolist():
        shorter = max(smallest // 2, round(longer / float(generator.uniform(1, 2))))
        sizes.append((longer, shorter) if generator.random() < 0.5 else (shorter, longer))
    return [sizes[index] for index in generator.permutation(count)]


def make_array(width: int, height: int, *, seed: int = 0) -> np.ndarray[Any, Any]:
    """Make a smooth picture with noise, quickly; strengths differ with the seed, so that scores differ.

    Returns:
        uint8, shape (height, width, 3).
    """
    generator = np.random.default_rng(seed)
    cells = tuple(max(2, side // int(generator.integers(8, 64))) for side in (height, width))
    coarse = Image.fromarray(generator.integers(0, 256, (*cells, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    strength = int(generator.integers(1, 40))
    noise = generator.integers(-strength, strength + 1, smooth.shape, dtype=np.int16)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


def score_all(
    pictures: Iterable[Any], *, model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor
) -> list[float]:
    """Score pictures by the streaming scorer, end to end.

    Raises:
        ValueError: If a picture gets no score, because the time would then not be that of scoring.
    """
    rows = list(score_pictures(pictures, model=model, processor=processor))
    failed = [f"{row.key}: {row.error}" for row in rows if row.score is None]
    if failed:
        raise ValueError(f"{len(failed)} of {len(rows)} pictures have no score. The first: {failed[0]}")
    return [row.score for row in rows if row.score is not None]


def write_jpegs(folder: Path, sizes: Sequence[Size], *, quality: int = 90) -> list[Path]:
    """Write one JPEG file per size; a file that is already there is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed, (width, height) in enumerate(sizes):
        path = folder / f"{seed:03d}_{width}x{height}_q{quality}.jpg"
        if not path.exists():
            temporary = path.with_suffix(".tmp")
            make_picture(seed=seed, width=width, height=height).save(temporary, format="JPEG", quality=quality)
            temporary.replace(path)
        paths.append(path)
    return paths
