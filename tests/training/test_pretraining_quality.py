# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest
import torch
from transformers import AutoModel

from musiq_hf import MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.models.musiq.family import MusiqTrainingView
from musiq_hf.pictures.degradations import DEGRADATIONS
from musiq_hf.pictures.synthetic import make_picture
from musiq_hf.training.pretraining_quality import (
    DegradationCollator,
    DegradationModel,
    PretrainSettings,
    _standardize_head,
    pretrain_quality,
)

PROCESSOR = MusiqImageProcessor(patch_size=8, hash_grid_size=4, longer_side_lengths=[16])


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("photos")
    for index in range(6):
        make_picture(seed=100 + index, width=200, height=180).save(folder / f"{index}.png")
    return str(folder)


def test_batches_hold_pairs_and_evaluation_repeats_them(photos):
    rows = [{"image": None, "picture_seed": 3, "index": 0}, {"image": None, "picture_seed": 4, "index": 1}]
    collator = DegradationCollator(PROCESSOR, view=MusiqTrainingView(resized_patches=3, native_patches=5), seed=1)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    first, second = collator(rows), collator(rows)
    assert torch.equal(torch.random.get_rng_state(), before)  # evaluation leaves training's random numbers alone
    assert first["labels"].shape == (2, 2, len(DEGRADATIONS))
    assert first["pixel_values"].shape == (4, 8, 192)
    assert (first["labels"][:, 1] >= first["labels"][:, 0]).all()
    for name in first:
        assert torch.equal(first[name], second[name])
    alone = collator(rows[1:])  # the batch around a row does not matter
    for name in first:
        assert torch.equal(alone[name], first[name][-len(alone[name]) :])
    training = DegradationCollator(PROCESSOR, view=MusiqTrainingView(resized_patches=3, native_patches=5))
    assert not torch.equal(training(rows)["labels"], training(rows)["labels"])


def test_pretraining_saves_a_model_to_fine_tune_from(photos, tiny_config, tmp_path):
    config = tiny_config(longer_side_lengths=[64], patch_size=32)
    config.save_pretrained(tmp_path / "blank")
    MusiqImageProcessor.from_config(config).save_pretrained(tmp_path / "blank")
    settings = PretrainSettings(
        data=photos,
        model=str(tmp_path / "blank"),
        output_dir=str(tmp_path / "out"),
        self_made=1,
        epochs=1,
        batch_size=2,
        view={"native_patches": 12},
        holdout_fraction=0.5,
        rates={"patch_encoder": 0.1},
    )
    report = pretrain_quality(settings)
    assert 0 <= report["eval_pair_accuracy"] <= 1
    assert sorted(report) == ["eval_kind_accuracy", "eval_loss", "eval_pair_accuracy", "eval_strength_error"]
    assert json.loads((tmp_path / "out/metrics.json").read_text()) == report
    model = AutoModel.from_pretrained(tmp_path / "out")
    assert isinstance(model, MusiqForImageQualityAssessment)
    assert model.head.classifier.weight.abs().max() > 0
    assert (model.config.score_offset, model.config.score_scale) == (50, 20)  # so that fine-tuning keeps the head
    with pytest.raises(ValueError, match="holds the checkpoints of another run"):
        pretrain_quality(settings)


def test_mean_losses_are_not_rescaled_by_the_trainer():
    assert DegradationModel.accepts_loss_kwargs is False


def test_head_comes_out_in_deviations(tiny_model, pictures):
    model = tiny_model()
    inputs = MusiqImageProcessor.from_config(model.config)(pictures)
    before = model(**inputs).logits.detach().numpy()[:, 0]
    weights = model.state_dict()
    _standardize_head(model, weights, before)
    model.load_state_dict(weights)
    after = model(**inputs).logits.detach().numpy()[:, 0]
    np.testing.assert_allclose(after, (before - before.mean()) / before.std(), atol=1e-5)


def test_a_folder_without_pictures_is_refused(tmp_path):
    settings = PretrainSettings(data=str(tmp_path), model="scratch:musiq-tiny", output_dir=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="holds no picture"):
        pretrain_quality(settings)


def test_self_made_pictures_repeat_with_their_seed_and_have_detail():
    first, same, other = (make_picture(seed=seed, width=96, height=64) for seed in (1, 1, 2))
    assert first.size == (96, 64) and first.mode == "RGB"
    assert first.tobytes() == same.tobytes() != other.tobytes()
    deviations = [np.asarray(make_picture(seed=seed, width=64, height=64)).std() for seed in range(8)]
    assert min(deviations) > 10


def test_command_line_names_a_missing_folder(capsys, monkeypatch):
    from examples import pretrain_quality as script

    monkeypatch.setattr("sys.argv", ["pretrain_quality.py"])
    assert script.main() == 2
    assert "pretrain_quality: --data is needed" in capsys.readouterr().err


def test_a_replica_reads_features_of_its_own(tiny_model, pictures):
    quality = tiny_model()
    model = DegradationModel(quality)
    batch = MusiqImageProcessor.from_config(quality.config)(pictures)
    labels = torch.rand(2, 2, len(DEGRADATIONS))
    replica = model._replicate_for_data_parallel()  # as nn.DataParallel makes them, with hooks of the original
    torch.testing.assert_close(replica(labels, **batch)["logits"], model(labels, **batch)["logits"])
    assert not quality.head.classifier._forward_pre_hooks
