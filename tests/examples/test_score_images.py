# SPDX-License-Identifier: Apache-2.0
import pytest
from PIL import Image

from examples import score_images as script
from musiq_hf import TINY_CHECKPOINT


def run(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["score_images.py", *map(str, arguments), "--model", str(TINY_CHECKPOINT)])
    return script.main()


def test_folders_are_searched_as_by_the_command(tmp_path, monkeypatch, capsys):
    (tmp_path / "photos" / "below").mkdir(parents=True)
    for name in ("b.png", "below/a.png", ".hidden.png"):
        Image.linear_gradient("L").resize((40, 30)).save(tmp_path / "photos" / name)
    assert run(monkeypatch, tmp_path / "photos", tmp_path / "photos" / "b.png", "--shorter_side", "20") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["file", "size", "score"]
    assert [row.split()[0].rsplit("photos/")[1] for row in rows] == ["b.png", "below/a.png", "b.png"]
    assert all("27x20" in row for row in rows)
    assert run(monkeypatch, tmp_path / "absent.png") == 1
    assert "absent.png: no such file" in capsys.readouterr().err


def test_a_folder_without_pictures_is_a_mistake(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, tmp_path)
    assert "holds no picture. Give a folder of" in capsys.readouterr().err
