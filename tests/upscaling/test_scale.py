# SPDX-License-Identifier: Apache-2.0
"""Scales that are read off the spectrum: enlargements by Pillow, made pictures, and pictures that have none."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf.upscaling import estimate_scale, measure_copies

R = Image.Resampling


def make_scene(width=160, height=120, *, seed=0):
    """Make a picture as natural ones are: amplitudes that fall with the frequency, edges, and a little noise."""
    rng = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    spectrum = np.fft.rfft2(rng.normal(size=(height, width))) / np.maximum(frequencies, 1 / width) ** 1.2
    levels = np.fft.irfft2(spectrum, s=(height, width))
    levels = 128 + 40 * levels / levels.std()
    rows, columns = np.ogrid[:height, :width]
    levels[(rows - 40) ** 2 + (columns - 60) ** 2 < 900] += 45
    levels[70:100, 90:140] -= 50
    levels += rng.normal(scale=1.5, size=levels.shape)
    return Image.fromarray(np.stack([levels] * 3, axis=-1).clip(0, 255).astype(np.uint8))


def enlarge(image, scale, method=R.BICUBIC):
    return image.resize((round(image.width * scale), round(image.height * scale)), method)


def compress(image, quality):
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file)


@pytest.mark.parametrize("method", [R.BILINEAR, R.BICUBIC, R.LANCZOS, R.HAMMING], ids=lambda method: method.name)
@pytest.mark.parametrize("scale", [1.3, 1.5, 2, 2.4, 3, 4])
def test_the_size_of_the_source_is_found(scale, method):
    found = estimate_scale(enlarge(make_scene(), scale, method))
    assert found is not None and 0 < found.agreement < 1
    assert np.abs(np.subtract(found.source_size, (160, 120))).max() <= 1
    assert found.scale == pytest.approx(scale, rel=0.01)


@pytest.mark.parametrize("scale", [1.5, 2, 3])
def test_it_is_found_in_pictures_upright_compressed_and_cropped(scale):
    large = enlarge(make_scene(seed=1), scale)
    crop = large.crop((13, 6, large.width - 20, large.height - 9))
    for changed in (large.transpose(Image.Transpose.ROTATE_90), large.convert("L"), crop, compress(large, 90)):
        found = estimate_scale(changed)
        assert found is not None and found.scale == pytest.approx(scale, rel=0.02)
        assert np.abs(np.divide(changed.size, scale) - found.source_size).max() < 2


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pixels_repeated_a_whole_number_of_times_are_found_after_compression(scale):
    large = enlarge(make_scene(seed=2), scale, R.NEAREST)
    found = estimate_scale(large)
    assert (found.scale, found.source_size, found.agreement) == (scale, (160, 120), 1)
    found = estimate_scale(compress(large, 90))
    assert found.agreement < 1 and found.scale == pytest.approx(scale, rel=0.02)


@pytest.mark.parametrize("scale", [1.3, 1.5, 2.7])
def test_pixels_repeated_unevenly_are_counted(scale):
    large = enlarge(make_scene(seed=3), scale, R.NEAREST)
    assert estimate_scale(large).source_size == (160, 120)
    found = estimate_scale(large.crop((5, 3, large.width - 8, large.height - 2)))
    assert found.agreement == 1 and found.scale == pytest.approx(scale, rel=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_natives_have_none(seed):
    scene = make_scene(240, 180, seed=seed)
    small = make_scene(480, 360, seed=seed).resize((240, 180), R.LANCZOS)
    for native in (scene, small, compress(scene, 75), compress(small, 90), scene.crop((3, 5, 230, 171))):
        assert estimate_scale(native) is None


def test_pictures_without_content_have_none():
    ramp = np.repeat(np.linspace(0, 255, 200).astype(np.uint8)[None], 100, axis=0)
    noise = np.random.default_rng(0).integers(0, 256, (90, 130, 3), dtype=np.uint8)
    sheet = np.full((128, 96, 3), 255, dtype=np.uint8)
    sheet[40:50, 20:70] = 0
    for picture in (np.full((100, 120, 3), 77, dtype=np.uint8), ramp[..., None], noise, sheet):
        assert estimate_scale(picture) is None


def test_sides_enlarged_differently_are_no_enlargement():
    stretched = make_scene(200, 200).resize((280, 500), R.BICUBIC)
    assert estimate_scale(stretched) is None


def test_the_curves_have_their_peaks_at_the_size_of_the_source():
    picture = enlarge(make_scene(), 2.5, R.BILINEAR)
    for curve, size, source in zip(measure_copies(picture), picture.size, (160, 120), strict=True):
        assert curve.shape == (size,) and curve.min() >= 0 and curve.max() <= 1
        middle = curve[40 : round(size / 1.2)]
        assert abs(40 + int(middle.argmax()) - source) <= 1
        assert middle.max() > 0.8 and np.median(middle) < 0.15


def test_floats_and_bytes_are_one_picture():
    pixels = torch.from_numpy(np.array(enlarge(make_scene(), 1.5)))
    for of_bytes, of_floats in zip(measure_copies(pixels), measure_copies(pixels / 255), strict=True):
        np.testing.assert_allclose(of_bytes, of_floats, atol=2e-3)


def test_too_small_pictures_are_named():
    for function in (estimate_scale, measure_copies):
        with pytest.raises(ValueError, match="at least 64 x 64 pixels, got 70 x 63"):
            function(Image.new("RGB", (70, 63)))
    assert estimate_scale(Image.new("RGB", (64, 64))) is None
