# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from musiq_hf.common.markdown import markdown_table
from musiq_hf.metrics.correlation import MEAN_OF_GROUPS, METRICS
from musiq_hf.metrics.rendering import render_runs
from musiq_hf.metrics.reports import check_report_path, write_report


def of_runs(num_runs: int, std: float | None) -> dict[str, dict]:
    return dict.fromkeys(METRICS, {"num_runs": num_runs, "mean": 2 / 3, "std": std, "median": 0.6})


def test_table_has_a_rule_below_its_heads():
    assert markdown_table(["a", "b"], [["1", "2"], ["3", ""]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 |  |"


def test_runs_show_mean_deviation_and_median():
    groups = {"x": of_runs(2, 0.25), MEAN_OF_GROUPS: {"srcc": of_runs(2, 0.25)["srcc"]}}
    text = render_runs(
        {"test": {"overall": of_runs(3, 0.20821), "groups": groups}, "validation": {"overall": of_runs(1, None)}}
    )
    assert "**test**: mean ± standard deviation (median) over runs." in text
    assert "| all | 3 | 0.6667 ± 0.2082 (0.6000) |" in text and "| x | 2 | 0.6667 ± 0.2500 (0.6000) |" in text
    assert f"| {MEAN_OF_GROUPS} | 2 | 0.6667 ± 0.2500 (0.6000) |  |" in text  # not measured: an empty cell
    assert "| all | 1 | 0.6667 (0.6000) |" in text


def test_report_is_written_as_json_and_markdown(tmp_path):
    write_report(tmp_path / "new" / "report.json", {"results": [1]}, "| a |\n")
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == {"results": [1]}
    assert (tmp_path / "new" / "report.md").read_text() == "| a |\n"
    assert len(list((tmp_path / "new").iterdir())) == 2  # no temporary file is left
    for use in (check_report_path, lambda path: write_report(path, {}, "")):
        with pytest.raises(ValueError, match="a .json file .* got .*report.txt. Change the end of the name"):
            use(tmp_path / "report.txt")
