# SPDX-License-Identifier: Apache-2.0
"""Small models of families, saved as checkpoints, for the lists of promises that every family of a kind keeps."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from places import ROOT

from musiq_hf.models import FAMILIES
from musiq_hf.models.protocol import Family
from musiq_hf.scoring.verification import write_self_test


@dataclass
class Case:
    """A family with a small model and where they are saved."""

    family: Family
    model: Any
    processor: Any
    folder: Path


def make_case(name: str, kind: str, folder: Path, *, noise: float) -> Case:
    """Save a small model of a family with a self-test.

    Args:
        name: Name of the family, whose small fields are in tests/models/<name>/tiny.json.
        kind: Field of `Family` with the class of the model.
        folder: Where it is saved.
        noise: Standard deviation of what is added to each weight, so that none is left at its start.
    """
    family, path = FAMILIES[name], ROOT / "tests" / "models" / name / "tiny.json"
    torch.manual_seed(0)
    model = getattr(family, kind)(family.config(**json.loads(path.read_text()))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    processor = family.processor.from_config(model.config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_self_test(model, processor, folder)
    return Case(family, model, processor, folder)
