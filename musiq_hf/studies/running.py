# SPDX-License-Identifier: Apache-2.0
"""Trainings of variants on an equal budget, several seeds each, that can be interrupted and repeated."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..common.files import read_json, write_json
from ..metrics.report_files import METRICS_FILE, read_metrics
from ..metrics.reports import QualityReport
from ..training import FinetuneSettings, finetune, load_settings, read_recipe
from .variants import Variant

SPLIT = "validation"


@dataclass(frozen=True, kw_only=True)
class Study:
    """Variants to train, and all that they have in common.

    Attributes:
        variants: Variants by name.
        data: Arguments of training that name the data: `data`, `dataset` and perhaps `image_root`.
        output_dir: Folder of the runs, one folder for each variant and seed.
        recipe: Recipe of all variants; None stands for the defaults.
        budget: Settings of all variants that differ from the recipe, as `--set` names them.
        epochs: Passes over the training pictures.
        seeds: Seeds of each variant.
        starts: Checkpoints by the names that variants start from.
        command: Command line for the cards of the checkpoints.
    """

    variants: Mapping[str, Variant]
    data: Mapping[str, str | None]
    output_dir: Path
    recipe: str | None
    budget: Sequence[str]
    epochs: float
    seeds: Sequence[int]
    command: str
    starts: Mapping[str, str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise a ValueError if a variant starts from a checkpoint that was not given."""
        for name, variant in self.variants.items():
            if variant.start in self.starts and self.starts[variant.start] is None:
                raise ValueError(f'"{name}" starts from a checkpoint of one\'s own. Give it as `--{variant.start}`.')

    def list_settings(self) -> dict[str, Any]:
        """List what all runs in one folder must have in common."""
        recipe = None if self.recipe is None else read_recipe(self.recipe)
        return {"data": dict(self.data), "budget": list(self.budget), "epochs": self.epochs, "recipe": recipe}

    def find_start(self, name: str) -> str:
        """Find the checkpoint or configuration that a variant starts from."""
        start = self.variants[name].start
        return self.starts.get(start) or start


def name_folder(output_dir: Path, variant: str, seed: int) -> Path:
    """Name the folder of a run."""
    return output_dir / f"{re.sub(r'[^0-9A-Za-z]+', '_', variant).strip('_')}-{seed}"


def make_settings(study: Study, name: str, seed: int) -> FinetuneSettings:
    """Make the settings of one training.

    Args:
        study: Study with a variant of this name.
        name: Name of the variant.
        seed: Seed of the run.

    Raises:
        ValueError: If settings contradict each other.
    """
    variant, folder = study.variants[name], name_folder(study.output_dir, name, seed)
    given = dict(study.data) | {
        "model": study.find_start(name),
        "output_dir": str(folder),
        "seed": seed,
        "epochs": study.epochs * variant.passes,
        "resume": any(folder.glob("checkpoint-*")),
    }
    return load_settings(
        FinetuneSettings, recipe=study.recipe, overrides=[*study.budget, *variant.changes], arguments=given
    )


def train_variants(study: Study) -> None:
    """Train every variant with every seed; runs that are finished in the folder are kept.

    Several processes with other seeds or variants may share one folder.

    Raises:
        ValueError: If the folder holds runs with other settings, or settings or data cannot be used.
    """
    stored, asked = study.output_dir / "settings.json", study.list_settings()
    if stored.exists() and read_json(stored) != asked:
        raise ValueError(f"{study.output_dir} holds runs with other settings. Choose a new `--output_dir`.")
    study.output_dir.mkdir(parents=True, exist_ok=True)
    write_json(stored, asked)
    for seed in study.seeds:
        for name, variant in study.variants.items():
            folder = name_folder(study.output_dir, name, seed)
            noted = folder / "variant.json"
            own = asdict(variant) | {"changes": list(variant.changes), "start": study.find_start(name)}
            if noted.exists() and read_json(noted) != own:
                raise ValueError(f"{folder} holds another variant of this name. Choose a new `--output_dir`.")
            if not (folder / METRICS_FILE).exists():
                settings = make_settings(study, name, seed)
                folder.mkdir(exist_ok=True)
                write_json(noted, own)
                finetune(settings, command=study.command)


def find_runs(output_dir: Path, names: Sequence[str]) -> dict[str, list[Path]]:
    """Find the folders of finished runs, in the order of their seeds, by variant; without those that have none."""
    found: dict[str, list[Path]] = {}
    for name in names:
        pattern = name_folder(output_dir, name, 0).name.removesuffix("-0")
        folders = [path.parent for path in output_dir.glob(f"{pattern}-*/{METRICS_FILE}")]
        found[name] = sorted(folders, key=lambda folder: int(folder.name.rpartition("-")[2]))
    return {name: folders for name, folders in found.items() if folders}


def read_report(folder: Path) -> QualityReport:
    """Read what a run measured on the validation split.

    Raises:
        ValueError: If the run measured nothing there.
    """
    report = read_metrics(folder).reports.get(SPLIT)
    if not isinstance(report, QualityReport):
        raise ValueError(f"{folder} has no figures of a split {SPLIT!r}. Give data with such a split.")
    return report
