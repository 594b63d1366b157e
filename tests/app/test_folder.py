# SPDX-License-Identifier: Apache-2.0
"""The folder of uploads: nothing here needs gradio."""

import os
import time
from pathlib import Path

from musiq_hf.app import folder
from musiq_hf.app.folder import delete_old, open_folder


def test_old_files_and_empty_folders_go(tmp_path):
    now = time.time()
    for name, age in (("broken", 400), ("new", 200), ("a/old.jpg", 100), ("b/new.jpg", 10)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
        os.utime(tmp_path / name, (now - age, now - age))
    (tmp_path / "empty").mkdir()
    for name in ("empty", "b"):
        os.utime(tmp_path / name, (now - 100, now - 100))
    delete_old(str(tmp_path), 50)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert left == {"new", "a", "b", "b/new.jpg"}  # the folder a has just changed


def test_the_folder_is_kept_clean_and_goes(monkeypatch, tmp_path):
    monkeypatch.setattr(folder, "CLEANING_SECONDS", 0.01)
    monkeypatch.setattr(folder, "UPLOAD_SECONDS", -1)
    monkeypatch.setenv("GRADIO_TEMP_DIR", "mine")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with open_folder() as place:
        assert os.environ["GRADIO_TEMP_DIR"] == place and Path(place).stat().st_mode & 0o077 == 0
        broken = Path(place) / "broken"
        broken.write_bytes(b"x")
        end = time.monotonic() + 30
        while broken.exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert not broken.exists()
    assert os.environ["GRADIO_TEMP_DIR"] == "mine" and list(tmp_path.iterdir()) == []
