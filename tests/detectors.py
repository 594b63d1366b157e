# SPDX-License-Identifier: Apache-2.0
"""Detectors of upscaling that tests save: tiny ones with random weights."""

import torch

from musiq_hf.models import FAMILIES
from musiq_hf.models.auto import register


def save_detector(folder, *, native=0.0, **fields):
    """Save a detector whose bias for "native" can be raised, and return its folder."""
    register()
    family = FAMILIES["sudds"]
    sizes = {"hidden_sizes": [4, 4, 8, 8], "hidden_size": 8, "patch_size": 32, "num_patches": 3}
    config = family.config(**sizes | fields)
    torch.manual_seed(0)
    model = family.classifier(config).eval()
    with torch.no_grad():
        model.head.layers[-1].bias[0] += native
    model.save_pretrained(folder)
    family.processor.from_config(config).save_pretrained(folder)
    return folder
