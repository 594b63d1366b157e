# SPDX-License-Identifier: Apache-2.0
"""Analysis of feature maps: values that are known by hand or by theory, and maps in their places."""

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from places import ROOT

from examples.analysis import analyze_features as analysis
from examples.analysis import draw_frequencies as script
from musiq_hf import MusiqImageProcessor
from musiq_hf.evaluation.features import (
    FLOOR,
    calinski_harabasz,
    collect_feature_maps,
    fourier_spectrum,
    map_features,
    measure_log_amplitudes,
    measure_maps,
    pooled_features,
    relative_log_amplitude,
)
from musiq_hf.explain import plot_clusters, plot_log_amplitudes, plot_spectra
from musiq_hf.models.loda import LodaConfig, LodaForImageQualityAssessment, LodaImageProcessor

TINY_LODA = json.loads((ROOT / "tests" / "models" / "loda" / "tiny.json").read_text())


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def wave(size, cycles):
    """A constant of 2, and a cosine of amplitude 1 along the diagonal, with so many cycles along each axis."""
    places = torch.arange(size, dtype=torch.float64)
    return 2 + torch.cos(2 * math.pi * cycles * (places[:, None] + places) / size)


def test_a_map_of_4_by_4_has_the_values_of_a_sum_by_hand():
    rows = torch.tensor([[5.0, 1, 0, 2], [0, 3, 1, 1], [4, 0, 0, 2], [1, 1, 6, 0]])
    frequencies, amplitudes = relative_log_amplitude(rows)
    assert frequencies.tolist() == [0, 0.5, 1]
    # Sums over places whose row + column is 0, 1, 2 or 3 modulo 4: 7, 9, 7 and 4, together 27. At pi / 2 they are
    # turned by 1, -i, -1 and i, which gives -5i. At pi they are turned by 1, -1, 1 and -1, which gives 1.
    expected = [0, math.log(5 / 27), math.log(1 / 27)]
    np.testing.assert_allclose(amplitudes, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (4, 4, [0, 1 / 2, 1]),
        (5, 5, [0, 2 / 5, 4 / 5]),
        (2, 3, [0, 1]),
        (3, 2, [0, 1]),
        (6, 9, [0, 1 / 3, 2 / 3, 1]),
        (14, 5, [0, 2 / 5, 4 / 5]),
    ],
)
def test_a_constant_map_falls_to_the_floor_at_every_frequency(height, width, expected):
    frequencies, amplitudes = relative_log_amplitude(torch.full((2, 3, height, width), 0.5))
    np.testing.assert_allclose(frequencies, expected)
    floor = math.log(FLOOR / (0.5 * height * width + FLOOR))
    np.testing.assert_allclose(amplitudes, [0, *[floor] * (len(expected) - 1)], atol=1e-6)


@pytest.mark.parametrize("size", [15, 16])
def test_white_noise_is_flat(size):
    _, amplitudes = relative_log_amplitude(noise(4000, size, size))
    # The transform of noise is real at 0 and at pi, complex elsewhere. The mean logarithm of the size of a complex
    # normal number is higher than that of a real one of equal variance, by half of log 2.
    inner = amplitudes[1 : size // 2 if size % 2 == 0 else None]
    np.testing.assert_allclose(inner, math.log(2) / 2, atol=0.06)
    if size % 2 == 0:
        assert amplitudes[-1] == pytest.approx(0, abs=0.08)


@pytest.mark.parametrize(("size", "cycles"), [(9, 1), (9, 4), (12, 3), (12, 6)])
def test_a_cosine_stands_out_at_its_frequency(size, cycles):
    frequencies, amplitudes = relative_log_amplitude(wave(size, cycles))
    # Half of its amplitude lies at the frequency and half at minus that, which at pi are one.
    share = 1 / 2 if 2 * cycles == size else 1 / 4
    assert amplitudes[cycles] == pytest.approx(math.log(share), abs=1e-6)
    assert frequencies[cycles] == pytest.approx(2 * cycles / size)
    others = [amplitude for index, amplitude in enumerate(amplitudes) if index not in (0, cycles)]
    assert max(others) < -15


def test_a_longer_side_is_read_at_the_nearest_frequency():
    maps = noise(6, 7, 4, 10)
    frequencies, amplitudes = relative_log_amplitude(maps)
    assert frequencies.tolist() == [0, 0.5, 1]
    logs = np.log(np.abs(np.fft.fft2(maps.numpy())) + FLOOR).mean(axis=(0, 1))
    # Of 10 columns, half of pi lies between the second frequency and the third; ties go to the even one.
    np.testing.assert_allclose(amplitudes, [0, logs[1, 2] - logs[0, 0], logs[2, 5] - logs[0, 0]])
    np.testing.assert_allclose(relative_log_amplitude(maps.mT)[1], amplitudes)
    # An odd side has no frequency pi: those next to it on both sides have one amplitude.
    odd = relative_log_amplitude(maps[..., :7])[1]
    logs = np.log(np.abs(np.fft.fft2(maps[..., :7].numpy())) + FLOOR).mean(axis=(0, 1))
    np.testing.assert_allclose(odd[-1], logs[2, 3] - logs[0, 0])
    np.testing.assert_allclose(odd[-1], logs[2, 4] - logs[0, 0])


def test_a_square_map_has_the_values_of_the_published_code():
    maps = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 8, 8)))
    _, amplitudes = relative_log_amplitude(maps)
    np.testing.assert_allclose(amplitudes[:4], [0, 1.20856915, 0.95998352, 0.40793162], atol=1e-8)


def test_maps_of_half_precision_and_with_a_gradient_are_read():
    maps = noise(3, 4, 4).bfloat16().requires_grad_(True)
    _, amplitudes = relative_log_amplitude(maps)
    assert amplitudes.dtype == torch.float64 and not amplitudes.requires_grad


@pytest.mark.parametrize(
    "maps", [torch.ones(4), torch.ones(3, 1, 4), torch.ones(2, 1), torch.ones(0, 4, 4), torch.ones(4, 4) * 1j]
)
def test_wrong_shapes_are_named(maps):
    with pytest.raises(ValueError, match=r"sides of at least 2 are needed, got \(.*\) of torch"):
        relative_log_amplitude(maps)


def test_numbers_that_are_none_are_named():
    with pytest.raises(ValueError, match="Maps must be finite"):
        relative_log_amplitude(torch.tensor([[1.0, float("nan")], [0, 0]]))


def changed_cells(before, after):
    return (before != after).any(dim=1)[0].nonzero().tolist()


def test_tokens_of_musiq_lie_where_their_patches_do(tiny_model):
    model = tiny_model(max_native_patches=21, use_scale_embedding=True)
    processor = MusiqImageProcessor.from_config(model.config)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    maps = collect_feature_maps(model, processor, pixels)
    # Patches of 8 pixels: 4 rows of 6, of which the fourth is cut off behind its third patch.
    assert {name: tuple(found[0].shape) for name, found in maps.items()} == {
        "longer side 16": (1, 16, 2, 2),
        "longer side 24": (1, 16, 2, 3),
        "native": (1, 16, 3, 6),
    }
    assert all(len(found) == model.config.num_hidden_layers + 1 for found in maps.values())
    pixels[8:16, 32:40] ^= 255  # row 1, column 4
    changed = collect_feature_maps(model, processor, pixels)
    assert changed_cells(maps["native"][0], changed["native"][0]) == [[1, 4]]
    assert len(changed_cells(maps["native"][-1], changed["native"][-1])) == 18  # attention has spread it
    pixels[:16, :24] ^= 255  # a quarter of the picture, far from its right edge
    again = collect_feature_maps(model, processor, pixels)
    assert changed_cells(changed["longer side 24"][0], again["longer side 24"][0]) == [[0, 0], [0, 1]]


@pytest.fixture(scope="module")
def loda():
    torch.manual_seed(0)
    model = LodaForImageQualityAssessment(LodaConfig(**TINY_LODA, interaction_layers=[1])).eval()
    return model, LodaImageProcessor.from_config(model.config, shorter_side=32, num_crops=1)


def test_tokens_of_loda_lie_where_their_patches_do(loda):
    model, processor = loda
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    maps = collect_feature_maps(model, processor, pixels)
    assert [tuple(item.shape) for item in maps["vit"]] == [(1, 16, 4, 4)] * 3
    assert [tuple(item.shape) for item in maps["cnn"]] == [(1, 8, 8, 8), (1, 12, 4, 4)]
    pixels[16:24, 8:16] ^= 255
    changed = collect_feature_maps(model, processor, pixels)
    assert changed_cells(maps["vit"][0], changed["vit"][0]) == [[2, 1]]  # local features come in the next block
    assert len(changed_cells(maps["vit"][1], changed["vit"][1])) == 16


def test_registers_of_a_transformer_are_no_patches():
    vit = TINY_LODA["vit_config"] | {"model_type": "dinov2_with_registers", "mlp_ratio": 2, "num_register_tokens": 3}
    del vit["intermediate_size"]
    torch.manual_seed(0)
    model = LodaForImageQualityAssessment(LodaConfig(**TINY_LODA | {"vit_config": vit})).eval()
    processor = LodaImageProcessor.from_config(model.config, shorter_side=32, num_crops=2)
    pixels = np.random.default_rng(0).integers(0, 256, (32, 40, 3), dtype=np.uint8)
    last = collect_feature_maps(model, processor, pixels)["vit"][-1]
    with torch.no_grad():
        states = model(**processor(pixels), output_hidden_states=True).hidden_states[-1]
    assert states.shape == (2, 1 + 3 + 16, 16)
    torch.testing.assert_close(last[1, :, 2, 3], states[1, 1 + 3 + 2 * 4 + 3])


def test_pictures_are_averaged_one_by_one(loda, tiny_model):
    photos = [np.random.default_rng(seed).integers(0, 256, (40, 32, 3), dtype=np.uint8) for seed in range(3)]
    model, processor = loda
    measured = measure_log_amplitudes(model, processor, iter(photos))
    single = [collect_feature_maps(model, processor, photo) for photo in photos]
    for name, curves in measured.items():
        for index, (_, amplitudes) in enumerate(curves):
            together = torch.cat([maps[name][index] for maps in single])
            np.testing.assert_allclose(amplitudes, relative_log_amplitude(together)[1], atol=1e-9)
    # Grids of 4 x 4 and 6 x 6 native patches: the coarse curve is a line between its frequencies 0, 1/2 and 1.
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    photos = [photo[:32] for photo in photos[:1]] + [np.tile(photos[1][:24, :24], (2, 2, 1))]
    frequencies, amplitudes = measure_log_amplitudes(model, processor, photos)["native"][1]
    coarse, fine = (
        relative_log_amplitude(collect_feature_maps(model, processor, photo)["native"][1])[1] for photo in photos
    )
    np.testing.assert_allclose(frequencies, [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(amplitudes[[0, 3]], [0, (coarse[2] + fine[3]) / 2])
    np.testing.assert_allclose(amplitudes[1], (2 / 3 * coarse[1] + fine[1]) / 2)


def test_what_cannot_be_measured_is_said(loda, tiny_model):
    with pytest.raises(ValueError, match="At least one picture is needed, got none"):
        measure_log_amplitudes(*loda, [])
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    photos = [np.zeros((32, 32, 3), dtype=np.uint8), np.zeros((8, 32, 3), dtype=np.uint8)]
    with pytest.raises(ValueError, match="Picture 1, longer side 16: Real maps of shape .* sides of at least 2"):
        measure_log_amplitudes(model, processor, photos)
    with pytest.raises(ValueError, match="must be in evaluation mode"):
        collect_feature_maps(tiny_model().train(), processor, photos[0])


def test_the_figure_holds_the_curves():
    pytest.importorskip("matplotlib")
    curves = {name: [relative_log_amplitude(noise(2, size, size)) for size in (8, 4)] for name in ("vit", "cnn")}
    panels = plot_log_amplitudes(curves).axes
    assert [axes.get_title() for axes in panels] == ["vit", "cnn"]
    for axes, drawn in zip(panels, curves.values(), strict=True):
        for line, (frequencies, amplitudes) in zip(axes.lines, drawn, strict=True):
            np.testing.assert_array_equal(line.get_xdata(), frequencies)
            np.testing.assert_array_equal(line.get_ydata(), amplitudes)
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["1", "2"]
        assert len({line.get_color() for line in axes.lines}) == 2
    for empty in ({}, {"vit": []}):
        with pytest.raises(ValueError, match="Each panel needs at least one curve, got none"):
            plot_log_amplitudes(empty)


@pytest.mark.slow
def test_the_example_draws_several_checkpoints(tiny_model, loda, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    models = {"first": tiny_model(longer_side_lengths=[16]), "second": loda[0]}
    for name, model in models.items():
        model.save_pretrained(tmp_path / name)
    MusiqImageProcessor.from_config(models["first"].config).save_pretrained(tmp_path / "first")
    loda[1].save_pretrained(tmp_path / "second")
    Image.effect_noise((40, 32), 60).save(tmp_path / "photo.png")
    titles = []
    monkeypatch.setattr(
        script, "plot_log_amplitudes", lambda curves: titles.extend(curves) or plot_log_amplitudes(curves)
    )
    monkeypatch.chdir(tmp_path)
    words = ["draw_frequencies.py", "photo.png", "--model", "first", "--model", "second", "--output"]
    monkeypatch.setattr("sys.argv", [*words, "made/figure.png"])
    assert script.main() == 0
    assert capsys.readouterr().out.strip() == "made/figure.png"
    assert titles == ["first: longer side 16", "first: native", "second: vit", "second: cnn"]
    with Image.open("made/figure.png") as figure:
        assert figure.format == "PNG"
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["figure.png"]
    monkeypatch.setattr("sys.argv", [*words, "figure.jpg"])
    assert script.main() == 2
    assert "`--output` must end in .png, got figure.jpg" in capsys.readouterr().err


def test_pooled_features_are_means_over_positions(tiny_model, loda):
    photos = [np.random.default_rng(0).integers(0, 256, (32, width, 3), dtype=np.uint8) for width in (32, 40, 48)]
    model = tiny_model(longer_side_lengths=[16, 24])
    processor = MusiqImageProcessor.from_config(model.config)
    pooled = pooled_features(model, processor, iter(photos))
    assert list(pooled) == ["longer side 16", "longer side 24", "native", "all"]
    maps = [collect_feature_maps(model, processor, photo) for photo in photos]
    for name in list(pooled)[:3]:
        for index, layer in enumerate(pooled[name]):
            assert layer.shape == (3, 16)
            np.testing.assert_allclose(layer[2], maps[2][name][index].mean(dim=(0, 2, 3)), atol=1e-6)
    # All positions together: larger scales weigh more, and the CLS token is in none.
    states = model(**processor(photos[1]), output_hidden_states=True).hidden_states
    np.testing.assert_allclose(pooled["all"][-1][1], states[-1][0, 1:].detach().mean(dim=0), atol=1e-5)
    pooled = pooled_features(*loda, photos[:1])
    assert {name: [layer.shape for layer in found] for name, found in pooled.items()} == {
        "vit": [(1, 16)] * 3,
        "cnn": [(1, 8), (1, 12)],
    }
    with pytest.raises(ValueError, match="At least one picture is needed, got none"):
        pooled_features(*loda, [])


def test_the_index_is_that_of_scikit_learn():
    labels = np.arange(60) % 3
    features = np.random.default_rng(0).normal(size=(60, 4)) + labels[:, None]
    # sklearn.metrics.calinski_harabasz_score of these
    assert calinski_harabasz(features, labels) == pytest.approx(19.243590281247, rel=1e-12)
    assert calinski_harabasz(5 + 2 * features, [f"class {label}" for label in labels]) == pytest.approx(19.24359028)
    assert calinski_harabasz(np.array([[0.0], [0], [4], [4]]), [0, 0, 1, 1]) == math.inf
    assert calinski_harabasz(np.ones((4, 2)), [0, 0, 1, 1]) == 0


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (np.ones((3, 2)), [0, 0, 0], "At least 2 classes, and fewer than features, are needed, got 1 of 3"),
        (np.ones((3, 2)), [0, 1, 2], "got 3 of 3 features"),
        (np.ones((3, 2)), [0, 1], r"got \(3, 2\) and \(2,\)"),
        (np.ones(3), [0, 1, 1], r"got \(3,\) and \(3,\)"),
        (np.array([[1.0], [math.nan], [2]]), [0, 1, 1], "must be finite"),
    ],
)
def test_an_index_that_does_not_exist_is_refused(features, labels, message):
    with pytest.raises(ValueError, match=message):
        calinski_harabasz(features, labels)


def test_maps_are_drawn_with_several_seeds(monkeypatch):
    """UMAP itself is not installed for tests, since it compiles for a minute: this one turns features by the seed."""
    made = []

    class Umap:
        def __init__(self, **settings):
            made.append(settings)

        def fit_transform(self, features):
            return features[:, :2] * [1, 1 + made[-1]["random_state"]]

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    labels = np.arange(12) % 2
    features = np.random.default_rng(0).normal(size=(12, 3)) + labels[:, None] * [3, 1, 0]
    found = measure_maps(features, labels, num_seeds=3)
    indices = [calinski_harabasz(features[:, :2] * [1, 1 + seed], labels) for seed in range(3)]
    assert [item["random_state"] for item in made] == [0, 1, 2] and made[0]["n_neighbors"] == 11
    assert (found.mean, found.low, found.high) == (pytest.approx(np.mean(indices)), min(indices), max(indices))
    with pytest.raises(ValueError, match="at least 10 pictures, got 9"):
        map_features(features[:9])


def test_a_map_by_umap_keeps_classes_together():
    pytest.importorskip("umap", reason="umap-learn brings a compiler; pip install -e .[analysis]")
    labels = np.arange(40) % 2
    features = np.random.default_rng(0).normal(size=(40, 5)) + 20 * labels[:, None]
    points = map_features(features, seed=1)
    assert points.shape == (40, 2) and calinski_harabasz(points, labels) > 100
    np.testing.assert_array_equal(points, map_features(features, seed=1))


def test_a_spectrum_has_frequency_0_in_its_middle():
    spectrum = fourier_spectrum(torch.stack([wave(8, 2), wave(8, 2)])[:, None])
    assert spectrum.shape == (8, 8) and spectrum.argmax() == 4 * 8 + 4
    high = (spectrum > math.log(1)).nonzero().tolist()
    assert high == [[2, 2], [4, 4], [6, 6]]  # constant, and two cycles along both axes in both directions
    maps = noise(2, 3, 6, 9)
    _, amplitudes = relative_log_amplitude(maps)
    spectrum = fourier_spectrum(maps)
    np.testing.assert_allclose(spectrum[5, 7] - spectrum[3, 4], amplitudes[2])


def test_clusters_and_spectra_are_drawn():
    pytest.importorskip("matplotlib")
    (axes,) = plot_clusters(np.arange(8.0).reshape(4, 2), ["b", "a", "b", "a"]).axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["b", "a"]
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), [[0, 1], [4, 5]])
    with pytest.raises(ValueError, match="got 4 points and 1 labels"):
        plot_clusters(np.ones((4, 2)), ["a"])
    spectra = {"first": fourier_spectrum(noise(8, 8)), "second": fourier_spectrum(noise(6, 4))}
    first, second, _ = plot_spectra(spectra).axes
    assert (first.get_title(), second.get_title()) == ("first", "second")
    assert first.images[0].get_array()[4, 4] == 0 == second.images[0].get_array()[3, 2]
    assert first.images[0].get_extent() == [-1.125, 0.875, 0.875, -1.125]  # cells of .25, one of them around 0
    with pytest.raises(ValueError, match="At least one spectrum"):
        plot_spectra({})


@pytest.mark.slow
def test_the_analysis_of_degraded_pictures_is_written(tiny_model, tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    model = tiny_model(longer_side_lengths=[16])
    model.save_pretrained(tmp_path / "model")
    MusiqImageProcessor.from_config(model.config).save_pretrained(tmp_path / "model")
    for name in range(3):
        Image.effect_noise((40, 32), 60).save(tmp_path / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    words = ["analyze_features.py", "--pictures", ".", "--model", "model", "--output", "made", "--without_map"]
    monkeypatch.setattr("sys.argv", [*words, "--degradations", "bicubic", "noise", "--limit", "2"])
    assert analysis.main() == 0
    table = (tmp_path / "made" / "index.md").read_text()
    assert table in capsys.readouterr().out and "| native | 1 |" in table and "| all | 1 |" in table
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == [
        "frequencies.png",
        "index.md",
        "spectra.png",
    ]
    for wrong, message in {
        ("--degradations", "blurr"): "Unknown degradation 'blurr'. Choose from bicubic",
        ("--strength", "0"): "`--strength` must lie in (0, 1], got 0.0",
        ("--part", "middle"): "`--part` must be one of longer side 16, native, got 'middle'",
    }.items():
        monkeypatch.setattr("sys.argv", [*words, *wrong])
        assert analysis.main() == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("limit", ["0", "-1"])
def test_a_limit_that_is_no_number_of_pictures_is_refused(monkeypatch, capsys, limit):
    monkeypatch.setattr("sys.argv", ["analyze_features.py", "--pictures", ".", "--output", "made", "--limit", limit])
    with pytest.raises(SystemExit) as stop:
        analysis.main()
    assert stop.value.code == 2 and "--limit" in capsys.readouterr().err


def test_bicubic_copies_lose_their_high_frequencies(tmp_path):
    Image.effect_noise((40, 32), 60).save(tmp_path / "photo.png")
    (same,), (small,) = (
        list(analysis.read_copies([tmp_path / "photo.png"], kind, 1.0)) for kind in (analysis.PRISTINE, "bicubic")
    )
    assert same.size == small.size == (40, 32)
    assert np.abs(np.diff(np.array(small).astype(int), axis=1)).mean() < 10
    assert np.abs(np.diff(np.array(same).astype(int), axis=1)).mean() > 40
