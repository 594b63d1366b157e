# SPDX-License-Identifier: Apache-2.0
"""Names of files that commands write: what passes, and the one sentence of what does not."""

import pytest

from musiq_hf.common.outputs import (
    TABLES,
    check_new_file,
    check_page_path,
    check_plan_folder,
    check_report_path,
    check_table_path,
)
from musiq_hf.common.tables import WRITERS


def test_paths_of_tables():
    assert check_table_path("a/b.parquet").name == "b.parquet" and tuple(WRITERS) == TABLES
    with pytest.raises(ValueError, match=r"scores.xlsx: tables are written as .csv, .jsonl, .parquet files"):
        check_table_path("scores.xlsx")


@pytest.mark.parametrize(
    "url, words",
    [
        ("flaky://b/scores.xlsx", "tables are written as .csv, .jsonl, .parquet files"),
        ("flaky://b/*.csv", r"the name has signs of a pattern \(\* \? \[ \]\)"),
        ("s4://b/scores.csv", "fsspec knows no s4://"),
        ("https://b/scores.csv", "scores are not written there. Write a file of this machine, and upload it"),
        ("hf://datasets/a/b/scores.csv", "scores are not written there"),
        ("hf://buckets/a/scores.csv", "scores are not written there"),
    ],
)
def test_addresses_of_tables(store, url, words):
    assert check_table_path("flaky://b/scores.csv") == "flaky://b/scores.csv"
    with pytest.raises(ValueError, match=words):
        check_table_path(url)


def test_paths_of_pages(tmp_path):
    with pytest.raises(ValueError, match="photo.jpg: a report is HTML. Give it a name that ends in .html."):
        check_page_path("photo.jpg")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ValueError, match="folder.html is a folder. Give the file another name."):
        check_page_path(tmp_path / "folder.html")
    with pytest.raises(ValueError, match="missing: no such folder. Make it first"):
        check_page_path(tmp_path / "missing" / "report.html")
    assert check_page_path("REPORT.HTML").name == "REPORT.HTML"


def test_paths_of_reports(tmp_path):
    with pytest.raises(ValueError, match="a .json file .* got .*report.txt. Change the end of the name"):
        check_report_path(tmp_path / "report.txt")
    for name in ("report.json", "other.md"):
        (tmp_path / name).mkdir()
        with pytest.raises(ValueError, match=f"{name} is a folder. Give the file another name"):
            check_report_path((tmp_path / name).with_suffix(".json"))


def test_paths_of_new_files(tmp_path):
    path = tmp_path / "mos.csv"
    assert check_new_file(path, (".csv",), overwrite=False) == path
    path.write_text("kept")
    assert check_new_file(path, (".csv",), overwrite=True) == path
    with pytest.raises(ValueError, match="mos.csv exists already. Add --overwrite to replace it"):
        check_new_file(path, (".csv",), overwrite=False)
    with pytest.raises(ValueError, match="mos.csv: a .png or .jpg file is written. Change the end of the name"):
        check_new_file(path, (".png", ".jpg"), overwrite=True)
    with pytest.raises(ValueError, match="s3://bucket/mos.csv: this file is not written there"):
        check_new_file("s3://bucket/mos.csv", (".csv",), overwrite=True)
    with pytest.raises(ValueError, match="is no folder, so no file can be written in it"):
        check_new_file(path / "mos.csv", (".csv",), overwrite=True)


def test_folders_of_plans(tmp_path):
    check_plan_folder(tmp_path / "new", overwrite=False)
    (tmp_path / "sheets").mkdir()
    check_plan_folder(tmp_path, overwrite=False)
    (tmp_path / "sheets" / "panel1_session1.csv").write_text("votes")
    with pytest.raises(ValueError, match="sheets holds sheets, perhaps with votes. Choose another folder"):
        check_plan_folder(tmp_path, overwrite=False)
    check_plan_folder(tmp_path, overwrite=True)
    (tmp_path / "plan.csv").write_text("plan")
    with pytest.raises(ValueError, match="plan.csv exists already. Add --overwrite"):
        check_plan_folder(tmp_path, overwrite=False)
