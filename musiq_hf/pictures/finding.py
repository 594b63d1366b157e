# SPDX-License-Identifier: Apache-2.0
"""Find the picture files below a folder."""

import os
from pathlib import Path

from PIL import Image

IDENTIFIED_ONLY = {"BUFR", "GRIB", "HDF5", "MPEG", "WMF"}  # Pillow opens these and cannot decode them by itself


def find_pictures(folder: str | os.PathLike[str]) -> list[Path]:
    """Files below a folder whose extensions are those of formats that Pillow decodes, sorted by path.

    Raises:
        ValueError: If there is no such folder, or no picture in it.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"{folder}: no such folder. Give a folder of pictures.")
    kinds = Image.registered_extensions().items()  # of formats that can only be written, too
    known = {suffix for suffix, kind in kinds if kind in Image.OPEN and kind not in IDENTIFIED_ONLY}
    files = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in known and path.is_file())
    if not files:
        raise ValueError(f"{folder} holds no picture. Give a folder of PNG, JPEG or other files that Pillow reads.")
    return files
