# SPDX-License-Identifier: Apache-2.0
"""Relative location as a further loss of a training run: the model around that of the run, and the schedule."""

from typing import Any

import torch
from torch import nn

from ...models import family_of
from ...models.protocol import TokenGrid
from ..settings import LocalisationSettings
from .relative_location import RelativeLocation, cell_positions, relative_location_loss, sample_token_pairs

LOCALISATION_LOSS = "localisation_loss"  # in the output of a `LocalisedModel`, and in the log of a run
TASK = "task."  # first part of the names of the weights that are kept
RISE = 20 / 300  # part of the steps over which the weight rises, as in the published runs of 300 epochs


def weight_at(step: int, num_steps: int, largest: float) -> float:
    """Return the weight of the loss in the middle of a step, so that no step has the weight 0.

    Args:
        step: Number of steps of the run before this one.
        num_steps: Number of steps of the run.
        largest: Weight after the first 20/300 of the run, from which it falls to 0 at the end.
    """
    done = (step + 0.5) / num_steps
    return largest * min(done / RISE, (1 - done) / (1 - RISE))


def find_grid(config: Any, settings: LocalisationSettings) -> TokenGrid:
    """Find the grid in which the patches of a model lie.

    Args:
        config: Configuration of the model.
        settings: Settings of the run.

    Raises:
        ValueError: If the tokens of such a model have no place, or pairs across scales are wanted where there is one.
    """
    family = family_of(config)
    if family.token_grid is None:
        raise ValueError(
            f"`localisation_weight`: a {family.name} model has no tokens of patches whose places could be compared. "
            "Leave it out."
        )
    try:
        grid = family.token_grid(config)
    except ValueError as error:
        raise ValueError(f"`localisation_weight`: {error}") from error
    if settings.localisation_across_scales and grid.num_scales < 2:
        raise ValueError("`localisation_across_scales` needs a model with several scales, got one. Leave it out.")
    return grid


class LocalisedModel(nn.Module):
    """Model of a run that also computes the loss on relative locations, from the tokens of the same forward.

    Training batches have this loss. Otherwise the model of the run answers as if it were alone.

    Args:
        task: Model of the run, which has the quality model within or is it.
        quality: Quality model.
        settings: Settings of the run.
        unlabelled: Whether batches without labels have the loss too. Those of fine-tuning are copies for other losses.

    Raises:
        ValueError: If the tokens of such a model have no place, or its encoder is not trained.
    """

    # The Trainer would otherwise rescale the mean loss by the number of processes or accumulation steps.
    accepts_loss_kwargs = False

    def __init__(self, task: nn.Module, quality: Any, settings: LocalisationSettings, *, unlabelled: bool = False):
        super().__init__()
        self.grid = find_grid(quality.config, settings)
        self.num_pairs, self.across_scales = settings.localisation_pairs, settings.localisation_across_scales
        self.unlabelled = unlabelled
        self.task = task
        if hasattr(task, "config"):  # the Trainer notes in it what it would note in that of the model alone
            self.config = task.config
        self.location = RelativeLocation(quality.config.hidden_size)
        encoder = family_of(quality.config).parts(quality)["encoder"]
        if not any(weight.requires_grad for module in encoder for weight in module.parameters()):
            raise ValueError(
                "`localisation_weight` trains the encoder, which `freeze` leaves as it is. Leave one out."
            )
        # By its name, because replicas of this model have base models of their own.
        self.base = next(name for name, module in task.named_modules() if module is quality.base_model)

    def forward(self, **batch: Any) -> Any:
        """Run the model of the run.

        Args:
            **batch: Arguments of that model.

        Returns:
            Its output. In training, a dictionary of it with the loss on relative locations,
            `localisation_loss`, which is not yet part of `loss`.
        """
        if not self.training:
            return self.task(**batch)
        if not (self.unlabelled or "labels" in batch):
            # Several processes need each weight of a step in the graph of every output, or await no gradient of it.
            return {**self.task(**batch), "unused": sum(weight.sum() for weight in self.location.parameters())}
        states: list[torch.Tensor] = []
        base = self.task.get_submodule(self.base)
        hook = base.register_forward_hook(lambda _, inputs, output: states.append(output["last_hidden_state"]))
        try:
            outputs = self.task(**batch, cls_only=False)
        finally:
            hook.remove()
        return {**outputs, LOCALISATION_LOSS: self._compute_loss(states[0][:, 1:], batch)}

    @torch.compiler.disable  # the checks of its pairs read values, and would break the graph at every one
    def _compute_loss(self, tokens: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compute the loss on relative locations from the tokens of patches, shape (batch_size, N, hidden_size)."""
        pairs = sample_token_pairs(
            batch["pixel_attention_mask"],
            self.num_pairs,
            scale_position_ids=batch["scale_position_ids"],
            across_scales=self.across_scales,
        )
        positions = cell_positions(batch["spatial_position_ids"], self.grid.size)
        with torch.autocast(tokens.device.type, enabled=False):
            return relative_location_loss(self.location(tokens.float(), pairs), positions, pairs)


def add_localisation(
    task: nn.Module, quality: Any, settings: LocalisationSettings, *, unlabelled: bool = False
) -> nn.Module:
    """Let the model of a run also compute the loss on relative locations; with the weight 0 it stays as it is.

    Args:
        task: Model of the run, which has the quality model within or is it.
        quality: Quality model.
        settings: Settings of the run.
        unlabelled: Whether batches without labels have the loss too.

    Raises:
        ValueError: If the tokens of such a model have no place, or its encoder is not trained.
    """
    if not settings.localisation_weight:
        return task
    return LocalisedModel(task, quality, settings, unlabelled=unlabelled)


def remove_localisation(model: nn.Module) -> nn.Module:
    """Return the model of a run without what computes the loss on relative locations, if there is anything."""
    return model.task if isinstance(model, LocalisedModel) else model
