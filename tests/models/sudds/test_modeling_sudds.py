# SPDX-License-Identifier: Apache-2.0
"""The detector against the numbers of its published code, and what it promises beyond."""

import math

import golden_upscaling as golden
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from musiq_hf.models.sudds import UpscalingDetectorConfig, UpscalingDetectorForImageClassification
from musiq_hf.models.sudds.modeling_sudds import SpectrumNorm, vote

TOLERANCE = 1e-5  # float32 is off by 2e-6
SMALL = {"hidden_sizes": [4, 4, 8, 8], "hidden_size": 8}


def make(seed: int = 0, **fields) -> UpscalingDetectorForImageClassification:
    torch.manual_seed(seed)
    return UpscalingDetectorForImageClassification(UpscalingDetectorConfig(**SMALL | fields)).eval()


def make_batch(pictures: int = 2, patches: int = 3, side: int = 32, seed: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "pixel_values": torch.rand(pictures, patches, 3, side, side, generator=generator),
        "patch_mask": torch.ones(pictures, patches, dtype=torch.int64),
        "spectrum": torch.randn(pictures, 128, generator=generator),
    }


@torch.no_grad()
def test_maps_and_features_are_those_of_the_published_code():
    model = make(backbone="resnet18", hidden_sizes=None, use_spectrum=False)
    state = {
        "backbone." + name.removeprefix("resnet_model.") if name.startswith("resnet") else f"staircase.{name}": value
        for name, value in golden.make_weights().items()
    }
    model.extractor.load_state_dict(state)
    patches = torch.from_numpy(golden.ARRAYS["pixel_values"])
    maps = model.extractor.backbone(patches)
    found = {"stage1": maps[1][:, :, ::2, ::2], "stage4": maps[4], "features": model.extractor(patches)}
    for name, value in found.items():
        np.testing.assert_allclose(value.numpy(), golden.ARRAYS[name], atol=TOLERANCE, rtol=0, err_msg=name)


@pytest.mark.parametrize("backbone", ["small", "resnet18"])
@pytest.mark.parametrize("use_staircase", [True, False])
def test_every_part_learns(backbone, use_staircase):
    model = make(backbone=backbone, use_staircase=use_staircase, spectrum_dropout=0, dropout=0)
    model.train()
    loss = model(**make_batch(), labels=torch.tensor([0, 3])).loss
    loss.backward()
    still = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []


def test_the_small_detector_has_the_size_of_the_documents():
    model = UpscalingDetectorForImageClassification(UpscalingDetectorConfig())
    assert sum(weight.numel() for weight in model.parameters()) == 194_870


@torch.no_grad()
@pytest.mark.parametrize("decides", ["mean", "majority"])
@pytest.mark.parametrize("backbone", ["small", "resnet18"])
def test_padding_and_partners_change_nothing(backbone, decides):
    model, batch = make(backbone=backbone, vote=decides), make_batch(patches=5)
    batch["patch_mask"][1, 2:] = 0
    together = model(**batch)
    alone = model(batch["pixel_values"][1:, :2], spectrum=batch["spectrum"][1:])
    torch.testing.assert_close(together.logits[1:], alone.logits, atol=1e-6, rtol=0)
    torch.testing.assert_close(together.patch_logits[1:, :2], alone.patch_logits, atol=1e-6, rtol=0)
    assert not together.patch_logits[1, 2:].any()
    batch["pixel_values"][1, 2:] = 5.0
    assert torch.equal(model(**batch).logits, together.logits)


@torch.no_grad()
def test_probabilities_are_means_or_shares_of_those_of_the_patches():
    model, batch = make(), make_batch(patches=4)
    outputs = model(**batch)
    mean = outputs.patch_logits.softmax(dim=-1).mean(dim=1)
    torch.testing.assert_close(outputs.logits.exp(), mean)
    torch.testing.assert_close(outputs.logits.softmax(dim=-1), mean)
    patch_logits = torch.tensor([[[0.0, 3, 1], [9, 0, 0], [0, 1, 0], [0, 0, 99]]])
    mask = torch.tensor([[True, True, True, False]])
    shares = vote(patch_logits, mask, by_majority=True).softmax(dim=-1)
    torch.testing.assert_close(shares, torch.tensor([[1 / 3, 2 / 3, 0.0]]), atol=2e-6, rtol=0)


def test_the_loss_is_the_cross_entropy_of_real_patches():
    model, batch = make(), make_batch()
    batch["patch_mask"][0, 1:] = 0
    labels = torch.tensor([2, 5])
    outputs = model(**batch, labels=labels)
    real = torch.cat([outputs.patch_logits[0, :1], outputs.patch_logits[1]])
    torch.testing.assert_close(outputs.loss, F.cross_entropy(real, torch.tensor([2, 5, 5, 5])))


def test_padding_is_not_in_the_statistics_of_training():
    batch, found = make_batch(patches=4), []
    batch["patch_mask"][:, 2:] = 0
    for pad in (0.0, 7.0):
        model = make(dropout=0, spectrum_dropout=0).train()
        batch["pixel_values"][:, 2:] = pad
        outputs = model(**batch, labels=torch.tensor([0, 1]))
        assert not outputs.patch_logits[:, 2:].any()
        found.append((outputs.loss, model.extractor.backbone.bn1.running_mean, outputs.patch_logits))
    for first, second in zip(*found, strict=True):
        assert torch.equal(first, second)


def test_a_step_of_training_hides_spectra():
    model, batch = make(dropout=0, spectrum_dropout=0.5).train(), make_batch(pictures=400, patches=1)
    batch["pixel_values"] = batch["pixel_values"][:1].expand(400, -1, -1, -1, -1)
    logits = model(**batch).patch_logits[:, 0]
    hidden = (logits == logits.mode(dim=0).values).all(dim=1)
    assert 150 < hidden.sum() < 250
    model.eval()
    assert len(model(**batch).patch_logits.unique(dim=0)) == 400


def test_spectra_are_standardised_by_what_training_saw():
    norm, spectra = SpectrumNorm(), 3 + 2 * torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    normed = norm(spectra)
    torch.testing.assert_close(normed.std(dim=0, correction=0), torch.ones(128), atol=1e-4, rtol=0)
    for _ in range(100):
        norm(spectra)
    norm(spectra[:1])  # alone it tells nothing about others
    norm.eval()
    torch.testing.assert_close(norm(spectra), normed, atol=0.05, rtol=0)
    assert norm(spectra.half()).dtype == torch.float32


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same(dtype, tmp_path):
    model, batch = make(), make_batch()
    model.save_pretrained(tmp_path)
    half = UpscalingDetectorForImageClassification.from_pretrained(tmp_path, dtype=dtype).eval()
    assert half.extractor.backbone.conv1.weight.dtype == dtype
    assert half.head.layers[0].weight.dtype == half.spectrum_norm.running_var.dtype == torch.float32
    torch.testing.assert_close(half(**batch).logits, model(**batch).logits, atol=0.02, rtol=0)
    torch.testing.assert_close(model.to(dtype)(**batch).logits.float(), half(**batch).logits, atol=0.05, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel_values": None}, "`pixel_values` is required"),
        ({"pixel_values": torch.zeros(2, 3, 3, 31, 32)}, "with p at least 32, got .2, 3, 3, 31, 32"),
        ({"pixel_values": torch.zeros(2, 3, 3, 32, 32, dtype=torch.uint8)}, "must be float .* got .* of torch.uint8"),
        ({"pixel_values": torch.zeros(2, 0, 3, 32, 32)}, r"got \(2, 0, 3, 32, 32\)"),
        ({"patch_mask": torch.tensor([[1, 0, 0], [0, 0, 0]])}, "at least one patch, got a row of zeros"),
        ({"pixel_values": torch.zeros(2, 3, 32, 32, 3)}, "Did you skip"),
        ({"patch_mask": torch.ones(2, 4)}, r"`patch_mask` must have shape \(2, 3\), got \(2, 4\)"),
        ({"spectrum": None}, r"`spectrum` must have shape \(2, 128\), got nothing"),
        ({"spectrum": torch.zeros(2, 64)}, r"got \(2, 64\)"),
        ({"labels": torch.zeros(2, 3)}, r"`labels` must have shape \(2,\), got \(2, 3\)"),
        ({"labels": torch.tensor([0, 6])}, r"whole numbers from 0 to 5, got .*0, 6"),
        ({"labels": torch.tensor([0, -100])}, "from 0 to 5, got .*0, -100"),
        ({"labels": torch.tensor([0.0, 1.0])}, "whole numbers from 0 to 5, got"),
        ({"interpolate": True}, "no argument interpolate"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make()(**make_batch() | change)


def test_a_detector_without_spectrum_refuses_one():
    model, batch = make(use_spectrum=False), make_batch()
    with pytest.raises(ValueError, match="must have `use_spectrum=False`"):
        model(**batch)
    del batch["spectrum"]
    assert model(**batch).logits.isfinite().all()
    one = model(batch["pixel_values"][:, 0])
    assert one.patch_logits.shape == (2, 1, 6) and math.isclose(one.logits[0].exp().sum().item(), 1, rel_tol=1e-5)
