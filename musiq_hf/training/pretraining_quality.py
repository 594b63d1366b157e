# SPDX-License-Identifier: Apache-2.0
"""Pre-training without human scores: predict kind and strength of made faults, and rank pairs by strength.

It is stage 1 of `musiq-tiny-biq2021`, and a choice of ours for data too small to learn a quality model from scratch.
The paper pre-trains on ImageNet classes (section 4.2). Each sample is a random crop at two strengths of the same
faults, so the better one of the two is known without any score. The other objective needs no faults: it whitens the
embeddings of views, see `self_supervised.view_whitening`.
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

from ..common.files import write_json, write_text
from ..data.batches import WHOLE_PICTURE
from ..data.loading import load_pictures
from ..hub.checkpoints import CARD, save_checkpoint
from ..models import family_of
from ..pictures.fault_pairs import KINDS, make_fault_pair
from .losses import rank_loss
from .self_supervised.localisation import add_localisation
from .self_supervised.objectives import CopyCollator, Objective
from .self_supervised.view_whitening import WhiteningSettings, whitening_objective
from .settings import LocalisationSettings, needed, setting
from .starting import check_start, find_rates, first_layer, last_layer, load_start, run_with_features
from .trainer import find_last_checkpoint, fixed_length, make_trainer, num_processes

MADE_UP_UNIT = (50.0, 20.0)  # mean and standard deviation of the scores, which ranking alone does not give
MEANING = "Its scores rank made faults alone, and their unit, mean 50 and deviation 20, is made up."
METRICS = ("loss", "pair_accuracy", "kind_accuracy", "strength_error")


@dataclass(kw_only=True)
class PretrainSettings(WhiteningSettings, LocalisationSettings):
    """Settings of `pretrain_quality`; those of every run are in `RunSettings`."""

    data: str = needed(
        "A folder of pictures, or what `load_scored_images` reads, of which the train pictures are used."
    )
    image_root: str | None = setting(
        None, "Directory that the paths of a table start from; None = the table's own directory."
    )
    self_made: int = setting(0, "Number of self-made pictures (`musiq_hf.pictures.synthetic`) added to them.")
    objective: str = setting(
        "faults",
        'Task to learn: "faults" predicts made faults and ranks pairs of copies by their strength; "whitening" brings '
        "views of one picture together and keeps the whitened embeddings of all apart (W-MSE).",
        choices=("faults", "whitening"),
    )
    batch_size: int = setting(8, "Pictures per step and device, of which copies are made.")
    holdout_fraction: float = setting(0.05, "Part of the pictures held out to choose the best epoch.")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.objective == "whitening":
            self.check_whitening(self.batch_size)
        else:
            self.refuse_whitening()


class DegradationCollator(CopyCollator):
    """Collator of pictures to batches of pairs of crops.

    Pictures 2i and 2i + 1 of a batch are the same crop, first with weaker faults, then with stronger ones. The labels
    are the strengths of the faults, shape (num_pairs, 2, num_kinds).
    """

    def make_copies(self, image: Image.Image) -> tuple[list[Image.Image], list[list[float]]]:
        return make_fault_pair(image)


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


def _faults_objective(quality: Any) -> Objective:
    """Make the objective that predicts made faults and ranks pairs by their strength."""

    def finish(weights: dict[str, torch.Tensor], predictions: np.ndarray) -> None:
        _standardize_head(quality, weights, predictions[..., 0])
        quality.config.score_offset, quality.config.score_scale = MADE_UP_UNIT

    return Objective(
        collator=DegradationCollator,
        whole=DegradationModel(quality),
        compute_metrics=_compute_metrics,
        metrics=METRICS,
        best_metric="pair_accuracy",
        eval_view=WHOLE_PICTURE,
        meaning=MEANING,
        finish=finish,
    )


def _make_objective(quality: Any, settings: PretrainSettings) -> Objective:
    if settings.objective == "whitening":
        return whitening_objective(quality, settings, batch_size=settings.batch_size)
    return _faults_objective(quality)


def _check_pictures(objective: Objective, settings: PretrainSettings, parts: Any) -> None:
    """Raise a ValueError if there are too few pictures for a batch, or for measuring the objective."""
    needed = settings.batch_size * num_processes()
    if objective.full_batches and len(parts["train"]) < needed:
        raise ValueError(
            f"The objective {settings.objective} needs a full batch of {needed} pictures for training, got "
            f"{len(parts['train'])}. Give more pictures, or a smaller `batch_size`."
        )
    if len(parts["test"]) < objective.min_held_out:
        raise ValueError(
            f"The objective {settings.objective} is measured on {objective.min_held_out} held-out pictures or more, "
            f"got {len(parts['test'])}. Give more pictures, or a larger `holdout_fraction`."
        )


def pretrain_quality(settings: PretrainSettings) -> dict[str, float]:
    """Pre-train, keep the epoch that is best on held-out pictures, and save the quality model.

    The best epoch ranks most pairs of faults rightly, or has the lowest loss of whitening.

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
    objective = _make_objective(model, settings)
    _check_pictures(objective, settings, parts)
    whole = add_localisation(objective.whole, model, settings, unlabelled=True)
    trainer = make_trainer(
        settings,
        best_metric=objective.best_metric,
        full_batches=objective.full_batches,
        model=whole,
        rates=find_rates(model, settings.rates, whole=whole),
        train_dataset=parts["train"],
        eval_dataset=parts["test"],
        data_collator=objective.collator(processor, view=view, length=length),
        eval_collator=objective.collator(processor, view=objective.eval_view or view, seed=settings.seed),
        compute_metrics=objective.compute_metrics,
    )
    trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_state()
    held_out = trainer.predict(parts["test"], metric_key_prefix="eval")
    report = {
        name: value for name, value in held_out.metrics.items() if name.removeprefix("eval_") in objective.metrics
    }
    weights = trainer.trained_weights("quality.")
    if trainer.is_world_process_zero():
        if objective.finish is not None:
            objective.finish(weights, held_out.predictions)
        save_checkpoint(model, processor, settings.output_dir, dtype=settings.save_dtype, weights=weights)
        text = f"{objective.meaning} Fine-tune it before you score pictures.\n"
        write_text(Path(settings.output_dir) / CARD, f"# Pre-trained on pictures without scores\n\n{text}")
        write_json(Path(settings.output_dir) / "metrics.json", report)
    return report
