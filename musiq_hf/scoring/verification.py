# SPDX-License-Identifier: Apache-2.0
"""Checks that a checkpoint, in this installation, gives the right numbers: stored answers and official scores.

The stored answers are scores of three pictures that a formula makes; they stand beside the weights in self_test.json.
They show damaged weights, a wrong configuration, and a preprocessing or a library that computes something else.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from transformers import PreTrainedModel

from ..common.checks import require_evaluation_mode
from ..common.files import read_json, write_json
from ..models.protocol import QualityProcessor
from ..pictures.opening import open_picture
from .engine import read_pixels, run_model
from .loading import is_classifier, is_upscaler

SELF_TEST = "self_test.json"
NAMES = ("smooth", "grainy", "edges")  # names of its three pictures
LEVELS = 255 / 2  # levels of a colour in a unit of [-1, 1]
TOLERANCE = 1e-4  # share of the range of scores; scores in float32 differ far less from one machine to another
# Share of the range of scores. It is not known which decoder made the official scores: the authors' program reads JPEG
# with the fast inverse cosine transform, Pillow with the accurate one, and the two differ by up to 18 levels of 255 in
# a pixel. Measured on models with random weights, scores then move by about half a percent of their spread
# over pictures. A resize other than the published one moves some of the five by 1.35 points of 100, and is found.
OFFICIAL_TOLERANCE = 5e-3
OFFICIAL_PICTURES = ("I03", "I04", "I06", "I08", "I19")
OFFICIAL_FAMILY = "musiq"
# Scores of the authors' program for the five pictures, 512 x 384 pixels, in ResultsCalibra/dist_dir of IQA-PyTorch
# (github.com/chaofengc/IQA-PyTorch), as its ResultsCalibra/results_official.csv lists them.
OFFICIAL_SCORES = {
    "koniq": (12.494, 75.332, 73.429, 75.188, 36.938),
    "ava": (3.398, 5.648, 4.635, 5.186, 4.128),
    "paq2piq": (46.035, 72.660, 73.625, 74.361, 69.006),
    "spaq": (17.685, 70.492, 78.740, 79.015, 49.105),
}


class Comparison(NamedTuple):
    """Comparison of an expected number with the one that a checkpoint answers.

    Attributes:
        name: Name of the picture.
        expected: Number that the checkpoint should answer; see `answer`.
        got: Number that the checkpoint answers.
    """

    name: str
    expected: float
    got: float

    def is_within(self, tolerance: float) -> bool:
        """Return whether the two differ by no more than a tolerance; a NaN is within none."""
        return abs(self.got - self.expected) <= tolerance


def make_self_test_pictures() -> dict[str, np.ndarray]:
    """Make three pictures by name, uint8 (height, width, 3): smooth, grainy and with edges, of three aspect ratios.

    The formulas use whole numbers only, so that every machine makes the same bytes.
    """

    def grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        rows, cols = np.mgrid[:height, :width].astype(np.int64)[..., None]
        return rows, cols, np.arange(3)

    rows, cols, channel = grid(120, 160)
    smooth = 255 - np.abs((rows * (2 + channel) + cols * (4 - channel)) % 510 - 255)
    rows, cols, channel = grid(150, 75)
    mixed = (rows * 7919 + cols * 104729 + channel * 1299709) * 2654435761 % 2**32
    grainy = 64 + rows // 2 + (mixed ^ (mixed >> 15)) % 97
    rows, cols, channel = grid(64, 64)
    edges = 30 + 45 * channel + 120 * ((rows // 12 + cols // (5 + 3 * channel)) % 2)
    return {name: picture.astype(np.uint8) for name, picture in zip(NAMES, (smooth, grainy, edges), strict=True)}


def upscale_twice(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return pictures of twice the size, in [-1, 1]."""
    enlarged: torch.Tensor = model(**batch, scale=2).reconstruction
    return enlarged


@torch.inference_mode()
def answer(model: PreTrainedModel, processor: QualityProcessor, picture: np.ndarray | Image.Image) -> float:
    """Compute one number for a picture that depends on all that a model computes.

    Args:
        model: Model with a quality head, a classifier or an upscaler, in evaluation mode.
        processor: Processor of the model.
        picture: Array (height, width, 3), or a PIL image.

    Returns:
        Score in MOS points; for a classifier, the logarithm of the sum of the exponentials of its logits. For an
        upscaler it is the mean difference between a picture of twice the size and repeated pixels, in levels of 255.
    """
    if is_upscaler(model):
        require_evaluation_mode(model)
        batch = processor.pad([processor.cut(read_pixels(picture, processor))])
        repeated = batch["pixel_values"].repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        return float((upscale_twice(model, batch) - repeated).double().abs().mean() * LEVELS)
    output = run_model(model, processor, [processor.cut(read_pixels(picture, processor))])
    scores = getattr(output, "scores", None)
    return float(output.logits[0].double().logsumexp(dim=-1) if scores is None else scores[0])


def answer_width(model: PreTrainedModel) -> float:
    """Return the width of the range of answers, the unit of tolerances: in MOS points, or 1 for other models."""
    if is_classifier(model) or is_upscaler(model):
        return 1.0
    low, high = model.config.answer_range or (0, abs(model.config.score_scale))
    return float(high - low)


def write_self_test(model: PreTrainedModel, processor: QualityProcessor, folder: str | Path) -> Path:
    """Store what a checkpoint answers for the three pictures, beside its weights.

    Args:
        model: Model in evaluation mode, float32.
        processor: Processor of the model.
        folder: Folder of the checkpoint.

    Returns:
        The file.

    Raises:
        ValueError: If an answer is not finite, or the model is in training mode.
    """
    answers = _answer_all(model, processor)
    for name, value in answers.items():
        if not math.isfinite(value):
            raise ValueError(f"The checkpoint answers {value} for the picture {name}. Are all of its weights finite?")
    path = Path(folder) / SELF_TEST
    write_json(path, {"answers": answers})
    return path


def _answer_all(model: PreTrainedModel, processor: QualityProcessor) -> dict[str, float]:
    require_evaluation_mode(model)
    return {name: answer(model, processor, picture) for name, picture in make_self_test_pictures().items()}


def run_self_test(model: PreTrainedModel, processor: QualityProcessor, folder: str | Path) -> list[Comparison]:
    """Compare what a checkpoint answers with what it answered when its self_test.json was written.

    Args:
        model: Model in evaluation mode.
        processor: Processor of the model.
        folder: Folder that holds self_test.json.

    Returns:
        Comparison for each of the three pictures; an answer is right within `TOLERANCE` times `answer_width`.

    Raises:
        ValueError: If there is no self_test.json, or it is damaged, or the model is in training mode.
    """
    path = Path(folder) / SELF_TEST
    if not path.is_file():
        raise ValueError(
            f"{folder} holds no {SELF_TEST}. Convert the checkpoint again, or, if you trust it as it is, store its "
            "answers with `musiq_hf.scoring.verification.write_self_test`."
        )
    try:
        stored = read_json(path)["answers"]
        expected = {name: float(stored[name]) for name in NAMES}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: it must hold one number for each of {', '.join(NAMES)}.") from error
    got = _answer_all(model, processor)
    return [Comparison(name, expected[name], got[name]) for name in NAMES]


def _find_official_pictures(folder: Path) -> Mapping[str, Path]:
    """Find the five pictures in a folder, by name, whatever their format."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder. Give one with {', '.join(OFFICIAL_PICTURES)}.")
    found = {file.stem.upper(): file for file in sorted(folder.iterdir()) if file.is_file()}
    missing = [name for name in OFFICIAL_PICTURES if name not in found]
    if missing:
        raise ValueError(
            f"{folder} lacks {', '.join(missing)}, as .bmp or .png. They are in ResultsCalibra/dist_dir of "
            "github.com/chaofengc/IQA-PyTorch."
        )
    return {name: found[name] for name in OFFICIAL_PICTURES}


def compare_with_official(
    model: PreTrainedModel, processor: QualityProcessor, *, name: str, folder: str | Path
) -> list[Comparison]:
    """Compare scores of a converted checkpoint with those of the authors' program for five pictures.

    Files become pixels as in that program; for JPEG files this is exact only with simplejpeg.

    Args:
        model: Model in evaluation mode.
        processor: Processor of the model.
        name: Published name, such as "koniq".
        folder: Folder that holds the five pictures.

    Returns:
        Comparison for each of the five; a score is right within `OFFICIAL_TOLERANCE` times `answer_width`.

    Raises:
        ValueError: If no official scores are known for that family or name, or pictures are missing.
    """
    if model.config.model_type != OFFICIAL_FAMILY:
        raise ValueError(
            f"Official scores are known for {OFFICIAL_FAMILY} checkpoints, got a {model.config.model_type} one. "
            "Leave out the pictures."
        )
    if name not in OFFICIAL_SCORES:
        raise ValueError(f"Official scores are known for {', '.join(OFFICIAL_SCORES)}, got {name!r}.")
    pictures = _find_official_pictures(Path(folder))
    scores = dict(zip(OFFICIAL_PICTURES, OFFICIAL_SCORES[name], strict=True))
    return [
        Comparison(key, scores[key], answer(model, processor, open_picture(path, "google")))
        for key, path in pictures.items()
    ]
