# SPDX-License-Identifier: Apache-2.0
"""The upscaling detector as a model family: all that the rest of the package knows of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ..protocol import CardText, Family
from .configuration_sudds import UpscalingDetectorConfig
from .image_processing_sudds import SMALLEST, UpscalingDetectorImageProcessor
from .modeling_sudds import UpscalingDetectorForImageClassification

CITATION = """\
@techreport{ai4media2023d53,
  title       = {Report on Computationally Demanding Deep Learning},
  author      = {Garcia-Gasulla, Dario and Tormos, Adrian and Lopez, Enrique and Sebe, Nicu and Seidenari, Lorenzo and
                 Messina, Alberto and Iacoviello, Roberto},
  institution = {AI4Media, European Union's Horizon 2020, grant agreement No 951911},
  number      = {Deliverable D5.3},
  note        = {Section 3.2: Synthetic Upscaling Detector with DCT features and Staircase module (SUDDS)},
  year        = {2023}
}"""

PATENTS = """\
 Detectors of the resolution of a source by a threshold of energy are patented, for example US 9734409, US 10140520
and WO 2021/260585; this is information, not legal advice."""

_LIMITS = """\
- No verdict is evidence by itself. It is a reason to look closer, at other frames, files and sources.
- Downscaling after upscaling hides the traces: such a picture looks native, and may be as sharp as one.
- Natives that are blurred, out of focus, denoised or demosaiced softly look upscaled. So do screenshots that another
  program has enlarged.
- Learned upscalers that are not like those of the training are often missed.
- Strong compression, noise and sharpening after upscaling hide the traces, and small factors leave few.
- Flat pictures without detail tell nothing.
- The published figures of SUDDS, on videos in 4K and learned upscalers of videos, are not claimed for this
  checkpoint."""


def parts(model: Any) -> Mapping[str, Sequence[nn.Module]]:
    """Return the parts that training can freeze, by name."""
    return {"backbone": [model.extractor.backbone], "extractor": [model.extractor], "head": [*model.head.layers]}


def feature_maps(
    model: UpscalingDetectorForImageClassification, processor: UpscalingDetectorImageProcessor, pixels: torch.Tensor
) -> dict[str, list[torch.Tensor]]:
    """Compute the maps of all patches of a picture.

    Args:
        model: Model in evaluation mode.
        processor: Processor that agrees with the model.
        pixels: Picture on the device of the model, see `QualityProcessor.cut`.

    Returns:
        "patches": map of each stage of the backbone, the stem first, of shape (num_patches, channels, rows, columns).
    """
    patches = processor.cut(pixels)["pixel_values"].to(model.dtype)
    return {"patches": model.extractor.backbone(patches)}


def facts(config: UpscalingDetectorConfig) -> dict[str, str]:
    """Name the labels and what the model reads, for `musiq info`."""
    cropped = "" if config.crop_size is None else f", of which the centre of {config.crop_size} is read"
    return {
        "labels": ", ".join(config.id2label[index] for index in range(config.num_labels)),
        "reads": f"{config.num_patches} patches of {config.patch_size} pixels{cropped}"
        + (", and the spectrum of the picture" if config.use_spectrum else ""),
        "vote": config.vote,
    }


def card(config: UpscalingDetectorConfig) -> CardText:
    """Write the sentences of a model card that follow from a configuration."""
    labels = [config.id2label[index] for index in range(config.num_labels)]
    spectrum = " The mean spectrum of all rows and columns is measured too." if config.use_spectrum else ""
    cropped = "" if config.crop_size is None else f", of each the centre of {config.crop_size} x {config.crop_size}"
    way = "the mean of their probabilities" if config.vote == "mean" else "majority"
    return CardText(
        summary=(
            "An upscaling detector after SUDDS (AI4Media, 2023): it tells native pictures from upscaled ones, and "
            "names the kind of method. For Hugging Face Transformers, with `musiq_hf`."
        ),
        preprocessing=(
            "By `UpscalingDetectorImageProcessor`, from preprocessor_config.json: nothing is resized. The "
            f"{config.num_patches} patches of {config.patch_size} x {config.patch_size} pixels with most contrast are "
            f"read{cropped}.{spectrum} A picture must have {SMALLEST} x {SMALLEST} pixels or more. EXIF orientation "
            "is applied, gray repeated, alpha composited on white."
        ),
        score=(
            f"None: the model gives probabilities of {', '.join(labels)}. The patches vote, by "
            f"{way}. A picture is upscaled with the probability of all labels but {labels[0]}."
        ),
        intended=(
            "Looking for pictures and videos whose size promises more than they hold, in collections and deliveries, "
            "and research on upscaling."
        ),
        limits=_LIMITS,
        patents=PATENTS,
        citation=CITATION,
        tags=("sudds", "upscaling-detection"),
    )


SUDDS = Family(
    name="sudds",
    config=UpscalingDetectorConfig,
    processor=UpscalingDetectorImageProcessor,
    quality=None,
    classifier=UpscalingDetectorForImageClassification,
    parts=parts,
    lora_targets=(),
    card=card,
    facts=facts,
    feature_maps=feature_maps,
)
