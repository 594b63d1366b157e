# SPDX-License-Identifier: Apache-2.0
"""Snippets of docs/pipelines.md for Ray Data and Spark, as printed; `make test-ray` installs what they need."""

import re
import shutil
import sys

import pyarrow.parquet
import pytest
from places import ROOT

from musiq_hf.scoring import ScoreJob, score_rows

pytestmark = pytest.mark.slow
SNIPPET = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COLUMNS = ("score", "score_0_1", "width", "height")


@pytest.fixture
def pictures(tmp_path, monkeypatch, alone):
    """The sample pictures where a clone has them, and a broken one; the rows of the command by the names of files."""
    folder = tmp_path / "examples" / "pictures"
    shutil.copytree(ROOT / "examples" / "pictures", folder)
    (folder / "broken.jpg").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    stream = score_rows(ScoreJob([str(folder)], models=["musiq-tiny-biq2021"], device="cpu"))
    return {row.key.rpartition("/")[2]: row for (row,) in stream}


def run_snippet(word, scores):
    """Run the snippet that has a word, and return the rows that it wrote by the names of files."""
    (snippet,) = (text for text in SNIPPET.findall((ROOT / "docs" / "pipelines.md").read_text()) if word in text)
    namespace = {"__name__": "snippet"}
    exec(compile(snippet, "pipelines.md", "exec"), namespace)
    rows = pyarrow.parquet.read_table(scores).to_pylist()
    found = {row["path"].rpartition("/")[2]: row for row in rows}
    assert len(found) == len(rows)
    return found


def check(found, expected):
    assert found.keys() == expected.keys()
    for name, row in expected.items():
        assert [found[name][column] for column in COLUMNS] == [getattr(row, column) for column in COLUMNS]
        assert (found[name]["error"] is None) == (row.error is None)
    assert sum(row["error"] is not None for row in found.values()) == 1


def test_ray_data_gives_the_scores_of_the_command(pictures):
    ray = pytest.importorskip("ray")
    pytest.importorskip("ray.data")
    ray.init("local", num_cpus=3, include_dashboard=False)
    try:
        check(run_snippet("import ray", "scores"), pictures)
    finally:
        ray.shutdown()


def test_spark_gives_the_scores_of_the_command(pictures, monkeypatch):
    sql = pytest.importorskip("pyspark.sql")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java.")
    monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    session = sql.SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
    try:
        check(run_snippet("pyspark", "spark_scores"), pictures)
    finally:
        session.stop()
