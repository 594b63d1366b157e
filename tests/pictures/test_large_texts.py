# SPDX-License-Identifier: Apache-2.0
"""PNG files with texts and profiles that are too large for Pillow, around pixels that are whole.

The limits are lowered, so that small files go beyond them.
"""

import io
import struct
import tarfile
import threading
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from musiq_hf.models.musiq import image_formats_musiq
from musiq_hf.models.musiq.image_loading_musiq import decode_image, load_image, read_header
from musiq_hf.pictures.opening import open_picture
from musiq_hf.pictures.sources.paths import find_sources

RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
LARGE = 2 << 14  # bytes, more than Pillow decodes of one text here
XMP = '<x:xmpmeta tiff:Orientation="6"/>'


def make_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def insert(content, chunks, *, at_end=False):
    """Add chunks behind the header of a PNG file, or before its end mark."""
    place = content.rindex(b"IEND") - 4 if at_end else 33
    return content[:place] + chunks + content[place:]


def encoded(**options):
    file = io.BytesIO()
    Image.fromarray(RGB).save(file, "PNG", **options)
    return file.getvalue()


def pack(keyword, text):
    return make_chunk(b"zTXt", keyword + b"\0\0" + zlib.compress(text))


def pack_international(keyword, text):
    return make_chunk(b"iTXt", keyword + b"\0\1\0en\0\0" + zlib.compress(text))


CHUNKS = {
    "zTXt": pack(b"parameters", b"x" * LARGE),
    "iTXt": pack_international(b"prompt", b"x" * LARGE),
    "many zTXt": b"".join(pack(b"k%d" % i, b"x" * 16_000) for i in range(70)),
    "many tEXt": make_chunk(b"tEXt", b"a\0" + b"x" * (600 << 10)) + make_chunk(b"tEXt", b"b\0" + b"x" * (600 << 10)),
    "profile": make_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(LARGE))),
    "XMP": pack_international(b"XML:com.adobe.xmp", b" " * LARGE),
    "all": pack(b"a", b"x" * LARGE) + make_chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(LARGE))),
}


@pytest.fixture(autouse=True)
def low_limits(monkeypatch):
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1 << 14)
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_MEMORY", 1 << 20)
    monkeypatch.setattr(image_formats_musiq, "LONGEST_TEXT", 1 << 20)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", CHUNKS)
def test_pillow_alone_refuses_them(name, at_end):
    with pytest.raises(ValueError, match="MAX_TEXT|too large"):
        Image.open(io.BytesIO(insert(encoded(), CHUNKS[name], at_end=at_end))).load()


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("name", CHUNKS)
def test_pixels_are_read_whatever_the_texts(name, at_end, tmp_path):
    content = insert(encoded(), CHUNKS[name], at_end=at_end)
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(path, "a.png")
    ((_, member),) = find_sources([str(tmp_path / "a.tar")])
    pictures = [
        open_picture(str(path)),
        open_picture(str(path), "google"),
        open_picture({"bytes": content, "path": None}),
        member.open(),
    ]
    if at_end:  # Pillow opens it, and fails where it is decoded
        pictures += [load_image(Image.open(file)) for file in (path, io.BytesIO(content))]
    assert all((np.array(picture) == RGB).all() for picture in pictures)
    assert read_header(str(path), "a.png").size == (20, 12)


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("size", [0, LARGE])
@pytest.mark.parametrize(
    "pack_text",
    [
        lambda size: pack_international(b"XML:com.adobe.xmp", XMP.encode() + b" " * size),
        lambda size: pack(b"Raw profile type exif", make_raw_exif() + b"\n" * size),
        lambda size: make_chunk(b"eXIf", make_exif()) + pack(b"a", b"x" * size),
    ],
)
def test_texts_that_turn_a_picture_still_turn_it(pack_text, size, at_end, tmp_path):
    content = insert(encoded(), CHUNKS["zTXt"] + pack_text(size), at_end=at_end)
    turned = np.rot90(RGB, -1)
    assert (np.array(decode_image(io.BytesIO(content), "a.png")) == turned).all()
    if at_end:
        assert (np.array(load_image(Image.open(io.BytesIO(content)))) == turned).all()


def make_turned_at_the_end(tmp_path):
    """Write a picture whose orientation stands behind a text that Pillow refuses."""
    content = insert(encoded(), CHUNKS["zTXt"] + make_chunk(b"eXIf", make_exif()), at_end=True)
    path = tmp_path / "a.png"
    path.write_bytes(content)
    return path, content, np.rot90(RGB, -1)


def test_a_picture_is_the_same_each_time_it_is_loaded(tmp_path):
    path, content, turned = make_turned_at_the_end(tmp_path)
    for file in (path, io.BytesIO(content)):
        picture = Image.open(file)
        assert all((np.array(load_image(picture)) == turned).all() for _ in range(3))


@pytest.mark.parametrize("is_closed", [False, True])
def test_a_picture_whose_loading_was_broken_off_before_is_read_again(is_closed, tmp_path):
    path, content, turned = make_turned_at_the_end(tmp_path)
    pictures = [Image.open(path)] if is_closed else [Image.open(path), Image.open(io.BytesIO(content))]
    for picture in pictures:
        with pytest.raises(ValueError, match="MAX_TEXT|too large"):
            picture.load()
        if is_closed:
            picture.close()
        assert (np.array(load_image(picture)) == turned).all()
        assert (np.array(open_picture(picture, "google")) == RGB).all()


def test_a_picture_whose_file_is_gone_is_an_error_each_time(tmp_path):
    path, _, _ = make_turned_at_the_end(tmp_path)
    picture = Image.open(path)
    with pytest.raises(ValueError, match="MAX_TEXT|too large"):
        picture.load()
    picture.close()
    path.unlink()
    for _ in range(2):
        with pytest.raises(ValueError, match="a.png: cannot be decoded"):
            load_image(picture)


def test_a_text_that_is_cut_short_is_an_error_each_time(tmp_path):
    path = tmp_path / "a.png"
    content = insert(encoded(), CHUNKS["many tEXt"][: 600 << 10], at_end=True)
    path.write_bytes(content[: content.rindex(b"IEND") - 5000])
    picture = Image.open(path)
    for source in (path, picture, picture, picture):
        with pytest.raises(ValueError, match="a.png: cannot be decoded"):
            load_image(source)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_damaged_picture_is_an_error_each_time(kind):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)).save(file, kind)
    content = bytearray(file.getvalue())
    if kind == "JPEG":
        del content[len(content) // 2 :]
    else:
        content[len(content) // 2 : len(content) // 2 + 100] = bytes(100)
    picture = Image.open(io.BytesIO(bytes(content)))
    for _ in range(3):
        with pytest.raises(ValueError, match="cannot be decoded"):
            load_image(picture)


def make_exif():
    exif = Image.Exif()
    exif[274] = 6
    return exif.tobytes().removeprefix(b"Exif\0\0")


def make_raw_exif():
    body = (b"Exif\0\0" + make_exif()).hex().encode()
    return b"\nexif\n%8d\n" % (len(body) // 2) + body


def test_transparency_and_palette_are_kept():
    image = Image.fromarray(RGB).quantize(8)
    file = io.BytesIO()
    image.save(file, "PNG", transparency=3)
    plain = decode_image(io.BytesIO(file.getvalue()), "a.png")
    read = decode_image(io.BytesIO(insert(file.getvalue(), CHUNKS["zTXt"])), "a.png")
    assert read.convert("RGBA").tobytes() == plain.convert("RGBA").tobytes()


def test_damage_is_still_damage():
    content = insert(encoded(), CHUNKS["zTXt"])
    with pytest.raises(ValueError, match="a.png: cannot be decoded, the file is truncated or damaged"):
        decode_image(io.BytesIO(content[:-200]), "a.png")


def test_texts_that_turn_a_picture_and_are_endless_are_an_error():
    content = insert(encoded(), pack_international(b"XML:com.adobe.xmp", bytes(2 << 20)))
    with pytest.raises(ValueError, match="a.png: .*MAX_TEXT"):
        decode_image(io.BytesIO(content), "a.png")


def test_the_limits_of_other_code_stay():
    content = insert(encoded(), CHUNKS["zTXt"])
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    stop, refused = threading.Event(), []

    def watch():
        while not stop.is_set():
            try:
                Image.open(io.BytesIO(content))
                refused.append(False)
            except ValueError:
                refused.append(True)

    thread = threading.Thread(target=watch)
    thread.start()
    for _ in range(30):
        decode_image(io.BytesIO(content), "a.png")
    stop.set()
    thread.join()
    assert refused and all(refused)
    assert limits == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY)
