# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest
from PIL import Image
from scored import KONIQ, draw, paq2piq_table, write


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "photos").mkdir()
    for index in range(4):
        Image.new("RGB", (20 + index, 30), (60 * index, 0, 0)).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path


@pytest.fixture
def cache(tmp_path, monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def koniq(tmp_path) -> Path:
    draw(tmp_path / "1024x768", [f"{index}.jpg" for index in range(4)])
    write(tmp_path / "koniq10k_distributions_sets.csv", KONIQ)
    return tmp_path


@pytest.fixture
def paq2piq(tmp_path) -> Path:
    names = [f"voc/{index}.png" for index in range(7)]
    draw(tmp_path / "database", names)
    scores = "".join(f"{name},{70 + index}\n" for index, name in enumerate(names))
    write(tmp_path / "labels_image.csv", "name,mos\n" + scores)
    write(tmp_path / "labels640.csv", paq2piq_table(names[5:]))
    padded = paq2piq_table(names[:5], shift=(300, 20), is_valid=names[:2])
    write(tmp_path / "labels=640_padded.csv", padded)
    return tmp_path
