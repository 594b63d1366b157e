# SPDX-License-Identifier: Apache-2.0
"""MUSIQ's part of a report: quality map, attention, pyramid of patches and spatial embedding."""

from collections.abc import Iterator

from PIL import Image

from ...models.musiq.image_processing_musiq import MusiqImageProcessor
from ...models.musiq.modeling_musiq import MusiqForImageQualityAssessment
from ..figures import plot_quality_map
from ..sections import Explainer, Section
from .figures import cls_attention, plot_attention, plot_hash_similarity, plot_pyramid
from .quality_map import PatchLayout, patch_layouts, quality_map


def make_sections(
    model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor, image: Image.Image
) -> Iterator[Section]:
    """Yield the sections that a checkpoint of MUSIQ allows."""
    yield Section(
        "Quality map",
        "The score of the picture without the patches of one region, at every scale, minus the score with them: red "
        "regions lower the score, blue ones raise it. Each number is exact; they need not add up.",
        lambda: plot_quality_map(quality_map(model, processor, image), image),
    )
    yield Section(
        "Attention",
        "From where the CLS token, of which the score is made, takes what it knows: above, its attention in the last "
        "block, mean of heads; below, attention rollout through all blocks. Attention says where the model looks, not "
        "whether that raises or lowers the score.",
        lambda: plot_attention(model, processor, image),
    )
    yield Section(
        "Multi-scale pyramid",
        "What the model reads: the picture at every scale, cut into patches (thin lines). Gray borders are padding; "
        "patches inside of one yellow frame, numbered by row and column, share a position.",
        lambda: plot_pyramid(processor, image),
    )
    if model.config.spatial_embedding == "hash":
        yield Section(
            "Spatial embedding",
            "Cosine similarity of the vectors that stand for positions in the picture, each with all others, in its "
            "place. A property of the checkpoint, the same for every picture.",
            lambda: plot_hash_similarity(model),
        )


def describe_patches(processor: MusiqImageProcessor, height: int, width: int) -> dict[str, str]:
    """Describe how many patches of each scale are read of a picture of this size, in pixels."""
    patches = (
        f"{layout.count} ({_name_scale(layout, height, width)})" for layout in patch_layouts(height, width, processor)
    )
    return {"Patches": ", ".join(patches)}


def _name_scale(layout: PatchLayout, height: int, width: int) -> str:
    if layout.is_native and (layout.height, layout.width) == (height, width):
        return "native"
    return f"{'native, shrunk' if layout.is_native else 'resized'} to {layout.width} x {layout.height}"


EXPLAINER = Explainer(sections=make_sections, facts=describe_patches, quality_map=quality_map)

__all__ = [
    "EXPLAINER",
    "cls_attention",
    "plot_attention",
    "plot_hash_similarity",
    "plot_pyramid",
    "quality_map",
]
