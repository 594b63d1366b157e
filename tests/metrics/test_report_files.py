# SPDX-License-Identifier: Apache-2.0
import json
from dataclasses import replace

import pytest

from musiq_hf import TINY_CHECKPOINT
from musiq_hf.metrics.rendering import render
from musiq_hf.metrics.report_files import (
    StoredMetrics,
    read_metrics,
    write_metrics,
    write_report,
)
from musiq_hf.metrics.reports import Metrics, QualityReport

REPORT = QualityReport(num_pictures=9, overall=Metrics(srcc=0.5))


def test_metrics_of_the_embedded_checkpoint_come_back_byte_for_byte(tmp_path):
    write_metrics(tmp_path, read_metrics(TINY_CHECKPOINT))
    assert (tmp_path / "metrics.json").read_bytes() == (TINY_CHECKPOINT / "metrics.json").read_bytes()


def test_plain_numbers_of_pretraining_stay_beside_reports(tmp_path):
    assert read_metrics(tmp_path) == StoredMetrics()
    (tmp_path / "metrics.json").write_text('{"loss": 0.25, "num_pictures": 7}')
    stored = read_metrics(tmp_path)
    assert (stored.reports, stored.numbers) == ({}, {"loss": 0.25, "num_pictures": 7})
    write_metrics(tmp_path, replace(stored, reports={"test": REPORT}))
    assert json.loads((tmp_path / "metrics.json").read_text()) == {
        "loss": 0.25,
        "num_pictures": 7,
        "test": {"num_pictures": 9, "overall": {"srcc": 0.5}},
    }


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("good", r"metrics.json, test: a report or a number was expected, got 'good'. Correct the file.$"),
        ({**REPORT.to_json(), "bias": 1}, r"metrics.json, test: unknown key 'bias'; known are .* remove it.$"),
    ],
)
def test_what_is_no_entry_of_metrics_is_named_with_its_file(entry, message, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps({"test": entry}))
    with pytest.raises(ValueError, match=message):
        read_metrics(tmp_path)


def test_report_is_written_as_json_and_markdown(tmp_path):
    write_report(tmp_path / "new" / "report.json", REPORT)
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == REPORT.to_json()
    assert (tmp_path / "new" / "report.md").read_text() == f"{render(REPORT)}\n"
    assert len(list((tmp_path / "new").iterdir())) == 2  # no temporary file is left
    with pytest.raises(ValueError, match="report.txt. Change the end of the name"):
        write_report(tmp_path / "report.txt", REPORT)
