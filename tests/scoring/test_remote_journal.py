# SPDX-License-Identifier: Apache-2.0
"""Tables in remote stores: journals in parts that survive a kill, an outage and another run."""

import csv
import io
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.cli import main
from musiq_hf.common.stores import StoreError
from musiq_hf.scoring import JobResult, ScoreJob, Share, remote_journal, run_job
from musiq_hf.scoring.remote_journal import RemoteJournal, write_remote_output
from musiq_hf.scoring.rows import ScoreRow

SETTINGS = {
    "models": ["musiq-test"],
    "signatures": ["sig|1"],
    "std": True,
    "weights": None,
    "percentile": False,
    "paths": ("photos",),
}
ROWS = [ScoreRow(f"photos/{number}.png", 30, 20, number / 3, 0.5, 1.5) for number in range(7)]
URL = "flaky://out/scores.csv"


def go_on(settings=SETTINGS, rows=ROWS, number=None, **options):
    """Continue or start a run up to a number of rows, and make the output if that is all of them."""
    by_key = {row.key: row for row in rows}
    with closing(RemoteJournal(f"{URL}.part", settings, **options)) as journal:
        begun = journal.pictures
        if not journal.is_finished:
            sources = ((row.key, None) for row in rows)
            journal.check_done(sources)
            for key, _ in sources:
                if journal.pictures == number:
                    return begun
                journal.append((by_key[key],))
            journal.finish()
    write_remote_output(URL)
    return begun


def kill(monkeypatch):
    """Let a journal be closed as by the end of its process, which writes nothing more."""
    monkeypatch.setattr(RemoteJournal, "close", lambda journal: journal._file.close())


def parts(store):
    return sorted(path.rpartition("/")[2] for path in store.store if ".part/" in path)


@pytest.fixture
def whole(store, monkeypatch):
    """Bytes of the table of a run that nothing disturbs; parts hold two rows."""
    monkeypatch.setattr(remote_journal, "ROWS_OF_PART", 2)
    assert go_on() == 0
    content = store.store.pop("/out/scores.csv").getvalue()
    assert not store.store and store.find("/out", withdirs=True) == ["/out"]  # neither parts nor their folder
    store.requests.clear()
    return content


def test_a_killed_run_goes_on_after_its_last_part(store, whole, monkeypatch):
    with monkeypatch.context() as patches:
        kill(patches)
        assert go_on(number=5) == 0
    assert parts(store) == ["00000000.jsonl", "00000001.jsonl", "00000002.jsonl"]
    assert go_on() == 4 and store.store["/out/scores.csv"].getvalue() == whole and not parts(store)


def test_a_run_that_is_interrupted_loses_nothing(store, whole):
    assert go_on(number=5) == 0 and go_on(number=6) == 5 and go_on() == 6
    assert store.store["/out/scores.csv"].getvalue() == whole


def test_rows_go_out_in_time(store, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(remote_journal, "monotonic", lambda: now[0])
    with closing(RemoteJournal(f"{URL}.part", SETTINGS)) as journal:
        for seconds, number in ((59, 1), (60, 2), (119, 2), (120, 3)):
            now[0] = seconds
            journal.append((ROWS[0],))
            assert len(parts(store)) == number


def test_an_outage_at_any_request_is_waited_for_or_ends_the_run(store, whole, monkeypatch):
    go_on()
    count = len(store.requests) - 1  # the last one asks whether the folder is empty, and does not matter
    assert count > 15
    for number in range(count):
        for errors in (2, 3):
            store.store.clear()
            store.failures[:] = [None] * number + [OSError("gone")] * errors
            if errors == 2:
                go_on()
            else:
                with pytest.raises(StoreError, match="tried 3 times .*The same command continues"):
                    go_on()
                store.failures.clear()
                go_on()
            assert store.store["/out/scores.csv"].getvalue() == whole and not parts(store)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("harm", ["removed", "damaged", "cut", "of another run"])
def test_parts_after_a_harmed_one_are_scored_again(store, whole, monkeypatch, number, harm):
    monkeypatch.setattr(remote_journal, "ROWS_OF_PART", 1)
    go_on(number=5)
    path = f"/out/scores.csv.part/0000000{number}.jsonl"
    content = store.cat_file(path)
    store.rm_file(path)
    if harm == "damaged":
        store.pipe_file(path, content[:-3] + b"\0\0\n")
    if harm == "cut":
        store.pipe_file(path, content[:-3])
    if harm == "of another run":
        store.pipe_file(path, content.replace(b'"after": "', b'"after": "0'))
    assert go_on() == number - 1
    assert store.store["/out/scores.csv"].getvalue() == whole and not parts(store)


def test_two_runs_at_once_are_noticed(store, whole):
    first = RemoteJournal(f"{URL}.part", SETTINGS)
    second = RemoteJournal(f"{URL}.part", SETTINGS)
    for row in ROWS[:2]:
        first.append((row,))
    second.append((ROWS[0],))
    with pytest.raises(ValueError, match="flaky://out/scores.csv.part: another run is writing it. Wait for it"):
        second.append((ROWS[1],))
    second.close()
    for row in ROWS[2:]:
        first.append((row,))
    first.finish()
    first.close()
    assert write_remote_output(URL) == (7, 0) and store.store["/out/scores.csv"].getvalue() == whole


def test_an_answer_that_was_lost_is_no_other_run(store, whole, monkeypatch):
    def write_and_fail(*words):
        write(*words)
        if not store.waits:
            raise OSError("the answer was lost")

    write = remote_journal._write_new
    monkeypatch.setattr(remote_journal, "_write_new", write_and_fail)
    assert go_on() == 0 and store.waits == [5]
    assert store.store["/out/scores.csv"].getvalue() == whole


def test_a_journal_has_its_settings_and_pictures(store, whole, caplog):
    go_on(number=3)
    other = SETTINGS | {"signatures": ["sig|2"]}
    with pytest.raises(ValueError, match=r"flaky://out/scores.csv.part is of an unfinished run with other settings"):
        go_on(other)
    with pytest.raises(ValueError, match="flaky://out/scores.csv.part: the pictures have changed since the"):
        go_on(rows=ROWS[1:])
    assert go_on(number=4) == 3
    assert go_on(other, number=1, renew=True) == 0  # what `--overwrite` does
    assert go_on(SETTINGS, number=0, renew=True) == 0 and not parts(store)  # a journal without rows is not kept
    assert go_on(other) == 0 and b"sig|2" in store.store["/out/scores.csv"].getvalue()


def test_a_store_that_may_not_be_written_is_said_before_any_row(store):
    store.of_paths["/out/scores.csv.part/00000000.jsonl"] = PermissionError("AccessDenied")
    with pytest.raises(ValueError, match="scores.csv.part: may not be read or written. Check the permissions"):
        go_on()
    store.of_paths["/out/scores.csv.part/00000000.jsonl"] = FileNotFoundError("NoSuchBucket")
    with pytest.raises(ValueError, match="the bucket or folder does not exist. Make it first"):
        go_on()


@pytest.fixture
def photos(tmp_path, monkeypatch, alone, tiny_model, store):
    """Six pictures here and in the store, the third of them broken, and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    model = tiny_model(score_range=(-10, 10))
    model.save_pretrained("a")
    MusiqImageProcessor.from_config(model.config).save_pretrained("a")
    Path("photos").mkdir()
    for number in range(6):
        pixels = np.random.default_rng(number).integers(0, 256, (20 + 7 * number, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{number}.png")
    Path("photos/2.png").write_bytes(b"no picture")
    for path in Path("photos").iterdir():
        store.pipe_file(f"/{path}", path.read_bytes())
    return store


def make_job(output, **settings):
    return ScoreJob(["flaky://photos"], output=output, models=["a"], device="cpu", **settings)


def interrupt_at(number):
    def on_progress(totals):
        if totals.pictures == number:
            raise KeyboardInterrupt

    return on_progress


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_a_job_in_a_store_gives_the_table_of_one_here(photos, suffix):
    local, job = make_job(f"local.{suffix}"), make_job(f"flaky://out/scores.{suffix}")
    assert run_job(local) == JobResult("written", 6, 1)
    with pytest.raises(KeyboardInterrupt):
        run_job(job, on_progress=interrupt_at(3))
    assert not photos.isfile(f"/out/scores.{suffix}") and job.journal == f"flaky://out/scores.{suffix}.part"
    seen = []
    assert run_job(job, on_progress=seen.append) == ("written", 6, 1)
    assert [totals.pictures for totals in seen] == [3, 4, 5, 6]
    assert photos.cat_file(f"/out/scores.{suffix}") == Path(f"local.{suffix}").read_bytes()
    assert run_job(job) == ("found", 6, 1) and not parts(photos)
    with pytest.raises(ValueError, match=r"flaky://out/scores\.\w+ exists already, with other settings"):
        run_job(make_job(job.output, shorter_side=16))
    assert run_job(make_job(job.output, shorter_side=16, overwrite=True)).state == "written"


def test_keys_of_a_store_differ_alone(photos):
    run_job(make_job("remote.csv"))
    run_job(ScoreJob(["photos"], output="local.csv", models=["a"], device="cpu"))
    assert Path("remote.csv").read_text().replace("flaky://", "") == Path("local.csv").read_text()


def test_an_outage_makes_no_rows_with_errors(photos, capsys):
    words = ["score", "flaky://photos", "-o", "flaky://out/scores.csv", "-m", "a", "--device", "cpu"]
    photos.of_paths["/photos/4.png"] = OSError("gone")
    assert main(words) == 2
    message = capsys.readouterr().err
    assert "flaky://photos/4.png: the store gives no answer (OSError: gone). Trying again in 5 seconds.\n" in message
    assert message.endswith(
        "musiq score: flaky://photos/4.png: the store gives no answer, tried 3 times (OSError: gone). The same "
        "command continues.\n"
    )
    photos.of_paths.clear()
    assert main(words) == 1
    message = capsys.readouterr().err
    assert "flaky://out/scores.csv.part: continuing after 4 pictures.\n" in message
    assert "flaky://out/scores.csv: 6 pictures, 1 of them with an error" in message
    rows = list(csv.DictReader(io.StringIO(photos.cat_file("/out/scores.csv").decode())))
    assert [bool(row["error"]) for row in rows] == [False, False, True, False, False, False]


def test_shards_have_tables_of_their_own(photos):
    for index in (1, 2):
        job = make_job("flaky://out/scores.csv", share=Share(index, 2))
        assert job.table == f"flaky://out/scores.{index}-of-2.csv" and run_job(job).pictures == 3
    with pytest.raises(ValueError, match="flaky://out/scores.csv cannot be used by the 2 processes of one launch"):
        make_job("flaky://out/scores.csv", share=Share(1, 2, is_launched=True))


def test_a_folder_in_the_place_of_the_table_is_one_sentence(photos):
    photos.pipe_file("/out/scores.csv/x.png", b"")
    with pytest.raises(ValueError, match="flaky://out/scores.csv is a folder. Give the table another name"):
        run_job(make_job("flaky://out/scores.csv"))
