# SPDX-License-Identifier: Apache-2.0
"""Pictures of Hugging Face data sets, saved on disk and streamed as from the Hub."""

import io
import shutil

import datasets
import fsspec
import numpy as np
import pytest
from PIL import Image

from musiq_hf.cli import main
from musiq_hf.pictures.sources import data_sets
from musiq_hf.pictures.sources.data_sets import HubPath
from musiq_hf.pictures.sources.paths import check_sources, count_sources, find_sources
from musiq_hf.pictures.sources.tables import Columns


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (12, 17, 3), dtype=np.uint8)


def cell(seed):
    file = io.BytesIO()
    Image.fromarray(pixels(seed)).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": f"{seed}.png"}


def make(seeds, **more):
    features = datasets.Features({"image": datasets.Image(), **{name: datasets.Image() for name in more}})
    columns = {"image": [cell(seed) for seed in seeds]}
    return datasets.Dataset.from_dict({**columns, **more}, features=features)


def found(*paths, column=None, key=None):
    """Key and seed of every picture; the error where there is none."""
    outcomes = {}
    for name, picture in find_sources(paths, columns=Columns(column, key)):
        try:
            array = np.array(picture.open())
            outcomes[name] = next(seed for seed in range(40) if np.array_equal(pixels(seed), array))
        except ValueError as error:
            outcomes[name] = str(error)
    return outcomes


@pytest.fixture
def hub(place, monkeypatch):
    """The Hub has one data set, photos/many, of two splits: folders of parquet files here."""
    for split, seeds in (("train", range(11)), ("test", range(20, 23))):
        (place / "hub" / "data").mkdir(parents=True, exist_ok=True)
        make(seeds).to_parquet(place / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    plain, asked = datasets.load_dataset, []

    def load(name, configuration, **options):
        asked.append((name, configuration, options))
        if name == "hf://datasets/photos/script":
            raise RuntimeError("Dataset scripts are no longer supported")
        if name != "hf://datasets/photos/many":
            raise datasets.exceptions.DatasetNotFoundError(f"{name} doesn't exist on the Hub")
        return plain(str(place / "hub"), streaming=options["streaming"])

    monkeypatch.setattr(datasets, "load_dataset", load)
    return asked


def test_a_saved_data_set_is_read_row_by_row(place):
    make(range(11)).save_to_disk("saved")
    assert found("saved") == {f"saved::{row}": row for row in range(11)}
    assert count_sources(["saved"]) == 11
    check_sources(["saved"])


def test_splits_are_folders_and_stand_beside_pictures(place):
    splits = {"train": make([3, 4]), "test": make([5])}
    datasets.DatasetDict(splits).save_to_disk("photos/saved")
    Image.fromarray(pixels(7)).save("photos/z.png")
    keys = {"photos/saved/test::0": 5, "photos/saved/train::0": 3, "photos/saved/train::1": 4, "photos/z.png": 7}
    assert found("photos") == keys and list(found("photos")) == list(keys)
    assert count_sources(["photos"]) == 4


def test_the_column_can_be_named_and_must_be_one_of_pictures(place):
    make([1, 2], other=[cell(8), cell(9)]).save_to_disk("saved")
    assert list(found("saved").values()) == [1, 2]
    assert list(found("saved", column="other").values()) == [8, 9]
    with pytest.raises(ValueError, match="saved: no column of pictures 'mos' .columns of pictures: image, other"):
        check_sources(["saved"], columns=Columns("mos"))
    (place / "deep").mkdir()
    datasets.DatasetDict({"a": make([1], other=[cell(8)])}).save_to_disk("deep/down")
    for path in ("deep", "deep/down"):
        check_sources([path], columns=Columns("other"))
        assert found(path, column="other") == {"deep/down/a::0": 8}
        with pytest.raises(ValueError, match="deep/down/a: no column of pictures 'mos'"):
            check_sources([path], columns=Columns("mos"))
    shutil.rmtree(place / "deep" / "down")
    with pytest.raises(ValueError, match="--column names a column"):
        check_sources(["deep"], columns=Columns("other"))


def test_an_ambiguous_column_is_a_mistake_not_damage(place):
    features = datasets.Features({"left": datasets.Image(), "right": datasets.Image()})
    splits = {"a": datasets.Dataset.from_dict({"left": [cell(1)], "right": [cell(2)]}, features=features)}
    datasets.DatasetDict(splits).save_to_disk("saved")
    with pytest.raises(ValueError, match="saved/a: One column of pictures .bytes. is needed"):
        check_sources(["saved"])
    with pytest.raises(ValueError, match="saved/a: One column of pictures .bytes. is needed"):
        list(find_sources(["saved"]))
    assert found("saved", column="left") == {"saved/a::0": 1}


def test_rows_without_a_picture_and_damaged_data_sets_are_errors(place):
    table = make([1, 2]).add_item({"image": None})
    table.save_to_disk("saved")
    assert found("saved") == {"saved::0": 1, "saved::1": 2, "saved::2": "saved::2: the row has no picture."}
    for file in (place / "saved").glob("*.arrow"):
        file.write_bytes(file.read_bytes()[:100])
    check_sources(["saved"])
    assert count_sources(["saved"]) == 1
    ((key, error),) = found("saved").items()
    assert key == "saved" and error.startswith("saved: cannot be read as a data set")


def test_a_data_set_of_the_hub_is_streamed_split_by_split(hub):
    path = "hf://datasets/photos/many"
    keys = {f"{path}:train::{row}": row for row in range(11)} | {f"{path}:test::{row}": 20 + row for row in range(3)}
    assert list(found(path).items()) == list(keys.items())
    assert found(f"{path}:test") == {f"{path}:test::{row}": 20 + row for row in range(3)}
    assert found(f"{path}/all@v1.0:test") == {f"{path}/all@v1.0:test::{row}": 20 + row for row in range(3)}
    assert hub[-1] == ("hf://datasets/photos/many", "all", {"revision": "v1.0", "streaming": True})
    check_sources([path])
    check_sources([path], columns=Columns("image"))


def test_pictures_are_counted_if_the_data_set_says_how_many_they_are(hub, monkeypatch):
    path = "hf://datasets/photos/many:test"
    assert count_sources([path]) is None
    plain = data_sets._load_splits

    def described(path):
        splits = plain(path)
        for name, split in splits.items():
            split.info.splits = datasets.SplitDict({name: datasets.SplitInfo(name, num_examples=3)})
        return splits

    monkeypatch.setattr(data_sets, "_load_splits", described)
    assert count_sources([path, path]) == 6


def test_files_of_the_hub_are_fetched_when_they_are_decoded_and_no_others(place, monkeypatch):
    Image.fromarray(pixels(6)).save("a.png")
    monkeypatch.setattr(fsspec, "open", lambda url, mode: open(url.removeprefix("hf://datasets/photos/many/"), mode))
    opened = data_sets._open_remote({"bytes": None, "path": "hf://datasets/photos/many/a.png"}, "mine")
    assert np.array_equal(np.array(Image.open(opened)), pixels(6))
    others = (
        "a.png",
        f"{place}/a.png",
        "https://example.com/a.png",
        "zip://a.png::file:///b.zip",
        "file:///a::hf://b",
    )
    for path in others:
        with pytest.raises(ValueError, match="mine: its file is not one of the Hub"):
            data_sets._open_remote({"bytes": None, "path": path}, "mine")
    with pytest.raises(ValueError, match="mine: the row has no picture"):
        data_sets._open_remote(None, "mine")


def test_pictures_in_archives_of_the_hub_are_read(place, monkeypatch):
    asked = []
    monkeypatch.setattr(fsspec, "open", lambda url, mode: asked.append(url) or io.BytesIO(b"content"))
    path = "zip://0.png::hf://datasets/photos/many@main/data.zip"
    assert data_sets._open_remote({"bytes": None, "path": path}, "mine").read() == b"content" and asked == [path]


def test_a_connection_that_breaks_is_one_sentence_and_keeps_what_was_read(hub, monkeypatch):
    class Broken:
        features = datasets.Features({"image": datasets.Image()})
        select_columns = cast_column = lambda self, *arguments: self

        def __iter__(self):
            yield {"image": cell(1)}
            raise RuntimeError("reset by peer")

    monkeypatch.setattr(data_sets, "_load_splits", lambda path: {"test": Broken()})
    sources = find_sources(["hf://datasets/photos/many:test"])
    assert next(sources)[0] == "hf://datasets/photos/many:test::0"
    with pytest.raises(OSError, match=r"many:test: cannot be read on .reset by peer.\. The same command continues"):
        next(sources)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("hf://datasets/photos/many:tset", "there is no split 'tset', only train, test"),
        (
            "hf://datasets/photos/none",
            "hf://datasets/photos/none: cannot be opened (hf://datasets/photos/none doesn't exist",
        ),
        (
            "hf://datasets/photos/script",
            "hf://datasets/photos/script: cannot be opened (Dataset scripts are no longer",
        ),
        ("hf://datasets/../..", "a data set of the Hub is written hf://datasets/owner/name"),
        ("hf://datasets/photos", "a data set of the Hub is written hf://datasets/owner/name"),
        ("hf://datasets/a/b/c/d", "a data set of the Hub is written hf://datasets/owner/name"),
    ],
)
def test_mistakes_are_one_sentence(hub, path, message, capsys):
    assert main(["score", path, "-o", "s.csv"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_keys_can_come_from_a_column(hub, place):
    make([4, 5]).add_column("id", ["four", "five"]).save_to_disk("saved")
    assert found("saved", key="id") == {"four": 4, "five": 5}
    make([6, 7]).add_column("id", [60, 70]).to_parquet(place / "hub" / "data" / "train-00000-of-00001.parquet")
    make([8]).add_column("id", [80]).to_parquet(place / "hub" / "data" / "test-00000-of-00001.parquet")
    assert found("hf://datasets/photos/many", key="id") == {"60": 6, "70": 7, "80": 8}
    for path in ("saved", "hf://datasets/photos/many"):
        with pytest.raises(ValueError, match=f"{path}: no column 'mos' for the keys, only image, id"):
            check_sources([path], columns=Columns(key="mos"))


def test_parts_of_a_path():
    assert HubPath.parse("hf://datasets/a/b") == ("a/b", None, None, None)
    path = "hf://datasets/a/b@refs/convert/parquet:train"
    assert HubPath.parse(path) == ("a/b", None, "refs/convert/parquet", "train")
    assert HubPath.parse("hf://datasets/a/b/c:test") == ("a/b", "c", None, "test")


def test_an_interrupted_run_over_a_data_set_continues(hub, place, tiny_model, monkeypatch):
    from musiq_hf import MusiqImageProcessor
    from musiq_hf.scoring.engine import score_with_several

    model = tiny_model(score_range=(-10, 10))
    model.save_pretrained("tiny")
    MusiqImageProcessor.from_config(model.config).save_pretrained("tiny")
    words = ["score", "hf://datasets/photos/many", "-m", "tiny", "--device", "cpu"]
    assert main([*words, "-o", "whole.csv"]) == 0

    def interrupted(sources, models, **options):
        for count, rows in enumerate(score_with_several(sources, models, **options)):
            if count == 5:
                raise KeyboardInterrupt
            yield rows

    with monkeypatch.context() as patched:
        patched.setattr("musiq_hf.scoring.rows.score_with_several", interrupted)
        assert main([*words, "-o", "s.csv"]) == 130
    assert main([*words, "-o", "s.csv"]) == 0
    assert (place / "s.csv").read_bytes() == (place / "whole.csv").read_bytes()
    shutil.rmtree("hub")
