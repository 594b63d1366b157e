# SPDX-License-Identifier: Apache-2.0
"""Scores as a step of pipelines: kinds of columns, broken pictures, types, mistakes, and other processes."""

import io
import pickle
import shutil
from pathlib import Path

import datasets
import numpy as np
import pandas
import pyarrow
import pytest
import torch
from datasets.fingerprint import Hasher
from PIL import Image

from musiq_hf import MusiqConfig, MusiqImageProcessor
from musiq_hf.assessment import Calibration
from musiq_hf.common.stores import StoreError
from musiq_hf.scoring import BatchScorer, ScoreJob, batch_scorer, score_rows

NAMES = ["a.png", "b.png", "c.jpg", "d.png"]
NEW = ["score", "score_0_1", "std", "width", "height", "signature", "error"]
BROKEN = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_model):
    """Four pictures, of which the second is broken and the last has 16 bits, and a checkpoint."""
    folder = tmp_path_factory.mktemp("pipeline")
    model = tiny_model(score_range=(0, 10))
    model.save_pretrained(folder / "checkpoint")
    MusiqImageProcessor.from_config(model.config).save_pretrained(folder / "checkpoint")
    for seed, name in enumerate(NAMES):
        Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20 + 7 * seed, 30, 3), np.uint8)).save(
            folder / name
        )
    Image.fromarray(np.arange(30 * 20, dtype=np.uint16).reshape(20, 30) * 100).save(folder / "d.png")
    (folder / "b.png").write_bytes(b"no picture")
    return folder


@pytest.fixture(autouse=True)
def within(folder, monkeypatch, alone):
    monkeypatch.chdir(folder)
    batch_scorer._load.cache_clear()


@pytest.fixture
def expected():
    """Rows of the command, by column."""
    stream = score_rows(ScoreJob(NAMES, models=["checkpoint"], device="cpu"))
    rows = [row._asdict() | {"signature": stream.signatures[0]} for (row,) in stream]
    assert sum(row["error"] is not None for row in rows) == 1
    return {name: [row[name] for row in rows] for name in NEW}


def make_scorer(picture="image", **settings):
    return BatchScorer("checkpoint", picture, device="cpu", **settings)


def read(name):
    return Path(name).read_bytes()


FILES = {
    "paths": str,
    "bytes": read,
    "cells": lambda name: {"bytes": read(name), "path": "elsewhere.png"},
    "cells of paths": lambda name: {"bytes": None, "path": name},
}


@pytest.mark.parametrize("make", FILES.values(), ids=FILES)
def test_columns_of_files_have_the_rows_of_the_command(expected, make):
    answer = make_scorer(key="path")({"path": NAMES, "image": list(map(make, NAMES))})
    assert list(answer) == NEW
    assert {name: list(column) for name, column in answer.items()} == expected


DECODED = {
    "PIL": Image.open,
    "arrays": lambda name: np.asarray(Image.open(name)),
    "tensors": lambda name: torch.tensor(np.asarray(Image.open(name))).permute(2, 0, 1),
}


@pytest.mark.parametrize("make", DECODED.values(), ids=DECODED)
def test_decoded_pictures_have_the_same_scores(expected, make):
    answer = make_scorer()({"image": [make("a.png"), make("c.jpg")]})
    assert answer["score"] == [expected["score"][0], expected["score"][2]] and answer["error"] == [None, None]


def test_a_batch_of_pixels_is_one_array(pictures):
    pixels = np.stack([pictures[0], pictures[0][::-1]])
    several = make_scorer()({"image": pixels})["score"]
    assert several == [make_scorer()({"image": [one]})["score"][0] for one in pixels] and several[0] != several[1]


def test_tables_and_frames_are_answered_by_copies_with_the_new_columns(expected):
    frame = pandas.DataFrame({"path": NAMES}, index=[7, 3, 9, 1])
    scored = make_scorer("path")(frame)
    assert list(frame.columns) == ["path"] and list(scored.columns) == ["path", *NEW]
    assert list(scored.index) == [7, 3, 9, 1] and str(scored["width"].dtype) == "Int32"
    assert scored["score"].isna().tolist() == [name == "b.png" for name in NAMES]
    table = make_scorer("path")(pyarrow.table({"path": NAMES}))
    assert table.select(NEW).to_pydict() == expected and table["path"].to_pylist() == NAMES


@pytest.mark.parametrize("names", [["b.png"], ["a.png"], []])
def test_columns_have_their_types_whatever_is_in_them(names):
    table = make_scorer("path")(pyarrow.table({"path": pyarrow.array(names, pyarrow.string())}))
    text, number, count = pyarrow.string(), pyarrow.float64(), pyarrow.int32()
    assert table.schema.types == [text, number, number, number, count, count, text, text]
    assert len(table) == len(names)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [1, 0, 2, 3]], ids=["picture first", "error first"])
@pytest.mark.parametrize("form", [None, "arrow"])
def test_datasets_add_the_columns_and_keep_broken_pictures(expected, order, form):
    names = [NAMES[index] for index in order]
    data = datasets.Dataset.from_dict({"path": names, "image": names}).cast_column("image", datasets.Image())
    scored = data.with_format(form).map(make_scorer(key="path"), batched=True, batch_size=1).with_format(None)
    assert scored.column_names == ["path", "image", *NEW] and isinstance(scored.features["image"], datasets.Image)
    assert scored.select_columns(NEW)[:] == {name: [expected[name][index] for index in order] for name in NEW}


def test_streams_are_scored_undecoded(expected):
    data = datasets.Dataset.from_dict({"image": NAMES}).cast_column("image", datasets.Image()).to_iterable_dataset()
    rows = list(data.decode(False).map(make_scorer(), batched=True, batch_size=3, remove_columns=["image"]))
    assert {name: [row[name] for row in rows] for name in NEW} == expected


def test_forked_processes_score_after_torch_was_used(expected):
    data = datasets.Dataset.from_dict({"image": NAMES})
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        torch.randn(400, 400) @ torch.randn(400, 400)
        make_scorer()({"image": NAMES[:1]})
        scored = data.map(make_scorer(), batched=True, batch_size=2, num_proc=2)
    finally:
        torch.set_num_threads(before)
    assert scored.select_columns(NEW)[:] == expected


def test_the_fingerprint_is_that_of_settings_and_weights(tmp_path, tiny_model):
    first, again, other = make_scorer(), make_scorer(), make_scorer(shorter_side=20)
    first({"image": ["a.png"]})  # what is loaded is no part of it
    assert Hasher.hash(first) == Hasher.hash(again) == Hasher.hash(pickle.loads(pickle.dumps(first)))
    assert Hasher.hash(other) != Hasher.hash(first)
    shutil.copytree("checkpoint", tmp_path / "checkpoint")
    older = BatchScorer(tmp_path / "checkpoint", device="cpu")
    tiny_model(score_range=(0, 10), seed=1).save_pretrained(tmp_path / "checkpoint")
    assert Hasher.hash(BatchScorer(tmp_path / "checkpoint", device="cpu")) != Hasher.hash(older)
    with pytest.raises(ValueError, match=r"are others than when the scorer was made .* Make the scorer anew"):
        older({"image": ["a.png"]})


def test_a_checkpoint_is_found_from_any_folder(folder, tmp_path, monkeypatch, expected):
    scorer = make_scorer(folder=".")
    monkeypatch.chdir(tmp_path)
    assert pickle.loads(pickle.dumps(scorer))({"image": NAMES})["score"] == expected["score"]
    elsewhere = BatchScorer(folder / "checkpoint", device="cpu")
    assert elsewhere({"image": ["a.png"]})["error"] == ["a.png: no such file."]


def test_embedded_checkpoints_keep_their_names():
    assert BatchScorer().checkpoint == "musiq-lite-biq2021"


@pytest.mark.parametrize("empty", [None, float("nan"), pandas.NA, "", b"", {}, {"bytes": None, "path": None}])
def test_an_empty_cell_is_a_row_with_its_error(empty):
    answer = make_scorer(key="id")({"id": [5, 6], "image": [empty, "a.png"]})
    assert answer["error"] == ["5: the row has no picture.", None] and answer["score"][0] is None


def test_errors_name_the_picture():
    assert make_scorer()({"image": ["missing.png"]})["error"] == ["missing.png: no such file."]
    (error,) = make_scorer()({"image": [b"no picture"]})["error"]
    assert error.startswith("row 0 of the batch: not a picture")
    (error,) = make_scorer(key="id")({"id": [None], "image": ["missing.png"]})["error"]
    assert error == "missing.png: no such file."


def test_urls_are_downloaded_within_a_time(monkeypatch, expected):
    def download(url, *, name, timeout):
        assert (url, name, timeout) == ("https://example.org/a.png", "https://example.org/a.png", 60)
        return io.BytesIO(read("a.png"))

    monkeypatch.setattr(batch_scorer, "download", download)
    assert make_scorer(folder="nowhere")({"image": ["https://example.org/a.png"]})["score"] == expected["score"][:1]


def test_files_of_other_file_systems_are_read(expected):
    import fsspec

    with fsspec.open("memory://a.png", "wb") as file:
        file.write(read("a.png"))
    answer = make_scorer()({"image": ["memory://a.png", {"bytes": None, "path": "memory://b.png"}]})
    assert answer["score"] == [expected["score"][0], None] and "memory://b.png: no such file" in answer["error"][1]


def test_a_store_that_gives_no_answer_ends_the_batch(store, expected):
    good = read("a.png")
    store.pipe_file("/photos/a.png", good)
    for place in ("flaky://photos", "flaky://photos/"):
        found = make_scorer(folder=place)({"image": ["a.png", "absent.png"]})
        assert found["score"][0] == expected["score"][0] and "no such file" in found["error"][1]
    store.of_paths["*"] = TimeoutError("no answer")
    with pytest.raises(StoreError, match="the store gives no answer"):
        make_scorer(folder="flaky://photos/")({"image": ["a.png"]})


def test_settings_of_scores_are_those_of_the_command():
    settings = {"shorter_side": 10, "preset": "google", "max_megapixels": 0.0003}
    stream = score_rows(ScoreJob(NAMES, models=["checkpoint"], device="cpu", **settings))
    rows = [row for (row,) in stream]
    answer = make_scorer("path", **settings)(pandas.DataFrame({"path": NAMES}))
    assert answer["error"].tolist() == [row.error for row in rows] and answer["signature"][0] == stream.signatures[0]
    assert answer["score"].dropna().tolist() == [row.score for row in rows if row.score is not None] != []


def test_percentiles_come_with_the_calibration():
    answer = BatchScorer("musiq-tiny-biq2021", percentile=True, prefix="q_", device="cpu")(
        {"image": ["a.png", "b.png"]}
    )
    assert list(answer) == [f"q_{name}" for name in (*NEW, "percentile", "stars")]
    assert (
        0 <= answer["q_percentile"][0] <= 100 and answer["q_stars"][0] in range(1, 6) and answer["q_stars"][1] is None
    )


def test_percentiles_come_with_a_calibration_of_own_pictures(expected):
    first = expected["score"][0]
    scorer = make_scorer("path", calibration=Calibration.fit([first, first, first - 1, first + 1]))
    answer = scorer(pandas.DataFrame({"path": NAMES[:2]}))
    assert list(answer.columns) == ["path", *NEW, "percentile", "stars"]
    assert answer["percentile"][0] == 50 and answer["stars"].tolist()[0] == 3
    with pytest.raises(ValueError, match="--percentile takes the checkpoint's own calibration"):
        make_scorer(percentile=True, calibration=scorer.calibration)


def test_spark_keeps_the_key_as_text(expected):
    scorer = make_scorer("content", key="a`b")
    frame = pandas.DataFrame({"a`b": [4, 5, 6, 7], "content": list(map(read, NAMES)), "length": 1})
    (scored,) = scorer.frames(iter([frame]))
    assert list(scored.columns) == ["a`b", *NEW] and scored["a`b"].tolist() == ["4", "5", "6", "7"]
    assert scored["error"][1] == expected["error"][1].replace("b.png", "5")
    schema = "`a``b` string, `score` double, `score_0_1` double, `std` double, `width` int, `height` int, "
    assert scorer.spark_schema == schema + "`signature` string, `error` string"
    for use in (lambda: make_scorer().spark_schema, lambda: next(make_scorer().frames(iter([frame])))):
        with pytest.raises(ValueError, match="Name the column that tells them apart"):
            use()


def test_actors_load_the_checkpoint_at_once(expected):
    actor = make_scorer("path").actor()
    assert batch_scorer._load.cache_info().misses == 1
    assert actor(pyarrow.table({"path": NAMES}))["score"].to_pylist() == expected["score"]
    assert batch_scorer._load.cache_info().misses == 1


@pytest.mark.parametrize(
    ("threads", "is_child", "used"), [(None, False, 3), (None, True, 1), (2, True, 2), (2, False, 2)]
)
def test_threads_are_few_where_processes_share_the_cores(monkeypatch, threads, is_child, used):
    seen, numbers = [], [3]
    monkeypatch.setattr("multiprocess.process.parent_process", lambda: object() if is_child else None)
    monkeypatch.setattr(torch, "get_num_threads", lambda: numbers[-1])
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    monkeypatch.setattr(
        "musiq_hf.scoring.rows.score_with_several", lambda *args, **kwargs: seen.append(numbers[-1]) or []
    )
    make_scorer(threads=threads)({"image": ["a.png"]})
    assert seen == [used] and numbers[-1] == 3


def test_processes_take_gpus_by_their_rank(monkeypatch):
    devices = []
    monkeypatch.setattr(batch_scorer, "find_device", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)

    class Model:
        config = MusiqConfig()

        def to(self, device):
            devices.append(device)
            raise RuntimeError("Cannot re-initialize CUDA in forked subprocess.")

    monkeypatch.setattr("musiq_hf.scoring.rows.load_quality", lambda *args, **kwargs: (Model(), None))
    for device, rank in (("auto", None), ("auto", 3), ("cuda", 3)):
        with pytest.raises(
            ValueError, match=r'was in use before this process was forked.*set_start_method\("spawn"\)'
        ):
            BatchScorer("checkpoint", device=device)({"image": ["a.png"]}, rank)
    assert [device.index for device in devices] == [0, 1, 0]


def map_rows(**settings):
    data = datasets.Dataset.from_dict({"image": NAMES[:1]}).cast_column("image", datasets.Image())
    return data.map(make_scorer(), **settings)


ARRAYS = np.zeros((1, 9, 9, 3))
MISTAKES = {
    "no column 'image' .*columns: path.*Name it by `picture`": lambda: make_scorer()({"path": NAMES}),
    "no column 'id' .*Name it by `key`": lambda: make_scorer(key="id")({"image": NAMES}),
    "same name already .score, width.*prefix=": lambda: make_scorer()({"image": [], "score": [], "width": []}),
    "must hold pictures.*got int": lambda: make_scorer()({"image": [3]}),
    "shrinks files and PIL images, got an array": lambda: make_scorer(shorter_side=9)(
        {"image": np.zeros((1, 9, 9, 3))}
    ),
    "list of cells, got PngImageFile.*batched=True": map_rows,
    "list of cells, got str": lambda: make_scorer()({"image": "a.png"}),
    "list of cells, got ndarray": lambda: make_scorer()({"image": np.zeros((9, 9, 3))}),
    "got list.*leave out `input_columns`": lambda: map_rows(batched=True, input_columns=["image"]),
    "got Series": lambda: make_scorer()(pandas.Series(NAMES)),
    "2 pictures and 1 keys": lambda: make_scorer(key="id")({"image": NAMES[:2], "id": [1]}),
    "fsspec knows no nowhere://": lambda: make_scorer(folder="nowhere://photos"),
    "`rank` must be a number, got list": lambda: map_rows(batched=True, with_indices=True),
    "`key` names 'score'": lambda: make_scorer(key="score"),
    "`picture` must be a text, got 3": lambda: make_scorer(3),
    "`threads` must be at least 1": lambda: make_scorer(threads=0),
    "`dtype` must be": lambda: make_scorer(dtype="int8"),
    "`preset` must be": lambda: make_scorer(preset="own"),
    "nowhere: no such directory": lambda: BatchScorer("nowhere"),
    "--device nonsense cannot be used": lambda: BatchScorer("checkpoint", device="nonsense")({"image": NAMES}),
}


@pytest.mark.parametrize(("message", "use"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(message, use):
    with pytest.raises(ValueError, match=message):
        use()
