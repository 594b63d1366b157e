# SPDX-License-Identifier: Apache-2.0
"""The two networks of a LoDa model, loaded from wherever others have put them."""

from typing import Any

from torch import nn
from transformers import AutoBackbone, AutoModel, PreTrainedConfig

from .configuration_loda import VIT_TYPES
from .reading_loda import fill, load_whole, read_config, read_timm
from .timm_loda import is_resnet, is_vit, read_resnet, read_vit

UNUSED = {"embeddings.mask_token"}  # weights of a vision Transformer that no picture reads


def _leave_out_pooler(config: Any) -> dict[str, bool]:
    """Return the keyword that makes a vision Transformer without a pooler; some kinds have none anyway."""
    return {} if config.model_type.startswith("dinov2") else {"add_pooling_layer": False}


def make_vit(config: Any) -> Any:
    """Make a vision Transformer without a pooler from its configuration, with random weights."""
    return AutoModel.from_config(config, trust_remote_code=False, **_leave_out_pooler(config))


def load_vit(source: Any, *, num_attention_heads: int | None = None) -> Any:
    """Load a vision Transformer.

    Args:
        source: Loaded model, id on the Hub, folder in the format of Transformers or timm, or file of weights of timm.
        num_attention_heads: Heads of a model of timm, whose weights do not tell; None = one for 64 of the width.

    Returns:
        Model of Transformers without a head, in evaluation mode, in float32.

    Raises:
        ValueError: If there is no such model, or it is of a kind that LoDa cannot use.
    """
    if isinstance(source, nn.Module):
        model: Any = getattr(source, "base_model", source)
        _check_vit(getattr(model, "config", None), type(source).__name__)
        return model
    arrays = read_timm(str(source))
    if arrays is not None:
        if not is_vit(arrays):
            raise ValueError(f"{source} holds no vision Transformer of timm with a CLS token. Give another one.")
        config, weights = read_vit(arrays, num_attention_heads=num_attention_heads)
        return fill(make_vit(config), weights, source)
    config = read_config(str(source))
    _check_vit(config, str(source))
    return load_whole(
        AutoModel.from_pretrained, source, unused=UNUSED, trust_remote_code=False, **_leave_out_pooler(config)
    )


def _check_vit(config: PreTrainedConfig | None, source: str) -> None:
    kind = getattr(config, "model_type", None)
    if kind not in VIT_TYPES:
        raise ValueError(f"{source} must be a vision Transformer of one of {', '.join(VIT_TYPES)}, got {kind}.")


def load_backbone(source: Any) -> Any:
    """Load a convolutional network that gives the maps of its stages.

    Args:
        source: Loaded backbone, id on the Hub, folder in the format of Transformers or timm, or file of weights of
            timm. A loaded one gives its `out_features`, and any other all of its stages.

    Returns:
        Backbone of Transformers, in evaluation mode, in float32.

    Raises:
        ValueError: If there is no such model, or it is no backbone.
    """
    if isinstance(source, nn.Module):
        if not hasattr(source, "channels"):
            raise ValueError(
                f"A backbone with `out_features` was expected, got a {type(source).__name__}. Load it with "
                "`AutoBackbone`."
            )
        return source
    arrays = read_timm(str(source))
    if arrays is not None:
        if not is_resnet(arrays):
            raise ValueError(f"{source} holds no ResNet of timm. Give another one.")
        config, weights = read_resnet(arrays)
        return fill(AutoBackbone.from_config(config), weights, source)
    stages = getattr(read_config(str(source)), "stage_names", None)
    if not stages:
        raise ValueError(f"{source} is no network whose stages `AutoBackbone` can give. Give a ResNet or a ConvNeXt.")
    config = read_config(str(source), out_features=[name for name in stages if name != "stem"])
    # `AutoBackbone.from_pretrained` asks the Hub about a folder, so the class loads itself.
    kind: Any = type(AutoBackbone.from_config(config))
    return load_whole(kind.from_pretrained, source, unused=UNUSED, config=config)


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Copy the weights of a network to another one of its kind, which may lack a pooler and a mask token."""
    weights = source.state_dict()
    target.load_state_dict({n: value for n, value in weights.items() if not (n in UNUSED or n.startswith("pooler."))})


__all__ = ["copy_weights", "load_backbone", "load_vit", "make_vit"]
