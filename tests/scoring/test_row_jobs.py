# SPDX-License-Identifier: Apache-2.0
"""Jobs of rows: what is written, continued, found and refused. They add numbers in place of measuring pictures."""

import json
from typing import NamedTuple

import pyarrow.parquet
import pytest

from musiq_hf.scoring.tables.forms import TableForm
from musiq_hf.scoring.tables.row_jobs import RowJob, measure_rows, read_rows, run_rows


class SumRow(NamedTuple):
    key: str
    part: int
    total: float | None = None
    is_even: bool | None = None
    error: str | None = None


KINDS = {"key": str, "part": int, "total": float, "is_even": bool, "signature": str, "error": str}
SUMS = TableForm("musiq sum", SumRow, lambda settings: KINDS)
INPUTS = [("a", 1.0), ("b", float("inf")), ("b", float("inf")), ("é,\n", None), ("d", 4.0)]


def measure(inputs, taken=None):
    for key, value in inputs:
        if taken is not None:
            taken.append(key)
        if value is None:
            yield (SumRow(key, 0, error=f"{key!r} has no value."),)
        else:
            yield tuple(SumRow(key, part, value + part, (value + part) % 2 == 0) for part in range(2))


def make_job(output=None, *, inputs=INPUTS, signature="sum|1", taken=None, form=SUMS, overwrite=False):
    return RowJob(
        form,
        settings={"constants": {"signature": signature}},
        find=lambda: iter(inputs),
        count=lambda: len(inputs),
        measure=lambda found: measure(found, taken),
        output=output,
        overwrite=overwrite,
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_table_holds_what_was_measured_and_is_found_again(tmp_path, suffix):
    job = make_job(tmp_path / f"sums{suffix}")
    assert run_rows(job) == ("written", 5, 1) and [path.name for path in tmp_path.iterdir()] == [job.table.name]
    rows = [row._asdict() | {"signature": "sum|1"} for entry in measure_rows(make_job()) for row in entry]
    if suffix == ".jsonl":  # JSON has no infinite numbers
        for row in rows:
            row["total"] = None if row["total"] == float("inf") else row["total"]
        assert all("Infinity" not in line for line in job.table.read_text().splitlines())
    assert list(read_rows(job)) == rows and len(rows) == 9
    content, taken = job.table.read_bytes(), []
    assert run_rows(make_job(job.table, taken=taken)) == ("found", 5, 1)
    assert job.table.read_bytes() == content and not taken
    if suffix == ".parquet":
        schema = pyarrow.parquet.read_schema(job.table)
        assert [str(kind) for kind in schema.types] == ["string", "int32", "double", "bool", "string", "string"]


@pytest.mark.parametrize("num_done", range(6))
def test_a_stopped_run_continues_where_it_was(tmp_path, num_done):
    whole, output = make_job(tmp_path / "whole.csv"), tmp_path / "sums.csv"
    run_rows(whole)

    def stop(totals):
        if totals.pictures == num_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_rows(make_job(output), on_progress=stop)
    taken, seen = [], []
    assert run_rows(make_job(output, taken=taken), on_progress=seen.append) == ("written", 5, 1)
    assert taken == [key for key, _ in INPUTS[num_done:]]
    assert seen[0] == (num_done, num_done > 3) and seen[-1] == (5, 1)
    assert output.read_bytes() == whole.table.read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signature": "sum|2"}, "with other settings (signature: 1, now 2)"),
        ({"inputs": INPUTS[:-1]}, "with other inputs (d is there, nothing is to be measured)"),
        ({"inputs": [*INPUTS, ("e", 1.0)]}, "with other inputs (nothing is there for e)"),
        ({"inputs": [("c", 1.0), *INPUTS]}, "with other inputs (a is there, c is to be measured)"),
        (
            {"form": TableForm("musiq sum", SumRow, lambda settings: KINDS | {"more": str})},
            "with other columns (more)",
        ),
    ],
)
def test_a_table_of_another_job_stays(tmp_path, changes, message):
    job = make_job(tmp_path / "sums.csv")
    run_rows(job)
    content = job.table.read_bytes()
    with pytest.raises(ValueError, match="exists already") as caught:
        run_rows(make_job(job.table, **changes))
    assert message in str(caught.value) and job.table.read_bytes() == content
    changed = make_job(job.table, overwrite=True, **changes)
    assert run_rows(changed)[0] == "written" and job.table.read_bytes() != content


@pytest.mark.parametrize("content", ["", "key\na", "name,value\n1,2\n", '"torn\n', "key,part\n1\n"])
def test_a_file_that_is_no_such_table_stays(tmp_path, content):
    (tmp_path / "sums.csv").write_text(content)
    with pytest.raises(ValueError, match="exists already"):
        run_rows(make_job(tmp_path / "sums.csv"))
    assert (tmp_path / "sums.csv").read_text() == content


def test_a_journal_of_another_command_stays(tmp_path):
    job = make_job(tmp_path / "sums.csv")
    job.journal.write_text(json.dumps({"journal_of": "musiq score"}) + "\n")
    with pytest.raises(ValueError, match="not a file of an unfinished run"):
        run_rows(job)
    with pytest.raises(ValueError, match="has no `output`"):
        run_rows(make_job())
    with pytest.raises(ValueError, match="not written there"):
        run_rows(make_job("s3://bucket/sums.csv"))
