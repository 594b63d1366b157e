# SPDX-License-Identifier: Apache-2.0
"""Data: configurations of the published variants and of the small model, and where to find them."""

from pathlib import Path

CHECKPOINTS = Path(__file__).parent / "checkpoints"


def checkpoint_directory(name: str) -> Path:
    """Directory with the config.json and preprocessor_config.json of a named model, in a clone and in a wheel.

    Args:
        name: "musiq-koniq", "musiq-ava-single", "musiq-tiny", ...

    Returns:
        The directory; it holds no weights, so training that starts from it starts fresh.

    Raises:
        ValueError: If there is no such name.
    """
    names = sorted(path.name for path in CHECKPOINTS.iterdir() if path.is_dir())
    if name not in names:
        raise ValueError(f"There is no configuration {name!r}. Choose one of {', '.join(names)}.")
    return CHECKPOINTS / name
