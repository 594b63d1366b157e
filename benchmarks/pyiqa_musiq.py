# SPDX-License-Identifier: Apache-2.0
"""MUSIQ of pyiqa with our weights, for comparison only: it is run as installed, and nothing of it is copied.

The licence of pyiqa is noncommercial. Only the file of its network is imported, because the whole package would import
every other metric. Packages that these need and this network does not (torchvision, OpenCV) are replaced by empty
modules if they are not installed.
"""

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from benchmarks.inputs import Features
from musiq_hf import MusiqConfig, MusiqForImageQualityAssessment
from musiq_hf.conversion.key_mapping import PYIQA, from_ours

VERSION = "0.1.16"
INSTALL = f"pip install --no-deps pyiqa=={VERSION}"
UNUSED = ("torchvision", "cv2", "scipy")
# Fields that its code fixes; the others are arguments of its class.
FIXED = {
    "patch_encoder": "resnet",
    "patch_encoder_depth": 5,
    "patch_encoder_width": 64,
    "patch_encoder_groups": 32,
    "spatial_embedding": "hash",
    "use_native_resolution": True,
    "pre_logits_size": None,
    "layer_norm_eps": 1e-6,
}


class _StandIns(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules for packages that are not installed; every name in them is an empty class."""

    def __init__(self, packages: Sequence[str]):
        self.packages = packages

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] in self.packages:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        def empty_class(name: str) -> type:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

        module = types.ModuleType(spec.name)
        module.__getattr__ = empty_class  # type: ignore[method-assign]
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        return None


@contextlib.contextmanager
def _install_stand_ins() -> Iterator[None]:
    """Install stand-ins while pyiqa is imported, and remove them, so that no other code finds them."""
    missing = [name for name in UNUSED if importlib.util.find_spec(name) is None]
    finder = _StandIns(missing)
    sys.meta_path.append(finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.split(".")[0] in missing]:
            del sys.modules[name]


def is_installed() -> bool:
    """Return whether pyiqa is installed."""
    return importlib.util.find_spec("pyiqa") is not None


def load_architecture() -> types.ModuleType:
    """Import the module of pyiqa's network without the package around it.

    Raises:
        ImportError: If pyiqa is not installed; the message holds the pip line.
    """
    name = "pyiqa.archs.musiq_arch"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec("pyiqa")
    if spec is None or spec.submodule_search_locations is None:
        raise ImportError(f"pyiqa is needed for the comparison. Install it with: {INSTALL}")
    package = types.ModuleType("pyiqa")
    package.__path__ = list(spec.submodule_search_locations)
    package.__spec__ = spec
    sys.modules.setdefault("pyiqa", package)
    with _install_stand_ins():
        return importlib.import_module(name)


def pyiqa_weights(model: MusiqForImageQualityAssessment) -> dict[str, torch.Tensor]:
    """Return our weights by pyiqa's names and layouts.

    Raises:
        ValueError: If pyiqa's code cannot express the configuration, or has no place for a weight.
    """
    config = model.config
    for name, value in FIXED.items():
        if getattr(config, name) != value:
            raise ValueError(
                f"pyiqa's network has `{name}={value}`, got {getattr(config, name)}. Compare with the published "
                "architecture."
            )
    arrays = {name: values.detach().float().cpu().numpy() for name, values in model.state_dict().items()}
    theirs, unknown = from_ours(arrays, target=PYIQA, num_attention_heads=config.num_attention_heads)
    if unknown:
        raise ValueError(f"Weights without a place in pyiqa's network: {unknown}. Compare another checkpoint.")
    if config.num_labels > 1:  # its head then also holds a softmax
        theirs = {name.replace("head.", "head.0.", 1): values for name, values in theirs.items()}
    return {name: torch.from_numpy(values.copy()) for name, values in theirs.items()}


def build(model: MusiqForImageQualityAssessment) -> nn.Module:
    """Build pyiqa's network with our weights, on our device, in float32, ready for `score`.

    Raises:
        ImportError: If pyiqa is not installed.
        ValueError: If pyiqa's code cannot express the configuration.
    """
    config, weights = model.config, pyiqa_weights(model)
    network: nn.Module = load_architecture().MUSIQ(
        patch_size=config.patch_size,
        num_class=config.num_labels,
        hidden_size=config.hidden_size,
        mlp_dim=config.intermediate_size,
        num_heads=config.num_attention_heads,
        num_layers=config.num_hidden_layers,
        num_scales=config.num_scales,
        spatial_pos_grid_size=config.hash_grid_size,
        use_scale_emb=config.use_scale_embedding,
        longer_side_lengths=list(config.longer_side_lengths),
        pretrained=False,
    )
    network.load_state_dict(weights, strict=True)
    network.to(model.device).eval()
    # Its `forward` cuts the picture itself, unless the outermost module says that it is training. Our sequences are
    # cut already, so this one flag is set; all layers below stay in evaluation mode.
    network.training = True
    return network


def sequence(features: Features, config: MusiqConfig) -> torch.Tensor:
    """Convert our features of one picture to pyiqa's layout, with resized scales padded to their largest length.

    Args:
        features: Tensors that our processor returns for one picture.
        config: Configuration of the model.

    Returns:
        float32, shape (1, slots, values + 3): patches channels first, then cell, scale and mask.
    """
    side, values = config.patch_size, features["pixel_values"][0]
    # (n, P * P * 3) -> (n, 3 * P * P)
    patches = values.view(-1, side, side, 3).permute(0, 3, 1, 2).reshape(len(values), -1)
    names = ("spatial_position_ids", "scale_position_ids", "pixel_attention_mask")
    rows = torch.cat((patches, *(features[name][0, :, None].to(patches.dtype) for name in names)), dim=1)
    parts = []
    for scale in range(config.num_scales):
        part = rows[features["scale_position_ids"][0] == scale]
        slots = len(part)
        if scale < len(config.longer_side_lengths):
            slots = (-(-config.longer_side_lengths[scale] // side)) ** 2
        parts.append(nn.functional.pad(part, (0, 0, 0, slots - len(part))))
    return torch.cat(parts)[None]


def score(network: nn.Module, rows: torch.Tensor) -> torch.Tensor:
    """Score sequences made by `sequence`; the result has shape (batch_size,)."""
    scores: torch.Tensor = network(rows)
    return scores[:, 0]


def deviation(model: MusiqForImageQualityAssessment, network: nn.Module, features: Features) -> float:
    """Measure the largest difference of a score between both models, in MOS points, on the same picture."""
    with torch.inference_mode():
        theirs = score(network, sequence(features, model.config))
        if model.config.num_labels == 1:
            theirs = model.config.score_offset + model.config.score_scale * theirs
        return float((model(**features).scores - theirs).abs().max())
