# SPDX-License-Identifier: Apache-2.0
"""The loss on relative locations against published code and its definition."""

import golden_training_methods as golden
import numpy as np
import pytest
import torch

from musiq_hf.training.self_supervised.relative_location import (
    RelativeLocation,
    cell_positions,
    relative_location_loss,
    sample_token_pairs,
)


def load_layers(arrays, dtype):
    """Layers with the pseudo-random weights of a golden case."""
    width = arrays["tokens"].shape[-1]
    layers, random = RelativeLocation(width), np.random.RandomState(int(arrays["weights_seed"]))
    state = {}
    for index, (rows, columns) in ((0, (512, 2 * width)), (2, (512, 512)), (4, (2, 512))):
        weight = random.standard_normal((rows, columns)) * np.sqrt(2 / columns)
        state[f"layers.{index}.weight"] = torch.from_numpy(weight.astype(np.float32))
        state[f"layers.{index}.bias"] = torch.from_numpy((0.1 * random.standard_normal(rows)).astype(np.float32))
    layers.load_state_dict(state)
    return layers.to(dtype)


@pytest.mark.parametrize(
    ("case", "mode"), [("k5", "distance"), ("k5", "distance_normalized"), ("k7", "distance_normalized")]
)
@pytest.mark.parametrize(
    ("dtype", "of_prediction", "of_loss", "of_gradient"),
    [(torch.float32, 3e-6, 2e-6, 3e-6), (torch.float64, 1e-6, 1e-9, 1e-6)],
)
def test_predictions_and_loss_are_those_of_the_published_code(case, mode, dtype, of_prediction, of_loss, of_gradient):
    arrays = golden.read("relative_location", dtype)[case]
    layers, tokens = load_layers(arrays, dtype), arrays["tokens"].requires_grad_()
    positions = arrays["positions"] / ((arrays["grid"] - 1) if mode == "distance_normalized" else 1)
    predicted = layers(tokens, arrays["pairs"])
    loss = relative_location_loss(predicted, positions, arrays["pairs"])
    loss.backward()
    assert golden.errors(predicted, arrays[f"{mode}/predicted"]) < of_prediction
    expected = golden.read("relative_location", torch.float64)[case][f"{mode}/loss"].item()
    assert loss.item() == pytest.approx(expected, rel=of_loss)
    assert golden.errors(tokens.grad, arrays[f"{mode}/gradient_tokens"]) < of_gradient
    last = layers.layers[4]
    assert golden.errors(last.weight.grad[None], arrays[f"{mode}/gradient_layer4"][None]) < of_gradient
    assert golden.errors(last.bias.grad[None], arrays[f"{mode}/gradient_layer4_bias"][None]) < of_gradient
    norm = layers.layers[0].weight.grad.norm().item()
    assert norm == pytest.approx(arrays[f"{mode}/gradient_layer0_norm"].item(), rel=of_gradient)


def test_positions_are_those_of_the_published_grid():
    arrays = golden.read("relative_location")["k7"]
    ids = torch.arange(49).expand(3, 49)
    torch.testing.assert_close(cell_positions(ids, 7), arrays["positions"] / 6)
    assert cell_positions(ids, 7).dtype == torch.float32


def test_the_loss_is_the_mean_distance_to_the_distances():
    positions = torch.tensor([[[0.0, 0.0], [0.5, 1.0]]])
    pairs = torch.tensor([[[0, 1], [1, 0], [1, 1]]])
    predicted = torch.tensor([[[0.5, 1.0], [0.5, 1.0], [0.0, 0.0]]])
    assert relative_location_loss(predicted, positions, pairs).item() == 0
    assert relative_location_loss(predicted + 0.25, positions, pairs).item() == pytest.approx(0.25)


def test_gradients_of_layers_and_loss_are_derivatives():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 6, 3, generator=generator, dtype=torch.float64).requires_grad_()
    positions = torch.rand(2, 6, 2, generator=generator, dtype=torch.float64)
    pairs = torch.randint(6, (2, 5, 2), generator=generator)
    torch.manual_seed(0)
    layers = RelativeLocation(3, width=8).double()
    assert torch.autograd.gradcheck(lambda x: relative_location_loss(layers(x, pairs), positions, pairs), (tokens,))


def draw(mask, num_pairs=400, **options):
    torch.manual_seed(0)
    return sample_token_pairs(mask, num_pairs, **options)


MASK = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
SCALES = torch.tensor([[0, 0, 1, 1, 0, 1], [0, 1, 2, 2, 2, 2]])


def test_pairs_are_of_real_tokens_and_every_one_can_come():
    pairs = draw(MASK)
    assert pairs.shape == (2, 400, 2) and pairs.dtype == torch.int64
    found = [{tuple(pair) for pair in part} for part in pairs.tolist()]
    assert found[0] == {(i, j) for i in range(4) for j in range(4)}
    assert found[1] == {(i, j) for i in range(6) for j in range(6)}


@pytest.mark.parametrize("across", [False, True])
def test_tokens_of_a_pair_are_of_one_scale_or_of_two(across):
    pairs = draw(MASK, scale_position_ids=SCALES, across_scales=across)
    for part, mask, scales in zip(pairs.tolist(), MASK.tolist(), SCALES.tolist(), strict=True):
        real = [index for index, is_real in enumerate(mask) if is_real]
        wanted = {(i, j) for i in real for j in real if (scales[i] != scales[j]) == across}
        assert {tuple(pair) for pair in part} == wanted


def test_padding_and_partners_change_no_loss_of_a_picture():
    tokens, positions = torch.randn(2, 6, 3), torch.rand(2, 6, 2)
    pairs, layers = draw(MASK, 20), RelativeLocation(3, width=8)
    hostile = torch.where(MASK[..., None].bool(), tokens, torch.nan)
    together = layers(hostile, pairs)
    alone = layers(tokens[:1, :4], pairs[:1])
    torch.testing.assert_close(together[:1], alone)
    loss = relative_location_loss(alone, positions[:1, :4], pairs[:1])
    torch.testing.assert_close(relative_location_loss(together[:1], positions[:1], pairs[:1]), loss)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cell_positions(torch.zeros(1, 3).long(), 1), "`grid_size` must be at least 2, got 1"),
        (lambda: sample_token_pairs(MASK, 0), "`num_pairs` must be at least 1, got 0"),
        (lambda: sample_token_pairs(torch.zeros(1, 3), 4), "Every picture needs a real token"),
        (
            lambda: sample_token_pairs(MASK, 4, scale_position_ids=SCALES[:1]),
            r"must have shape \(2, 6\), got \(1, 6\)",
        ),
        (lambda: sample_token_pairs(MASK, 4, across_scales=True), "Pairs across scales need pictures of several"),
        (
            lambda: sample_token_pairs(MASK, 4, scale_position_ids=MASK, across_scales=True),
            "Pairs across scales need pictures of several",
        ),
        (
            lambda: RelativeLocation(3)(torch.zeros(2, 6, 3), torch.zeros(2, 5).long()),
            r"were expected, got \(2, 6, 3\)",
        ),
        (
            lambda: relative_location_loss(torch.zeros(1, 5, 1), torch.zeros(1, 6, 2), torch.zeros(1, 5, 2).long()),
            r"`predicted` must have shape \(1, 5, 2\), got \(1, 5, 1\)",
        ),
    ],
)
def test_mistakes_are_one_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()
