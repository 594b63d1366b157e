# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters of MUSIQ (Ke et al., ICCV 2021, section 4.2) and the rules that they obey.

A field has the name that Transformers uses, if Transformers has one.

Whoever loads one class of a repository gets the files that it imports, and Transformers finds imports by their text.
These lines stand here so that all files come, and can be saved again:

    from .image_processing_musiq import MusiqImageProcessor
    from .modeling_musiq import MusiqModel
    from .pipeline_musiq import ImageQualityAssessmentPipeline
"""

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from difflib import get_close_matches
from typing import Any, Literal

import torch
from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .checks_musiq import LARGEST, check_size, check_types, reading_json, shorten
from .publishing_musiq import PublishedConfig

LARGEST_COPY = 2**16  # patches of all resized copies: a square of 8192 pixels, cut into patches of 32
LARGEST_LENGTH = 2**14  # pixels
LARGEST_SCORE = 10**6  # MOS points, of any sign
# Each deeper encoder adds one bottleneck stage of three convolutions (google-research/musiq, model/resnet.py).
RESNET_DEPTHS = (5, 8, 11, 14)
EFFICIENTNET = "efficientnet_lite"  # names of these patch encoders begin so
EFFICIENTNET_STAGES = 7
# Fields that only "resnet" and "conv" read, with their defaults.
RESNET_FIELDS = {"patch_encoder_depth": 5, "patch_encoder_width": 64, "patch_encoder_groups": 32}
_DTYPES = Literal["float32", "float16", "bfloat16", "float64"]
# Types of the fields of a config.json that are not MUSIQ's own.
_SHARED_TYPES = {
    "model_type": Literal["musiq"],
    "architectures": list[str] | None,
    "transformers_version": str | None,
    "dtype": _DTYPES | torch.dtype | None,
    "torch_dtype": _DTYPES | torch.dtype | None,
    "num_labels": int,
    "id2label": dict[str, str] | dict[int, str] | None,
    "label2id": dict[str, int] | dict[str, str] | None,
    "problem_type": Literal["regression", "single_label_classification", "multi_label_classification"] | None,
    "output_attentions": bool | None,
    "output_hidden_states": bool | None,
    "return_dict": bool | None,
    "chunk_size_feed_forward": int,
    "is_encoder_decoder": bool,
    "attn_implementation": str | None,
    "experts_implementation": str | None,
    "name_or_path": str,
    "auto_map": dict[str, str | list[str | None]],
    "custom_pipelines": dict[str, dict[str, Any]],
    "_name_or_path": str | None,
    "_commit_hash": str | None,
    "_attn_implementation_autoset": bool,
}
# Names that Transformers reads from any configuration; they would change the model behind its fields.
_REFUSED = {
    "self",
    "layer_types",
    "mtp_layer_types",
    "quantization_config",
    "rope_parameters",
    "rope_scaling",
    "transformers_weights",
    "_attn_implementation",
    "_attn_implementation_internal",
    "_experts_implementation",
    "_experts_implementation_internal",
    "_heterogeneity_spec",
    "_is_quantized",
    "_output_attentions",
    "_post_init_done",
}
# Fields that a model in evaluation mode does not read.
UNREAD_FIELDS = {
    "model_type",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "drop_path_rate",
    "initializer_range",
    "score_range",
}
# The names of the weights tell the one, the image processor's signature the other. Without them checkpoints keep the
# signatures that they had before these fields existed.
UNSIGNED_FIELDS = UNREAD_FIELDS | {"patch_encoder_stages", "max_native_side"}


def check_native_side(side: int | None, lengths: Sequence[int]) -> None:
    """Raise a ValueError if the bound of the native picture is below a resized copy, which is the smaller scale.

    Args:
        side: Bound of the longer side, in pixels; None is none.
        lengths: Longer sides of the resized copies, in pixels.
    """
    if side is not None and lengths and side < max(lengths):
        raise ValueError(
            f"`max_native_side` must be at least the longest of `longer_side_lengths`, got {side} and {max(lengths)}."
        )


def check_lengths(lengths: Sequence[int], patch_size: int) -> None:
    """Raise a ValueError unless the longer sides of resized copies are ones that can be read.

    Args:
        lengths: Longer sides, in pixels.
        patch_size: Side of a patch, in pixels.
    """
    if any(length < 1 for length in lengths):
        raise ValueError(f"`longer_side_lengths` must be positive, in pixels, got {shorten(list(lengths))}.")
    if len(set(lengths)) != len(lengths):
        raise ValueError(
            f"`longer_side_lengths` must differ from each other, got {shorten(list(lengths))}. Remove the repeated "
            "length."
        )
    longest = min(LARGEST_LENGTH, math.isqrt(LARGEST_COPY) * patch_size)
    if any(length > longest for length in lengths):
        raise ValueError(
            f"`longer_side_lengths` must be at most {longest} pixels with patches of {patch_size}, got "
            f"{shorten(list(lengths))}."
        )
    count, most = sum((-(-length // patch_size)) ** 2 for length in lengths), (-(-longest // patch_size)) ** 2
    if count > most:
        raise ValueError(
            f"`longer_side_lengths` must make copies of at most {most} patches of {patch_size} pixels in all, got "
            f"{count} of {len(lengths)} copies. Remove some."
        )


@strict
class MusiqConfig(PublishedConfig, PreTrainedConfig):
    """Configuration of a MUSIQ model; the defaults give the published three-scale model with one label.

    Args:
        hidden_size: Width D of the Transformer.
        num_hidden_layers: Number of Transformer blocks, >= 1.
        num_attention_heads: Number of attention heads, a divisor of `hidden_size`.
        intermediate_size: Width of the MLP in each block.
        hidden_dropout_prob: Dropout after embeddings, attention output and MLP, in [0, 1).
        attention_probs_dropout_prob: Dropout on attention weights, in [0, 1).
        drop_path_rate: Stochastic depth of the last block, rising linearly from 0 at the first, in [0, 1).
        layer_norm_eps: Epsilon of every layer norm.
        initializer_range: Standard deviation of the initial spatial and scale embeddings.
        patch_encoder: "resnet" (stem and bottleneck stages), "conv" (stem only) or "linear" (Table 9 of the paper).
            "efficientnet_lite0", "efficientnet_lite1" and "efficientnet_lite2" are not in the paper.
        patch_encoder_depth: Number of layers of the "resnet" encoder: 5, 8, 11 or 14.
        patch_encoder_width: Number of channels of the stem, a multiple of `patch_encoder_groups`.
        patch_encoder_groups: Number of groups of every group norm in the patch encoder.
        patch_encoder_stages: Number of stages of an EfficientNet-Lite, 1 to 7; None = all 7, and for other encoders.
        patch_size: Side P of a patch, in pixels.
        hash_grid_size: Side G of the grid of the hash-based spatial embedding (eq. 2).
        spatial_embedding: "hash" (eq. 2), "sinusoid" (fixed table over the same cells), "fixed" (one learned vector
            per slot of the padded sequence) or "none" (Table 7).
        use_scale_embedding: Whether the scale embedding is added (Table 8).
        longer_side_lengths: Longer sides L_k of the resized copies, in pixels, in any order; they are kept sorted.
        use_native_resolution: Whether the picture itself is the last scale.
        max_native_patches: Largest number l of native patches; None = all.
        max_native_side: Longer side, in pixels, to which a larger native picture is shrunk; None = never, as in the
            paper. Photographs of many megapixels are then read about as they are seen on a screen.
        pre_logits_size: Width of a tanh layer before the head; None = no such layer.
        score_offset: MOS points added to a one-label logit.
        score_scale: MOS points per unit of a one-label logit.
        score_range: Lowest and highest possible score, in MOS points. It is a note that never changes a score.

    Raises:
        ValueError: If fields contradict each other; the message says what to change.
    """

    model_type = "musiq"

    hidden_size: int = 384
    num_hidden_layers: int = 14
    num_attention_heads: int = 6
    intermediate_size: int = 1152
    hidden_dropout_prob: float | int = 0.0
    attention_probs_dropout_prob: float | int = 0.0
    drop_path_rate: float | int = 0.0
    layer_norm_eps: float | int = 1e-6
    initializer_range: float | int = 0.02
    patch_encoder: Literal[
        "linear", "conv", "resnet", "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2"
    ] = "resnet"
    patch_encoder_depth: int = RESNET_FIELDS["patch_encoder_depth"]
    patch_encoder_width: int = RESNET_FIELDS["patch_encoder_width"]
    patch_encoder_groups: int = RESNET_FIELDS["patch_encoder_groups"]
    patch_encoder_stages: int | None = None
    patch_size: int = 32
    hash_grid_size: int = 10
    spatial_embedding: Literal["hash", "sinusoid", "fixed", "none"] = "hash"
    use_scale_embedding: bool = True
    longer_side_lengths: list[int] | tuple[int, ...] = (224, 384)
    use_native_resolution: bool = True
    max_native_patches: int | None = None
    max_native_side: int | None = None
    pre_logits_size: int | None = None
    score_offset: float | int = 0.0
    score_scale: float | int = 1.0
    score_range: list[float | int] | tuple[float | int, ...] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        if self.id2label is None:
            kwargs.setdefault("num_labels", 1)
        # A registered class needs neither of these, and a checkpoint that keeps them would demand
        # `trust_remote_code` although the package is installed. Remote code lives in `transformers_modules`.
        if not __name__.startswith("transformers_modules"):
            kwargs.pop("auto_map", None)
            kwargs.pop("custom_pipelines", None)
        self.longer_side_lengths = sorted(self.longer_side_lengths)
        if self.score_range is not None:
            self.score_range = list(self.score_range)
        super().__post_init__(**kwargs)
        if self.architectures is None:  # type: ignore[has-type]
            # An Auto class that can choose between several classes crashes on None.
            self.architectures = ["MusiqForImageQualityAssessment"]
        if self.num_labels == 1 and self.problem_type is None:  # type: ignore[has-type]
            # Otherwise the image-classification pipeline of Transformers puts a sigmoid on the MOS.
            self.problem_type = "regression"
        # `@strict` validates too, but its error is no ValueError and hides our sentence.
        self.validate_architecture()

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Read the fields of a checkpoint, as the base class does.

        Raises:
            ValueError: If config.json holds no object.
            OSError: If there is no such file, or it is no JSON.
        """
        with reading_json(pretrained_model_name_or_path):
            values, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
            return values | {}, rest  # a TypeError for anything but an object

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> "MusiqConfig":
        """Make a configuration from a dictionary, as the base class does.

        The base class sets overrides only after the fields have been checked and sorted. Here they come before. Sizes
        of the patch encoder in the dictionary are left out if another `patch_encoder` in `kwargs` does not read them.

        Raises:
            ValueError: If a value has a wrong type or size, fields contradict each other, or a name is none that a
                configuration may have.
        """
        names = {field.name for field in fields(cls)}
        overrides = {name: value for name, value in kwargs.items() if name in names}
        if "patch_encoder" in overrides:
            uses_efficientnet = str(overrides["patch_encoder"]).startswith(EFFICIENTNET)
            unread = RESNET_FIELDS.keys() if uses_efficientnet else {"patch_encoder_stages"}
            config_dict = {name: value for name, value in config_dict.items() if name not in unread}
        rest = {name: value for name, value in kwargs.items() if name not in names}
        given = config_dict | overrides
        values = {name: value for name, value in given.items() if value is not None or name not in _REFUSED}
        cls._check_names(values)
        check_types(values, _SHARED_TYPES | MusiqConfig.__annotations__)
        labels = values.get("id2label")
        cls._check_labels(labels, values.get("num_labels", 1 if labels is None else len(labels)))
        return super().from_dict(values, **rest)

    @classmethod
    def _check_names(cls, names: Collection[str]) -> None:
        """Raise a ValueError for a name that is a method, changes a model behind its fields, or is misspelt.

        Other programs write notes of their own to a config.json, also with dots, hyphens and underscores.
        """
        known = {field.name for field in fields(cls)} | _SHARED_TYPES.keys()
        for name in names:
            if name in known:
                continue
            if name.startswith("__") or name in _REFUSED or hasattr(cls, name):
                raise ValueError(f"{shorten(name)} is no field of a MUSIQ configuration. Remove it.")
            close = get_close_matches(name, MusiqConfig.__annotations__, n=1, cutoff=0.9)
            if close and close[0] not in names:  # the default would be taken in its place
                raise ValueError(f"{shorten(name)} is no field of a MUSIQ configuration. Is it `{close[0]}`?")

    @staticmethod
    def _check_labels(labels: Mapping[Any, str] | None, num_labels: int) -> None:
        """Raise a ValueError unless the labels of a file are numbered from 0, as many as it says."""
        check_size("num_labels", num_labels)
        if labels is not None and {str(label) for label in labels} != set(map(str, range(num_labels))):
            raise ValueError(
                f"`id2label` must number its labels from 0 to {num_labels - 1}, got {shorten(list(labels))}."
            )

    @property
    def num_scales(self) -> int:
        """Number of scales: the resized copies, and the native picture if it is used."""
        return len(self.longer_side_lengths) + int(self.use_native_resolution)

    @property
    def num_spatial_positions(self) -> int:
        """Number of spatial positions: cells of the grid, or slots of the fully padded sequence for "fixed"."""
        if self.spatial_embedding == "fixed":
            resized = sum((-(-length // self.patch_size)) ** 2 for length in self.longer_side_lengths)
            return resized + (self.max_native_patches or 0)
        return self.hash_grid_size**2

    @property
    def uses_efficientnet(self) -> bool:
        """True if the patch encoder is an EfficientNet-Lite."""
        return self.patch_encoder.startswith(EFFICIENTNET)

    @property
    def num_efficientnet_stages(self) -> int:
        """Number of stages of an EfficientNet-Lite."""
        return EFFICIENTNET_STAGES if self.patch_encoder_stages is None else self.patch_encoder_stages

    def signature_fields(self) -> dict[str, Any]:
        """Return the fields that a model in evaluation mode reads: they shape weights or change a score."""
        return {name: getattr(self, name) for name in MusiqConfig.__annotations__.keys() - UNSIGNED_FIELDS}

    def validate_architecture(self) -> None:
        """Raise a ValueError for the first rule that the fields break."""
        self._validate_sizes()
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"`hidden_size` must be a multiple of `num_attention_heads`, got {self.hidden_size} and "
                f"{self.num_attention_heads}. Change one of them."
            )
        if self.num_scales == 0:
            raise ValueError(
                "A model needs a scale: give `longer_side_lengths` or set `use_native_resolution=True`, got neither."
            )
        if self.max_native_patches is not None and not self.use_native_resolution:
            raise ValueError(
                f"`max_native_patches={self.max_native_patches}` has no effect without the native picture. "
                "Set it to None or set `use_native_resolution=True`."
            )
        if self.max_native_side is not None and not self.use_native_resolution:
            raise ValueError(
                f"`max_native_side={self.max_native_side}` has no effect without the native picture. "
                "Set it to None or set `use_native_resolution=True`."
            )
        check_native_side(self.max_native_side, self.longer_side_lengths)
        if self.spatial_embedding == "fixed" and self.use_native_resolution and self.max_native_patches is None:
            raise ValueError(
                '`spatial_embedding="fixed"` learns one vector per slot, so the number of native patches must be '
                "bounded. Set `max_native_patches` (the paper trains with 512)."
            )
        self._validate_patch_encoder()
        self._validate_scores()

    def _validate_sizes(self) -> None:
        for name in LARGEST:
            if getattr(self, name) is not None:
                check_size(name, getattr(self, name))
        check_lengths(self.longer_side_lengths, self.patch_size)
        if self.layer_norm_eps == 0:
            raise ValueError(f"`layer_norm_eps` must be positive, got {self.layer_norm_eps}.")
        for name, largest in (("layer_norm_eps", 1), ("initializer_range", 10)):
            if not 0 <= getattr(self, name) <= largest:
                raise ValueError(f"`{name}` must lie in [0, {largest}], got {getattr(self, name)}.")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}.")

    def _validate_patch_encoder(self) -> None:
        if self.uses_efficientnet:
            self._validate_efficientnet()
            return
        if self.patch_encoder_stages is not None:
            raise ValueError(
                f"`patch_encoder_stages={self.patch_encoder_stages}` has no effect on "
                f'`patch_encoder="{self.patch_encoder}"`. Set it to None.'
            )
        if self.patch_encoder == "linear":
            return
        if self.patch_encoder_depth not in RESNET_DEPTHS:
            raise ValueError(
                f"`patch_encoder_depth` must be one of {RESNET_DEPTHS}, got {self.patch_encoder_depth}. "
                'For the stem alone use `patch_encoder="conv"`.'
            )
        if self.patch_encoder_width % self.patch_encoder_groups:
            raise ValueError(
                f"`patch_encoder_width` must be a multiple of `patch_encoder_groups`, got {self.patch_encoder_width} "
                f"and {self.patch_encoder_groups}. Change one of them."
            )

    def _validate_efficientnet(self) -> None:
        for name, default in RESNET_FIELDS.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f'`{name}={getattr(self, name)}` has no effect on `patch_encoder="{self.patch_encoder}"`, whose '
                    "sizes are published. Leave it out."
                )

    @property
    def answer_range(self) -> tuple[float, float] | None:
        """Lowest and highest score in MOS points; None if it is not noted.

        A distribution has the range of its score values; for one label it is `score_range`.
        """
        if self.num_labels > 1:
            return 1, self.num_labels
        return None if self.score_range is None else (self.score_range[0], self.score_range[1])

    def _validate_scores(self) -> None:
        numbers = (self.score_offset, self.score_scale, *(self.score_range or ()))
        if not all(math.isfinite(number) for number in numbers):
            raise ValueError(f"`score_offset`, `score_scale` and `score_range` must be finite, got {numbers}.")
        if any(abs(number) > LARGEST_SCORE for number in numbers):
            raise ValueError(
                f"`score_offset`, `score_scale` and `score_range` must be at most {LARGEST_SCORE:,}, got "
                f"{shorten(numbers)}."
            )
        if self.score_scale == 0:
            raise ValueError("`score_scale` must not be 0: every picture would get the same score.")
        if self.num_labels != 1 and (self.score_offset != 0 or self.score_scale != 1):
            raise ValueError(
                "`score_offset` and `score_scale` belong to models with one label; a score distribution over 1..n has "
                f"its own scale. Remove them, got {self.score_offset} and {self.score_scale} with {self.num_labels} "
                "labels."
            )
        if self.score_range is not None and (len(self.score_range) != 2 or self.score_range[0] >= self.score_range[1]):
            raise ValueError(f"`score_range` must be (lowest, highest), got {self.score_range}.")


__all__ = ["MusiqConfig", "check_lengths", "check_native_side"]
