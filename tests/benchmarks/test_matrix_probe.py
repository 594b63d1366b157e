# SPDX-License-Identifier: Apache-2.0
"""The probe of frozen features: what the regressions see, and the command on a tiny model."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.matrix import probe
from musiq_hf import MusiqImageProcessor
from musiq_hf.metrics import quality_metrics
from musiq_hf.models.musiq import masked_covariance


def srcc(blocks, targets, num_train):
    predicted = probe.predict(blocks, targets[:num_train], seed=0)
    return quality_metrics(predicted, targets[num_train:].numpy())["srcc"]


def test_covariances_rank_by_what_cls_cannot_see():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(300, 64, 4, generator=generator)
    targets = 2 * torch.rand(300, generator=generator, dtype=torch.float64) - 1
    tokens[..., 1] += targets[:, None] * tokens[..., 0]  # moves a covariance, and no mean
    cls = tokens.mean(dim=1) + 0.1 * torch.randn(300, 4, generator=generator)
    blocks = probe.make_blocks(cls, masked_covariance(tokens, eps=probe.EPS))
    found = {name: srcc(blocks[name], targets, 200) for name in blocks}
    assert abs(found.pop("CLS")) < 0.3
    assert len(found) == 8 and min(found.values()) > 0.9


def test_the_regression_is_that_of_the_normal_equations():
    generator = torch.Generator().manual_seed(1)
    features = 3 + torch.randn(30, 5, generator=generator, dtype=torch.float64)
    targets = torch.randn(20, generator=generator, dtype=torch.float64)
    scaled = (features - features[:20].mean(dim=0)) / features[:20].std(dim=0, correction=0)
    for strength in (1e-3, 1.0):
        gram = scaled[:20].T @ scaled[:20] + 5 * strength * torch.eye(5, dtype=torch.float64)
        weights = torch.linalg.solve(gram, scaled[:20].T @ (targets - targets.mean()))
        expected = scaled[20:] @ weights + targets.mean()
        (predicted,) = probe.regress([features], targets, 20, torch.tensor([strength], dtype=torch.float64))
        torch.testing.assert_close(predicted, expected)


def test_the_strength_is_chosen_without_the_pictures_that_are_measured():
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(60, 80, generator=generator)
    noise = torch.randn(40, generator=generator, dtype=torch.float64)  # nothing to learn: the strongest is best
    predicted = probe.predict([features], noise, seed=0)
    assert np.ptp(predicted) < 0.2 * np.ptp(noise.numpy())


@pytest.fixture
def command(tmp_path, tiny_model, monkeypatch):
    """The command on 24 small pictures, with a document that has a place."""
    small = partial(probe.Settings, size=4, projections=2, num_train=12, num_others=10)
    monkeypatch.setattr(probe, "Settings", small)
    for seed in (0, 1):
        model = tiny_model(seed=seed)
        model.save_pretrained(tmp_path / f"model{seed}")
        MusiqImageProcessor.from_config(model.config).save_pretrained(tmp_path / f"model{seed}")
    generator = np.random.default_rng(0)
    lines = ["image,mos,split"]
    for index in range(24):
        Image.fromarray(generator.integers(0, 256, (20, 24 + index, 3), dtype=np.uint8)).save(
            tmp_path / f"{index}.png"
        )
        lines.append(f"{index}.png,{index * 7 % 24},{'train' if index < 13 else 'validation'}")
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "page.md").write_text("by hand\n<!-- probe: begin -->\n<!-- probe: end -->\n")

    def run(model="model0"):
        words = {"data": "labels.csv", "model": model, "features": "new/features.safetensors", "output": "page.md"}
        given = [word for name, value in words.items() for word in (f"--{name}", str(tmp_path / value))]
        return probe.main([*given, "--threads", str(torch.get_num_threads())])

    return run


def test_the_command_writes_its_table_and_takes_stored_features_of_the_same_model_alone(
    command, tmp_path, capsys, monkeypatch
):
    assert command() == 0
    page, printed = (tmp_path / "page.md").read_text(), capsys.readouterr().out
    assert page == f"by hand\n<!-- probe: begin -->\n{printed}<!-- probe: end -->\n"
    assert "`model0`, 12 pictures to fit and 10 to measure" in page and page.count("\n| CLS") == 5
    monkeypatch.setattr(probe, "compute_features", lambda *_: pytest.fail("computed again"))
    assert command() == 0 and (tmp_path / "page.md").read_text() == page
    assert command("model1") == 2
    assert "has features of other pictures, or of another model. Remove it" in capsys.readouterr().err


def test_too_few_pictures_are_counted(command, tmp_path, capsys):
    labels = (tmp_path / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join(labels[:-2]) + "\n")
    assert command() == 2
    assert "12 training pictures and 10 others are needed" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
