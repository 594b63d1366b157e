# SPDX-License-Identifier: Apache-2.0
"""Whole trainings of super-resolution: photographs, model, tables and the files of the checkpoint."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from ...common.devices import without_accelerator
from ...common.files import check_output_file
from ...hub.checkpoints import save_checkpoint
from ...metrics.fidelity import FidelityReport
from ...metrics.report_files import StoredMetrics, write_metrics
from ...pictures import find_pictures, open_picture
from ...pictures.finding import hold_out_pictures
from .ablations import check_ablations, run_ablations
from .card import write_card
from .material import cut_windows, shrink_photograph
from .settings import SuperResolutionSettings
from .state import check_state, remove_state
from .steps import MSIT, make_model, train_model

# Function from originals and models in evaluation mode by name to a table.
Measure = Callable[[Sequence[Any], Mapping[str, Any]], FidelityReport]

MODEL = "this model"  # its name in tables
HELD_OUT = "Held-out photographs"
ABLATIONS = "Shorter trainings without a part"
MAX_HELD_OUT = 24


@dataclass(frozen=True, kw_only=True)
class Photographs:
    """Photographs of a training, and the pictures on which it is measured.

    Attributes:
        train: Files for training.
        measured: Originals by the title of their table. Held-out photographs are shrunk as those for training are.
    """

    train: Sequence[Path]
    measured: Mapping[str, Sequence[Any]]


def choose_photographs(settings: SuperResolutionSettings) -> Photographs:
    """Find the photographs of a training, and hold some out, as the seed decides.

    Raises:
        ValueError: If there are fewer than two, or all that are held out are too small.
    """
    train, held_out = hold_out_pictures(settings.pictures, most=MAX_HELD_OUT, seed=settings.seed)
    shrunk = [shrink_photograph(path, settings.shrunk_by) for path in held_out]
    large = [image for image in shrunk if min(image.size) >= settings.crop_size]
    if not large:
        raise ValueError(
            f"No held-out photograph of {len(held_out)} has {settings.crop_size} pixels a side after it is shrunk by "
            f"{settings.shrunk_by:g}. Give larger ones, or lower `shrinking`."
        )
    measured: dict[str, Sequence[Any]] = {HELD_OUT: large}
    if settings.originals is not None:
        measured[settings.originals.name] = find_pictures(settings.originals)
    return Photographs(train=train[: settings.num_photographs], measured=measured)


def _try_measuring(photographs: Photographs, measure: Measure) -> None:
    """Find an original that is too small or damaged, or a missing library, before the training and not after it."""
    for originals in photographs.measured.values():
        measure([min(originals, key=lambda original: min(open_picture(original).size))], {})


def train_super_resolution(
    settings: SuperResolutionSettings,
    *,
    command: str,
    measure: Measure,
    ablation_steps: int | None = None,
    report: Callable[[str], None] = print,
) -> dict[str, FidelityReport]:
    """Train a super-resolution model, measure it, and write the checkpoint with metrics.json and card.

    Args:
        settings: Settings of the training.
        command: Command line of the training, for the card.
        measure: Function that measures models by name on originals: `musiq_hf.evaluation.measure_upscaling_models`.
        ablation_steps: Steps of each of the shorter trainings that show what a part is worth; None = none are run.
        report: Function that is told in a sentence what begins, in the first process alone.

    Returns:
        Tables by their titles; empty in all processes but the first.

    Raises:
        ValueError: If settings, photographs or a checkpoint cannot be used.
        OSError: If a file cannot be read, or the folder cannot be written.
        ImportError: If a library that measures is missing.
    """
    output = settings.output_dir
    check_output_file(output / "config.json")
    check_state(settings)
    if ablation_steps is not None:
        check_ablations(settings, ablation_steps)
    make_model(settings)  # a wrong first stage or architecture is told before photographs are read
    process = PartialState(cpu=without_accelerator())
    tell = report if process.is_main_process else lambda line: None
    photographs = choose_photographs(settings)
    _try_measuring(photographs, measure)
    tell(f"{len(photographs.train)} photographs are read.")
    windows = cut_windows(photographs.train, settings)
    tell(f"The model is trained on {len(windows)} of them.")
    model, num_steps = train_model(settings, windows, report=tell)
    if process.is_main_process:
        if settings.fold_rim:
            model.fold_rim()
        save_checkpoint(model, MSIT.processor.from_config(model.config), output, dtype="float32")
    variants: dict[str, Any] = {}
    if ablation_steps is not None:
        variants = run_ablations(settings, photographs.train, windows, steps=ablation_steps, report=tell)
    if not process.is_main_process:  # others do not wait, since they would give up after half an hour
        return {}
    reports: dict[str, FidelityReport] = {}
    for title, originals in photographs.measured.items():
        tell(f"{title}: the model is measured on {len(originals)} pictures.")
        reports[title] = measure(originals, {MODEL: model})
    if variants:
        reports[ABLATIONS] = measure(originals, variants)
    write_metrics(output, StoredMetrics(reports=reports))
    write_card(settings, len(windows), num_steps, command=command, reports=reports)
    remove_state(settings)
    return reports
