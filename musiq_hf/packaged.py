# SPDX-License-Identifier: Apache-2.0
"""Where the data files of the package are, in a clone and in a wheel."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def data_directory(name: str) -> Path:
    """A folder of `configuration`, which a wheel holds inside the package and a clone beside it."""
    inside = PACKAGE / "configuration" / name
    return inside if inside.is_dir() else PACKAGE.parent / "configuration" / name
