# SPDX-License-Identifier: Apache-2.0
"""Pictures that the caller still holds: their pixels are those of the moment at which they were given."""

import threading
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageSequence
from transformers import pipeline

from musiq_hf import MusiqImageProcessor
from musiq_hf.pictures.decoding import Decoder, decode_ahead

FRAMES = [np.random.default_rng(seed).integers(0, 256, (20, 30), dtype=np.uint8) for seed in range(6)]


def decode(pictures, **options):
    options = {"num_workers": 2, "in_processes": False} | options
    return [np.asarray(future.result()) for _, future in decode_ahead(pictures, Decoder(), **options)]


def redraw(canvas):
    """Give one picture again and again, with other pixels each time."""
    for frame in FRAMES:
        if isinstance(canvas, Image.Image):
            canvas.paste(Image.fromarray(frame).convert("RGB"))
        else:
            canvas[:] = frame[..., None]
        yield canvas


def rewrite(cell):
    for frame in FRAMES:
        cell["bytes"] = write_png(frame)
        yield cell


def refill(buffer):
    """Give cells whose bytes share one buffer."""
    for frame in FRAMES:
        buffer[:] = write_png(frame).ljust(len(buffer), b"\0")
        yield {"bytes": buffer, "path": None}


def write_png(frame):
    file = BytesIO()
    Image.fromarray(frame).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("in_processes", [False, True])
@pytest.mark.parametrize("kind", ["canvas", "array", "cell", "buffer"])
def test_a_source_that_changes_while_others_wait_gives_what_it_was(kind, in_processes):
    makers = {
        "canvas": lambda: redraw(Image.new("RGB", (30, 20))),
        "array": lambda: redraw(np.zeros((20, 30, 3), np.uint8)),
        "cell": lambda: rewrite({"bytes": b"", "path": None}),
        "buffer": lambda: refill(bytearray(2000)),
    }
    results = decode(makers[kind](), in_processes=in_processes)
    for result, frame in zip(results, FRAMES, strict=True):
        np.testing.assert_array_equal(result, frame[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("num_workers", [1, 3])
def test_frames_of_an_animation_are_each_its_own_picture(tmp_path, name, num_workers):
    first, *others = [Image.fromarray(frame).convert("RGB") for frame in FRAMES]
    options = {"lossless": True} if name.endswith("webp") else {}
    first.save(tmp_path / name, save_all=True, append_images=others, **options)
    with Image.open(tmp_path / name) as opened:
        wanted = [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(opened)]
    with Image.open(tmp_path / name) as opened:
        results = decode(ImageSequence.Iterator(opened), num_workers=num_workers)
    unit = [result if result.dtype == np.float32 else result / np.float32(255) for result in results]
    assert len(results) == 6 and all(
        np.allclose(ours, one / 255, atol=1e-6) for ours, one in zip(unit, wanted, strict=True)
    )


def test_one_lazily_opened_picture_many_times_is_that_picture(tmp_path, monkeypatch):
    Image.fromarray(FRAMES[0]).save(tmp_path / "a.png")
    threads, plain = set(), Image.Image.load

    def load(self):
        threads.add(threading.get_ident())
        return plain(self)

    monkeypatch.setattr(Image.Image, "load", load)
    with Image.open(tmp_path / "a.png") as one:
        results = decode([one] * 8, num_workers=8)
    assert len(threads) == 1  # several would read one file at a time
    assert all(np.array_equal(result[..., 0], FRAMES[0]) for result in results)


def test_threads_that_share_a_lazily_opened_picture_read_it_once(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    decoder = Decoder()
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            with Image.open(tmp_path / "a.png") as one:
                results = list(pool.map(decoder, [one] * 8))
            assert all(np.array_equal(result, np.rot90(pixels, -1)) for result in results)


def test_processes_of_the_pipeline_do_not_share_an_open_file(tmp_path, tiny_model):
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    scorer = pipeline("image-quality-assessment", model=model, image_processor=processor)
    Image.fromarray(FRAMES[0]).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as one:
        iterator = scorer.get_iterator([one, one], 2, 1, {}, {}, {})
        assert one.fp is None or one.fp.closed  # loaded before the processes begin
    assert [result["score"] for result in iterator] == [scorer(Image.fromarray(FRAMES[0]))["score"]] * 2


def test_a_damaged_picture_of_the_caller_is_its_own_failure(tmp_path):
    content = write_png(np.random.default_rng(0).integers(0, 256, (99, 99), dtype=np.uint8))
    (tmp_path / "half.png").write_bytes(content[:4000])
    with Image.open(tmp_path / "half.png") as half:
        rows = list(decode_ahead([half, FRAMES[0]], Decoder(), num_workers=1, in_processes=False))
    assert "half.png: cannot be decoded" in str(rows[0][1].exception())
    assert rows[1][1].exception() is None
