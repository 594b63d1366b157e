# SPDX-License-Identifier: Apache-2.0
"""Accuracy of an upscaling detector on copies of photographs that it was not trained on.

A native counts as right if its probability of being native is above 0.5, and an upscaled picture if it is not.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..metrics.accuracy import AccuracyReport, AccuracyRow
from ..pictures.compression import compress_jpeg
from .kernels import SEEN, UNSEEN, Enlarge
from .learned import LearnedUpscaler
from .training import DetectorSettings, Material
from .upscales import DETECTOR, LEARNED, NATIVE, SIDE, cut_window, enlarge_window, upscale_window

SCALES = (1.5, 2.0, 3.0, 4.0)
COMPRESSED_SCALES = (2.0, 3.0)  # before compression
NAMED_SCALE = 2.0  # of the column on right names
QUALITIES = (90, 75)
BATCH = 10  # pictures
BY_METHOD, ALONE = "Upscaled pictures found, by method", "Upscaled pictures found, by interpolation"
NATIVES, BY_LEARNED = "Natives found to be native", "Pictures of learned upscalers found"
NAMED = "right method"
_JPEG = tuple(f"JPEG {quality}" for quality in QUALITIES)

Make = Callable[[Path, np.random.Generator], Image.Image]


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Parts of pictures with right answers.

    Attributes:
        native: Part that is said to be native.
        named: Part whose method, the most probable one, is right; 0 if the model has no label for it.
    """

    native: float
    named: float


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Detector, and photographs of whose copies it is asked.

    Attributes:
        model: Detector in evaluation mode.
        photographs: Files.
        seed: Seed of places, filters and factors.
    """

    model: Any
    photographs: Sequence[Path]
    seed: int

    def measure(self, make: Make, label: str, *, quality: int | None = None) -> Shares:
        """Measure the answers to one copy of each photograph.

        Args:
            make: Function that makes a copy.
            label: Right label.
            quality: Quality of the JPEG file that the copy is written to; None writes none.
        """
        answers = self._answer(make, quality)
        labels = list(self.model.config.id2label.values())
        is_native = answers[:, 0] > 0.5
        methods = answers[:, 1:].argmax(dim=1) + 1
        named = methods == labels.index(label) if label in labels else torch.zeros_like(is_native)
        return Shares(native=float(is_native.double().mean()), named=float((named & ~is_native).double().mean()))

    def _answer(self, make: Make, quality: int | None) -> torch.Tensor:
        """Return the probabilities of the labels, shape (photographs, labels)."""
        processor = DETECTOR.processor.from_config(self.model.config)

        def prepare(number: int) -> dict[str, torch.Tensor]:
            image = make(self.photographs[number], np.random.default_rng((self.seed, number)))
            written = image if quality is None else compress_jpeg(image, quality)
            return processor.cut(torch.from_numpy(np.array(written)))

        count = len(self.photographs)
        with ThreadPoolExecutor(torch.get_num_threads()) as workers:
            features = list(workers.map(prepare, range(count)))
        with torch.inference_mode():
            logits = [
                self.model(**processor.pad(features[first : first + BATCH])).logits for first in range(0, count, BATCH)
            ]
        return torch.cat(logits).exp()


def _measure_kernel(bench: Bench, enlarge: Enlarge, label: str) -> list[float]:
    """Measure an interpolation: found at each scale, found after JPEG, and the right method."""

    def ask(scale: float, quality: int | None = None) -> Shares:
        return bench.measure(partial(enlarge_window, enlarge=enlarge, scale=scale), label, quality=quality)

    clean = {scale: ask(scale) for scale in SCALES}
    compressed = [1 - np.mean([ask(scale, own).native for scale in COMPRESSED_SCALES]) for own in QUALITIES]
    return [*(1 - shares.native for shares in clean.values()), *map(float, compressed), clean[NAMED_SCALE].named]


def _measure_learned(bench: Bench, upscaler: LearnedUpscaler) -> list[float]:
    ask = partial(bench.measure, partial(upscale_window, upscaler=upscaler), LEARNED)
    clean = ask()
    return [1 - clean.native, *(1 - ask(quality=quality).native for quality in QUALITIES), clean.named]


def _measure_natives(bench: Bench) -> list[float]:
    def make(photograph: Path, generator: np.random.Generator) -> Image.Image:
        return Image.fromarray(cut_window(photograph, SIDE, generator))

    return [bench.measure(make, NATIVE, quality=quality).native for quality in (None, *QUALITIES)]


def _report(count: int, columns: Sequence[str], rows: Mapping[str, Sequence[float]]) -> AccuracyReport:
    return AccuracyReport(
        pictures_per_share=count,
        columns=tuple(columns),
        accuracy=tuple(AccuracyRow(name=name, shares=tuple(shares)) for name, shares in rows.items()),
    )


def _average(rows: Sequence[Sequence[float]]) -> list[float]:
    return [float(mean) for mean in np.mean(rows, axis=0)]


def measure_detector(model: Any, material: Material, settings: DetectorSettings) -> dict[str, AccuracyReport]:
    """Measure a detector on the held-out photographs.

    Args:
        model: Detector in evaluation mode.
        material: Photographs, and the upscalers that training saw.
        settings: Settings of the training.

    Returns:
        Tables by their titles: natives, methods, interpolations, and learned upscalers if there are any.
    """
    everything = Bench(model=model, photographs=material.held_out, seed=settings.seed)
    natives = _report(len(material.held_out), ["as they are", *_JPEG], {NATIVE: _measure_natives(everything)})
    bench = Bench(model=model, photographs=material.held_out[: settings.num_measured], seed=settings.seed)
    count = len(bench.photographs)
    kernels = {
        f"{label}, {'seen' if is_seen else 'unseen'}: {name}": (label, enlarge)
        for label in SEEN
        for is_seen, table in ((label in material.seen.kernels, SEEN), (False, UNSEEN))
        for name, enlarge in table[label].items()
    }
    alone = {name: _measure_kernel(bench, enlarge, label) for name, (label, enlarge) in kernels.items()}
    columns = [*(f"x{scale:g}" for scale in SCALES), *_JPEG, f"{NAMED}, x{NAMED_SCALE:g}"]
    groups = dict.fromkeys(name.partition(":")[0] for name in alone)
    means = {group: _average([row for name, row in alone.items() if name.startswith(f"{group}:")]) for group in groups}
    reports = {
        NATIVES: natives,
        BY_METHOD: _report(count, columns, means),
        ALONE: _report(count, columns, alone),
    }
    learned = {
        f"{kind}: {upscaler.name}": _measure_learned(bench, upscaler)
        for kind, own in (("seen", material.seen.learned), ("unseen", material.unseen))
        for upscaler in own
    }
    if learned:
        reports[BY_LEARNED] = _report(count, ["as they are", *_JPEG, NAMED], learned)
    return reports
