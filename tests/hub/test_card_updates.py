# SPDX-License-Identifier: Apache-2.0
import json
import math
import shutil

import pytest
from huggingface_hub import EvalResult, ModelCard, ModelCardData

from musiq_hf import DEFAULT_CHECKPOINT, TINY_CHECKPOINT
from musiq_hf.hub.card_updates import check_card_directory, update_card
from musiq_hf.metrics.report_files import read_metrics
from musiq_hf.metrics.reports import Metrics, QualityReport


def report_of(srcc: float) -> QualityReport:
    metrics = Metrics(srcc=srcc, plcc=0.5, plcc_logistic=0.6, krcc=0.4, rmse=2.0)
    return QualityReport(model="m", data="koniq", split="test", num_pictures=9, overall=metrics, intervals={})


def test_card_gets_the_results_and_keeps_the_rest(tiny_config, tmp_path):
    tiny_config().save_pretrained(tmp_path)
    card = "---\nlicense: mit\n---\n\n# Mine\n\n## Evaluation\n\nOld words.\n\n## Limits\n\nBy hand.\n"
    (tmp_path / "README.md").write_text(card)
    (tmp_path / "metrics.json").write_text(json.dumps({"validation": report_of(0.25).to_json()}))
    update_card(tmp_path, report_of(0.75))
    text = (tmp_path / "README.md").read_text()
    before, after = text.split("## Evaluation\n")
    assert ModelCard(text).data.license == "mit"
    assert before.partition("\n---\n")[2] == card.split("## Evaluation\n")[0].partition("\n---\n")[2]
    assert after.endswith("\n\n## Limits\n\nBy hand.\n") and "Old words" not in after
    assert "**koniq, test**: 9 pictures." in after and "0.7500" in after and "0.2500" in after
    assert sorted(json.loads((tmp_path / "metrics.json").read_text())) == ["koniq, test", "validation"]
    update_card(tmp_path, report_of(0.125), title="validation")
    text = (tmp_path / "README.md").read_text()
    assert "0.1250" in text and "0.2500" not in text and "0.7500" in text


def results_of(path):
    """Value of each metric in the head of a card, by data set and metric, as the Hub reads it."""
    results = ModelCard.load(path).data.eval_results
    return {(result.dataset_name, result.metric_name): result.metric_value for result in results}


def test_the_head_holds_the_results_that_are_stored(tiny_config, tmp_path):
    tiny_config().save_pretrained(tmp_path)
    theirs = EvalResult("image-classification", "cats", "Cats", "accuracy", 0.5)
    head = ModelCardData(license="mit", metrics=["accuracy"], model_name="mine", eval_results=[theirs])
    (tmp_path / "README.md").write_text(f"---\n# a remark\n{head.to_yaml()}\n---\n\n# Mine\n")
    for srcc in (0.75, 0.12345678):
        update_card(tmp_path, report_of(srcc))
        found = {("koniq, test", "SRCC"): round(srcc, 4), ("koniq, test", "PLCC"): 0.5, ("koniq, test", "KRCC"): 0.4}
        found |= {("koniq, test", "RMSE (MOS points)"): 2.0, ("Cats", None): 0.5}
        assert results_of(tmp_path / "README.md") == found
        data = ModelCard.load(tmp_path / "README.md").data
        assert data.metrics == ["accuracy", "spearmanr", "pearsonr", "kendalltau", "rmse"] and data.license == "mit"
    assert "# a remark" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("head", ["", "---\nlicense: [\n---\n\n"])
def test_a_head_that_cannot_be_read_stays(tiny_config, tmp_path, head):
    tiny_config().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text(f"{head}# Mine\n")
    update_card(tmp_path, report_of(0.75))
    assert (tmp_path / "README.md").read_text().startswith(f"{head}# Mine\n\n## Evaluation")


def test_figures_that_are_no_numbers_are_left_out(tiny_config, tmp_path):
    tiny_config().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    metrics = Metrics(srcc=0.5, plcc=math.nan)
    update_card(tmp_path, QualityReport(data="koniq", split="test", num_pictures=9, overall=metrics))
    assert results_of(tmp_path / "README.md") == {("koniq, test", "SRCC"): 0.5}


def test_the_name_of_an_embedded_checkpoint_stands_for_its_folder():
    assert check_card_directory(TINY_CHECKPOINT.name) == TINY_CHECKPOINT


def test_card_without_evaluation_or_without_a_file_is_completed(tiny_config, tmp_path):
    tiny_config(architectures=["MusiqForImageQualityAssessment"]).save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("# Mine\n")
    update_card(tmp_path, report_of(0.75))
    assert (tmp_path / "README.md").read_text().startswith("# Mine\n\n## Evaluation\n\n**koniq, test**")
    (tmp_path / "README.md").unlink()
    update_card(tmp_path, report_of(0.75))
    text = (tmp_path / "README.md").read_text()
    assert "## Limits and bias" in text and "Not noted with these files." in text
    with pytest.raises(ValueError, match="absent cannot be updated: that needs a local directory with a config.json"):
        update_card(tmp_path / "absent", report_of(0.75))


def test_card_leaves_the_plain_numbers_of_pretraining_out(tiny_config, tmp_path):
    tiny_config().save_pretrained(tmp_path)
    (tmp_path / "metrics.json").write_text('{"eval_pair_accuracy": 0.875, "epoch": 3}')
    update_card(tmp_path, report_of(0.75))
    text = (tmp_path / "README.md").read_text()
    assert "0.7500" in text and "eval_pair_accuracy" not in text
    stored = json.loads((tmp_path / "metrics.json").read_text())
    assert (stored["eval_pair_accuracy"], sorted(stored)) == (0.875, ["epoch", "eval_pair_accuracy", "koniq, test"])


def test_a_report_of_no_data_set_needs_a_title(tiny_config, tmp_path):
    tiny_config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="does not say what it was measured on. Give a `title` for the card"):
        update_card(tmp_path, report_of(0.75).for_card())
    assert not (tmp_path / "README.md").exists()


@pytest.mark.parametrize("checkpoint", [DEFAULT_CHECKPOINT, TINY_CHECKPOINT], ids=lambda path: path.name)
def test_embedded_checkpoints_are_rewritten_byte_for_byte(checkpoint, tmp_path):
    for name in ("config.json", "README.md", "metrics.json", "calibration.json"):
        shutil.copy(checkpoint / name, tmp_path / name)
    for title, report in read_metrics(tmp_path).reports.items():
        update_card(tmp_path, report, title=title)
    for name in ("README.md", "metrics.json"):
        assert (tmp_path / name).read_bytes() == (checkpoint / name).read_bytes()


def test_what_metrics_json_should_not_hold_is_said_before_anything_is_measured(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.json").write_text('{"note": "measured on a laptop"}')
    with pytest.raises(ValueError, match="metrics.json, note: a report or a number was expected"):
        check_card_directory(tmp_path)
