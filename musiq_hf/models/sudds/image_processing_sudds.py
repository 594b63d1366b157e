# SPDX-License-Identifier: Apache-2.0
"""`UpscalingDetectorImageProcessor` cuts the patches of most contrast out of a picture, and measures its spectrum.

No picture is resized, since that would make and hide traces of upscaling.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self, TypedDict

import torch
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature
from transformers.utils import TensorType

from .configuration_sudds import LARGEST, UpscalingDetectorConfig, check_patches
from .patches_sudds import measure_contrast, mirror, to_luma
from .settings_sudds import PixelProcessor, check_sizes
from .spectrum_sudds import PIECE, measure_spectrum

SHARED_FIELDS = ("patch_size", "crop_size", "num_patches", "use_spectrum")  # with the configuration
SMALLEST = PIECE  # shorter side of a picture, in pixels


class UpscalingDetectorImageProcessorKwargs(TypedDict, total=False):
    """Settings of `UpscalingDetectorImageProcessor`; its docstring describes them."""

    patch_size: int
    crop_size: int | None
    num_patches: int
    use_spectrum: bool
    do_convert_rgb: bool
    input_data_format: Literal["channels_first", "channels_last"] | None


class UpscalingDetectorImageProcessor(PixelProcessor, BaseImageProcessor):
    """Image processor that turns pictures of any sizes into patches and a spectrum for the upscaling detector.

    It takes PIL images in RGB or gray, arrays and tensors, one or many. uint8 is 0..255, float is 0..1. The openers of
    `musiq_hf` bring all other pictures to that form. A picture smaller than a patch is continued as in a mirror; one
    below 64 pixels is refused.

    Args:
        patch_size: Side of the patches into which a picture is cut, without overlap, in pixels.
        crop_size: Side of the centre of each patch that the model sees, in pixels; None = the whole patch.
        num_patches: Patches that are kept, those of most contrast.
        use_spectrum: Whether the spectrum of the whole picture is measured.
        do_convert_rgb: Whether gray pictures are converted; if not, they raise.
        input_data_format: "channels_first" or "channels_last" for arrays and tensors; None infers it.

    Raises:
        ValueError: If settings contradict each other, or a picture cannot be used; the message names its size.
    """

    valid_kwargs = UpscalingDetectorImageProcessorKwargs
    model_input_names = ["pixel_values", "patch_mask", "spectrum"]

    patch_size = 96
    crop_size = None
    num_patches = 12
    use_spectrum = True
    do_convert_rgb = True
    input_data_format = None

    def check_settings(self) -> None:
        check_sizes(vars(self), LARGEST)
        check_patches(self.patch_size, self.crop_size)

    @classmethod
    def from_config(cls, config: UpscalingDetectorConfig, **settings: Any) -> Self:
        """Make a processor that agrees with a configuration."""
        return cls(**{name: getattr(config, name) for name in SHARED_FIELDS} | settings)

    def check_config(self, config: Any) -> None:
        """Raise a ValueError if an `UpscalingDetectorConfig` disagrees with this processor on a field of both."""
        for name in SHARED_FIELDS:
            ours, theirs = getattr(self, name), getattr(config, name)
            if ours != theirs:
                raise ValueError(
                    f"Model and image processor must agree on `{name}`, got {theirs} and {ours}. Build the processor "
                    "with `UpscalingDetectorImageProcessor.from_config(model.config)`."
                )

    def signature_fields(self) -> dict[str, Any]:
        """Return the settings that decide what a model sees of a picture."""
        return {name: getattr(self, name) for name in self.valid_kwargs.__annotations__}

    def count_tokens(self, height: int, width: int) -> int:
        """Return the number of patches of a picture of this size, in pixels.

        Raises:
            ValueError: If the picture is too small.
        """
        if min(height, width) < SMALLEST:
            raise ValueError(
                f"A picture must have at least {SMALLEST} x {SMALLEST} pixels to show traces of upscaling, got "
                f"{width} x {height}. Give a larger one."
            )
        rows, columns = (max(side // self.patch_size, 1) for side in (height, width))
        return min(rows * columns, self.num_patches)

    def num_tokens(self, feature: dict[str, torch.Tensor]) -> int:
        """Return the number of patches of a feature."""
        return len(feature["patch_mask"])

    def find_corners(self, pixels: torch.Tensor) -> torch.Tensor:
        """Find the patches of most contrast.

        Args:
            pixels: Shape (height, width, 3), uint8, or float in [0, 1].

        Returns:
            Top and left, in pixels, of what the model sees of each patch, int64 (num_patches, 2). The patch of most
            contrast comes first; of equal ones, that which is higher, or further to the left.

        Raises:
            ValueError: If the picture is too small, or its pixels are none.
        """
        self._check_picture(pixels)
        return self._choose(to_luma(mirror(pixels, self.patch_size, self.patch_size)), *pixels.shape[:2])

    def _check_picture(self, pixels: torch.Tensor) -> None:
        self.check_colour(pixels)
        self.count_tokens(*pixels.shape[:2])

    def _choose(self, luma: torch.Tensor, height: int, width: int) -> torch.Tensor:
        contrast = measure_contrast(luma, self.patch_size)
        order = contrast.flatten().sort(descending=True, stable=True).indices[: self.count_tokens(height, width)]
        places = torch.stack([order // contrast.shape[1], order % contrast.shape[1]], dim=1)
        return places * self.patch_size + (self.patch_size - self.side) // 2

    @property
    def side(self) -> int:
        """Side of what the model sees of a patch, in pixels."""
        return self.patch_size if self.crop_size is None else self.crop_size

    def cut(self, pixels: torch.Tensor, *, corners: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        """Turn one picture into its patches and its spectrum.

        Args:
            pixels: Shape (height, width, 3), uint8, or float in [0, 1], without a gradient.
            corners: Top and left of what the model sees of each patch, in pixels, int64 (num_patches, 2); None =
                those of `find_corners`.

        Returns:
            `pixel_values` (num_patches, 3, side, side), float32 in [0, 1], and `patch_mask` (num_patches,), all 1. A
            processor that measures it adds `spectrum` (128,), float32. All are on the device of the pixels.

        Raises:
            ValueError: If the picture is too small, a patch lies outside of it, or the pixels carry a gradient.
        """
        if pixels.requires_grad:
            raise ValueError(
                "Patches are chosen by contrast, through which no gradient passes. Pass `pixels.detach()`."
            )
        self._check_picture(pixels)
        height, width = pixels.shape[:2]
        whole = mirror(pixels, self.patch_size, self.patch_size)
        luma = to_luma(whole)
        corners = self._choose(luma, height, width) if corners is None else torch.as_tensor(corners)
        self._check_corners(corners, *whole.shape[:2])
        side = self.side
        crops = [whole[top : top + side, left : left + side].permute(2, 0, 1) for top, left in corners.tolist()]
        values = torch.stack(crops).to(torch.float32)
        if pixels.dtype == torch.uint8:
            values.div_(255)
        mask = torch.ones(len(values), dtype=torch.int64, device=pixels.device)
        feature = {"pixel_values": values, "patch_mask": mask}
        if self.use_spectrum:
            gray = (luma[:height, :width] / 255).cpu().numpy()
            feature["spectrum"] = torch.from_numpy(measure_spectrum(gray)).to(pixels.device)
        return feature

    def _check_corners(self, corners: torch.Tensor, height: int, width: int) -> None:
        if corners.dim() != 2 or corners.shape[1] != 2 or not len(corners) or corners.is_floating_point():
            raise ValueError(
                f"`corners` must be whole numbers of shape (num_patches, 2), got {tuple(corners.shape)} of "
                f"{corners.dtype}."
            )
        most = torch.tensor([height - self.side, width - self.side], device=corners.device)
        if bool((corners < 0).any() | (corners > most).any()):
            raise ValueError(f"`corners` must lie between 0 and {most.tolist()}, so that patches lie in the picture.")

    def pad(
        self, features: Sequence[dict[str, torch.Tensor]], *, padding: str | None = None, max_length: int | None = None
    ) -> BatchFeature:
        """Batch features; small pictures have fewer patches, and are padded by patches that are masked.

        Args:
            features: Features of the pictures, as `cut` gives them.
            padding: "longest" pads to the most patches of the batch, "max_length" to a fixed number; None =
                "longest".
            max_length: Patches that "max_length" pads to; None = `num_patches`.

        Returns:
            The entries of `cut`, with a batch axis; `patch_mask` is 0 for padding.

        Raises:
            ValueError: If there is no feature, or one has more patches than `max_length` or lacks its spectrum. Also
                if the padding is unknown, or `max_length` is given where it is not read.
        """
        length = self._choose_length(features, padding, max_length)
        data: dict[str, torch.Tensor] = {}
        for name in ("pixel_values", "patch_mask"):
            first = features[0][name]
            data[name] = first.new_zeros((len(features), length, *first.shape[1:]))
            for row, feature in enumerate(features):
                data[name][row, : len(feature[name])] = feature[name]
        if self.use_spectrum:
            data["spectrum"] = torch.stack([feature["spectrum"] for feature in features])
        return BatchFeature(data=data)

    def __call__(self, images: Any, *, return_tensors: str | TensorType | None = None) -> BatchFeature:
        """Turn one picture or many into patches and spectra; see `preprocess`."""
        return self.preprocess(images, return_tensors=return_tensors)

    def _choose_length(
        self, features: Sequence[dict[str, torch.Tensor]], padding: str | None, max_length: int | None
    ) -> int:
        """Return the number of patches that features are padded to, or raise a ValueError."""
        if padding not in (None, "longest", "max_length"):
            raise ValueError(f'`padding` must be "longest" or "max_length", got {padding!r}.')
        if max_length is not None and padding != "max_length":
            raise ValueError(f'`max_length` is read with `padding="max_length"` alone, got {padding!r}. Leave it out.')
        if not features:
            raise ValueError("At least one feature is needed, got none.")
        if self.use_spectrum and not all("spectrum" in feature for feature in features):
            raise ValueError("A feature has no spectrum: cut all pictures by a processor with `use_spectrum=True`.")
        longest = max(map(self.num_tokens, features))
        if padding != "max_length":
            return longest
        length = self.num_patches if max_length is None else max_length
        if longest > length:
            raise ValueError(f"`max_length` must be at least the {longest} patches of a picture, got {length}.")
        return length

    def preprocess(self, images: Any, *, return_tensors: str | TensorType | None = None) -> BatchFeature:
        """Turn one picture or many into patches and spectra.

        Every answer has `num_patches` patches, so that pipelines of Transformers can join them.

        Args:
            images: Picture, batch array, or lists of them; the docstring of the class says of which kinds.
            return_tensors: "pt" or "np"; None = "pt".

        Returns:
            The entries of `pad`.

        Raises:
            ValueError: If a picture cannot be used.
        """
        return self.cut_and_pad(images, return_tensors=return_tensors, padding="max_length")


__all__ = ["UpscalingDetectorImageProcessor"]
