# SPDX-License-Identifier: Apache-2.0
"""LoDa as a model family: all that the rest of the package knows of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from ..protocol import CardText, Family, Feature, TrainingView, describe_score
from .backbones_loda import load_backbone, load_vit
from .configuration_loda import LodaConfig
from .image_processing_loda import LodaImageProcessor
from .modeling_loda import LodaForImageQualityAssessment, LodaModel

logger = logging.get_logger(__name__)

CITATION = """\
@inproceedings{xu2024loda,
  title     = {Boosting Image Quality Assessment through Efficient Transformer Adaptation with Local Feature
               Enhancement},
  author    = {Xu, Kangmin and Liao, Liang and Xiao, Jing and Chen, Chaofeng and Wu, Haoning and Yan, Qiong and
               Lin, Weisi},
  booktitle = {Proceedings of the IEEE/CVF Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {2662--2672},
  year      = {2024}
}"""

_LIMITS = """\
- A picture is shrunk or enlarged to one size and read in square crops: what only its full resolution shows is lost.
- Opinion scores are averages over particular observers, displays and instructions. They carry the taste of those
  people and of those who chose the pictures; subjects and styles that are rare in the training data are scored less
  reliably.
- A network inside that started from weights of others carries the bias of the pictures that these were trained on.
  Such weights have licences of their own, which hold for this checkpoint too.
- Scores of one checkpoint compare pictures with each other. They are not calibrated across checkpoints, and a small
  difference between two pictures may be noise.
- The published accuracy needs the published backbones and a GPU; it is not claimed for this checkpoint."""

_NO_WEIGHTS = (
    "The {part} of a LoDa model must be one that others have trained: give `--{part}` an id on the Hub, a folder or a "
    'file, or train both networks with `--freeze none`. The published ones are "{example}".'
)
_LOADERS = {"vit": load_vit, "cnn": load_backbone}
_EXAMPLES = {"vit": "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k", "cnn": "timm/resnet50.a1_in1k"}


@dataclass(kw_only=True)
class LodaTrainingView(TrainingView):
    """Random crops of a resized picture, drawn anew in every step, as in the published code."""

    crops_per_picture: int = field(
        default=1, metadata={"help": "Random crops of a picture in a step; the paper has 1, and more epochs instead."}
    )
    vertical_flip: bool = field(
        default=True, metadata={"help": "Turn half of the pictures upside down, besides mirroring half of them."}
    )

    def __post_init__(self) -> None:
        if self.crops_per_picture < 1:
            raise ValueError(f"`crops_per_picture` must be at least 1, got {self.crops_per_picture}.")

    def cut(self, processor: LodaImageProcessor, pixels: torch.Tensor) -> Feature:
        if self.vertical_flip and torch.rand(()) < 0.5:
            pixels = pixels.flip(0)
        rooms = [side - processor.crop_size + 1 for side in processor.resized_size(*pixels.shape[:2])]
        corners = torch.stack([torch.randint(room, (self.crops_per_picture,)) for room in rooms], dim=1)
        return processor.cut(pixels, crop_corners=corners)

    def max_tokens(self, processor: LodaImageProcessor) -> int:
        return self.crops_per_picture * processor.tokens_per_crop

    def count_tokens(self, processor: LodaImageProcessor, height: int, width: int) -> int:
        processor.resized_size(height, width)
        return self.max_tokens(processor)


def parts(model: Any) -> Mapping[str, Sequence[nn.Module]]:
    """Return the parts that training can freeze, by name; "backbones" is both networks that others have trained."""
    vit, cnn = model.loda.vit, model.loda.cnn
    return {"backbones": [vit, cnn], "vit": [vit], "cnn": [cnn], "head": [model.head]}


def start(fields: Mapping[str, Any], *, frozen: str | None = None, **backbones: str) -> LodaForImageQualityAssessment:
    """Make a model from the fields of a configuration and networks that others have trained.

    Args:
        fields: Fields of a `LodaConfig`; `vit_config` and `cnn_config` hold for networks that are not given.
        frozen: Part that will not be trained; None trains all.
        **backbones: Ids on the Hub, folders or files by the names "vit" and "cnn"; see `from_backbones`.

    Raises:
        ValueError: If a network would stay random, because it is frozen and not given, or cannot be read.
    """
    for part, example in _EXAMPLES.items():
        if frozen in ("backbones", part) and part not in backbones:
            raise ValueError(_NO_WEIGHTS.format(part=part, example=example))
    networks = {part: _LOADERS[part](source) for part, source in backbones.items()}
    return LodaForImageQualityAssessment.from_networks(fields, **networks)


def calibrate(model: Any, logits: torch.Tensor, labels: torch.Tensor) -> None:
    """Set the unit of the scores by the least-squares line from logits to opinion scores.

    The loss maximises the linear correlation, so a line is what is left to find.

    Args:
        model: Quality model, whose configuration is changed in place.
        logits: Logits of rated pictures, shape (num_pictures, 1).
        labels: Their opinion scores, shape (num_pictures,).
    """
    x, y = logits[:, 0].double(), labels.double()
    spread = (x - x.mean()).square().sum()
    slope = float(((x - x.mean()) * (y - y.mean())).sum() / spread) if spread > 0 else 0.0
    if not slope > 0:
        logger.warning(
            "Scores do not rise with the opinion scores of the pictures: the model has learned nothing, and its unit "
            "stays that of the labels' mean and deviation."
        )
        return
    model.config.score_scale = slope
    model.config.score_offset = float(y.mean() - slope * x.mean())


def feature_maps(
    model: LodaForImageQualityAssessment, processor: LodaImageProcessor, pixels: torch.Tensor
) -> dict[str, list[torch.Tensor]]:
    """Compute the maps of all crops of a picture.

    Args:
        model: Model in evaluation mode.
        processor: Processor that agrees with the model.
        pixels: Picture on the device of the model, see `QualityProcessor.cut`.

    Returns:
        "vit": patch tokens that enter each block, with the local features added, and those that leave the last one.
        "cnn": map of each stage. All have the shape (num_crops, channels, rows, columns).
    """
    crops, network = processor.cut(pixels)["pixel_values"].to(model.loda.dtype), model.loda
    side = model.config.image_size // model.config.patch_size
    states = network(crops, output_hidden_states=True, return_dict=True).hidden_states
    # Patches come last, after CLS and registers: (crops, tokens, D) -> (crops, D, side, side)
    grids = [state[:, -side * side :].transpose(1, 2).unflatten(2, (side, side)) for state in states]
    return {"vit": grids, "cnn": list(network.cnn(crops).feature_maps)}


def facts(config: LodaConfig) -> dict[str, str]:
    """Name the two networks, and where features are added, for `musiq info`."""
    vit, cnn = config.vit_config, config.cnn_config
    stages = ", ".join(cnn.out_features)  # type: ignore[union-attr]
    layers = config.injected_layers
    where = "every block" if len(layers) == config.num_hidden_layers else f"blocks {', '.join(map(str, layers))}"
    return {
        "vit": f"{vit.model_type}, {config.num_hidden_layers} blocks of width {config.hidden_size}, crops of "  # type: ignore[union-attr]
        f"{config.image_size} pixels, patches of {config.patch_size}",
        "cnn": f"{cnn.model_type}, {stages}",  # type: ignore[union-attr]
        "interactions": f"before {where}, {config.num_cross_attention_heads} heads in {config.latent_dim} dimensions",
        "unit": "cosine in [-1, 1], not calibrated to opinion scores" if _is_raw(config) else "MOS points",
    }


def _is_raw(config: LodaConfig) -> bool:
    return (config.score_offset, config.score_scale) == (0, 1)


def card(config: LodaConfig) -> CardText:
    """Write the sentences of a model card that follow from a configuration."""
    score = describe_score(config)
    if _is_raw(config):
        score = (
            "One number per picture, a cosine in [-1, 1]. Higher is better. It is not calibrated to opinion scores; "
            "`musiq_hf.training.calibrate` does that with rated pictures."
        )
    return CardText(
        summary=(
            "LoDa, a vision Transformer adapted by local distortion features (Xu et al., CVPR 2024): a no-reference "
            "model of image quality. For Hugging Face Transformers, with `musiq_hf`."
        ),
        preprocessing=(
            "By `LodaImageProcessor`, from preprocessor_config.json: the picture is resized to one shorter side by "
            f"Pillow, and square crops of {config.image_size} pixels are cut at places that a formula gives, so that "
            "a score can be repeated (the published code draws them at random). The score is the mean over the crops. "
            "EXIF orientation is applied, gray repeated, alpha composited on white."
        ),
        score=score,
        intended=(
            "Ranking and filtering photographs by perceived quality, and research on image quality. Scores that "
            "matter should be checked against human ratings of your own pictures first."
        ),
        limits=_LIMITS,
        citation=CITATION,
        tags=("loda", "image-quality-assessment"),
    )


LODA = Family(
    name="loda",
    config=LodaConfig,
    processor=LodaImageProcessor,
    quality=LodaForImageQualityAssessment,
    others=(LodaModel,),
    processor_fields=("shorter_side", "num_crops", "resample", "image_mean", "image_std"),
    view=LodaTrainingView,
    parts=parts,
    card=card,
    facts=facts,
    backbones={
        "vit": "Vision Transformer that a LoDa model starts from: id on the Hub, folder in the format of Transformers "
        "or timm, or file of weights of timm.",
        "cnn": "Convolutional network that a LoDa model starts from, given in the same ways.",
    },
    start=start,
    frozen="backbones",
    calibrate=calibrate,
    feature_maps=feature_maps,
    has_one_length=True,
    min_batch_size=8,
)
