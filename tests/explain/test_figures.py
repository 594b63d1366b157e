# SPDX-License-Identifier: Apache-2.0
"""Figures show the numbers that they claim to show, and leave matplotlib's and the model's state alone."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.explain.curves import plot_aspect_ratios, plot_degradations
from musiq_hf.explain.figures import QualityMap, plot_quality_map
from musiq_hf.explain.musiq import cls_attention, plot_attention, plot_hash_similarity, plot_pyramid
from musiq_hf.explain.musiq.quality_map import make_inputs, patch_layouts, quality_map
from musiq_hf.pictures.degradations import gaussian_blur
from musiq_hf.scoring.engine import read_pixels

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (45, 70, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model()


@pytest.fixture(scope="module")
def processor(model):
    return MusiqImageProcessor.from_config(model.config)


def score_of(model, processor, picture):
    with torch.no_grad():
        return model(**processor(picture)).scores.item()


def test_attention_and_rollout_are_those_of_eager_attention(tiny_model, picture, monkeypatch):
    monkeypatch.setattr("musiq_hf.explain.musiq.figures.QUERIES", 7)
    model = tiny_model(num_hidden_layers=3)
    processor = MusiqImageProcessor.from_config(model.config)
    inputs = make_inputs(read_pixels(picture, processor), processor)
    last, rollout = cls_attention(model, inputs)
    assert model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    with torch.no_grad():
        weights = [block[0].mean(dim=0) for block in model.musiq(**inputs, output_attentions=True).attentions]
    torch.testing.assert_close(last, weights[-1][0], atol=1e-6, rtol=0)
    expected = torch.eye(len(last))
    for block in weights:
        expected = (0.5 * block + 0.5 * torch.eye(len(last))) @ expected
    torch.testing.assert_close(rollout, expected[0], atol=1e-6, rtol=0)
    assert not torch.allclose(last, rollout, atol=1e-3)


def test_attention_panels_hold_each_scale_where_its_patches_lie(model, processor, picture):
    figure = plot_attention(model, processor, picture)
    layouts = patch_layouts(45, 70, processor)
    assert len(figure.axes) == 2 * (1 + len(layouts))
    last, rollout = cls_attention(model, make_inputs(read_pixels(picture, processor), processor))
    panels = [figure.axes[index] for index in (1, 2, 3, 5, 6, 7)]
    shown = [np.asarray(axes.images[1].get_array()).ravel() for axes in panels]
    np.testing.assert_allclose(np.concatenate(shown[:3]), last[1:].numpy(), atol=1e-6)
    np.testing.assert_allclose(np.concatenate(shown[3:]), rollout[1:].numpy(), atol=1e-6)
    native = panels[2]
    assert native.images[1].get_extent() == pytest.approx([-1, 71, 47, -1])  # 9 x 6 patches of 8: 2 and 3 to pad
    assert native.get_xlim() == (0, 70) and native.get_ylim() == (45, 0)


def test_patches_that_are_cut_have_no_attention(tiny_model, picture):
    model = tiny_model(max_native_patches=20)
    figure = plot_attention(model, MusiqImageProcessor.from_config(model.config), picture)
    assert np.ma.getmaskarray(np.ma.masked_invalid(figure.axes[3].images[1].get_array())).sum() == 54 - 20


def test_the_pyramid_shows_what_the_model_reads(processor, picture):
    figure = plot_pyramid(processor, picture)
    assert len(figure.axes) == 3
    native = np.asarray(figure.axes[2].images[0].get_array())
    assert native.shape == (48, 72, 3)
    np.testing.assert_array_equal(native[1:46, 1:71], np.asarray(picture))
    assert (native[0] == 128).all() and (native[:, 0] == 128).all()
    assert "70 x 45 pixels\n9 x 6 patches of 8 pixels" in figure.axes[2].get_title()
    labels = {text.get_text() for text in figure.axes[2].texts}
    assert labels == {f"{row},{col}" for row in range(4) for col in range(4)}
    # 9 columns in 4 cells: floor(column * 4 / 9) changes at columns 3, 5 and 7.
    thick = figure.axes[2].collections[-1].get_segments()
    assert sorted(segment[0, 0] for segment in thick) == [24, 40, 56]


def test_the_pyramid_tells_what_is_cut_and_has_no_hash_cells_without_them(tiny_config, picture):
    processor = MusiqImageProcessor.from_config(tiny_config(max_native_patches=20, spatial_embedding="none"))
    axes = plot_pyramid(processor, picture).axes[2]
    assert axes.get_title().endswith(", the first 20 read")
    assert not axes.texts
    shown = np.asarray(axes.images[0].get_array())
    assert (shown[-8:] == 255).all() and not (shown[:8] == 255).all()


@pytest.mark.parametrize("size", [1, 3, 15])
def test_hash_similarity_holds_every_pair_of_cells(tiny_model, size):
    model = tiny_model(hash_grid_size=size)
    vectors = model.musiq.embeddings.spatial_embedding.weight.detach()
    expected = torch.nn.functional.cosine_similarity(vectors[:, None], vectors[None], dim=-1).numpy()
    mosaic = np.asarray(plot_hash_similarity(model).axes[0].images[0].get_array().filled(np.nan))
    assert mosaic.shape == (size * (size + 1) - 1,) * 2
    for cell in range(size * size):
        top, left = (place * (size + 1) for place in divmod(cell, size))
        panel = mosaic[top : top + size, left : left + size]
        np.testing.assert_allclose(panel.ravel(), expected[cell], atol=1e-5)


def test_hash_similarity_needs_the_hash_embedding(tiny_model):
    with pytest.raises(ValueError, match='embedding is needed, got `spatial_embedding="sinusoid"`'):
        plot_hash_similarity(tiny_model(spatial_embedding="sinusoid"))


def test_aspect_ratios_have_one_area_and_the_scores_of_their_copies(model, processor, picture):
    figure = plot_aspect_ratios(model, processor, picture, ratios=[2, 0.5, 1])
    squeezed, cropped, own = figure.axes[0].lines
    np.testing.assert_allclose(squeezed.get_xdata(), [0.5, 1, 2])
    # Of 70 x 45, a crop of 1:2 is at most 22.5 x 45: the area of all copies is 1012.5 pixels.
    sizes = [(22, 45), (32, 32), (45, 22)]
    expected = [score_of(model, processor, picture.resize(size, Image.Resampling.LANCZOS)) for size in sizes]
    np.testing.assert_allclose(squeezed.get_ydata(), expected, atol=1e-4)
    crops = [picture.crop((24, 0, 46, 45)), picture.crop((19, 6, 51, 38)), picture.crop((12, 11, 57, 33))]
    np.testing.assert_allclose(cropped.get_ydata(), [score_of(model, processor, crop) for crop in crops], atol=1e-4)
    np.testing.assert_allclose(own.get_ydata(), [score_of(model, processor, picture)], atol=1e-4)
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["1:2", "1:1", "2:1"]


@pytest.mark.parametrize("ratios", [(), (1, 0), (float("nan"),), (-1,)])
def test_aspect_ratios_must_be_above_0(model, processor, picture, ratios):
    with pytest.raises(ValueError, match="`ratios` must be one or more numbers above 0, width to height, got"):
        plot_aspect_ratios(model, processor, picture, ratios=ratios)


def test_degradations_are_scored_from_none_to_the_strongest(model, processor, picture):
    figure = plot_degradations(model, processor, picture)
    assert [axes.get_title() for axes in figure.axes] == ["Gaussian blur", "Gaussian noise", "JPEG"]
    blurred = figure.axes[0].lines[0].get_ydata()
    assert len(blurred) == 6
    assert blurred[0] == pytest.approx(score_of(model, processor, picture), abs=1e-4)
    assert blurred[5] == pytest.approx(score_of(model, processor, gaussian_blur(picture, 6)), abs=1e-4)
    assert [tick.get_text() for tick in figure.axes[2].get_xticklabels()] == ["as it is", "70", "40", "25", "12", "6"]


def test_the_quality_map_is_drawn_with_its_numbers(model, processor, picture):
    result = quality_map(model, processor, picture, rows=2, cols=3)
    figure = plot_quality_map(result, picture)
    drawn = figure.axes[1].images[1]
    np.testing.assert_allclose(np.asarray(drawn.get_array()), result.deltas)
    assert drawn.norm.vmin == -drawn.norm.vmax == -np.abs(result.deltas).max()
    assert [text.get_text() for text in figure.axes[1].texts] == [
        f"{float(delta):+z.2f}" for delta in result.deltas.flat
    ]
    assert figure.axes[0].get_title() == f"score {result.score:.2f}"
    fine = QualityMap(
        score=1.0, deltas=np.zeros((13, 2)), num_patches=np.ones((13, 2), dtype=int), height=45, width=70
    )
    assert not plot_quality_map(fine, picture).axes[1].texts
    with pytest.raises(ValueError, match="belongs to a picture of 70x45 pixels, got one of 7x4"):
        plot_quality_map(result, picture.resize((7, 4)))


def test_a_model_in_training_is_refused(tiny_model, processor, picture):
    model = tiny_model().train()
    for plot in (plot_attention, plot_degradations, plot_aspect_ratios):
        with pytest.raises(ValueError, match="must be in evaluation mode"):
            plot(model, processor, picture)


def test_pyplot_is_never_loaded(model, processor, picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # an import of it would fail
    plot_pyramid(processor, picture)
    plot_hash_similarity(model)
    plot_quality_map(quality_map(model, processor, picture), picture)


@pytest.mark.slow
def test_importing_the_functions_loads_no_matplotlib():
    script = "import sys, musiq_hf.explain.report, musiq_hf.cli.explain; print('matplotlib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert result.stdout.split() == ["False"], result.stderr


def test_without_matplotlib_the_pip_line_is_named(processor, picture, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        ImportError, match=r'matplotlib is needed here. Install it with: pip install "musiq_hf\[explain\]"'
    ):
        plot_pyramid(processor, picture)


@pytest.mark.slow
def test_the_readme_s_figures_are_drawn_again(tmp_path):
    from examples.make_figures import FOLDER, draw

    for path in draw(tmp_path):
        with Image.open(path) as ours, Image.open(FOLDER / path.name) as committed:
            assert ours.size == committed.size
