# SPDX-License-Identifier: Apache-2.0
"""The published program's way from file to pixels, against what TensorFlow decoded."""

import base64
import io
import sys

import golden
import numpy as np
import pytest
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.pictures import opening
from musiq_hf.pictures.lazy import LazyPicture
from musiq_hf.pictures.opening import check_preset, has_fast_decoder, open_picture
from musiq_hf.pictures.sources.paths import find_sources
from musiq_hf.scoring.engine import score_pictures

pytest.importorskip("simplejpeg")
JPEG = golden.path("p15_jpeg_200x300")
TURNED = {0x0112: 6}  # EXIF orientation: the upper left corner is to be the upper right one


def jpeg(**options):
    file = io.BytesIO()
    Image.open(JPEG).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def pixels(source, preset):
    picture = source.open(preset) if isinstance(source, LazyPicture) else open_picture(source, preset)
    return np.array(picture.convert("RGB"))


def test_jpeg_is_decoded_as_tensorflow_does():
    decoded = golden.arrays("decoded")
    for preset, name in (("google", "uint8"), ("default", "uint8_accurate_idct")):
        np.testing.assert_array_equal(pixels(JPEG, preset), decoded[f"{JPEG.stem}/{name}"])
    assert (pixels(JPEG, "google") != pixels(JPEG, "default")).any()


@pytest.mark.parametrize(("preset", "name"), [("google", JPEG.stem), ("default", f"{JPEG.stem}@accurate")])
def test_scores_of_a_jpeg_file_are_those_of_the_published_program(golden_model, preset, name):
    model = golden_model("small1")
    processor = MusiqImageProcessor.from_config(model.config)
    (row,) = score_pictures([JPEG], model=model, processor=processor, preset=preset)
    expected = float(golden.arrays("outputs_small1")[f"{name}/score"])
    assert row.score == pytest.approx(expected, abs=golden.LOGIT_TOLERANCE)


@pytest.mark.parametrize("path", sorted(JPEG.parent.glob("*.png")), ids=lambda path: path.stem)
def test_png_is_the_same_by_both(path):
    np.testing.assert_array_equal(pixels(path, "google"), pixels(path, "default"))


def test_all_sources_of_one_file_are_one_picture(tmp_path):
    content = JPEG.read_bytes()
    (tmp_path / "a.jpg").write_bytes(content)
    ((_, lazy),) = find_sources([str(tmp_path)])
    expected = pixels(JPEG, "google")
    for source in (str(JPEG), base64.b64encode(content).decode(), lazy):
        np.testing.assert_array_equal(pixels(source, "google"), expected)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_pictures_are_not_turned(tmp_path, kind):
    exif = Image.Exif()
    exif.update(TURNED)
    path = tmp_path / f"a.{kind}"
    Image.new("RGB", (40, 30), "red").save(path, exif=exif)
    for source in (path, Image.open(path)):
        assert open_picture(source, "google").size == (40, 30)
        assert open_picture(source, "default").size == (30, 40)
        # Nor later, by who takes the picture.
        assert open_picture(open_picture(source, "google"), "default").size == (40, 30)


def test_transparency_of_a_palette_is_kept(tmp_path):
    image = Image.new("P", (4, 4))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.save(tmp_path / "a.png", transparency=0)
    assert open_picture(tmp_path / "a.png", "google").has_transparency_data


def test_gray_and_cmyk_jpeg_files_are_read_as_by_default(tmp_path):
    for mode in ("L", "CMYK"):
        Image.open(JPEG).convert(mode).save(tmp_path / "a.jpg")
        opened = [open_picture(tmp_path / "a.jpg", preset) for preset in opening.PRESETS]
        assert opened[0].mode == opened[1].mode == mode
        np.testing.assert_array_equal(*(np.array(image) for image in opened))


def test_tiff_files_are_turned_by_pillow_either_way(tmp_path):
    exif = Image.Exif()
    exif.update(TURNED)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.tif", exif=exif)
    assert open_picture(tmp_path / "a.tif", "google").size == open_picture(tmp_path / "a.tif").size == (30, 40)


def test_what_the_decoder_refuses_and_pillow_reads_is_read(monkeypatch):
    def refuse(content, **options):
        raise ValueError("Could not determine subsampling level for JPEG image")

    monkeypatch.setattr(opening, "_import_fast_decoder", lambda: refuse)
    np.testing.assert_array_equal(pixels(JPEG, "google"), pixels(JPEG, "default"))


def test_a_damaged_pil_image_is_named(tmp_path):
    Image.open(JPEG).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="a.png: cannot be decoded, the file is truncated or damaged"):
        open_picture(Image.open(tmp_path / "a.png"), "google")


def test_a_file_with_stray_bytes_is_decoded_and_one_cut_short_refused(tmp_path):
    content = jpeg(restart_marker_blocks=4)
    marker = content.index(b"\xff\xd0")
    (tmp_path / "stray.jpg").write_bytes(content[:marker] + b"\x00\x00\x00" + content[marker:])
    (tmp_path / "short.jpg").write_bytes(content[: len(content) // 2])
    assert pixels(tmp_path / "stray.jpg", "google").shape == (200, 300, 3)
    with pytest.raises(ValueError, match="short.jpg: cannot be decoded, the file is truncated"):
        open_picture(tmp_path / "short.jpg", "google")
    (tmp_path / "no.jpg").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="no.jpg: not a picture"):
        open_picture(tmp_path / "no.jpg", "google")


def test_decompression_bombs_are_refused(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="safety limit"):
        open_picture(JPEG, "google")


def test_without_the_decoder_pillow_decodes(monkeypatch, request):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    opening._import_fast_decoder.cache_clear()
    request.addfinalizer(opening._import_fast_decoder.cache_clear)
    assert not has_fast_decoder()
    np.testing.assert_array_equal(pixels(JPEG, "google"), pixels(JPEG, "default"))


def test_an_unknown_preset_is_named():
    with pytest.raises(ValueError, match="one of default, google, got 'tf'"):
        check_preset("tf")


def test_undecodable_picture_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    with pytest.raises(ValueError, match="broken.jpg"):
        open_picture({"path": str(tmp_path / "broken.jpg"), "bytes": None})
