# SPDX-License-Identifier: Apache-2.0
"""Formats that are opened, and files that look like pictures and are refused."""

import base64
import io
import struct

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from musiq_hf.models.musiq import image_formats_musiq
from musiq_hf.models.musiq.image_formats_musiq import FORMATS, HEIF_SUFFIXES, PICTURE_SUFFIXES, RAW_SUFFIXES
from musiq_hf.models.musiq.image_loading_musiq import decode_image, load_image
from musiq_hf.pictures.opening import PRESETS, open_picture

RGB = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)
# Formats with endings that are left out, see the file.
LEFT_OUT = {"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG", "FITS", "GBR", "PCD", "IPTC"}
LOSSY = {"JPEG", "WEBP", "AVIF", "GIF"}
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 12\n%%EndComments\nshowpage\n%%EOF\n"
HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf" + bytes(64)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def list_writable():
    Image.init()
    return [kind for kind in FORMATS if kind in Image.SAVE]


def test_every_format_that_pillow_decodes_by_itself_is_listed():
    Image.init()
    known = {suffix: kind for suffix, kind in Image.EXTENSION.items() if kind in Image.OPEN and kind not in LEFT_OUT}
    assert {suffix for suffix, kind in known.items() if kind != "HEIF"} <= set(PICTURE_SUFFIXES)
    assert set(FORMATS) <= set(Image.OPEN)
    assert not set(PICTURE_SUFFIXES) & set(RAW_SUFFIXES) and len(set(PICTURE_SUFFIXES)) == len(PICTURE_SUFFIXES)


@pytest.mark.parametrize("kind", list_writable())
def test_a_file_of_each_format_is_opened_from_path_and_bytes(kind, tmp_path):
    mode = {"MSP": "1", "XBM": "1", "BLP": "P"}.get(kind, "RGB")
    image = Image.fromarray(RGB).resize((16, 16) if kind in ("ICO", "ICNS") else (20, 12)).convert(mode)
    content = encoded(image, kind, **({"sizes": [(16, 16)]} if kind == "ICO" else {}))
    for suffix in FORMATS[kind]:
        path = tmp_path / f"picture{suffix}"
        path.write_bytes(content)
        decoded = decode_image(str(path), path.name)
        assert decoded.tobytes() == decode_image(io.BytesIO(content), f"shard.tar::picture{suffix}").tobytes()
        if kind not in LOSSY and decoded.size == image.size and decoded.mode == mode:
            assert decoded.tobytes() == image.tobytes()


@pytest.mark.parametrize("open_it", [open_picture, lambda path: open_picture(path, "google")])
@pytest.mark.parametrize("name", ["picture.jpg", "picture.eps", "picture", "picture.tga"])
def test_postscript_is_never_run(open_it, name, tmp_path, monkeypatch):
    def run(*arguments, **options):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    path = tmp_path / name
    path.write_bytes(POSTSCRIPT)
    for source in (
        str(path),
        {"bytes": POSTSCRIPT, "path": None},
        Image.open(path, formats=["EPS"]),
    ):
        with pytest.raises(ValueError, match="a PostScript program, which is never run. Convert it to PNG or JPEG"):
            open_it(source)
    with pytest.raises(ValueError, match="The base64 text is not a picture"):
        open_it("data:image/png;base64," + base64.b64encode(POSTSCRIPT).decode())


def test_a_picture_that_its_owner_has_decoded_is_taken_whatever_its_format(tmp_path):
    image = Image.fromarray(RGB)
    image.format = "EPS"
    assert (np.array(load_image(image)) == RGB).all()


@pytest.mark.parametrize("name", ["a.dng", "a.NEF", "shard.tar::a.cr2", "https://example.com/a.arw?size=1"])
def test_raw_files_are_refused_by_their_endings(name):
    with pytest.raises(ValueError, match="a camera's RAW file, whose pixels are not developed yet. Develop it"):
        decode_image(io.BytesIO(encoded(Image.fromarray(RGB), "TIFF")), name)


@pytest.mark.parametrize(
    ("tags", "is_raw"),
    [
        ({50706: b"\1\4\0\0"}, True),
        ({254: 1, 330: 8}, True),  # its first picture is a small copy of one below it
        ({254: 1}, False),
        ({330: 8}, False),
        ({271: "Canon"}, False),
        ({}, False),
    ],
)
@pytest.mark.parametrize("is_loaded", [False, True])
def test_raw_files_are_refused_by_their_tags(tags, is_raw, is_loaded, tmp_path):
    path = tmp_path / "a.tif"
    path.write_bytes(encoded(Image.fromarray(RGB), "TIFF", tiffinfo=tags))
    pictures = [Image.open(path), Image.open(io.BytesIO(path.read_bytes()))]
    for picture in pictures:
        if is_loaded:  # as `datasets` hands it over
            picture.load()
    for source in (str(path), {"bytes": path.read_bytes(), "path": None}, *pictures):
        for preset in PRESETS:
            if not is_raw:
                assert (np.array(open_picture(source, preset)) == RGB).all()
                continue
            with pytest.raises(ValueError, match="a camera's RAW file"):
                open_picture(source, preset)


def test_raw_files_of_canon_are_refused_before_and_after_they_are_loaded(tmp_path):
    content = encoded(Image.fromarray(RGB), "TIFF")
    first, rest = struct.unpack_from("<I", content, 4)[0], content[8:]
    assert first == 8
    # Its first directory stands behind a longer head; the places in it are moved by as much.
    path = tmp_path / "a.tif"
    path.write_bytes(b"II*\0" + struct.pack("<I", 16) + b"CR\2\0" + bytes(4) + move(rest, by=8))
    closed = Image.open(path)
    closed.load()
    for source in (str(path), Image.open(path), Image.open(io.BytesIO(path.read_bytes())), closed):
        with pytest.raises(ValueError, match="a camera's RAW file"):
            load_image(source) if not isinstance(source, str) else decode_image(source, source)


def move(directory, *, by):
    """Move the places that a TIFF directory names; entries of at most 4 bytes hold their values themselves."""
    moved, (count,) = bytearray(directory), struct.unpack_from("<H", directory)
    for entry in range(2, 2 + 12 * count, 12):
        tag, kind, number, value = struct.unpack_from("<HHII", moved, entry)
        if tag == 273 or number * {3: 2, 4: 4, 5: 8}.get(kind, 1) > 4:
            struct.pack_into("<I", moved, entry + 8, value + by)
    return bytes(moved)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("name", ["a.raw", "a.mos", "a.fff", "a.DNG"])
def test_other_pictures_with_the_ending_of_raw_files_are_read(kind, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(encoded(Image.fromarray(RGB), kind))
    expected = np.array(Image.open(path).convert("RGB"))
    for source in (str(path), {"bytes": path.read_bytes(), "path": name}, Image.open(path)):
        assert (np.array(open_picture(source)) == expected).all()


def test_unknown_content_with_the_ending_of_raw_files_is_taken_for_one():
    for content in (encoded(Image.fromarray(RGB), "TGA"), bytes(100), b"unknown"):
        with pytest.raises(ValueError, match="a.raw: a camera's RAW file"):
            decode_image(io.BytesIO(content), "a.raw")


@pytest.mark.parametrize("head", [b"FUJIFILMCCD-RAW 0201", b"\0\0\0\x18ftypcrx \0\0\0\1", b"IIU\0" + bytes(20)])
def test_raw_files_without_an_ending_are_known_by_their_first_bytes(head):
    with pytest.raises(ValueError, match="a camera's RAW file"):
        decode_image(io.BytesIO(head + bytes(100)), "picture")


@pytest.mark.parametrize(("content", "name"), [(HEIC, "a.jpg"), (HEIC, "a.heic"), (b"damaged", "a.HEIC")])
def test_heif_names_the_extra_where_it_is_missing(content, name, monkeypatch):
    monkeypatch.setattr(image_formats_musiq, "list_formats", lambda: tuple(FORMATS))
    with pytest.raises(ValueError, match=r'needs pillow-heif. Install it with: pip install "musiq_hf\[heic\]"'):
        decode_image(io.BytesIO(content), name)


def test_heif_is_read_where_the_extra_is_installed(tmp_path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    content = encoded(Image.fromarray(RGB), "HEIF", quality=-1, chroma=444)
    for suffix in HEIF_SUFFIXES:
        path = tmp_path / f"a{suffix}"
        path.write_bytes(content)
        assert np.abs(np.array(open_picture(str(path))).astype(int) - RGB).max() < 8


def test_what_looks_like_tga_is_read_as_tga_only_by_its_name():
    content = encoded(Image.fromarray(RGB), "TGA")
    assert (np.array(decode_image(io.BytesIO(content), "a.tga")) == RGB).all()
    assert (np.array(decode_image(io.BytesIO(content), "picture in the data set")) == RGB).all()
    with pytest.raises(ValueError, match="a.ico: not a picture that Pillow can read"):
        decode_image(io.BytesIO(content), "a.ico")


SVG = b"<?xml version='1.0'?>\n<!-- made by <b>hand</b> -->\n<!DOCTYPE svg PUBLIC 'a' \"b\">\n<svg width='9'></svg>"


@pytest.mark.parametrize("name", ["a.jpg", "a.heic", "a.nef", "a"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file. Copy or download it again"),
        (b"<!DOCTYPE html>\n<html><body>404</body></html>", "a web page, not a picture. Open it in a browser"),
        (b"\xef\xbb\xbf \n<HTML lang=de>", "a web page, not a picture"),
        (SVG, "an SVG drawing, which has no pixels of its own. Draw it to PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"%PDF-1.7\n", "a PDF document, not a picture. Convert its pages to PNG"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid",
            "a pointer of Git LFS, not the picture. Run: git lfs pull",
        ),
        (b"\0\0\0\x18ftypmp42\0\0\0\0", "a video, not a picture"),
        (b"RIFF\0\0\0\0AVI LIST", "a video, not a picture"),
        (b"\xff\x0a" + bytes(9), "a JPEG XL picture, which Pillow does not read"),
        (
            encoded(Image.fromarray(RGB), "PNG")[:12],
            "a picture that is damaged or cut short. Copy or download it again",
        ),
        (encoded(Image.fromarray(RGB), "JPEG")[:3], "a picture that is damaged or cut short"),
        (b"\0\0\0\x1cftypavif", "a picture that is damaged or cut short"),
    ],
)
def test_the_message_fits_the_content_whatever_the_ending(content, reason, name, tmp_path):
    (tmp_path / name).write_bytes(content)
    for source in (tmp_path / name, io.BytesIO(content)):
        with pytest.raises(ValueError) as caught:
            decode_image(source, name)
        assert str(caught.value).startswith(f"{name}: {reason}")


@pytest.mark.parametrize("part", [b"<?a?>", b"<!---->", b"<!doctype a>", b"<!doctype [", b"<!doctype []"])
def test_no_document_takes_long_to_recognize(part):
    """Alternatives that look back would try each way to part these, of which there are more than 2 to the 300."""
    assert image_formats_musiq._recognize_content(part * 300) is None


def test_a_file_that_may_not_be_read_has_its_own_sentence(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "a.png"
    path.write_bytes(encoded(Image.fromarray(RGB), "PNG"))
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ValueError, match="a.png: may not be read. Change the permissions of the file"):
        load_image(path)
