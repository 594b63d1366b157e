# SPDX-License-Identifier: Apache-2.0
"""Pre-training without human scores: predict kind and strength of made faults, and rank pairs by strength.

Stage 1 of the default checkpoint; a choice of ours for data too small to learn a quality model from scratch (the paper
pre-trains on ImageNet classes, section 4.2). Each sample is a random crop at two strengths of the same faults, so that
which of the two is better is known without asking anyone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from transformers import EvalPrediction, set_seed
from transformers.image_processing_utils import BatchFeature

from ..common.files import write_json
from ..data.loading import load_pictures
from ..hub.checkpoints import save_checkpoint
from ..hub.publishing import add_remote_code
from ..models.musiq.image_processing_musiq import MusiqImageProcessor
from ..models.musiq.modeling_musiq import MusiqForImageQualityAssessment
from ..pictures.degradations import to_rgb_picture
from ..pictures.fault_pairs import KINDS, make_fault_pair
from ..pictures.opening import open_picture
from ..pictures.synthetic import make_picture
from .collators import make_padder, random_sequence
from .losses import rank_loss
from .settings import RunSettings
from .starting import load_model, load_processor
from .trainer import check_fixed_shapes, find_last_checkpoint, make_trainer

MADE_UP_UNIT = (50.0, 20.0)  # mean and deviation of the scores: ranking gives no opinion scores
METRICS = ("loss", "pair_accuracy", "kind_accuracy", "strength_error")


@dataclass(kw_only=True)
class PretrainSettings(RunSettings):
    """Settings of `pretrain_quality`; those of every run are in `RunSettings`.

    Attributes:
        data: A folder of pictures, or what `load_scored_images` reads, of which the train pictures are used.
        image_root: Directory that the paths of a CSV start from.
        self_made: Number of self-made pictures (`musiq_hf.pictures.synthetic`) added to them.
        batch_size: Pairs per step and device.
        holdout_fraction: Part of the pictures held out to choose the best epoch.
    """

    data: str
    image_root: str | None = None
    self_made: int = 0
    batch_size: int = 8
    holdout_fraction: float = 0.05


class DegradationCollator:
    """Pictures to batches of pairs: sequence 2i is crop i with weaker faults, 2i + 1 the same with stronger ones.

    Args:
        processor: Cuts and pads.
        limits: At most so many random patches per scale; None keeps all (see `subset_patches`).
        seed: None draws anew every time; a number makes the pairs a function of the row, for evaluation.
        fixed_length: Pad to the most patches that `limits` allow, not to the longest of the batch.
    """

    def __init__(
        self,
        processor: MusiqImageProcessor,
        *,
        limits: Sequence[int | None],
        seed: int | None = None,
        fixed_length: bool = False,
    ):
        self.processor = processor
        self.pad = make_padder(processor, limits, fixed_length=fixed_length)
        self.limits = limits
        self.seed = seed

    def _pair(self, row: dict[str, Any]) -> tuple[list[Image.Image], list[list[float]]]:
        if row["picture_seed"] is not None:
            image = make_picture(seed=row["picture_seed"])
        else:
            image = to_rgb_picture(open_picture(row["image"]))
        return make_fault_pair(image)

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        features, strengths = [], []
        for row in rows:
            with torch.random.fork_rng(devices=[], enabled=self.seed is not None):
                if self.seed is not None:
                    torch.default_generator.manual_seed(self.seed + row["index"])
                pair, values = self._pair(row)
                features += [random_sequence(self.processor, picture, self.limits) for picture in pair]
            strengths += values
        batch = self.pad(features)
        batch["labels"] = torch.tensor(strengths).view(len(rows), 2, len(KINDS))
        return batch


class DegradationModel(nn.Module):
    """A MUSIQ whose score ranks pairs, with a second head on the CLS token for kind and strength of the faults.

    Only the MUSIQ is kept after training.
    """

    # The Trainer would otherwise rescale the mean loss by the number of processes or accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, quality: MusiqForImageQualityAssessment):
        super().__init__()
        self.quality = quality
        self.fault_head = nn.Linear(quality.config.hidden_size, 2 * len(KINDS))

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Three losses, equally weighted.

        Args:
            labels: Strengths, 0 = fault absent, shape (num_pairs, 2, number of kinds).
            **inputs: What the MUSIQ takes, for 2 * num_pairs pictures.

        Returns:
            `loss`; `logits` (num_pairs, 2, 1 + 2 * number of kinds): rank score, kinds, strengths.
        """
        pooled = self.quality.musiq(**inputs).pooler_output
        # (2 * num_pairs, D) -> (num_pairs, 2, D)
        pooled = pooled.view(len(labels), 2, -1)
        ranks = self.quality.head(pooled)
        kinds, strengths = self.fault_head(pooled).chunk(2, dim=-1)
        present = labels > 0
        loss = F.binary_cross_entropy_with_logits(kinds, present.to(kinds.dtype)) * len(KINDS) ** 0.5
        loss = loss + ((strengths - labels).abs() * present).sum() / present.sum().clamp(min=1)
        loss = loss + rank_loss(ranks[:, 0, 0], ranks[:, 1, 0])
        return {"loss": loss, "logits": torch.cat((ranks, kinds, strengths), dim=-1)}


def _compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Part of the pairs ranked rightly, of the faults told from the absent ones, and mean error of the strengths."""
    logits, labels = prediction.predictions, prediction.label_ids
    count, present = len(KINDS), labels > 0
    return {
        "pair_accuracy": float((logits[:, 0, 0] > logits[:, 1, 0]).mean()),
        "kind_accuracy": float(((logits[..., 1 : 1 + count] > 0) == present).mean()),
        "strength_error": float(abs(logits[..., 1 + count :] - labels)[present].mean()),
    }


def _rows(settings: PretrainSettings) -> Any:
    import datasets

    pictures = load_pictures(settings.data, image_root=settings.image_root)
    pictures = pictures.add_column("picture_seed", [None] * len(pictures), feature=datasets.Value("int64"))
    if settings.self_made:
        made = {"image": [None] * settings.self_made, "picture_seed": list(range(settings.self_made))}
        pictures = datasets.concatenate_datasets(
            [pictures, datasets.Dataset.from_dict(made, features=pictures.features)]
        )
    return pictures.add_column("index", list(range(len(pictures))))


def _standardize_head(weights: dict[str, torch.Tensor], ranks: np.ndarray) -> None:
    """Logits in deviations of the held-out rank scores, so that fine-tuning can carry the head to opinion scores."""
    scale, bias = float(ranks.std()) or 1.0, weights["head.classifier.bias"]
    weights["head.classifier.bias"] = (bias - float(ranks.mean())) / scale
    weights["head.classifier.weight"] = weights["head.classifier.weight"] / scale


def pretrain_quality(settings: PretrainSettings) -> dict[str, float]:
    """Pre-train, keep the epoch with the best ranking of held-out pairs, and save the MUSIQ.

    Args:
        settings: What to train on what, and how.

    Returns:
        Held-out metrics of the kept epoch, also in `output_dir/metrics.json`.

    Raises:
        ValueError: If data, model or settings are wrong; before anything is trained.
    """
    set_seed(settings.seed)
    checkpoint = find_last_checkpoint(settings)
    parts = _rows(settings).train_test_split(test_size=settings.holdout_fraction, seed=settings.seed)
    model = load_model(settings.model, architecture=settings.architecture)
    processor = load_processor(settings.model, model.config, architecture=settings.architecture)
    check_fixed_shapes(settings, processor, parts["train"])
    limits = settings.patch_limits(processor)
    trainer = make_trainer(
        settings,
        best_metric="pair_accuracy",
        model=DegradationModel(model),
        train_dataset=parts["train"],
        eval_dataset=parts["test"],
        data_collator=DegradationCollator(processor, limits=limits, fixed_length=settings.fixed_shapes),
        eval_collator=DegradationCollator(processor, limits=[None] * len(limits), seed=settings.seed),
        compute_metrics=_compute_metrics,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()
    held_out = trainer.predict(parts["test"], metric_key_prefix="eval")
    report = {name: value for name, value in held_out.metrics.items() if name.removeprefix("eval_") in METRICS}
    weights = trainer.trained_weights("quality.")
    if trainer.is_world_process_zero():
        _standardize_head(weights, held_out.predictions[..., 0])
        model.config.score_offset, model.config.score_scale = MADE_UP_UNIT
        save_checkpoint(model, processor, settings.output_dir, dtype=settings.save_dtype, weights=weights)
        add_remote_code(settings.output_dir)
        write_json(Path(settings.output_dir) / "metrics.json", report)
    return report
