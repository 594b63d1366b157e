# SPDX-License-Identifier: Apache-2.0
"""Streams of pictures: order, errors, budgets and memory."""

import base64
import io
import math
import os
import struct
import tarfile
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf import ImageQualityAssessmentPipeline, MusiqImageProcessor, load_quality
from musiq_hf.pictures.opening import MAX_MEGAPIXELS, check_tokens
from musiq_hf.pictures.sources.paths import find_sources
from musiq_hf.scoring.engine import PictureScore, score_pictures, score_with_several


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


SIZES = [(30, 41), (64, 17), (50, 50), (8, 9), (33, 64)]


@pytest.fixture
def score(tiny_model):
    """Score with the tiny model; arguments go to `score_pictures`."""
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    return lambda pictures, **kwargs: score_pictures(pictures, model=model, processor=processor, **kwargs)


@pytest.fixture
def expected(tiny_model):
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    with torch.no_grad():
        return [float(model(**processor(picture(*size, i))).scores) for i, size in enumerate(SIZES)]


@pytest.mark.parametrize("max_tokens", [None, 1, 100, 10_000])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_rows_come_in_order_with_the_scores_of_single_pictures(score, expected, max_tokens, num_workers):
    pictures = (picture(*size, i) for i, size in enumerate(SIZES))
    rows = list(score(pictures, max_tokens=max_tokens, num_workers=num_workers))
    assert [row.key for row in rows] == list(range(5))
    assert [(row.height, row.width) for row in rows] == SIZES
    assert [row.score for row in rows] == pytest.approx(expected, abs=1e-5)
    assert all(row.error is None and row.std is None for row in rows)


def test_files_arrays_and_tensors_are_one_picture(score, expected, tmp_path):
    pixels = picture(*SIZES[0])
    Image.fromarray(pixels).save(tmp_path / "a.png")
    sources = [tmp_path / "a.png", str(tmp_path / "a.png"), ("mine", pixels), Image.fromarray(pixels)]
    rows = list(score([*sources, torch.from_numpy(pixels).permute(2, 0, 1)]))
    assert [row.key for row in rows] == [str(tmp_path / "a.png")] * 2 + ["mine", 3, 4]
    assert [row.score for row in rows] == pytest.approx([expected[0]] * 5, abs=1e-5)


@pytest.mark.parametrize("num_workers", [1, 3])
def test_one_picture_alone_is_a_stream_of_one(score, expected, tmp_path, num_workers):
    pixels, path = picture(*SIZES[0]), tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    content = path.read_bytes()
    with open(path, "rb") as file:
        alone = [path, str(path), pixels, torch.from_numpy(pixels).permute(2, 0, 1), Image.fromarray(pixels), file]
        alone += [content, bytearray(content), io.BytesIO(content), {"bytes": content, "path": "a.png"}]
        for source in alone:
            (row,) = score(source, num_workers=num_workers)
            assert row.score == pytest.approx(expected[0], abs=1e-5)
            assert row.key == (str(path) if isinstance(source, str | os.PathLike) else 0)
    (row,) = score(str(tmp_path / "missing.png"))
    assert row.score is None and "missing.png: no such file" in row.error


def test_a_folder_and_a_batch_are_streams_of_their_pictures(score, expected, tmp_path):
    pixels = picture(*SIZES[0])
    for name in ("b.png", "a.png"):
        Image.fromarray(pixels).save(tmp_path / name)
    assert [row.key for row in score(str(tmp_path))] == [str(tmp_path / "a.png"), str(tmp_path / "b.png")]
    batch = torch.from_numpy(np.stack([pixels, pixels])).permute(0, 3, 1, 2)
    for several in (batch, batch.numpy(), batch.permute(0, 2, 3, 1)):
        assert [row.score for row in score(several)] == pytest.approx([expected[0]] * 2, abs=1e-5)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no picture"):
        score(tmp_path / "empty")


def test_a_buffer_that_is_filled_anew_is_scored_as_it_was_given(score, expected):
    def stream():
        file = io.BytesIO()
        for index, size in enumerate(SIZES):
            file.seek(0)
            Image.fromarray(picture(*size, index)).save(file, "PNG")
            file.truncate()
            yield file

    assert [row.score for row in score(stream(), num_workers=3)] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 10_000])
def test_what_cannot_be_scored_is_a_row_with_its_error(score, expected, tmp_path, max_tokens):
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    sources = [
        picture(*SIZES[0]),
        tmp_path / "broken.jpg",
        tmp_path / "missing.png",
        picture(1, 900),
        picture(*SIZES[1], 1),
    ]
    rows = list(score(sources, max_tokens=max_tokens))
    assert [row.score is None for row in rows] == [False, True, True, True, False]
    assert [rows[0].score, rows[4].score] == pytest.approx(expected[:2], abs=1e-5)
    for row, reason in zip(rows[1:4], ("not a picture", "no such file", "too extreme"), strict=True):
        assert reason in row.error
    assert (rows[3].width, rows[3].height) == (900, 1) and rows[3].error.startswith("picture 3: its aspect ratio")


@pytest.fixture
def unusable(tmp_path):
    """Pictures of every kind that cannot be scored."""
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    Image.fromarray(picture(1, 900)).save(tmp_path / "thin.png")
    Image.fromarray(picture(40, 40)).save(tmp_path / "half.png")
    (tmp_path / "half.png").write_bytes((tmp_path / "half.png").read_bytes()[:900])
    Image.fromarray(picture(200, 200)).save(tmp_path / "large.png")
    files = [tmp_path / f"{name}" for name in ("broken.jpg", "thin.png", "half.png", "large.png", "missing.png")]
    return [
        *files,
        *map(str, files),
        tmp_path,
        "http://[/photo.jpg",
        "data:image/png;base64,AAAA",
        b"no picture",
        io.BytesIO(b"no picture"),
        {"bytes": None, "path": str(files[0])},
        {"bytes": b"no picture", "path": "inside.jpg"},
        {"bytes": None, "path": None},
        *(Image.open(file) for file in files[1:4]),
        picture(1, 900),
        picture(200, 200),
        torch.full((3, 20, 20), 2.0),
        np.zeros((5, 5, 9), np.uint8),
    ]


@pytest.mark.parametrize("preset", ["default", "google"])
@pytest.mark.parametrize("key", ["photo of a cat", Path("cats") / "1", 17, ("cats", 1)])
def test_errors_begin_with_the_key_and_name_a_file_once(score, unusable, tmp_path, key, preset):
    rows = list(score([(key, source) for source in unusable], preset=preset, max_megapixels=0.01))
    start = f"{key}: " if isinstance(key, str | Path) else f"picture {key}: "
    assert len(rows) == len(unusable) and {row.key for row in rows} == {key}
    for row in rows:
        assert row.error.startswith(start)
        reason = row.error.removeprefix(start)
        assert "picture in memory" not in reason and reason.count(str(tmp_path)) < 2 and start not in reason


@pytest.mark.parametrize("kind", [str, Path, lambda path: {"bytes": None, "path": str(path)}])
@pytest.mark.parametrize(("key", "start"), [("cat", "cat"), (17, "picture 17")])
def test_errors_of_pictures_with_keys_name_the_file(score, tmp_path, kind, key, start):
    path = tmp_path / "missing.png"
    (row,) = score([(key, kind(path))])
    assert row.error.startswith(f"{start}: {path}: ")
    (row,) = score([(str(path), kind(path))])
    assert row.error.count(str(path)) == 1


def test_without_a_key_errors_name_the_file_or_the_number(score, unusable):
    rows = list(score(unusable, max_megapixels=0.01))
    for number, (row, source) in enumerate(zip(rows, unusable, strict=True)):
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else f"picture {number}"
        assert row.error.startswith(f"{name}: ") and row.error.count(name) == 1
    (half,) = score([Image.open(unusable[2])])
    assert half.error.startswith(f"picture 0: {unusable[2]}: cannot be decoded")


def test_what_is_no_picture_is_named_by_its_key(score):
    with pytest.raises(TypeError, match="mine: A picture must be a path.* got int"):
        list(score([("mine", 5)]))
    with pytest.raises(TypeError, match="picture 1: A picture must be a path.* got int"):
        list(score([picture(*SIZES[0]), 5]))


def test_a_distribution_has_a_standard_deviation(tiny_model):
    model = tiny_model(num_labels=5)
    processor = MusiqImageProcessor.from_config(model.config)
    (row,) = score_pictures([picture(20, 30)], model=model, processor=processor)
    with torch.no_grad():
        probabilities = model(**processor(picture(20, 30))).logits.softmax(-1)[0].double()
    values = torch.arange(1, 6)
    mean = (probabilities * values).sum()
    assert row.std == pytest.approx(float((probabilities * (values - mean) ** 2).sum().sqrt()), abs=1e-6)


def test_shorter_side_shrinks_files_and_refuses_arrays(score):
    (row,) = score([Image.fromarray(picture(40, 60))], shorter_side=20)
    assert (row.height, row.width) == (20, 30)
    with pytest.raises(TypeError, match="Shrink it before"):
        list(score([picture(40, 60)], shorter_side=20))


def make_large_file(side=13000):
    """A PNG file whose head speaks of 13000x13000 pixels, say, and which has none."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    packed = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + packed


@pytest.mark.parametrize("preset", ["default", "google"])
@pytest.mark.parametrize("in_processes", [False, True])
def test_a_picture_that_is_too_large_is_an_error_before_it_is_decoded(score, tmp_path, preset, in_processes):
    content = make_large_file()
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(path, "a.png")
    sources = [
        path,
        Image.open(path),
        Image.open(io.BytesIO(content)),
        {"bytes": content, "path": None},
        "data:image/png;base64," + base64.b64encode(content).decode(),
        *find_sources([str(tmp_path / "a.tar")]),
    ]
    rows = list(score(sources, preset=preset, in_processes=in_processes, num_workers=1))
    assert len(rows) == len(sources)
    for row in rows:
        assert "13000x13000 pixels are 169 megapixels, and the limit is 35. " in row.error
        assert "(--shorter_side)" in row.error and "(--max_megapixels)" in row.error
    assert "truncated or damaged" in next(score([path], max_megapixels=169, preset=preset)).error


LIMITS = [  # settings of the model, and the limit in megapixels that follows
    ({"max_native_side": 64}, 89),
    ({"use_native_resolution": False}, 89),
    ({}, 35),
    ({"max_native_side": 2**20}, 35),
    ({"max_native_side": 7000, "patch_size": 8}, 35),
]


@pytest.mark.parametrize(("settings", "limit"), LIMITS, ids=[str(settings) for settings, _ in LIMITS])
def test_the_limit_is_wider_where_larger_pictures_are_shrunk(tiny_model, tmp_path, settings, limit):
    path = tmp_path / "a.png"
    models = [tiny_model(**settings), tiny_model(max_native_side=48)]
    processors = [MusiqImageProcessor.from_config(model.config) for model in models]
    for side in (5950, 9450):
        path.write_bytes(make_large_file(side))
        is_above = side**2 / 1e6 > limit
        expected = f"the limit is {limit}. Shrink it" if is_above else "truncated or damaged"
        for row in next(score_with_several([path], list(zip(models, processors, strict=True)))):
            assert expected in row.error
        with pytest.raises(ValueError, match=expected):
            ImageQualityAssessmentPipeline(models[0], image_processor=processors[0])(str(path))


def test_the_limit_counts_for_what_is_scored(score, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture(40, 60)).save(path)
    image = Image.open(path)
    sources = [path, image, image.copy(), np.array(image), np.array(image) / 255, torch.from_numpy(np.array(image))]
    sources[-1] = sources[-1].permute(2, 0, 1)
    for row in score(sources, max_megapixels=0.0023):
        assert "60x40 pixels are 0.0024 megapixels, and the limit is 0.0023" in row.error
    plain = [row.score for row in score(sources)]
    for limit in (0.0024, math.inf):
        assert [row.score for row in score(sources, max_megapixels=limit)] == plain
    shrunk = [row.score for row in score(sources[:3], shorter_side=20)]
    assert None not in shrunk
    assert [row.score for row in score(sources[:3], shorter_side=20, max_megapixels=0.0006)] == shrunk
    assert "30x20 pixels" in next(score([path], shorter_side=20, max_megapixels=0.00059)).error


def test_the_limit_counts_the_tokens_of_small_patches(tiny_model, tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture(210, 260)).save(path)
    model = tiny_model(patch_size=1, patch_encoder="linear", longer_side_lengths=[8])
    scorer = {"model": model, "processor": MusiqImageProcessor.from_config(model.config)}
    for source in (path, Image.open(path), np.array(Image.open(path))):
        (row,) = score_pictures([source], **scorer)
        assert "260x210 pixels are 54,648 tokens" in row.error and "as many as 55.96 megapixels" in row.error
        assert "(--shorter_side)" in row.error and "(--max_megapixels)" in row.error
    (row,) = score_pictures([path], shorter_side=21, **scorer)
    assert row.error is None
    (row,) = score_pictures([np.zeros((1, 8, 3), np.uint8)], max_megapixels=0.001, **scorer)
    assert row.error is None  # a smaller limit than the default is one of pixels alone


def test_the_limit_of_tokens_leaves_patches_of_32_as_large_as_before():
    counter = MusiqImageProcessor()
    for width, height in ((7000, 5000), (5916, 5916), (35_000, 1000), (100_000, 350)):
        num_tokens = counter.count_tokens(height, width)
        check_tokens(num_tokens, (width, height), "a.png", max_megapixels=MAX_MEGAPIXELS, advice="")
    with pytest.raises(ValueError, match="a.png: 1000000x35 pixels are .* tokens"):
        size = (10**6, 35)
        check_tokens(2 * 31250, size, "a.png", max_megapixels=MAX_MEGAPIXELS, advice="")


@pytest.mark.parametrize("limit", [0, -1, math.nan, -math.inf, "3", True, [3]])
def test_a_limit_is_above_zero(score, limit):
    with pytest.raises(ValueError, match="`max_megapixels` must be above 0, or inf for no limit"):
        score([], max_megapixels=limit)


def test_a_batch_that_does_not_fit_is_halved_and_one_picture_becomes_an_error(tiny_model, expected, monkeypatch):
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    forward, sizes = model.forward, []

    def small(**batch):
        sizes.append(len(batch["pixel_values"]))
        if len(batch["pixel_values"]) > 2 or batch["pixel_values"].shape[1] > 90:
            raise torch.OutOfMemoryError("full")
        return forward(**batch)

    monkeypatch.setattr(model, "forward", small)
    pictures = [picture(*size, i) for i, size in enumerate(SIZES)] + [picture(90, 90)]
    rows = list(score_pictures(pictures, model=model, processor=processor, max_tokens=10_000))
    assert sizes[0] == 6 and min(sizes) == 1
    assert [row.score for row in rows[:5]] == pytest.approx(expected, abs=1e-5)
    assert rows[5].score is None and "needs more memory than cpu has" in rows[5].error


@pytest.mark.parametrize(
    ("where", "text"),
    [
        ("model", "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        ("model", "could not create a primitive"),
        ("processor", "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_memory_of_a_cpu_that_runs_out_is_an_error_of_its_picture(tiny_model, expected, monkeypatch, where, text):
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    owner, name = (model, "forward") if where == "model" else (processor, "_preprocess")
    plain = getattr(owner, name)

    def small(*args, **kwargs):
        values = kwargs["pixel_values"] if where == "model" else args[0]
        if values.numel() > (80 * 192 if where == "model" else 90 * 90):
            raise RuntimeError(text)
        return plain(*args, **kwargs)

    monkeypatch.setattr(owner, name, small)
    rows = list(score_pictures([picture(90, 90), picture(*SIZES[0])], model=model, processor=processor))
    assert "needs more memory than cpu has" in rows[0].error and rows[0].score is None
    assert rows[1].score == pytest.approx(expected[0], abs=1e-5)


@pytest.mark.parametrize("max_tokens", [1, 10_000])
def test_an_error_of_the_source_comes_after_what_was_read(score, expected, max_tokens):
    def pictures():
        yield from (picture(*size, i) for i, size in enumerate(SIZES[:3]))
        raise RuntimeError("the disk is gone")

    stream = score(pictures(), max_tokens=max_tokens, num_workers=4)
    assert [next(stream).score for _ in range(3)] == pytest.approx(expected[:3], abs=1e-5)
    with pytest.raises(RuntimeError, match="the disk is gone"):
        next(stream)


def test_rows_of_errors_do_not_wait(score, tmp_path):
    read = []

    def missing():
        for i in range(100):
            read.append(i)
            yield tmp_path / f"{i}.png"

    stream = score(missing(), max_tokens=10_000)
    assert next(stream).error and len(read) <= 5
    assert sum(row.error is not None for row in stream) == 99


def test_a_buffer_that_is_filled_anew_gives_every_frame_its_score(score):
    def frames(own):
        buffer = np.empty((20, 30, 3), np.uint8)
        for i in range(6):
            buffer[:] = picture(20, 30, i)
            yield own(buffer)

    for own in (lambda array: array, torch.from_numpy):
        rows = list(score(frames(own), num_workers=3))
        assert [row.score for row in rows] == [row.score for row in score(picture(20, 30, i) for i in range(6))]


def test_without_a_model_the_default_checkpoint_scores():
    model, processor = load_quality()
    named = list(score_pictures([picture(30, 41)], model=model, processor=processor))
    assert list(score_pictures([picture(30, 41)])) == named


@pytest.mark.parametrize(("given", "missing"), [("model", "processor"), ("processor", "model")])
def test_half_of_a_pair_is_refused(tiny_model, given, missing):
    model = tiny_model()
    half = {"model": model, "processor": MusiqImageProcessor.from_config(model.config)}[given]
    with pytest.raises(ValueError, match=f"belong together, but `{missing}` is missing. Load both by `load_quality`"):
        score_pictures([picture(30, 41)], **{given: half})


def test_settings_of_the_processor_are_kept(tiny_model):
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config, do_convert_rgb=False, return_tensors="np")
    gray, colour = score_pictures([picture(20, 30)[..., 0], picture(20, 30)], model=model, processor=processor)
    assert "an RGB picture was expected" in gray.error and colour.score is not None
    processor = MusiqImageProcessor.from_config(model.config, input_data_format="channels_first")
    (row,) = score_pictures([np.zeros((3, 20, 3), np.uint8)], model=model, processor=processor)
    assert (row.height, row.width) == (20, 3)


def test_a_model_that_trains_is_refused(tiny_model):
    model = tiny_model().train()
    with pytest.raises(ValueError, match=r"must be in evaluation mode.*Call `model.eval\(\)`"):
        score_pictures([], model=model, processor=MusiqImageProcessor.from_config(model.config))
    model.eval()


def test_few_pictures_are_read_ahead_and_none_after_the_reader_has_left(score):
    read, threads = [], threading.active_count()

    def pictures():
        for i in range(100):
            read.append(i)
            yield picture(20, 20, i)

    rows = score(pictures(), num_workers=2)
    assert not read  # nothing starts before it is asked for
    assert isinstance(next(rows), PictureScore)
    assert len(read) <= 5
    rows.close()
    assert len(read) <= 5 and threading.active_count() == threads


@pytest.mark.parametrize("name", ["max_tokens", "num_workers", "shorter_side"])
def test_settings_out_of_range_are_refused_at_once(score, name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        score([], **{name: 0})


def test_a_processor_of_another_model_is_refused(tiny_model):
    with pytest.raises(ValueError, match="must agree on `patch_size`"):
        score_pictures([], model=tiny_model(), processor=MusiqImageProcessor())


def test_what_is_no_picture_at_all_stops_the_stream(score):
    with pytest.raises(TypeError, match="must be a path"):
        list(score([3.5]))
    with pytest.raises(ValueError, match=r"pair \(key, source\), got a tuple of 3"):
        list(score([("a", "b", "c")]))
    assert list(score([])) == []
