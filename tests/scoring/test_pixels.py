# SPDX-License-Identifier: Apache-2.0
"""Differentiable scores and the metric over frames: the processor's own numbers, with gradients."""

import copy
import io
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from places import ROOT
from torch import distributed, nn

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


@pytest.fixture
def beyond():
    """Pixels of a generator that leaves 0..1 here and there."""
    return torch.rand(2, 3, 20, 28, generator=torch.Generator().manual_seed(3)) * 1.4 - 0.2


def test_pixels_beyond_the_range_count_as_its_ends(scorer, beyond):
    expected = score_pixels(*scorer, beyond.clamp(0, 1))
    assert torch.equal(score_pixels(*scorer, beyond, clamp=True), expected)
    assert torch.equal(score_pixels(*scorer, list(beyond), clamp=True), expected)
    with pytest.raises(ValueError, match=r"Picture 0 .*must lie in 0\.\.1"):
        score_pixels(*scorer, beyond)


def test_clamped_pixels_have_no_gradient_and_others_have_theirs(scorer, beyond):
    beyond.requires_grad_(True)
    (gradient,) = torch.autograd.grad(score_pixels(*scorer, beyond, clamp=True).sum(), beyond)
    inside = beyond.detach().clamp(0, 1).requires_grad_(True)
    (expected,) = torch.autograd.grad(score_pixels(*scorer, inside).sum(), inside)
    is_inside = (beyond >= 0) & (beyond <= 1)
    assert not is_inside.all() and gradient[~is_inside].abs().max() == 0
    assert torch.equal(gradient[is_inside], expected[is_inside]) and expected[is_inside].abs().max() > 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray])
def test_clamping_hides_no_number_that_is_none(scorer, value, kind):
    picture = np.full((3, 16, 16), 0.5, dtype=np.float32)
    picture[0, 3, 3] = value
    with pytest.raises(ValueError, match="float pixels must be finite"):
        QualityMetric(*scorer, clamp=True).update([kind(picture)])


@pytest.mark.parametrize("kind", [torch.from_numpy, np.asarray])
@pytest.mark.parametrize(("low", "high"), [(0, 255), (-12, 1), (0, 10.5)])
def test_clamping_hides_no_other_unit(scorer, low, high, kind):
    picture = np.linspace(low, high, 3 * 16 * 16, dtype=np.float32).reshape(3, 16, 16)
    with pytest.raises(ValueError, match=rf"Picture 0 .*overshoot to -10..10 at most, got {low}..{high}. .*by 255"):
        QualityMetric(*scorer, clamp=True).update([kind(picture)])


def test_what_rounding_leaves_beyond_the_range_is_clipped(scorer):
    picture = torch.linspace(0, 1, 3 * 16 * 16).reshape(1, 3, 16, 16)
    rounded = torch.where(picture == 1, 1 + 5e-7, picture)
    assert rounded.max() > 1
    assert torch.equal(score_pixels(*scorer, rounded), score_pixels(*scorer, picture))
    with pytest.raises(ValueError, match=r"got 0\.\.1\.00001. Divide or clip them. Or set `clamp=True`"):
        score_pixels(*scorer, picture * 1.00001)


@pytest.mark.parametrize("images", ["x.jpg", ["x.jpg"], np.zeros((1, 3, 16, 16), np.float32)])
def test_files_and_arrays_are_no_tensors(scorer, images):
    with pytest.raises(TypeError, match=r"`images` must be tensors, got (str|ndarray). `score_pictures` scores files"):
        score_pixels(*scorer, images)


def test_the_metric_clamps_float_pixels_alone(scorer, beyond, pictures, expected):
    metric = QualityMetric(*scorer, clamp=True)
    torch.testing.assert_close(metric(beyond), score_pixels(*scorer, beyond.clamp(0, 1)).mean(), rtol=0, atol=1e-5)
    arrays = beyond.permute(0, 2, 3, 1).numpy()
    torch.testing.assert_close(metric(arrays), metric(beyond), rtol=0, atol=1e-5)
    torch.testing.assert_close(metric(pictures), expected.mean(), rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="must lie in 0..1"):
        QualityMetric(*scorer).update(beyond)


def test_a_call_answers_for_its_own_pictures_and_adds_them(scorer, pictures, expected):
    metric = QualityMetric(*scorer)
    torch.testing.assert_close(metric(pictures[:3]), expected[:3].mean(), rtol=0, atol=1e-5)
    torch.testing.assert_close(metric(pictures[3]), expected[3], rtol=0, atol=1e-5)
    torch.testing.assert_close(metric.compute(), expected.mean(), rtol=0, atol=1e-5)


def test_a_call_in_a_training_loop_keeps_no_graph(scorer):
    frames = torch.rand(2, 3, 20, 28, generator=torch.Generator().manual_seed(2), requires_grad=True)
    metric = QualityMetric(*scorer)
    metric(frames).backward()
    assert (frames.grad.flatten(1).norm(dim=1) > 0).all()
    assert not metric.compute().requires_grad


class Generator(nn.Module):
    """Generator with a metric as a part of it."""

    def __init__(self, scorer):
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.quality = QualityMetric(*scorer, clamp=True)

    def forward(self, pixels):
        pixels = self.norm(self.layer(pixels))
        self.quality.update(pixels.detach())
        return pixels


@pytest.fixture
def generator(tiny_model):
    model = tiny_model()
    return Generator((model, MusiqImageProcessor.from_config(model.config)))


def test_a_module_neither_trains_nor_saves_the_model(generator):
    generator.train()
    generator(torch.rand(2, 3, 20, 28))  # the model is still in evaluation mode
    assert {name.partition(".")[0] for name, _ in generator.named_parameters()} == {"layer", "norm"}
    assert {name for name in generator.state_dict() if name.startswith("quality")} == {"quality.mean", "quality.count"}


def test_a_metric_goes_where_its_module_goes_and_keeps_the_type(tiny_model):
    model = tiny_model()
    metric = QualityMetric(model, MusiqImageProcessor.from_config(model.config))
    holder = nn.Sequential(metric)
    metric.update(torch.rand(1, 3, 20, 28))
    assert holder.half() is holder and metric.compute().dtype == model.dtype == torch.float32
    holder.to("meta")
    assert {metric.device.type, metric.compute().device.type, model.device.type} == {"meta"}


def test_a_saved_metric_goes_on(scorer, pictures, expected):
    metric, other = QualityMetric(*scorer), QualityMetric(*scorer)
    metric.update(pictures[:3])
    file = io.BytesIO()
    torch.save(metric.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    other.update(pictures[3])
    torch.testing.assert_close(other.compute(), expected.mean(), rtol=0, atol=1e-5)


def test_a_module_is_loaded_from_a_file_that_is_older_than_its_metric(generator):
    generator(torch.rand(2, 3, 20, 28))
    before = generator.quality.compute()
    older = {name: value for name, value in generator.state_dict().items() if not name.startswith("quality")}
    generator.load_state_dict(older)
    assert torch.equal(generator.quality.compute(), before)
    with pytest.raises(RuntimeError, match="quality.count"):
        generator.load_state_dict(older | {"quality.count": torch.tensor(1)})


@pytest.mark.parametrize("duplicate", [copy.deepcopy, QualityMetric.clone, lambda it: pickle.loads(pickle.dumps(it))])
def test_copies_go_their_own_way(scorer, pictures, expected, duplicate):
    metric = QualityMetric(*scorer)
    frame = torch.rand(3, 20, 28, requires_grad=True)
    metric.update(frame)
    other = duplicate(metric)
    assert metric.compute().requires_grad and not other.compute().requires_grad
    assert torch.equal(other.compute(), metric.compute())
    other.reset()
    other.update(pictures[0])
    torch.testing.assert_close(other.compute(), expected[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(metric.compute(), score_pixels(*scorer, [frame])[0], rtol=0, atol=1e-5)


def test_state_of_inference_mode_is_taken_further(scorer, pictures, expected):
    metric = QualityMetric(*scorer)
    with torch.inference_mode():
        metric.update(pictures[0])
    frame = to_float(pictures[1]).requires_grad_(True)
    metric.update(frame)
    metric.compute().backward()
    assert frame.grad.norm() > 0
    torch.testing.assert_close(metric.compute(), expected[:2].mean(), rtol=0, atol=1e-5)


@pytest.fixture
def other_process(monkeypatch):
    """Another process of a launch, with a mean and a number of pictures."""

    def start(mean, count, total):
        shares = {torch.int64: count, torch.float32: mean * count / total}
        monkeypatch.setattr(distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(distributed, "all_reduce", lambda tensor: tensor.add_(shares[tensor.dtype]))

    return start


def test_the_mean_is_that_of_all_processes(scorer, pictures, expected, other_process):
    metric = QualityMetric(*scorer)
    other_process(mean=7.0, count=3, total=4)
    frame = to_float(pictures[0]).requires_grad_(True)
    metric.update(frame)
    (gradient,) = torch.autograd.grad(metric.compute(), frame)
    assert metric.compute().item() == pytest.approx((expected[0].item() + 3 * 7) / 4, abs=1e-5)
    assert metric.compute().item() == pytest.approx((expected[0].item() + 3 * 7) / 4, abs=1e-5)  # nothing is added
    (whole,) = torch.autograd.grad(score_pixels(*scorer, [frame])[0], frame)
    torch.testing.assert_close(gradient, whole / 4)


def test_a_process_without_pictures_answers_as_the_others_do(scorer, other_process):
    other_process(mean=7.0, count=3, total=3)
    assert QualityMetric(*scorer).compute().item() == 7


PROCESS = """
import sys
sys.path[:0] = ["tests", "tests/scoring"]
import torch
from torch import distributed, nn
from musiq_hf import load_quality
from musiq_hf.scoring import QualityMetric, score_pixels
from test_pixels import Generator

file, rank = sys.argv[1], int(sys.argv[2])
distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
scorer = load_quality("musiq-tiny-biq2021")
torch.manual_seed(0)
pictures = torch.rand(5, 3, 40, 50)
metric = QualityMetric(*scorer)
metric.update(pictures[:1] if rank == 0 else pictures[1:])
torch.testing.assert_close(metric.compute(), score_pixels(*scorer, pictures).mean(), rtol=0, atol=1e-4)
module = nn.parallel.DistributedDataParallel(Generator(scorer))
optimizer = torch.optim.SGD(module.parameters(), 0.1)
for _ in range(2):
    module(pictures[2 * rank : 2 * rank + 2]).square().sum().backward()
    optimizer.step()
print(module.module.quality.compute().item(), module.module.quality.state_dict()["mean"].item())
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_processes_of_a_real_group_agree(tmp_path):
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "group")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    started = [
        subprocess.Popen([*command, str(rank)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    printed = [process.communicate()[0].split() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    (mean, own), (mean_too, own_too) = [map(float, words[-2:]) for words in printed]
    assert mean == mean_too and own != own_too  # no process takes over the pictures of the first
    assert mean == pytest.approx((own + own_too) / 2, abs=1e-4)
