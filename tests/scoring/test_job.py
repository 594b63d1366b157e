# SPDX-License-Identifier: Apache-2.0
"""Jobs from Python: tables that continue after an interruption, shards, streams, and the sentences of mistakes."""

import csv
import dataclasses
import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musiq_hf import DEFAULT_CHECKPOINT, MusiqImageProcessor
from musiq_hf.pictures import Columns
from musiq_hf.scoring import JobResult, ScoreJob, Share, count_pictures, run_job, score_rows

NUM_PICTURES = 6


@pytest.fixture
def photos(tmp_path, monkeypatch, alone, tiny_model):
    """Six pictures, of which the third is broken, and checkpoints a and b, in the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, options in (("a", {"score_range": (-10, 10)}), ("b", {"score_range": (30, 50), "seed": 1})):
        model = tiny_model(**options)
        model.save_pretrained(name)
        MusiqImageProcessor.from_config(model.config).save_pretrained(name)
    Path("photos").mkdir()
    for i in range(NUM_PICTURES):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + 7 * i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{i}.png")
    Path("photos/2.png").write_bytes(b"no picture")
    return tmp_path


def make_job(output=None, **settings):
    return ScoreJob(["photos"], **{"output": output, "models": ["a"], "device": "cpu"} | settings)


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def interrupt_at(number):
    """Progress that Ctrl-C ends as soon as a number of pictures is scored."""

    def on_progress(totals):
        if totals.pictures == number:
            raise KeyboardInterrupt

    return on_progress


@pytest.fixture
def use_threads(monkeypatch):
    """Say that so many threads compute."""
    return lambda number: monkeypatch.setattr("torch.get_num_threads", lambda: number)


@pytest.mark.parametrize("output", ["scores.csv", None])
def test_keys_of_several_rows_are_warned_of_once(photos, output, caplog):
    Path("t.csv").write_text("image,id\nphotos/0.png,x\nphotos/1.png,y\nphotos/3.png,y\nphotos/4.png,x\n")
    for key, number in (("id", 1), ("image", 0)):
        caplog.clear()
        job = ScoreJob(["t.csv"], output=output, columns=Columns(key=key), models=["a"], device="cpu", overwrite=True)
        assert (run_job(job).pictures if output else len(list(score_rows(job)))) == 4
        assert len(caplog.records) == number
        assert all("Several rows have the key 'y', so scores" in record.message for record in caplog.records)


def test_a_run_that_goes_on_with_other_threads_says_so(photos, use_threads, caplog):
    job = make_job("scores.csv")
    for threads, number in ((3, 0), (1, 2), (1, 3), (2, 4)):
        use_threads(threads)
        with pytest.raises(KeyboardInterrupt):
            run_job(job, on_progress=interrupt_at(number))
    (record,) = caplog.records
    assert "scores.csv.part was begun with 1 threads and goes on with 2: the last digits of scores" in record.message
    assert run_job(job).state == "written" and len(caplog.records) == 2
    use_threads(5)
    assert run_job(job).state == "found" and len(caplog.records) == 2


def test_a_journal_that_notes_no_threads_goes_on(photos, use_threads, caplog):
    job = make_job("scores.csv")
    with pytest.raises(KeyboardInterrupt):
        run_job(job, on_progress=interrupt_at(2))
    head, *rows = job.journal.read_text().splitlines(keepends=True)
    values = json.loads(head)
    del values["threads"]
    job.journal.write_text("".join([json.dumps(values) + "\n", *rows]))
    use_threads(5)
    assert run_job(job).state == "written" and not caplog.records


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_an_interrupted_job_gives_the_table_of_an_uninterrupted_one(photos, suffix):
    assert run_job(make_job(f"whole.{suffix}")) == JobResult("written", pictures=6, errors=1)
    job = make_job(f"scores.{suffix}")
    for number in (2, 4):
        with pytest.raises(KeyboardInterrupt):
            run_job(job, on_progress=interrupt_at(number))
        assert not job.table.exists() and job.journal.exists()
    seen = []
    assert run_job(job, on_progress=seen.append) == ("written", 6, 1)
    assert seen == [(4, 1), (5, 1), (6, 1)]  # what was scored is not scored again
    assert job.table.read_bytes() == Path(f"whole.{suffix}").read_bytes()
    assert not job.journal.exists()


def test_pictures_that_cannot_be_scored_are_rows(photos):
    Image.new("RGB", (1, 900)).save("photos/4.png")
    assert run_job(make_job("scores.csv")) == ("written", 6, 2)
    rows = read("scores.csv")
    assert [bool(row["error"]) for row in rows] == [False, False, True, False, True, False]
    assert "not a picture" in rows[2]["error"] and "too extreme" in rows[4]["error"]


def test_shards_part_the_table(photos):
    run_job(make_job("scores.csv"))
    rows = read("scores.csv")
    for index in (1, 2, 3, 4):
        job = make_job("scores.csv", share=Share(index, 4))
        assert job.table.name == f"scores.{index}-of-4.csv"
        result = run_job(job)
        assert read(job.table) == rows[index - 1 :: 4]
        assert result.pictures == count_pictures(job) == len(rows[index - 1 :: 4])


def test_processes_of_a_launch_write_one_table(photos, monkeypatch):
    run_job(make_job("one.csv"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    results = []
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        results.append(run_job(make_job("scores.csv")))
    assert results == [("waiting", None, None), ("written", 6, 1)]
    assert Path("scores.csv").read_bytes() == Path("one.csv").read_bytes()
    assert run_job(make_job("scores.csv")).state == "found"
    assert sorted(os.listdir()) == ["a", "b", "one.csv", "photos", "scores.csv"]


def test_the_stream_has_the_rows_of_the_table(photos):
    settings = {"models": ["a", "b"], "weights": (3, 1)}
    run_job(make_job("scores.csv", **settings))
    with closing(score_rows(make_job(**settings))) as stream:
        entries = list(stream)
    assert stream.models == ["a", "b"] and [text.partition("|")[0] for text in stream.signatures] == ["a", "b"]
    for entry, rows in zip(entries, zip(*[iter(read("scores.csv"))] * 2, strict=True), strict=True):
        for row, known, signature in zip(entry, rows, stream.signatures, strict=True):
            values = {name: "" if value is None else str(value) for name, value in row._asdict().items()}
            assert values.pop("percentile") == values.pop("stars") == values.pop("std") == ""
            assert known == values | {"model": known["model"], "signature": signature}


def test_a_stream_can_be_left(photos):
    stream = score_rows(make_job())
    (row,) = next(iter(stream))
    stream.close()
    assert row.key == "photos/0.png" and list(stream) == []


def test_a_table_of_pictures_is_read_by_its_columns(photos):
    Path("t.csv").write_text("mine,id\nphotos/1.png,x\nphotos/3.png,y\n")
    job = dataclasses.replace(make_job(columns=Columns("mine", "id")), paths=["t.csv"])
    assert [row.key for (row,) in score_rows(job)] == ["x", "y"]


def test_an_output_that_exists_is_only_replaced_on_request(photos):
    for suffix in ("csv", "jsonl", "parquet"):
        for text in ("another file", "key,score\na,1\n", '{"key": "a"}\n', ""):
            Path(f"scores.{suffix}").write_text(text)
            with pytest.raises(ValueError, match=f"scores.{suffix} exists already, and is no whole table"):
                run_job(make_job(f"scores.{suffix}"))
    assert run_job(make_job("scores.csv", overwrite=True)).pictures == NUM_PICTURES


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_finished_job_has_nothing_to_do(photos, suffix, monkeypatch):
    settings = {"models": ["a", "b"], "weights": (3, 1)}
    output = f"scores.{suffix}"
    assert run_job(make_job(output, **settings)) == ("written", NUM_PICTURES, 1)
    before = Path(output).read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("musiq_hf.scoring.rows.Scorers.score", lambda *_: pytest.fail("it scores"))
        assert run_job(make_job(output, **settings)) == ("found", NUM_PICTURES, 1)
        for changes, difference in (
            ({"weights": (1, 1)}, r"other settings, --weights \(ensemble of photos/0.png: "),
            ({"weights": None}, r"other settings \(it has the column ensemble\)"),
            ({"models": ["b", "a"]}, r"other settings \(model: a, now b\)"),
            ({"shorter_side": 10}, r"other settings \(signature: preprocessing:\w+, now preprocessing:\w+\) \(pre"),
            ({"dtype": "bfloat16"}, r"other settings \(signature: weights:.*; dtype:float32, now dtype:bfloat16"),
            ({"preset": "google"}, "other settings .signature: preset:default, now preset:google"),
        ):
            with pytest.raises(ValueError, match=f"{output} exists already, with {difference}.*Add --overwrite"):
                run_job(make_job(output, **{**settings, **changes}))
        os.rename("photos/5.png", "photos/9.png")
        with pytest.raises(ValueError, match="other pictures .photos/5.png is there, photos/9.png is to be scored"):
            run_job(make_job(output, **settings))
        os.rename("photos/9.png", "photos/5.png")
        shutil.copy("photos/5.png", "photos/9.png")
        with pytest.raises(ValueError, match="other pictures .nothing is there for photos/9.png"):
            run_job(make_job(output, **settings))
        os.remove("photos/9.png")
        os.rename("photos/5.png", "5.png")
        with pytest.raises(ValueError, match="other pictures .photos/5.png is there, nothing is to be scored"):
            run_job(make_job(output, **settings))
    assert Path(output).read_bytes() == before and not list(Path().glob("*.part"))


def test_a_table_that_was_cut_off_is_not_finished(photos):
    run_job(make_job("scores.csv"))
    text = Path("scores.csv").read_text()
    Path("scores.csv").write_text(text[:-40])
    with pytest.raises(ValueError, match="is no whole table of `musiq score`. Add --overwrite"):
        run_job(make_job("scores.csv"))


def test_a_finished_shard_has_nothing_to_do(photos):
    assert run_job(make_job("scores.csv", share=Share(2, 4))).state == "written"
    assert run_job(make_job("scores.csv", share=Share(2, 4))) == ("found", 2, 0)


def test_overwrite_clears_what_a_run_with_other_settings_or_pictures_has_left(photos):
    run_job(make_job("other.csv", shorter_side=10))
    for changes in ({"shorter_side": 10}, {"share": Share(), "models": ["b"]}):
        with pytest.raises(KeyboardInterrupt):
            run_job(make_job("scores.csv"), on_progress=interrupt_at(2))
        result = run_job(make_job("scores.csv", overwrite=True, **changes))
        assert result == ("written", NUM_PICTURES, 1) and not list(Path().glob("*.part"))
        os.remove("scores.csv")
    with pytest.raises(KeyboardInterrupt):
        run_job(make_job("scores.csv"), on_progress=interrupt_at(2))
    os.rename("photos/0.png", "photos/00.png")
    Path("scores.csv.1-of-2.part").write_bytes(Path("scores.csv.part").read_bytes())
    with pytest.raises(ValueError, match="with another number of processes"):
        run_job(make_job("scores.csv"))
    seen = []
    job = make_job("scores.csv", overwrite=True, shorter_side=10)
    assert run_job(job, on_progress=lambda totals: seen.append(totals.pictures)).pictures == NUM_PICTURES
    assert seen[0] == 0 and not list(Path().glob("*.part"))
    assert [row["key"] for row in read("scores.csv")][0] == "photos/00.png"
    assert read("scores.csv")[1:] == read("other.csv")[1:]


def test_an_interrupted_overwrite_is_continued(photos):
    Path("scores.csv").write_text("another file")
    job, seen = make_job("scores.csv", overwrite=True), []
    with pytest.raises(KeyboardInterrupt):
        run_job(job, on_progress=interrupt_at(2))
    run_job(job, on_progress=lambda totals: seen.append(totals.pictures))
    assert seen[0] == 2


def test_a_journal_that_is_deleted_during_the_run_costs_nothing(photos):
    run_job(make_job("whole.csv"))
    job = make_job("scores.csv")

    def on_progress(totals):
        if totals.pictures == 3:
            job.journal.unlink()

    assert run_job(job, on_progress=on_progress) == ("written", NUM_PICTURES, 1)
    assert Path("scores.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert not job.journal.exists()


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_cannot_be_made_is_refused_before_anything_is_scored(photos, overwrite, monkeypatch):
    Path("folder.csv").mkdir()
    monkeypatch.setattr("musiq_hf.scoring.rows.Scorers", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(ValueError, match="folder.csv is a folder. Give the file another name"):
        run_job(make_job("folder.csv", overwrite=overwrite))
    with pytest.raises(ValueError, match="1-of-2.csv: the name is longer than 255 bytes"):
        run_job(make_job("s" * 250 + ".csv", overwrite=overwrite, share=Share(1, 2)))


def test_a_job_with_other_settings_does_not_continue_one(photos):
    with pytest.raises(KeyboardInterrupt):
        run_job(make_job("scores.csv"), on_progress=interrupt_at(2))
    with pytest.raises(ValueError, match=r"unfinished run with other settings \(shorter_side: None, now 10\)"):
        run_job(make_job("scores.csv", shorter_side=10))
    assert run_job(make_job("scores.csv")).pictures == NUM_PICTURES


def test_a_job_with_another_limit_continues_one_and_keeps_its_errors(photos):
    with pytest.raises(KeyboardInterrupt):
        run_job(make_job("scores.csv", max_megapixels=0.0007), on_progress=interrupt_at(2))
    assert run_job(make_job("scores.csv", max_megapixels=0.0013)) == ("written", NUM_PICTURES, 4)
    rows = read("scores.csv")
    assert [bool(row["error"]) for row in rows] == [False, True, True, False, True, True]
    assert "the limit is 0.0007" in rows[1]["error"] and "the limit is 0.0013" in rows[4]["error"]
    assert run_job(make_job("scores.csv", max_megapixels=1, overwrite=True)) == ("written", NUM_PICTURES, 1)


def test_defaults_are_the_embedded_checkpoint_and_all_pictures(photos):
    job = ScoreJob([Path("photos")])
    assert job.paths == ("photos",) and job.models == (str(DEFAULT_CHECKPOINT),) and job.share == Share()
    assert job.table is None and job.journals == [] and job.journal is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"paths": "photos"}, "`paths` must be a list of at least one name, got 'photos'"),
        ({"paths": []}, r"`paths` must be a list of at least one name, got \[\]"),
        ({"models": "a"}, "`models` must be a list of at least one name, got 'a'"),
        ({"models": ["a", "b", "a"]}, "-m a is given 2 times. Give each checkpoint once"),
        ({"output": "scores.xlsx"}, "scores.xlsx: tables are written as .csv, .jsonl, .parquet files"),
        ({"weights": (1,)}, "--weights needs several checkpoints"),
        ({"models": ["a", "b"], "weights": (1, 2, 3)}, "a weight for each, got 2 and 3"),
        ({"models": ["a", "b"], "weights": (0, 0)}, r"`weights` must be numbers from 0 on, not all 0, got \[0, 0\]"),
        ({"models": ["a", "b"], "weights": (1, -2)}, "`weights` must be numbers from 0 on"),
        ({"models": ["a", "b"], "weights": (1, float("inf"))}, "`weights` must be numbers from 0 on"),
        ({"preset": "published"}, "preset"),
        ({"dtype": "float16"}, "`dtype` must be 'float32' or 'bfloat16', got 'float16'"),
        ({"shorter_side": 0}, "`shorter_side` must be at least 1, got 0"),
        ({"max_tokens": -1}, "`max_tokens` must be at least 1, got -1"),
        ({"num_workers": 0}, "`num_workers` must be at least 1, got 0"),
        ({"share": Share(1, 2, is_launched=True)}, "Several processes need an output"),
        ({"share": Share(1, 2, is_launched=True), "output": "s.csv", "overwrite": True}, "--overwrite cannot be used"),
    ],
)
def test_a_wrong_setting_is_one_sentence(monkeypatch, settings, message):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(ValueError, match=message):
        ScoreJob(**{"paths": ["photos"]} | settings)


def test_a_shard_has_no_place_in_a_launch(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ValueError, match="--shard cannot be used by the 3 processes of one launch"):
        ScoreJob(["photos"], output="scores.csv", share=Share(1, 2))


@pytest.mark.parametrize(("index", "count"), [(0, 3), (4, 3), (1, 0)])
def test_a_share_is_one_of_its_number(index, count):
    with pytest.raises(ValueError, match=f"from 1 to {count}, got {index}"):
        Share(index, count)


def test_each_way_has_its_kind_of_job(photos):
    with pytest.raises(ValueError, match="the job has no `output`. Give one, or use `score_rows`"):
        run_job(make_job())
    with pytest.raises(ValueError, match=r"the job has the output scores\.csv. Use `run_job`"):
        score_rows(make_job("scores.csv"))
    for use in (lambda job: run_job(dataclasses.replace(job, output="s.csv")), score_rows):
        with pytest.raises(ValueError, match="missing: no such file or folder"):
            use(dataclasses.replace(make_job(), paths=["missing"]))
    assert sorted(os.listdir()) == ["a", "b", "photos"]
