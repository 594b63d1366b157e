# SPDX-License-Identifier: Apache-2.0
"""Models for super-resolution that tests save: tiny ones with random weights."""

import json

import torch
from places import ROOT

from musiq_hf.models import FAMILIES
from musiq_hf.models.auto import register

TINY = json.loads((ROOT / "tests" / "models" / "msit" / "tiny.json").read_text())


def save_upscaler(folder, *, spread=0.0, **fields):
    """Save an upscaler, and return its folder; without a spread of its last weights it samples bilinearly."""
    register()
    family = FAMILIES["msit"]
    torch.manual_seed(0)
    config = family.config(**TINY | fields)
    model = family.upscaler(config).eval()
    with torch.no_grad():
        model.decoder.others[-1].weight.normal_(std=spread)
        model.decoder.others[-1].bias.zero_()
    model.save_pretrained(folder)
    family.processor.from_config(config).save_pretrained(folder)
    return folder
