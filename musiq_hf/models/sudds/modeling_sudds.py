# SPDX-License-Identifier: Apache-2.0
"""Upscaling detector after SUDDS: names the method by which a picture was upscaled, or none.

Patches of a picture, and its spectrum, are classified, and the patches vote.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from .backbones_sudds import UpscalingDetectorExtractor
from .checks_sudds import CheckedPreTrainedModel, shorten
from .configuration_sudds import SMALLEST_PATCH, UpscalingDetectorConfig
from .publishing_sudds import PublishedModel
from .spectrum_sudds import PIECE

SPECTRUM_SIZE = 2 * PIECE
LEAST_SHARE = 1e-6  # of a label that no patch voted for: its logarithm stays finite
MOMENTUM = 0.1  # weight of a batch in the running statistics of spectra, that of PyTorch's batch norms


@dataclass
class UpscalingDetectorOutput(ModelOutput):
    """Output of `UpscalingDetectorForImageClassification`.

    Attributes:
        loss: Cross entropy, the mean over all patches of the batch.
        logits: Logarithms of the probabilities of each picture, shape (batch_size, num_labels).
        patch_logits: Logits of each patch, shape (batch_size, num_patches, num_labels); 0 for padding.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    patch_logits: torch.Tensor | None = None


class SpectrumNorm(nn.Module):
    """Standardisation of spectra by running statistics, as by a batch norm that learns nothing, in float32."""

    running_mean: torch.Tensor
    running_var: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(SPECTRUM_SIZE))
        self.register_buffer("running_var", torch.ones(SPECTRUM_SIZE))

    def forward(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return standardised spectra (b, 128); a batch of one is not enough for statistics of its own."""
        mean, variance = self.running_mean.float(), self.running_var.float()
        uses_batch = self.training and len(spectrum) > 1
        normed = F.batch_norm(spectrum.float(), mean, variance, training=uses_batch, momentum=MOMENTUM)
        if uses_batch:
            self.running_mean.copy_(mean)
            self.running_var.copy_(variance)
        return normed


class UpscalingDetectorHead(nn.Module):
    """Linear layers with ReLU and dropout between them."""

    def __init__(self, config: UpscalingDetectorConfig, num_features: int):
        super().__init__()
        sizes = [num_features, *[config.hidden_size] * (config.num_head_layers - 1), config.num_labels]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes, sizes[1:], strict=False))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits (b, num_labels) of features (b, num_features), in the precision of the weights."""
        *hidden_layers, last = self.layers
        hidden = features.to(last.weight.dtype)  # type: ignore[arg-type]
        for layer in hidden_layers:
            hidden = self.dropout(torch.relu(layer(hidden)))
        logits: torch.Tensor = last(hidden)
        return logits


def vote(patch_logits: torch.Tensor, patch_mask: torch.Tensor, *, by_majority: bool) -> torch.Tensor:
    """Let the patches of each picture vote.

    Args:
        patch_logits: Logits of the patches, shape (b, k, labels).
        patch_mask: 1 for a patch and 0 for padding, bool (b, k).
        by_majority: Whether each patch has one vote, for its most probable label; else its probabilities count.

    Returns:
        Logarithms of the shares of the labels, float32 (b, labels).
    """
    weights = patch_mask.to(torch.float32)[..., None]
    count = weights.sum(dim=1)
    if by_majority:
        votes = F.one_hot(patch_logits.argmax(dim=-1), patch_logits.shape[-1]).float()
        return ((votes * weights).sum(dim=1) / count).clamp_min(LEAST_SHARE).log()
    probabilities = patch_logits.float().log_softmax(dim=-1).masked_fill(weights == 0, -math.inf)
    return probabilities.logsumexp(dim=1) - count.log()


class UpscalingDetectorPreTrainedModel(PublishedModel, CheckedPreTrainedModel):
    """Base of the detector: class of the configuration, capabilities, and initial weights as in torchvision."""

    config_class = UpscalingDetectorConfig
    config: UpscalingDetectorConfig
    base_model_prefix = "extractor"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    # The Trainer would otherwise rescale our mean-reduced loss by the number of processes or accumulation steps.
    accepts_loss_kwargs = False
    # Logits are compared with each other, and spectra have a wide range.
    _keep_in_fp32_modules_strict = {"head", "spectrum_norm"}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise a layer: convolutions by He's rule, linear layers as PyTorch does."""
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            bound = module.in_features**-0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        if isinstance(module, nn.BatchNorm2d | SpectrumNorm):
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)


class UpscalingDetectorForImageClassification(UpscalingDetectorPreTrainedModel):
    """Detector of upscaled pictures: patches and a spectrum to the probabilities of methods."""

    def __init__(self, config: UpscalingDetectorConfig):
        super().__init__(config)
        self.extractor = UpscalingDetectorExtractor(config)
        self.spectrum_norm = SpectrumNorm() if config.use_spectrum else None
        num_features = self.extractor.num_features + (SPECTRUM_SIZE if config.use_spectrum else 0)
        self.head = UpscalingDetectorHead(config, num_features)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        patch_mask: torch.Tensor | None = None,
        spectrum: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> UpscalingDetectorOutput:
        """Classify a batch of pictures.

        Args:
            pixel_values: RGB in [0, 1], float, shape (batch_size, num_patches, 3, p, p), or (batch_size, 3, p, p) for
                one patch of each picture.
            patch_mask: 1 for a patch and 0 for padding, shape (batch_size, num_patches); None = no padding.
            spectrum: Spectrum of each picture, float, shape (batch_size, 128); only if the model uses it.
            labels: Index of the label of each picture, int64 (batch_size,).
            **kwargs: `return_dict`.

        Returns:
            `UpscalingDetectorOutput`; the softmax of `logits` is the probabilities of a picture.

        Raises:
            ValueError: If a tensor is missing or has a wrong shape, or an argument is unknown.
        """
        if unknown := kwargs.keys() - {"return_dict"}:
            raise ValueError(f"The detector takes no argument {', '.join(sorted(unknown))}.")
        patches = self._check_patches(pixel_values)
        patch_mask = self._check_mask(patch_mask, patches)
        spectrum = self._check_spectrum(spectrum, patches)
        patch_logits = self._classify(patches, patch_mask, spectrum)
        loss = None if labels is None else self._measure_loss(patch_logits, patch_mask, labels)
        logits = vote(patch_logits, patch_mask, by_majority=self.config.vote == "majority")
        return UpscalingDetectorOutput(loss=loss, logits=logits, patch_logits=patch_logits)

    def _classify(
        self, patches: torch.Tensor, patch_mask: torch.Tensor, spectrum: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the logits of patches, shape (batch_size, num_patches, num_labels); 0 for padding."""
        images, is_patch = patches.flatten(0, 1), patch_mask.flatten()
        rows = spectrum
        if self.spectrum_norm is not None and rows is not None:
            rows = self._hide_some(self.spectrum_norm(rows)).repeat_interleave(patches.shape[1], dim=0)
        if self.training:  # padding must not enter the statistics of batch norms
            images, rows = images[is_patch], None if rows is None else rows[is_patch]
        features = self.extractor(images.to(self.dtype))
        logits = self.head(features if rows is None else torch.cat([features.to(rows.dtype), rows], dim=1))
        if self.training:
            logits = logits.new_zeros(len(is_patch), logits.shape[1]).masked_scatter(is_patch[:, None], logits)
        return (logits * is_patch[:, None]).view(*patches.shape[:2], -1)

    def _hide_some(self, spectrum: torch.Tensor) -> torch.Tensor:
        """Return standardised spectra, of which a step of training makes some the mean of all."""
        if not self.training or self.config.spectrum_dropout == 0:
            return spectrum
        return spectrum * (torch.rand(len(spectrum), 1, device=spectrum.device) >= self.config.spectrum_dropout)

    def _measure_loss(
        self, patch_logits: torch.Tensor, patch_mask: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return the cross entropy of patches, each with the label of its picture."""
        if labels.shape != patch_mask.shape[:1]:
            raise ValueError(f"`labels` must have shape ({len(patch_mask)},), got {tuple(labels.shape)}.")
        last = patch_logits.shape[-1] - 1
        is_whole = not labels.is_floating_point()
        if not (torch.compiler.is_compiling() or (is_whole and bool(((labels >= 0) & (labels <= last)).all()))):
            raise ValueError(f"`labels` must be whole numbers from 0 to {last}, got {shorten(labels.tolist())}.")
        targets = labels.to(patch_logits.device)[:, None].expand(patch_mask.shape)
        losses = F.cross_entropy(patch_logits.float().transpose(1, 2), targets, reduction="none")
        return (losses * patch_mask).sum() / patch_mask.sum()

    @staticmethod
    def _check_patches(pixel_values: torch.Tensor | None) -> torch.Tensor:
        """Return patches of shape (batch_size, num_patches, 3, p, p), or raise a ValueError."""
        if pixel_values is None:
            raise ValueError("`pixel_values` is required: pass the output of `UpscalingDetectorImageProcessor`.")
        patches = pixel_values[:, None] if pixel_values.dim() == 4 else pixel_values
        has_shape = patches.dim() == 5 and patches.shape[2] == 3 and min(patches.shape[3:]) >= SMALLEST_PATCH
        if not (has_shape and patches.numel() and patches.is_floating_point()):
            raise ValueError(
                "`pixel_values` must be float of shape (batch_size, num_patches, 3, p, p) with p at least "
                f"{SMALLEST_PATCH}, got {tuple(pixel_values.shape)} of {pixel_values.dtype}. Did you skip "
                "`UpscalingDetectorImageProcessor`?"
            )
        return patches

    @staticmethod
    def _check_mask(patch_mask: torch.Tensor | None, patches: torch.Tensor) -> torch.Tensor:
        """Return a mask of patches, bool (batch_size, num_patches), or raise a ValueError."""
        if patch_mask is None:
            return torch.ones(patches.shape[:2], dtype=torch.bool, device=patches.device)
        if patch_mask.shape != patches.shape[:2]:
            raise ValueError(
                f"`patch_mask` must have shape {tuple(patches.shape[:2])}, got {tuple(patch_mask.shape)}."
            )
        is_patch = patch_mask.to(device=patches.device, dtype=torch.bool)
        if not torch.compiler.is_compiling() and not is_patch.any(dim=1).all():  # a traced graph cannot branch
            raise ValueError("`patch_mask` must leave each picture at least one patch, got a row of zeros.")
        return is_patch

    def _check_spectrum(self, spectrum: torch.Tensor | None, patches: torch.Tensor) -> torch.Tensor | None:
        """Return spectra on the device of the patches, or raise a ValueError if they are missing or not used."""
        expected = (len(patches), SPECTRUM_SIZE)
        if not self.config.use_spectrum and spectrum is not None:
            raise ValueError("This detector uses no `spectrum`: its image processor must have `use_spectrum=False`.")
        if self.config.use_spectrum and (spectrum is None or spectrum.shape != expected):
            got = "nothing" if spectrum is None else tuple(spectrum.shape)
            raise ValueError(
                f"`spectrum` must have shape {expected}, got {got}. Pass the output of "
                "`UpscalingDetectorImageProcessor`."
            )
        return None if spectrum is None else spectrum.to(patches.device)


__all__ = [
    "UpscalingDetectorForImageClassification",
    "UpscalingDetectorOutput",
    "UpscalingDetectorPreTrainedModel",
]
