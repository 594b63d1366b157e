# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters of LoDa (Xu et al., CVPR 2024) and the rules that they obey.

Whoever loads one class of a repository gets the files that it imports, and Transformers finds imports by their text.
These lines stand here so that all files come, and can be saved again:

    from .image_processing_loda import LodaImageProcessor
    from .modeling_loda import LodaModel
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import AutoConfig, PreTrainedConfig, ResNetConfig, ViTConfig

from .checks_loda import shorten
from .parts_loda import NOTES, describe_part, make_part
from .settings_loda import CheckedConfig, check_sizes

# Vision Transformers with a CLS token in front, whose blocks take and return a sequence alone.
VIT_TYPES = ("vit", "deit", "dinov2", "dinov2_with_registers")
STAGES = ["stage1", "stage2", "stage3", "stage4"]
# Far above every model that was trained. A damaged file names sizes that fill any memory, or take hours.
LARGEST = {
    "latent_dim": 2**14,
    "num_cross_attention_heads": 2**10,
    "token_grid_size": 2**8,
}
UNREAD_FIELDS = {"head_dropout_prob", "update_cnn_statistics", "initializer_range", "score_range"}


@strict
class LodaConfig(CheckedConfig, PreTrainedConfig):
    """Configuration of a LoDa model; the defaults give the paper's model, ViT-B/16 with the maps of a ResNet-50.

    Args:
        vit_config: Configuration of the vision Transformer, or its fields with a `model_type`: "vit", "deit",
            "dinov2" or "dinov2_with_registers". None = ViT-B/16 at 224 pixels.
        cnn_config: Configuration of the convolutional network, any that `AutoBackbone` knows, or its fields. Its
            `out_features` are the stages that give local features. None = ResNet-50 with all four stages.
        latent_dim: Width r of the space in which local features are added, a multiple of the heads.
        num_cross_attention_heads: Heads h of the attention of the Transformer's tokens on the local features.
        token_grid_size: Side g of the grid to which each stage's map is pooled; g * g tokens a stage.
        interaction_layers: Blocks of the Transformer, from 0, before which local features are added; None = all.
        head_dropout_prob: Dropout before the head, in [0, 1).
        update_cnn_statistics: Whether batch norms of the convolutional network use and update the statistics of the
            batch in training, as in the published code. False leaves them alone, which small batches need.
        initializer_range: Standard deviation of the initial scale of each interaction.
        score_offset: MOS points added to a logit.
        score_scale: MOS points per unit of a logit, which is a cosine in [-1, 1].
        score_range: Lowest and highest possible score, in MOS points. It is a note that never changes a score.

    Raises:
        ValueError: If fields contradict each other; the message says what to change.
    """

    model_type = "loda"
    sub_configs = {"vit_config": AutoConfig, "cnn_config": AutoConfig}

    vit_config: dict[str, Any] | PreTrainedConfig | None = None
    cnn_config: dict[str, Any] | PreTrainedConfig | None = None
    latent_dim: int = 64
    num_cross_attention_heads: int = 4
    token_grid_size: int = 7
    interaction_layers: list[int] | tuple[int, ...] | None = None
    head_dropout_prob: float | int = 0.1
    update_cnn_statistics: bool = True
    initializer_range: float | int = 0.02
    score_offset: float | int = 0.0
    score_scale: float | int = 1.0
    score_range: list[float | int] | tuple[float | int, ...] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        # The published model is timm's, whose layer norms have this epsilon; that of Transformers is 1e-12.
        self.vit_config = make_part("vit_config", self.vit_config, ViTConfig(layer_norm_eps=1e-6))
        self.cnn_config = make_part("cnn_config", self.cnn_config, ResNetConfig(out_features=STAGES))
        if self.interaction_layers is not None:
            self.interaction_layers = sorted(set(self.interaction_layers))
        super().__post_init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """Width D of the vision Transformer."""
        return self.vit_config.hidden_size  # type: ignore[union-attr]

    @property
    def num_hidden_layers(self) -> int:
        """Depth L of the vision Transformer, in blocks."""
        return self.vit_config.num_hidden_layers  # type: ignore[union-attr]

    @property
    def image_size(self) -> int:
        """Side of the crops that the vision Transformer reads, in pixels."""
        return self.vit_config.image_size  # type: ignore[union-attr]

    @property
    def patch_size(self) -> int:
        """Side of the patches that the vision Transformer reads, in pixels."""
        return self.vit_config.patch_size  # type: ignore[union-attr]

    @property
    def injected_layers(self) -> list[int]:
        """Indices of the blocks before which local features are added, ascending."""
        return (
            list(range(self.num_hidden_layers)) if self.interaction_layers is None else list(self.interaction_layers)
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, those of the parts without what no score depends on."""
        values = super().to_dict()
        for name in self.sub_configs:
            values[name] = {key: item for key, item in values[name].items() if key not in NOTES}
        return values

    def to_diff_dict(self) -> dict[str, Any]:
        """Return the fields that differ from the defaults; the parts are whole, so that they name what they are."""
        values = self.to_dict()
        return super().to_diff_dict() | {name: values[name] for name in self.sub_configs}

    def signature_fields(self) -> dict[str, Any]:
        """Return the fields that a model in evaluation mode reads; the weights tell the rest."""
        fields = {name: getattr(self, name) for name in LodaConfig.__annotations__.keys() - UNREAD_FIELDS}
        fields |= {"vit_config": describe_part(self.vit_config), "cnn_config": describe_part(self.cnn_config)}
        return fields | {"interaction_layers": self.injected_layers}

    def validate_architecture(self) -> None:
        """Raise a ValueError for the first rule that the fields break."""
        self._validate_parts()
        self._validate_sizes()
        check_sizes({name: getattr(self, name) for name in LARGEST}, LARGEST)
        if self.latent_dim % self.num_cross_attention_heads:
            raise ValueError(
                f"`latent_dim` must be a multiple of `num_cross_attention_heads`, got {self.latent_dim} and "
                f"{self.num_cross_attention_heads}. Change one of them."
            )
        unknown = [layer for layer in self.injected_layers if not 0 <= layer < self.num_hidden_layers]
        if unknown or not self.injected_layers:
            raise ValueError(
                f"`interaction_layers` must name some of the blocks 0 to {self.num_hidden_layers - 1}, got "
                f"{shorten(self.injected_layers)}."
            )
        if not 0 <= self.head_dropout_prob < 1:
            raise ValueError(f"`head_dropout_prob` must lie in [0, 1), got {self.head_dropout_prob}.")
        if not 0 <= self.initializer_range <= 10:
            raise ValueError(f"`initializer_range` must lie in [0, 10], got {self.initializer_range}.")
        if self.num_labels != 1:
            raise ValueError(f"A LoDa model predicts one score, so `num_labels` must be 1, got {self.num_labels}.")
        super().validate_architecture()

    def _validate_parts(self) -> None:
        kind = self.vit_config.model_type  # type: ignore[union-attr]
        if kind not in VIT_TYPES:
            raise ValueError(
                f"`vit_config` must be of one of the types {', '.join(VIT_TYPES)}, whose first token is CLS, got "
                f"{shorten(kind)}."
            )
        for name in ("image_size", "patch_size"):
            if not isinstance(getattr(self, name), int):
                raise ValueError(f"`vit_config`: `{name}` must be one number, got {shorten(getattr(self, name))}.")
        if not getattr(self.cnn_config, "out_features", None):
            raise ValueError(
                "`cnn_config` must be a backbone with `out_features`, the stages that give local features, got "
                f"{shorten(self.cnn_config.model_type)} without them."  # type: ignore[union-attr]
            )

    def _validate_sizes(self) -> None:
        if self.image_size % self.patch_size:
            raise ValueError(
                f"`vit_config`: `image_size` must be a multiple of `patch_size`, got {self.image_size} and "
                f"{self.patch_size}."
            )
        heads = self.vit_config.num_attention_heads  # type: ignore[union-attr]
        if self.hidden_size % heads:
            raise ValueError(
                f"`vit_config`: `hidden_size` must be a multiple of `num_attention_heads`, got {self.hidden_size} and "
                f"{heads}."
            )
        for name in self.sub_configs:
            channels = getattr(getattr(self, name), "num_channels", 3)
            if channels != 3:
                raise ValueError(f"`{name}`: `num_channels` must be 3, for RGB pictures, got {channels}.")


__all__ = ["LodaConfig"]
