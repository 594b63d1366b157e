# SPDX-License-Identifier: Apache-2.0
import re
from dataclasses import replace

import pytest
from fake_hub import check_card
from huggingface_hub import ModelCard

from musiq_hf import MusiqConfig
from musiq_hf.hub.model_card import CheckpointCard
from musiq_hf.metrics.reports import Metrics, QualityReport

SECTIONS = [
    "How to use it",
    "The score",
    "Intended use",
    "Preprocessing",
    "Where the weights come from",
    "Training data and recipe",
    "Evaluation",
    "Limits and bias",
    "Check of the files",
    "Licence, patents, citation",
]
METRICS = {
    "selection": QualityReport(num_pictures=488, overall=Metrics(srcc=0.71239, plcc=0.7341, rmse=0.0512)),
    "validation": QualityReport(
        num_pictures=1542,
        overall=Metrics(srcc=0.61234, plcc=0.65432, rmse=8.7654321),
        groups={
            "indoor": Metrics(srcc=0.5, plcc=-0.25, rmse=1.0),
            "mean within groups": Metrics(srcc=0.55, plcc=0.45, rmse=2.0),
        },
    ),
}


@pytest.fixture(scope="module")
def card():
    return CheckpointCard(
        name="someone/musiq-mine",
        config=MusiqConfig(architectures=["MusiqForImageQualityAssessment"], score_range=(0, 100)),
        source="Trained from random weights with `musiq_hf`.",
        training_data="Nine pictures of one cat.",
        recipe="One epoch, then tea.",
    )


def section(text, title):
    return re.search(rf"^## {re.escape(title)}\n\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)[1]


def test_head_is_valid_for_the_hub(card):
    text = replace(card, tags=["photography"], datasets=["someone/cats"], license="cc-by-4.0").render()
    data = ModelCard(text).data
    assert (data.license, data.library_name, data.pipeline_tag) == (
        "cc-by-4.0",
        "transformers",
        "image-classification",
    )
    assert {"musiq", "image-quality-assessment", "arxiv:2108.05997", "photography"} <= set(data.tags)
    assert data.datasets == ["someone/cats"]
    assert check_card(text) == []
    assert ModelCard(card.render()).data.license == "apache-2.0"


def test_head_names_what_training_began_with_and_the_results(card):
    data = ModelCard(replace(card, base_model="someone/musiq-theirs", metrics=METRICS).render()).data
    assert data.base_model == "someone/musiq-theirs" and data.model_name == "someone/musiq-mine"
    found = [(result.dataset_name, result.metric_type, result.metric_value) for result in data.eval_results]
    assert ("validation", "spearmanr", 0.6123) in found and len(found) == 6
    assert {result.task_type for result in data.eval_results} == {"image-classification"}
    plain = ModelCard(card.render()).data
    assert plain.base_model is plain.eval_results is plain.metrics is None


def test_sections_stand_in_order_and_hold_what_was_given(card):
    text = card.render()
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert 'model="someone/musiq-mine"' in section(text, "How to use it")
    assert "from random weights" in section(text, "Where the weights come from")
    assert section(text, "Training data and recipe") == "Nine pictures of one cat.\n\nOne epoch, then tea.\n\n"
    assert "**Out of scope.**" in section(text, "Intended use")
    ending = section(text, "Licence, patents, citation")
    for needed in ("US11887270B2", "US12217382B2", "not\nlegal", "@inproceedings{ke2021musiq", "arXiv:2108.05997"):
        assert needed in ending
    assert "{{MUSIQ}: Multi-scale Image Quality Transformer}" in ending
    assert not re.search(r"(?<!\{)\{[a-z_]+\}(?!\})", text)  # no field left unfilled


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"score_range": (0, 100)}, "between 0 and 100; predictions are not clipped"),
        ({}, "those of the opinion scores that it was trained on"),
        ({"score_offset": 3.25, "score_scale": 0.5}, "It is 3.25 + 0.5 times the logit."),
        ({"num_labels": 10}, "a distribution over the score values 1 to 10"),
        (
            {"num_labels": 12, "architectures": ["MusiqForImageClassification"]},
            "None: the head gives logits of 12 classes",
        ),
    ],
)
def test_score_is_explained_by_the_configuration(card, changes, words):
    config = MusiqConfig(**{"architectures": ["MusiqForImageQualityAssessment"], **changes})
    assert words in section(replace(card, config=config).render(), "The score")


def test_classifier_is_not_offered_for_scoring(card):
    text = replace(card, config=MusiqConfig(num_labels=12, architectures=["MusiqForImageClassification"])).render()
    assert 'pipeline("image-classification"' in text and 'image-quality-assessment",' not in text
    assert "opinion scores are averages" not in section(text, "Limits and bias").lower()


def test_preprocessing_follows_the_configuration(card):
    config = MusiqConfig(longer_side_lengths=[160], max_native_patches=77, hash_grid_size=6, patch_size=16)
    words = section(replace(card, config=config).render(), "Preprocessing")
    for needed in ("longer side of 160 pixels", "(the first 77 patches)", "6 x 6 cells", "16 x 16 pixels"):
        assert needed in words
    single = MusiqConfig(longer_side_lengths=[224], use_native_resolution=False, spatial_embedding="none")
    words = section(replace(card, config=single).render(), "Preprocessing")
    assert "own resolution" not in words and "positions not used" in words


def test_evaluation_shows_the_measured_numbers_and_no_others(card):
    words = section(replace(card, metrics=METRICS).render(), "Evaluation")
    assert "| all | 0.6123 | 0.6543 | 8.7654 |" in words
    assert "| group indoor | 0.5000 | -0.2500 | 1.0000 |" in words
    assert "| mean within groups | 0.5500 | 0.4500 | 2.0000 |" in words
    assert "**Validation split**: 1,542 pictures." in words
    assert "it chose the epoch, so the figures are optimistic" in words
    numbers = {float(number) for number in re.findall(r"-?\d+\.\d+", words)}
    assert len(numbers) == 3 * 4


def test_evaluation_without_metrics_states_no_number(card):
    words = section(card.render(), "Evaluation")
    assert words.startswith("Not measured for these files.")
    assert not re.search(r"\d\.\d", words)


def test_conversion_check_and_hash_are_stated_only_for_conversions(card):
    text = replace(card, largest_difference=2.34e-7, source_sha256="ab" * 32).render()
    assert "2.3e-07" in section(text, "Check of the files")
    assert f"`{'ab' * 32}`" in section(text, "Where the weights come from")
    assert "not converted" in section(card.render(), "Check of the files")
    assert "SHA-256" not in card.render()


def test_notes_come_first_among_the_limits(card):
    words = section(replace(card, notes=("Cats only.", "No dogs.")).render(), "Limits and bias")
    assert words.startswith("- Cats only.\n- No dogs.\n- Opinion scores are averages")


def test_save_writes_the_readme_of_the_directory(card, tmp_path):
    path = card.save(tmp_path)
    assert path == tmp_path / "README.md"
    assert path.read_text(encoding="utf-8") == card.render()
