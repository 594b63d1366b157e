# SPDX-License-Identifier: Apache-2.0
"""Photographs and a tiny recipe for super-resolution."""

from dataclasses import replace

import pytest

from musiq_hf.pictures import make_picture
from musiq_hf.training import SuperResolutionSettings
from musiq_hf.training.super_resolution.settings import RECIPES

TINY = replace(
    RECIPES["small"],
    architecture={
        **RECIPES["small"].architecture,
        "encoder_num_blocks": 1,
        "encoder_hidden_size": 8,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_kernels": 2,
        "decoder_hidden_sizes": [16],
    },
    source_size=12,
    batch_size=3,
    num_positions=40,
    shrinking=1.0,
)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(3):
        make_picture(seed=seed, width=130, height=110).save(folder / f"{seed}.png")
    return folder


@pytest.fixture
def make_settings(photographs, tmp_path, monkeypatch):
    """Make settings of a tiny network that trains in milliseconds."""
    monkeypatch.setitem(RECIPES, "small", TINY)
    return lambda **given: SuperResolutionSettings(
        **{"pictures": photographs, "output_dir": tmp_path / "upscaler", **given}
    )
