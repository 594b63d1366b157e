# SPDX-License-Identifier: Apache-2.0
"""Pre-training by W-MSE: views of one picture get equal embeddings, and those of all pictures fill the space.

The method is "Whitening for Self-Supervised Representation Learning" (Ermolov et al., ICML 2021). Its views change
size, colour and sharpness, which would make a model blind to quality. Views here are native crops, mirrored or not,
of which the model sees its random subset of patches: they change no pixel.
"""

from collections import OrderedDict
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from PIL import Image, ImageOps
from torch import nn
from transformers import EvalPrediction

from ...common.checks import check_counts
from ...pictures.augmentations import crop_fraction
from ..settings import check_fractions, setting
from ..starting import first_layer, forget_scores, run_with_features
from .objectives import CopyCollator, Objective
from .whitening import w_mse_loss

MIN_CROP = 0.5  # smallest part of each side of a picture that a view keeps
HEAD_WIDTH = 1024  # of the published head
MEANING = "It has learned no scores: its head is fresh, and what it answers means nothing."


@dataclass(kw_only=True)
class WhiteningSettings:
    """Settings of the objective "whitening"."""

    views: int = setting(2, "Views of each picture. This and the next four are of the objective `whitening`.")
    embedding_size: int = setting(16, "Numbers in the embedding of a view.")
    sub_batch: int | None = setting(
        None,
        "Pictures that are whitened together. They divide `batch_size`, and are at least twice `embedding_size`. "
        "None = the whole batch.",
    )
    num_slicings: int = setting(1, "Times that a batch is dealt into such slices, for a mean over them.")
    whitening_eps: float = setting(0.0, "Share of the identity that is mixed into the covariance of the embeddings.")

    def check_whitening(self, batch_size: int) -> None:
        """Raise a ValueError if these settings do not fit each other or a batch."""
        check_counts(self, "embedding_size", "sub_batch", "num_slicings")
        check_fractions(self, "whitening_eps")
        if self.views < 2:
            raise ValueError(f"`views` must be at least 2, since views are compared, got {self.views}.")
        if batch_size % (self.sub_batch or batch_size):
            raise ValueError(f"`sub_batch` must divide `batch_size`, which is {batch_size}, got {self.sub_batch}.")
        name, size = ("batch_size", batch_size) if self.sub_batch is None else ("sub_batch", self.sub_batch)
        if size < 2 * self.embedding_size:
            raise ValueError(
                f"`{name}` must be at least twice `embedding_size`, which is {self.embedding_size}, got {size}. "
                "Whitening fewer pictures follows their chance."
            )

    def refuse_whitening(self) -> None:
        """Raise a ValueError if one of these settings is given although another objective reads none of them."""
        given = [item.name for item in fields(WhiteningSettings) if getattr(self, item.name) != item.default]
        if given:
            names = ", ".join(f"`{name}`" for name in given)
            raise ValueError(f"{names}: only the objective whitening has this. Leave it out, or add that objective.")


class ViewCollator(CopyCollator):
    """Collator of pictures to batches of native crops, each mirrored or not, without labels.

    Args:
        *args: Arguments of `CopyCollator`.
        views: Views of each picture.
        **kwargs: Keyword arguments of `CopyCollator`.
    """

    def __init__(self, *args: Any, views: int, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.views = views

    def make_copies(self, image: Image.Image) -> tuple[list[Image.Image], None]:
        crops = [crop_fraction(image, min_fraction=MIN_CROP) for _ in range(self.views)]
        return [ImageOps.mirror(crop) if torch.rand(()) < 0.5 else crop for crop in crops], None


class WhiteningModel(nn.Module):
    """Quality model whose features a second head turns into embeddings, for W-MSE.

    That head reads what the head of the model reads, and is thrown away after training.

    Args:
        quality: Quality model of any family.
        settings: Settings of the objective.
    """

    # The Trainer would otherwise rescale the mean loss by the number of processes or accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, quality: Any, settings: WhiteningSettings):
        super().__init__()
        self.quality = quality
        self.settings = settings
        layers = {  # named, so that the weights of the norm do not decay
            "hidden": nn.Linear(first_layer(quality).in_features, HEAD_WIDTH),
            "norm": nn.BatchNorm1d(HEAD_WIDTH),
            "activation": nn.ReLU(),
            "embedding": nn.Linear(HEAD_WIDTH, settings.embedding_size),
        }
        self.embedding_head = nn.Sequential(OrderedDict(layers))

    def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Compute the embeddings of views and, while training, their loss.

        In evaluation there is no loss of a batch, since it may be smaller than a slice.

        Args:
            **inputs: Batch of n * views crops, as the quality model takes it, those of a picture side by side.

        Returns:
            `logits`, the embeddings, shape (n, views, embedding_size); in training mode also `loss`.
        """
        settings = self.settings
        _, features = run_with_features(self.quality, **inputs)
        embeddings = self.embedding_head(features).unflatten(0, (-1, settings.views))
        if not self.training:
            return {"logits": embeddings}
        loss = w_mse_loss(
            embeddings.transpose(0, 1),  # (n, views, e) -> (views, n, e)
            sub_batch=settings.sub_batch,
            num_slicings=settings.num_slicings,
            eps=settings.whitening_eps,
        )
        return {"loss": loss, "logits": embeddings}


def effective_rank(embeddings: torch.Tensor) -> float:
    """Measure how many directions embeddings fill: 1 if all lie on a line, e if they are alike in all directions.

    It is the exponential of the entropy of the eigenvalues of their covariance, divided by their sum ("The effective
    rank", Roy & Vetterli, EUSIPCO 2007).

    Args:
        embeddings: Embeddings, shape (n, e).

    Returns:
        Effective rank, from 1 to e; NaN if all embeddings are equal.
    """
    centred = embeddings.double() - embeddings.double().mean(dim=0)
    values = torch.linalg.eigvalsh(centred.mT @ centred).clamp(min=0)
    return float(torch.special.entr(values / values.sum()).sum().exp())


def _measure_views(prediction: EvalPrediction, *, slice_size: int, eps: float) -> dict[str, float]:
    """Compute the loss of embeddings (n, views, e) in slices, without a last smaller one, and their effective rank."""
    embeddings = torch.as_tensor(prediction.predictions, dtype=torch.float32)
    order = torch.arange(len(embeddings) - len(embeddings) % slice_size)
    loss = w_mse_loss(embeddings[order].transpose(0, 1), sub_batch=slice_size, eps=eps, permutations=order[None])
    return {"loss": float(loss), "effective_rank": effective_rank(embeddings.flatten(0, 1))}


def whitening_objective(quality: Any, settings: WhiteningSettings, *, batch_size: int) -> Objective:
    """Make the objective that whitens embeddings of views.

    Args:
        quality: Quality model of any family; its head is made fresh.
        settings: Settings of the objective.
        batch_size: Pictures per step and device.
    """
    forget_scores(quality)
    slice_size = settings.sub_batch or batch_size
    return Objective(
        collator=partial(ViewCollator, views=settings.views),
        whole=WhiteningModel(quality, settings),
        compute_metrics=partial(_measure_views, slice_size=slice_size, eps=settings.whitening_eps),
        metrics=("loss", "effective_rank"),
        best_metric="loss",
        full_batches=True,
        min_held_out=slice_size,
        meaning=MEANING,
    )
