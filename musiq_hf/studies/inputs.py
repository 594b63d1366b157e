# SPDX-License-Identifier: Apache-2.0
"""Inputs of a model compared on one small budget: native size, aspect ratio kept, and squares (Table 5, figure 3)."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..common.files import read_json, write_json
from ..common.markdown import markdown_table
from ..data import load_data
from ..data.batches import open_row
from ..evaluation.checkpoints import score_rows
from ..explain import plot_aspect_ratio_changes, score_aspect_ratios
from ..metrics import quality_metrics
from ..scoring import load_quality
from .results import render_range
from .running import SPLIT, Study, find_runs, train_variants
from .shapes import draw_rows, write_padded, write_pictures
from .variants import Variant

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Settings of all models. Random windows of a picture stand for its own; MUSIQ sees a part of the patches in a step.
BUDGET = (
    "batch_size=16",
    "learning_rate=3e-4",
    "min_crop=0.8",
    "plcc_weight=0.5",
    "holdout_fraction=0.04",
    "score_range=[0,100]",
)
_MUSIQ = ("drop_path_rate=0.1", "native_patches=32", "resized_patches=16")
_COPIES = ("use_native_resolution=false", "longer_side_lengths=[224,384,512]")


@dataclass(frozen=True, kw_only=True)
class InputModel:
    """Row of Table 5.

    Attributes:
        variant: Model and settings here.
        paper: SRCC and PLCC of the paper's row, on AVA.
    """

    variant: Variant
    paper: tuple[float, float]


MODELS: Mapping[str, InputModel] = {
    "NIMA (ResNet), squares": InputModel(variant=Variant(start="scratch:resnet-tiny"), paper=(0.624, 0.632)),
    "ViT, squares": InputModel(variant=Variant(start="scratch:vit-tiny"), paper=(0.656, 0.665)),
    "MUSIQ, squares of 512, 384, 224": InputModel(
        variant=Variant(changes=(*_MUSIQ, *_COPIES, "resize_mode=square")), paper=(0.706, 0.720)
    ),
    "MUSIQ, aspect kept, 512, 384, 224": InputModel(
        variant=Variant(changes=(*_MUSIQ, *_COPIES)), paper=(0.712, 0.726)
    ),
    "MUSIQ, native, 384, 224": InputModel(
        variant=Variant(changes=(*_MUSIQ, "longer_side_lengths=[224,384]")), paper=(0.726, 0.738)
    ),
}
RATIOS = (1 / 2, 9 / 16, 2 / 3, 3 / 4, 1, 4 / 3, 3 / 2, 16 / 9, 2)
WINDOWS, WHOLE, PADDED = "windows of 1:2 to 2:1", "whole, square", "padded to 1:2 to 2:1"
_FILE = "inputs.json"


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Comparison of models that read pictures in different ways.

    Attributes:
        data: Arguments of `load_data`: square photographs with scores, some of them in a split `validation`.
        output_dir: Folder of the runs and of the pictures that are made.
        names: Names of the models, keys of `MODELS`.
        epochs: Passes over the training pictures.
        seeds: Seeds of each model.
        num_train: Training pictures, at most; None takes all.
        num_validation: Validation pictures on which each model is measured, at most; None takes all.
        num_squeezed: Validation pictures that are squeezed, at most.
        command: Command line for the cards of the checkpoints.
    """

    data: Mapping[str, Any]
    output_dir: Path
    names: Sequence[str]
    epochs: float
    seeds: Sequence[int]
    num_train: int | None
    num_validation: int | None
    num_squeezed: int
    command: str


def _find_shapes(comparison: Comparison) -> dict[str, Any]:
    """Return the validation pictures by their shape, and make those that there are not yet."""
    folder = comparison.output_dir
    windows, whole, padded = folder / "windows.parquet", folder / "whole.parquet", folder / "padded" / "scores.csv"
    if not (windows.exists() and whole.exists() and padded.exists()):
        drawn = draw_rows(comparison.data, num_train=comparison.num_train, num_validation=comparison.num_validation)
        write_pictures(whole, drawn, in_windows=False)
        write_padded(padded.parent, drawn[SPLIT])
        write_pictures(windows, drawn, in_windows=True)
    files = {WINDOWS: windows, WHOLE: whole, PADDED: padded}
    return {shape: load_data(str(path))[SPLIT] for shape, path in files.items()}


def _measure(folder: Path, shapes: Mapping[str, Any], num_squeezed: int) -> dict[str, Any]:
    """Measure a checkpoint on the shapes, and the changes of its scores when whole pictures are squeezed."""
    model, processor = load_quality(str(folder))
    found: dict[str, Any] = {"srcc": {}, "plcc": {}}
    for shape, rows in shapes.items():
        scores = score_rows(rows, model=model, processor=processor).scores
        metrics = quality_metrics(scores, np.array(rows["mos"][:]))
        found["srcc"][shape], found["plcc"][shape] = metrics["srcc"], metrics["plcc"]
    whole = shapes[WHOLE]
    curves = []
    for row in whole.select(range(min(len(whole), num_squeezed))):
        curve = score_aspect_ratios(model, processor, open_row(row), ratios=RATIOS)
        curves.append(np.subtract(curve.squeezed, curve.squeezed[RATIOS.index(1)]).tolist())
        found["area"] = curve.area
    return found | {"changes": curves}


def compare_inputs(
    comparison: Comparison, *, report: Callable[[str], None] = print
) -> dict[str, list[dict[str, Any]]]:
    """Train models that read pictures in different ways on windows, and measure them on pictures of three shapes.

    What is finished in the folder is kept, and several processes with other seeds may share it.

    Args:
        comparison: Models, data and budget.
        report: Function that is told in a sentence what begins.

    Returns:
        Measurements of the finished runs of each model, by its name. `srcc` and `plcc` are by shape. `changes` has a
        row for each squeezed picture: the change of its score at each of `RATIOS`, in MOS points.

    Raises:
        ValueError: If data or settings cannot be used, or the folder holds runs with other settings.
    """
    comparison.output_dir.mkdir(parents=True, exist_ok=True)
    shapes = _find_shapes(comparison)
    study = Study(
        variants={name: MODELS[name].variant for name in comparison.names},
        data={"data": str(comparison.output_dir / "windows.parquet"), "dataset": "scores"},
        output_dir=comparison.output_dir,
        recipe=None,
        budget=BUDGET,
        epochs=comparison.epochs,
        seeds=comparison.seeds,
        command=comparison.command,
    )
    train_variants(study)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, folders in find_runs(comparison.output_dir, list(MODELS)).items():
        for folder in folders:
            if not (folder / _FILE).exists():
                report(f"Measured is {folder.name}.")
                write_json(folder / _FILE, _measure(folder, shapes, comparison.num_squeezed))
            found.setdefault(name, []).append(read_json(folder / _FILE))
    return found


def _average_changes(runs: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return the mean change of the score at each ratio, over pictures and runs."""
    return np.concatenate([np.array(run["changes"]) for run in runs]).mean(axis=0)


def render_inputs(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Render two Markdown tables: SRCC on each shape beside the paper's, and what squeezing does to the score."""
    shapes = (WINDOWS, WHOLE, PADDED)
    heads = ("model", "seeds", *(f"SRCC, {shape}" for shape in shapes), "SRCC, PLCC in the paper (AVA)")
    rows = []
    for name, runs in found.items():
        ranges = [render_range([run["srcc"][shape] for run in runs]) for shape in shapes]
        rows.append((name, str(len(runs)), *ranges, ", ".join(f"{value:.3f}" for value in MODELS[name].paper)))
    squeezed = []
    for name, runs in found.items():
        curves = [np.array(run["changes"]) for run in runs]
        drops = [float(-own.min(axis=1).mean()) for own in curves]
        ends = [float((own[:, [0, -1]].mean(axis=1) < 0).mean()) for own in curves]
        points = f"{statistics.mean(drops):.1f} [{min(drops):.1f}..{max(drops):.1f}]"
        squeezed.append((name, points, f"{statistics.mean(ends):.0%}", f"{_average_changes(runs).min():.1f}"))
    drop_heads = (
        "model",
        "largest drop of a picture, mean, MOS points",
        "pictures that 1:2 and 2:1 lower",
        "lowest point of the mean curve",
    )
    return f"{markdown_table(heads, rows)}\n\n{markdown_table(drop_heads, squeezed)}"


def plot_inputs(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> "Figure":
    """Plot the mean change of the score of squeezed pictures for all models in one figure (figure 3).

    Raises:
        ImportError: If matplotlib is missing.
    """
    area = next(iter(found.values()))[0]["area"]
    return plot_aspect_ratio_changes(
        {name: _average_changes(runs).tolist() for name, runs in found.items()}, ratios=RATIOS, area=area
    )
