# SPDX-License-Identifier: Apache-2.0
"""Training of an upscaling detector on photographs alone, whose upscaled copies are made here."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..common.checks import check_counts
from ..pictures.finding import hold_out_pictures
from .kernels import SEEN
from .learned import SEEN_SMALL, UNSEEN_SMALL, LearnedUpscaler, load_learned, train_all
from .upscales import DETECTOR, LEARNED, NATIVE, SIDE, SMALLEST, Pool, Upscalers, cut_window

PATCH_SIZE = 64  # pixels of a patch in training; averages over maps make the model accept larger ones
PICTURES, PATCHES = 36, 2  # of a step: pictures, and patches of each
SPECTRA = 256  # of a step: spectra without patches, which cost next to nothing and carry the names of methods
HEAD_LAYERS = 3
LEARNING_RATE, WEIGHT_DECAY = 2e-3, 1e-2
WARMUP = 0.05  # of the training
NUM_HELD_OUT = 300
WINDOW = 96  # pixels of the windows on which small upscalers are trained
NUM_WINDOWS = 400
METHODS = (*SEEN, LEARNED)
UPSCALED = "upscaled"
SECONDS_BETWEEN_LINES = 20


@dataclass(frozen=True, kw_only=True)
class DetectorSettings:
    """Settings of a training.

    Attributes:
        pictures: Folder of photographs, which is searched with the folders in it.
        minutes: Time for the steps of training, without the preparation.
        steps: Steps of training; None = as many as fit into the minutes.
        methods: Methods of the upscaled pictures, beside natives.
        upscalers: Checkpoints for `AutoModelForImageToImage`, in addition to small upscalers that are trained first.
        upscaler_steps: Steps of the training of each small upscaler.
        num_photographs: Photographs for training, at most; 300 others, or a tenth if there are fewer, are held out.
        num_pictures: Pictures that are made of them.
        num_measured: Pictures behind each share in the tables.
        is_binary: Whether all methods have one label, "upscaled".
        use_staircase: Field of the model.
        use_spectrum: Field of the model.
        seed: Seed of everything but the number of steps that fit into the minutes.

    Raises:
        ValueError: If a value is impossible.
    """

    pictures: Path
    minutes: float = 20
    steps: int | None = None
    methods: Sequence[str] = METHODS
    upscalers: Sequence[str] = ()
    upscaler_steps: int = 150
    num_photographs: int = 6000
    num_pictures: int = 18000
    num_measured: int = 32
    is_binary: bool = False
    use_staircase: bool = True
    use_spectrum: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, "steps", "upscaler_steps", "num_photographs", "num_pictures", "num_measured")
        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise ValueError(f"`minutes` must be above 0, got {self.minutes}.")
        if self.seed < 0:
            raise ValueError(f"`seed` must be at least 0, got {self.seed}.")
        if unknown := [name for name in self.methods if name not in METHODS]:
            raise ValueError(f"Unknown method {unknown[0]!r}. Choose from {', '.join(METHODS)}.")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"`methods` must name at least one method, each once, got {list(self.methods)}.")
        if self.upscalers and LEARNED not in self.methods:
            raise ValueError(f"`upscalers` were given, but {LEARNED!r} is not among the methods. Add it.")


@dataclass(frozen=True, kw_only=True)
class Material:
    """Photographs and upscalers of a training.

    Attributes:
        train: Photographs for training.
        held_out: Other photographs, for measuring.
        seen: Upscalers for training.
        unseen: Learned upscalers that training does not see.
    """

    train: list[Path]
    held_out: list[Path]
    seen: Upscalers
    unseen: list[LearnedUpscaler]


def _hold_out(folder: Path, *, seed: int, report: Callable[[str], None]) -> tuple[list[Path], list[Path]]:
    return hold_out_pictures(folder, most=NUM_HELD_OUT, seed=seed, smallest=SMALLEST, report=report)


def order_photographs(folder: Path, *, seed: int = 0, report: Callable[[str], None] = print) -> list[Path]:
    """Return the photographs of a folder that are large enough, at random; those that training holds out come first.

    Args:
        folder: Folder of photographs.
        seed: Seed of the order, that of the training.
        report: Function that is told in a sentence how many are too small and were left out.

    Raises:
        ValueError: If there are fewer than two that are large enough, or one cannot be read.
    """
    train, held_out = _hold_out(folder, seed=seed, report=report)
    return held_out + train


def split_photographs(
    settings: DetectorSettings, *, report: Callable[[str], None] = print
) -> tuple[list[Path], list[Path]]:
    """Return the photographs for training, and those held out, as the seed decides.

    Args:
        settings: Settings of the training.
        report: Function that is told in a sentence how many are too small and were left out.

    Raises:
        ValueError: If there are fewer than two that are large enough, or one cannot be read.
    """
    train, held_out = _hold_out(settings.pictures, seed=settings.seed, report=report)
    return train[: settings.num_photographs], held_out


def prepare(settings: DetectorSettings, *, report: Callable[[str], None] = print) -> Material:
    """Choose photographs, load the given upscalers, and train small ones if learned upscalers are wanted.

    Args:
        settings: Settings of the training.
        report: Function that is told what was left out.

    Raises:
        ValueError: If photographs or upscalers cannot be used.
        OSError: If the weights of an upscaler cannot be read.
    """
    # A wrong name is told before photographs are read, which takes minutes.
    learned, unseen = [own for name in settings.upscalers for own in load_learned(name)], []
    train, held_out = split_photographs(settings, report=report)
    if LEARNED in settings.methods:
        generator = np.random.default_rng(settings.seed)
        windows = np.stack([cut_window(path, WINDOW, generator) for path in train[:NUM_WINDOWS]])
        values = torch.from_numpy(windows).permute(0, 3, 1, 2).float() / 255
        steps, seed = settings.upscaler_steps, settings.seed
        learned += train_all(SEEN_SMALL, values, steps=steps, seed=seed)
        unseen = train_all(UNSEEN_SMALL, values, steps=steps, seed=seed + len(SEEN_SMALL))
    kernels = {label: own for label, own in SEEN.items() if label in settings.methods}
    return Material(train=train, held_out=held_out, seen=Upscalers(kernels=kernels, learned=learned), unseen=unseen)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Pictures of a step, whose spectra and patches agree.

    Attributes:
        patches: float32 (pictures, patches, 3, 64, 64) in [0, 1].
        spectra: float32 (pictures, 128).
        targets: Index of the label of each picture, int64 (pictures,).
    """

    patches: torch.Tensor
    spectra: torch.Tensor
    targets: torch.Tensor


def swap_axes(spectra: torch.Tensor) -> torch.Tensor:
    """Return the spectra (b, 128) of pictures whose rows have become columns."""
    return spectra.roll(spectra.shape[1] // 2, dims=1)


def draw_batch(pool: Pool, generator: torch.Generator) -> Batch:
    """Draw pictures and patches of them; all are mirrored or transposed together, at random."""
    chosen = torch.randint(len(pool.targets), (PICTURES,), generator=generator)
    corners = torch.randint(SIDE - PATCH_SIZE + 1, (PICTURES, PATCHES, 2), generator=generator).tolist()
    patches = torch.stack(
        [
            pool.pixels[place, top : top + PATCH_SIZE, left : left + PATCH_SIZE]
            for place, own in zip(chosen.tolist(), corners, strict=True)
            for top, left in own
        ]
    )
    values, spectra = patches.permute(0, 3, 1, 2).float() / 255, pool.spectra[chosen]
    mirrors_rows, mirrors_columns, transposes = (torch.rand(3, generator=generator) < 0.5).tolist()
    values = values.flip([2] * mirrors_rows + [3] * mirrors_columns)  # spectra stay the same
    if transposes:
        values, spectra = values.transpose(2, 3), swap_axes(spectra)
    patches = values.unflatten(0, (PICTURES, PATCHES)).contiguous()
    return Batch(patches=patches, spectra=spectra, targets=pool.targets[chosen])


def _measure_spectra(model: Any, pool: Pool, generator: torch.Generator) -> torch.Tensor:
    """Return the loss of the head on spectra alone, with zeros for the features of patches."""
    chosen = torch.randint(len(pool.targets), (SPECTRA,), generator=generator)
    spectra = pool.spectra[chosen]
    if torch.rand((), generator=generator) < 0.5:
        spectra = swap_axes(spectra)
    normed = model.spectrum_norm(spectra)
    logits = model.head(torch.cat([normed.new_zeros(SPECTRA, model.extractor.num_features), normed], dim=1))
    return torch.nn.functional.cross_entropy(logits, pool.targets[chosen])


def _follow_clock(settings: DetectorSettings) -> Iterator[float]:
    """Yield the part of the training that is over before each step, from 0 to below 1."""
    if settings.steps is not None:
        yield from (step / settings.steps for step in range(settings.steps))
        return
    start, limit = time.monotonic(), settings.minutes * 60
    while (passed := time.monotonic() - start) < limit:
        yield passed / limit


def _choose_rate(progress: float) -> float:
    """Return the learning rate: a short rise, then a cosine down to 0."""
    return LEARNING_RATE * min(progress / WARMUP + 0.01, 1) * 0.5 * (1 + math.cos(math.pi * progress))


def make_model(settings: DetectorSettings, pool: Pool) -> Any:
    """Make a model with random weights that knows mean and variance of the spectra of a pool."""
    classifier: Any = DETECTOR.classifier
    labels = [NATIVE, UPSCALED] if settings.is_binary else pool.labels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = classifier(
            DETECTOR.config(
                id2label=dict(enumerate(labels)),
                label2id={label: index for index, label in enumerate(labels)},
                use_staircase=settings.use_staircase,
                use_spectrum=settings.use_spectrum,
                num_head_layers=HEAD_LAYERS,
            )
        )
    if model.spectrum_norm is not None:
        model.spectrum_norm.running_mean.copy_(pool.spectra.mean(dim=0))
        model.spectrum_norm.running_var.copy_(pool.spectra.var(dim=0, correction=0).clamp_min(1e-4))
    return model


def train_detector(settings: DetectorSettings, pool: Pool, *, report: Callable[[str], None] = print) -> Any:
    """Train a model on a pool of pictures, and return it in evaluation mode.

    Args:
        settings: Settings of the training.
        pool: Pictures; see `make_pool`.
        report: Function that is told now and then how far the training is.
    """
    model = make_model(settings, pool)
    if settings.is_binary:
        pool = replace(pool, targets=pool.targets.clamp_max(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    generator = torch.Generator().manual_seed(settings.seed)
    torch.manual_seed(settings.seed)  # of dropout
    model.train()
    if model.spectrum_norm is not None:
        model.spectrum_norm.eval()  # statistics of the pool, and not of a batch
    losses: list[float] = []
    said = time.monotonic()
    for progress in _follow_clock(settings):
        for group in optimizer.param_groups:
            group["lr"] = _choose_rate(progress)
        batch = draw_batch(pool, generator)
        spectrum = batch.spectra if settings.use_spectrum else None
        loss = model(batch.patches, labels=batch.targets, spectrum=spectrum).loss
        if settings.use_spectrum:
            loss = loss + _measure_spectra(model, pool, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if time.monotonic() - said > SECONDS_BETWEEN_LINES:
            said = time.monotonic()
            report(f"{progress:4.0%}, step {len(losses)}, loss {np.mean(losses[-100:]):.3f}")
    report(f"{len(losses)} steps, loss {np.mean(losses[-100:]):.3f}")
    return model.eval()
