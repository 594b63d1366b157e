# SPDX-License-Identifier: Apache-2.0
"""Scores as a reward: any form of picture, crops, ensembles, and the trainers that call it."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.scoring import QualityReward, score_pixels

RANGE = (-10, 10)


@pytest.fixture(scope="module")
def pair(tiny_model):
    model = tiny_model(score_range=RANGE)
    return model, MusiqImageProcessor.from_config(model.config)


@pytest.fixture(scope="module")
def other(tiny_model):
    model = tiny_model(score_range=RANGE, seed=1)
    return model, MusiqImageProcessor.from_config(model.config)


@pytest.fixture(scope="module")
def reward(pair):
    return QualityReward(pair)


def expect(pair, picture):
    pixels = torch.as_tensor(picture).permute(2, 0, 1)[None] / 255
    return (float(score_pixels(*pair, pixels).detach()) + 10) / 20


def test_pictures_of_any_form_and_size_have_the_reward_of_their_score(reward, pair, pictures):
    expected = [expect(pair, picture) for picture in pictures]
    floats = [torch.as_tensor(picture).permute(2, 0, 1) / 255 for picture in pictures]
    for given in (pictures, [Image.fromarray(picture) for picture in pictures], floats):
        rewards = reward(given)
        assert all(type(value) is float and 0 < value < 1 for value in rewards)
        assert rewards == pytest.approx(expected, abs=1e-5)
    batch = np.stack([pictures[0], pictures[0][::-1]])
    assert reward(batch) == reward(list(batch)) and len(reward(batch)) == 2
    assert reward(torch.as_tensor(batch).permute(0, 3, 1, 2) / 255) == pytest.approx(reward(batch), abs=1e-5)
    assert reward(pictures[0]) == [reward(pictures)[0]] == reward(pictures)[:1]


def test_no_gradient_flows_and_overshooting_is_limited(reward, pictures):
    pixels = (torch.as_tensor(pictures[0]).permute(2, 0, 1) / 255).requires_grad_(True)
    assert reward([pixels * 1.2 - 0.1]) == reward([(pixels * 1.2 - 0.1).clamp(0, 1)])
    assert pixels.grad is None and all(parameter.grad is None for parameter in reward.loaded[0][0].parameters())


def test_rewards_are_clipped(pair, pictures, tiny_model):
    narrow = tiny_model(score_range=(100, 101))
    assert QualityReward((narrow, pair[1]))(pictures[:2]) == [0.0, 0.0]


def test_an_ensemble_is_the_mean(pair, other, pictures):
    single = np.mean([QualityReward(pair)(pictures), QualityReward(other)(pictures)], axis=0)
    assert QualityReward([pair, other])(pictures) == pytest.approx(single.tolist())


def test_views_depend_on_content_and_seed_alone(pair, pictures):
    reward = QualityReward(pair, views=4)
    boxes = reward.choose_views(pictures[3])
    assert boxes == QualityReward(pair, views=4).choose_views(torch.as_tensor(pictures[3])) and len(set(boxes)) == 4
    for top, left, bottom, right in boxes:
        assert 0 <= top < bottom <= 48 and 0 <= left < right <= 24 and bottom - top >= 28 and right - left >= 14
    assert boxes != QualityReward(pair, views=4, seed=1).choose_views(pictures[3])
    assert boxes != reward.choose_views(pictures[3] ^ 1)
    crops = [pictures[3][top:bottom, left:right] for top, left, bottom, right in boxes]
    assert reward(pictures[3]) == pytest.approx([np.mean([expect(pair, crop) for crop in crops])], abs=1e-5)
    assert reward(pictures)[3:] == reward(pictures[3])
    batched = QualityReward(pair, views=4, batch_size=3)(pictures[3:4])
    assert batched == pytest.approx(reward(pictures[3]), abs=1e-5)
    assert QualityReward(pair).choose_views(pictures[3]) == [(0, 0, 48, 24)]


def test_completions_are_read(reward, pair, pictures):
    image = Image.fromarray(pictures[0])
    message = [{"role": "assistant", "content": [{"type": "text", "text": "here"}, {"type": "image", "image": image}]}]
    completions = [message, image]
    words = {"prompts": ["a", "b"], "completion_ids": [[1], [2]], "trainer_state": None}
    assert reward(completions=completions, **words) == reward([image, image])
    for text in ("http://127.0.0.1:1/a.png", [{"role": "assistant", "content": "/etc/hosts"}], b"GIF89a"):
        with pytest.raises(ValueError, match=r"Picture 1 .*a picture is expected.*`read`"):
            reward(completions=[image, text])
    lenient = QualityReward(pair, read=json.loads, failed=0.0)
    assert lenient(completions=["no JSON", "", "{"]) == [0.0] * 3
    with pytest.raises(ValueError, match="Picture 1 .*"):  # a mistake of `read`, not of the completion
        lenient(completions=["no JSON", json.dumps(7)])
    drawing = QualityReward(pair, read=lambda text: np.full((20, 20, 3), int(text), np.uint8), failed=0.0)
    assert drawing(completions=["7", "seven"])[0] > 0 == drawing(completions=["7", "seven"])[1]
    assert drawing.compute_score("mine", "7", None, {"index": 3}) == {"score": drawing(completions=["7"])[0]}


def test_a_model_in_training_mode_is_no_failure_of_a_picture(tiny_model, pair, pictures):
    reward = QualityReward((tiny_model(score_range=RANGE), pair[1]), failed=0.0)
    reward.loaded[0][0].train()
    with pytest.raises(ValueError, match="evaluation mode"):
        reward(pictures)


def test_the_form_of_ddpo(reward, pictures):
    images = torch.as_tensor(np.stack([pictures[0]] * 2)).permute(0, 3, 1, 2) / 255
    rewards, known = reward.ddpo(images.half(), ("a", "b"), ({}, {"x": 1}))
    assert rewards.dtype == torch.float32 and rewards.shape == (2,) and known == {"metadata": ({}, {"x": 1})}
    with pytest.raises(ValueError, match="Each picture has a prompt, got 2 and 1"):
        reward.ddpo(images, ("a",), ({},))


def test_mistakes_are_sentences(pair, reward, pictures, tiny_model):
    unknown = tiny_model(score_range=None)
    for model, options, reason in (
        (pair, {"views": 0}, "`views` must be at least 1"),
        (pair, {"failed": 2}, "`failed` must lie between 0 and 1"),
        ([], {}, "at least one checkpoint"),
        ((unknown, pair[1]), {}, "does not say the range"),
    ):
        with pytest.raises(ValueError, match=reason):
            QualityReward(model, **options)
    for words in ({}, {"images": pictures, "completions": pictures}, {"prompts": ["a"]}):
        with pytest.raises(ValueError, match="Either `images` or `completions`"):
            reward(**words)
    with pytest.raises(ValueError, match="Picture 1 "):
        reward([pictures[0], "nowhere.png"])


def test_a_toy_generator_climbs_the_reward(pair):
    """REINFORCE on the gray of a picture: the reward of the mean rises, by no gradient through the model."""
    reward = QualityReward(pair)

    def draw(level):
        ramp = np.linspace(0, 255, 24)[None, :, None] * float(level)
        return np.broadcast_to(ramp, (24, 24, 3)).round().astype(np.uint8)

    levels = [draw(level) for level in np.linspace(0, 1, 5)]
    rewards_of_all = reward(levels)
    generator, logits = torch.Generator().manual_seed(0), torch.zeros(5)
    for _ in range(8):
        chosen = torch.multinomial(logits.softmax(0), 4, replacement=True, generator=generator)
        rewards = torch.tensor(reward([levels[index] for index in chosen]))
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
        for index, advantage in zip(chosen, advantages, strict=True):
            logits += 0.3 * advantage * (torch.eye(5)[index] - logits.softmax(0))
    expected = float(logits.softmax(0) @ torch.tensor(rewards_of_all))
    assert max(rewards_of_all) > expected > np.mean(rewards_of_all) + 1e-4


def test_trl_trains_by_it(pair, tmp_path):
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    words = {str(number): number for number in range(10)} | {"draw": 10, "<pad>": 11, "<eos>": 12}
    tokenizer = Tokenizer(WordLevel(words, unk_token="draw"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    network = GPT2LMHeadModel(GPT2Config(vocab_size=13, n_positions=16, n_embd=8, n_layer=1, n_head=1))
    seen = []

    def read(text):
        levels = [28 * int(word) for word in text.split()]
        seen.append(text)
        return np.tile(np.array(levels, dtype=np.uint8)[None, :, None], (24, 6, 3))

    reward = QualityReward(pair, read=read, failed=0.0)
    trainer = trl.GRPOTrainer(
        network,
        reward_funcs=reward,
        args=trl.GRPOConfig(
            str(tmp_path),
            **{"max_steps": 2, "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 4},
            **{"report_to": "none", "use_cpu": True, "save_strategy": "no", "logging_steps": 1, "bf16": False},
        ),
        train_dataset=Dataset.from_dict({"prompt": ["draw"] * 4}),
        processing_class=PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>"),
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "rewards/quality/mean" in entry]
    assert len(logs) == 2 and len(seen) <= 8 and all(0 <= entry["reward"] <= 1 for entry in logs)
