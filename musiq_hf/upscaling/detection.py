# SPDX-License-Identifier: Apache-2.0
"""Verdict on a picture or clip: native or upscaled, how sure, by which kind of method, and from which size."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from ..common.stores import hide_password
from ..models.auto import DETECTOR_CHECKPOINT
from ..models.luma import to_luma
from ..pictures.decoding import list_pictures
from ..pictures.lazy import LazyPicture
from ..pictures.opening import check_megapixels, open_picture, to_rgb_tensor
from ..pictures.video import has_video_suffix, read_key_frames
from ..scoring.loading import load_with_head
from .scale import ScaleEstimate, estimate_scale

DEFAULT_CHECKPOINT = DETECTOR_CHECKPOINT  # of this folder; others have their own
Verdict = Literal["native", "upscaled", "unsure"]
VERDICTS: tuple[Verdict, ...] = ("native", "upscaled", "unsure")
FAMILY = "sudds"
NATIVE = 0  # index of the label of pictures that were not upscaled
UNSURE = (0.4, 0.6)  # probabilities between which there is no verdict
NUM_FRAMES = 8  # key frames of a clip
MAX_MEGAPIXELS = 128  # of a picture; a damaged header can ask for any size
# Mean squared difference of luma at a distance of 5 pixels, in levels of 255, up to which a patch is flat: a picture
# of one colour, or a slow gradient of which only the steps of its rounding are left.
FLAT, DISTANCE = 1.0, 5


@dataclass(frozen=True, kw_only=True)
class PatchVote:
    """Answer of the detector for one patch.

    Attributes:
        frame: Number of the frame that the patch is of, from 0.
        box: Left, top, right and bottom of the patch in the picture, in pixels.
        label: Most probable label: "native", or the kind of method.
        probability: Probability of that label, in [0, 1].
        verdict: Verdict on the patch alone, by the probabilities of all labels.
    """

    frame: int
    box: tuple[int, int, int, int]
    label: str
    probability: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class UpscalingReport:
    """Verdict of the detector on a picture or clip; its text says it in words.

    Attributes:
        verdict: "native", "upscaled", or "unsure" for a probability between 0.4 and 0.6, and for a flat picture.
        probability: Probability that the picture was upscaled, in [0, 1]; 0.5 for a flat picture.
        method: Most probable kind of method, such as "bicubic"; None for a native or flat picture.
        method_probability: Probability of that kind among all labels, "native" included; None without a method.
        scale: Size of the picture over that of its source, read off the spectrum and not by the detector; None if
            the spectrum shows no enlargement.
        source_size: Width and height of the source, in pixels; None if the scale is.
        patches: Answers of all patches that took part in the vote; none of a flat picture.
        size: Width and height of the picture, in pixels.
        frames: Verdict on each frame alone; a picture is one frame.
    """

    verdict: Verdict
    probability: float
    method: str | None
    method_probability: float | None
    scale: float | None
    source_size: tuple[int, int] | None
    patches: tuple[PatchVote, ...]
    size: tuple[int, int]
    frames: tuple[Verdict, ...]

    @property
    def is_flat(self) -> bool:
        """Flatness of all frames: there was nothing to judge."""
        return not self.patches

    def __str__(self) -> str:
        if self.is_flat:
            return "unsure: the picture is flat, so there is nothing to judge"
        text = f"{self.verdict} (probability {_write_share(self._find_certainty())})"
        if self.verdict == "unsure":
            text = f"unsure (probability of upscaling {_write_share(self.probability)})"
        if self.scale is not None and self.source_size is not None:
            width, height = self.source_size
            comma = ", but its spectrum is that of an enlargement" if self.verdict == "native" else ""
            text += f"{comma}, about {self.scale:.1f}x from {width}x{height}"
        return text if self.method is None else f"{text}, {self.method}-like"

    def _find_certainty(self) -> float:
        """Return the probability of the verdict."""
        return 1 - self.probability if self.verdict == "native" else self.probability

    def share(self, verdict: Verdict) -> float:
        """Return the share of the frames with a verdict."""
        return self.frames.count(verdict) / len(self.frames)


def _write_share(value: float) -> str:
    """Return a probability with two digits, as ".98"; 1 is "1.00"."""
    return f"{value:.2f}".removeprefix("0")


@dataclass(frozen=True)
class Detector:
    """Detector of upscaled pictures that is loaded, as `load_detector` gives it.

    Attributes:
        model: Model in evaluation mode, on a CPU.
        processor: Processor that agrees with the model.
        name: Name of its checkpoint.
    """

    model: Any
    processor: Any
    name: str


@dataclass(frozen=True, kw_only=True)
class _FrameVote:
    """Answer of the detector for one frame.

    Attributes:
        size: Width and height, in pixels.
        patches: Answers of the patches; none if the frame is flat.
        shares: Share of each label in the vote of the patches, float64 (labels,).
        scale: Scale that its spectrum shows, if any.
    """

    size: tuple[int, int]
    patches: tuple[PatchVote, ...] = ()
    shares: np.ndarray = field(default_factory=lambda: np.zeros(0))
    scale: ScaleEstimate | None = None


def load_detector(name: str | os.PathLike[str] = DEFAULT_CHECKPOINT) -> Detector:
    """Load a detector of upscaled pictures.

    Args:
        name: Directory, Hub id or name of an embedded checkpoint; without one the default checkpoint is loaded.

    Raises:
        ValueError: If there is no such checkpoint, it is damaged, or it is no detector.
    """
    model, processor = load_with_head(os.fspath(name))
    if model.config.model_type != FAMILY:
        raise ValueError(
            f"{name} holds a {type(model).__name__}, which does not detect upscaling. Give a checkpoint of the family "
            f"{FAMILY}, such as {DEFAULT_CHECKPOINT.name}."
        )
    return Detector(model, processor, os.fspath(name))


def detect_upscaling(
    source: Any, model: str | os.PathLike[str] | Detector | None = None, *, frames: int = NUM_FRAMES
) -> UpscalingReport:
    """Detect whether a picture or clip was upscaled.

    >>> print(detect_upscaling("photo.jpg"))
    upscaled (probability .98), about 2.0x from 1920x1080, bicubic-like

    All patches of all frames vote. Flat frames, such as black ones, are left out unless all are flat. A scale must
    show in more than half of the frames.

    Args:
        source: Path of a picture or of a clip, URL, PIL image, or array or tensor of pixels. The frames of a clip are
            a list, an iterator, or an array with an axis before those of a picture.
        model: Directory, Hub id or name of a checkpoint, or what `load_detector` gives; None loads the default one.
        frames: Largest number of key frames of a clip; it is not read for other sources.

    Raises:
        ValueError: If a picture cannot be read or has a side below 64 pixels, frames differ in size, or the
            checkpoint is no detector.
        FileNotFoundError: If there is no such file.
        ImportError: If a clip is given and PyAV is missing.
    """
    if frames < 1:
        raise ValueError(f"`frames` must be at least 1, got {frames}.")
    detector = model if isinstance(model, Detector) else load_detector(DEFAULT_CHECKPOINT if model is None else model)
    votes = [
        _judge_frame(pixels, detector, number) for number, pixels in enumerate(read_frames(source, frames=frames))
    ]
    return _join(votes, detector.model.config.id2label)


def read_frames(source: Any, *, frames: int) -> Iterator[torch.Tensor]:
    """Yield the pixels of a picture, or of each frame of a clip, shape (height, width, 3), uint8 or float in [0, 1].

    Args:
        source: Picture, clip or frames, see `detect_upscaling`.
        frames: Largest number of key frames of a clip.

    Raises:
        ValueError: If there is no frame, one cannot be read, or frames differ in size.
    """
    first: torch.Size | None = None
    for picture in _list_frames(source, frames):
        pixels = _open_pixels(picture)
        first = pixels.shape if first is None else first
        if pixels.shape != first:
            sizes = [f"{width}x{height}" for height, width, _ in (first, pixels.shape)]
            raise ValueError(f"Frames of one clip have one size, got {' and '.join(sizes)}. Give each picture alone.")
        yield pixels
    if first is None:
        raise ValueError("There is no frame to judge. Give at least one.")


def _list_frames(source: Any, frames: int) -> Iterable[Any]:
    """Return the pictures of a source, or the frames of a clip."""
    if isinstance(source, LazyPicture) and has_video_suffix(source.name):
        return _read_clip(source.read(), frames)
    if isinstance(source, str | os.PathLike):
        if os.path.isdir(source):
            raise ValueError(f"{os.fspath(source)} is a folder. Give its pictures one by one, or use `musiq native`.")
        if has_video_suffix(os.fspath(source)):
            return _read_clip(os.fspath(source), frames)
    pictures = list_pictures(source)
    if not isinstance(pictures, Iterable):
        raise ValueError(f"A picture, a clip or its frames were expected, got {type(source).__name__}.")
    return pictures


def _read_clip(source: Any, frames: int) -> Iterable[Any]:
    """Return key frames of a file; raise a ValueError for a URL, or the content of a file from elsewhere."""
    if not isinstance(source, str) or "://" in source:
        name = f"{hide_password(source)}: " if isinstance(source, str) else ""
        raise ValueError(f"{name}Videos are read from files of this machine alone. Copy it here first.")
    return read_key_frames(source, frames)


def _check_size(size: tuple[int, int], name: str) -> None:
    advice = "Cut a part out of it; shrinking would hide the traces."
    check_megapixels(size, name, max_megapixels=MAX_MEGAPIXELS, advice=advice)


def _open_pixels(picture: Any) -> torch.Tensor:
    if isinstance(picture, LazyPicture):
        picture = picture.open(check_size=_check_size)
    elif not isinstance(picture, np.ndarray | torch.Tensor):
        picture = open_picture(picture, check_size=_check_size)
    pixels: torch.Tensor = to_rgb_tensor(picture, keep_uint8=True)
    return pixels.detach()


@torch.inference_mode()
def _judge_frame(pixels: torch.Tensor, detector: Detector, number: int) -> _FrameVote:
    """Let the patches of one frame vote."""
    processor, model = detector.processor, detector.model
    height, width = pixels.shape[:2]
    corners = processor.find_corners(pixels)
    feature = processor.cut(pixels, corners=corners)
    if _is_flat(feature["pixel_values"]):
        return _FrameVote(size=(width, height))
    answer = model(**processor.pad([feature]))
    if not answer.patch_logits.isfinite().all():
        raise ValueError(f"{detector.name} answers NaN or infinity: its weights are damaged. Train or copy it again.")
    patches = []
    for (top, left), shares in zip(
        corners.tolist(), answer.patch_logits[0].double().softmax(dim=-1).numpy(), strict=True
    ):
        best = int(shares.argmax())
        patches.append(
            PatchVote(
                frame=number,
                box=(left, top, min(left + processor.side, width), min(top + processor.side, height)),
                label=model.config.id2label[best],
                probability=float(shares[best]),
                verdict=_decide(shares),
            )
        )
    shares = answer.logits[0].double().softmax(dim=-1).numpy()
    return _FrameVote(size=(width, height), patches=tuple(patches), shares=shares, scale=estimate_scale(pixels))


def _is_flat(patches: torch.Tensor) -> bool:
    """Return whether no patch, of shape (num_patches, 3, side, side), has contrast along its rows or columns."""
    luma = torch.stack([to_luma(patch.permute(1, 2, 0)) for patch in patches])
    steps = (luma[..., DISTANCE:] - luma[..., :-DISTANCE], luma[:, DISTANCE:] - luma[:, :-DISTANCE])
    return all(float(step.square().mean(dim=(-2, -1)).max()) <= FLAT for step in steps)


def _join(votes: list[_FrameVote], labels: Mapping[int, str]) -> UpscalingReport:
    """Join the votes of frames to a report; each patch counts alike."""
    frames = tuple(_decide(vote.shares) if vote.patches else "unsure" for vote in votes)
    voting = [vote for vote in votes if vote.patches]
    if not voting:
        return UpscalingReport(
            verdict="unsure",
            probability=0.5,
            method=None,
            method_probability=None,
            scale=None,
            source_size=None,
            patches=(),
            size=votes[0].size,
            frames=frames,
        )
    shares = np.average([vote.shares for vote in voting], axis=0, weights=[len(vote.patches) for vote in voting])
    verdict = _decide(shares)
    method = None if verdict == "native" else 1 + int(shares[1:].argmax())
    scale = _join_scales([vote.scale for vote in voting])
    return UpscalingReport(
        verdict=verdict,
        probability=float(1 - shares[NATIVE]),
        method=None if method is None else labels[method],
        method_probability=None if method is None else float(shares[method]),
        scale=None if scale is None else scale.scale,
        source_size=None if scale is None else scale.source_size,
        patches=tuple(patch for vote in voting for patch in vote.patches),
        size=votes[0].size,
        frames=frames,
    )


def _decide(shares: np.ndarray) -> Verdict:
    """Return the verdict that the shares of the labels give."""
    low, high = UNSURE
    probability = 1 - shares[NATIVE]
    if low <= probability <= high:
        return "unsure"
    return "native" if probability < low else "upscaled"


def _join_scales(scales: list[ScaleEstimate | None]) -> ScaleEstimate | None:
    """Return the estimate with the median scale, if more than half of the frames have one."""
    found = sorted((scale for scale in scales if scale is not None), key=lambda scale: scale.scale)
    return found[len(found) // 2] if 2 * len(found) > len(scales) else None
