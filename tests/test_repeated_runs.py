# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import numpy as np
import pytest

from musiq_hf.metrics import MEAN_OF_GROUPS, METRICS
from musiq_hf.publishing import write_json
from musiq_hf.repeated_runs import render_runs, repeat_runs, summarize_runs
from musiq_hf.settings import FinetuneSettings


def metrics(value: float) -> dict[str, float]:
    return dict.fromkeys(METRICS, value)


def report(value: float, **groups: float) -> dict:
    tables = {name: metrics(own) for name, own in groups.items()}
    if tables:
        tables[MEAN_OF_GROUPS] = metrics(float(np.mean(list(groups.values()))))
    return {"test": {"num_pictures": 9, "overall": metrics(value), "groups": tables}}


class Trainer:
    """Stands in for `finetune`: notes what it was asked for and leaves metrics.json."""

    def __init__(self, interrupt_at: int | None = None):
        self.calls, self.interrupt_at = [], interrupt_at

    def __call__(self, settings: FinetuneSettings) -> dict:
        self.calls.append((settings.seed, settings.split_seed, Path(settings.output_dir).name, settings.resume))
        folder = Path(settings.output_dir)
        (folder / "checkpoint-3").mkdir(parents=True, exist_ok=True)
        if settings.seed == self.interrupt_at:
            raise KeyboardInterrupt
        result = report(0.5 + 0.1 * settings.seed)
        write_json(folder / "metrics.json", result)
        return result


@pytest.fixture
def settings(tmp_path) -> FinetuneSettings:
    return FinetuneSettings(data="d.csv", model="m", output_dir=str(tmp_path), seed=7, score_range=(0, 1))


def test_each_run_has_its_seed_split_and_folder(settings, tmp_path):
    trainer = Trainer()
    result = repeat_runs(settings, runs=3, output_dir=tmp_path / "runs", train=trainer)
    assert trainer.calls == [(i, i, f"run_0{i}", False) for i in range(3)]
    assert [run["test"]["overall"]["srcc"] for run in result["runs"]] == pytest.approx([0.5, 0.6, 0.7])
    assert result["summary"] == summarize_runs(result["runs"])
    assert json.loads(json.dumps(result["settings"]))["epochs"] == settings.epochs


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
    assert result["runs"] == repeat_runs(settings, runs=3, output_dir=tmp_path / "whole", train=Trainer())["runs"]


def test_runs_of_other_settings_are_not_mixed(settings, tmp_path):
    repeat_runs(settings, runs=1, output_dir=tmp_path / "runs", train=Trainer())
    settings.learning_rate, settings.num_workers = 1e-3, 4
    with pytest.raises(ValueError, match=r"holds runs with other settings \(learning_rate\). Choose a new"):
        repeat_runs(settings, runs=2, output_dir=tmp_path / "runs", train=Trainer())
    with pytest.raises(ValueError, match="`runs` must be at least 1, got 0"):
        repeat_runs(settings, runs=0, output_dir=tmp_path / "runs", train=Trainer())


def test_summary_agrees_with_numpy():
    values = [0.5, 0.9, 0.7, 0.6]
    summary = summarize_runs([report(value, x=value / 2, y=value / 4) for value in values])
    statistics = summary["test"]["overall"]["krcc"]
    assert statistics == {
        "num_runs": 4,
        "mean": pytest.approx(np.mean(values)),
        "std": pytest.approx(np.std(values, ddof=1)),
        "median": pytest.approx(np.median(values)),
        "min": 0.5,
        "max": 0.9,
    }
    assert list(summary["test"]["groups"]) == ["x", "y", MEAN_OF_GROUPS]
    assert summary["test"]["groups"]["x"]["srcc"]["median"] == pytest.approx(0.325)


def test_groups_that_some_runs_lack_are_counted():
    summary = summarize_runs([report(0.5, x=0.1, y=0.3), report(0.7, x=0.2), report(0.9)])
    groups = summary["test"]["groups"]
    assert [groups[name]["srcc"]["num_runs"] for name in ("x", "y", MEAN_OF_GROUPS)] == [2, 1, 2]
    assert groups["y"]["srcc"]["std"] is None
    assert summary["test"]["overall"]["srcc"]["num_runs"] == 3


def test_one_run_has_no_spread_and_none_no_summary():
    assert summarize_runs([report(0.5)])["test"]["overall"]["srcc"]["std"] is None
    with pytest.raises(ValueError, match="At least one finished run is needed"):
        summarize_runs([])


def test_tables_show_mean_deviation_and_median():
    text = render_runs(summarize_runs([report(value, x=value) for value in (0.5, 0.6, 0.9)]))
    assert "| all | 3 | 0.6667 ± 0.2082 (0.6000) |" in text
    assert "| x | 3 | 0.6667 ± 0.2082 (0.6000) |" in text and f"| {MEAN_OF_GROUPS} | 3 |" in text
    assert "| all | 1 | 0.5000 (0.5000) |" in render_runs(summarize_runs([report(0.5)]))
