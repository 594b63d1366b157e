# SPDX-License-Identifier: Apache-2.0
"""Image classifiers as a model family: all that the rest of the package knows of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ..protocol import CardText, Family, Feature, TrainingView, describe_score
from .backbones_classifier import load_backbone, read_settings
from .configuration_classifier import ClassifierConfig
from .image_processing_classifier import ClassifierImageProcessor
from .modeling_classifier import ClassifierForImageQualityAssessment

CITATION = """\
@article{talebi2018nima,
  title   = {{NIMA}: Neural Image Assessment},
  author  = {Talebi, Hossein and Milanfar, Peyman},
  journal = {IEEE Transactions on Image Processing},
  volume  = {27},
  number  = {8},
  pages   = {3998--4011},
  year    = {2018},
  note    = {arXiv:1709.05424}
}

@inproceedings{ke2021musiq,
  title     = {{MUSIQ}: Multi-scale Image Quality Transformer},
  author    = {Ke, Junjie and Wang, Qifei and Wang, Yilin and Milanfar, Peyman and Yang, Feng},
  booktitle = {Proceedings of the IEEE/CVF International Conference on Computer Vision (ICCV)},
  pages     = {5148--5157},
  year      = {2021},
  note      = {Table 5 has such models; arXiv:2108.05997}
}"""

_CITATIONS = {
    "resnet": """\
@inproceedings{he2016resnet,
  title     = {Deep Residual Learning for Image Recognition},
  author    = {He, Kaiming and Zhang, Xiangyu and Ren, Shaoqing and Sun, Jian},
  booktitle = {Proceedings of the IEEE Conference on Computer Vision and Pattern Recognition (CVPR)},
  pages     = {770--778},
  year      = {2016}
}""",
    "vit": """\
@inproceedings{dosovitskiy2021vit,
  title     = {An Image is Worth 16x16 Words: Transformers for Image Recognition at Scale},
  author    = {Dosovitskiy, Alexey and Beyer, Lucas and Kolesnikov, Alexander and Weissenborn, Dirk and Zhai, Xiaohua
               and Unterthiner, Thomas and Dehghani, Mostafa and Minderer, Matthias and Heigold, Georg and
               Gelly, Sylvain and Uszkoreit, Jakob and Houlsby, Neil},
  booktitle = {International Conference on Learning Representations (ICLR)},
  year      = {2021}
}""",
}

_LIMITS = """\
- A picture is brought to one small square: what only its full resolution shows is lost. Stretching to a square hides
  that a picture was stretched before (figure 3 of MUSIQ).
- Opinion scores are averages over particular observers, displays and instructions. They carry the taste of those
  people and of those who chose the pictures; subjects and styles that are rare in the training data are scored less
  reliably.
- A network that started from weights of others carries the bias of the pictures that these were trained on. Such
  weights have licences of their own, which hold for this checkpoint too.
- Scores of one checkpoint compare pictures with each other. They are not calibrated across checkpoints, and a small
  difference between two pictures may be noise.
- The published accuracy of such models needs the published weights and data; it is not claimed for this checkpoint."""

_NO_WEIGHTS = (
    "A frozen backbone must be one that others have trained: give `--backbone` an id on the Hub, a folder or a file, "
    'or train it with `--freeze none`. One is "microsoft/resnet-50".'
)
# Last names of linear layers, of attention in Transformers and of blocks of ConvNeXt; plain convolutions have none.
LORA_TARGETS = (
    *("q_proj", "k_proj", "v_proj", "o_proj", "out_proj"),
    *("query", "key", "value", "qkv"),
    *("pwconv1", "pwconv2"),
)


@dataclass(kw_only=True)
class ClassifierTrainingView(TrainingView):
    """Random square of a picture that was resized a little larger, drawn anew in every step."""

    crop_margin: int = field(
        default=0,
        metadata={
            "help": "Pixels by which a training picture is resized larger than what the network reads, to draw a "
            "square of it at random; NIMA has 32, with squares of 224."
        },
    )

    def __post_init__(self) -> None:
        if self.crop_margin < 0:
            raise ValueError(f"`crop_margin` must be at least 0, got {self.crop_margin}.")

    def cut(self, processor: ClassifierImageProcessor, pixels: torch.Tensor) -> Feature:
        sides = processor.resized_size(*pixels.shape[:2], margin=self.crop_margin)
        top, left = (int(torch.randint(side - processor.image_size + 1, ())) for side in sides)
        return processor.cut(pixels, margin=self.crop_margin, corner=(top, left))

    def max_tokens(self, processor: ClassifierImageProcessor) -> int:
        return processor.count_tokens(1, 1)


def parts(model: Any) -> Mapping[str, Sequence[nn.Module]]:
    """Return the parts that training can freeze, by name."""
    return {"backbone": [model.network], "head": [model.head]}


def start(
    fields: Mapping[str, Any], *, frozen: str | None = None, backbone: str | None = None
) -> ClassifierForImageQualityAssessment:
    """Make a model from the fields of a configuration and a network that others have trained.

    Args:
        fields: Fields of a `ClassifierConfig`; its `backbone_config` holds if no network is given.
        frozen: Part that will not be trained; None trains all.
        backbone: Id on the Hub, folder or file; see `from_backbone`.

    Raises:
        ValueError: If the network would stay random, because it is frozen and not given, or cannot be read.
    """
    if backbone is None:
        if frozen == "backbone":
            raise ValueError(_NO_WEIGHTS)
        return ClassifierForImageQualityAssessment(ClassifierConfig.from_dict(dict(fields)))
    return ClassifierForImageQualityAssessment.from_network(fields, *load_backbone(backbone))


def _to_map(state: torch.Tensor) -> torch.Tensor:
    """Return a state as a map (1, channels, rows, columns): tokens lose those before the patches of a square."""
    if state.dim() == 4:  # pictures are squares, so that sides are equal and channels are what differs
        is_channels_last = state.shape[1] == state.shape[2] != state.shape[3]
        return state.permute(0, 3, 1, 2) if is_channels_last else state
    side = math.isqrt(state.shape[1])
    return state[:, state.shape[1] - side * side :].transpose(1, 2).unflatten(2, (side, side))


def feature_maps(
    model: ClassifierForImageQualityAssessment, processor: ClassifierImageProcessor, pixels: torch.Tensor
) -> dict[str, list[torch.Tensor]]:
    """Compute the maps of a picture.

    Args:
        model: Model in evaluation mode.
        processor: Processor that agrees with the model.
        pixels: Picture on the device of the model, see `QualityProcessor.cut`.

    Returns:
        "backbone": states of the network as it gives them, of shape (1, channels, rows, columns).

    Raises:
        ValueError: If the network gives no states.
    """
    squares = processor.cut(pixels)["pixel_values"][None]
    states = model(squares, output_hidden_states=True).hidden_states
    if states is None:
        raise ValueError(
            f"A {type(model.network).__name__} gives no hidden states. Give a model with another backbone."
        )
    return {"backbone": [_to_map(state) for state in states]}


def facts(config: ClassifierConfig) -> dict[str, str]:
    """Name the network, what it reads and what it answers, for `musiq info`."""
    labels = "one opinion score" if config.num_labels == 1 else f"a distribution over 1 to {config.num_labels}"
    return {
        "backbone": f"{config.backbone_config.model_type}, squares of {config.side} pixels",  # type: ignore[union-attr]
        "answers": labels,
    }


def card(config: ClassifierConfig) -> CardText:
    """Write the sentences of a model card that follow from a configuration."""
    kind = config.backbone_config.model_type  # type: ignore[union-attr]
    own = _CITATIONS.get(kind)
    return CardText(
        summary=(
            f"An image classifier of Transformers (`{kind}`) with a head for image quality, the way of NIMA (Talebi "
            "and Milanfar, 2018) and the baseline of MUSIQ's Table 5. For Hugging Face Transformers, with `musiq_hf`."
        ),
        preprocessing=(
            "By `ClassifierImageProcessor`, from preprocessor_config.json: the picture is brought to a square of "
            f"{config.side} pixels by Pillow, stretched to it or cut from its centre as `square_mode` says. EXIF "
            "orientation is applied, gray repeated, alpha composited on white."
        ),
        score=describe_score(config),
        intended=(
            "A baseline for research on image quality, and ranking and filtering photographs by perceived quality. "
            "Scores that matter should be checked against human ratings of your own pictures first."
        ),
        limits=_LIMITS,
        citation=CITATION if own is None else f"{CITATION}\n\n{own}",
        tags=("classifier", "image-quality-assessment"),
    )


CLASSIFIER = Family(
    name="classifier",
    config=ClassifierConfig,
    processor=ClassifierImageProcessor,
    quality=ClassifierForImageQualityAssessment,
    processor_fields=("square_mode", "resized_side", "resample", "image_mean", "image_std"),
    view=ClassifierTrainingView,
    parts=parts,
    lora_targets=LORA_TARGETS,
    card=card,
    facts=facts,
    backbones={
        "backbone": "Image classifier that a model of the family classifier starts from: id on the Hub, folder in the "
        "format of Transformers or timm, or file of weights of timm.",
    },
    backbone_settings=read_settings,
    start=start,
    feature_maps=feature_maps,
    has_one_length=True,
)
