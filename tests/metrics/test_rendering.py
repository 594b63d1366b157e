# SPDX-License-Identifier: Apache-2.0
import re
from dataclasses import replace

import pytest

from musiq_hf import DEFAULT_CHECKPOINT, TINY_CHECKPOINT
from musiq_hf.metrics.correlation import MEAN_OF_GROUPS, METRICS
from musiq_hf.metrics.rendering import HEADINGS, render, render_evaluation
from musiq_hf.metrics.report_files import read_metrics
from musiq_hf.metrics.reports import (
    ComparisonReport,
    Intervals,
    Metrics,
    QualityReport,
    RunsReport,
    RunStatistics,
    SplitSummary,
    SrccDifference,
)

COLUMNS = " | ".join(HEADINGS[name] for name in METRICS)


def of_runs(num_runs: int, std: float | None) -> dict[str, RunStatistics]:
    values = RunStatistics(num_runs=num_runs, mean=2 / 3, std=std, median=0.6, min=0.5, max=0.8)
    return dict.fromkeys(METRICS, values)


@pytest.fixture
def runs() -> RunsReport:
    groups = {"x": of_runs(2, 0.25), MEAN_OF_GROUPS: {"srcc": of_runs(2, 0.25)["srcc"]}}
    summary = {"test": SplitSummary(overall=of_runs(3, 0.20821), groups=groups)}
    return RunsReport(summary=summary | {"validation": SplitSummary(overall=of_runs(1, None))})


@pytest.fixture
def quality() -> QualityReport:
    return QualityReport(
        model="m",
        data="d.csv",
        split="test",
        signatures=("m|weights:1",),
        num_pictures=1234,
        overall=Metrics(srcc=0.5, plcc=0.625, plcc_logistic=0.75, krcc=0.25, rmse=8),
        groups={MEAN_OF_GROUPS: Metrics(srcc=0.125), "a": Metrics(srcc=0.375)},
        intervals={"overall": Intervals(srcc=(0.4, 0.6))},
    )


@pytest.mark.parametrize("checkpoint", [DEFAULT_CHECKPOINT, TINY_CHECKPOINT], ids=lambda path: path.name)
def test_the_embedded_cards_are_what_their_metrics_render(checkpoint):
    card = (checkpoint / "README.md").read_text()
    section = re.search(r"^## Evaluation\n\n(.*?)\n\n### Percentiles", card, re.DOTALL | re.MULTILINE)[1]
    assert render_evaluation(read_metrics(checkpoint).reports) == section


def test_runs_show_mean_deviation_and_median(runs):
    text = render(runs)
    assert "**test**: mean ± standard deviation (median) over runs." in text
    assert "| all | 3 | 0.6667 ± 0.2082 (0.6000) |" in text and "| x | 2 | 0.6667 ± 0.2500 (0.6000) |" in text
    assert f"| {MEAN_OF_GROUPS} | 2 | 0.6667 ± 0.2500 (0.6000) |  |" in text  # not measured: an empty cell
    assert "| all | 1 | 0.6667 (0.6000) |" in text


def test_one_set_of_pictures_has_a_row_for_each_group_and_the_mean_last(quality):
    assert render(quality).splitlines() == [
        "1,234 pictures.",
        "",
        f"| pictures | {COLUMNS} |",
        "|---|---|---|---|---|---|",
        "| all | 0.5000 | 0.6250 | 0.7500 | 0.2500 | 8.0000 |",
        "| group a | 0.3750 |  |  |  |  |",
        "| mean within groups | 0.1250 |  |  |  |  |",
        "",
        "95 % bootstrap intervals of the SRCC: all 0.4000 to 0.6000.",
    ]


def test_reports_on_few_pictures_say_why_there_is_no_interval(quality):
    few, sentence = replace(quality, num_pictures=9, intervals={}), "Fewer than 10 pictures are too few for intervals."
    assert render(few).endswith(f"\n\n{sentence}") and sentence not in render(quality)
    assert sentence in render(ComparisonReport(results=(few, quality)))
    assert sentence not in render(ComparisonReport(results=(quality,)))


def test_several_reports_share_a_table(quality):
    other = replace(quality, model="n", signatures=("n|weights:2",), groups=None, intervals={})
    other = replace(other, overall=replace(other.overall, emd=0.0625))
    text = render(ComparisonReport(results=(quality, other)))
    assert f"| checkpoint | data | split | pictures | {COLUMNS} | EMD |" in text
    assert "| m | d.csv | test | 1,234 | 0.5000 [0.4000, 0.6000] | 0.6250 | 0.7500 | 0.2500 | 8.0000 |  |" in text
    assert "| n | d.csv | test | 1,234 | 0.5000 | 0.6250 | 0.7500 | 0.2500 | 8.0000 | 0.0625 |" in text
    assert f"| checkpoint | data | group | {COLUMNS} |" in text and "| m | d.csv | a | 0.3750 |" in text
    assert "across data sets" not in text
    assert text.endswith("Made with\n\n- `m|weights:1`\n- `n|weights:2`")


def test_differences_have_their_interval_and_sign(quality):
    other = SrccDifference(data="d.csv", split="test", first="m", second="n", difference=0.02, interval=(-0.01, 0.05))
    text = render(ComparisonReport(results=(quality,), differences=(other,)))
    assert "| m | n | d.csv | test | +0.0200 [-0.0100, +0.0500] |" in text and "paired bootstrap" in text
    assert "paired bootstrap" not in render(ComparisonReport(results=(quality,)))


def test_terminal_files_and_cards_share_headings_and_tables(quality, runs):
    assert all(COLUMNS in render(report) for report in (quality, runs, ComparisonReport(results=(quality,))))
    card = render_evaluation({"Ten splits": runs, "validation": quality, "d.csv, test": quality})
    assert f"**Validation split**: {render(quality)}\n\n**Ten splits**\n\n{render(runs)}\n\n**d.csv, test**: " in card
    assert card.endswith(render(quality))


def test_names_stay_in_their_cells(quality):
    odd = replace(quality, data="a|b.csv", groups={"x|y\nz": Metrics(srcc=0.375)})
    assert "\n| group x\\|y z | 0.3750 |" in render(odd)
    assert "\n| m | a\\|b.csv | x\\|y z | 0.3750 |" in render(ComparisonReport(results=(odd,)))
