# SPDX-License-Identifier: Apache-2.0
"""Copies, links and moves: nothing is lost, overwritten or left behind, wherever the process is killed."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from hostile_names import list_names
from places import ROOT

from musiq_hf.decisions import plan_transfers, transfer_files, undo_moves

NAMES = ("a.jpg", "below/b.jpg", "below/deep/c.jpg")
STEPS = ("link", "unlink", "rename", "fsync", "makedirs", "rmdir")


class Killed(BaseException):
    """End of the process, at which no cleaning up takes place that `kill -9` would not allow."""


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Three photographs in a folder, and the same bytes beside it to compare with."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # hundreds of runs would wait for the disk
    for name in NAMES:
        os.makedirs(os.path.dirname(f"photos/{name}"), exist_ok=True)
        with open(f"photos/{name}", "wb") as file:
            file.write(name.encode() * 100)
    return tmp_path


def read_all(folder):
    """Return the content of each file by its path, hidden ones included."""
    paths = (os.path.join(top, name) for top, _, names in os.walk(folder) for name in names)
    return {os.path.relpath(path, folder): open(path, "rb").read() for path in sorted(paths)}


def transfer(way="copy", keys=NAMES, folder="out", **options):
    keys = [f"photos/{name}" for name in keys]
    journal = "out.journal" if way == "move" else None
    return transfer_files(plan_transfers(keys, folder, **options).transfers, folder, way, journal=journal)


def kill_at(patch, number, *, after):
    """Let the process end at one of the calls that change the disk, before or after it."""
    calls = iter(range(10_000))

    def wrap(function):
        def call(*arguments, **options):
            mine = next(calls)
            if mine == number and not after:
                raise Killed
            try:
                return function(*arguments, **options)
            finally:
                if mine == number:
                    raise Killed

        return call

    for name in STEPS:
        patch.setattr(os, name, wrap(getattr(os, name)))


@pytest.mark.parametrize("way", ["copy", "link", "symlink", "move"])
def test_the_structure_is_kept_and_a_second_call_finds_all_done(photos, way):
    before = read_all("photos")
    assert (transfer(way).done, transfer(way).found) == (3, 3)
    assert read_all("out") == before
    assert read_all("photos") == ({} if way == "move" else before)
    if way == "symlink":
        assert os.readlink("out/a.jpg") == "../photos/a.jpg"
    if way != "symlink":
        assert os.stat("out/a.jpg").st_nlink == (2 if way == "link" else 1)


@pytest.mark.parametrize("way", ["copy", "link", "symlink", "move"])
def test_another_file_is_never_overwritten(photos, way):
    os.makedirs("out")
    with open("out/a.jpg", "w") as file:
        file.write("mine")
    result = transfer(way)
    assert result.done == 2
    ((key, reason),) = result.failures
    assert key.endswith("photos/a.jpg") and "is not overwritten" in reason
    assert read_all("out")["a.jpg"] == b"mine" and os.path.exists("photos/a.jpg")


def test_a_move_leaves_two_files_of_one_content_as_they_are(photos):
    transfer("copy", ["a.jpg"])
    assert len(transfer("move", ["a.jpg"]).failures) == 1
    assert os.path.exists("photos/a.jpg") and os.path.exists("out/a.jpg")


@pytest.fixture(params=["one device", "other device", "no links"])
def device(request, monkeypatch):
    """The folder `out` lies on the same device, on another one, or nothing can be linked."""
    link, rename = os.link, os.rename

    def check(source, target):
        is_apart = ("/out/" in os.path.abspath(source)) != ("/out/" in os.path.abspath(target))
        if is_apart and request.param == "other device":
            raise OSError(errno.EXDEV, "refused")

    def link_near(source, target, **options):
        check(source, target)
        if request.param == "no links":
            raise OSError(errno.EPERM, "refused")
        return link(source, target, **options)

    def rename_near(source, target):
        check(source, target)
        return rename(source, target)

    monkeypatch.setattr(os, "link", link_near)
    monkeypatch.setattr(os, "rename", rename_near)


def run_killed(call, number, *, after, before):
    """Run a call that is killed at one step, and return whether it was; each content is still somewhere."""
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, number, after=after)
        try:
            call()
        except Killed:
            assert set(before.values()) <= set((read_all("photos") | read_all("out")).values())
            return True
    return False


@pytest.mark.parametrize("way", ["copy", "move"])
def test_killed_anywhere_the_same_call_continues_and_undo_too(photos, device, way):
    before = read_all("photos")
    number, was_killed = 0, True
    while was_killed:
        was_killed = run_killed(lambda: transfer(way), number // 2, after=bool(number % 2), before=before)
        result = transfer(way)
        assert not result.failures and result.done + result.found == 3
        assert read_all("out") == before
        if way == "move":
            run_killed(lambda: undo_moves("out.journal"), number // 2, after=not number % 2, before=before)
            assert not undo_moves("out.journal").failures
            assert read_all("photos") == before and not os.path.exists("out")
            os.remove("out.journal")
        else:
            shutil.rmtree("out")
        number += 1
    assert number > 20


def test_a_copy_is_whole_or_not_there(photos, monkeypatch):
    def fail(source, file, length):
        file.write(source.read(10))
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("shutil.copyfileobj", fail)
        with pytest.raises(Killed):
            transfer("copy")
    assert not os.path.exists("out/a.jpg")
    transfer("copy")
    assert read_all("out") == read_all("photos")


def test_a_full_disk_ends_the_run(photos, monkeypatch):
    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", fail)
    with pytest.raises(OSError, match="No space left"):
        transfer("copy")


def test_undo_overwrites_nothing_and_says_what_is_gone(photos):
    transfer("move")
    with open("photos/a.jpg", "w") as file:
        file.write("new")
    os.remove("out/below/b.jpg")
    result = undo_moves("out.journal")
    assert sorted(os.path.basename(failure.key) for failure in result.failures) == ["a.jpg", "b.jpg"]
    assert result.done == 1 and read_all("photos")["a.jpg"] == b"new"
    assert os.path.exists("out/a.jpg")


def test_undo_keeps_folders_that_hold_other_files(photos):
    transfer("move")
    with open("out/below/mine", "w"):
        pass
    assert not undo_moves("out.journal").failures
    assert read_all("out") == {"below/mine": b""} and not os.path.exists("out/below/deep")


def test_a_journal_of_another_folder_and_other_files_are_refused(photos):
    transfer("move")
    plan = plan_transfers(["photos/a.jpg"], "other")
    with pytest.raises(ValueError, match="is the journal of moves to"):
        transfer_files(plan.transfers, "other", "move", journal="out.journal")
    for content in ("mine", "mine\n", "{}\n", '{"from": "a", "to": "b"}\n', ""):
        with open("mine.txt", "w") as file:
            file.write(content)
        if content:
            with pytest.raises(ValueError, match="no journal"):
                undo_moves("mine.txt")
            with pytest.raises(ValueError, match="no journal"):
                transfer_files(plan.transfers, "other", "move", journal="mine.txt")
            assert open("mine.txt").read() == content
    with pytest.raises(ValueError, match="no such file"):
        undo_moves("none.txt")


def test_half_a_line_at_the_end_of_a_journal_is_forgotten(photos):
    transfer("move", ["a.jpg"])
    with open("out.journal", "a") as file:
        file.write('{"from": "/x')
    transfer("move", among=[f"photos/{name}" for name in NAMES])
    assert all(json.loads(line) for line in open("out.journal"))
    assert not undo_moves("out.journal").failures


def test_two_processes_do_not_work_in_one_folder(photos):
    import fcntl

    os.makedirs("out")
    descriptor = os.open("out", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match="Another command is at work"):
        transfer("copy")
    os.close(descriptor)
    assert transfer("copy").done == 3


def test_keys_that_are_no_files_below_the_root_fail_with_a_reason(photos):
    keys = ["s3://bucket/a.jpg", "photos/a.jpg", "../x.jpg", "photos/shard.tar::b.jpg", "photos/a.jpg"]
    plan = plan_transfers(keys, "out", root=".")
    assert [failure.key for failure in plan.failures] == ["s3://bucket/a.jpg", "../x.jpg"]
    result = transfer_files(plan.transfers, "out", "copy")
    assert result.done == 1 and [failure.reason for failure in result.failures] == ["no such file"]
    assert list(read_all("out")) == ["photos/a.jpg"]


def test_links_are_copied_as_files_and_not_moved(photos):
    os.symlink("a.jpg", "photos/link.jpg")
    assert len(transfer("move", ["link.jpg"]).failures) == 1
    assert transfer("copy", ["link.jpg"]).done == 1 and not os.path.islink("out/link.jpg")


def test_names_of_all_kinds_are_copied_moved_and_put_back(photos):
    for name in list_names():
        with open(f"photos/{name}", "wb") as file:
            file.write(os.fsencode(name))
    before = read_all("photos")
    shown = [name.encode("utf-8", "backslashreplace").decode() for name in list_names()]
    assert transfer("copy", shown).done == 50
    kept = {name: before[name] for name in list_names()}
    assert read_all("out") == kept
    shutil.rmtree("out")
    assert transfer("move", shown).done == 50 and read_all("out") == kept
    assert undo_moves("out.journal").done == 50 and read_all("photos") == before


@pytest.mark.slow
def test_ten_thousand_files_killed_three_times_come_back(tmp_path):
    (tmp_path / "photos").mkdir()
    for number in range(10_000):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(str(number).encode() * 20)
    before = read_all(tmp_path / "photos")
    script = """
import os
from musiq_hf.decisions import plan_transfers, transfer_files, undo_moves
keys = [f"photos/{number}.jpg" for number in range(10_000)]
plan = plan_transfers(keys, "out")
print("ready", flush=True)
CALL
"""
    move = 'transfer_files(plan.transfers, "out", "move", journal="out.journal")'

    def start(call):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        program = [sys.executable, "-c", script.replace("CALL", call)]
        process = subprocess.Popen(program, cwd=tmp_path, env=environment, stdout=subprocess.PIPE)
        process.stdout.readline()
        return process

    for call, folder in ((move, "out"), ('undo_moves("out.journal")', "photos")):
        for share in (2000, 5000, 8000):
            process = start(call)
            while process.poll() is None and not (
                (tmp_path / folder).exists() and len(os.listdir(tmp_path / folder)) >= share
            ):
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            assert process.wait() == -signal.SIGKILL, "it ended before it could be killed"
            assert set((read_all(tmp_path / "photos") | read_all(tmp_path / "out")).values()) == set(before.values())
        assert start(call).wait() == 0
        assert read_all(tmp_path / folder) == before
    assert not (tmp_path / "out").exists()
