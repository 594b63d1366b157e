# SPDX-License-Identifier: Apache-2.0
"""Table of the ten published checkpoints: their addresses, and the little that is known about each.

The addresses are those that google-research/musiq gives. So far the real files were never converted; the converter is
tested on checkpoints with the same names, shapes and layouts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import constants
from huggingface_hub.utils import httpx
from tqdm import tqdm

from ..common.files import replace_file

LOCATION = "https://storage.googleapis.com/gresearch/musiq/"
SINGLE_FOLDER = "full_size_single_scale/"
SINGLE_SUFFIX = "-single"
PREFIX = "musiq-"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Data set behind a published checkpoint.

    Attributes:
        file: Name of the checkpoint's file.
        num_labels: Number of outputs of its head.
        training_data: One or two sentences about the data.
        recipe: Sentences about the training, as the paper states it (section 4.2).
        score_range: Lowest and highest opinion score. None if the head predicts no opinion score, or a distribution,
            which has a range of its own.
        notes: Sentences that a user of this variant must know.
    """

    file: str
    training_data: str
    recipe: str
    num_labels: int = 1
    score_range: tuple[float, float] | None = None
    notes: tuple[str, ...] = ()


_PRETRAINING = (
    "ImageNet pre-training for 300 epochs with Adam (beta 0.9 and 0.999), batches of 4096, weight decay 0.1, a cosine "
    "schedule from 0.001 and at most 512 native patches per picture"
)


def _describe_fine_tuning(rate: str, epochs: int, batch_size: int, loss: str = "the L1 loss on opinion scores") -> str:
    return (
        f"{_PRETRAINING}; then fine-tuning with SGD and momentum, a cosine schedule from {rate}, {epochs} epochs, "
        f"batches of {batch_size}, {loss}, horizontal flips as the only augmentation. As the paper states it; its "
        "authors published no training code."
    )


DATASETS = {
    "koniq": Dataset(
        file="koniq_ckpt.npz",
        training_data="KonIQ-10k: about 10,000 photographs in the wild with mean opinion scores.",
        recipe=_describe_fine_tuning("0.0001", 30, 96),
        score_range=(0, 100),
        notes=(
            "Which split of KonIQ-10k the published weights were trained on is not known, so a correlation measured "
            "on any part of KonIQ-10k may be one on training pictures.",
        ),
    ),
    "spaq": Dataset(
        file="spaq_ckpt.npz",
        training_data="SPAQ: about 11,000 photographs from 66 smartphones with mean opinion scores.",
        recipe=_describe_fine_tuning("0.0001", 30, 128),
        score_range=(0, 100),
        notes=(
            "The paper resizes SPAQ pictures to a shorter side of 512 pixels before anything else; the published "
            "prediction code does not, and neither does this checkpoint's image processor. To follow the paper's "
            "protocol on SPAQ, score with `--shorter_side 512` (examples/score_images.py, examples/evaluate.py).",
        ),
    ),
    "paq2piq": Dataset(
        file="paq2piq_ckpt.npz",
        training_data="PaQ-2-PiQ, training split: about 30,000 pictures and 90,000 crops with mean opinion scores.",
        recipe=_describe_fine_tuning("0.0002", 10, 128),
        score_range=(0, 100),
    ),
    "ava": Dataset(
        file="ava_ckpt.npz",
        training_data="AVA: about 250,000 photographs with distributions of aesthetic ratings from 1 to 10.",
        recipe=_describe_fine_tuning(
            "0.12", 20, 512, "the earth mover's distance (r = 2) between score distributions"
        ),
        num_labels=10,
        notes=(
            "The score is an aesthetic one: how much the raters of a photography contest liked a picture, not how "
            "technically sound it is.",
        ),
    ),
    "imagenet": Dataset(
        file="imagenet_pretrain.npz",
        training_data="ImageNet: classification of 1,000 classes, as a start for fine-tuning on opinion scores.",
        recipe=f"{_PRETRAINING}, random crops, RandAugment and mixup. As the paper states it.",
        num_labels=1000,
        notes=("This checkpoint classifies and predicts no quality. Fine-tune it before you score pictures.",),
    ),
}
PUBLISHED = tuple(f"{name}{suffix}" for name in DATASETS for suffix in ("", SINGLE_SUFFIX))


def published_name(name: str) -> str | None:
    """Return the short form of a published name, `koniq` for `you/musiq-koniq`; None if it is not one."""
    short = name.rsplit("/", 1)[-1].removeprefix(PREFIX)
    return short if short in PUBLISHED else None


def dataset_of(name: str) -> Dataset | None:
    """Return the data set behind a published checkpoint, by its name; None if the name is not a published one."""
    short = published_name(name)
    return None if short is None else DATASETS[short.removesuffix(SINGLE_SUFFIX)]


def check_name(name: str, *, num_labels: int, num_scales: int) -> None:
    """Raise a ValueError if a name is that of a published checkpoint which cannot be this one.

    Args:
        name: Name for the card, on which a published one adds what is known of it.
        num_labels: Number of outputs of the head.
        num_scales: Number of scales, the native resolution included.
    """
    dataset, short = dataset_of(name), published_name(name)
    if dataset is None or short is None:
        return
    is_single = short.endswith(SINGLE_SUFFIX)
    if dataset.num_labels != num_labels or is_single != (num_scales == 1):
        scales = "one scale" if is_single else "several scales"
        raise ValueError(
            f"{name!r} is a published checkpoint with {dataset.num_labels} label(s) and {scales}, but this file has "
            f"{num_labels} and {num_scales}. Give another name with `--name`, or the card would say what is wrong."
        )


def url_of(name: str, *, location: str = LOCATION) -> str:
    """Return the address of a published checkpoint, by its short name."""
    folder = SINGLE_FOLDER if name.endswith(SINGLE_SUFFIX) else ""
    return location + folder + DATASETS[name.removesuffix(SINGLE_SUFFIX)].file


def _stream(url: str, write: Callable[[bytes], object]) -> None:
    with httpx.stream("GET", url, follow_redirects=True, timeout=30) as response:
        response.raise_for_status()
        size = int(response.headers.get("content-length", 0)) or None
        with tqdm(total=size, unit="B", unit_scale=True, desc=url.rsplit("/", 1)[-1]) as bar:
            for chunk in response.iter_bytes():
                write(chunk)
                bar.update(len(chunk))


def download(name: str, *, location: str = LOCATION) -> Path:
    """Download a published checkpoint into the Hugging Face cache, unless it is there already.

    Args:
        name: Short name of the checkpoint, one of `PUBLISHED`.
        location: Address of the folder that holds the files.

    Returns:
        Path of the file in the cache.

    Raises:
        ConnectionError: If the file cannot be downloaded.
    """
    url = url_of(name, location=location)
    target = Path(constants.HF_HOME) / "musiq_hf" / url.removeprefix(location)
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if constants.HF_HUB_OFFLINE:
            raise ConnectionError("HF_HUB_OFFLINE is set")
        with replace_file(target) as temporary, temporary.open("xb") as file:
            _stream(url, file.write)
    except (httpx.HTTPError, ConnectionError) as error:
        raise ConnectionError(
            f"{url} cannot be downloaded ({str(error) or type(error).__name__}). Fetch it on another machine and pass "
            "the file."
        ) from error
    return target
