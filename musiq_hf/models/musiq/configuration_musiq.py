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
from collections.abc import Sequence
from typing import Any, Literal, Self

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .checks_musiq import shorten
from .settings_musiq import CheckedConfig, check_sizes

# Far above every model that was trained. A damaged file names sizes that fill any memory, or take hours.
LARGEST = {
    "hidden_size": 2**16,
    "num_hidden_layers": 2**10,
    "num_attention_heads": 2**10,
    "intermediate_size": 2**18,
    "patch_encoder_width": 2**12,
    "patch_encoder_groups": 2**12,
    "patch_encoder_stages": 7,  # those of the published networks
    "patch_size": 2**10,
    "hash_grid_size": 2**10,
    "max_native_patches": 2**20,
    "max_native_side": 2**20,
    "pre_logits_size": 2**16,
    "covariance_size": 2**9,  # its triangle then has 131,328 values
}
LARGEST_COPY = 2**16  # patches of all resized copies: a square of 8192 pixels, cut into patches of 32
LARGEST_LENGTH = 2**14  # pixels
# Each deeper encoder adds one bottleneck stage of three convolutions (google-research/musiq, model/resnet.py).
RESNET_DEPTHS = (5, 8, 11, 14)
EFFICIENTNET = "efficientnet_lite"  # names of these patch encoders begin so
EFFICIENTNET_STAGES = 7
# Fields that only "resnet" and "conv" read, with their defaults.
RESNET_FIELDS = {"patch_encoder_depth": 5, "patch_encoder_width": 64, "patch_encoder_groups": 32}
# Fields that only a pooling of covariances reads, with their defaults.
COVARIANCE_FIELDS: dict[str, Any] = {
    "covariance_size": 64,
    "covariance_method": "newton_schulz",
    "covariance_eps": 1e-3,
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
class MusiqConfig(CheckedConfig, PreTrainedConfig):
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
        pooling: Features that the head reads: the CLS token as in the paper ("cls"), or a projection of the covariance
            of the patch tokens ("covariance"). "cls+covariance" is the sum of both; So-ViT adds their logits.
        covariance_size: Width to which tokens are reduced before their covariance.
        covariance_method: Root of the covariance, see `matrix_sqrt`: "newton_schulz", "taylor", "pade" or "eigh". ONNX
            has only the first two. Weights that were trained with one are wrong with another.
        covariance_eps: Multiple of the identity that is added to the covariance, in (0, 1].
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
    pooling: Literal["cls", "covariance", "cls+covariance"] = "cls"
    covariance_size: int = COVARIANCE_FIELDS["covariance_size"]
    covariance_method: Literal["newton_schulz", "taylor", "pade", "eigh"] = "newton_schulz"
    covariance_eps: float | int = COVARIANCE_FIELDS["covariance_eps"]
    pre_logits_size: int | None = None
    score_offset: float | int = 0.0
    score_scale: float | int = 1.0
    score_range: list[float | int] | tuple[float | int, ...] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        self.longer_side_lengths = sorted(self.longer_side_lengths)
        super().__post_init__(**kwargs)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Self:
        """Make a configuration from a dictionary, as the base class does.

        Fields in the dictionary are left out if another `patch_encoder` or `pooling` in `kwargs` does not read them.

        Raises:
            ValueError: If a value has a wrong type or size, fields contradict each other, or a name is none that a
                configuration may have.
        """
        unread: set[str] = set()
        if "patch_encoder" in kwargs:
            uses_efficientnet = str(kwargs["patch_encoder"]).startswith(EFFICIENTNET)
            unread |= RESNET_FIELDS.keys() if uses_efficientnet else {"patch_encoder_stages"}
        if kwargs.get("pooling") == "cls":
            unread |= COVARIANCE_FIELDS.keys()
        config_dict = {name: value for name, value in config_dict.items() if name not in unread}
        return super().from_dict(config_dict, **kwargs)

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
    def pools_covariance(self) -> bool:
        """True if the head reads the covariance of the patch tokens."""
        return self.pooling != "cls"

    @property
    def uses_efficientnet(self) -> bool:
        """True if the patch encoder is an EfficientNet-Lite."""
        return self.patch_encoder.startswith(EFFICIENTNET)

    @property
    def num_efficientnet_stages(self) -> int:
        """Number of stages of an EfficientNet-Lite."""
        return EFFICIENTNET_STAGES if self.patch_encoder_stages is None else self.patch_encoder_stages

    def signature_fields(self) -> dict[str, Any]:
        """Return the fields that a model in evaluation mode reads: they shape weights or change a score.

        Those of the pooling are among them only where covariances are pooled. Other checkpoints keep the signatures
        that they had before these fields existed.
        """
        unsigned = UNSIGNED_FIELDS | (set() if self.pools_covariance else {"pooling", *COVARIANCE_FIELDS})
        return {name: getattr(self, name) for name in MusiqConfig.__annotations__.keys() - unsigned}

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
        self._validate_pooling()
        super().validate_architecture()

    def _validate_sizes(self) -> None:
        check_sizes({name: getattr(self, name) for name in LARGEST}, LARGEST)
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

    def _validate_pooling(self) -> None:
        if not 0 < self.covariance_eps <= 1:
            raise ValueError(f"`covariance_eps` must lie in (0, 1], got {self.covariance_eps}.")
        for name, default in COVARIANCE_FIELDS.items():
            if not self.pools_covariance and getattr(self, name) != default:
                raise ValueError(
                    f'`{name}={getattr(self, name)}` has no effect on `pooling="cls"`. Leave it out, or set `pooling` '
                    'to "covariance" or "cls+covariance".'
                )

    def _validate_efficientnet(self) -> None:
        for name, default in RESNET_FIELDS.items():
            if getattr(self, name) != default:
                raise ValueError(
                    f'`{name}={getattr(self, name)}` has no effect on `patch_encoder="{self.patch_encoder}"`, whose '
                    "sizes are published. Leave it out."
                )


__all__ = ["MusiqConfig", "check_lengths", "check_native_side"]
