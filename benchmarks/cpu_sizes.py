# SPDX-License-Identifier: Apache-2.0
"""Sections of `benchmarks.cpu` about single pictures: time beside pyiqa and beside a matrix product, and memory."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks import pyiqa_musiq
from benchmarks.inputs import Features, Size, in_type, make_features, make_model, num_tokens
from benchmarks.measure import Product, interleave, measure_products, rates, ratio, summarize
from benchmarks.operations import operations_of_size
from benchmarks.point import PointSpec, point
from musiq_hf import MusiqConfig, MusiqForImageQualityAssessment

SIZES: tuple[Size, ...] = ((512, 384), (1024, 768), (2048, 1536), (4000, 3000))
GROWTH_SIZES: tuple[Size, ...] = (
    (256, 192), (512, 384), (1024, 768), (1448, 1086), (2048, 1536), (2896, 2172), (4000, 3000), (5656, 4242)
)  # fmt: skip
HUGE: Size = (12000, 9000)
NUM_QUICK = 2  # sizes of a list that are measured with `--quick`
MANY_TOKENS = 5000  # from here on pyiqa needs minutes and gigabytes: it runs once, in a process of its own
FEW_TOKENS = 1500  # up to here the plain path, which keeps everything for gradients, fits into any memory
PYIQA_LARGEST: Size = (4000, 3000)
CONTENDERS = (("ours", "float32"), ("ours", "bfloat16"), ("pyiqa", "float32"))


@dataclass(frozen=True)
class Settings:
    """Settings of the sections of `benchmarks.cpu`.

    Attributes:
        threads: Number of threads of torch.
        repeats: Rounds of interleaved measurements.
        budget: Seconds after which a measurement begins no further round.
        quick: Whether only the small part of every section runs.
        work: Folder for files that are made once.
        pictures: Folder of photographs for the section `precision`.
        max_pictures: Largest number of these photographs.
        config: Fields of `MusiqConfig` that differ from its defaults.
        sizes: Sizes in place of a section's own.
        product_sides: Sides of the matrix products.
    """

    threads: int
    repeats: int = 7
    budget: float = 150.0
    quick: bool = False
    work: Path = Path("runs/bench")
    pictures: Path | None = None
    max_pictures: int = 300
    config: dict[str, Any] = field(default_factory=dict)
    sizes: tuple[Size, ...] | None = None
    product_sides: tuple[int, ...] = (2048, 3072, 4096)

    def pick(self, sizes: Sequence[Size]) -> Sequence[Size]:
        """Return the sizes to measure: those that were asked for, or a section's own, fewer with `quick`."""
        return self.sizes or (sizes[:NUM_QUICK] if self.quick else sizes)


def _make_call(model: MusiqForImageQualityAssessment, features: Features) -> Callable[[], torch.Tensor]:
    return lambda: model(**features).scores


def _measure_deviation_from_plain(model: MusiqForImageQualityAssessment, features: Features) -> float:
    """Measure the largest difference of a score between scoring and the plain path, which gradients go through."""
    with torch.enable_grad():
        plain = model(**features).scores.detach()
    with torch.no_grad():
        return float((model(**features).scores - plain).abs().max())


def _time_size(
    contenders: dict[str, Callable[[], object]], spec: PointSpec | None, settings: Settings
) -> tuple[dict[str, dict[str, Any]], dict[str, Any] | None]:
    """Time contenders in turns; with `spec` pyiqa too, in a process of its own between two halves of ours."""
    if spec is None:
        return interleave(contenders, repeats=settings.repeats, budget=settings.budget), None
    first = interleave(contenders, repeats=2, warmups=0, budget=settings.budget)
    theirs = point(spec)
    second = interleave(contenders, repeats=1, warmups=0)
    timings = {name: summarize(first[name]["seconds"] + second[name]["seconds"]) for name in contenders}
    if "error" not in theirs:
        timings["pyiqa float32"] = theirs["timing"]
    return timings, theirs


def _measure_size(
    models: dict[str, MusiqForImageQualityAssessment],
    network: nn.Module | None,
    products: dict[str, list[Product]],
    size: Size,
    settings: Settings,
) -> dict[str, Any]:
    config: MusiqConfig = models["float32"].config
    features, tokens = make_features(config, *size), num_tokens(config, *size)
    operations = operations_of_size(config, *size)
    best = {dtype: found[0] for dtype, found in products.items() if found}
    contenders: dict[str, Callable[[], object]] = {}
    contenders |= {f"ours {dtype}": _make_call(model, features) for dtype, model in models.items()}
    contenders |= {f"product {dtype}": product.run for dtype, product in best.items()}
    row: dict[str, Any] = {"width": size[0], "height": size[1], "tokens": tokens, "operations": operations}
    spec = None
    if network is not None and tokens >= MANY_TOKENS:
        spec = PointSpec("pyiqa", "float32", *size, threads=settings.threads, config=settings.config)
    elif network is not None:
        rows = pyiqa_musiq.sequence(features, config)
        contenders["pyiqa float32"] = lambda: pyiqa_musiq.score(network, rows)
        row["deviation_from_pyiqa"] = pyiqa_musiq.deviation(models["float32"], network, features)
    if tokens <= FEW_TOKENS:
        row["deviation_from_plain"] = _measure_deviation_from_plain(models["float32"], features)
    with torch.inference_mode():
        timings, theirs = _time_size(contenders, spec, settings)
    row["timings"] = timings
    row["rates"] = {dtype: operations / timings[f"ours {dtype}"]["median"] for dtype in models}
    row["shares"] = {
        dtype: row["rates"][dtype] * timings[f"product {dtype}"]["median"] / product.operations
        for dtype, product in best.items()
    }
    if "pyiqa float32" in timings:
        row["ratios"] = {dtype: ratio(timings["pyiqa float32"], timings[f"ours {dtype}"]) for dtype in models}
    if theirs is not None:
        row["pyiqa"] = theirs
    return row


def measure_sizes(settings: Settings) -> dict[str, Any]:
    """Measure our model in both types, pyiqa in float32 and the best matrix products, in turns, size by size.

    Returns:
        Timings of each size, ratios to pyiqa, and operations per second as a number and as a share of those of the
        matrix product.
    """
    config = MusiqConfig(**settings.config)
    model = make_model(config)
    models = {"float32": model, "bfloat16": in_type(copy.deepcopy(model), torch.bfloat16)}
    network = pyiqa_musiq.build(model) if pyiqa_musiq.is_installed() and not settings.config else None
    if network is None:
        print(f"pyiqa is left out; to compare with it: {pyiqa_musiq.INSTALL}", flush=True)
    products = {dtype: measure_products(dtype, sides=settings.product_sides) for dtype in models}
    rows = []
    for size in settings.pick(SIZES):
        rows.append(_measure_size(models, network, products, size, settings))
        print(_describe_row(rows[-1]), flush=True)
    notes = {} if network is not None else {"pyiqa": f"not measured; {pyiqa_musiq.INSTALL}"}
    return {"rows": rows, "products": {dtype: rates(found) for dtype, found in products.items()}, "notes": notes}


def _describe_row(row: dict[str, Any]) -> str:
    times = ", ".join(f"{name} {timing['median']:.3f} s" for name, timing in row["timings"].items())
    return f"{row['width']}x{row['height']}: {times}; ratios {row.get('ratios')}; shares {row['shares']}"


def _make_point_spec(settings: Settings, who: str, dtype: str, size: Size) -> PointSpec:
    many = num_tokens(MusiqConfig(**settings.config), *size) >= MANY_TOKENS
    repeats = 0 if many else 3
    return PointSpec(who, dtype, *size, threads=settings.threads, repeats=repeats, config=settings.config)


def _measure_points(
    settings: Settings, contenders: Sequence[tuple[str, str]], sizes: Sequence[Size]
) -> list[dict[str, Any]]:
    rows = []
    for size in sizes:
        for who, dtype in contenders:
            if who == "pyiqa" and (size > PYIQA_LARGEST or not pyiqa_musiq.is_installed()):
                continue
            spec = _make_point_spec(settings, who, dtype, size)
            rows.append({"who": who, "dtype": dtype, "width": size[0], "height": size[1], **point(spec)})
            print({key: rows[-1].get(key) for key in ("who", "dtype", "width", "seconds", "peak_bytes", "error")})
    return rows


def measure_memory(settings: Settings) -> dict[str, Any]:
    """Measure peak resident memory above the loaded model, the sequence included, in a fresh process per point."""
    return {
        "rows": _measure_points(settings, (*CONTENDERS, ("ours from pixels", "float32")), settings.pick(SIZES[1:]))
    }


def measure_growth(settings: Settings) -> dict[str, Any]:
    """Measure time and memory against the number of pixels for the plot, in a fresh process per point."""
    return {"rows": _measure_points(settings, CONTENDERS, settings.pick(GROWTH_SIZES))}


def measure_huge(settings: Settings, *, dtype: str) -> dict[str, Any]:
    """Measure 108 megapixels with preprocessing, for minutes in bfloat16, and half an hour or more in float32."""
    return {"rows": _measure_points(settings, (("ours from pixels", dtype),), settings.sizes or (HUGE,))}
