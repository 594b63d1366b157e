# SPDX-License-Identifier: Apache-2.0
"""Training: settings, recipes, fine-tuning and pre-training."""

from .finetuning import finetune
from .pretraining_imagenet import ImageNetSettings, pretrain_imagenet
from .pretraining_quality import PretrainSettings, pretrain_quality
from .recipes import load_settings
from .repeated_runs import repeat_runs
from .settings import FinetuneSettings

__all__ = [
    "FinetuneSettings",
    "ImageNetSettings",
    "PretrainSettings",
    "finetune",
    "load_settings",
    "pretrain_imagenet",
    "pretrain_quality",
    "repeat_runs",
]
