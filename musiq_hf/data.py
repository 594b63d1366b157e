# SPDX-License-Identifier: Apache-2.0
"""Pictures with opinion scores: one reader for CSV, imagefolder and Hub data, and the training collator."""

import math
import os
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import ImageOps
from transformers.image_processing_utils import BatchFeature

from .degradations import degrade_at_random
from .image_loading_musiq import decode_image
from .image_processing_musiq import MusiqImageProcessor

if TYPE_CHECKING:
    import datasets

SPLITS = ("train", "validation", "test")
EXPECTED = "`image` (a path or a picture) and `mos` (a number), and may have `split` and `group`"


def _check_columns(names: list[str], source: str) -> None:
    missing = [name for name in ("image", "mos") if name not in names]
    if missing:
        raise ValueError(f"{source}: columns {missing} are missing, got {names}. A table needs {EXPECTED}.")


def _check_split(rows: "datasets.Dataset", split: str, source: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"{source}: splits are {', '.join(SPLITS)}, got {split!r}. Rename it.")
    _check_columns(rows.column_names, f"{source}, split {split}")
    for row, mos in enumerate(rows["mos"]):
        if not isinstance(mos, int | float) or not math.isfinite(mos):
            raise ValueError(f"{source}, split {split}, row {row}: `mos` must be a finite number, got {mos!r}.")


def _read_csv(path: Path, image_root: Path) -> "datasets.Dataset":
    import datasets
    import pandas  # a dependency of datasets

    try:
        table = pandas.read_csv(path)
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a CSV table ({error}). It needs a header and {EXPECTED}.") from error
    _check_columns(list(table.columns), str(path))
    table["image"] = [str(image_root / str(name)) for name in table["image"]]
    numbers = pandas.to_numeric(table["mos"], errors="coerce")
    for row, (image, mos) in enumerate(zip(table["image"], numbers, strict=True), start=2):  # line 1 is the header
        if not os.path.isfile(image):
            raise ValueError(f"{path}, line {row}: picture {image} does not exist. Check `--image_root`.")
        if not abs(mos) < float("inf"):  # also catches NaN
            raise ValueError(f"{path}, line {row}: `mos` must be a number, got {table['mos'][row - 2]}.")
    table["mos"] = numbers.astype(float)
    return datasets.Dataset.from_pandas(table, preserve_index=False)


def load_scored_images(data: str, *, image_root: str | None = None) -> "datasets.DatasetDict":
    """Read pictures and their mean opinion scores.

    Args:
        data: A CSV file with columns `image`, `mos` and optionally `split` and `group`; a directory that `datasets`
            reads as an imagefolder (metadata with `file_name`, `mos`); or a data set id on the Hub.
        image_root: Directory that the paths of a CSV start from; None = the CSV's own directory.

    Returns:
        Splits ("train" if the data name none), with columns `image` (undecoded) and `mos`, and `group` if there is
        one.

    Raises:
        ValueError: If a column, a picture or a score is missing or wrong; the message names file, line and
            expectation.
    """
    import datasets

    path = Path(data)
    is_csv = path.suffix.lower() == ".csv" or path.is_file()
    if image_root is not None and not is_csv:
        raise ValueError(f"`--image_root` belongs to a CSV, but {data} is none. Leave it out.")
    if is_csv:
        if not path.is_file():
            raise ValueError(f"{data}: no such file. Give a CSV with {EXPECTED}.")
        table = _read_csv(path, Path(image_root) if image_root is not None else path.parent)
        splits = {"train": table}
        if "split" in table.column_names:
            names = [str(name).strip() for name in table["split"]]
            splits = {
                name: table.select([i for i, own in enumerate(names) if own == name]) for name in sorted(set(names))
            }
        loaded = datasets.DatasetDict(splits)
    else:
        try:
            loaded = (
                datasets.load_dataset("imagefolder", data_dir=data) if path.is_dir() else datasets.load_dataset(data)
            )
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            raise ValueError(f"{data} cannot be read as an imagefolder or a data set of the Hub: {error}") from error
    for split, rows in loaded.items():
        _check_split(rows, split, data)
    return loaded.cast_column("image", datasets.Image(decode=False))


def open_picture(cell: dict[str, Any]) -> Any:
    """Open an undecoded image cell ({"bytes", "path"}) with the loader that scores everything else.

    Raises:
        ValueError: If it cannot be decoded; the message names the file.
    """
    name = cell["path"] or "picture in the data set"
    return decode_image(BytesIO(cell["bytes"]) if cell["bytes"] else name, name)


class QualityCollator:
    """Rows of pictures and scores to a padded batch.

    Args:
        processor: Cuts and pads.
        flip: Whether to mirror a picture left to right with probability 1/2, the paper's only augmentation (training).
        degrade_fraction: Probability that a picture is blurred or made noisy and its score lowered (training only);
            see `musiq_hf.degradations`.
        worst_score: Lowest score of the training data, towards which degraded pictures move.
        native_patches: Keep a random subset of this many native patches per picture (training only: several times
            cheaper, and a strong regulariser); None keeps all.
    """

    def __init__(
        self,
        processor: MusiqImageProcessor,
        *,
        flip: bool = False,
        degrade_fraction: float = 0.0,
        worst_score: float = 0.0,
        native_patches: int | None = None,
    ):
        if not 0 <= degrade_fraction <= 1:
            raise ValueError(f"`degrade_fraction` must lie in [0, 1], got {degrade_fraction}.")
        if native_patches is not None and native_patches < 1:
            raise ValueError(f"`native_patches` must be at least 1, got {native_patches}.")
        if native_patches is not None and not processor.use_native_resolution:
            raise ValueError("`native_patches` chooses among native patches, but this processor makes none.")
        self.processor = processor
        self.flip = flip
        self.degrade_fraction = degrade_fraction
        self.worst_score = worst_score
        self.native_patches = native_patches

    def _subset(self, feature: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        native = feature["scale_position_ids"] == len(self.processor.longer_side_lengths)
        indices = native.nonzero()[:, 0]
        chosen = indices[torch.randperm(len(indices))[: self.native_patches]].sort().values
        kept = torch.cat(((~native).nonzero()[:, 0], chosen))  # the native patches come last
        return {name: values[kept] for name, values in feature.items()}

    def __call__(self, rows: list[dict[str, Any]]) -> BatchFeature:
        features, labels = [], []
        for row in rows:
            image, mos = open_picture(row["image"]), row["mos"]
            if self.degrade_fraction and torch.rand(()) < self.degrade_fraction:
                image, mos = degrade_at_random(image, mos, worst=self.worst_score)
            labels.append(mos)
            if self.flip and torch.rand(()) < 0.5:
                image = ImageOps.mirror(image)
            image.filename = row["image"]["path"] or ""  # flips and faults lose it, and errors should name the file
            lists = self.processor(image, padding="do_not_pad")
            feature = {name: values[0] for name, values in lists.items()}
            features.append(feature if self.native_patches is None else self._subset(feature))
        batch = self.processor.pad(features, padding="longest")
        batch["labels"] = torch.tensor(labels, dtype=torch.float32)
        return batch
