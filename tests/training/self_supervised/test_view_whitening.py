# SPDX-License-Identifier: Apache-2.0
"""Pre-training by views: what a view is, what is measured, what is refused, and what is stored."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

from musiq_hf import MusiqImageProcessor
from musiq_hf.hub.checkpoints import save_checkpoint
from musiq_hf.models.protocol import TrainingView
from musiq_hf.scoring.loading import load_quality
from musiq_hf.training.finetuning import finetune
from musiq_hf.training.pretraining_quality import PretrainSettings, pretrain_quality
from musiq_hf.training.self_supervised.view_whitening import (
    ViewCollator,
    WhiteningModel,
    WhiteningSettings,
    _measure_views,
    effective_rank,
)
from musiq_hf.training.self_supervised.whitening import w_mse_loss
from musiq_hf.training.settings import FinetuneSettings
from musiq_hf.training.starting import normalize_scores

PROCESSOR = MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16])
COUNT = 15  # pictures: 4 held out, 11 to train on, so that a batch of 4 leaves 3 out


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder, generator = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for index in range(COUNT):
        size = (24 + 3 * index, 40 - index, 3)  # all sizes differ
        Image.fromarray(generator.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{index}.png")
    lines = [f"{index}.png,{index % 5},{'train' if index < 10 else 'validation'}" for index in range(COUNT)]
    (folder / "scores.csv").write_text("\n".join(["image,mos,split", *lines]) + "\n")
    return folder


def run_settings(photos: Path, model: str, output: Path, **changes) -> PretrainSettings:
    given = {"data": str(photos), "model": model, "output_dir": str(output), "objective": "whitening"}
    given |= {"embedding_size": 2, "batch_size": 4, "holdout_fraction": 0.25, "epochs": 2, "learning_rate": 1e-2}
    return PretrainSettings(**(given | changes))


class Seen:
    """View that keeps the pixels that it cuts."""

    def __init__(self):
        self.pixels = []

    def for_batch(self):
        return self

    def cut(self, processor, pixels):
        self.pixels.append(pixels)
        return processor.cut(pixels)


def rows_of(photos: Path) -> list[dict]:
    return [
        {"image": {"path": str(photos / f"{index}.png"), "bytes": None}, "picture_seed": None, "index": index}
        for index in range(COUNT)
    ]


def is_window(pixels: np.ndarray, picture: np.ndarray) -> bool:
    """Return whether pixels stand somewhere in a picture as they are."""
    windows = np.lib.stride_tricks.sliding_window_view(picture, pixels.shape)
    return bool((windows == pixels).all(axis=(-3, -2, -1)).any())


def test_views_are_crops_of_the_pictures_own_pixels(photos):
    seen = Seen()
    torch.manual_seed(0)
    batch = ViewCollator(PROCESSOR, view=seen, views=3)(rows_of(photos))
    assert len(batch["num_tokens"]) == len(seen.pixels) == 3 * COUNT and "labels" not in batch
    found = []
    for index, pixels in enumerate(seen.pixels):
        crop, picture = pixels.numpy(), np.asarray(Image.open(photos / f"{index // 3}.png"))
        for side, whole in zip(crop.shape[:2], picture.shape[:2], strict=True):
            assert round(whole / 2) <= side <= whole
        found.append((is_window(crop, picture), is_window(crop[:, ::-1], picture)))
    assert {(True, False), (False, True)} == set(found)  # as they are, or mirrored
    shapes = [{pixels.shape for pixels in seen.pixels[start : start + 3]} for start in range(0, 3 * COUNT, 3)]
    assert any(len(each) > 1 for each in shapes)  # views of a picture differ in size


def test_held_out_views_repeat_and_depend_on_no_partner(photos):
    collator = ViewCollator(PROCESSOR, view=TrainingView(), views=2, seed=1)
    rows = rows_of(photos)[:3]
    first, second, alone = collator(rows), collator(rows), collator(rows[2:])
    for name in first:
        assert torch.equal(first[name], second[name])
    length = alone["pixel_values"].shape[1]
    assert torch.equal(first["pixel_values"][4:, :length], alone["pixel_values"])


def test_loss_pairs_views_of_one_picture_in_batches_of_mixed_sizes(photos, tiny_config, tiny_model):
    quality = tiny_model(longer_side_lengths=[16])
    settings = WhiteningSettings(views=2, embedding_size=3)
    model = WhiteningModel(quality, settings)
    torch.manual_seed(0)
    batch = ViewCollator(MusiqImageProcessor.from_config(quality.config), view=TrainingView(), views=2)(
        rows_of(photos)[:8]
    )
    assert batch.pop("num_tokens").unique().numel() > 1
    output = model(**batch)
    embeddings = output["logits"]
    assert embeddings.shape == (8, 2, 3)
    whitened = []
    for view in range(2):  # by hand: Cholesky whitening of all pictures of a view
        rows = embeddings[:, view] - embeddings[:, view].mean(dim=0)
        factor = torch.linalg.cholesky(rows.mT @ rows / 7)
        whitened.append(F.normalize(rows @ torch.linalg.inv(factor).mT, dim=-1))
    expected = 2 - 2 * (whitened[0] * whitened[1]).sum(dim=-1).mean()
    torch.testing.assert_close(output["loss"], expected, rtol=1e-3, atol=1e-4)
    model.eval()
    held_out = model(**batch)["logits"]
    for index in range(8):
        pair = {name: value[2 * index : 2 * index + 2] for name, value in batch.items()}
        torch.testing.assert_close(model(**pair)["logits"], held_out[index : index + 1], rtol=1e-4, atol=1e-5)
    output["loss"].backward()
    assert quality.head.classifier.weight.grad is None
    assert model.embedding_head.hidden.weight.grad.abs().max() > 0


def test_held_out_loss_leaves_out_the_last_smaller_slice():
    embeddings = torch.randn(11, 2, 2, generator=torch.Generator().manual_seed(0))
    found = _measure_views(type("Prediction", (), {"predictions": embeddings.numpy()}), slice_size=5, eps=0.0)
    halves = [w_mse_loss(part.transpose(0, 1)) for part in (embeddings[:5], embeddings[5:10])]
    assert found["loss"] == pytest.approx(float(sum(halves)) / 2, rel=1e-5)
    assert found["effective_rank"] == pytest.approx(effective_rank(embeddings.flatten(0, 1)))


def test_effective_rank_of_known_spectra():
    square = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    assert effective_rank(square + 7) == pytest.approx(2)
    line = torch.arange(5.0)[:, None] * torch.tensor([[1.0, 2.0, 3.0]])
    assert effective_rank(line) == pytest.approx(1, abs=1e-6)
    spread = torch.cat((torch.eye(2), -torch.eye(2))) * torch.tensor([3.0**0.5, 1.0])  # shares 3/4 and 1/4
    assert effective_rank(spread) == pytest.approx(4 / 3**0.75)
    assert np.isnan(effective_rank(torch.ones(4, 3)))


def test_it_stores_a_model_to_fine_tune_without_the_other_head(photos, tiny_model, tmp_path):
    start = tiny_model(longer_side_lengths=[16], score_offset=50.0, score_scale=9.0, score_range=[0, 100])
    save_checkpoint(start, MusiqImageProcessor.from_config(start.config), tmp_path / "start", dtype="float32")
    output = tmp_path / "out"
    report = pretrain_quality(run_settings(photos, str(tmp_path / "start"), output, ema_decay=0.5))
    assert sorted(report) == ["eval_effective_rank", "eval_loss"]
    assert json.loads((output / "metrics.json").read_text()) == report
    state = json.loads((output / "trainer_state.json").read_text())
    losses = [entry["eval_loss"] for entry in state["log_history"] if "eval_loss" in entry]
    assert report["eval_loss"] == pytest.approx(min(losses)) and len(losses) == 2
    assert state["max_steps"] == 4  # two batches of 4 of the 11 pictures in each epoch
    weights = load_file(output / "model.safetensors")
    assert weights.keys() == start.state_dict().keys()
    changed = [name for name, value in weights.items() if not torch.equal(value, start.state_dict()[name])]
    assert len(changed) == len(weights)
    assert "means nothing" in (output / "README.md").read_text()

    model, _ = load_quality(str(output))
    assert not model.head.classifier.weight.any() and not model.head.classifier.bias.any()
    normalize_scores(model, [10.0, 30.0], score_range=(0, 100))
    assert (model.config.score_offset, model.config.score_scale) == (20, 10)  # a head without a unit of its own
    tuned = FinetuneSettings(
        data=str(photos / "scores.csv"), model=str(output), output_dir=str(tmp_path / "tuned"), epochs=1
    )
    finetune(tuned)
    assert load_quality(str(tmp_path / "tuned"))[0].head.classifier.weight.any()


def test_a_resumed_run_equals_an_uninterrupted_one(photos, blank, tmp_path, monkeypatch):
    changes = {"sub_batch": 4, "num_slicings": 2, "whitening_eps": 0.1, "resume": True}
    pretrain_quality(run_settings(photos, blank, tmp_path / "whole", **changes))
    forward, steps = WhiteningModel.forward, []

    def interrupt(self, **inputs):
        steps.append(self.training)
        if steps.count(True) == 4:  # the last of two epochs of two steps
            raise KeyboardInterrupt
        return forward(self, **inputs)

    broken = run_settings(photos, blank, tmp_path / "broken", **changes)
    with monkeypatch.context() as patch:
        patch.setattr(WhiteningModel, "forward", interrupt)
        with pytest.raises(KeyboardInterrupt):
            pretrain_quality(broken)
    assert not (tmp_path / "broken" / "metrics.json").exists()
    pretrain_quality(broken)
    for file in ("model.safetensors", "metrics.json"):
        assert (tmp_path / "broken" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": 1}, "`views` must be at least 2, since views are compared, got 1"),
        ({"sub_batch": 3}, "`sub_batch` must divide `batch_size`, which is 4, got 3"),
        ({"sub_batch": 2}, "`sub_batch` must be at least twice `embedding_size`, which is 2, got 2"),
        ({"embedding_size": 3}, "`batch_size` must be at least twice `embedding_size`, which is 3, got 4"),
        ({"num_slicings": 0}, "`num_slicings` must be at least 1"),
        ({"whitening_eps": 1.0}, r"`whitening_eps` must lie in \[0, 1\)"),
        ({"objective": "faults"}, "`embedding_size`: only the objective whitening has this. Leave it out"),
        ({"objective": "colours"}, "`objective` must be 'faults' or 'whitening', got 'colours'"),
    ],
)
def test_settings_that_do_not_fit_are_refused(photos, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        run_settings(photos, "scratch:musiq-tiny", tmp_path / "out", **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 12}, "needs a full batch of 12 pictures for training, got 11"),
        ({"holdout_fraction": 0.1}, "is measured on 4 held-out pictures or more, got 2"),
    ],
)
def test_too_few_pictures_are_refused(photos, blank, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        pretrain_quality(run_settings(photos, blank, tmp_path / "out", **changes))
    assert not list((tmp_path / "out").glob("checkpoint-*"))
