# SPDX-License-Identifier: Apache-2.0
"""Weights of a checkpoint of any family, checked by the headers of their files, and hashed once they are loaded."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from .musiq.checks_musiq import check_index, check_weights, identify_scores, read_headers


def check_weight_files(config: Any, files: Sequence[Path], *, source: str) -> None:
    """Raise a ValueError unless some files hold exactly the weights of the model that a configuration describes.

    Nothing of the size of the weights is allocated.

    Args:
        config: Configuration of a checkpoint.
        files: All of its files of weights.
        source: Name of the checkpoint, for the message.
    """
    found = read_headers(files)
    num_layers = getattr(config, "num_hidden_layers", 0)
    if num_layers > len(found):  # making a model takes time for every layer, even without memory for its weights
        raise ValueError(
            f"{source}: its config.json describes {num_layers} layers, but there are only {len(found)} weights. "
            "Download or convert the checkpoint again."
        )
    with torch.device("meta"):
        model = AutoModel.from_config(config, trust_remote_code=False)
    check_weights(model, found, source=source)


__all__ = ["check_index", "check_weight_files", "identify_scores"]
