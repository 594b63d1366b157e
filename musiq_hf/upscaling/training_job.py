# SPDX-License-Identifier: Apache-2.0
"""Whole trainings of an upscaling detector: pictures, model, tables and the files of the checkpoint."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..common.files import check_output_file
from ..hub.checkpoints import save_checkpoint
from ..hub.model_card import CheckpointCard
from ..metrics.accuracy import AccuracyReport, AccuracyRow
from ..metrics.report_files import StoredMetrics, write_metrics
from .kernels import UNSEEN
from .measuring import ALONE, BY_LEARNED, BY_METHOD, NAMED, NATIVES, measure_detector
from .training import PATCH_SIZE, PATCHES, PICTURES, DetectorSettings, Material, prepare, train_detector
from .upscales import (
    DETECTOR,
    LEARNED,
    MAX_SCALE,
    MAX_SHRINKING,
    MIN_SCALE,
    MIN_SHRINKING,
    NATIVE,
    SIDE,
    Pool,
    make_pool,
)

ABLATIONS = "Shorter trainings without a part, or on one method"
_FEWER = 8  # a row of ablations averages dozens of shares, so that an eighth of the pictures serves each
_LEAST = 0.75  # of an interpolation that the card does not name as weak


def train_and_save(
    settings: DetectorSettings,
    output_dir: str | Path,
    *,
    command: str,
    ablation_steps: int | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, AccuracyReport]:
    """Train a detector, measure it on held-out photographs, and write the checkpoint with metrics.json and card.

    Args:
        settings: Settings of the training.
        output_dir: Folder of the checkpoint; its files are replaced.
        command: Command line of the training, for the card.
        ablation_steps: Steps of each of the shorter trainings that show what a part or a method is worth; None =
            none are run. Equal steps stay equal on a machine that does other work, which equal minutes do not.
        report: Function that is told in a sentence what begins.

    Returns:
        Tables by their titles.

    Raises:
        ValueError: If settings, photographs or upscalers cannot be used.
        OSError: If a file or an upscaler cannot be read, or the folder cannot be written.
    """
    output = Path(output_dir)
    check_output_file(output / "config.json")
    short = None
    if ablation_steps is not None:
        short = replace(settings, steps=ablation_steps, num_measured=math.ceil(settings.num_measured / _FEWER))
    report("Learned upscalers are trained or loaded.")
    material = prepare(settings, report=report)
    report(f"{settings.num_pictures} pictures are made of {len(material.train)} photographs.")
    pool = make_pool(material.train, material.seen, count=settings.num_pictures, seed=settings.seed)
    report("The detector is trained.")
    model = train_detector(settings, pool, report=report)
    processor = DETECTOR.processor.from_config(model.config)
    save_checkpoint(model, processor, output, dtype="float32")
    report(f"It is measured on {len(material.held_out)} other photographs.")
    reports = measure_detector(model, material, settings)
    if short is not None:
        few = material.held_out[: math.ceil(len(material.held_out) / _FEWER)]
        reports[ABLATIONS] = run_ablations(short, replace(material, held_out=few), pool, report=report)
    write_metrics(output, StoredMetrics(reports=reports))
    write_card(settings, material, output, command=command, reports=reports)
    return reports


def _select(pool: Pool, method: str) -> Pool:
    """Return the natives of a pool and the pictures of one method."""
    label = pool.labels.index(method)
    kept = (pool.targets == 0) | (pool.targets == label)
    return Pool(
        pixels=pool.pixels[kept],
        spectra=pool.spectra[kept],
        labels=[NATIVE, method],
        targets=pool.targets[kept].clamp_max(1),
    )


def run_ablations(
    settings: DetectorSettings, material: Material, pool: Pool, *, report: Callable[[str], None] = print
) -> AccuracyReport:
    """Train with all parts, without a part, with one label for all methods, and on each method alone.

    Args:
        settings: Settings of each of these trainings, which are varied.
        material: Photographs and upscalers.
        pool: Pictures.
        report: Function that is told in a sentence what begins.

    Returns:
        Table with a row for each training: natives, each method whether seen or not, and learned upscalers.
    """
    runs = {
        "all": (settings, pool),
        "last stage alone": (replace(settings, use_staircase=False), pool),
        "without spectrum": (replace(settings, use_spectrum=False), pool),
        "one label for all methods": (replace(settings, is_binary=True), pool),
    }
    for method in settings.methods:
        runs[f"{method} alone"] = (settings, _select(pool, method))
    rows = []
    for name, (own, pictures) in runs.items():
        report(f"Shorter training: {name}.")
        model = train_detector(own, pictures, report=report)
        rows.append(_summarize(name, measure_detector(model, material, own)))
    columns = (NATIVE, *UNSEEN, *[LEARNED] * bool(material.seen.learned))
    return AccuracyReport(pictures_per_share=settings.num_measured, columns=columns, accuracy=tuple(rows))


def _summarize(name: str, reports: dict[str, AccuracyReport]) -> AccuracyRow:
    """Return the mean shares over all conditions of the tables, without the right names."""
    (native,) = reports[NATIVES].accuracy
    shares = [float(np.mean(native.shares))]
    for label in UNSEEN:
        rows = [row.shares[:-1] for row in reports[ALONE].accuracy if row.name.startswith(f"{label}, ")]
        shares.append(float(np.mean(rows)))
    if BY_LEARNED in reports:
        shares.append(float(np.mean([row.shares[:-1] for row in reports[BY_LEARNED].accuracy])))
    return AccuracyRow(name=name, shares=tuple(shares))


def name_weak(reports: dict[str, AccuracyReport]) -> str:
    """Write a sentence on the conditions under which fewer than three quarters of the pictures were found."""
    weak = [
        f"{row.name} ({column}: {share:.2f})"
        for title in (NATIVES, BY_METHOD, BY_LEARNED)
        if title in reports
        for row in reports[title].accuracy
        for column, share in zip(reports[title].columns, row.shares, strict=True)
        if share < _LEAST and not column.startswith(NAMED)
    ]
    if not weak:
        return f"At least {_LEAST:.0%} were found under every measured condition."
    return f"Weakest, with less than {_LEAST:.0%} found: {'; '.join(weak)}."


def write_card(
    settings: DetectorSettings, material: Material, output: Path, *, command: str, reports: dict[str, AccuracyReport]
) -> None:
    """Write the model card of a checkpoint.

    Args:
        settings: Settings of the training.
        material: Photographs and upscalers.
        output: Folder of the checkpoint.
        command: Command line of the training.
        reports: Tables by their titles.
    """
    seen, unseen = material.seen, material.unseen
    learned = f" Learned ones: {'; '.join(own.name for own in seen.learned)}." if seen.learned else ""
    others = f" Learned ones that it did not see: {'; '.join(own.name for own in unseen)}." if unseen else ""
    interpolations = "; ".join(f"{label} ({', '.join(own)})" for label, own in seen.kernels.items())
    length = f"{settings.minutes:g} minutes" if settings.steps is None else f"{settings.steps} steps"
    CheckpointCard(
        name=output.name,
        config=DETECTOR.config.from_pretrained(output),
        source=f"Trained from random weights by `{command}`.",
        training_data=(
            f"{settings.num_pictures:,} pictures of {SIDE} x {SIDE} pixels, made of {len(material.train):,} "
            f"photographs with the seed {settings.seed}; {len(material.held_out):,} others were held out. Photographs "
            f"were shrunk {MIN_SHRINKING} to {MAX_SHRINKING} times first. Scales are {MIN_SCALE} to {MAX_SCALE:g}. "
            "Natives and enlarged pictures were sharpened, made noisy and written to JPEG alike, at random."
        ),
        recipe=(
            f"{length} of AdamW on {PICTURES * PATCHES} patches of {PATCH_SIZE} pixels a step. Interpolations: "
            f"{interpolations or 'none'}.{learned}{others}"
        ),
        metrics=reports,
        notes=[
            name_weak(reports),
            f"All figures are of pictures of {SIDE} x {SIDE} pixels, whose photographs training did not see. "
            '"Unseen" interpolations and upscalers were not in the training either.',
            "The small learned upscalers were trained in seconds. Figures on them promise nothing for large ones.",
        ],
    ).save(output)
