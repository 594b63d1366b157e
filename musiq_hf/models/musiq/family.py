# SPDX-License-Identifier: Apache-2.0
"""MUSIQ as a model family: all that the rest of the package knows of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import nn

from ..protocol import CardText, Family, Feature, TokenGrid, TrainingView, describe_score
from .configuration_musiq import MusiqConfig
from .image_processing_musiq import MusiqImageProcessor
from .modeling_musiq import MusiqForImageClassification, MusiqForImageQualityAssessment, MusiqModel
from .patching_musiq import num_patches

CITATION = """\
@inproceedings{ke2021musiq,
  title     = {{MUSIQ}: Multi-scale Image Quality Transformer},
  author    = {Ke, Junjie and Wang, Qifei and Wang, Yilin and Milanfar, Peyman and Yang, Feng},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  pages     = {5148--5157},
  year      = {2021},
  note      = {arXiv:2108.05997}
}"""

PATENTS = """\
 The method is covered by Google patents US11887270B2 and US12217382B2; this is information, not
legal advice."""

PUBLISHED = tuple(
    f"{data}{scales}" for data in ("koniq", "spaq", "paq2piq", "ava", "imagenet") for scales in ("", "-single")
)

_LIMITS_OPINIONS = """\
- Opinion scores are averages over particular observers, displays and instructions. They carry the taste of those
  people and of those who chose the pictures: subjects, places, cameras and styles that are rare in the training data
  are scored less reliably, and a systematic like or dislike of a subject ends up in the score.
- Content and quality are not separated: pictures of one quality but of different subjects get different scores.
- Scores of one checkpoint compare pictures with each other. They are not calibrated across checkpoints, and a small
  difference between two pictures may be noise.
- Screenshots, drawings, medical and synthetic pictures, and pictures much larger or smaller than those of the training
  data, are outside of what was learned."""

_LIMITS_CLASSIFICATION = """\
- The classes and the bias of ImageNet: its photographs, its labels, and the places they come from.
- It was made as a start for fine-tuning on opinion scores, not for use as a classifier."""


def choose_patches(count: int, limit: int | None) -> torch.Tensor:
    """Draw numbers of at most `limit` of `count` patches, ascending; None takes all, without a random number."""
    return torch.arange(count) if limit is None else torch.randperm(count)[:limit].sort().values


@dataclass(kw_only=True)
class MusiqTrainingView(TrainingView):
    """Random subset of the patches of a picture, drawn anew in every step.

    The paper trains with 512 native patches and does not say how they are chosen.
    """

    native_patches: int | None = field(
        default=512,
        metadata={
            "help": "Random subset of at most so many native patches per picture and step; None trains on all, at "
            "any cost in memory."
        },
    )
    min_native_patches: int | None = field(
        default=None,
        metadata={
            "help": "Every batch draws its own number of native patches, from this one to `native_patches`, so that "
            "many patches do not change the score; None always takes `native_patches`."
        },
    )
    resized_patches: int | None = field(
        default=None,
        metadata={
            "help": "Random subset of at most so many patches of every resized copy; a few fixed patches are learnt "
            "by heart otherwise."
        },
    )

    def __post_init__(self) -> None:
        for name in ("native_patches", "min_native_patches", "resized_patches"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if self.min_native_patches is not None and self.min_native_patches > (self.native_patches or 0):
            raise ValueError(
                "`min_native_patches` must be at most `native_patches`, and needs that bound, got "
                f"{self.min_native_patches} and {self.native_patches}."
            )

    def for_batch(self) -> Self:
        """Draw the number of native patches of one batch, if it is a range; each number in it is as likely."""
        if self.min_native_patches is None or self.native_patches is None:
            return self
        drawn = int(torch.randint(self.min_native_patches, self.native_patches + 1, ()))
        return replace(self, native_patches=drawn, min_native_patches=None)

    def limits(self, processor: MusiqImageProcessor) -> list[int | None]:
        """Return the largest number of patches of each scale, in the processor's order; None keeps all patches."""
        resized = [self.resized_patches] * len(processor.longer_side_lengths)
        return resized + [self.native_patches] * processor.use_native_resolution

    def cut(self, processor: MusiqImageProcessor, pixels: torch.Tensor) -> Feature:
        limits = self.limits(processor)
        return processor.cut(pixels, choose=lambda scale, count: choose_patches(count, limits[scale]))

    def max_tokens(self, processor: MusiqImageProcessor) -> int:
        resized = sum((-(-side // processor.patch_size)) ** 2 for side in processor.longer_side_lengths)
        if not processor.use_native_resolution:
            return resized
        bounds = [bound for bound in (self.native_patches, processor.max_native_patches) if bound is not None]
        if not bounds:
            raise ValueError("`fixed_shapes` needs a bound on the native patches. Set `native_patches` (512, say).")
        return resized + min(bounds)

    def count_tokens(self, processor: MusiqImageProcessor, height: int, width: int) -> int:
        counts = processor.count_patches(height, width)
        pairs = zip(counts, self.limits(processor), strict=True)
        return sum(count if limit is None else min(count, limit) for count, limit in pairs)


def parts(model: Any) -> Mapping[str, Sequence[nn.Module]]:
    """Return the parts that training can freeze, by name.

    "backbone" is the network between the patches and their projection, which a linear patch encoder does not have.
    "patch_encoder" is both, and "encoder" is the whole model but its head, to which pooled covariances belong.
    """
    embeddings, head = model.musiq.embeddings, model.head
    covariance = [] if model.musiq.covariance is None else [model.musiq.covariance]
    backbone = [] if embeddings.patch_encoder is None else [embeddings.patch_encoder]
    pre_logits = [] if head.pre_logits is None else [head.pre_logits]
    return ({"backbone": backbone} if backbone else {}) | {
        "patch_encoder": [embeddings.patch_projection, *backbone],
        "encoder": [embeddings, model.musiq.encoder, model.musiq.layernorm],
        "head": [*covariance, *pre_logits, head.classifier],
    }


def token_grid(config: MusiqConfig) -> TokenGrid:
    """Return the grid of the patches; raise a ValueError if a configuration counts slots in place of cells."""
    if config.spatial_embedding == "fixed":
        raise ValueError(
            'With `spatial_embedding="fixed"` patches have slots of a sequence, which have no place in the picture. '
            'Choose "hash", "sinusoid" or "none".'
        )
    return TokenGrid(size=config.hash_grid_size, num_scales=config.num_scales)


def keeps_head(config: MusiqConfig, changes: Mapping[str, Any]) -> bool:
    """Return whether a trained head goes on to read the same features: covariances beside CLS begin at zero."""
    pooling = changes.get("pooling", config.pooling)
    return pooling == config.pooling or (config.pooling, pooling) == ("cls", "cls+covariance")


def published_encoder(model: Any) -> tuple[str, nn.Module] | None:
    """Return name and module of a model's EfficientNet-Lite; None if it has another patch encoder."""
    config = model.config
    return (config.patch_encoder, model.musiq.embeddings.patch_encoder) if config.uses_efficientnet else None


def feature_maps(
    model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor, pixels: torch.Tensor
) -> dict[str, list[torch.Tensor]]:
    """Put the tokens of a picture back on the grids of its scales.

    Args:
        model: Model in evaluation mode.
        processor: Processor that agrees with the model.
        pixels: Picture on the device of the model, see `QualityProcessor.cut`.

    Returns:
        "native", and "longer side N" for each resized copy. Maps are the patch tokens that enter each block and those
        that leave the last one, shape (1, D, rows, columns). A row of which `max_native_patches` cuts off a part is
        left out.
    """
    height, width = pixels.shape[:2]
    inputs = {name: values[None] for name, values in processor.cut(pixels).items()}
    states = model.musiq(**inputs, output_hidden_states=True, return_dict=True).hidden_states
    names = [f"longer side {length}" for length in processor.longer_side_lengths]
    names += ["native"] * processor.use_native_resolution
    counts, sizes, first, maps = processor.count_patches(height, width), processor.compute_sizes(height, width), 1, {}
    for name, count, size in zip(names, counts, sizes, strict=True):
        _, cols = num_patches(*size, processor.patch_size)
        rows = count // cols
        # (1, tokens, D) -> (1, D, rows, cols)
        maps[name] = [
            state[:, first : first + rows * cols].transpose(1, 2).unflatten(2, (rows, cols)) for state in states
        ]
        first += count
    return maps


def card(config: MusiqConfig) -> CardText:
    """Write the sentences of a model card that follow from a configuration."""
    is_classifier = "MusiqForImageClassification" in (config.architectures or [])
    kind = "an ImageNet classifier" if is_classifier else "a no-reference model of image quality"
    side = config.max_native_side
    size = "their own size" if side is None else f"their own size, up to a longer side of {side:,} pixels,"
    return CardText(
        summary=(
            f"MUSIQ, the multi-scale image quality Transformer (Ke et al., ICCV 2021, arXiv:2108.05997): {kind} that "
            f"reads pictures at {size} and aspect ratio. For Hugging Face Transformers, with `musiq_hf`."
        ),
        preprocessing=_describe_preprocessing(config),
        score=_describe_classes(config) if is_classifier else describe_score(config),
        intended=(
            "A start for fine-tuning on opinion scores."
            if is_classifier
            else "Ranking and filtering photographs by perceived quality, watching the quality of a camera, codec or "
            "generator, and research on image quality. Scores that matter should be checked against human ratings of "
            "your own pictures first."
        ),
        limits=_LIMITS_CLASSIFICATION if is_classifier else _LIMITS_OPINIONS,
        patents=PATENTS,
        citation=CITATION,
        tags=("musiq", "image-quality-assessment", "arxiv:2108.05997"),
    )


def facts(config: MusiqConfig) -> dict[str, str]:
    """Name the scales at which pictures are read, and what is pooled beside CLS, for `musiq info`."""
    lengths = [f"longer side {length}" for length in config.longer_side_lengths]
    side = config.max_native_side
    native = "native" if side is None else f"native (shrunk to a longer side of {side} if larger)"
    pooling = {"pooling": config.pooling} if config.pools_covariance else {}
    return {"scales": ", ".join([*lengths, *([native] if config.use_native_resolution else [])])} | pooling


def _describe_classes(config: MusiqConfig) -> str:
    return f"None: the head gives logits of {config.num_labels} classes. Fine-tune it before you score pictures."


def _describe_preprocessing(config: MusiqConfig) -> str:
    scales = [f"resized to a longer side of {length} pixels" for length in config.longer_side_lengths]
    if config.use_native_resolution:
        limit = "" if config.max_native_patches is None else f" (the first {config.max_native_patches} patches)"
        bound = "" if config.max_native_side is None else f", up to a longer side of {config.max_native_side:,} pixels"
        scales.append(f"at its own resolution{bound}{limit}")
    shrinking = "" if config.max_native_side is None else "; larger pictures are shrunk by an antialiased cubic filter"
    grid = f"hashed to a grid of {config.hash_grid_size} x {config.hash_grid_size} cells"
    positions = {
        "hash": grid,
        "sinusoid": f"{grid}, fixed sinusoids",
        "fixed": "one learned vector per slot of the padded sequence",
        "none": "not used",
    }[config.spatial_embedding]
    return (
        f"By `MusiqImageProcessor`, from preprocessor_config.json: RGB values to [-1, 1]; the picture "
        f"{', and '.join(scales)}, always with its aspect ratio (Gaussian resize as in the published code, not "
        f"antialiased{shrinking}); patches of {config.patch_size} x {config.patch_size} pixels, the last ones "
        f"zero-padded; positions {positions}. EXIF orientation is applied, gray repeated, alpha composited on white."
    )


MUSIQ = Family(
    name="musiq",
    config=MusiqConfig,
    processor=MusiqImageProcessor,
    quality=MusiqForImageQualityAssessment,
    classifier=MusiqForImageClassification,
    others=(MusiqModel,),
    processor_fields=("resize_mode",),
    view=MusiqTrainingView,
    parts=parts,
    published_encoder=published_encoder,
    published=PUBLISHED,
    lora_targets=("q_proj", "k_proj", "v_proj", "o_proj"),
    card=card,
    facts=facts,
    feature_maps=feature_maps,
    token_grid=token_grid,
    keeps_head=keeps_head,
)
