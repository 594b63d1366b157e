# SPDX-License-Identifier: Apache-2.0
"""Every file has a row: numbers, or a sentence that says what is wrong with it."""

import re

import pytest
from hostile_videos import make_hostile_files

from musiq_hf.assessment import compare
from musiq_hf.assessment.description_table import DescriptionSettings
from musiq_hf.scoring.tables.row_jobs import read_rows, run_rows


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_hostile_files(tmp_path_factory.mktemp("hostile"))


def test_every_file_is_a_row(files, tmp_path, capfd):
    folder = next(iter(files)).parents[1]
    job = DescriptionSettings([str(folder)], output=tmp_path / "a.csv").make_job()
    assert run_rows(job)[0] == "written" and len(files) >= 100
    rows = {row["key"]: row for row in read_rows(job)}
    assert set(map(str, files)) <= set(rows)
    for path, expected in files.items():
        row = rows[str(path)]
        assert (row["si"] is None) == (row["error"] is not None)
        if expected is None:
            assert row["error"] is None, row
        elif expected != "any":
            assert row["error"] and re.search(expected, row["error"]) and "\n" not in row["error"], row
    assert capfd.readouterr() == ("", "")  # the libraries print nothing of their own


def test_what_can_be_described_can_be_compared(files):
    for path in files:
        if path.suffix in (".jpg", ".png"):
            continue
        try:
            found = compare(path, path, metrics=["psnr"])
        except (ValueError, OSError) as error:
            assert files[path] is not None and str(error)
        else:
            assert found.psnr_y == float("inf") and (files[path] in (None, "any") or found.width < 3)
