# SPDX-License-Identifier: Apache-2.0
"""Choice of patches by contrast: where there is detail, upscaling leaves traces.

The published code takes the "contrast" of a gray-level co-occurrence matrix of 256 levels at a distance of 5 pixels to
the right. That is the mean squared difference of such pixels, so no matrix is needed.
"""

import torch

DISTANCE = 5  # pixels
LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue
BAND = 64  # rows that are computed together, so that they fit into the caches of a processor


def to_luma(pixels: torch.Tensor) -> torch.Tensor:
    """Return the luma of pixels (height, width, 3), uint8 or float in [0, 1], as float32 levels from 0 to 255.

    Raises:
        ValueError: If the pixels are of another type.
    """
    if not (pixels.dtype == torch.uint8 or pixels.is_floating_point()):
        raise ValueError(f"Pixels must be uint8 or float, got {pixels.dtype}.")
    weights = torch.tensor(LUMA, device=pixels.device)
    luma = torch.cat([band.to(torch.float32) @ weights for band in pixels.split(BAND)])
    return luma if pixels.dtype == torch.uint8 else luma.mul_(255)


def measure_contrast(luma: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Measure the contrast of each patch of a picture; a rest at the right and at the bottom is left out.

    Args:
        luma: Levels from 0 to 255, shape (height, width), both at least `patch_size`.
        patch_size: Side of a patch, in pixels, above 5.

    Returns:
        Mean of (g[y, x] - g[y, x + 5])^2 in each patch, of levels g that are rounded, float64 (rows, columns).

    Raises:
        ValueError: If patches are too small, so that no two pixels lie so far apart.
    """
    if patch_size <= DISTANCE:
        raise ValueError(f"`patch_size` must be above {DISTANCE}, got {patch_size}.")
    rows, columns = (side // patch_size for side in luma.shape)
    contrast = luma.new_zeros((rows, columns), dtype=torch.float64)
    for row in range(rows):
        band = luma[row * patch_size : (row + 1) * patch_size, : columns * patch_size].round()
        tiles = band.view(patch_size, columns, patch_size)
        # Sums of whole numbers below 2^24 are exact, so every machine chooses the same patches.
        squares = (tiles[..., DISTANCE:] - tiles[..., :-DISTANCE]).square_().sum(dim=-1)
        contrast[row] = squares.double().sum(dim=0)
    return contrast / (patch_size * (patch_size - DISTANCE))


def mirror(pixels: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return a picture (h, w, 3) of at least some height and width, where needed continued as in a mirror."""
    for axis, least in enumerate((height, width)):
        side = pixels.shape[axis]
        if side < least:
            places = torch.arange(least, device=pixels.device) % (2 * side)
            pixels = pixels.index_select(axis, torch.minimum(places, 2 * side - 1 - places))
    return pixels


__all__ = ["measure_contrast", "mirror", "to_luma"]
