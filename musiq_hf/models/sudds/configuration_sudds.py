# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters of the upscaling detector and the rules that they obey.

Whoever loads one class of a repository gets the files that it imports, and Transformers finds imports by their text.
These lines stand here so that all files come, and can be saved again:

    from .image_processing_sudds import UpscalingDetectorImageProcessor
    from .modeling_sudds import UpscalingDetectorForImageClassification
"""

from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .settings_sudds import CheckedConfig, check_sizes

LABELS = ("native", "nearest", "bilinear", "bicubic", "lanczos", "learned")
WIDTHS = {"small": [16, 32, 48, 64], "resnet18": [64, 128, 256, 512]}  # channels of the stages
SMALLEST_PATCH = 32  # pixels; of a smaller one the last stage of a ResNet would see less than a pixel
# Far above every model that was trained. A damaged file names sizes that fill any memory, or take hours.
LARGEST = {
    "patch_size": 2**12,
    "crop_size": 2**12,
    "num_patches": 2**12,
    "hidden_sizes": 2**14,
    "hidden_size": 2**16,
    "num_head_layers": 2**6,
}
# Fields that a model in evaluation mode does not read; those of patches are settings of the image processor.
UNREAD_FIELDS = {"patch_size", "crop_size", "num_patches", "dropout", "spectrum_dropout"}


def check_patches(patch_size: int, crop_size: int | None) -> None:
    """Raise a ValueError if patches are too small, or smaller than what is cut out of them."""
    if crop_size is not None and crop_size > patch_size:
        raise ValueError(f"`crop_size` must be at most `patch_size`, got {crop_size} and {patch_size}.")
    if (crop_size or patch_size) < SMALLEST_PATCH:
        raise ValueError(
            f"`patch_size` and `crop_size` must be at least {SMALLEST_PATCH}, got {patch_size} and {crop_size}."
        )


@strict
class UpscalingDetectorConfig(CheckedConfig, PreTrainedConfig):
    """Configuration of an upscaling detector; the defaults give the small one.

    Label 0 is that of pictures that were not upscaled. Without `id2label` the labels are native, nearest, bilinear,
    bicubic, lanczos and learned.

    Args:
        backbone: Network that reads patches: "small", three residual blocks behind a convolution without stride, or
            "resnet18", that of the published code.
        hidden_sizes: Channels of the four stages of the backbone, each a multiple of 4. None = 16, 32, 48 and 64 for
            "small", and 64, 128, 256 and 512 for "resnet18".
        use_staircase: Whether features of all stages reach the head, and not the last ones alone. "small" joins their
            averages; "resnet18" has the staircase of the published code.
        use_spectrum: Whether the spectrum of the whole picture is joined to the features of each patch.
        patch_size: Side of the patches into which a picture is cut, in pixels.
        crop_size: Side of the centre of each patch that the model sees, in pixels; None = the whole patch.
        num_patches: Patches of a picture that the model sees, those of most contrast.
        vote: Way in which patches decide: "mean" of their probabilities, or "majority" of their most probable labels.
        num_head_layers: Linear layers of the head.
        hidden_size: Width of the layers of the head before its last one.
        dropout: Dropout before each layer of the head but the first, in [0, 1).
        spectrum_dropout: Probability with which a step of training hides the spectrum of a picture, in [0, 1), so
            that patches learn too.

    Raises:
        ValueError: If fields contradict each other; the message says what to change.
    """

    model_type = "sudds"
    default_head = "ForImageClassification"

    backbone: Literal["small", "resnet18"] = "small"
    hidden_sizes: list[int] | tuple[int, ...] | None = None
    use_staircase: bool = True
    use_spectrum: bool = True
    patch_size: int = 96
    crop_size: int | None = None
    num_patches: int = 12
    vote: Literal["mean", "majority"] = "mean"
    num_head_layers: int = 2
    hidden_size: int = 256
    dropout: float | int = 0.5
    spectrum_dropout: float | int = 0.3

    def __post_init__(self, **kwargs: Any) -> None:
        this: Any = self
        if this.id2label is None and kwargs.get("num_labels") is None:
            this.id2label = dict(enumerate(LABELS))
            this.label2id = {label: index for index, label in enumerate(LABELS)}
        if self.hidden_sizes is not None:
            self.hidden_sizes = list(self.hidden_sizes)
        super().__post_init__(**kwargs)

    @property
    def widths(self) -> list[int]:
        """Channels of the four stages of the backbone."""
        return list(WIDTHS[self.backbone] if self.hidden_sizes is None else self.hidden_sizes)

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults, and the labels, which readers of the file look for."""
        labels = {name: value for name, value in self.to_dict().items() if name in ("id2label", "label2id")}
        return super().to_diff_dict() | labels

    def signature_fields(self) -> dict[str, Any]:
        """Return the fields that a model in evaluation mode reads; the weights tell the rest."""
        names = UpscalingDetectorConfig.__annotations__.keys() - UNREAD_FIELDS - {"model_type"}
        fields = {name: getattr(self, name) for name in names}
        return fields | {"hidden_sizes": self.widths}

    def validate_architecture(self) -> None:
        """Raise a ValueError for the first rule that the fields break."""
        check_sizes({name: getattr(self, name) for name in LARGEST}, LARGEST)
        check_patches(self.patch_size, self.crop_size)
        if len(self.widths) != 4 or any(width % 4 for width in self.widths):
            raise ValueError(f"`hidden_sizes` must be four multiples of 4, got {self.widths}.")
        for name in ("dropout", "spectrum_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}.")
        if self.num_labels < 2:
            raise ValueError(
                f"A detector has at least two labels, native and another, so `num_labels` must not be "
                f"{self.num_labels}."
            )


__all__ = ["LABELS", "UpscalingDetectorConfig", "check_patches"]
