# SPDX-License-Identifier: Apache-2.0
"""Score a stream of pictures: decoded ahead in threads, batched by a budget of tokens, answered in order.

A plain function for any engine to call. A picture that cannot be read or scored becomes a row with its
error, and the stream goes on.
"""

import os
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch

from .image_loading_musiq import load_image, shrink_shorter_side, to_rgb_tensor
from .image_processing_musiq import MusiqImageProcessor
from .memory import is_out_of_memory
from .modeling_musiq import MusiqForImageQualityAssessment

# Tokens of a batch, padding counted. A CPU gains nothing from batches: pictures would only wait for each other.
MAX_TOKENS = {"cpu": 1, "other": 65_536}
MAX_ROWS = 4096  # that wait for a batch: errors need no token
Feature = dict[str, torch.Tensor]
Result = tuple[float | None, float | None, str | None]  # score, standard deviation, error


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


def check_model(model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor) -> None:
    """Raise a ValueError if the model is training, or model and processor disagree."""
    if model.training:
        raise ValueError("The model must be in evaluation mode, or dropout would change scores. Call `model.eval()`.")
    processor.check_config(model.config)


def read_pixels(image: Any, processor: MusiqImageProcessor) -> torch.Tensor:
    """Pixels of one picture as the processor reads it: (height, width, 3), uint8 or float32 in [0, 1].

    Raises:
        ValueError: If the picture cannot be used.
        FileNotFoundError: If a path does not exist.
        TypeError: If `image` is no picture at all.
    """
    if not isinstance(image, np.ndarray | torch.Tensor):
        image = load_image(image)
    layout = getattr(processor, "input_data_format", None)
    return to_rgb_tensor(
        image, input_data_format=layout, do_convert_rgb=processor.do_convert_rgb, keep_uint8=True
    ).detach()


def cut_pixels(pixels: torch.Tensor, processor: MusiqImageProcessor) -> Feature:
    """The unpadded sequence of `read_pixels`' answer, without a batch axis, on the device of the pixels."""
    lists = processor(pixels, padding="do_not_pad", input_data_format="channels_last", return_tensors="pt")
    return {name: values[0] for name, values in lists.items()}


@dataclass(frozen=True)
class _Decoder:
    """Turns a source into pixels (height, width, 3) in a thread: decoding alone, no work for several cores."""

    processor: MusiqImageProcessor
    shorter_side: int | None
    pin: bool

    def __call__(self, source: Any) -> torch.Tensor:
        if self.shorter_side is not None:
            if isinstance(source, np.ndarray | torch.Tensor):
                raise TypeError("`shorter_side` shrinks files and PIL images, got an array. Shrink it before.")
            source = shrink_shorter_side(load_image(source), self.shorter_side)
        pixels = read_pixels(source, self.processor)
        return pixels.pin_memory() if self.pin and pixels.device.type == "cpu" else pixels


def _own(source: Any) -> Any:
    """The source itself, or a copy of an array, which its owner may fill anew while it waits here."""
    if isinstance(source, torch.Tensor):
        return source.detach().clone()
    return source.copy() if isinstance(source, np.ndarray) else source


def _decode_ahead(
    pictures: Iterable[Any], decode: _Decoder, num_workers: int
) -> Generator[tuple[Any, Future[torch.Tensor]]]:
    """Keys and decoded pictures in order, at most two for each thread held; an error of the source comes last."""
    pool = ThreadPoolExecutor(num_workers, thread_name_prefix="decode")
    waiting = deque[tuple[Any, Future[torch.Tensor]]]()
    named, failure = _named(pictures), None
    try:
        while True:
            try:
                for key, source in islice(named, 2 * num_workers - len(waiting)):
                    waiting.append((key, pool.submit(decode, _own(source))))
            except Exception as error:
                failure = error
            if not waiting:
                break
            yield waiting.popleft()
    finally:
        pool.shutdown(cancel_futures=True)
    if failure is not None:
        raise failure


def _run(
    model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor, features: list[Feature]
) -> list[Result]:
    batch = processor.pad(features, padding="longest", return_tensors="pt").to(model.device)
    with torch.inference_mode():
        output = model(**batch)
    scores, deviations = output.scores.tolist(), model.std_from_logits(output.logits)
    stds = [None] * len(scores) if deviations is None else deviations.tolist()
    return [(score, std, None) for score, std in zip(scores, stds, strict=True)]


def _forward(
    model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor, features: list[Feature]
) -> list[Result]:
    """Score, standard deviation and error of every sequence; a batch that does not fit is halved."""
    try:
        return _run(model, processor, features)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if len(features) == 1:
        return [(None, None, _too_large(model.device))]
    half = len(features) // 2
    return _forward(model, processor, features[:half]) + _forward(model, processor, features[half:])


def _too_large(device: torch.device) -> str:
    return f"the picture needs more memory than {device} has. Score a smaller copy."


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
        ValueError: If settings are out of range, the model is training, or model and processor disagree.
        TypeError: If something is no picture at all. Like an error of `pictures` itself it comes after the rows of
            what was read before.
    """
    for name, value in (("max_tokens", max_tokens), ("num_workers", num_workers), ("shorter_side", shorter_side)):
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    check_model(model, processor)
    decode = _Decoder(processor, shorter_side, pin=model.device.type == "cuda")
    budget = max_tokens or MAX_TOKENS["cpu" if model.device.type == "cpu" else "other"]
    return _rows(_decode_ahead(pictures, decode, num_workers), _Batch(model, processor, budget))


class _Batch:
    """Rows that wait, in order, for a batch of their sequences to be full."""

    def __init__(self, model: MusiqForImageQualityAssessment, processor: MusiqImageProcessor, max_tokens: int):
        self.model, self.processor, self.max_tokens = model, processor, max_tokens
        self.rows: list[tuple[PictureScore, Feature | None]] = []
        self.count = self.longest = 0

    def has_room(self, feature: Feature) -> bool:
        """Whether one more sequence stays within the budget."""
        length = len(feature["pixel_attention_mask"])
        return not self.count or max(self.longest, length) * (self.count + 1) <= self.max_tokens

    def add(self, row: PictureScore, feature: Feature | None) -> None:
        """One more row, with its sequence, or with its error."""
        self.rows.append((row, feature))
        if feature is not None:
            self.count += 1
            self.longest = max(self.longest, len(feature["pixel_attention_mask"]))

    def is_done(self) -> bool:
        """Whether nothing is worth waiting for: no sequence, a full batch, or very many rows."""
        return not self.count or self.count * self.longest >= self.max_tokens or len(self.rows) >= MAX_ROWS

    def flush(self) -> Iterator[PictureScore]:
        """All rows, with the results of those that have a sequence; none is left."""
        rows, self.rows, self.count, self.longest = self.rows, [], 0, 0
        sequences = [feature for _, feature in rows if feature is not None]
        results = iter(_forward(self.model, self.processor, sequences) if sequences else ())
        for row, feature in rows:
            if feature is None:
                yield row
            else:
                score, std, error = next(results)
                yield replace(row, score=score, std=std, error=error)


def _rows(decoded: Generator[tuple[Any, Future[torch.Tensor]]], batch: _Batch) -> Iterator[PictureScore]:
    """Gather sequences up to the budget, score them together, and answer in order."""
    with closing(decoded):
        while True:
            try:
                key, future = next(decoded)
            except StopIteration:
                break
            except Exception:  # of the source; what came before it is not lost
                yield from batch.flush()
                raise
            row, feature = _sequence(key, future, batch.model.device, batch.processor)
            del future  # it holds the pixels
            if feature is not None and not batch.has_room(feature):
                yield from batch.flush()
            batch.add(row, feature)
            del feature
            if batch.is_done():
                yield from batch.flush()
        yield from batch.flush()


def _sequence(
    key: Any, future: Future[torch.Tensor], device: torch.device, processor: MusiqImageProcessor
) -> tuple[PictureScore, Feature | None]:
    """The unpadded sequence of a picture on the model's device, and its row, or None and a row with the error."""
    row = PictureScore(key)
    try:
        pixels = future.result().to(device, non_blocking=True)
        row = PictureScore(key, width=pixels.shape[1], height=pixels.shape[0])
        feature = cut_pixels(pixels, processor)
    except (ValueError, OSError) as error:
        # The processor names a picture by what it was given, pixels; its reason is the cause.
        return replace(row, error=str(error if row.width is None else error.__cause__ or error)), None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return replace(row, error=_too_large(device)), None
    return row, feature
