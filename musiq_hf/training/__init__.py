# SPDX-License-Identifier: Apache-2.0
"""Training: settings, recipes, fine-tuning, distillation and pre-training."""

from typing import TYPE_CHECKING, Any

from .recipes import load_settings, read_recipe, run_with_settings
from .settings import FinetuneSettings
from .super_resolution.settings import SuperResolutionSettings

if TYPE_CHECKING:
    from .distillation import DistillSettings, distill
    from .encoder_weights import load_encoder_weights
    from .finetuning import finetune
    from .pretraining_imagenet import ImageNetSettings, pretrain_imagenet
    from .pretraining_quality import PretrainSettings, pretrain_quality
    from .repeated_runs import repeat_runs
    from .self_supervised.eigenvalues import batched_eigh
    from .self_supervised.relative_location import (
        RelativeLocation,
        cell_positions,
        relative_location_loss,
        sample_token_pairs,
    )
    from .self_supervised.whitening import DecorrelatedNorm, w_mse_loss, whiten
    from .starting import calibrate
    from .super_resolution.job import train_super_resolution

__all__ = [
    "DecorrelatedNorm",
    "DistillSettings",
    "FinetuneSettings",
    "ImageNetSettings",
    "PretrainSettings",
    "RelativeLocation",
    "SuperResolutionSettings",
    "batched_eigh",
    "calibrate",
    "cell_positions",
    "distill",
    "finetune",
    "load_encoder_weights",
    "load_settings",
    "pretrain_imagenet",
    "pretrain_quality",
    "read_recipe",
    "relative_location_loss",
    "repeat_runs",
    "run_with_settings",
    "sample_token_pairs",
    "train_super_resolution",
    "w_mse_loss",
    "whiten",
]


def __getattr__(name: str) -> Any:
    """Import the functions that train when they are first asked for: settings and their help need no Trainer."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .distillation import DistillSettings, distill
    from .encoder_weights import load_encoder_weights
    from .finetuning import finetune
    from .pretraining_imagenet import ImageNetSettings, pretrain_imagenet
    from .pretraining_quality import PretrainSettings, pretrain_quality
    from .repeated_runs import repeat_runs
    from .self_supervised.eigenvalues import batched_eigh
    from .self_supervised.relative_location import (
        RelativeLocation,
        cell_positions,
        relative_location_loss,
        sample_token_pairs,
    )
    from .self_supervised.whitening import DecorrelatedNorm, w_mse_loss, whiten
    from .starting import calibrate
    from .super_resolution.job import train_super_resolution

    found = (
        DistillSettings,
        calibrate,
        distill,
        load_encoder_weights,
        finetune,
        ImageNetSettings,
        pretrain_imagenet,
        PretrainSettings,
        pretrain_quality,
        repeat_runs,
        batched_eigh,
        RelativeLocation,
        cell_positions,
        relative_location_loss,
        sample_token_pairs,
        train_super_resolution,
        DecorrelatedNorm,
        w_mse_loss,
        whiten,
    )
    globals().update({value.__name__: value for value in found})
    return globals()[name]
