# SPDX-License-Identifier: Apache-2.0
"""Sections of `benchmarks.cpu` about many pictures: batches of mixed sizes, folders of files, precision of scores."""

import copy
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.cpu_sizes import Settings
from benchmarks.inputs import (
    Features,
    in_type,
    make_array,
    make_features,
    make_model,
    mixed_sizes,
    pad_features,
    score_all,
    write_jpegs,
)
from benchmarks.measure import DTYPES, interleave, ratio
from benchmarks.operations import picture_operations
from musiq_hf import DEFAULT_CHECKPOINT, MusiqConfig, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.metrics import quality_metrics
from musiq_hf.pictures import find_pictures

NUM_SINGLES = 5
RANGE = 100.0  # width of the score range of the default checkpoint


def both_precisions(model: MusiqForImageQualityAssessment) -> dict[str, MusiqForImageQualityAssessment]:
    """Return the model and a copy in bfloat16, by the name of the type."""
    return {"float32": model, "bfloat16": in_type(copy.deepcopy(model), torch.bfloat16)}


def _score_one_by_one(model: MusiqForImageQualityAssessment, features: Sequence[Features]) -> torch.Tensor:
    return torch.cat([model(**feature).scores for feature in features])


def _repeat_call(number: int, model: MusiqForImageQualityAssessment, features: Features) -> Callable[[], object]:
    def run() -> None:
        for _ in range(number):
            model(**features)

    return run


def _measure_batch_rates(
    model: MusiqForImageQualityAssessment, features: list[Features], settings: Settings
) -> dict[str, Any]:
    """Measure useful operations per second of a batch, and of some of its pictures alone.

    Each of these pictures is repeated until it has as many operations as its share of the batch.
    """
    counts = [feature["pixel_values"].shape[1] for feature in features]
    operations = [picture_operations(model.config, count, executed=True) for count in counts]
    order = sorted(range(len(counts)), key=counts.__getitem__)
    chosen = [order[round(place)] for place in np.linspace(0, len(order) - 1, min(NUM_SINGLES, len(order)))]
    batch = pad_features(features)
    contenders: dict[str, Callable[[], object]] = {"batch": lambda: model(**batch)}
    done = {"batch": sum(operations)}
    for index in chosen:
        number = max(1, round(done["batch"] / len(chosen) / operations[index]))
        contenders[f"{counts[index]} patches"] = _repeat_call(number, model, features[index])
        done[f"{counts[index]} patches"] = number * operations[index]
    timings = interleave(contenders, repeats=min(settings.repeats, 5), budget=settings.budget)
    per_second = {name: done[name] / timing["median"] for name, timing in timings.items()}
    best = max(rate for name, rate in per_second.items() if name != "batch")
    return {"timings": timings, "rates": per_second, "share_of_best_single": per_second["batch"] / best}


def _measure_deviations(model: MusiqForImageQualityAssessment, features: list[Features]) -> dict[str, float]:
    """Measure how far scores of a batch are from those of its pictures alone, and the spread, in MOS points."""
    alone, together = _score_one_by_one(model, features), model(**pad_features(features)).scores
    spread = float(alone.max() - alone.min())
    return {"largest_change": float((alone - together).abs().max()), "spread": spread}


def measure_mixed(settings: Settings) -> dict[str, Any]:
    """Measure a batch of pictures of mixed sizes against single pictures, and how far a batch changes scores.

    Returns:
        For each precision the rates of the large model, and the largest change of a score. That is given for the large
        model, which has random weights, and for the default checkpoint, whose range is known.
    """
    config = MusiqConfig(**settings.config)
    default = (8, 200, 640) if settings.quick else (32, 200, 1600)
    sizes = settings.sizes or mixed_sizes(default[0], smallest=default[1], largest=default[2])
    features = [make_features(config, *size, seed=seed) for seed, size in enumerate(sizes)]
    processor = MusiqImageProcessor.from_pretrained(DEFAULT_CHECKPOINT)
    real = [dict(processor(make_array(*size, seed=seed))) for seed, size in enumerate(sizes)]
    large = both_precisions(make_model(config))
    small = both_precisions(MusiqForImageQualityAssessment.from_pretrained(DEFAULT_CHECKPOINT).eval())
    rows = []
    for dtype in DTYPES:
        with torch.inference_mode():
            row = {
                "dtype": dtype,
                "num_pictures": len(sizes),
                **_measure_batch_rates(large[dtype], features, settings),
            }
            row["random_weights"] = _measure_deviations(large[dtype], features)
            row["default"] = _measure_deviations(small[dtype], real)
        row["checkpoint"] = DEFAULT_CHECKPOINT.name
        row["change_of_range"] = row["default"]["largest_change"] / RANGE
        rows.append(row)
        print({key: row[key] for key in ("dtype", "share_of_best_single", "change_of_range", "rates")}, flush=True)
    return {"rows": rows, "sizes": [list(size) for size in sizes]}


def _decode(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def measure_folder(settings: Settings) -> dict[str, Any]:
    """Measure a folder of JPEG files, end to end, against the model alone on its tensors, picture by picture."""
    config = MusiqConfig(**settings.config)
    default = (6, 320, 800) if settings.quick else (24, 512, 1600)
    sizes = settings.sizes or mixed_sizes(default[0], smallest=default[1], largest=default[2])
    files = write_jpegs(settings.work / "jpegs", sizes)
    arrays = [_decode(path) for path in files]
    processor = MusiqImageProcessor.from_config(config)
    features = [dict(processor(array)) for array in arrays]
    rows = []
    for dtype, model in both_precisions(make_model(config)).items():
        contenders: dict[str, Callable[[], object]] = {
            "end to end": lambda model=model: score_all(files, model=model, processor=processor),  # type: ignore[misc]
            "model alone": lambda model=model: _score_one_by_one(model, features),  # type: ignore[misc]
            "decoding": lambda: [_decode(path) for path in files],
            "preprocessing": lambda: [processor(array) for array in arrays],
        }
        with torch.inference_mode():
            timings = interleave(contenders, repeats=min(settings.repeats, 5), budget=settings.budget)
        row = {"dtype": dtype, "num_pictures": len(files), "timings": timings}
        row["share_of_model_alone"] = ratio(timings["model alone"], timings["end to end"])
        row["preprocessing_share"] = ratio(timings["preprocessing"], timings["model alone"])
        row["decoding_share"] = ratio(timings["decoding"], timings["model alone"])
        rows.append(row)
        print({key: value for key, value in row.items() if key != "timings"}, flush=True)
    return {"rows": rows, "sizes": [list(size) for size in sizes]}


def _read_features(paths: Sequence[Path], processor: MusiqImageProcessor) -> Iterator[Features]:
    for path in paths:
        yield dict(processor(path))


def measure_precision(settings: Settings) -> dict[str, Any]:
    """Measure scores of the default checkpoint in bfloat16 against float32 on real photographs.

    Raises:
        ValueError: If no folder was given, or it holds fewer than 3 pictures.
    """
    if settings.pictures is None:
        raise ValueError("The section `precision` needs photographs. Name a folder of them with --pictures.")
    paths = find_pictures(settings.pictures)
    random.Random(0).shuffle(paths)
    limit = min(settings.max_pictures, 24) if settings.quick else settings.max_pictures
    paths = sorted(paths[:limit])
    if len(paths) < 3:
        raise ValueError(f"At least 3 pictures are needed to rank them, got {len(paths)} in {settings.pictures}.")
    processor = MusiqImageProcessor.from_pretrained(DEFAULT_CHECKPOINT)
    models = both_precisions(MusiqForImageQualityAssessment.from_pretrained(DEFAULT_CHECKPOINT).eval())
    scores: dict[str, list[float]] = {dtype: [] for dtype in models}
    with torch.inference_mode():
        for feature in _read_features(paths, processor):
            for dtype, model in models.items():
                scores[dtype].append(float(model(**feature).scores))
    exact, rounded = np.array(scores["float32"]), np.array(scores["bfloat16"])
    row = {
        "checkpoint": DEFAULT_CHECKPOINT.name,
        "num_pictures": len(paths),
        "srcc": quality_metrics(rounded, exact)["srcc"],
        "largest_deviation": float(np.abs(rounded - exact).max()),
        "median_deviation": float(np.median(np.abs(rounded - exact))),
        "spread": float(exact.max() - exact.min()),
    }
    print(row, flush=True)
    return {"rows": [row]}
