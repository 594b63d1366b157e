# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest

from musiq_hf.common.files import write_json
from musiq_hf.metrics.correlation import METRICS
from musiq_hf.metrics.report_files import StoredMetrics, write_metrics
from musiq_hf.metrics.reports import Metrics, QualityReport, summarize_runs
from musiq_hf.training.repeated_runs import repeat_runs, update_cards
from musiq_hf.training.settings import FinetuneSettings


def report(value: float) -> dict[str, QualityReport]:
    metrics = Metrics(**dict.fromkeys(METRICS, value))
    return {"test": QualityReport(num_pictures=9, overall=metrics, groups={})}


class Trainer:
    """Stands in for `finetune`: notes what it was asked for and leaves metrics.json."""

    def __init__(self, interrupt_at: int | None = None):
        self.calls, self.interrupt_at = [], interrupt_at

    def __call__(self, settings: FinetuneSettings) -> dict[str, QualityReport]:
        self.calls.append((settings.seed, settings.split_seed, Path(settings.output_dir).name, settings.resume))
        folder = Path(settings.output_dir)
        (folder / "checkpoint-3").mkdir(parents=True, exist_ok=True)
        if settings.seed == self.interrupt_at:
            raise KeyboardInterrupt
        result = report(0.5 + 0.1 * settings.seed)
        write_metrics(folder, StoredMetrics(reports=result))
        return result


@pytest.fixture
def settings(tmp_path, blank) -> FinetuneSettings:
    return FinetuneSettings(data="d.csv", model=blank, output_dir=str(tmp_path), seed=7, score_range=(0, 1))


def test_each_run_has_its_seed_split_and_folder(settings, tmp_path):
    trainer = Trainer()
    result = repeat_runs(settings, runs=3, output_dir=tmp_path / "runs", train=trainer)
    assert trainer.calls == [(i, i, f"run_0{i}", False) for i in range(3)]
    assert [run["test"].overall.srcc for run in result.runs] == pytest.approx([0.5, 0.6, 0.7])
    assert result.summary == summarize_runs(result.runs)
    assert json.loads(json.dumps(result.to_json()))["settings"]["epochs"] == settings.epochs


def test_fixed_splits_repeat_the_seed_alone(settings, tmp_path):
    trainer = Trainer()
    repeat_runs(settings, runs=2, output_dir=tmp_path / "runs", repeat_splits=False, train=trainer)
    assert [call[:2] for call in trainer.calls] == [(0, settings.split_seed), (1, settings.split_seed)]


def test_interrupted_protocol_goes_on_where_it_stopped(settings, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        repeat_runs(settings, runs=3, output_dir=tmp_path / "runs", train=Trainer(interrupt_at=1))
    trainer = Trainer()
    result = repeat_runs(settings, runs=3, output_dir=tmp_path / "runs", train=trainer)
    assert [(seed, resume) for seed, _, _, resume in trainer.calls] == [(1, True), (2, False)]
    assert result.runs == repeat_runs(settings, runs=3, output_dir=tmp_path / "whole", train=Trainer()).runs


def test_entries_added_to_a_card_are_no_splits_of_a_run(settings, tmp_path):
    first = repeat_runs(settings, runs=1, output_dir=tmp_path / "runs", train=Trainer())
    added = report(0.1)["test"].to_json()
    stored = tmp_path / "runs" / "run_00" / "metrics.json"
    write_json(stored, json.loads(stored.read_text()) | {"koniq.csv, test": added})
    assert repeat_runs(settings, runs=1, output_dir=tmp_path / "runs", train=Trainer()) == first


def test_cards_of_all_runs_get_the_summary(settings, tmp_path, tiny_config):
    content = repeat_runs(settings, runs=2, output_dir=tmp_path, train=Trainer())
    for name in ("run_00", "run_01"):
        tiny_config().save_pretrained(tmp_path / name)
    update_cards(tmp_path, content)
    update_cards(tmp_path, content, title="Ten splits")
    for name, srcc in (("run_00", "0.5000"), ("run_01", "0.6000")):
        card = (tmp_path / name / "README.md").read_text()
        assert card.count("| all | 2 | 0.5500 ± 0.0707 (0.5500) |") == 2
        assert "**Repeated runs**" in card and "**Ten splits**" in card
        assert f"| all | {srcc} |" in card  # the run's own
    (tmp_path / "run_01" / "config.json").unlink()
    with pytest.raises(ValueError, match="The card of .*run_01 cannot be updated"):
        update_cards(tmp_path, content)


def test_runs_of_other_settings_are_not_mixed(settings, tmp_path):
    repeat_runs(settings, runs=1, output_dir=tmp_path / "runs", train=Trainer())
    settings.learning_rate, settings.num_workers = 1e-3, 4
    with pytest.raises(ValueError, match=r"holds runs with other settings \(learning_rate\). Choose a new"):
        repeat_runs(settings, runs=2, output_dir=tmp_path / "runs", train=Trainer())
    with pytest.raises(ValueError, match="`runs` must be at least 1, got 0"):
        repeat_runs(settings, runs=0, output_dir=tmp_path / "runs", train=Trainer())


def test_mistake_before_the_first_run_can_be_corrected(settings, tmp_path):
    def refuse(own):
        raise ValueError("no such column")

    settings.group_by = "lense"
    with pytest.raises(ValueError, match="no such column"):
        repeat_runs(settings, runs=1, output_dir=tmp_path / "runs", train=refuse)
    settings.group_by = "lens"
    corrected = repeat_runs(settings, runs=1, output_dir=tmp_path / "runs", train=Trainer())
    assert corrected.settings["group_by"] == "lens"
    assert json.loads((tmp_path / "runs" / "runs.json").read_text())["group_by"] == "lens"
