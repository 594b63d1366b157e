# SPDX-License-Identifier: Apache-2.0
"""Objectives of pre-training without scores: the parts of a run, and batches of several copies of a picture."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn
from transformers import EvalPrediction
from transformers.image_processing_utils import BatchFeature

from ...data.batches import cut_picture, pad_features
from ...models.protocol import QualityProcessor, TrainingView
from ...pictures.degradations import to_rgb_picture
from ...pictures.opening import open_picture
from ...pictures.synthetic import make_picture


def _open_row(row: Mapping[str, Any]) -> Image.Image:
    """Open the picture of a row, or make the one of its seed."""
    if row["picture_seed"] is not None:
        return make_picture(seed=row["picture_seed"])
    return to_rgb_picture(open_picture(row["image"]))


class CopyCollator(ABC):
    """Collator of pictures to batches of as many copies of each, those of a picture side by side.

    Args:
        processor: Image processor of the model.
        view: Part of a copy that a step sees.
        seed: Seed that gives every row the same copies each time, for evaluation; None draws anew every time.
        length: Number of tokens to which every batch is padded; None pads to its longest copy.
    """

    def __init__(
        self,
        processor: QualityProcessor,
        *,
        view: TrainingView,
        seed: int | None = None,
        length: int | None = None,
    ):
        self.processor = processor
        self.view = view
        self.seed = seed
        self.length = length

    @abstractmethod
    def make_copies(self, image: Image.Image) -> tuple[list[Image.Image], list[list[float]] | None]:
        """Make the copies of an RGB picture, and the labels of each; None if there are no labels."""

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        features, labels = [], []
        view = self.view.for_batch() if self.seed is None else self.view
        for row in rows:
            with torch.random.fork_rng(devices=[], enabled=self.seed is not None):
                if self.seed is not None:
                    torch.default_generator.manual_seed(self.seed + row["index"])
                copies, values = self.make_copies(_open_row(row))
                for picture in copies:
                    # Copies lose the file name, which errors further on should give.
                    picture.filename = (row["image"] or {}).get("path") or ""  # type: ignore[attr-defined]
                    features.append(cut_picture(self.processor, picture, view))
            if values is not None:
                labels.append(values)
        batch = pad_features(self.processor, features, length=self.length)
        if labels:
            batch["labels"] = torch.tensor(labels)
        return batch


@dataclass(frozen=True, kw_only=True)
class Objective:
    """Task that a quality model is pre-trained on.

    Attributes:
        collator: Class of the batches, see `CopyCollator`.
        whole: Module that is trained and gives the loss; it holds the quality model as `quality`.
        compute_metrics: Function from predictions and labels of the held-out pictures to metrics.
        metrics: Names of the metrics to report, "loss" among them.
        best_metric: Name of the metric that chooses the epoch; the lowest is best if it ends in "loss".
        eval_view: Part of a held-out copy that is seen; None = that of training.
        full_batches: Whether a smaller last batch is left out of training.
        min_held_out: Smallest number of held-out pictures that can be measured.
        meaning: Sentences that say what the scores of the stored model mean.
        finish: Function that may change the trained weights of the quality model. It is called once, with them and
            the predictions for the held-out pictures. None changes nothing.
    """

    collator: Callable[..., CopyCollator]
    whole: nn.Module
    compute_metrics: Callable[[EvalPrediction], dict[str, float]]
    metrics: tuple[str, ...]
    best_metric: str
    eval_view: TrainingView | None = None
    full_batches: bool = False
    min_held_out: int = 1
    meaning: str
    finish: Callable[[dict[str, torch.Tensor], Any], None] | None = None
