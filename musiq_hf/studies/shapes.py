# SPDX-License-Identifier: Apache-2.0
"""Pictures of several shapes that are made of square photographs: windows of them, and padded ones."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..common.files import replace_file
from ..data import load_data
from ..data.batches import open_row
from ..pictures import open_picture
from .running import SPLIT

# The package comes first: from there on Ctrl-C is a sentence.
# isort: split
import datasets

_COLUMNS = ("mos", "group")


def draw_aspect(name: str) -> float:
    """Draw a ratio of width to height of 1:2 to 2:1, from the name of a picture."""
    return float(2 ** np.random.default_rng(list(name.encode())).uniform(-1, 1))


def choose_window(name: str, width: int, height: int) -> list[int]:
    """Choose the largest box at the middle of a picture, of an aspect ratio that its name draws.

    Args:
        name: Name of the picture.
        width: Columns of the picture, in pixels.
        height: Rows of the picture, in pixels.

    Returns:
        Left, top, right and bottom, in pixels.
    """
    aspect = draw_aspect(name)
    wide, high = min(width, round(height * aspect)), min(height, round(width / aspect))
    left, top = (width - wide) // 2, (height - high) // 2
    return [left, top, left + wide, top + high]


def _list_names(rows: "datasets.Dataset") -> list[str]:
    return [str(Path(cell["path"]).resolve()) for cell in rows["image"]]


def draw_rows(data: Mapping[str, Any], *, num_train: int | None, num_validation: int | None) -> dict[str, Any]:
    """Draw some pictures of each split, the same ones every time.

    Args:
        data: Arguments of `load_data`.
        num_train: Training pictures, at most; None keeps all.
        num_validation: Validation pictures, at most; None keeps all.

    Returns:
        Rows of the splits `train` and `validation`, in the order of the data.

    Raises:
        ValueError: If data cannot be read, or lack one of these splits.
    """
    splits = load_data(**data)
    if missing := {"train", SPLIT} - splits.keys():
        raise ValueError(f"{data['data']} has no split {', '.join(sorted(missing))}, which a study needs.")
    generator, drawn = np.random.default_rng(0), {}
    for split, count in ((SPLIT, num_validation), ("train", num_train)):
        rows = splits[split]
        order = generator.permutation(len(rows))[:count]
        drawn[split] = rows.select(sorted(order.tolist()))
    return drawn


def write_pictures(path: Path, drawn: Mapping[str, "datasets.Dataset"], *, in_windows: bool) -> None:
    """Write scored pictures as parquet, whole or with a window for every picture, which has the score of the whole.

    Args:
        path: File to write.
        drawn: Rows by split, as `draw_rows` gives them.
        in_windows: Whether each picture has a window, see `choose_window`.

    Raises:
        ValueError: If a picture cannot be read.
    """
    tables = []
    for split, rows in drawn.items():
        names = _list_names(rows)
        columns: dict[str, Any] = {"image": names, "split": [split] * len(names)}
        if in_windows:
            columns["box"] = [choose_window(Path(name).name, *open_picture(name).size) for name in names]
        columns |= {name: rows[name][:] for name in _COLUMNS if name in rows.column_names}
        tables.append(datasets.Dataset.from_dict(columns))
    with replace_file(path) as temporary:
        datasets.concatenate_datasets(tables).to_parquet(temporary)


def pad_picture(image: Image.Image, aspect: float) -> Image.Image:
    """Return a picture on a black ground, at its middle, so that the whole has an aspect ratio.

    Args:
        image: RGB picture.
        aspect: Ratio of width to height of the result.
    """
    width, height = max(image.width, round(image.height * aspect)), max(image.height, round(image.width / aspect))
    padded = Image.new("RGB", (width, height))
    padded.paste(image, ((width - image.width) // 2, (height - image.height) // 2))
    return padded


def write_padded(folder: Path, rows: "datasets.Dataset") -> None:
    """Write pictures on black grounds of aspect ratios that their names draw, and a table of their scores.

    Args:
        folder: Folder that will hold scores.csv and the pictures.
        rows: Rows of scored pictures, as `load_data` gives them.

    Raises:
        ValueError: If a picture cannot be decoded.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"image,mos,split{',group' if 'group' in rows.column_names else ''}"]
    for row, name in zip(rows, _list_names(rows), strict=True):
        file = f"{Path(name).stem}.png"
        with replace_file(folder / file) as temporary:
            image = pad_picture(open_row(row).convert("RGB"), draw_aspect(Path(name).name))
            image.save(temporary, format="PNG", compress_level=1)
        lines.append(",".join([file, repr(row["mos"]), SPLIT, *([row["group"]] if "group" in row else [])]))
    with replace_file(folder / "scores.csv") as temporary:
        Path(temporary).write_text("\n".join(lines) + "\n", encoding="utf-8")
