# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from musiq_hf.models import FAMILIES
from musiq_hf.models.auto import register


def save_detector(folder, *, native=0.0, **fields):
    """Save a tiny detector with random weights, whose bias for "native" can be raised, and return its folder."""
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


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A tiny detector on disk that finds everything upscaled."""
    return save_detector(tmp_path_factory.mktemp("upscaled") / "sudds-test", native=-9)


@pytest.fixture(scope="session")
def native_checkpoint(tmp_path_factory):
    """A tiny detector on disk that finds everything native."""
    return save_detector(tmp_path_factory.mktemp("native") / "sudds-test", native=9)
