# SPDX-License-Identifier: Apache-2.0
"""`MusiqImageProcessor` turns pictures into the multi-scale patch sequences of section 3.2, with positions and masks.

It works in PyTorch and follows the released code (google-research/musiq, model/preprocessing.py) exactly. The Gaussian
resize preserves the aspect ratio, and sizes are computed in float32. Zero padding is centred and comes after
normalisation. Hash positions are floored. There is one difference: the released code pads every resized scale to its
largest possible length. Here padding stands only at the end of a sequence, and only in batches.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypedDict, Unpack

import numpy as np
import torch
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.utils import TensorType

from .configuration_musiq import LARGEST, MusiqConfig, check_lengths, check_native_side
from .image_loading_musiq import describe, load_image, to_rgb_tensor
from .patching_musiq import (
    extract_patches,
    gaussian_resize,
    hash_positions,
    num_patches,
    scaled_sizes,
    shrink,
    write_chosen_patches,
    write_patches,
)
from .settings_musiq import CheckedProcessor, check_sizes

# Fields that `MusiqConfig` has too; a model and its processor must agree on them.
SHARED_FIELDS = (
    "patch_size",
    "hash_grid_size",
    "spatial_embedding",
    "longer_side_lengths",
    "use_native_resolution",
    "max_native_patches",
    "max_native_side",
)
# Settings that decide how a result is packed; they change no score.
PACKING_FIELDS = {"padding", "return_tensors"}


def _cut(
    pixels: torch.Tensor,
    sizes: Sequence[tuple[int, int]],
    patch_size: int,
    *,
    has_native: bool,
    kept: Sequence[torch.Tensor],
) -> torch.Tensor:
    """Cut one picture into the kept patches of all scales, (num_patches, patch_size * patch_size * 3), in [-1, 1].

    Pixels are scaled to [-1, 1] before they are padded, so that padding is mid gray. Nothing is clipped. uint8 pixels
    are converted as late as possible, because float32 takes four times the memory.
    """
    is_shrunk = has_native and sizes[-1] != tuple(pixels.shape[:2])
    resize = [gaussian_resize] * (len(sizes) - has_native) + [shrink if is_shrunk else None] * has_native
    if pixels.dtype != torch.uint8:
        pixels = -1 + pixels * 2
        which = zip(sizes, resize, strict=True)
        scaled = [pixels if method is None else method(pixels, *size) for size, method in which]
        cut = [extract_patches(image, patch_size) for image in scaled]
        pairs = zip(cut, kept, strict=True)
        return torch.cat([part if len(indices) == len(part) else part[indices] for part, indices in pairs])
    counts = [len(indices) for indices in kept]
    patches = torch.empty((sum(counts), patch_size * patch_size * 3), dtype=torch.float32, device=pixels.device)
    for part, size, method, indices in zip(patches.split(counts), sizes, resize, kept, strict=True):
        if method is not None:
            resized = method(pixels, *size).div_(127.5).sub_(1)
            torch.index_select(extract_patches(resized, patch_size), 0, indices, out=part)
        elif len(indices) == math.prod(num_patches(*size, patch_size)):
            write_patches(pixels, patch_size, part)
        else:
            write_chosen_patches(pixels, patch_size, indices, part)
    return patches


class MusiqImageProcessorKwargs(TypedDict, total=False):
    """Settings of `MusiqImageProcessor`, for its construction and for a call; its docstring describes them."""

    patch_size: int
    hash_grid_size: int
    spatial_embedding: Literal["hash", "sinusoid", "fixed", "none"]
    longer_side_lengths: list[int] | tuple[int, ...]
    use_native_resolution: bool
    max_native_patches: int | None
    max_native_side: int | None
    resize_mode: Literal["arp", "square"]
    padding: Literal["longest", "max_length", "do_not_pad"]
    do_convert_rgb: bool
    input_data_format: Literal["channels_first", "channels_last"] | None
    return_tensors: str | TensorType | None


class MusiqImageProcessor(CheckedProcessor, BaseImageProcessor):
    """Image processor that turns pictures of any sizes into the sequences that MUSIQ reads.

    It takes paths, URLs, base64, PIL images, arrays and tensors, one or many, of different sizes. uint8 is 0..255,
    uint16 0..65535, float 0..1. EXIF orientation is applied to files and to PIL images that carry it. Gray is
    repeated, alpha is composited on white, CMYK and palette pictures are converted, and 16 bits are scaled. If both
    layouts fit, arrays are read as height, width, channels and tensors as channels, height, width. Float tensors stay
    on their device, and the result is differentiable in their pixels.

    Args:
        patch_size: Side P of a patch, in pixels.
        hash_grid_size: Side G of the grid of spatial positions.
        spatial_embedding: Spatial embedding of the model: "hash", "sinusoid", "fixed" or "none". For "fixed" positions
            are slots of the padded sequence in place of grid cells.
        longer_side_lengths: Longer sides L_k of the resized copies, in pixels.
        use_native_resolution: Whether the picture itself is the last scale.
        max_native_patches: Number l of native patches that are kept, the first in raster order as in the released
            code; None = all.
        max_native_side: Longer side, in pixels, to which a larger native picture is shrunk, antialiased; None = never,
            as in the released code. No resized copy may be larger.
        resize_mode: "arp" keeps the aspect ratio (eq. 1); "square" does not (Table 5).
        padding: "longest" pads to the longest sequence of the batch, "max_length" to the longest possible one (needs
            `max_native_patches`), "do_not_pad" returns lists.
        do_convert_rgb: Whether pictures that are not RGB are converted; if not, they raise.
        input_data_format: "channels_first" or "channels_last" for arrays and tensors; None infers it.
        return_tensors: "pt" or "np"; None = "pt".

    Raises:
        ValueError: If settings contradict each other, or a picture cannot be used; the message names picture and size.
    """

    valid_kwargs = MusiqImageProcessorKwargs
    model_input_names = ["pixel_values", "pixel_attention_mask", "spatial_position_ids", "scale_position_ids"]

    patch_size = 32
    hash_grid_size = 10
    spatial_embedding = "hash"
    longer_side_lengths = [224, 384]
    use_native_resolution = True
    max_native_patches = None
    max_native_side = None
    resize_mode = "arp"
    padding = "longest"
    do_convert_rgb = True

    def __init__(self, **settings: Unpack[MusiqImageProcessorKwargs]):
        """Make a processor with the settings that the class describes."""
        kwargs: dict[str, Any] = {**settings}
        self.check_given(kwargs)
        if not __name__.startswith("transformers_modules"):
            kwargs.pop("auto_map", None)  # it names files that this class is not of
        super().__init__(**kwargs)
        self._set_attributes(**kwargs)
        self._validate_preprocess_kwargs(**{name: getattr(self, name) for name in self.valid_kwargs.__annotations__})

    @classmethod
    def from_config(cls, config: MusiqConfig, **kwargs: Any) -> "MusiqImageProcessor":
        """Make a processor that agrees with a configuration; `kwargs` are further settings."""
        return cls(**{name: getattr(config, name) for name in SHARED_FIELDS}, **kwargs)

    def check_config(self, config: Any) -> None:
        """Raise a ValueError if a `MusiqConfig` disagrees with this processor on a field that both have."""
        for name in SHARED_FIELDS:
            ours, theirs = getattr(self, name), getattr(config, name)
            if ours != theirs:
                raise ValueError(
                    f"Model and image processor must agree on `{name}`, got {theirs} and {ours}. "
                    "Build the processor with `MusiqImageProcessor.from_config(model.config)`."
                )

    def signature_fields(self) -> dict[str, Any]:
        """Return the settings that decide what a model sees of a picture; those for packing sequences do not."""
        names = self.valid_kwargs.__annotations__.keys() - PACKING_FIELDS
        fields = {name: getattr(self, name) for name in names}
        if self.max_native_side is None:
            del fields["max_native_side"]  # signatures from before this setting hold
        return fields

    def cut(
        self, pixels: torch.Tensor, *, choose: Callable[[int, int], torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """Turn one picture into its unpadded sequence.

        Args:
            pixels: Shape (height, width, 3), uint8, or float32 in [0, 1].
            choose: Function from the index of a scale and its number of patches to the indices of those that are cut,
                int64, ascending. It is called once for each scale, in order. None cuts all.

        Returns:
            The entries of `model_input_names`, without a batch axis, on the device of the pixels.

        Raises:
            ValueError: If the picture is too small or too thin for the settings.
        """
        names = self.valid_kwargs.__annotations__.keys() - PACKING_FIELDS
        settings = {name: getattr(self, name) for name in names}
        return self._preprocess(pixels, choose=choose, **settings | {"input_data_format": "channels_last"})

    def num_tokens(self, feature: dict[str, torch.Tensor]) -> int:
        """Return the number of patches of a sequence."""
        return len(feature["pixel_attention_mask"])

    def count_tokens(self, height: int, width: int) -> int:
        """Return the number of patches of a picture of this size, in pixels.

        Raises:
            ValueError: If the picture is too thin for the settings.
        """
        return sum(self.count_patches(height, width))

    def compute_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return height and width, in pixels, of each scale of a picture of this size, in order.

        Raises:
            ValueError: If a side of a resized copy rounds to 0 pixels.
        """
        return scaled_sizes(
            height,
            width,
            longer_side_lengths=tuple(self.longer_side_lengths),
            use_native_resolution=self.use_native_resolution,
            resize_mode=self.resize_mode,
            max_native_side=self.max_native_side,
        )

    def count_patches(self, height: int, width: int) -> list[int]:
        """Return the number of patches of each scale of a picture of this size, in pixels, in order.

        Raises:
            ValueError: If a side of a resized copy rounds to 0 pixels.
        """
        counts = [math.prod(num_patches(*size, self.patch_size)) for size in self.compute_sizes(height, width)]
        if self.use_native_resolution and self.max_native_patches is not None:
            counts[-1] = min(counts[-1], self.max_native_patches)
        return counts

    def __call__(self, images: Any, **kwargs: Unpack[MusiqImageProcessorKwargs]) -> BatchFeature:
        """Turn one picture or many into the sequences that the model reads; see `preprocess`."""
        return self.preprocess(images, **kwargs)

    def preprocess(self, images: Any, **kwargs: Unpack[MusiqImageProcessorKwargs]) -> BatchFeature:
        """Turn one picture or many into the sequences that the model reads.

        Args:
            images: Picture, batch array, or lists of them; the docstring of the class says of which kinds.
            **kwargs: Settings of the class, for this call alone.

        Returns:
            Tensors of `model_input_names`, each of shape (batch_size, sequence_length, ...).

        Raises:
            ValueError: If a picture cannot be used, or settings contradict each other.
        """
        return super().preprocess(images, **kwargs)

    def _standardize_kwargs(self, **kwargs: Any) -> dict[str, Any]:
        kwargs["longer_side_lengths"] = sorted(kwargs["longer_side_lengths"])
        return kwargs

    def _validate_preprocess_kwargs(self, **kwargs: Any) -> None:
        check_sizes(kwargs, LARGEST)
        lengths = kwargs["longer_side_lengths"]
        check_lengths(lengths, kwargs["patch_size"])
        if not lengths and not kwargs["use_native_resolution"]:
            raise ValueError("No scale is left: give `longer_side_lengths` or set `use_native_resolution=True`.")
        check_native_side(kwargs["max_native_side"], lengths)
        bounded = not kwargs["use_native_resolution"] or kwargs["max_native_patches"] is not None
        if not bounded and (kwargs["padding"] == "max_length" or kwargs["spatial_embedding"] == "fixed"):
            raise ValueError(
                '`padding="max_length"` and `spatial_embedding="fixed"` need a bounded sequence. Set '
                "`max_native_patches` (the paper trains with 512)."
            )
        if kwargs["return_tensors"] not in (None, "pt", "np", TensorType.PYTORCH, TensorType.NUMPY):
            raise ValueError(f'`return_tensors` must be "pt", "np" or None, got {kwargs["return_tensors"]!r}.')

    def _preprocess_image_like_inputs(self, images: Any, **kwargs: Any) -> BatchFeature:
        padding, return_tensors = kwargs.pop("padding"), kwargs.pop("return_tensors")
        features, pictures = [], list(self.list_pictures(images))
        for index, image in enumerate(pictures):
            try:
                if not isinstance(image, np.ndarray | torch.Tensor):
                    image = load_image(image)
                features.append(self._preprocess(image, **kwargs))
            except ValueError as error:
                number = f" {index}" if len(pictures) > 1 else ""
                raise ValueError(f"Picture{number} ({describe(image)}): {error}") from error
        if not features:
            raise ValueError("At least one picture is needed, got an empty list.")
        return self._pad(features, padding=padding, return_tensors=return_tensors, **kwargs)

    def _preprocess(
        self,
        image: Any,
        *,
        patch_size: int,
        hash_grid_size: int,
        spatial_embedding: str,
        longer_side_lengths: list[int],
        use_native_resolution: bool,
        max_native_patches: int | None,
        max_native_side: int | None,
        resize_mode: str,
        do_convert_rgb: bool,
        input_data_format: str | None,
        choose: Callable[[int, int], torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Turn one picture into its unpadded sequence; the tensors have no batch axis."""
        pixels = to_rgb_tensor(
            image, input_data_format=input_data_format, do_convert_rgb=do_convert_rgb, keep_uint8=True
        )
        sizes = scaled_sizes(
            pixels.shape[0],
            pixels.shape[1],
            longer_side_lengths=tuple(longer_side_lengths),
            use_native_resolution=use_native_resolution,
            resize_mode=resize_mode,
            max_native_side=max_native_side,
        )
        native_limit = max_native_patches if use_native_resolution else None
        kept, positions, scales, first_slot = [], [], [], 0
        for scale, (height, width) in enumerate(sizes):
            is_native = scale == len(longer_side_lengths)
            rows, cols = num_patches(height, width, patch_size)
            count = min(rows * cols, native_limit or rows * cols) if is_native else rows * cols
            kept.append(torch.arange(count) if choose is None else choose(scale, count))
            if spatial_embedding == "fixed":
                positions.append(first_slot + kept[-1])
            else:
                positions.append(hash_positions(rows, cols, hash_grid_size)[kept[-1]])
            scales.append(torch.full((len(kept[-1]),), scale))
            if not is_native:
                first_slot += (-(-longer_side_lengths[scale] // patch_size)) ** 2
        device = pixels.device
        kept = [indices.to(device) for indices in kept]
        patches = _cut(pixels, sizes, patch_size, has_native=use_native_resolution, kept=kept)
        positions_of_all, scales_of_all = torch.cat(positions).to(device), torch.cat(scales).to(device)
        return {
            "pixel_values": patches,
            "pixel_attention_mask": torch.ones_like(scales_of_all),
            "spatial_position_ids": positions_of_all,
            "scale_position_ids": scales_of_all,
        }

    def pad(
        self,
        features: Sequence[dict[str, torch.Tensor]],
        *,
        padding: str | None = None,
        max_length: int | None = None,
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """Batch sequences of different lengths; all padding is made here.

        Args:
            features: Tensors of each picture, as this processor returns them with `padding="do_not_pad"`.
            padding: "longest", "max_length" or "do_not_pad"; None = the processor's own setting.
            max_length: Number of patches that "max_length" pads to; None = the longest possible sequence.
            return_tensors: "pt" or "np"; None = "pt".

        Returns:
            Tensors (batch_size, sequence_length, ...), zero where the mask is 0; lists for "do_not_pad". If a single
            sequence needs no padding, it is not copied: the batch shares its memory.
        """
        names = self.valid_kwargs.__annotations__
        settings = {name: getattr(self, name) for name in names} | {"return_tensors": return_tensors}
        settings |= {"padding": padding} if padding is not None else {}
        checked = settings if max_length is None else settings | {"padding": "longest"}
        self._validate_preprocess_kwargs(**checked)
        return self._pad(features, max_length=max_length, **settings)

    def _pad(
        self,
        features: Sequence[dict[str, torch.Tensor]],
        *,
        padding: str,
        return_tensors: str | TensorType | None,
        patch_size: int,
        longer_side_lengths: list[int],
        use_native_resolution: bool,
        max_native_patches: int | None,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        as_numpy = return_tensors in ("np", TensorType.NUMPY)
        if padding == "do_not_pad":
            return BatchFeature(
                data={
                    name: [feature[name].detach().cpu().numpy() if as_numpy else feature[name] for feature in features]
                    for name in self.model_input_names
                }
            )
        longest = length = max(len(feature["pixel_attention_mask"]) for feature in features)
        if padding == "max_length":
            length = max_length or (
                sum((-(-side // patch_size)) ** 2 for side in longer_side_lengths)
                + ((max_native_patches or 0) if use_native_resolution else 0)
            )
            if longest > length:
                raise ValueError(
                    f'`padding="max_length"` pads to {length} patches, got a sequence of {longest}. Make the features '
                    "with the same `max_native_patches`."
                )
        data = {}
        for name in self.model_input_names:
            first = features[0][name]
            if len(features) == 1 and len(first) == length:
                batch = first[None]  # not copied, because the pixels of one picture can be gigabytes
            else:
                batch = first.new_zeros((len(features), length, *first.shape[1:]))
                for row, feature in enumerate(features):
                    batch[row, : len(feature[name])] = feature[name]
            data[name] = batch.detach().cpu().numpy() if as_numpy else batch
        return BatchFeature(data=data)


__all__ = ["MusiqImageProcessor", "MusiqImageProcessorKwargs"]
