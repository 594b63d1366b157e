# SPDX-License-Identifier: Apache-2.0
import base64
import io
import os
import struct

import golden
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, PngImagePlugin

from musiq_hf.models.musiq.image_loading_musiq import decode_image, load_image, to_rgb_tensor
from musiq_hf.pictures.opening import open_picture, shrink_shorter_side

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (12, 20, 3), dtype=np.uint8)
UNIT = torch.from_numpy(RGB).float() / 255


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def rgb_of(image):
    return to_rgb_tensor(load_image(image))


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(Image.fromarray(RGB)))
    return path


# Files


@pytest.mark.parametrize("convert", [str, lambda path: path], ids=["str", "Path"])
def test_path_is_read(png, convert):
    assert torch.equal(rgb_of(convert(png)), UNIT)


@pytest.mark.parametrize("header", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("wrap", [False, True])
def test_base64_is_read(png, header, wrap):
    text = (base64.encodebytes if wrap else base64.b64encode)(png.read_bytes()).decode()
    assert torch.equal(rgb_of(header + text), UNIT)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no-such-picture.jpg: no such file, and neither a URL nor a base64"):
        load_image(tmp_path / "no-such-picture.jpg")


def test_long_text_is_cut_in_the_message():
    with pytest.raises(FileNotFoundError) as raised:
        load_image("?" * 5000)
    assert len(str(raised.value)) < 400


def test_base64_of_something_else_raises():
    text = base64.b64encode(b"this is no picture").decode()
    with pytest.raises(ValueError, match="The base64 text is not a picture. Check that it was copied whole"):
        load_image("data:image/png;base64," + text)
    with pytest.raises(FileNotFoundError, match="neither a URL nor a base64 picture"):
        load_image(text)


def test_directory_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path.name}: is a directory. Pass the pictures in it"):
        load_image(tmp_path)


def test_text_file_is_named(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a picture")
    with pytest.raises(ValueError, match="notes.txt: not a picture that Pillow can read. Convert it"):
        load_image(path)


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_truncated_file_is_named(tmp_path, format):
    content = encoded(Image.fromarray(RGB.repeat(10, 0).repeat(10, 1)), format)
    path = tmp_path / f"half.{format.lower()}"
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=f"half.{format.lower()}: cannot be decoded.*truncated"):
        load_image(path)
    with (
        Image.open(path) as lazy,
        pytest.raises(ValueError, match="cannot be decoded, the file is truncated or damaged"),
    ):
        load_image(lazy)


def test_picture_beyond_pillows_limit_names_the_limit(png, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(ValueError, match="picture.png: more pixels than Pillow's safety limit.*MAX_IMAGE_PIXELS"):
        load_image(png)


@pytest.mark.parametrize("source", [3, None, {"image": 1}])
def test_other_types_raise(source):
    expected = "must be a path, URL, base64 text, bytes, binary file or PIL image"
    with pytest.raises(TypeError, match=f"{expected}, got {type(source).__name__}"):
        load_image(source)


def test_bytes_and_open_files_are_pictures(png):
    content, expected = png.read_bytes(), np.array(load_image(png))
    with open(png, "rb") as file, open(png, "rb") as read:
        read.seek(20)  # its start counts
        for source in (content, bytearray(content), memoryview(content), io.BytesIO(content), file, read, read):
            np.testing.assert_array_equal(load_image(source), expected)
    with pytest.raises(ValueError, match="^picture in memory: not a picture"):
        load_image(b"bytes")
    with pytest.raises(TypeError, match="opened in binary mode, got one that reads str"):
        load_image(io.StringIO("text"))
    (damaged := png.with_name("damaged.png")).write_bytes(content[:-30])
    with open(damaged, "rb") as file, pytest.raises(ValueError, match="damaged.png: cannot be decoded"):
        load_image(file)


def test_decoding_a_buffer_uses_the_given_name(png):
    assert torch.equal(to_rgb_tensor(decode_image(io.BytesIO(png.read_bytes()), "row 3")), UNIT)
    with pytest.raises(ValueError, match="row 3: not a picture"):
        decode_image(io.BytesIO(b"nothing"), "row 3")


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_to_files_and_to_opened_pictures(tmp_path, orientation):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(RGB).save(path, exif=exif)
    upright = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        7: np.rot90(RGB, 2).transpose(1, 0, 2),
        8: np.rot90(RGB, 1),
    }[orientation]
    expected = torch.from_numpy(upright.copy()).float() / 255
    assert torch.equal(rgb_of(path), expected)
    with Image.open(path) as lazy:
        assert torch.equal(to_rgb_tensor(lazy), expected)
    assert torch.equal(to_rgb_tensor(load_image(path)), expected)  # not turned twice


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("content", [b"II*\x00\xff\xff\xff\x7f", b"garbage", b""])
def test_damaged_exif_data_do_not_hinder(tmp_path, content):
    path = tmp_path / "damaged.jpg"
    Image.fromarray(RGB).save(path, exif=b"Exif\x00\x00" + content)
    plain = Image.open(io.BytesIO(encoded(Image.fromarray(RGB), "JPEG")))
    assert torch.equal(rgb_of(path), to_rgb_tensor(plain))


def write_exif(tag, kind, value, content=b""):
    """Make EXIF data with the orientation 6 and one more entry, as Pillow itself would not write them."""
    entries = [(0x0112, 3, struct.pack("<HH", 6, 0)), (tag, kind, value or struct.pack("<I", 38))]
    body = b"".join(struct.pack("<HHI", tag, kind, 1) + value for tag, kind, value in entries)
    return b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", 2) + body + bytes(4) + content


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "entry",
    [
        (0x011A, 10, b"", struct.pack("<ii", -1, 0)),  # a signed ratio, -1/0
        (0x011A, 5, b"", struct.pack("<II", 0, 0)),
        (0x011A, 9, struct.pack("<i", -5)),
        (0x011A, 11, struct.pack("<f", float("nan"))),
        (0x0100, 11, struct.pack("<f", float("inf"))),
        (0x0111, 4, struct.pack("<I", 2**32 - 1)),
        (0x8769, 4, struct.pack("<I", 2**32 - 1)),  # another block, far behind the end
        (0xFFFF, 13, struct.pack("<I", 2**31)),
    ],
)
def test_of_exif_data_only_the_orientation_matters(tmp_path, format, entry):
    path, plain = tmp_path / "turned", tmp_path / "plain"
    lossless = {"WEBP": {"lossless": True}}.get(format, {})
    Image.fromarray(RGB).save(path, format, exif=write_exif(*entry), **lossless)
    Image.fromarray(RGB).save(plain, format, **lossless)
    upright = rgb_of(plain).rot90(-1)
    assert torch.equal(rgb_of(path), upright)
    assert torch.equal(to_rgb_tensor(load_image(path)), upright)  # not turned twice
    with Image.open(path) as lazy:
        assert torch.equal(to_rgb_tensor(lazy), upright)


# Failures


@pytest.mark.parametrize(
    "error", [struct.error("short"), IndexError("x"), KeyError("k"), AttributeError(), AssertionError(), MemoryError()]
)
@pytest.mark.parametrize("method", ["load", "getexif", "convert"])
def test_whatever_pillow_raises_names_the_picture(tmp_path, monkeypatch, error, method):
    path = tmp_path / "bad.png"
    Image.fromarray(RGB).quantize(16).save(path)

    def fail(*arguments, **options):
        raise error

    lazy = Image.open(path)
    monkeypatch.setattr(PngImagePlugin.PngImageFile if method == "load" else Image.Image, method, fail)
    for source in (path, lazy):
        if method == "getexif":  # damaged EXIF data do not hinder
            assert rgb_of(source).shape == (12, 20, 3)
        else:
            with pytest.raises(ValueError, match="bad.png: cannot be decoded, the file is truncated or damaged"):
                rgb_of(source)
    if method == "load":
        with pytest.raises(ValueError, match="bad.png: cannot be decoded"):
            open_picture({"path": str(path), "bytes": None}, "google")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ValueError, match="pipe.png: not a regular file"):
        load_image(tmp_path / "pipe.png")


# Colour modes


def test_gray_is_repeated():
    gray = Image.fromarray(RGB[..., 0])
    assert torch.equal(to_rgb_tensor(gray), UNIT[..., :1].expand(-1, -1, 3))


def test_black_and_white_is_0_and_1():
    bits = RGB[..., 0] > 127
    rgb = to_rgb_tensor(Image.fromarray(bits))
    assert torch.equal(rgb, torch.from_numpy(bits).float()[..., None].expand(-1, -1, 3))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_white(mode):
    channels = {"RGBA": 4, "LA": 2}[mode]
    pixels = RNG.integers(0, 256, (12, 20, channels), dtype=np.uint8)
    alpha = pixels[..., -1:] / 255
    expected = np.broadcast_to(pixels[..., :-1] / 255 * alpha + (1 - alpha), (12, 20, 3))
    for image in (Image.fromarray(pixels, mode), Image.open(io.BytesIO(encoded(Image.fromarray(pixels, mode))))):
        np.testing.assert_allclose(to_rgb_tensor(image), expected, atol=1e-6)
    np.testing.assert_allclose(to_rgb_tensor(pixels), expected, atol=1e-6)


def test_fully_transparent_is_white_and_opaque_is_unchanged():
    rgba = np.concatenate((RGB, np.zeros((12, 20, 1), np.uint8)), axis=2)
    assert torch.equal(to_rgb_tensor(rgba), torch.ones(12, 20, 3))
    rgba[..., 3] = 255
    assert torch.equal(to_rgb_tensor(rgba), UNIT)


def test_palette_becomes_its_colours():
    palette = Image.fromarray(RGB).quantize(16)
    assert torch.equal(to_rgb_tensor(palette), to_rgb_tensor(np.array(palette.convert("RGB"))))


def test_transparent_palette_entry_is_white(tmp_path):
    palette = Image.fromarray(RGB).quantize(16)
    path = tmp_path / "transparent.png"
    palette.save(path, transparency=3)
    expected = np.array(palette.convert("RGB"))
    expected[np.array(palette) == 3] = 255
    assert (np.array(palette) == 3).any()
    assert torch.equal(rgb_of(path), torch.from_numpy(expected).float() / 255)


def test_transparent_colour_of_an_rgb_file_is_white(tmp_path):
    path = tmp_path / "key.png"
    Image.fromarray(RGB).save(path, transparency=tuple(int(value) for value in RGB[2, 3]))
    expected = UNIT.clone()
    expected[(RGB == RGB[2, 3]).all(-1)] = 1.0
    assert torch.equal(rgb_of(path), expected)


def test_cmyk_becomes_rgb(tmp_path):
    image = Image.fromarray(RGB).convert("CMYK")
    path = tmp_path / "print.tif"
    image.save(path)
    assert torch.equal(rgb_of(path), to_rgb_tensor(np.array(image.convert("RGB"))))


def test_sixteen_bits_are_scaled_not_saturated(tmp_path):
    pixels = RNG.integers(0, 65536, (12, 20), dtype=np.uint16)
    path = tmp_path / "sixteen.png"
    Image.fromarray(pixels).save(path)
    image = load_image(path)
    assert image.mode == "I;16"
    expected = (pixels / 65535)[..., None].repeat(3, axis=2)
    np.testing.assert_allclose(to_rgb_tensor(image), expected, atol=1e-6)
    saturated = np.asarray(image.convert("RGB")) / 255
    assert np.abs(expected - saturated).max() > 0.5
    # Finer than 8 bits: two neighbouring values stay apart.
    assert not torch.equal(*(to_rgb_tensor(np.full((1, 1), value, np.uint16)) for value in (1000, 1001)))


def test_big_endian_sixteen_bits_are_turned_around():
    pixels = np.array([[0, 1, 256, 65535]], np.uint16)
    image = Image.frombytes("I;16B", (4, 1), pixels.astype(">u2").tobytes())
    np.testing.assert_allclose(to_rgb_tensor(image)[0, :, 0], pixels[0] / 65535, atol=1e-7)
    np.testing.assert_allclose(to_rgb_tensor(pixels.astype(">u2"))[0, :, 0], pixels[0] / 65535, atol=1e-7)


@pytest.mark.parametrize("bits", ["int32", "int16"])
@pytest.mark.parametrize("largest", [255, 30000, 70000])
def test_integers_of_unknown_range_are_refused_not_guessed(tmp_path, bits, largest):
    pixels = np.array([[0, min(largest, np.iinfo(bits).max)]], np.int32)
    path = tmp_path / "measured.tif"
    if bits == "int16":
        Image.frombytes("I;16", (2, 1), pixels.astype(np.int16).tobytes()).save(path, tiffinfo={339: 2})
    else:
        Image.fromarray(pixels).save(path)
    assert Image.open(path).tag_v2[339] == (2,)  # signed
    for image in (Image.fromarray(pixels), Image.open(path), load_image(path)):
        assert image.mode == "I"
        with pytest.raises(ValueError, match=r"32-bit integer pixels have no known range. Scale them to uint16, 0"):
            to_rgb_tensor(image)


@pytest.mark.parametrize("largest", [1023, 4095, 65535])
def test_gray_files_that_name_their_largest_value_are_scaled_by_it(tmp_path, largest):
    path = tmp_path / "camera.pgm"
    path.write_bytes(b"P5 3 1 %d\n" % largest + np.array([0, largest // 3, largest], ">u2").tobytes())
    for image in (load_image(path), Image.open(path)):
        np.testing.assert_allclose(to_rgb_tensor(image)[0, :, 1], [0, 1 / 3, 1], atol=2e-5)


def test_float_mode_is_the_unit_range():
    pixels = RNG.random((4, 5), dtype=np.float32)
    assert torch.equal(to_rgb_tensor(Image.fromarray(pixels))[..., 1], torch.from_numpy(pixels))
    with pytest.raises(ValueError, match=r"float pixels must lie in 0..1, got .*\.\.255"):
        to_rgb_tensor(Image.fromarray(pixels * 0 + 255))


def test_only_rgb_is_accepted_without_conversion():
    assert torch.equal(to_rgb_tensor(Image.fromarray(RGB), do_convert_rgb=False), UNIT)
    for pixels, channels in ((RGB[..., 0], 1), (np.dstack((RGB, RGB[..., :1])), 4)):
        with pytest.raises(ValueError, match=f"an RGB picture was expected, got {channels} channels. Set `do_conv"):
            to_rgb_tensor(Image.fromarray(pixels), do_convert_rgb=False)


# Arrays and tensors


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_float_arrays_are_the_unit_range(dtype):
    pixels = (RGB / 255).astype(dtype)
    assert torch.equal(to_rgb_tensor(pixels), torch.from_numpy(pixels.astype(np.float32)))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_float_tensors_are_the_unit_range(dtype):
    pixels = UNIT.permute(2, 0, 1).to(dtype)
    rgb = to_rgb_tensor(pixels)
    assert rgb.dtype == torch.float32
    assert torch.equal(rgb, pixels.float().permute(1, 2, 0))


def test_sixteen_bit_tensors_are_scaled():
    pixels = torch.tensor([[0, 1, 65535]], dtype=torch.uint16)
    np.testing.assert_allclose(to_rgb_tensor(pixels)[0, :, 0], [0, 1 / 65535, 1], atol=1e-9)


def test_read_only_reversed_and_sliced_arrays_are_read():
    frozen = RGB.copy()
    frozen.flags.writeable = False
    assert torch.equal(to_rgb_tensor(frozen), UNIT)
    assert torch.equal(to_rgb_tensor(RGB[::-1, ::-1]), UNIT.flip(0, 1))
    assert torch.equal(to_rgb_tensor(RGB[..., ::-1]), UNIT.flip(2))
    assert torch.equal(to_rgb_tensor(RGB[::2, 1::3]), UNIT[::2, 1::3])
    assert torch.equal(to_rgb_tensor(np.asfortranarray(RGB)), UNIT)


def test_result_shares_no_memory_with_an_array():
    pixels = np.full((2, 2, 3), 0.5, np.float32)
    rgb = to_rgb_tensor(pixels)
    pixels[:] = 0
    assert (rgb == 0.5).all()


def test_layout_is_inferred_from_the_channels():
    chw = RGB.transpose(2, 0, 1)
    assert torch.equal(to_rgb_tensor(chw), UNIT)
    assert torch.equal(to_rgb_tensor(torch.from_numpy(RGB)), UNIT)
    assert torch.equal(to_rgb_tensor(torch.from_numpy(chw.copy())), UNIT)
    assert torch.equal(to_rgb_tensor(RGB[..., 0]), UNIT[..., :1].expand(-1, -1, 3))


def test_ambiguous_layout_is_channels_last_for_arrays_and_first_for_tensors():
    pixels = RNG.integers(0, 256, (3, 8, 3), dtype=np.uint8)  # 3 rows or 3 channels
    tensor = torch.from_numpy(pixels)
    as_rows, as_channels = tensor.float() / 255, tensor.permute(1, 2, 0).float() / 255
    assert torch.equal(to_rgb_tensor(pixels), as_rows)
    assert torch.equal(to_rgb_tensor(tensor), as_channels)
    assert torch.equal(to_rgb_tensor(pixels, input_data_format="channels_first"), as_channels)
    assert torch.equal(to_rgb_tensor(tensor, input_data_format="channels_last"), as_rows)


def test_layout_of_a_pil_image_is_never_overridden():
    image = Image.fromarray(RGB[:3])
    assert torch.equal(to_rgb_tensor(image, input_data_format="channels_first"), UNIT[:3])


def test_layout_that_does_not_fit_raises():
    with pytest.raises(ValueError, match=r"`input_data_format='channels_first'` does not fit shape \(12, 20, 3\)"):
        to_rgb_tensor(RGB, input_data_format="channels_first")


@pytest.mark.parametrize(
    ("pixels", "sentence"),
    [
        (np.zeros((6, 7, 5), np.uint8), r"must have 1 to 4 channels, first or last, got shape \(6, 7, 5\)"),
        (np.zeros((6,), np.uint8), r"must have 2 or 3 dimensions, got shape \(6,\)"),
        (np.zeros((1, 2, 6, 7, 3), np.uint8), r"must have 2 or 3 dimensions, got shape \(1, 2, 6, 7, 3\)"),
        (np.zeros((0, 7, 3), np.uint8), r"the picture is empty, shape \(0, 7, 3\)"),
        (torch.zeros(3, 4, 0), r"the picture is empty, shape \(3, 4, 0\)"),
        (np.zeros((6, 7, 3), np.int64), r"must be uint8 \(0..255\), uint16 \(0..65535\) or float.*got int64"),
        (np.zeros((6, 7, 3), np.int16), "got int16"),
        (np.zeros((6, 7, 3), np.uint32), "got uint32"),
        (np.zeros((6, 7, 3), bool), "got bool"),
        (np.zeros((6, 7, 3), complex), "got complex128"),
        (np.full((6, 7, 3), "a"), "pixels must be uint8"),
        (torch.zeros(3, 6, 7, dtype=torch.int64), "got torch.int64"),
        (torch.zeros(3, 6, 7, dtype=torch.bool), "got torch.bool"),
        (np.full((6, 7, 3), np.nan), "must be finite, got NaN or infinite values. Clean the picture"),
        (np.full((6, 7, 3), np.inf), "must be finite, got NaN or infinite"),
        (np.full((6, 7, 3), 255.0), r"must lie in 0..1, got 255..255. Divide or clip them"),
        (np.linspace(-0.5, 1, 63).reshape(7, 3, 3), r"must lie in 0..1, got -0.5..1"),
    ],
)
def test_unusable_pixels_raise(pixels, sentence):
    with pytest.raises(ValueError, match=sentence):
        to_rgb_tensor(pixels)


def test_float_tensors_keep_their_gradient():
    pixels = UNIT.permute(2, 0, 1).clone().requires_grad_()
    to_rgb_tensor(pixels).sum().backward()
    assert torch.equal(pixels.grad, torch.ones(3, 12, 20))


def test_golden_gray_file_and_its_rgb_decoding_are_one_picture():
    assert torch.equal(rgb_of(golden.path("p10_gray_96x128")), to_rgb_tensor(golden.pixels("p10_gray_96x128")))


@pytest.mark.parametrize(
    ("size", "expected"), [((1024, 2048), (512, 1024)), ((700, 600), (597, 512)), ((300, 900), (300, 900))]
)
def test_shorter_side_is_shrunk_and_never_enlarged(size, expected):
    assert shrink_shorter_side(Image.new("RGB", size), 512).size == expected


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_shrinking_keeps_the_mean_in_every_mode(mode):
    half = Image.new("L", (80, 64), 255)
    half.paste(0, (0, 0, 40, 64))
    picture = half.convert(mode) if mode != "I;16" else Image.fromarray(np.asarray(half).astype(np.uint16) * 257)
    small = to_rgb_tensor(shrink_shorter_side(picture, 16))
    assert small.shape[:2] == (16, 20)
    assert small.mean().item() == pytest.approx(0.5, abs=0.02)
