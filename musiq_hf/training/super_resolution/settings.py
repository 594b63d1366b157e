# SPDX-License-Identifier: Apache-2.0
"""Settings and recipes of super-resolution."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...common.checks import check_choice, check_counts
from ..settings import check_not_negative

MAX_SCALE, MAX_RIM_SCALE = 4.0, 8.0  # of the first and the second stage of the published training


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Recipe of a network and its training.

    Attributes:
        architecture: Fields of the configuration that differ from its defaults.
        source_size: Side of the small crops, in pixels.
        batch_size: Crops of a step and process.
        num_positions: Target pixels of a crop that are asked for.
        learning_rate: Highest rate of Adam; after the warm-up it falls to 0 by a cosine.
        warmup_fraction: Part of the training in which the rate rises.
        warmup_start: Part of the highest rate with which it begins.
        shrinking: Factor by which photographs are shrunk first, so that traces of JPEG vanish.
        minutes: Length of the training, if neither minutes nor steps are given; None if it is a number of steps.
        steps: The same as a number of steps.
    """

    architecture: Mapping[str, Any]
    source_size: int
    batch_size: int
    num_positions: int
    learning_rate: float
    warmup_fraction: float
    warmup_start: float
    shrinking: float
    minutes: float | None = None
    steps: int | None = None


RECIPES: Mapping[str, Recipe] = {
    "small": Recipe(
        architecture={
            "encoder_num_blocks": 6,
            "encoder_hidden_size": 32,
            "hidden_size": 48,
            "num_attention_heads": 4,
            "window_radius": 1,
            "num_kernels": 4,
            "num_attention_kernels": 2,
            "shift_padding": "replicate",
            "position_encoding_size": 16,
            "position_encoding_scale": 4.0,
            "decoder_hidden_sizes": [96, 96],
        },
        source_size=24,
        batch_size=12,
        num_positions=192,
        learning_rate=1e-3,
        warmup_fraction=0.01,
        warmup_start=0.1,
        shrinking=2.0,
        minutes=60,
    ),
    "edsr_baseline": Recipe(  # the published one: 1,050 epochs of 1,000 steps, the first 50 of them with a rising rate
        architecture={},
        source_size=48,
        batch_size=32,
        num_positions=2304,
        learning_rate=1e-4,
        warmup_fraction=50 / 1050,
        warmup_start=0.1,
        shrinking=1.0,
        steps=1_050_000,
    ),
}


@dataclass(frozen=True, kw_only=True)
class SuperResolutionSettings:
    """Settings of a training.

    Attributes:
        pictures: Folder of photographs, which is searched with the folders in it.
        output_dir: Folder of the checkpoint; its files are replaced.
        recipe: Name of a recipe.
        minutes: Time for the steps, without preparation and measuring.
        steps: Steps in place of the time; None for both = the length of the recipe.
        batch_size: Crops of a step and process; None = those of the recipe.
        architecture: Fields of the configuration that differ from those of the recipe.
        rim_from: Checkpoint whose kernels are frozen and refined by re-interaction (RIM), the second stage of the
            published training; None = a new network.
        fold_rim: Whether the refined kernels become plain ones at the end, which gives the same pictures faster.
        shrinking: Factor by which photographs are shrunk first; None = that of the recipe.
        num_photographs: Photographs for training, at most; up to 24 others, or a tenth, are held out.
        originals: Folder of further pictures on which the checkpoint is measured at the end.
        data_description: Words for the photographs in the model card; None = the name of their folder.
        seed: Seed of everything but the number of steps that fit into the minutes.
        resume: Whether a training continues that was interrupted in the same folder.

    Raises:
        ValueError: If a value is impossible.
    """

    pictures: Path
    output_dir: Path
    recipe: str = "small"
    minutes: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    architecture: Mapping[str, Any] = field(default_factory=dict)
    rim_from: str | None = None
    fold_rim: bool = False
    shrinking: float | None = None
    num_photographs: int = 5000
    originals: Path | None = None
    data_description: str | None = None
    seed: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        check_choice("recipe", self.recipe, tuple(RECIPES))
        check_counts(self, "steps", "batch_size", "num_photographs", "shrinking")
        check_not_negative(self, "seed")
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0):
            raise ValueError(f"`minutes` must be above 0, got {self.minutes}.")
        if self.minutes is not None and self.steps is not None:
            raise ValueError("`minutes` and `steps` were both given, and each is the whole length. Leave one out.")
        if self.shrinking is not None and not math.isfinite(self.shrinking):
            raise ValueError(f"`shrinking` must be finite, got {self.shrinking}.")
        if self.fold_rim and self.rim_from is None:
            raise ValueError("`fold_rim` folds the kernels that `rim_from` refines. Give a checkpoint there.")
        if self.architecture and self.rim_from is not None:
            raise ValueError("`rim_from` has an architecture already. Leave out `architecture`.")

    @property
    def plan(self) -> Recipe:
        """Recipe of that name, with the batch size of these settings."""
        recipe = RECIPES[self.recipe]
        return recipe if self.batch_size is None else replace(recipe, batch_size=self.batch_size)

    @property
    def length(self) -> tuple[float | None, int | None]:
        """Minutes and steps, one of which is None."""
        if self.minutes is None and self.steps is None:
            return self.plan.minutes, self.plan.steps
        return self.minutes, self.steps

    @property
    def max_scale(self) -> float:
        """Largest scale of a batch."""
        return MAX_SCALE if self.rim_from is None else MAX_RIM_SCALE

    @property
    def crop_size(self) -> int:
        """Side of the largest target crop, in pixels of a shrunk photograph."""
        return round(self.plan.source_size * self.max_scale)

    @property
    def shrunk_by(self) -> float:
        """Factor by which photographs are shrunk first."""
        return self.plan.shrinking if self.shrinking is None else self.shrinking
