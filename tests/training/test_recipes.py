# SPDX-License-Identifier: Apache-2.0
import dataclasses
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from places import ROOT

from musiq_hf.models import FAMILIES
from musiq_hf.models.protocol import TrainingView
from musiq_hf.training.distillation import DistillSettings
from musiq_hf.training.pretraining_imagenet import ImageNetSettings
from musiq_hf.training.pretraining_quality import PretrainSettings
from musiq_hf.training.recipes import RECIPES, load_settings, read_recipe, settings_from_arguments, settings_parser
from musiq_hf.training.settings import FinetuneSettings
from musiq_hf.training.starting import architecture_fields, check_architecture, load_model, load_processor

NEEDED = {"data": "scores.csv", "model": "scratch:musiq-tiny", "output_dir": "runs"}
FINETUNING = sorted(
    path.stem for path in RECIPES.glob("*.yaml") if not {"pretrain", "distill"} & {*path.stem.split("_")}
)
# Tables 5 to 9 of the paper and the further studies, as the heads of the recipes name them.
ABLATIONS = [
    ["resize_mode=square", "longer_side_lengths=[224,384,512]", "use_native_resolution=false"],
    ["longer_side_lengths=[224,384,512]", "use_native_resolution=false"],
    ["longer_side_lengths=[224]", "use_native_resolution=false"],
    ["longer_side_lengths=[384]", "use_native_resolution=false"],
    ["longer_side_lengths=[512]", "use_native_resolution=false"],
    ["longer_side_lengths=[224,384]", "use_native_resolution=false"],
    ["longer_side_lengths=[]"],
    ["longer_side_lengths=[224]"],
    ["longer_side_lengths=[384]"],
    ["longer_side_lengths=[224,384]"],
    ["spatial_embedding=none"],
    ["spatial_embedding=sinusoid"],
    ["spatial_embedding=fixed", "max_native_patches=512"],
    ["use_scale_embedding=false"],
    ["patch_encoder=linear"],
    ["patch_encoder=conv"],
    ["patch_encoder_depth=8"],
    ["hash_grid_size=5"],
    ["hash_grid_size=14"],
    ["patch_size=16"],
    ["patch_size=64"],
]


@pytest.mark.parametrize("recipe", FINETUNING)
def test_every_recipe_gives_settings(recipe):
    settings = load_settings(FinetuneSettings, recipe=recipe, arguments=NEEDED)
    head = (RECIPES / f"{recipe}.yaml").read_text()
    for word in ("accelerate launch examples/finetune.py", "Data:", "Hardware", "Result:"):
        assert word in head
    assert settings.data == "scores.csv"


@pytest.mark.parametrize(("recipe", "objective"), [("quality_pretrain", "faults"), ("wmse_pretrain", "whitening")])
def test_stage_one_has_recipes_too(recipe, objective):
    settings = load_settings(PretrainSettings, recipe=recipe, arguments={"data": "d", "output_dir": "o"})
    assert settings.objective == objective
    assert load_model(settings.model).num_parameters() <= 3_000_000


def test_distillation_has_a_recipe_too():
    given = NEEDED | {"teacher": "runs/large"}
    settings = load_settings(DistillSettings, recipe="distill", overrides=["native_patches=40"], arguments=given)
    assert settings.view["native_patches"] == 40 and settings.teacher_view["native_patches"] == 32
    assert "accelerate launch examples/distill.py" in (RECIPES / "distill.yaml").read_text()


def test_an_empty_architecture_is_none(tmp_path):
    (tmp_path / "mine.yaml").write_text("architecture:\n")
    assert load_settings(FinetuneSettings, recipe=str(tmp_path / "mine.yaml"), arguments=NEEDED).architecture == {}


def test_paper_recipes_have_its_numbers():
    # Section 4.2 of the paper: (learning rate, epochs, batch size).
    expected = {"paq2piq": (2e-4, 10, 128), "koniq": (1e-4, 30, 96), "spaq": (1e-4, 30, 128), "ava": (0.12, 20, 512)}
    for recipe, numbers in expected.items():
        values = read_recipe(recipe)
        assert (values["learning_rate"], values["epochs"], values["batch_size"]) == numbers
        assert (values["optimizer"], values["native_patches"]) == ("sgd", 512)
    assert read_recipe("spaq")["shorter_side"] == 512


@pytest.mark.parametrize("overrides", ABLATIONS, ids=" ".join)
def test_ablations_change_model_and_processor_together(overrides):
    settings = load_settings(FinetuneSettings, overrides=overrides, arguments=NEEDED)
    model = load_model(settings.model, architecture=settings.architecture)
    processor = load_processor(settings.model, model.config, architecture=settings.architecture)
    for text in overrides:
        name = text.partition("=")[0]
        assert name in settings.architecture
        found = [getattr(part, name) for part in (model.config, processor) if hasattr(part, name)]
        assert found and all(
            str(value).lower() == text.partition("=")[2].lower().replace(",", ", ") for value in found
        )


def test_precedence_rises_from_recipe_over_overrides_to_arguments(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "epochs: 3\nbatch_size: 4\nlearning_rate: 0.5\nweight_decay: 1e-3\narchitecture:\n  hash_grid_size: 5\n"
    )
    settings = load_settings(
        FinetuneSettings,
        recipe=str(recipe),
        overrides=["batch_size=5", "learning_rate=1e-4", "use_scale_embedding=false"],
        arguments=NEEDED | {"batch_size": 6},
        defaults={"epochs": 1, "seed": 7},
    )
    assert (settings.epochs, settings.batch_size, settings.learning_rate, settings.seed) == (3, 6, 1e-4, 7)
    assert settings.weight_decay == 1e-3
    assert settings.architecture == {"hash_grid_size": 5, "use_scale_embedding": False}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "konik"}, "konik.yaml: no such recipe.*one of .*koniq"),
        ({"overrides": ["epochs"]}, "`--set` takes name=value, got 'epochs'"),
        ({"overrides": ["depth=3"]}, "`--set depth=...`: neither a setting of the run nor a field"),
        (
            {"overrides": ["longer_side_lengths=[224"]},
            r"`--set longer_side_lengths=\[224`: the value is not valid YAML",
        ),
        ({"overrides": ["hidden_size=abc"]}, "`hidden_size` must be int, got 'abc'"),
        (
            {"overrides": ["patch_encoder=foo"]},
            "`patch_encoder` must be linear or conv or .*efficientnet_lite2, got 'foo'",
        ),
        ({"overrides": ["resize_mode=foo"]}, "`resize_mode` must be arp or square, got 'foo'"),
        ({"overrides": ["score_scale=2"]}, "neither a setting of the run nor a field"),
        ({"arguments": NEEDED | {"warmup_fraction": 5.0}}, r"`warmup_fraction` must lie in \[0, 1\), got 5"),
        ({"arguments": NEEDED | {"learning_rate": -1.0}}, "`learning_rate` must be at least 0, got -1"),
        ({"overrides": ["rates={encoder: fast}"]}, "`rates: encoder` must be float, got 'fast'"),
        ({"overrides": ["ema_decay=1"]}, r"`ema_decay` must lie in \[0, 1\), got 1.0"),
        ({"overrides": ["rates=0.1"]}, r"`rates` must be .*Mapping\[str, float\], got 0.1"),
        ({"overrides": ["rates={encoder: 0}"]}, "`rates` must be positive, got 0.0 of encoder. `freeze` stops a part"),
        ({"arguments": NEEDED | {"lora_rank": 4, "rates": {"head": 2.0}}}, "Leave out `rates`"),
        ({"overrides": ["epochs=many"]}, "`epochs` must be float, got 'many'"),
        ({"overrides": ["batch_size=1.5"]}, "`batch_size` must be int, got 1.5"),
        ({"arguments": {"data": "scores.csv", "output_dir": "runs"}}, "--model is needed: Checkpoint to start from"),
        ({"arguments": NEEDED | {"speed": 3}}, "Unknown settings speed. Known are"),
        ({"arguments": NEEDED | {"architecture": {"depth": 3}}}, "`architecture` names depth, which is no field"),
        ({"arguments": NEEDED | {"architecture": 3}}, "`architecture` must be Mapping, got 3"),
        (
            {"arguments": NEEDED | {"view": {"crops": 3}}},
            "`view` names crops, which is no field of any family. Known are",
        ),
        ({"arguments": NEEDED | {"native_patches": "few"}}, "`native_patches` must be .*int.*, got 'few'"),
        ({"arguments": NEEDED | {"score_range": ["low", "high"]}}, r"`score_range` must be .*, got \['low', 'high'\]"),
        ({"arguments": NEEDED | {"optimizer": "lion"}}, "`optimizer` must be 'adamw' or 'adam' or 'sgd', got 'lion'"),
        ({"arguments": NEEDED | {"lora_rank": 4, "freeze": "encoder"}}, "Leave out `freeze`"),
        ({"arguments": NEEDED | {"holdout_fraction": 1.5}}, r"`holdout_fraction` must lie in \[0, 1\), got 1.5"),
        ({"arguments": NEEDED | {"rank_weight": -1.0}}, "`rank_weight` must be at least 0, got -1"),
        ({"arguments": NEEDED | {"shorter_side": 0}}, "`shorter_side` must be at least 1, got 0"),
    ],
)
def test_mistakes_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        load_settings(FinetuneSettings, **({"arguments": NEEDED} | changes))


@pytest.mark.parametrize(
    ("text", "message"), [("- 1", "a recipe is a mapping .* got list"), ("a: [", "is not valid YAML")]
)
def test_a_recipe_must_be_a_mapping(tmp_path, text, message):
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_recipe(str(tmp_path / "wrong.yaml"))


def test_numbers_without_a_point_are_numbers_of_the_architecture_too():
    settings = load_settings(FinetuneSettings, overrides=["layer_norm_eps=1e-5"], arguments=NEEDED)
    assert load_model(settings.model, architecture=settings.architecture).config.layer_norm_eps == 1e-5


def test_rates_come_from_recipes_and_overrides(tmp_path):
    (tmp_path / "mine.yaml").write_text("rates:\n  patch_encoder: 1e-1\n")
    read = {"recipe": str(tmp_path / "mine.yaml"), "arguments": NEEDED}
    assert load_settings(FinetuneSettings, **read).rates == {"patch_encoder": 0.1}
    changed = load_settings(FinetuneSettings, overrides=["rates={encoder: 1, head: 2}"], **read)
    assert changed.rates == {"encoder": 1.0, "head": 2.0}
    assert load_settings(FinetuneSettings, overrides=["rates={}"], **read).rates == {}


@pytest.mark.parametrize("kind", [FinetuneSettings, DistillSettings, PretrainSettings, ImageNetSettings])
def test_every_setting_is_an_argument_with_a_help_text(kind):
    parser = settings_parser(kind)
    actions = {action.dest: action for action in parser._actions}
    names = {item.name for item in dataclasses.fields(kind)} - {
        "architecture",
        "view",
        "teacher_view",
        "rates",
        "backbones",
    }
    names |= {item.name for family in FAMILIES.values() for item in dataclasses.fields(family.view)}
    names |= {name for family in FAMILIES.values() for name in family.backbones}
    assert names <= set(actions)
    assert all(actions[name].help for name in names)
    assert all(item.metadata["help"] for item in dataclasses.fields(kind))


@pytest.mark.slow  # that interpreter compiles every library anew
def test_help_texts_survive_an_interpreter_without_docstrings():
    words = [sys.executable, "-OO", "-m", "musiq_hf.cli", "finetune", "--help"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    shown = " ".join(result.stdout.split())
    assert "Passes over the training pictures. (default: 10)" in shown
    assert "Random subset of at most so many native patches per picture and step" in shown


def parse(*words: str) -> FinetuneSettings:
    arguments = vars(settings_parser(FinetuneSettings).parse_args(words))
    return settings_from_arguments(arguments, FinetuneSettings, **({"data": "d", "model": "m", "output_dir": "o"}))


def test_arguments_become_settings():
    words = ["--data", "a.csv", "--score_range", "0", "100", "--bf16", "--set", "hash_grid_size=5", "--epochs", "2"]
    settings = parse(*words)
    assert (settings.score_range, settings.bf16, settings.epochs) == ((0, 100), True, 2)
    assert settings.architecture == {"hash_grid_size": 5} and settings.data == "a.csv"
    assert settings.batch_size == FinetuneSettings.batch_size
    assert not parse("--bf16", "false").bf16


def test_settings_of_a_training_step_go_to_the_view(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("native_patches: 3\nview:\n  resized_patches: 4\n")
    assert parse().view == {}
    assert parse("--recipe", str(recipe)).view == {"native_patches": 3, "resized_patches": 4}
    assert parse("--recipe", str(recipe), "--native_patches", "5").view == {"native_patches": 5, "resized_patches": 4}
    words = ("--set", "native_patches=6", "--set", "resized_patches=null")
    settings = parse("--recipe", str(recipe), *words)
    assert settings.view == {"native_patches": 6, "resized_patches": None}
    view = settings.training_view(FAMILIES["musiq"])
    assert (view.native_patches, view.resized_patches) == (6, None)


def test_views_of_all_families_share_the_arguments(monkeypatch):
    @dataclass(kw_only=True)
    class CropView(TrainingView):
        crop_size: int = field(default=224, metadata={"help": "Side of a random crop, in pixels."})
        native_patches: float = field(default=0.5, metadata={"help": "Part of the patches."})

    toy = dataclasses.replace(FAMILIES["musiq"], name="toy", view=CropView)
    monkeypatch.setitem(FAMILIES, "toy", toy)
    settings = parse("--crop_size", "32", "--set", "native_patches=0.25")
    assert settings.view == {"crop_size": 32, "native_patches": 0.25}
    assert settings.training_view(toy).crop_size == 32
    with pytest.raises(ValueError, match="names crop_size, which training of a musiq model does not have"):
        settings.training_view(FAMILIES["musiq"])


def test_architecture_is_checked_against_the_family_of_the_model(monkeypatch):
    toy = dataclasses.replace(FAMILIES["musiq"], name="toy")
    monkeypatch.setitem(FAMILIES, "toy", toy)
    check_architecture(toy, ["hash_grid_size", "resize_mode"])
    assert {"padding", "do_convert_rgb", "score_scale", "model_type"}.isdisjoint(architecture_fields(toy))
    with pytest.raises(ValueError, match="`architecture` names depth, which is no field of a toy model. Known are"):
        check_architecture(toy, ["depth"])
