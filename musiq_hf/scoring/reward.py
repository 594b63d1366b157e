# SPDX-License-Identifier: Apache-2.0
"""Scores as a reward for generators of pictures, in the forms that trainers of TRL and verl call."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch

from ..common.devices import find_device
from ..models.auto import DEFAULT_CHECKPOINT
from ..models.protocol import Feature, QualityModel, QualityProcessor
from ..pictures.opening import describe
from .engine import check_model, read_pixels, run_model
from .loading import load_quality
from .pixels import clamp_pixels, split_pictures

Loaded = tuple[QualityModel, QualityProcessor]
Box = tuple[int, int, int, int]  # top, left, bottom, right
SMALLEST_VIEW = 0.6  # side of a crop at least, as a share of the side of the picture


def find_picture(completion: Any) -> Any:
    """Find the picture of a completion: itself, or the last one in the messages of a conversation.

    Raises:
        ValueError: If it is text. A model could name files or addresses in it, so texts are never opened.
    """
    parts = [completion]
    if isinstance(completion, list | tuple) and completion and isinstance(completion[-1], Mapping):
        content = completion[-1].get("content")
        parts = content if isinstance(content, list) else [content]
    pictures = [part.get("image") if isinstance(part, Mapping) else part for part in parts]
    found = next((picture for picture in reversed(pictures) if picture is not None), None)
    if found is None or isinstance(found, str | bytes):
        raise ValueError(
            f"a picture is expected, got {type(found).__name__}. Give `read`, a function from a completion to one."
        )
    return found


class QualityReward:
    """Reward from 0 to 1 for pictures: the place of their scores in the ranges of checkpoints, clipped.

    >>> reward = QualityReward()
    >>> reward([picture, another])
    [0.787, 0.315]

    It is a function for a trainer, no loss, for no gradient flows. Equal pictures have equal rewards in any company,
    since each is scored by itself. A generator that is trained long enough finds what raises the score without
    being better; see docs/rewards.md for how far.

    Args:
        model: Checkpoint: folder, Hub id or name of an embedded one, or a pair of model and processor. A list of
            these is an ensemble, whose reward is the mean of theirs.
        views: Number of random crops whose rewards are averaged; 1 takes the picture whole. Crops depend on the
            pixels and `seed` alone.
        seed: Seed of the crops.
        batch_size: Number of crops of a picture that are scored at a time; None takes 1 on a CPU, else 16.
        device: Device on which checkpoints that are named here compute.
        read: Function from a completion to its picture, for trainers of language models; see `find_picture`. A
            ValueError of it says that there is none.
        failed: Reward of what cannot be read, such as a completion that draws nothing; None raises.

    Attributes:
        __name__: Name under which trainers log it.

    Raises:
        ValueError: If a number is out of range, or a checkpoint cannot be used or does not say its range.
    """

    def __init__(
        self,
        model: Any = str(DEFAULT_CHECKPOINT),
        *,
        views: int = 1,
        seed: int = 0,
        batch_size: int | None = None,
        device: str = "auto",
        read: Callable[[Any], Any] = find_picture,
        failed: float | None = None,
    ) -> None:
        for name, value in (("views", views), ("batch_size", batch_size)):
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}.")
        if failed is not None and not 0 <= failed <= 1:
            raise ValueError(f"`failed` must lie between 0 and 1, as rewards do, got {failed}.")
        self.loaded = _load(model, device)
        self.views, self.seed, self.batch_size = views, seed, batch_size
        self.read, self.failed = read, failed
        self.__name__ = "quality"

    def __call__(self, images: Any = None, *, completions: Any = None, **columns: Any) -> list[float]:
        """Return the rewards of pictures.

        TRL's `GRPOTrainer` calls it by keywords, with `completions` and everything else that it knows.

        Args:
            images: A picture, a list of pictures of any sizes, or an array or tensor of several. Floats lie in 0..1;
                tensors are (3, height, width) and arrays (height, width, 3), or as the processor recognises them.
            completions: Completions of a language model, in place of `images`.
            **columns: Prompts, columns of the data set and the like, on which the reward does not depend.

        Returns:
            Rewards from 0 to 1, in order.

        Raises:
            ValueError: If neither or both are given, or something is no picture and there is no `failed`.
        """
        if (images is None) == (completions is None):
            known = ", ".join(columns) or "nothing else"
            raise ValueError(f"Either `images` or `completions` are expected, got {known}. Give one of them.")
        if completions is not None:
            return [self._reward(completion, number, self.read) for number, completion in enumerate(completions)]
        return [self._reward(picture, number, None) for number, picture in enumerate(split_pictures(images))]

    def ddpo(self, images: Any, prompts: Any, metadata: Any) -> tuple[torch.Tensor, dict[str, Any]]:
        """Return rewards as TRL's `DDPOTrainer` takes them; its versions up to 0.23 have one.

        Args:
            images: Pictures, a tensor of shape (batch, 3, height, width).
            prompts: Prompts of the pictures, at least as many.
            metadata: Anything that the function of the prompts gave beside them, which is handed back.

        Returns:
            Rewards, float32, shape (batch,), and what is known beside them.

        Raises:
            ValueError: If there are fewer prompts than pictures, or as a call does.
        """
        rewards = torch.tensor(self(images))
        if len(prompts) < len(rewards):
            raise ValueError(f"Each picture has a prompt, got {len(rewards)} and {len(prompts)}. Give them all.")
        return rewards, {"metadata": metadata}

    def compute_score(
        self, data_source: Any, solution_str: Any, ground_truth: Any, extra_info: Any = None, **columns: Any
    ) -> dict[str, Any]:
        """Return the reward of one completion as verl's reward managers take it.

        Args:
            data_source: Name of the data set, which verl logs.
            solution_str: Completion, from which `read` makes a picture.
            ground_truth: Solution of the data set; a picture has none.
            extra_info: Other columns of the row.
            **columns: Settings of the reward manager.

        Returns:
            The reward as "score".

        Raises:
            ValueError: If `read` finds no picture in the completion and there is no `failed`.
        """
        (reward,) = self(completions=[solution_str], data_source=data_source, ground_truth=ground_truth, **columns)
        return {"score": reward}

    def choose_views(self, pixels: Any) -> list[Box]:
        """Choose the crops of a picture; equal pixels have equal ones.

        Args:
            pixels: Array or tensor, shape (height, width, 3), whole numbers or floats.

        Returns:
            Top, left, bottom and right of each crop in pixels; the picture whole if `views` is 1.
        """
        array = np.ascontiguousarray(torch.as_tensor(pixels).detach().cpu().numpy())
        height, width = array.shape[:2]
        if self.views == 1:
            return [(0, 0, height, width)]
        digest = hashlib.sha256(f"{self.seed} {array.shape} {array.dtype}".encode() + array.tobytes()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:16], "big"))
        boxes = []
        for share, top, left in generator.random((self.views, 3)):
            side = SMALLEST_VIEW + (1 - SMALLEST_VIEW) * share
            rows, columns = max(1, round(side * height)), max(1, round(side * width))
            first, start = int(top * (height - rows + 1)), int(left * (width - columns + 1))
            boxes.append((first, start, first + rows, start + columns))
        return boxes

    def to(self, device: str | torch.device) -> Self:
        """Move the checkpoints to a device."""
        for model, _ in self.loaded:
            model.to(device)
        return self

    def _reward(self, completion: Any, number: int, read: Callable[[Any], Any] | None) -> float:
        """Return the reward of one picture, or of one completion that is read first."""
        for model, processor in self.loaded:
            check_model(model, processor)  # no picture is to blame for a model in training mode
        name = f"Picture {number} ({describe(completion)})"
        try:
            picture = completion if read is None else read(completion)
            if isinstance(picture, torch.Tensor):
                picture = picture.detach()
            views = [self._cut_views(clamp_pixels(picture), processor) for _, processor in self.loaded]
        except (ValueError, OSError) as error:
            if self.failed is not None:
                return self.failed
            raise ValueError(f"{name}: {error}") from error
        except TypeError as error:  # a mistake in `read`, say, which is no failure of the completion
            raise ValueError(f"{name}: {error}") from error
        places = [self._place(features, *loaded) for features, loaded in zip(views, self.loaded, strict=True)]
        reward = sum(places) / len(places)
        if not np.isfinite(reward):
            raise ValueError(f"{name}: its score is no number. Check the weights.")
        return reward

    def _cut_views(self, picture: Any, processor: QualityProcessor) -> list[Feature]:
        """Cut the views of a picture as a checkpoint reads them."""
        pixels = read_pixels(picture, processor)
        return [
            processor.cut(pixels[top:bottom, left:right]) for top, left, bottom, right in self.choose_views(pixels)
        ]

    def _place(self, features: Sequence[Feature], model: QualityModel, processor: QualityProcessor) -> float:
        """Return the mean place of views in the range of a checkpoint, each clipped."""
        size = self.batch_size or (1 if model.device.type == "cpu" else 16)
        low, high = model.config.answer_range
        total = 0.0
        with torch.inference_mode():
            for start in range(0, len(features), size):
                scores = run_model(model, processor, features[start : start + size]).scores.double()
                total += float(((scores - low) / (high - low)).clamp(0, 1).sum())
        return total / len(features)


def _load(model: Any, device: str) -> list[Loaded]:
    """Return the model and the processor of each checkpoint, ready to score."""
    is_pair = isinstance(model, tuple) and len(model) == 2 and hasattr(model[0], "config")
    several = model if isinstance(model, Sequence) and not isinstance(model, str) and not is_pair else [model]
    if not several:
        raise ValueError("`model` must name at least one checkpoint, got an empty list.")
    loaded: list[Loaded] = []
    for one in several:
        if isinstance(one, tuple):
            loaded.append(one)
        else:
            network, processor = load_quality(one)
            loaded.append((network.to(find_device(device)), processor))
        network, processor = loaded[-1]
        check_model(network, processor)
        if network.config.answer_range is None:
            raise ValueError(
                f"{one if isinstance(one, str) else 'The model'} does not say the range of its scores, which a reward "
                'needs. Fine-tune with --score_range 0 100, say, or add "score_range": [0, 100] to its config.json.'
            )
    return loaded
