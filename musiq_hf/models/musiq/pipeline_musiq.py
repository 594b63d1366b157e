# SPDX-License-Identifier: Apache-2.0
"""Pipelines "image-quality-assessment" and "image-classification": pictures of any sizes to scores in MOS points.

The task on a model card must be one that the Hub knows, "image-classification". Its pipeline in Transformers answers
the raw logit of a quality model, whatever its unit, so ours stands in its place.

A calibration, calibration.json beside the weights, tells where a score stands among those of the validation pictures.
"""

import json
import os
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import ImageClassificationPipeline, Pipeline
from transformers.image_processing_utils import BatchFeature
from transformers.utils import ModelOutput, cached_file

from .checks_musiq import check_types, identify_scores
from .image_formats_musiq import (
    PICTURE_SUFFIXES,
    check_limit,
    check_megapixels,
    check_tokens,
    choose_limit,
    find_suffix,
)
from .image_loading_musiq import describe, load_image, to_rgb_tensor
from .publishing_musiq import Uploaded

TOO_LARGE = "Shrink it first, or raise the limit (`max_megapixels`)."
CALIBRATION = "calibration.json"
NUM_QUANTILES, NUM_STARS = 101, 5
ANEW = "`musiq evaluate --write_calibration`"


@dataclass(frozen=True)
class CheckpointCalibration:
    """Scores of a checkpoint for its validation pictures, among which other scores have a place.

    Attributes:
        data: Name of the pictures.
        num_pictures: Number of the pictures.
        quantiles: Scores in MOS points that 0, 1, ..., 100 percent of the pictures do not exceed.
        signature: Parts of the signature of the scores by name: weights, preset and preprocessing.
        rated_below: Shares in 0..1, one for each quantile: of the pictures that score at least as much, those that
            people rated lower. None if opinion scores are unknown.
        rated_above: Shares in 0..1, one for each quantile: of the pictures that score less, those that people rated
            at least as high. It is 0 where no picture scores less. None if opinion scores are unknown.

    Raises:
        ValueError: If a value has another type, or the quantiles are not 101 finite numbers that never fall.
    """

    data: str
    num_pictures: int
    quantiles: list[float]
    signature: Mapping[str, str]
    rated_below: list[float] | None = None
    rated_above: list[float] | None = None

    def __post_init__(self) -> None:
        shares = list[float | int] | None
        types = {"data": str, "num_pictures": int, "quantiles": list[float | int], "signature": dict[str, str]}
        check_types(vars(self), types | {"rated_below": shares, "rated_above": shares})
        num_finite = int(np.isfinite(self.quantiles).sum())
        if not len(self.quantiles) == num_finite == NUM_QUANTILES:
            raise ValueError(f"`quantiles` must be {NUM_QUANTILES} finite numbers, got {num_finite}.")
        if sorted(self.quantiles) != self.quantiles:
            raise ValueError("`quantiles` must never fall.")
        for name in ("rated_below", "rated_above"):
            values = getattr(self, name)
            if values is not None and not (len(values) == NUM_QUANTILES and all(0 <= share <= 1 for share in values)):
                raise ValueError(f"`{name}` must be {NUM_QUANTILES} numbers from 0 to 1.")

    @classmethod
    def read(cls, path: Path) -> "CheckpointCalibration":
        """Read the file of a calibration, or raise a ValueError if it is damaged."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            reason = str(error).rstrip(".")
            raise ValueError(f"{path} is damaged ({reason}). Delete it, and write it anew with {ANEW}.") from error

    def percentile(self, score: float) -> float:
        """Compute how many percent of the pictures score lower, interpolated, from 0 to 100 with one decimal.

        Raises:
            ValueError: If the score is not a number.
        """
        if np.isnan(score):
            raise ValueError(f"A score that is a number has a percentile, got {score}. Check the weights.")
        first, end = bisect_left(self.quantiles, score), bisect_right(self.quantiles, score)
        place = (first + end - 1) / 2  # of equal quantiles the middle one
        if first == end:
            place = min(max(place, 0), NUM_QUANTILES - 1)
            if 0 < first < NUM_QUANTILES:
                below, above = self.quantiles[first - 1 : first + 1]
                place = first - 1 + (score - below) / (above - below)
        return round(100 * place / (NUM_QUANTILES - 1), 1)

    def find_score(self, percent: float) -> float:
        """Return the score that a percentage of the pictures does not exceed, interpolated between quantiles."""
        return float(np.interp(percent, np.arange(NUM_QUANTILES), self.quantiles))

    def find_opposed(self, threshold: float) -> tuple[float, float] | None:
        """Return how often people are of another opinion than a threshold, interpolated between quantiles.

        Args:
            threshold: Score in MOS points.

        Returns:
            Two shares in 0..1. The first is that of pictures rated lower among those that score at least as much. The
            second is that of pictures rated at least as high among those that score less. None if opinion scores are
            unknown, or the threshold lies outside of the scores of the pictures.
        """
        if self.rated_below is None or self.rated_above is None:
            return None
        if not self.quantiles[0] <= threshold <= self.quantiles[-1]:
            return None
        shares = [float(np.interp(threshold, self.quantiles, part)) for part in (self.rated_below, self.rated_above)]
        return shares[0], shares[1]

    def stars(self, score: float) -> int:
        """Return the fifth of the pictures among which a score stands: 1 is the lowest, 5 the highest."""
        return min(int(self.percentile(score) * NUM_STARS // 100) + 1, NUM_STARS)


def load_calibration(
    checkpoint: str, model: Any, processor: Any, *, shorter_side: int | None = None, preset: str = "default"
) -> CheckpointCalibration:
    """Load the calibration of a checkpoint, if it holds for scores that are made in some way.

    Args:
        checkpoint: Folder or Hub id from which the model was loaded.
        model: Model with a quality head.
        processor: Processor of the model.
        shorter_side: Shorter side to which pictures are shrunk first, in pixels; None if they are not.
        preset: Way in which files become pixels.

    Raises:
        ValueError: If the checkpoint has no calibration, a damaged one or one of other scores.
    """
    missing = ("gated_repo", "missing_entries", "connection_errors")
    choices: dict[str, Any] = {f"_raise_exceptions_for_{name}": False for name in missing}
    try:
        path = cached_file(checkpoint, CALIBRATION, revision=getattr(model.config, "_commit_hash", None), **choices)
    except OSError:  # there is no such folder or id
        path = None
    if path is None:
        raise ValueError(
            f"{checkpoint or 'The model'} holds no {CALIBRATION}, so its scores have no percentiles. Write it with "
            f"{ANEW}."
        )
    calibration = CheckpointCalibration.read(Path(path))
    now = identify_scores(model, processor, shorter_side=shorter_side, preset=preset)
    then = calibration.signature
    if then != now:
        other = [f"{name} {then.get(name)}, now {now[name]}" for name in now if then.get(name) != now[name]]
        raise ValueError(
            f"{path} is of other scores ({'; '.join(other)}). It holds for the weights that it was made with, in "
            f"float32, and for one way of reading pictures. Score so, or write it anew with {ANEW}."
        )
    return calibration


def _read_picture(image: Any, processor: Any, *, timeout: float | None, max_megapixels: float | None) -> BatchFeature:
    """Turn one picture of any kind into a batch of one.

    Raises:
        ValueError: If the picture cannot be used, or is too large; the message names it.
    """
    check_limit(max_megapixels)
    limit = choose_limit(max_megapixels, processor)
    check_size = partial(check_megapixels, max_megapixels=limit, advice=TOO_LARGE)
    if isinstance(image, np.ndarray | torch.Tensor):
        if image.ndim == 4:
            raise ValueError(f"One picture was expected, got an array of shape {tuple(image.shape)}: pass a list.")
    else:
        image = load_image(image, timeout=timeout, check_size=check_size)
    try:
        pixels = to_rgb_tensor(
            image,
            input_data_format=getattr(processor, "input_data_format", None),
            do_convert_rgb=processor.do_convert_rgb,
            keep_uint8=True,
        )
        height, width = pixels.shape[:2]
        check_size((width, height), "decoded")
        num_tokens = processor.count_tokens(height, width)
        check_tokens(num_tokens, (width, height), "decoded", max_megapixels=limit, advice=TOO_LARGE)
        return processor.pad([processor.cut(pixels)], padding="longest")
    except ValueError as error:
        raise ValueError(f"Picture ({describe(image)}): {error}") from error


def _list_pictures(inputs: Any) -> Any:
    """Return the pictures of a batch array, or those below a folder by their names, as a list; other inputs as given.

    Raises:
        ValueError: If a folder holds no picture.
    """
    if isinstance(inputs, np.ndarray | torch.Tensor) and inputs.ndim == 4:
        return list(inputs)
    if not isinstance(inputs, str | os.PathLike) or not os.path.isdir(inputs):
        return inputs
    below = [path.relative_to(inputs) for path in Path(inputs).rglob("*")]
    seen = [path for path in below if not any(part.startswith(".") for part in path.parts)]
    files = [Path(inputs, path) for path in sorted(seen) if find_suffix(path.name) in PICTURE_SUFFIXES]
    found = [str(path) for path in files if path.is_file()]
    if not found:
        raise ValueError(f"{inputs} holds no picture. Give a folder of PNG, JPEG or other pictures.")
    return found


def _name_settings(timeout: float | None, max_megapixels: float | None) -> dict[str, Any]:
    """Return the keywords of `_read_picture` that the caller of a pipeline has given."""
    given = {"timeout": timeout, "max_megapixels": max_megapixels}
    return {name: value for name, value in given.items() if value is not None}


class _SavedAsCheckpoint(Uploaded, Pipeline):
    """Base of pipelines whose image processor pads batches, and that are saved and uploaded without more."""

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Save model and image processor.

        The base class would write the class and this machine's path of the default checkpoint to config.json.
        """
        self.model.save_pretrained(save_directory, **kwargs)
        self.image_processor.save_pretrained(save_directory, **kwargs)

    @property
    def _is_ours(self) -> bool:
        """True if the model is one of this package's families, whose processors cut pictures and pad batches."""
        return hasattr(self.image_processor, "cut")

    def get_iterator(self, inputs: Any, num_workers: int, batch_size: int, *parameters: Any) -> Any:
        """Make the iterator of the base class, but let the image processor pad: the base does not pad its batches.

        PIL images are loaded first: processes that share an open file would move each other's place in it.
        """
        if self._is_ours and num_workers and isinstance(inputs, list):
            inputs = [load_image(image) if isinstance(image, Image.Image) else image for image in inputs]
        results = super().get_iterator(inputs, num_workers, batch_size, *parameters)
        if self._is_ours and batch_size > 1:
            results.loader.loader.collate_fn = self._collate
        return results

    def _collate(self, items: list[BatchFeature]) -> BatchFeature:
        features = [{name: values[0] for name, values in item.items()} for item in items]
        return self.image_processor.pad(features, padding="longest")


class QualityClassificationPipeline(_SavedAsCheckpoint, ImageClassificationPipeline):
    """Pipeline "image-classification" that answers `[{"label": "MOS", "score": ...}]` for a model of image quality.

    The score is in MOS points, also where the model predicts a distribution. Any other model is answered as by the
    base class. Pictures are read, and limited by `max_megapixels`, as by "image-quality-assessment".
    """

    def _sanitize_parameters(
        self, max_megapixels: float | None = None, **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        settings, forward, answer = super()._sanitize_parameters(**kwargs)
        return settings | _name_settings(None, max_megapixels), forward, answer

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Answer one picture or many, as the base class does; folders and batch arrays are lists of their pictures."""
        return super().__call__(_list_pictures(inputs) if self._is_ours else inputs, **kwargs)

    def preprocess(
        self, image: Any, timeout: float | None = None, max_megapixels: float | None = None
    ) -> BatchFeature:
        """Turn one picture into a batch of one."""
        if not self._is_ours:
            return super().preprocess(image, timeout=timeout)
        return _read_picture(image, self.image_processor, timeout=timeout, max_megapixels=max_megapixels)

    def postprocess(self, model_outputs: ModelOutput, **kwargs: Any) -> list[dict[str, Any]]:
        """Return the score of one picture, or the probabilities of its classes."""
        if "scores" not in model_outputs:
            answers: list[dict[str, Any]] = super().postprocess(model_outputs, **kwargs)
            return answers
        if "function_to_apply" in kwargs:
            raise ValueError("A score is in MOS points, to which no function is applied. Leave out function_to_apply.")
        return [{"label": "MOS", "score": float(model_outputs["scores"][0])}]


class ImageQualityAssessmentPipeline(_SavedAsCheckpoint):
    """Pipeline that scores pictures with a checkpoint that has a quality head, of MUSIQ or of another family.

    >>> from transformers import pipeline
    >>> import musiq_hf
    >>> scorer = pipeline("image-quality-assessment")
    >>> scorer("photo.jpg")
    {'score': 71.3}

    `percentile=True`, here or in a call, adds "percentile", the place of the score among those of the validation
    pictures, and "stars", 1 to 5. The checkpoint must have a calibration.json.

    A picture is a path, an http(s) URL, base64 text, bytes, a binary file, a PIL image or an array. Several pictures
    are a list, a generator, a `KeyDataset`, a batch of arrays (NCHW or NHWC) or a folder. With `batch_size` above 1
    pictures of different sizes are padded and masked: the partners in a batch do not change a score. A checkpoint that
    predicts a score distribution adds "distribution", the probabilities of the score values 1..n, and "std", the
    standard deviation of that distribution.
    """

    _load_processor = False
    _load_image_processor = True
    _load_feature_extractor = False
    _load_tokenizer = False
    _load_video_processor = False

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if not hasattr(self.model, "std_from_logits"):
            raise ValueError(
                f"A checkpoint with a quality head is needed, got {type(self.model).__name__}. "
                "An ImageNet checkpoint has no quality head: fine-tune it first."
            )
        if not (hasattr(self.image_processor, "check_config") and hasattr(self.image_processor, "cut")):
            raise ValueError(f"The image processor of the model is needed, got {type(self.image_processor).__name__}.")
        self.image_processor.check_config(self.model.config)

    def _sanitize_parameters(
        self,
        timeout: float | None = None,
        max_megapixels: float | None = None,
        percentile: bool | None = None,
        **unknown: Any,
    ) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        if unknown:
            known = "`timeout`, `max_megapixels`, `percentile`, `batch_size` and `num_workers`"
            raise TypeError(f"The pipeline knows {known}, got `{', '.join(unknown)}`. Leave it out.")
        answer: dict[str, Any] = {} if percentile is None else {"calibration": None}
        if percentile:
            answer["calibration"] = load_calibration(self.model.name_or_path, self.model, self.image_processor)
        return _name_settings(timeout, max_megapixels), {}, answer

    def __call__(self, inputs: Any, **kwargs: Any) -> Any:
        """Score one picture or many.

        Args:
            inputs: One picture, or a list, generator, dataset column, `KeyDataset`, batch array or folder of pictures;
                those of a folder, and of the folders in it, come in the order of their names.
            **kwargs: `batch_size`, `num_workers`, `timeout` in seconds for URLs, `percentile`, and `max_megapixels`,
                the largest size of a picture in millions of pixels. A larger one is refused before it is decoded;
                `math.inf` sets no limit.

        Returns:
            `{"score": ...}` in MOS points for one picture, a list of these for a list, a column, a batch or a folder,
            an iterator for a generator or a `KeyDataset`.

        Raises:
            ValueError: If a picture cannot be used; the message names it. Also if percentiles are wanted, and the
                checkpoint has no calibration, or one of other weights.
            FileNotFoundError: If a path does not exist.
        """
        inputs = _list_pictures(inputs)
        is_list = isinstance(inputs, list) and len(inputs) > 0
        is_picture = isinstance(inputs, str | bytes | bytearray | memoryview)
        if isinstance(inputs, Sequence) and not is_picture and not is_list:
            # Tuples, columns of `datasets` and empty lists are read one by one, and the answer is a list.
            return list(super().__call__((image for image in inputs), **kwargs))
        return super().__call__(inputs, **kwargs)

    def preprocess(
        self, image: Any, timeout: float | None = None, max_megapixels: float | None = None
    ) -> BatchFeature:
        """Turn one picture into a batch of one."""
        return _read_picture(image, self.image_processor, timeout=timeout, max_megapixels=max_megapixels)

    def _forward(self, model_inputs: dict[str, torch.Tensor]) -> ModelOutput:
        return self.model(**model_inputs)

    def postprocess(
        self, model_outputs: ModelOutput, calibration: CheckpointCalibration | None = None
    ) -> dict[str, Any]:
        """Return the result of one picture in plain numbers."""
        score = float(model_outputs["scores"][0])
        result: dict[str, Any] = {"score": score}
        if calibration is not None:
            result |= {"percentile": calibration.percentile(score), "stars": calibration.stars(score)}
        logits = model_outputs["logits"][:1]
        deviation = self.model.std_from_logits(logits)
        if deviation is not None:
            result["distribution"] = logits[0].double().softmax(dim=-1).tolist()
            result["std"] = float(deviation[0])
        return result


__all__ = [
    "CALIBRATION",
    "CheckpointCalibration",
    "ImageQualityAssessmentPipeline",
    "QualityClassificationPipeline",
    "load_calibration",
]
