# SPDX-License-Identifier: Apache-2.0
"""Hyperparameters of MSIT and the rules that they obey.

Whoever loads one class of a repository gets the files that it imports, and Transformers finds imports by their text.
These lines stand here so that all files come, and can be saved again:

    from .image_processing_msit import MsitImageProcessor
    from .modeling_msit import MsitForImageSuperResolution
"""

from collections.abc import Sequence
from typing import Any, Literal

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from .settings_msit import CheckedConfig, check_sizes

# Far above every model that was trained. A damaged file names sizes that fill any memory, or take hours.
LARGEST = {
    "encoder_num_blocks": 2**8,
    "encoder_hidden_size": 2**12,
    "encoder_num_layers": 2**6,
    "encoder_growth": 2**10,
    "hidden_size": 2**12,
    "num_attention_heads": 2**8,
    "num_kernels": 2**6,
    "num_attention_kernels": 2**6,
    "position_encoding_size": 2**12,
    "decoder_hidden_sizes": 2**14,
}
LARGEST_RADIUS = 16  # pixels of the source
LARGEST_SCALE = 16.0  # the highest frequency of a position is 2 to this power
SHIFT_GROUP = 8  # channels after which the directions of the shift repeat
ENCODER_FIELDS = {"encoder_num_layers", "encoder_growth"}  # of RDN alone
ATTENTION_FIELDS = {
    "num_attention_heads",
    "num_attention_kernels",
    "window_radius",
    "position_encoding_size",
    "position_encoding_scale",
}


@strict
class MsitConfig(CheckedConfig, PreTrainedConfig):
    """Configuration of MSIT; the defaults give the published network with the encoder EDSR-baseline.

    Args:
        encoder_type: Network that reads the picture: "edsr" or "rdn", both without their upsampler.
        encoder_num_blocks: Residual blocks of the encoder; in RDN each is a dense block.
        encoder_hidden_size: Channels of the encoder.
        encoder_num_layers: Layers of each dense block of RDN.
        encoder_growth: Channels that each layer of a dense block adds.
        hidden_size: Channels of latent, value and query maps: a multiple of the numbers of heads and of kernels, and
            of 8 with the shift.
        num_attention_heads: Heads of the attention.
        window_radius: Source pixels on each side of the nearest one to which a target pixel attends.
        num_kernels: Kernels of the convolution modulation, of sizes 3, 5, 7 and so on; each has a share of the
            channels.
        num_attention_kernels: Kernels of the query map, of the same sizes.
        use_shift: Whether the modulation reads the neighbours of each pixel, one direction per channel.
        shift_padding: Neighbours at the border: "circular", from the opposite border as in the published code, or
            "replicate".
        use_local_attention: Whether target pixels attend to a window; if not, each takes the value of the nearest
            source pixel.
        use_cell: Whether the decoder reads the size of a target pixel.
        position_encoding_size: Sines and cosines of the offset between a target pixel and a source pixel, a multiple
            of 4.
        position_encoding_scale: Logarithm to base 2 of the highest frequency plus 1; None = attention without
            positions.
        decoder_hidden_sizes: Widths of the layers of the decoder before its last one.
        use_rim: Whether the kernels of modulation, value and query are frozen and modulated by themselves, as in the
            published second stage.

    Raises:
        ValueError: If fields contradict each other; the message says what to change.
    """

    model_type = "msit"
    default_head = "ForImageSuperResolution"

    encoder_type: Literal["edsr", "rdn"] = "edsr"
    encoder_num_blocks: int = 16
    encoder_hidden_size: int = 64
    encoder_num_layers: int = 8
    encoder_growth: int = 64
    hidden_size: int = 256
    num_attention_heads: int = 8
    window_radius: int = 3
    num_kernels: int = 16
    num_attention_kernels: int = 4
    use_shift: bool = True
    shift_padding: Literal["circular", "replicate"] = "circular"
    use_local_attention: bool = True
    use_cell: bool = True
    position_encoding_size: int = 64
    position_encoding_scale: float | int | None = 10.0
    decoder_hidden_sizes: list[int] | tuple[int, ...] = (256, 256, 256, 256)
    use_rim: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        if isinstance(self.decoder_hidden_sizes, Sequence):
            self.decoder_hidden_sizes = list(self.decoder_hidden_sizes)
        super().__post_init__(**kwargs)

    @property
    def radius(self) -> int:
        """Source pixels on each side of the nearest one that a target pixel reads; 0 without attention."""
        return self.window_radius if self.use_local_attention else 0

    @property
    def num_cells(self) -> int:
        """Source pixels that a target pixel reads."""
        return (2 * self.radius + 1) ** 2

    @property
    def decoder_input_size(self) -> int:
        """Numbers that the decoder reads of a target pixel."""
        return self.num_cells * self.hidden_size + 2 * self.use_cell

    def signature_fields(self) -> dict[str, Any]:
        """Return the fields that a model in evaluation mode reads; the weights tell the rest."""
        unread = {"model_type"} if self.encoder_type == "rdn" else {"model_type"} | ENCODER_FIELDS
        unread |= set() if self.use_local_attention else ATTENTION_FIELDS
        unread |= set() if self.use_shift else {"shift_padding"}
        return {name: getattr(self, name) for name in MsitConfig.__annotations__.keys() - unread}

    def validate_architecture(self) -> None:
        """Raise a ValueError for the first rule that the fields break."""
        check_sizes({name: getattr(self, name) for name in LARGEST}, LARGEST)
        if not self.decoder_hidden_sizes:
            raise ValueError("`decoder_hidden_sizes` must name at least one layer, got an empty list.")
        if not 0 <= self.window_radius <= LARGEST_RADIUS:
            raise ValueError(f"`window_radius` must lie between 0 and {LARGEST_RADIUS}, got {self.window_radius}.")
        divisors = {"num_kernels": self.num_kernels}
        if self.use_local_attention:
            divisors |= {name: getattr(self, name) for name in ("num_attention_heads", "num_attention_kernels")}
        for name, divisor in divisors.items():
            if self.hidden_size % divisor:
                raise ValueError(
                    f"`hidden_size` must be a multiple of `{name}`, got {self.hidden_size} and {divisor}."
                )
        if self.use_shift and self.hidden_size % SHIFT_GROUP:
            raise ValueError(
                f"`hidden_size` must be a multiple of {SHIFT_GROUP} with `use_shift`, got {self.hidden_size}."
            )
        self._check_positions()

    def _check_positions(self) -> None:
        if self.position_encoding_size % 4 or self.position_encoding_size < 8:
            raise ValueError(
                f"`position_encoding_size` must be a multiple of 4 and at least 8, got {self.position_encoding_size}."
            )
        scale = self.position_encoding_scale
        if scale is not None and not 0 <= scale <= LARGEST_SCALE:
            raise ValueError(f"`position_encoding_scale` must lie between 0 and {LARGEST_SCALE:g}, got {scale}.")


__all__ = ["MsitConfig"]
