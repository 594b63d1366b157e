# SPDX-License-Identifier: Apache-2.0
"""Mutated files of all formats: one row for each, none escapes, hangs or ends the process."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.models.musiq.image_formats_musiq import FORMATS
from musiq_hf.scoring.engine import score_pictures

NUM_FILES = 2000
MAX_SECONDS = 10
FRAMED = {"GIF", "PNG", "WEBP", "TIFF", "AVIF"}  # also made with two frames
MODES = ("RGB", "RGBA", "L", "P", "1", "I;16", "CMYK", "LA", "F")


def make_seeds():
    """One file for each format, mode and number of frames that Pillow can write, by name."""
    Image.init()
    pixels = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((48, 48))
    seeds = {}
    for kind, suffixes in FORMATS.items():
        for mode in MODES:
            converted = Image.fromarray(np.array(image.convert("L")) / np.float32(255)) if mode == "F" else image
            converted = converted.convert(mode)
            for options in ({}, {"save_all": True, "append_images": [converted]}):
                file = io.BytesIO()
                if kind not in Image.SAVE or (options and kind not in FRAMED):
                    continue
                try:
                    converted.save(file, kind, **options)
                except (OSError, ValueError, KeyError):  # the format has no such mode
                    continue
                seeds[f"{kind}-{mode}-{len(options)}{suffixes[0]}"] = file.getvalue()
    return seeds | make_unwritable_seeds(pixels)


def make_unwritable_seeds(pixels):
    """Files of formats that Pillow only reads."""
    height, width, _ = pixels.shape
    word, half = (lambda number: number.to_bytes(4, "big")), (lambda number: number.to_bytes(2, "big"))
    planes = pixels.transpose(2, 0, 1).tobytes()
    psd = b"8BPS" + half(1) + bytes(6) + half(3) + word(height) + word(width) + half(8) + half(3) + bytes(12) + half(0)
    sun = b"".join(map(word, (0x59A66A95, width, height, 24, pixels.size, 1, 0, 0))) + pixels.tobytes()
    rows = "".join(f'"{"ab" * (width // 2)}",\n' for _ in range(height))
    xpm = f'/* XPM */\nstatic char *x[] = {{\n"{width} {height} 2 1",\n"a c #ff0000",\n"b c #0000ff",\n{rows}}};\n'
    frame = b"\x20\0\0\0\xfa\xf1\1\0" + bytes(8) + b"\6\0\0\0\x0d\0"  # one part, which makes it black
    fli = bytes(4) + b"\x11\xaf" + b"\1\0" + b"\x10\0\x0c\0\x08\0\3\0" + bytes(112) + frame + bytes(10)
    pixar = b"\x80\xe8\0\0" + bytes(412) + b"\x0c\0\x10\0" + bytes(4) + b"\x0e\0\2\0" + bytes(596) + pixels.tobytes()
    return {"a.psd": psd + planes, "a.ras": sun, "a.xpm": xpm.encode(), "a.fli": fli, "a.pxr": pixar}


def mutate(content, rng):
    """One of the ways in which files break: cut short, bits turned, another head, parts swapped, doubled or lost."""
    data = bytearray(content)
    kind = rng.integers(6)
    start, end = sorted(rng.integers(0, len(data) + 1, 2).tolist())
    if kind == 0:
        return bytes(data[:end])
    if kind == 1:
        for place in rng.integers(0, len(data), rng.integers(1, 20)):
            data[place] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        for place in rng.integers(0, min(64, len(data)), rng.integers(1, 6)):
            data[place] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))
    elif kind == 3:
        data = data[end:] + data[start:end] + data[:start] if rng.integers(2) else data[:start] + data[end:]
    elif kind == 4:
        data = data[:end] + data[start:end] * int(rng.integers(1, 4)) + data[end:]
    else:
        place = int(rng.integers(0, max(1, min(len(data) - 8, 200))))
        data[place : place + 4] = rng.choice([b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\x40\0"])
    return bytes(data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_thousand_mutated_files_get_one_row_each(tiny_model, tmp_path):
    rng = np.random.default_rng(14)
    seeds = list(make_seeds().items())
    assert {name.rpartition(".")[2] for name, _ in seeds} >= {"avif", "jp2", "tga", "psd", "xpm", "ico", "qoi"}
    model = tiny_model()
    scorer = {"model": model, "processor": MusiqImageProcessor.from_config(model.config)}
    whole = [row for row in score_pictures([{"bytes": content, "path": name} for name, content in seeds], **scorer)]
    assert {name: row.error for (name, _), row in zip(seeds, whole, strict=True) if row.error is not None} == {}
    paths = []
    for index in range(NUM_FILES):
        name, content = seeds[index % len(seeds)]
        paths.append(tmp_path / f"{index:04}-{name}")
        paths[-1].write_bytes(mutate(content, rng))
    keys, began = [], time.monotonic()
    for row in score_pictures(paths, max_megapixels=4, **scorer):
        seconds, began = time.monotonic() - began, time.monotonic()
        assert seconds < MAX_SECONDS, f"{row.key}: {seconds:.1f} s"
        assert (row.score is None) != (row.error is None) and row.error != ""
        assert row.error is None or "\n" not in row.error
        keys.append(row.key)
    assert keys == [str(path) for path in paths]
