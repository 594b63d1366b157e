# SPDX-License-Identifier: Apache-2.0
"""Writing of checkpoints, each file whole or not at all."""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..common.files import read_json, write_json
from ..models.calibration import CALIBRATION
from ..models.protocol import QualityProcessor

CARD = "README.md"


def save_checkpoint(
    model: PreTrainedModel,
    processor: QualityProcessor,
    output_dir: str | Path,
    *,
    dtype: str,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write config, weights, preprocessor config and the code of the family, each under a temporary name first.

    Args:
        model: Model to save; its own weights stay as they are.
        processor: Image processor that is saved beside it.
        output_dir: Folder, made if missing. Other files in it are kept, but code of an earlier version and the
            calibration of other weights are removed.
        dtype: Type of floating-point weights in the file, "float32" or "float16"; config.json says float32 either way.
            Whole numbers, such as counters of batch norms, keep their type.
        weights: Weights by name; None = the model's own. Sharded training gathers them first and gives them here.
    """
    output = Path(output_dir)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output, prefix=".saving-") as name:
        temporary = Path(name)
        source = model.state_dict() if weights is None else weights
        kind = getattr(torch, dtype)
        stored = {key: value.to(kind) if value.is_floating_point() else value for key, value in source.items()}
        model.save_pretrained(temporary, state_dict=stored)
        processor.save_pretrained(temporary)
        write_json(temporary / "config.json", read_json(temporary / "config.json") | {"dtype": "float32"})
        config: Any = model.config
        left = {source.name for source in config.list_code()} | ({CARD} if (output / CARD).exists() else set())
        (output / CALIBRATION).unlink(missing_ok=True)  # of other weights; one that holds is among the files to move
        for file in temporary.iterdir():
            if file.name not in left:
                os.replace(file, output / file.name)
    for part in (config, processor):  # they know which files of an earlier version to remove
        part.publish(output)
