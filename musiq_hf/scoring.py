# SPDX-License-Identifier: Apache-2.0
"""Score a stream of pictures: decoded ahead in threads, batched by a budget of tokens, answered in order.

The plain function under whatever scores many pictures. A picture that cannot be read or scored becomes a row with its
error, and the stream goes on.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from .image_loading_musiq import load_image, shrink_shorter_side, to_rgb_tensor
from .image_processing_musiq import MusiqImageProcessor
from .modeling_musiq import MusiqForImageQualityAssessment

# Tokens of a batch, padding counted. A CPU gains nothing from batches: pictures would only wait for each other.
MAX_TOKENS = {"cpu": 1, "other": 65_536}
Feature = dict[str, torch.Tensor]


@dataclass(frozen=True)
class PictureScore:
    """One row of the answer.

    Attributes:
        key: What the caller called the picture.
        width: Columns of the scored picture, upright, in pixels; None if it could not be read.
        height: Rows of the scored picture, upright, in pixels; None if it could not be read.
        score: In MOS points; None if it could not be scored.
        std: Standard deviation of the predicted distribution, in MOS points; None for a checkpoint without one.
        error: Why there is no score; None if there is one.
    """

    key: Any
    width: int | None = None
    height: int | None = None
    score: float | None = None
    std: float | None = None
    error: str | None = None


def _named(pictures: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """(key, source) of every picture: as given, or the path, or the place in the stream."""
    for index, picture in enumerate(pictures):
        if isinstance(picture, tuple):
            if len(picture) != 2:
                raise ValueError(f"A picture must be a source or a pair (key, source), got a tuple of {len(picture)}.")
            yield picture
        else:
            yield (os.fspath(picture) if isinstance(picture, str | os.PathLike) else index), picture


def _decode(source: Any, shorter_side: int | None, pin: bool) -> torch.Tensor:
    """Pixels (height, width, 3) of one picture; runs in a thread, so decoding alone and no work for several cores."""
    if not isinstance(source, np.ndarray | torch.Tensor):
        source = load_image(source)
        if shorter_side is not None:
            source = shrink_shorter_side(source, shorter_side)
    elif shorter_side is not None:
        raise TypeError("`shorter_side` shrinks files and PIL images, got an array. Shrink it before.")
    pixels = to_rgb_tensor(source, keep_uint8=True)
    return pixels.pin_memory() if pin else pixels


def _decode_ahead(
    pictures: Iterable[Any], *, num_workers: int, shorter_side: int | None, pin: bool
) -> Iterator[tuple[Any, Future[torch.Tensor]]]:
    """Keys and decoded pictures in order; at most two for each thread are held."""
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
    try:
        waiting = deque[tuple[Any, Future[torch.Tensor]]]()
        named = _named(pictures)
        while True:
            for key, source in islice(named, 2 * num_workers - len(waiting)):
                waiting.append((key, pool.submit(_decode, source, shorter_side, pin)))
            if not waiting:
                return
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)


def _forward(
    model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor, features: list[Feature]
) -> list[tuple[float | None, float | None, str | None]]:
    """(score, standard deviation, error) of every sequence; a batch that does not fit is halved."""
    try:
        batch = processor.pad(features, padding="longest").to(model.device)
        with torch.inference_mode():
            output = model(**batch)
        deviations = model.std_from_logits(output.logits)
        scores = output.scores.tolist()
        return [
            (score, std, None)
            for score, std in zip(
                scores, [None] * len(scores) if deviations is None else deviations.tolist(), strict=True
            )
        ]
    except torch.OutOfMemoryError:
        if len(features) == 1:
            tokens = len(features[0]["pixel_attention_mask"])
            return [
                (None, None, f"its {tokens} patches need more memory than {model.device} has. Score a smaller copy.")
            ]
    half = len(features) // 2
    return _forward(model, processor, features[:half]) + _forward(model, processor, features[half:])


def score_pictures(
    pictures: Iterable[Any],
    *,
    model: MusiqForImageQualityAssessment,
    processor: MusiqImageProcessor,
    max_tokens: int | None = None,
    num_workers: int = 2,
    shorter_side: int | None = None,
) -> Iterator[PictureScore]:
    """Score pictures as they come, in their order.

    Decoding runs ahead in threads; patches are cut on the model's device, to which the pixels travel as bytes. Memory
    is bounded by `max_tokens` (or the largest picture) and by two decoded pictures for each thread.

    Args:
        pictures: Paths, URLs, base64 texts, PIL images, arrays or tensors, or pairs (key, picture). Without a key a
            path is its own and anything else is called by its place in the stream, from 0.
        model: In evaluation mode, on its device.
        processor: One that agrees with the model.
        max_tokens: Patches of a batch, padding counted; a longer picture goes alone. None: one picture at a time on a
            CPU, 65,536 elsewhere.
        num_workers: Threads that decode.
        shorter_side: Shrink files and PIL images to this shorter side, in pixels, first; None keeps their size.

    Yields:
        One `PictureScore` for each picture; with `error` in place of `score` if it cannot be read or scored.

    Raises:
        ValueError: If settings are out of range, or model and processor disagree.
        TypeError: If something is no picture at all.
    """
    for name, value in (("max_tokens", max_tokens), ("num_workers", num_workers), ("shorter_side", shorter_side)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    processor.check_config(model.config)
    return _rows(
        _decode_ahead(pictures, num_workers=num_workers, shorter_side=shorter_side, pin=model.device.type == "cuda"),
        model,
        processor,
        max_tokens or MAX_TOKENS["cpu" if model.device.type == "cpu" else "other"],
    )


def _rows(
    decoded: Iterable[tuple[Any, Future[torch.Tensor]]],
    model: MusiqForImageQualityAssessment,
    processor: MusiqImageProcessor,
    max_tokens: int,
) -> Iterator[PictureScore]:
    """Gather sequences up to the budget, score them together, and answer in order."""
    rows: list[PictureScore] = []
    features: list[Feature | None] = []
    for key, future in decoded:
        row, feature = _sequence(key, future, model.device, processor)
        del future  # it holds the pixels
        if rows and _num_tokens([*features, feature]) > max_tokens:
            yield from _scored(rows, features, model, processor)
            rows, features = [], []
        rows.append(row)
        features.append(feature)
        if _num_tokens(features) >= max_tokens:  # nothing more fits, so do not wait for the next picture
            yield from _scored(rows, features, model, processor)
            rows, features = [], []
    yield from _scored(rows, features, model, processor)


def _sequence(
    key: Any, future: Future[torch.Tensor], device: torch.device, processor: MusiqImageProcessor
) -> tuple[PictureScore, Feature | None]:
    """The unpadded sequence of a picture on the model's device, and its row, or None and a row with the error."""
    try:
        pixels = future.result().to(device, non_blocking=True)
        lists = processor(pixels, padding="do_not_pad", input_data_format="channels_last")
    except (ValueError, OSError) as error:
        return PictureScore(key, error=str(error)), None
    height, width = pixels.shape[:2]
    return PictureScore(key, width, height), {name: values[0] for name, values in lists.items()}


def _num_tokens(features: list[Feature | None]) -> int:
    """Patches of a padded batch."""
    lengths = [len(feature["pixel_attention_mask"]) for feature in features if feature is not None]
    return max(lengths, default=0) * len(lengths)


def _scored(
    rows: list[PictureScore],
    features: list[Feature | None],
    model: MusiqForImageQualityAssessment,
    processor: MusiqImageProcessor,
) -> Iterator[PictureScore]:
    """The rows with the results of those that have a sequence."""
    sequences = [feature for feature in features if feature is not None]
    results = iter(_forward(model, processor, sequences) if sequences else ())
    for row, feature in zip(rows, features, strict=True):
        if feature is None:
            yield row
        else:
            score, std, error = next(results)
            yield PictureScore(row.key, row.width, row.height, score, std, error)
