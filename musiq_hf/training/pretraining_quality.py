# SPDX-License-Identifier: Apache-2.0
"""Pre-training without human scores: predict kind and strength of made faults, and rank pairs by strength.

It is stage 1 of `musiq-tiny-biq2021`, and a choice of ours for data too small to learn a quality model from scratch.
The paper pre-trains on ImageNet classes (section 4.2). Each sample is a random crop at two strengths of the same
faults, so the better one of the two is known without any score.
"""

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
from ..data.batches import WHOLE_PICTURE, cut_picture, pad_features
from ..data.loading import load_pictures
from ..hub.checkpoints import save_checkpoint
from ..models import family_of
from ..models.protocol import QualityProcessor, TrainingView
from ..pictures.degradations import to_rgb_picture
from ..pictures.fault_pairs import KINDS, make_fault_pair
from ..pictures.opening import open_picture
from ..pictures.synthetic import make_picture
from .losses import rank_loss
from .self_supervised.localisation import add_localisation
from .settings import LocalisationSettings, needed, setting
from .starting import check_start, find_rates, first_layer, last_layer, load_start, run_with_features
from .trainer import find_last_checkpoint, fixed_length, make_trainer

MADE_UP_UNIT = (50.0, 20.0)  # mean and standard deviation of the scores, which ranking alone does not give
METRICS = ("loss", "pair_accuracy", "kind_accuracy", "strength_error")


@dataclass(kw_only=True)
class PretrainSettings(LocalisationSettings):
    """Settings of `pretrain_quality`; those of every run are in `RunSettings`."""

    data: str = needed(
        "A folder of pictures, or what `load_scored_images` reads, of which the train pictures are used."
    )
    image_root: str | None = setting(
        None, "Directory that the paths of a table start from; None = the table's own directory."
    )
    self_made: int = setting(0, "Number of self-made pictures (`musiq_hf.pictures.synthetic`) added to them.")
    batch_size: int = setting(8, "Pairs per step and device.")
    holdout_fraction: float = setting(0.05, "Part of the pictures held out to choose the best epoch.")


class DegradationCollator:
    """Collator of pictures to batches of pairs of crops.

    Pictures 2i and 2i + 1 of a batch are the same crop, first with weaker faults, then with stronger ones.

    Args:
        processor: Image processor of the model.
        view: Part of a picture that a training step sees.
        seed: Seed that gives every row the same pair each time, for evaluation; None draws anew every time.
        length: Number of tokens to which every batch is padded; None pads to its longest picture.
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

    def _make_pair(self, row: dict[str, Any]) -> tuple[list[Image.Image], list[list[float]]]:
        if row["picture_seed"] is not None:
            image = make_picture(seed=row["picture_seed"])
        else:
            image = to_rgb_picture(open_picture(row["image"]))
        return make_fault_pair(image)

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        features, strengths = [], []
        view = self.view.for_batch() if self.seed is None else self.view
        for row in rows:
            with torch.random.fork_rng(devices=[], enabled=self.seed is not None):
                if self.seed is not None:
                    torch.default_generator.manual_seed(self.seed + row["index"])
                pair, values = self._make_pair(row)
                features += [cut_picture(self.processor, picture, view) for picture in pair]
            strengths += values
        batch = pad_features(self.processor, features, length=self.length)
        batch["labels"] = torch.tensor(strengths).view(len(rows), 2, len(KINDS))
        return batch


class DegradationModel(nn.Module):
    """Quality model whose score ranks pairs, with a second head for kind and strength of the faults.

    The second head reads what the head of the model reads. Only the quality model is kept after training.

    Args:
        quality: Quality model with one label.
    """

    # The Trainer would otherwise rescale the mean loss by the number of processes or accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, quality: Any):
        super().__init__()
        self.quality = quality
        self.fault_head = nn.Linear(first_layer(quality).in_features, 2 * len(KINDS))

    def forward(self, labels: torch.Tensor, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the sum of three losses: on the kinds of the faults, on their strengths, and on the ranking.

        Args:
            labels: Strengths of the faults, 0 = fault absent, shape (num_pairs, 2, num_kinds).
            **inputs: Batch of 2 * num_pairs pictures, as the quality model takes it.

        Returns:
            `loss`, and `logits` of shape (num_pairs, 2, 1 + 2 * num_kinds): rank score, kinds, strengths.
        """
        outputs, features = run_with_features(self.quality, **inputs)
        ranks = outputs.logits.reshape(len(labels), 2, -1)  # (2 * num_pairs, 1) -> (num_pairs, 2, 1)
        features = features.reshape(len(labels), 2, -1)  # (2 * num_pairs, width) -> (num_pairs, 2, width)
        kinds, strengths = self.fault_head(features).chunk(2, dim=-1)
        present = labels > 0
        loss = F.binary_cross_entropy_with_logits(kinds, present.to(kinds.dtype)) * len(KINDS) ** 0.5
        loss = loss + ((strengths - labels).abs() * present).sum() / present.sum().clamp(min=1)
        loss = loss + rank_loss(ranks[:, 0, 0], ranks[:, 1, 0])
        return {"loss": loss, "logits": torch.cat((ranks, kinds, strengths), dim=-1)}


def _compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Compute the accuracy of the ranking, that of telling present faults from absent ones, and the strength error."""
    logits, labels = prediction.predictions, prediction.label_ids
    count, present = len(KINDS), labels > 0
    return {
        "pair_accuracy": float((logits[:, 0, 0] > logits[:, 1, 0]).mean()),
        "kind_accuracy": float(((logits[..., 1 : 1 + count] > 0) == present).mean()),
        "strength_error": float(abs(logits[..., 1 + count :] - labels)[present].mean()),
    }


def _load_rows(settings: PretrainSettings) -> Any:
    import datasets

    pictures = load_pictures(settings.data, image_root=settings.image_root)
    pictures = pictures.add_column("picture_seed", [None] * len(pictures), feature=datasets.Value("int64"))
    if settings.self_made:
        made = {"image": [None] * settings.self_made, "picture_seed": list(range(settings.self_made))}
        pictures = datasets.concatenate_datasets(
            [pictures, datasets.Dataset.from_dict(made, features=pictures.features)]
        )
    return pictures.add_column("index", list(range(len(pictures))))


def _standardize_head(model: Any, weights: dict[str, torch.Tensor], ranks: np.ndarray) -> None:
    """Scale the logits to mean 0 and deviation 1 on held-out pictures.

    Fine-tuning can carry such a head to opinion scores.
    """
    layer = last_layer(model)
    if layer.bias is None:  # fine-tuning sets the unit of such a head by its labels alone
        return
    name = next(name for name, module in model.named_modules() if module is layer)
    scale, bias = float(ranks.std()) or 1.0, weights[f"{name}.bias"]
    weights[f"{name}.bias"] = (bias - float(ranks.mean())) / scale
    weights[f"{name}.weight"] = weights[f"{name}.weight"] / scale


def pretrain_quality(settings: PretrainSettings) -> dict[str, float]:
    """Pre-train, keep the epoch with the best ranking of held-out pairs, and save the quality model.

    Args:
        settings: Settings of the run: model, data and hyperparameters.

    Returns:
        Metrics of the kept epoch on the held-out pictures, also in `output_dir/metrics.json`.

    Raises:
        ValueError: If data, model or settings are wrong; nothing has been trained then.
    """
    set_seed(settings.seed)
    checkpoint = find_last_checkpoint(settings)
    check_start(settings)
    parts = _load_rows(settings).train_test_split(test_size=settings.holdout_fraction, seed=settings.seed)
    model, processor = load_start(settings)
    view = settings.training_view(family_of(model.config))
    length = fixed_length(settings, processor, view, parts["train"])
    whole = add_localisation(DegradationModel(model), model, settings)
    trainer = make_trainer(
        settings,
        best_metric="pair_accuracy",
        model=whole,
        rates=find_rates(model, settings.rates, whole=whole),
        train_dataset=parts["train"],
        eval_dataset=parts["test"],
        data_collator=DegradationCollator(processor, view=view, length=length),
        eval_collator=DegradationCollator(processor, view=WHOLE_PICTURE, seed=settings.seed),
        compute_metrics=_compute_metrics,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()
    held_out = trainer.predict(parts["test"], metric_key_prefix="eval")
    report = {name: value for name, value in held_out.metrics.items() if name.removeprefix("eval_") in METRICS}
    weights = trainer.trained_weights("quality.")
    if trainer.is_world_process_zero():
        _standardize_head(model, weights, held_out.predictions[..., 0])
        model.config.score_offset, model.config.score_scale = MADE_UP_UNIT
        save_checkpoint(model, processor, settings.output_dir, dtype=settings.save_dtype, weights=weights)
        write_json(Path(settings.output_dir) / "metrics.json", report)
    return report
