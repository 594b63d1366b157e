# SPDX-License-Identifier: Apache-2.0
"""Engine of all scores: it decodes pictures ahead, batches them by a budget of tokens, and answers in order.

A picture that cannot be read or scored becomes a row with its error, and the stream goes on.
"""

import math
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypedDict, Unpack

import torch
from transformers import PreTrainedModel

from ..common.checks import require_evaluation_mode
from ..common.devices import is_out_of_memory
from ..common.stores import StoreError
from ..models.protocol import Feature, QualityModel, QualityProcessor
from ..pictures.decoding import TOO_LARGE, Decoder, decode_ahead, list_pictures, name_picture
from ..pictures.opening import Preset, check_limit, check_preset, check_tokens, choose_limit
from .loading import load_quality

# Largest number of tokens in a batch, padding counted. A CPU gains nothing from batches: pictures would only wait for
# each other.
MAX_TOKENS = {"cpu": 1, "other": 65_536}
# Largest number of rows that wait for a batch. A row with an error has no tokens, so `MAX_TOKENS` does not limit it.
MAX_ROWS = 4096
# Score, standard deviation, error and logits of a `PictureScore`.
Result = tuple[float | None, float | None, str | None, tuple[float, ...] | None]


@dataclass(frozen=True)
class PictureScore:
    """Score of a picture, or the reason why there is none.

    Attributes:
        key: Name that the caller gave the picture.
        width: Columns of the scored picture, upright, in pixels; None if it could not be read.
        height: Rows of the scored picture, upright, in pixels; None if it could not be read.
        score: Score in MOS points; None if it could not be scored.
        std: Standard deviation of the predicted distribution, in MOS points; None for a checkpoint without one.
        error: Sentence that says why there is no score, and begins with the key; None if there is one. A key that is
            no text becomes "picture" and the key.
        logits: Output of the head, one number for each label; None if the picture could not be scored.
    """

    key: Any
    width: int | None = None
    height: int | None = None
    score: float | None = None
    std: float | None = None
    error: str | None = None
    logits: tuple[float, ...] | None = None


def check_model(model: QualityModel, processor: QualityProcessor) -> None:
    """Raise a ValueError if the model is training, or model and processor disagree."""
    require_evaluation_mode(model)
    processor.check_config(model.config)


def read_pixels(image: Any, processor: QualityProcessor) -> torch.Tensor:
    """Return the pixels of one picture as the processor reads it.

    Returns:
        Pixels of shape (height, width, 3), uint8, or float32 in [0, 1].

    Raises:
        ValueError: If the picture cannot be used.
        FileNotFoundError: If a path does not exist.
        TypeError: If `image` is no picture at all.
    """
    return make_decoder(processor, max_megapixels=math.inf)(image)


def make_decoder(
    processor: QualityProcessor,
    *,
    preset: Preset = "default",
    shorter_side: int | None = None,
    max_megapixels: float,
) -> Decoder:
    """Return the decoder that turns pictures into pixels for this processor."""
    return Decoder(
        preset=preset,
        shorter_side=shorter_side,
        max_megapixels=max_megapixels,
        do_convert_rgb=processor.do_convert_rgb,
        input_data_format=getattr(processor, "input_data_format", None),
    )


def run_model(model: PreTrainedModel, processor: QualityProcessor, features: Sequence[Feature]) -> Any:
    """Run a model on pictures of any sizes, padded to the longest of them.

    Gradients flow from the answer to the features, unless the caller has turned them off.

    Args:
        model: Model of any head, in evaluation mode, on its device.
        processor: Processor that has made the features.
        features: Feature of each picture, at least one.
    """
    return model(**processor.pad(features, padding="longest").to(model.device))


def _score_batch(model: QualityModel, processor: QualityProcessor, features: list[Feature]) -> list[Result]:
    with torch.inference_mode():
        output = run_model(model, processor, features)
    scores, deviations = output.scores.tolist(), model.std_from_logits(output.logits)
    stds = [None] * len(scores) if deviations is None else deviations.tolist()
    logits = [tuple(row) for row in output.logits.tolist()]
    return [(score, std, None, row) for score, std, row in zip(scores, stds, logits, strict=True)]


def _score_within_memory(model: QualityModel, processor: QualityProcessor, features: list[Feature]) -> list[Result]:
    """Return the result of every feature; a batch that does not fit into memory is halved."""
    try:
        return _score_batch(model, processor, features)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    if len(features) == 1:
        return [(None, None, _describe_shortage(model.device), None)]
    half = len(features) // 2
    first, second = features[:half], features[half:]
    return _score_within_memory(model, processor, first) + _score_within_memory(model, processor, second)


def _describe_shortage(device: torch.device) -> str:
    return f"the picture needs more memory than {device} has. Score a smaller copy."


class ScoringOptions(TypedDict, total=False):
    """Keywords of `score_pictures`; `score_with_several` gives their defaults and their meaning."""

    max_tokens: int | None
    max_pictures: int
    num_workers: int
    in_processes: bool
    shorter_side: int | None
    max_megapixels: float | None
    preset: Preset


def score_pictures(
    pictures: Any,
    *,
    model: QualityModel | None = None,
    processor: QualityProcessor | None = None,
    **options: Unpack[ScoringOptions],
) -> Iterator[PictureScore]:
    """Score pictures as they come, in their order: `score_with_several` with one model.

    Args:
        pictures: Paths, URLs, base64 texts, bytes, binary files, PIL images, arrays or tensors, or pairs (key,
            picture). Also one of these alone, a batch of arrays, or a folder.
        model: Model in evaluation mode, on its device; None = the default checkpoint, loaded on the CPU.
        processor: Processor that agrees with the model; None, as the model, for the default checkpoint.
        **options: Keywords of `score_with_several`, which describes them and the errors.

    Yields:
        One `PictureScore` for each picture, with `error` in place of `score` if it cannot be read or scored.
    """
    if model is None and processor is None:
        default: Any = load_quality()
        return (row for (row,) in score_with_several(pictures, [default], **options))
    if model is None or processor is None:
        missing = "model" if model is None else "processor"
        raise ValueError(
            f"Model and processor belong together, but `{missing}` is missing. Load both by `load_quality`."
        )
    return (row for (row,) in score_with_several(pictures, [(model, processor)], **options))


def score_with_several(
    pictures: Any,
    scorers: Sequence[tuple[QualityModel, QualityProcessor]],
    *,
    max_tokens: int | None = None,
    max_pictures: int = MAX_ROWS,
    num_workers: int = 2,
    in_processes: bool = False,
    shorter_side: int | None = None,
    max_megapixels: float | None = None,
    preset: Preset = "default",
) -> Iterator[tuple[PictureScore, ...]]:
    """Score pictures as they come, in their order, with several models; each picture is decoded once.

    Decoding runs ahead of scoring; features are cut on a model's device, to which the pixels travel as bytes. Memory
    is bounded by `max_tokens` (or the largest picture) and by two decoded pictures for each worker.

    Args:
        pictures: Paths, URLs, base64 texts, bytes, binary files, PIL images, arrays or tensors, or pairs (key,
            picture). Without a key a path is its own key, and anything else has its number in the stream, from 0.
            Errors begin with the key. One picture alone is a stream of one. A batch of arrays (NCHW or NHWC) or a
            folder is that of its pictures.
        scorers: Models in evaluation mode, on their devices, and a processor that agrees with each.
        max_tokens: Tokens (patches) of a batch, padding counted; a longer picture goes alone. None: one picture at a
            time on a CPU, 65,536 tokens elsewhere.
        max_pictures: Pictures of a batch, at most.
        num_workers: Threads or processes that decode.
        in_processes: Whether processes decode, not threads. Threads are too slow for a fast device. A file that
            crashes its decoder costs a process one row, but ends a run with threads. A script that asks for processes
            must start with `if __name__ == "__main__":`.
        shorter_side: Shrink files and PIL images to this shorter side, in pixels, first; None keeps their size.
        max_megapixels: Largest size of a picture as it is scored, in millions of pixels. A larger one has its error,
            and is not decoded. Time grows with the square of the size. `math.inf` sets no limit. None: 89 if
            all processors shrink larger pictures, else 35. The limit is meant for patches of 32: a picture with more
            tokens than so large a one has its error too.
        preset: Way in which files become pixels: "default", or "google" as in the published program; see
            `pictures.opening`.

    Yields:
        Rows of one picture, one of each scorer, in the order of the scorers.

    Raises:
        ValueError: If settings are out of range, a model is training, model and processor disagree, or processors do
            not read pictures alike.
        TypeError: If something is no picture at all. Like an error that `pictures` itself raises, it comes after the
            rows of the pictures before it.
        StoreError: If a remote store gives no answer, after the rows of the pictures before it. It is an OSError.
    """
    counts = {"max_tokens": max_tokens, "max_pictures": max_pictures}
    for name, value in (counts | {"num_workers": num_workers, "shorter_side": shorter_side}).items():
        if value is not None and value < 1:
            raise ValueError(f"`{name}` must be at least 1, got {value}.")
    check_preset(preset)
    check_limit(max_megapixels)
    for model, processor in scorers:
        check_model(model, processor)
    limit = choose_limit(max_megapixels, *(processor for _, processor in scorers))
    decoders = {
        make_decoder(processor, preset=preset, shorter_side=shorter_side, max_megapixels=limit)
        for _, processor in scorers
    }
    if len(decoders) != 1:
        raise ValueError(
            "One or more models whose processors agree in `do_convert_rgb` and `input_data_format` are needed, got "
            f"{len(decoders)} kinds of processors. Score with them one by one."
        )
    decoded = decode_ahead(list_pictures(pictures), decoders.pop(), num_workers=num_workers, in_processes=in_processes)
    return _score_in_order(
        decoded, [_Batch(model, processor, max_tokens, max_pictures, limit) for model, processor in scorers]
    )


class _Batch:
    """Rows of one model that wait, in order, until a batch of their features is full."""

    def __init__(
        self,
        model: QualityModel,
        processor: QualityProcessor,
        max_tokens: int | None,
        max_pictures: int,
        max_megapixels: float,
    ):
        self.model, self.processor, self.max_pictures = model, processor, max_pictures
        self.max_megapixels = max_megapixels
        self.max_tokens = max_tokens or MAX_TOKENS["cpu" if model.device.type == "cpu" else "other"]
        self.rows: list[tuple[PictureScore, Feature | None]] = []
        self.count = self.longest = 0

    def add(self, key: Any, decoded: Future[Any]) -> Iterator[PictureScore]:
        """Take one more picture, and yield the rows that are done."""
        row, feature = _make_feature(key, decoded, self.model.device, self.processor, self.max_megapixels)
        del decoded  # it holds the pixels, which need no memory while a batch is scored
        if feature is not None:
            length = self.processor.num_tokens(feature)
            if self.count and max(self.longest, length) * (self.count + 1) > self.max_tokens:
                yield from self.flush()
            self.count += 1
            self.longest = max(self.longest, length)
        self.rows.append((row, feature))
        del feature
        # Nothing is worth waiting for: no feature, a full batch, or very many rows.
        if not self.count or self.count * self.longest >= self.max_tokens or len(self.rows) >= self.max_pictures:
            yield from self.flush()

    def flush(self) -> Iterator[PictureScore]:
        """Yield all rows that wait, after scoring those that have a feature."""
        rows, self.rows, self.count, self.longest = self.rows, [], 0, 0
        features = [feature for _, feature in rows if feature is not None]
        results = iter(_score_within_memory(self.model, self.processor, features) if features else ())
        for row, feature in rows:
            if feature is None:
                yield row
            else:
                score, std, error, logits = next(results)
                named = None if error is None else _name_error(row.key, error)
                yield replace(row, score=score, std=std, error=named, logits=logits)


def _score_in_order(
    decoded: Generator[tuple[Any, Future[Any]]], batches: Sequence[_Batch]
) -> Iterator[tuple[PictureScore, ...]]:
    """Gather features up to the budget, score them together, and answer in order."""
    done, failure = [deque[PictureScore]() for _ in batches], None
    with closing(decoded):
        while failure is None:
            try:
                key, future = next(decoded)
                shares = [future] * len(batches)
                del future  # it holds the pixels, which the last batch frees before it scores
                for batch, rows in zip(batches, done, strict=True):
                    rows.extend(batch.add(key, shares.pop()))
            except StopIteration:
                break
            except Exception as error:  # raised by the source: the rows of the pictures before it come first
                failure = error
            yield from _take_finished(done)
        for batch, rows in zip(batches, done, strict=True):
            rows.extend(batch.flush())
        yield from _take_finished(done)
    if failure is not None:
        raise failure


def _take_finished(done: Sequence[deque[PictureScore]]) -> Iterator[tuple[PictureScore, ...]]:
    """Yield the rows of pictures that all models are done with."""
    while all(done):
        yield tuple(rows.popleft() for rows in done)


def _name_error(key: Any, error: str | Exception) -> str:
    """Return the message of an error so that it begins with the name of the picture."""
    start = f"{name_picture(key)}: "
    return start + str(error).removeprefix(start)


def _make_feature(
    key: Any, decoded: Future[Any], device: torch.device, processor: QualityProcessor, max_megapixels: float
) -> tuple[PictureScore, Feature | None]:
    """Return the row of a picture and its feature on the model's device, or a row with the error and None."""
    row = PictureScore(key)
    try:
        pixels = torch.as_tensor(decoded.result()).to(device)
        height, width = pixels.shape[:2]
        row = PictureScore(key, width=width, height=height)
        num_tokens = processor.count_tokens(height, width)
        check_tokens(num_tokens, (width, height), name_picture(key), max_megapixels=max_megapixels, advice=TOO_LARGE)
        feature = processor.cut(pixels)
    except StoreError:  # no row, for the next run may read the picture
        raise
    except (ValueError, OSError) as error:
        return replace(row, error=_name_error(key, error)), None
    except TypeError as error:
        raise TypeError(_name_error(key, error)) from error
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return replace(row, error=_name_error(key, _describe_shortage(device))), None
    return row, feature
