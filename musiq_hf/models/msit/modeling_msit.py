# SPDX-License-Identifier: Apache-2.0
"""MSIT: super-resolution of pictures by any factor, with local attention at several scales."""

import math
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init
from transformers.modeling_outputs import ImageSuperResolutionOutput
from transformers.utils import can_return_tuple

from .attention_msit import Decoder, LocalAttention, SourceMaps, group, surround
from .checks_msit import CheckedPreTrainedModel
from .configuration_msit import MsitConfig
from .encoders_msit import make_encoder, measure_reach
from .modulation_msit import ConvolutionModulation, QueryMap, ReinteractionConv2d
from .positions_msit import Places, PositionBias, find_places, sample
from .publishing_msit import PublishedModel

LARGEST_FACTOR = 64
BLOCK_NUMBERS = 2**22  # that are computed at one time between maps and pixels: 16 MB in float32
TILE_SIZE = 192  # pixels of the source
WHOLE_TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
Run = tuple[int, int]  # first pixel of a side, and the one after the last


@dataclass(frozen=True)
class Target:
    """Pixels to compute.

    Attributes:
        images: Source pictures, shape (b, height, width, 3).
        rows: Places of the rows over the source.
        columns: Places of the columns over the source.
        cell_size: Height and width of a target pixel; the source is 2 high and 2 wide.
    """

    images: torch.Tensor
    rows: Places
    columns: Places
    cell_size: tuple[float, float]


class MsitPreTrainedModel(PublishedModel, CheckedPreTrainedModel):
    """Base of MSIT: class of the configuration, capabilities, and initial weights."""

    config_class = MsitConfig
    config: MsitConfig
    base_model_prefix = "msit"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    # The Trainer would otherwise rescale our mean-reduced loss by the number of processes or accumulation steps.
    accepts_loss_kwargs = False
    # Statistics of batches are too small for half precision, and so are the offsets that the positions tell apart.
    _keep_in_fp32_modules_strict = {"norm", "position_bias"}

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise a layer as PyTorch does; the last layer is 0, so that a new model samples bilinearly."""
        if isinstance(module, nn.Conv2d | nn.Linear | ReinteractionConv2d):
            is_last = getattr(module, "initial", None) == "zeros"
            bound = 0.0 if is_last else math.prod(module.weight.shape[1:]) ** -0.5
            init.uniform_(module.weight, -bound, bound)
            if module.bias is not None:
                init.uniform_(module.bias, -bound, bound)
        if isinstance(module, ReinteractionConv2d) and module.spatial_map is not None:
            init.uniform_(module.spatial_map, -1 / 3, 1 / 3)
            init.zeros_(module.pointwise_map)
        elif isinstance(module, nn.BatchNorm2d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)


class MsitForImageSuperResolution(MsitPreTrainedModel):
    """Network that upscales pictures by any factor; its answer is added to a bilinear upscale."""

    def __init__(self, config: MsitConfig):
        super().__init__(config)
        self.encoder = make_encoder(config)
        self.reduction = nn.Conv2d(config.encoder_hidden_size, config.hidden_size, 1)
        self.modulation = ConvolutionModulation(config)
        self.value = ReinteractionConv2d(config.hidden_size, 3, is_modulated=config.use_rim)
        self.query = QueryMap(config) if config.use_local_attention else None
        scale = config.position_encoding_scale
        has_bias = config.use_local_attention and scale is not None
        self.position_bias = PositionBias(config, float(scale or 0)) if has_bias else None
        self.decoder = Decoder(config)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        pixel_values: torch.Tensor | None = None,
        *,
        scale: float | None = None,
        target_size: Any = None,
        positions: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        **kwargs: Any,
    ) -> ImageSuperResolutionOutput:
        """Enlarge a batch of pictures of one size.

        Args:
            pixel_values: RGB in [-1, 1], float, shape (batch_size, 3, height, width).
            scale: Factor of both sides, above 0 and at most 64; the sides of the target are rounded.
            target_size: Height and width of the target in pixels, in place of `scale`.
            positions: Row and column of the target pixels to compute, whole numbers, shape (batch_size, Q, 2); None
                = all.
            labels: RGB of the target in [-1, 1], of the shape of the reconstruction.
            output_hidden_states: Whether the maps are returned; None = as the configuration says.
            output_attentions: Whether the weights of attention are returned; None = as the configuration says.
            **kwargs: `return_dict`.

        Returns:
            `ImageSuperResolutionOutput`. `reconstruction` is RGB in about [-1, 1], not clipped, in float32 or better.
            Its shape is (batch_size, 3, target height, target width), or (batch_size, 3, Q) at positions. `loss` is
            the mean absolute difference to the labels. `hidden_states` are the maps of encoder, modulation, value and
            query. `attentions` has shape (batch_size, pixels, cells, heads), pixels and cells row by row.

        Raises:
            ValueError: If an argument is missing or wrong.
        """
        if unknown := kwargs.keys() - {"return_dict"}:
            raise ValueError(f"The model takes no argument {', '.join(sorted(unknown))}.")
        images = self._check_images(pixel_values)
        size = find_target_size(images, scale, target_size)
        features = self.encoder(images.to(self.dtype))
        latent, value, query = self._read_maps(self._surround(features))
        maps, target = surround(value, query, ring=max(self.config.radius, 1)), self._place(images, size)
        wants_weights = self.config.output_attentions if output_attentions is None else output_attentions
        if positions is None:
            reconstruction, weights = self._decode_all(maps, target, wants_weights=wants_weights)
        else:
            reconstruction, weights = self._decode_pixels(maps, target, check_positions(positions, images, size))
        wants_maps = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        all_maps = tuple(item for item in (features, latent, value, query) if item is not None)
        return ImageSuperResolutionOutput(
            loss=None if labels is None else measure_loss(reconstruction, labels),
            reconstruction=reconstruction,
            hidden_states=all_maps if wants_maps else None,
            attentions=weights if wants_weights else None,
        )

    @torch.no_grad()
    def upscale(
        self,
        pixel_values: torch.Tensor,
        *,
        scale: float | None = None,
        target_size: Any = None,
        tile_size: int | None = None,
    ) -> ImageSuperResolutionOutput:
        """Enlarge a batch of pictures in tiles, which need less memory and leave no seams.

        Args:
            pixel_values: That of `forward`.
            scale: That of `forward`.
            target_size: That of `forward`.
            tile_size: Side of the tiles in pixels of the source; None = 192.

        Returns:
            `ImageSuperResolutionOutput` with the `reconstruction` of `forward`, but for rounding.

        Raises:
            ValueError: If an argument is wrong, or the model is in training mode.
        """
        if self.training:
            raise ValueError("Tiles need a model in evaluation mode. Call `model.eval()` first.")
        tile_size = TILE_SIZE if tile_size is None else tile_size
        if not isinstance(tile_size, int) or tile_size < 1:
            raise ValueError(f"`tile_size` must be a whole number of pixels from 1, got {tile_size!r}.")
        images = self._check_images(pixel_values)
        size = find_target_size(images, scale, target_size)
        target = self._place(images, size)
        precision = torch.promote_types(images.dtype, self.dtype)
        whole = images.new_empty((len(images), 3, *size), dtype=precision)
        bottom = 0
        for rows in target.rows.split(tile_size):
            top, bottom, right = bottom, bottom + len(rows.nearest), 0
            for columns in target.columns.split(tile_size):
                left, right = right, right + len(columns.nearest)
                maps = self._read_tile(images, rows, columns)
                tile, _ = self._decode_all(maps, replace(target, rows=rows, columns=columns))
                whole[:, :, top:bottom, left:right] = tile
        return ImageSuperResolutionOutput(reconstruction=whole)

    def add_rim(self) -> None:
        """Freeze the kernels of modulation, value and query, and let them modulate themselves, without effect yet.

        Raises:
            ValueError: If they are modulated already.
        """
        self._change_rim(True)

    def fold_rim(self) -> None:
        """Make the kernels that the re-interaction gives plain parameters; the answers stay the same.

        Raises:
            ValueError: If no kernels are modulated.
        """
        self._change_rim(False)

    def _change_rim(self, is_modulated: bool) -> None:
        if self.config.use_rim == is_modulated:
            state, call = ("have", "fold_rim") if is_modulated else ("have no", "add_rim")
            raise ValueError(f"The kernels {state} re-interaction. Call `model.{call}()` for the other way.")
        for module in self.modules():
            if isinstance(module, ReinteractionConv2d):
                module.modulate() if is_modulated else module.fold()
        self.config.use_rim = is_modulated

    def _read_maps(self, ringed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Compute latent, value and query maps of a map of the encoder, or of a part of it, with a ring of one pixel.

        Near an inner border of a part they differ from those of the whole.
        """
        latent = self.modulation(self.reduction(ringed))
        return latent, self.value(latent), None if self.query is None else self.query(latent)

    def _find_ringed(self, first: int, last: int, length: int) -> torch.Tensor:
        """Return the index of pixels first..last - 1 of a side, and of the one that is seen at each end."""
        index = torch.arange(first - 1, last + 1, device=self.device)
        return index % length if self.config.shift_padding == "circular" else index.clamp(0, length - 1)

    def _surround(self, features: torch.Tensor) -> torch.Tensor:
        """Put a ring of one pixel around the whole map of the encoder."""
        for dim in (2, 3):
            length = features.shape[dim]
            features = features.index_select(dim, self._find_ringed(0, length, length))
        return features

    def _encode(self, images: torch.Tensor, rows: Run, columns: Run) -> torch.Tensor:
        """Compute a rectangle of the map of the encoder from the pixels that it depends on."""
        reach, (top, bottom), (left, right) = measure_reach(self.config), rows, columns
        up, start = max(top - reach, 0), max(left - reach, 0)
        maps = self.encoder(images[:, :, up : bottom + reach, start : right + reach].to(self.dtype))
        return maps[:, :, top - up : bottom - up, left - start : right - start]

    def _encode_ringed(self, images: torch.Tensor, region: tuple[Run, Run]) -> torch.Tensor:
        """Compute a region of the map of the encoder with its ring, which may lie at the opposite border."""
        runs, places = [], []
        for (first, last), length in zip(region, images.shape[2:], strict=True):
            needed, index = self._find_ringed(first, last, length).unique(return_inverse=True)
            gaps = (needed.diff() > 1).nonzero().flatten() + 1
            runs.append([(int(run[0]), int(run[-1]) + 1) for run in needed.tensor_split(gaps.cpu())])
            places.append(index)
        lines = [torch.cat([self._encode(images, rows, columns) for columns in runs[1]], dim=3) for rows in runs[0]]
        return torch.cat(lines, dim=2).index_select(2, places[0]).index_select(3, places[1])

    def _read_tile(self, images: torch.Tensor, rows: Places, columns: Places) -> SourceMaps:
        """Compute the maps that the target pixels of a tile read."""
        config, region = self.config, []
        ring = max(config.radius, 1)
        reach = ring + max(1, config.num_attention_kernels) + config.num_kernels
        for places, length in ((rows, images.shape[2]), (columns, images.shape[3])):
            first, last = int(places.nearest[0]), int(places.nearest[-1])
            region.append((max(first - reach, 0), min(last + 1 + reach, length)))
        _, value, query = self._read_maps(self._encode_ringed(images, (region[0], region[1])))
        return surround(value, query, ring=ring, corner=(region[0][0], region[1][0]))

    def _place(self, images: torch.Tensor, size: tuple[int, int]) -> Target:
        """Find the places of the rows and columns of a target, with their biases."""
        places, sources = [], images.shape[2:]
        for side, (source, target) in enumerate(zip(sources, size, strict=True)):
            bias = None if self.position_bias is None else self.position_bias(source, target, side)
            places.append(find_places(source, target, bias, self.reduction.weight))
        cell_size = (2 * sources[0] / size[0], 2 * sources[1] / size[1])
        return Target(images.movedim(1, -1), places[0], places[1], cell_size)

    def _decode_pixels(
        self, maps: SourceMaps, target: Target, positions: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute single pixels, (b, 3, q), and the weights of attention, (b, q, cells, heads)."""
        attention = LocalAttention(self.config, maps, self.decoder.value_weight)
        batch = torch.arange(len(positions), device=positions.device)[:, None]
        rows, columns = target.rows.take(positions[..., 0]), target.columns.take(positions[..., 1])
        hidden, weights = attention.mix_pixels(batch, rows, columns)
        residual = self.decoder(hidden + self.decoder.constant(target.cell_size))
        return (sample(target.images, batch, rows, columns) + residual).movedim(-1, 1), weights

    def _decode_all(
        self, maps: SourceMaps, target: Target, *, wants_weights: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute all pixels of a target, (b, 3, height, width), and the weights of attention if they are wanted."""
        attention = LocalAttention(self.config, maps, self.decoder.value_weight)
        constant = self.decoder.constant(target.cell_size)
        batch = torch.arange(len(target.images), device=target.images.device)[:, None, None]
        most_rows, most_columns = self._measure_block(target)
        columns = [group(places) for places in target.columns.split(most_columns)]
        pixels, all_weights = [], []
        for places in target.rows.split(most_rows):
            rows, line, weights_line = group(places), [], []
            for column in columns:
                hidden, weights = attention.mix_block(rows, column)
                base = sample(target.images, batch, places.take((slice(None), None)), column.places)
                line.append(base + self.decoder(hidden + constant))
                weights_line += [weights] if wants_weights and weights is not None else []
            pixels.append(torch.cat(line, dim=2))
            all_weights += [torch.cat(weights_line, dim=2)] if weights_line else []
        whole = torch.cat(pixels, dim=1).movedim(-1, 1)
        return whole, torch.cat(all_weights, dim=1).flatten(1, 2) if all_weights else None

    def _measure_block(self, target: Target) -> tuple[int, int]:
        """Return the rows and columns of the source whose target pixels are computed at one time."""
        config, width = self.config, max(self.config.decoder_hidden_sizes)
        heads = config.num_attention_heads
        per_source = config.num_cells * max(heads * width, 2 * config.hidden_size)
        per_target = config.num_cells * heads + config.hidden_size + 2 * width
        pixels = 4 / (target.cell_size[0] * target.cell_size[1])  # of the target per pixel of the source
        most = BLOCK_NUMBERS // int(len(target.images) * (per_source + per_target * pixels))
        columns = max(1, min(most, target.images.shape[2]))
        return max(1, most // columns), columns

    @staticmethod
    def _check_images(pixel_values: torch.Tensor | None) -> torch.Tensor:
        """Return pictures in float32 or better, or raise a ValueError."""
        if pixel_values is None:
            raise ValueError("`pixel_values` is required: pass the output of `MsitImageProcessor`.")
        shape = tuple(getattr(pixel_values, "shape", ()))
        if len(shape) != 4 or shape[1] != 3 or not all(shape) or not is_float(pixel_values):
            raise ValueError(
                "`pixel_values` must be floats of shape (batch_size, 3, height, width), got "
                f"{describe(pixel_values)}. Did you skip `MsitImageProcessor`?"
            )
        return pixel_values.to(torch.promote_types(pixel_values.dtype, torch.float32))


def is_float(value: Any) -> bool:
    """Return whether a value is a tensor of floats."""
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def describe(value: Any) -> str:
    """Return shape and type of a tensor, and the type of anything else, for error messages."""
    return f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, torch.Tensor) else type(value).__name__


def find_target_size(images: torch.Tensor, scale: float | None, target_size: Any) -> tuple[int, int]:
    """Return height and width of the target, of which exactly one of two arguments tells.

    Args:
        images: Pictures, shape (b, 3, height, width).
        scale: That of `MsitForImageSuperResolution.forward`.
        target_size: That of `MsitForImageSuperResolution.forward`.

    Raises:
        ValueError: If none or both are given, or one has a wrong value.
    """
    if (scale is None) == (target_size is None):
        given = "neither" if scale is None else "both"
        raise ValueError(f"Exactly one of `scale` and `target_size` must be given, got {given}.")
    sides = [int(side) for side in images.shape[2:]]
    if target_size is None:
        if isinstance(scale, bool) or not isinstance(scale, Real) or not 0 < scale <= LARGEST_FACTOR:
            raise ValueError(f"`scale` must be a number above 0 and at most {LARGEST_FACTOR}, got {scale!r}.")
        target = [round(side * scale) for side in sides]
        if not all(target):
            raise ValueError(f"`scale` must leave at least one pixel, got {scale} for {sides[0]} x {sides[1]} pixels.")
        return target[0], target[1]
    try:
        target = torch.as_tensor(target_size).tolist()
    except (TypeError, ValueError, RuntimeError):  # of whatever PyTorch makes no tensor of
        target = None
    if not isinstance(target, list) or len(target) != 2 or not all(type(side) is int and side > 0 for side in target):
        raise ValueError(f"`target_size` must be height and width, two whole numbers from 1, got {target_size!r}.")
    if any(large > LARGEST_FACTOR * side for large, side in zip(target, sides, strict=True)):
        raise ValueError(
            f"`target_size` must be at most {LARGEST_FACTOR} times the size of the picture, {sides}, got {target}."
        )
    return target[0], target[1]


def check_positions(positions: torch.Tensor, images: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Return positions as int64 on the device of the pictures, or raise a ValueError if one is none of the target."""
    shape = tuple(getattr(positions, "shape", ()))
    is_whole = isinstance(positions, torch.Tensor) and positions.dtype in WHOLE_TYPES
    if len(shape) != 3 or shape[0] != len(images) or shape[1] < 1 or shape[2] != 2 or not is_whole:
        raise ValueError(
            f"`positions` must be whole numbers of shape ({len(images)}, pixels, 2), got {describe(positions)}."
        )
    index = positions.to(images.device, torch.int64)
    low, high = index.amin((0, 1)).tolist(), index.amax((0, 1)).tolist()
    if min(low) < 0 or high[0] >= size[0] or high[1] >= size[1]:
        raise ValueError(
            f"`positions` must be rows and columns of a target of {size[0]} x {size[1]} pixels, got {low} to {high}."
        )
    return index


def measure_loss(reconstruction: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the mean absolute difference, or raise a ValueError if labels are no floats or shapes differ."""
    if not is_float(labels):
        raise ValueError(f"`labels` must be floats in [-1, 1], got {describe(labels)}. Use `MsitImageProcessor`.")
    if labels.shape != reconstruction.shape:
        raise ValueError(f"`labels` must have shape {tuple(reconstruction.shape)}, got {tuple(labels.shape)}.")
    return F.l1_loss(reconstruction, labels.to(reconstruction))


__all__ = ["MsitForImageSuperResolution", "MsitPreTrainedModel"]
