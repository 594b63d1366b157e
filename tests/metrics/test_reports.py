# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from musiq_hf import DEFAULT_CHECKPOINT
from musiq_hf.metrics.bootstrap import bootstrap_intervals
from musiq_hf.metrics.correlation import MEAN_OF_GROUPS, METRICS, grouped_metrics, quality_metrics
from musiq_hf.metrics.reports import (
    ComparisonReport,
    Metrics,
    QualityReport,
    RobustnessReport,
    RunsReport,
    SrccDifference,
    quality_report,
    read_report,
    summarize_runs,
)

STORED = json.loads((DEFAULT_CHECKPOINT / "metrics.json").read_text())


def metrics(value: float) -> Metrics:
    return Metrics(**dict.fromkeys(METRICS, value))


def run(value: float, **groups: float) -> dict[str, QualityReport]:
    """The report of one run; its groups have the metrics that are named."""
    tables = {name: metrics(own) for name, own in groups.items()}
    if tables:
        tables[MEAN_OF_GROUPS] = metrics(float(np.mean(list(groups.values()))))
    return {"test": QualityReport(num_pictures=9, overall=metrics(value), groups=tables)}


def test_report_holds_everything_on_one_set_of_pictures():
    generator = np.random.default_rng(0)
    targets = generator.normal(50, 15, 30)
    predictions, groups = targets + generator.normal(0, 10, 30), ["a", "b", "c"] * 10
    report = quality_report(predictions, targets, groups=groups, num_resamples=20)
    assert report.to_json() == {
        "num_pictures": 30,
        "overall": quality_metrics(predictions, targets),
        "groups": grouped_metrics(predictions, targets, groups),
        "intervals": bootstrap_intervals(predictions, targets, groups=groups, num_resamples=20),
    }
    assert "groups" not in quality_report(predictions, targets, num_resamples=20).to_json()


@pytest.mark.parametrize(("name", "kind"), [("validation", QualityReport), ("Degraded", RobustnessReport)])
def test_stored_reports_are_read_as_their_kind_and_come_back_the_same(name, kind):
    (entry,) = (entry for title, entry in STORED.items() if title.startswith(name))
    report = read_report(entry)
    assert type(report) is kind
    assert json.dumps(report.to_json(), sort_keys=True) == json.dumps(entry, sort_keys=True)
    assert report.for_card() == report


def test_runs_come_back_the_same_and_keep_their_summary_for_a_card():
    runs = (run(0.5, x=0.1), run(0.7))
    report = RunsReport(settings={"score_range": (0, 1)}, runs=runs, summary=summarize_runs(runs))
    content = json.loads(json.dumps(report.to_json()))
    assert content["settings"] == {"score_range": [0, 1]}
    assert read_report(content).to_json() == content
    assert list(report.for_card().to_json()) == ["summary"]


def test_reports_of_several_checkpoints_come_back_the_same():
    report = QualityReport(
        model="m", data="d", split="test", signatures=("s",), num_pictures=3, overall=metrics(0.5), intervals={}
    )
    other = SrccDifference(data="d", split="test", first="m", second="n", difference=0.5, interval=(0.25, 0.75))
    comparison = ComparisonReport(results=(report,), differences=(other,))
    content = json.loads(json.dumps(comparison.to_json()))
    assert ComparisonReport.from_json(content) == comparison
    assert sorted(report.for_card().to_json()) == ["intervals", "num_pictures", "overall", "signatures"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sroc": 1}, "^m.json, validation: unknown key 'sroc'; known are model, .*intervals. Correct or remove it.$"),
        ({"overall": {"srcc": 0.5, "PLCC": 0.5}}, "^m.json, validation, overall: unknown key 'PLCC'; known are srcc,"),
        ({"overall": {"plcc": 0.5}}, "^m.json, validation, overall: the key 'srcc' is missing"),
        ({"groups": {"a": {"srcc": "0.5"}}}, "^m.json, validation, groups, a, srcc: a number was expected, got '0.5'"),
        ({"intervals": {"overall": {"srcc": [0]}}}, "^m.json, .*, overall, srcc: 2 values were expected, got 1"),
        (
            {"faults": {}},
            "^m.json, validation: unknown key 'groups'; known are num_pictures, targets, overall, faults",
        ),
    ],
)
def test_keys_and_values_that_no_report_has_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        read_report(STORED["validation"] | changes, name="m.json, validation")


def test_summary_agrees_with_numpy():
    values = [0.5, 0.9, 0.7, 0.6]
    summary = summarize_runs([run(value, x=value / 2, y=value / 4) for value in values])
    statistics = summary["test"].overall["krcc"]
    assert statistics.to_json() == {
        "num_runs": 4,
        "mean": pytest.approx(np.mean(values)),
        "std": pytest.approx(np.std(values, ddof=1)),
        "median": pytest.approx(np.median(values)),
        "min": 0.5,
        "max": 0.9,
    }
    assert list(summary["test"].groups) == ["x", "y", MEAN_OF_GROUPS]
    assert summary["test"].groups["x"]["srcc"].median == pytest.approx(0.325)


def test_groups_that_some_runs_lack_are_counted():
    summary = summarize_runs([run(0.5, x=0.1, y=0.3), run(0.7, x=0.2), run(0.9)])
    groups = summary["test"].groups
    assert [groups[name]["srcc"].num_runs for name in ("x", "y", MEAN_OF_GROUPS)] == [2, 1, 2]
    assert groups["y"]["srcc"].std is None
    assert summary["test"].overall["srcc"].num_runs == 3


def test_one_run_has_no_spread_and_none_no_summary():
    assert summarize_runs([run(0.5)])["test"].overall["srcc"].std is None
    with pytest.raises(ValueError, match="At least one finished run is needed"):
        summarize_runs([])
