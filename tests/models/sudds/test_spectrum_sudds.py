# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from musiq_hf.models.sudds.spectrum_sudds import FLOOR, make_cosines, measure_spectrum


def test_cosines_are_orthonormal_and_those_of_the_formula():
    matrix = make_cosines(8).astype(np.float64)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(8), atol=1e-6)
    expected = [np.sqrt(2 / 8) * np.cos(np.pi * 3 * (2 * place + 1) / 16) for place in range(8)]
    np.testing.assert_allclose(matrix[3], expected, atol=1e-7)


def test_a_wave_shows_at_its_frequency_along_its_own_axis_only():
    wave = 0.5 + 0.1 * np.cos(np.pi * 20 * (np.arange(192) % 64 + 0.5) / 64)
    gray = np.broadcast_to(wave, (130, 192))  # the last two rows are a rest
    rows, columns = np.split(np.exp(measure_spectrum(gray)) - FLOOR, 2)
    assert rows[20] == pytest.approx(0.1 * 255 * np.sqrt(32), rel=1e-5)
    assert np.delete(rows, [0, 20]).max() < 1e-3 and columns[1:].max() < 1e-3
    np.testing.assert_allclose(measure_spectrum(gray.T), np.roll(measure_spectrum(gray), 64), atol=1e-4)


def test_a_rest_is_left_out():
    gray = np.random.default_rng(0).random((64, 100), dtype=np.float32)
    rows = measure_spectrum(gray)[:64]
    np.testing.assert_allclose(rows, measure_spectrum(gray[:, :64])[:64], atol=1e-5)
    assert rows.dtype == np.float32


def test_a_small_picture_is_refused():
    with pytest.raises(ValueError, match="at least 64 x 64 pixels, got 63 x 70"):
        measure_spectrum(np.zeros((70, 63)))


@pytest.mark.parametrize("gray", [np.zeros((70, 70), np.uint8), np.zeros((70, 70, 3))])
def test_what_is_no_luma_is_refused(gray):
    with pytest.raises(ValueError, match="must be float of shape .height, width., got"):
        measure_spectrum(gray)
