# SPDX-License-Identifier: Apache-2.0
"""Differentiable scores and the metric over frames: the processor's own numbers, with gradients."""

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.scoring.pixels import QualityMetric, score_pixels


@pytest.fixture(scope="module")
def scorer(tiny_model):
    model = tiny_model().requires_grad_(False)
    return model, MusiqImageProcessor.from_config(model.config)


@pytest.fixture(scope="module")
def expected(scorer, pictures):
    """Scores of the pictures as bytes, one by one."""
    model, processor = scorer
    with torch.no_grad():
        return torch.stack([model(**processor(picture, return_tensors="pt")).scores[0] for picture in pictures])


def to_float(picture):
    return torch.from_numpy(picture).permute(2, 0, 1).float() / 255


def test_scores_of_pixels_are_those_of_the_processor(scorer, pictures, expected):
    scores = score_pixels(*scorer, [to_float(picture) for picture in pictures])
    assert expected.max() - expected.min() > 0.1
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)


def test_a_batch_is_a_list_of_its_pictures(scorer):
    batch = torch.rand(3, 3, 20, 28, generator=torch.Generator().manual_seed(0))
    scores = score_pixels(*scorer, batch)
    assert scores.shape == (3,) and scores.std() > 0.01
    torch.testing.assert_close(scores, score_pixels(*scorer, list(batch)), rtol=0, atol=1e-6)


def test_gradients_at_the_pixels_are_those_of_the_score(scorer):
    # Smooth enough for a difference quotient: a tiny step along the gradient.
    batch = torch.rand(2, 3, 20, 28, generator=torch.Generator().manual_seed(1)) * 0.8 + 0.1
    batch.requires_grad_(True)
    (gradient,) = torch.autograd.grad(score_pixels(*scorer, batch)[1], batch)
    assert gradient[0].abs().max() == 0  # the other picture has no part in it
    direction = gradient / gradient.norm()
    step = 0.01
    with torch.no_grad():
        up, down = (score_pixels(*scorer, batch + sign * step * direction)[1] for sign in (1, -1))
    assert (up - down).item() / (2 * step) == pytest.approx(gradient.norm().item(), rel=0.02)
    assert all(weight.grad is None for weight in scorer[0].parameters())


def test_no_second_derivative_is_answered_at_the_pixels(scorer):
    batch = torch.rand(1, 3, 20, 28, requires_grad=True)
    (gradient,) = torch.autograd.grad(score_pixels(*scorer, batch).sum(), batch, create_graph=True)
    with pytest.raises(NotImplementedError):
        torch.autograd.grad(gradient.square().sum(), batch)


def test_channels_come_first_whatever_the_processor_is_set_to(scorer):
    model, processor = scorer
    picture = torch.rand(3, 8, 3, generator=torch.Generator().manual_seed(0))  # three columns, which fit both layouts
    other = MusiqImageProcessor.from_config(model.config, input_data_format="channels_last")
    with torch.no_grad():
        expected = model(**processor(picture.permute(1, 2, 0).numpy(), return_tensors="pt")).scores
    for each in (processor, other):
        torch.testing.assert_close(score_pixels(model, each, [picture]), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            torch.zeros(2, 16, 16, 3),
            r"must have shape \(batch, 3, height, width\).* got a picture of shape \(16, 16",
        ),
        (torch.zeros(16, 16), r"got a picture of shape \(16, 16\)"),
        (torch.zeros(1, 3, 16, 16, dtype=torch.uint8), "must be float in 0..1, got torch.uint8. Divide bytes by 255"),
        (torch.full((1, 3, 16, 16), 1.5), "float pixels must lie in 0..1, got 1.5..1.5"),
        ([], "At least one picture is needed"),
    ],
)
def test_wrong_pixels_get_a_sentence(scorer, images, message):
    with pytest.raises(ValueError, match=message):
        score_pixels(*scorer, images)


def test_training_mode_and_a_foreign_processor_are_refused(tiny_model):
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    with pytest.raises(ValueError, match="must agree on `patch_size`"):
        QualityMetric(model, MusiqImageProcessor())
    metric = QualityMetric(model, processor)
    model.train()
    for use in (metric.update, lambda images: score_pixels(model, processor, images)):
        with pytest.raises(ValueError, match=r"must be in evaluation mode.*model.eval\(\)"):
            use(torch.zeros(1, 3, 16, 16))


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_mean_over_updates_is_the_mean_over_pictures(scorer, pictures, expected, batch_size):
    metric = QualityMetric(*scorer, batch_size=batch_size)
    metric.update([Image.fromarray(pictures[0])])
    metric.update(pictures[1:])  # not the mean of two means
    torch.testing.assert_close(metric.compute(), expected.mean(), rtol=0, atol=1e-5)


def test_frames_of_a_video_come_as_arrays_or_tensors(scorer):
    video = np.random.default_rng(0).integers(0, 256, (5, 24, 32, 3), dtype=np.uint8)
    means = []
    for frames in (video, torch.from_numpy(video).permute(0, 3, 1, 2), list(video)):
        metric = QualityMetric(*scorer, batch_size=2)
        metric.update(frames)
        means.append(metric.compute().item())
    assert means == pytest.approx([means[0]] * 3, abs=1e-5)


def test_reset_forgets_and_an_empty_metric_has_no_mean(scorer, pictures, expected):
    metric = QualityMetric(*scorer)
    metric.update(pictures[0])
    metric.reset()
    with pytest.raises(ValueError, match="There is no picture to average over. Call `update` first"):
        metric.compute()
    metric.update(pictures[1])
    torch.testing.assert_close(metric.compute(), expected[1], rtol=0, atol=1e-5)


def test_gradients_flow_through_the_metric_to_pictures_that_ask(scorer):
    frames = torch.rand(2, 3, 20, 28, generator=torch.Generator().manual_seed(2))
    metric = QualityMetric(*scorer, batch_size=1)
    metric.update(frames)
    assert not metric.compute().requires_grad
    metric.reset()
    frames.requires_grad_(True)
    metric.update(frames)
    metric.compute().backward()
    assert (frames.grad.flatten(1).norm(dim=1) > 0).all()


def test_weights_that_could_learn_keep_no_graph(tiny_model, pictures):
    model = tiny_model()  # its weights require gradients
    metric = QualityMetric(model, MusiqImageProcessor.from_config(model.config))
    metric.update(pictures)
    assert not metric.compute().requires_grad


def test_a_bad_picture_adds_nothing(scorer, pictures, expected):
    metric = QualityMetric(*scorer, batch_size=1)
    metric.update(pictures[0])
    with pytest.raises(ValueError, match="float pixels must lie in 0..1"):
        metric.update([pictures[1], np.full((16, 16, 3), 2.0)])
    torch.testing.assert_close(metric.compute(), expected[0], rtol=0, atol=1e-5)


def test_batch_size_must_be_positive(scorer):
    with pytest.raises(ValueError, match="`batch_size` must be at least 1, got 0"):
        QualityMetric(*scorer, batch_size=0)
