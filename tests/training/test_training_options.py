# SPDX-License-Identifier: Apache-2.0
"""What a training run can be asked for beside the plain one."""

import json
import logging
import re
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from PIL import Image
from safetensors.torch import load_file
from torch._dynamo.utils import counters
from transformers import AutoModel, TrainingArguments

from musiq_hf import MusiqImageProcessor
from musiq_hf.data.checks import count_tokens_of_rows, readable_rows
from musiq_hf.data.loading import load_scored_images
from musiq_hf.models.musiq.family import MusiqTrainingView
from musiq_hf.training.collators import Augmentation, TrainingCollator
from musiq_hf.training.finetuning import _make_pair_losses, finetune, load_splits, part_pictures
from musiq_hf.training.settings import FinetuneSettings
from musiq_hf.training.starting import add_lora, find_rates, freeze, load_model, merge_lora
from musiq_hf.training.trainer import QualityTrainer, _collect_fixed_settings, _OwnRandomNumbers

SIZES = ((24, 32), (40, 16), (16, 16), (33, 50))


@pytest.fixture
def photos(tmp_path) -> Path:
    """Sixteen pictures of four sizes, brighter with a higher score, and their table."""
    generator, lines = np.random.default_rng(0), ["image,mos,split"]
    for index in range(16):
        pixels = generator.integers(10 * index, 10 * index + 60, (*SIZES[index % 4], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{index}.png")
        lines.append(f"{index}.png,{5 * index},{'validation' if index % 4 == 3 else 'train'}")
    (tmp_path / "scores.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def settings(photos: Path, blank: str, **changes) -> FinetuneSettings:
    values = {"data": str(photos / "scores.csv"), "model": blank, "output_dir": str(photos / "out"), "epochs": 1}
    return FinetuneSettings(**(values | {"batch_size": 4, "learning_rate": 1e-3} | changes))


def save_start(model, folder: Path) -> str:
    model.save_pretrained(folder)
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder)
    return str(folder)


def log_of(photos: Path, key: str, folder: str = "out") -> list[float]:
    log = json.loads((photos / folder / "trainer_state.json").read_text())["log_history"]
    return [entry[key] for entry in log if key in entry]


def test_distributions_train_a_distribution_head(photos, blank):
    lines = ["image,c1,c2,c3,split"]
    for index in range(16):
        counts = ",".join(str(count) for count in (20 - index, 5, index))
        lines.append(f"{index}.png,{counts},{'validation' if index % 4 == 3 else 'train'}")
    (photos / "scores.csv").write_text("\n".join(lines) + "\n")
    report = finetune(settings(photos, blank, epochs=2))
    model = AutoModel.from_pretrained(photos / "out")
    assert model.config.num_labels == 3
    inputs = MusiqImageProcessor.from_config(model.config)(Image.open(photos / "0.png"))
    assert 1 < model(**inputs).scores.item() < 3
    assert report["selection"].overall.rmse < 2  # in score values 1..3
    with pytest.raises(ValueError, match="lowers opinion scores, but these data have distributions"):
        finetune(settings(photos, blank, degrade_fraction=0.5, output_dir=str(photos / "other")))


@pytest.mark.parametrize("part", ["backbone", "patch_encoder", "encoder"])
def test_frozen_parts_stay_as_they_are(part, tiny_model):
    model = tiny_model().train()
    freeze(model, part)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    body = {name for name, _ in model.named_parameters() if not name.startswith("head.")}
    backbone = {name for name in body if ".patch_encoder." in name}
    patches = backbone | {name for name in body if ".patch_projection." in name}
    assert frozen == {"backbone": backbone, "patch_encoder": patches, "encoder": body}[part]
    assert set() < backbone < patches < body


def test_freezing_reaches_the_saved_files(photos, blank):
    torch.manual_seed(0)
    start = load_model(blank)
    finetune(settings(photos, save_start(start, photos / "start"), freeze="encoder"))
    trained = AutoModel.from_pretrained(photos / "out")
    for name, value in start.musiq.state_dict().items():
        torch.testing.assert_close(trained.musiq.state_dict()[name], value, atol=0, rtol=0)
    assert trained.head.classifier.weight.abs().max() > 0


def test_a_part_with_a_rate_moves_by_its_part_of_the_step(photos, tiny_model):
    # Training keeps a head in such a unit.
    start = tiny_model(longer_side_lengths=[16], score_offset=37.0, score_scale=20.0)
    plain = {"optimizer": "sgd", "max_steps": 1, "max_grad_norm": 0.0, "weight_decay": 0.0, "warmup_fraction": 0.0}
    moved = {}
    for name, rates in (("full", {}), ("rated", {"encoder": 0.5, "patch_encoder": 0.25})):
        run = settings(
            photos, save_start(start, photos / "start"), rates=rates, output_dir=str(photos / name), **plain
        )
        finetune(run)
        trained = AutoModel.from_pretrained(photos / name).state_dict()
        moved[name] = {key: trained[key] - value for key, value in start.state_dict().items()}
    for key, full in moved["full"].items():
        is_patches = ".patch_encoder." in key or ".patch_projection." in key
        factor = 0.25 if is_patches else 0.5 if key.startswith("musiq.") else 1.0
        torch.testing.assert_close(moved["rated"][key], factor * full, atol=1e-6, rtol=1e-3)
    assert moved["full"]["musiq.embeddings.patch_projection.weight"].abs().max() > 1e-4
    assert "rates {'encoder': 0.5, 'patch_encoder': 0.25}" in (photos / "rated/README.md").read_text()


def test_rates_make_groups_that_decay_as_before(tiny_model, tmp_path):
    model = tiny_model()
    freeze(model, "patch_encoder")
    rates = find_rates(model, {"encoder": 0.1})
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, weight_decay=0.3)
    trainer = QualityTrainer(
        model=model,
        args=arguments,
        eval_collator=lambda rows: rows,
        rates=rates,
        optimizer_cls_and_kwargs=(torch.optim.AdamW, {"lr": 2.0}),
    )
    groups = trainer.create_optimizer().param_groups
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(2, 0.3), (2, 0), (0.2, 0.3), (0.2, 0)]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    held = [{names[id(parameter)] for parameter in group["params"]} for group in groups]
    assert sum(map(len, held)) == sum(parameter.requires_grad for parameter in model.parameters())
    assert all(name.startswith("head.") for name in held[0] | held[1])
    assert held[0] | held[2] <= set(trainer.get_decay_parameter_names(model))
    with pytest.raises(ValueError, match="`rates` needs the names of the weights, which FSDP 1 changes"):
        trainer._group_parameters(torch.nn.ModuleDict({"wrapped": model}), 2.0)


def test_a_frozen_part_has_no_rate(tiny_model):
    model = tiny_model()
    freeze(model, "encoder")
    with pytest.raises(ValueError, match="`rates` names patch_encoder, which `freeze` leaves as it is"):
        find_rates(model, {"head": 2.0, "patch_encoder": 0.1})


def test_low_rank_additions_are_merged_into_plain_weights(photos, tiny_model):
    start = tiny_model(longer_side_lengths=[16])
    finetune(settings(photos, save_start(start, photos / "start"), lora_rank=2, learning_rate=1e-2, weight_decay=0.0))
    trained = AutoModel.from_pretrained(photos / "out")
    assert trained.state_dict().keys() == start.state_dict().keys()
    changed = {
        name for name, value in trained.state_dict().items() if not torch.equal(value, start.state_dict()[name])
    }
    projections = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight")
    assert changed and all(name.startswith("head.") or name.endswith(projections) for name in changed)
    assert any(name.endswith(projections) for name in changed)


def test_merged_model_answers_as_the_wrapped_one(tiny_model, pictures):
    model = tiny_model()
    inputs = MusiqImageProcessor.from_config(model.config)(pictures)
    wrapped = add_lora(model, 2)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_()
        before = wrapped.eval()(**inputs).logits
        after = merge_lora(wrapped)(**inputs).logits
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


def test_bad_pictures_stop_the_run_or_are_left_out_and_counted(photos, blank, caplog):
    (photos / "4.png").write_bytes((photos / "4.png").read_bytes()[:60])
    with pytest.raises(ValueError, match="4.png: cannot be decoded"):
        finetune(settings(photos, blank, output_dir=str(photos / "stopped")))
    Image.new("RGB", (3000, 1)).save(photos / "5.png")
    Image.fromarray(np.full((30, 30), 7, dtype=np.float32)).save(photos / "6.tif")
    table = (photos / "scores.csv").read_text()
    (photos / "scores.csv").write_text(table.replace("\n6.png", "\n6.tif"))
    with caplog.at_level(logging.WARNING):
        finetune(settings(photos, blank, skip_bad_images=True))
    assert "9 pictures." in (photos / "out/README.md").read_text()
    for name in ("4.png", "5.png, 3000x1 pixels", "6.tif, 30x30 pixels"):
        assert any(name in message for message in caplog.messages)
    assert any("3 of 12 pictures cannot be used" in message for message in caplog.messages)


def test_missing_pictures_stop_the_run_or_are_left_out(photos, blank, caplog):
    for name in ("4.png", "7.png"):
        (photos / name).unlink()
    with pytest.raises(ValueError, match="4.png does not exist; .*7.png does not exist. 2 pictures are missing"):
        finetune(settings(photos, blank))
    with caplog.at_level(logging.WARNING):
        finetune(settings(photos, blank, skip_bad_images=True))
    assert "11 pictures." in (photos / "out/README.md").read_text()
    for text in ("Left out: .*4.png", "Left out: .*7.png", "1 of 12 pictures", "1 of 4 pictures"):
        assert any(re.search(text, message) for message in caplog.messages)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("image,mos\n0.png,5\n", "At least 2 training pictures are needed"),
        ("0.png,5,train\n1.png,5,train\n2.png,1,dev\n3.png,2,dev\n4.png,3,dev\n", r"train pictures \(2\) all have"),
        ("0.png,5,train\n2.png,1,dev\n3.png,2,dev\n4.png,3,dev\n", r"train pictures \(1\) all have the score 5,"),
        ("0.png,5,train\n1.png,4,train\n2.png,1,dev\n3.png,1,dev\n4.png,1,dev\n", r"selection pictures \(3\) all"),
        ("image,c1,c2\n" + "".join(f"{index}.png,1,1\n" for index in range(16)), r"\(3\) all have the score 1.5,"),
    ],
)
def test_scores_that_do_not_differ_are_refused(photos, blank, table, message):
    (photos / "scores.csv").write_text(table if table.startswith("image") else "image,mos,split\n" + table)
    with pytest.raises(ValueError, match=message):
        finetune(settings(photos, blank, holdout_fraction=0.15 if "c1" in table else None))


def test_a_picture_on_both_sides_is_warned_of(photos, blank, caplog):
    table = (photos / "scores.csv").read_text()
    (photos / "scores.csv").write_text(table + "./0.png,7,val\n")
    part_pictures(settings(photos, blank), load_splits(settings(photos, blank)))
    assert "1 selection pictures are trained on too" in caplog.text


def test_a_table_with_names_of_ones_own_trains(photos, blank):
    table = (photos / "scores.csv").read_text().replace("image,mos,split", "photo,quality,set").replace(",", ";")
    (photos / "scores.csv").write_text(table)
    used = {"image_column": "photo", "score_column": "quality", "split_column": "set", "max_steps": 1}
    assert finetune(settings(photos, blank, **used))["selection"].num_pictures == 4
    assert "column" not in (photos / "out/README.md").read_text()


def test_nothing_readable_is_an_error(photos):
    rows = load_scored_images(str(photos / "scores.csv"))["train"]
    for path in photos.glob("*.png"):
        path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="None of the 12 pictures can be used"):
        readable_rows(rows, MusiqImageProcessor())


def test_a_picture_that_one_of_several_models_cannot_read_is_left_out(photos, blank):
    rows = load_scored_images(str(photos / "scores.csv"))["train"]
    Image.new("RGB", (24, 1)).save(rows[0]["image"]["path"])
    used = settings(photos, blank, skip_bad_images=True)
    coarse = MusiqImageProcessor(patch_size=8, longer_side_lengths=[8])  # a copy of it would have no rows
    assert [len(part_pictures(used, load_splits(used), *others).train) for others in ((), (coarse,))] == [12, 11]


def test_patches_are_counted_from_the_heads_of_the_files(photos):
    rows = load_scored_images(str(photos / "scores.csv"))["train"]
    processor = MusiqImageProcessor(patch_size=8, longer_side_lengths=[16])
    counted = count_tokens_of_rows(rows, processor)
    made = [processor(cell["path"])["pixel_values"].shape[1] for cell in rows["image"]]
    assert counted == made and len(set(made)) > 1


@pytest.mark.parametrize(
    "changes",
    [
        {"group_by_length": True},
        {"fixed_shapes": True, "view": {"native_patches": 6}},
        {"bf16": True},
        {"plcc_weight": 0.5, "rank_weight": 0.5},
        {"optimizer": "sgd"},
        {"optimizer": "adam", "max_steps": 2},
        {"shorter_side": 12, "min_crop": 0.6, "view": {"resized_patches": 2}},
        {"early_stopping": 1, "report_to": "tensorboard"},
        {"fault_pairs": 2, "fixed_shapes": True, "view": {"native_patches": 6}},
        {"size_fraction": 1.0, "fixed_shapes": True, "view": {"native_patches": 6, "min_native_patches": 2}},
        {"view_pairs": 3, "consistency_weight": 0.5, "fault_pairs": 1, "size_fraction": 0.5},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_option_trains(photos, blank, changes):
    report = finetune(settings(photos, blank, **changes))
    assert report["selection"].num_pictures == 4
    assert log_of(photos, "train_loss")[0] > 0


def test_compiled_steps_are_the_same_and_saved_under_plain_names(photos, blank, monkeypatch):
    changes = {"fixed_shapes": True, "view": {"native_patches": 6}, "max_steps": 1, "warmup_fraction": 0.0}
    finetune(settings(photos, blank, output_dir=str(photos / "plain"), **changes))
    # The backend "eager" traces the model and calls no compiler.
    traced = partial(TrainingArguments, torch_compile_backend="eager")
    monkeypatch.setattr("musiq_hf.training.trainer.TrainingArguments", traced)
    torch._dynamo.reset()
    counters.clear()
    finetune(settings(photos, blank, output_dir=str(photos / "compiled"), compile=True, **changes))
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]
    for name in ("model.safetensors", "checkpoint-1/model.safetensors"):
        plain, compiled = (load_file(photos / folder / name) for folder in ("plain", "compiled"))
        assert plain.keys() == compiled.keys()
        for key, value in plain.items():
            torch.testing.assert_close(compiled[key], value, atol=1e-6, rtol=0)


def test_accumulated_gradients_equal_those_of_one_large_batch(photos, blank, monkeypatch):
    monkeypatch.setattr("musiq_hf.training.trainer.LOGGING_STEPS", 1)
    plain = {"epochs": 2, "optimizer": "sgd", "learning_rate": 0.05}
    finetune(settings(photos, blank, batch_size=6, output_dir=str(photos / "large"), **plain))
    finetune(
        settings(photos, blank, batch_size=3, gradient_accumulation_steps=2, output_dir=str(photos / "small"), **plain)
    )
    large, small = log_of(photos, "grad_norm", "large"), log_of(photos, "grad_norm", "small")
    assert len(large) == 4
    np.testing.assert_allclose(small, large, rtol=1e-4)


def test_rate_of_tokens_is_logged(photos, blank, monkeypatch):
    monkeypatch.setattr("musiq_hf.training.trainer.LOGGING_STEPS", 1)
    finetune(settings(photos, blank))
    rates = log_of(photos, "tokens_per_second")
    assert len(rates) == 3 and min(rates) > 0


def test_pairs_of_copies_add_a_ranking_loss(photos, blank, monkeypatch):
    # In units of a deviation of 4: the better copy one deviation above the worse one, and one below.
    loss = _make_pair_losses(settings(photos, blank, fault_pairs=1), 4.0)["pairs"]
    assert loss(torch.tensor([6.0, 2.0])).item() == pytest.approx(0.5 * np.log1p(np.exp(-1)))
    assert loss(torch.tensor([2.0, 6.0])).item() == pytest.approx(0.5 * np.log1p(np.exp(1)))
    losses = []
    for weight in (0.0, 0.5):
        monkeypatch.setattr("musiq_hf.training.finetuning.PAIR_WEIGHT", weight)
        changes = {"fault_pairs": 4, "max_steps": 1, "learning_rate": 0.0, "output_dir": str(photos / str(weight))}
        finetune(settings(photos, blank, **changes))
        losses += log_of(photos, "train_loss", str(weight))
    # Of an untrained model, which can hardly tell the copies apart.
    assert losses[1] - losses[0] == pytest.approx(0.5 * np.log(2), rel=0.1)


def test_scores_of_made_faults_are_kept_in_the_range(photos, blank):
    changes = {"fault_pairs": 1, "score_range": (0, 100)}
    scores = torch.tensor([60.0, -8.0])  # in units of a deviation of 4, the second is 2 below the range
    ranking, both = (
        _make_pair_losses(settings(photos, blank, **changes, range_weight=weight), 4.0)["pairs"](scores).item()
        for weight in (0.0, 3.0)
    )
    assert both - ranking == pytest.approx(3 * 2 / 2)


def test_views_of_a_picture_add_the_difference_of_their_scores(photos, blank, monkeypatch):
    # In units of a deviation of 4: differences of one deviation and of half of one.
    changes = {"view_pairs": 2, "consistency_weight": 3.0}
    losses = _make_pair_losses(settings(photos, blank, **changes), 4.0)
    assert losses.keys() == {"views"}
    assert losses["views"](torch.tensor([6.0, 2.0, 1.0, 3.0])).item() == pytest.approx(3 * (1 + 0.5) / 2)
    # An untrained model gives both views one score, so a constant stands for the difference.
    monkeypatch.setattr("musiq_hf.training.finetuning.consistency_loss", lambda a, b: (a - b).abs().mean() + 1)
    logged = []
    for weight in (0.25, 0.75):
        changes |= {"consistency_weight": weight, "max_steps": 1, "learning_rate": 0.0}
        finetune(settings(photos, blank, **changes, output_dir=str(photos / str(weight))))
        logged += log_of(photos, "train_loss", str(weight))
    assert logged[1] - logged[0] == pytest.approx(0.5, abs=1e-3)


def test_published_files_name_no_folder_of_this_machine(photos, blank):
    finetune(settings(photos, blank))
    for path in (photos / "out").glob("*.*"):
        if path.suffix in (".json", ".md"):
            assert str(photos) not in path.read_text(), path.name


def test_card_says_seed_and_what_is_on(photos, blank):
    finetune(
        settings(photos, blank, weight_decay=0.0, fault_pairs=1, warmup_fraction=0.0, view={"native_patches": 48})
    )
    card = (photos / "out/README.md").read_text()
    for said in ("seed 0", "weight_decay 0.0", "fault_pairs 1", "warmup_fraction 0.0", "native_patches 48"):
        assert said in card
    for unsaid in ("plcc_weight", "degrade_fraction", "bf16", "freeze", "processes", "resized_patches", "view"):
        assert unsaid not in card


def test_processes_draw_other_random_numbers():
    drawn = []
    for index in range(2):
        torch.manual_seed(5)
        _OwnRandomNumbers().on_train_begin(SimpleNamespace(seed=5, process_index=index))
        drawn.append(torch.rand(()).item())
    torch.manual_seed(5)
    assert drawn[0] == torch.rand(()).item() != drawn[1]


def test_full_batches_are_counted_over_all_processes(photos, blank, monkeypatch):
    monkeypatch.setattr("musiq_hf.training.trainer.num_processes", lambda: 2)
    with pytest.raises(ValueError, match="needs a full batch of 16 pictures, got 12"):
        finetune(settings(photos, blank, fixed_shapes=True, view={"native_patches": 6}, batch_size=8))


def test_few_pictures_to_choose_on_are_warned_of(photos, blank, caplog):
    with caplog.at_level(logging.WARNING):
        finetune(settings(photos, blank, max_steps=1))
    assert any("SRCC of only 4 pictures, whose standard error is about 1.00" in text for text in caplog.messages)


def test_training_stops_early_when_nothing_gets_better(photos, blank):
    finetune(settings(photos, blank, epochs=9, early_stopping=2, learning_rate=0.0))
    assert len(log_of(photos, "eval_srcc")) == 3


def test_architecture_changes_reach_the_saved_files(photos, blank):
    finetune(settings(photos, blank, architecture={"spatial_embedding": "none", "longer_side_lengths": [24]}))
    model = AutoModel.from_pretrained(photos / "out")
    assert (model.config.spatial_embedding, model.config.longer_side_lengths) == ("none", [24])
    assert MusiqImageProcessor.from_pretrained(photos / "out").longer_side_lengths == [24]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"fixed_shapes": True, "view": {"native_patches": None}},
            "`fixed_shapes` needs a bound on the native patches",
        ),
        ({"architecture": {"hash_gird_size": 3}}, "`architecture` names hash_gird_size, which is no field"),
        ({"view": {"crop_size": 3}}, "`view` names crop_size, .* a musiq model does not have. It has native_patches"),
        ({"view": {"native_patches": 0}}, "`native_patches` must be at least 1, got 0"),
        ({"freeze": "tail"}, "`freeze` must be 'backbone' or 'patch_encoder' or 'encoder', got 'tail'"),
        ({"compile": True}, "`compile` needs batches of one shape, .* Add `fixed_shapes`"),
        ({"rates": {"tail": 0.1}}, "`rates` must be 'backbone' or 'patch_encoder' or 'encoder' or 'head', got 'tail'"),
        ({"rates": {"encoder": 0.1}, "freeze": "encoder"}, "`rates` names encoder, which `freeze` leaves as it is"),
        ({"model": "scratch:musiq-huge"}, "There is no configuration for 'scratch:musiq-huge'"),
        ({"fault_pairs": 5}, "`fault_pairs` must lie between 0 and `batch_size`, got 5"),
        ({"view_pairs": 5, "consistency_weight": 1.0}, "`view_pairs` must lie between 0 and `batch_size`, got 5"),
        ({"view_pairs": 1}, "`view_pairs` and `consistency_weight` need each other: .* got 1 and 0.0"),
        ({"range_weight": 1.0, "fault_pairs": 1}, "`range_weight` keeps the scores of `fault_pairs` in `score_range`"),
        ({"range_weight": 1.0, "score_range": (0, 9)}, "`range_weight` keeps .*: give both, or leave it out"),
        ({"consistency_weight": 0.5}, "need each other: .* got 0 and 0.5"),
        ({"fixed_shapes": True, "batch_size": 13}, "needs a full batch of 13 pictures, got 12"),
        ({"model": "no-such-model"}, "no-such-model: no such directory, and ids on the Hub have an owner"),
        ({"model": "no/model"}, "no/model: neither a directory with a config.json nor an id on the Hub"),
    ],
)
def test_wrong_wishes_are_named_before_training(photos, blank, changes, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # no retries that last
    with pytest.raises(ValueError, match=message):
        finetune(settings(photos, blank, **changes))


@pytest.mark.parametrize(
    "changes",
    [{"model": "scratch:musiq-huge"}, {"architecture": {"depth": 3}}, {"view": {"native_patches": 0}}],
    ids=lambda changes: next(iter(changes)),
)
def test_model_architecture_and_view_are_checked_before_pictures_are_read(photos, blank, changes, monkeypatch):
    monkeypatch.setattr("musiq_hf.training.finetuning.load_data", lambda *args, **kwargs: pytest.fail("read too soon"))
    with pytest.raises(ValueError, match="no configuration|is no field|must be at least 1"):
        finetune(settings(photos, blank, **changes))


def test_normalisation_has_no_weight_decay(tiny_model, tmp_path):
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    model = tiny_model()
    trainer = QualityTrainer(model=model, args=arguments, eval_collator=lambda rows: rows)
    decayed = set(trainer.get_decay_parameter_names(model))
    assert "musiq.encoder.layers.0.mlp.fc1.weight" in decayed
    left = {name for name, _ in model.named_parameters()} - decayed
    assert any(".patch_encoder." in name and "norm" in name for name in left)
    assert not any("norm" in name or name.endswith("bias") for name in decayed)


@pytest.mark.slow
def test_fixed_shapes_compile_once_for_all_batches(tiny_model, tmp_path):
    model = tiny_model(longer_side_lengths=[16]).train()
    processor = MusiqImageProcessor.from_config(model.config)
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend=counter)
    generator = np.random.default_rng(0)
    view = MusiqTrainingView(native_patches=12)
    collator = TrainingCollator(
        processor, view=view, augmentation=Augmentation(flip=True), length=view.max_tokens(processor)
    )
    for step in range(50):
        rows = []
        for index, size in enumerate(generator.integers(16, 60, (3, 2))):
            path = tmp_path / f"{step}-{index}.png"
            Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)).save(path)
            rows.append({"image": {"path": str(path), "bytes": None}, "mos": float(index)})
        batch = collator(rows)
        del batch["num_tokens"]
        compiled(**batch).loss.backward()
    assert counter.frame_count == 1


def test_a_single_step_trains(photos, blank):
    finetune(settings(photos, blank, max_steps=1, weight_decay=0.0))
    assert AutoModel.from_pretrained(photos / "out").head.classifier.weight.abs().max() > 0


def test_a_setting_at_its_default_is_the_same_run_as_one_left_out(photos, blank):
    plain, said = (
        _collect_fixed_settings(settings(photos, blank, view=view)) for view in ({}, {"native_patches": 512})
    )
    assert plain == said and plain["native_patches"] == 512 and "view" not in plain
