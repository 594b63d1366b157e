# SPDX-License-Identifier: Apache-2.0
"""Types of a conversion: a file as it was found, the result, and what a family provides to convert its files."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from transformers import PreTrainedConfig

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Checkpoint of another program, as it was found.

    Attributes:
        path: File that holds it.
        sha256: Hash of the file.
        kind: Words for its format, for the report.
        arrays: Weights by their names in the file; half precision is widened to float32.
        num_optimizer_arrays: Number of arrays of optimizer state, which are left out.
    """

    path: Path
    sha256: str
    kind: str
    arrays: dict[str, Array]
    num_optimizer_arrays: int = 0

    @property
    def num_parameters(self) -> int:
        """Numbers in all arrays."""
        return sum(array.size for array in self.arrays.values())


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Results of a conversion: what was found, and what was written.

    Attributes:
        checkpoint: Source of the weights.
        config: Configuration that was inferred from the arrays.
        inferred: Lines about the configuration, for the report.
        largest_difference: Largest absolute difference of a logit between two models: the one built from the arrays
            and the one loaded from the directory.
        directory: Directory that was written.
    """

    checkpoint: Checkpoint
    config: PreTrainedConfig
    inferred: tuple[str, ...]
    largest_difference: float
    directory: Path

    def report(self) -> str:
        """Write a few lines for the terminal."""
        source = self.checkpoint
        skipped = f"; {source.num_optimizer_arrays} of the optimizer's state left out"
        lines = (
            f"source    {source.path} ({source.kind})",
            f"sha256    {source.sha256}",
            f"arrays    {len(source.arrays)} with {source.num_parameters:,} parameters"
            + (skipped if source.num_optimizer_arrays else ""),
            *(f"{'' if index else 'inferred':<10}{line}" for index, line in enumerate(self.inferred)),
            f"check     largest difference of a logit after reloading {self.largest_difference:.1e}; arrays back bit "
            "by bit",
            f"written   {self.directory}",
        )
        return "\n".join(lines)


class Converter(Protocol):
    """Converter of the files of one family, to Hugging Face directories and back.

    Attributes:
        family: Name of the family.
        accepts: Words for the files that it converts, as in "a MUSIQ checkpoint, the original's .npz".
        endings: Endings of their names, as in ".npz". They decide about a file that no converter recognises.
        published: Names of checkpoints that it can download.
    """

    @property
    def family(self) -> str: ...

    @property
    def accepts(self) -> str: ...

    @property
    def endings(self) -> Sequence[str]: ...

    @property
    def published(self) -> Sequence[str]: ...

    def fetch(self, name: str) -> tuple[Path, str] | None:
        """Download a published checkpoint, unless it is there already.

        Args:
            name: Any name; those that the user may give include `published`.

        Returns:
            The file and the name of the checkpoint; None if the name is not a published one.

        Raises:
            ConnectionError: If the download fails.
        """

    def recognises(self, path: Path) -> bool:
        """Return True if a file, by its content, is one of this family; a damaged file never is."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of this converter; none is required, and no other converter has one of the same name."""

    def convert(
        self, path: Path, output: Path, *, name: str | None = None, arguments: Mapping[str, Any] | None = None
    ) -> Conversion:
        """Convert a file to a Hugging Face directory, reload that and compare; a failure leaves nothing behind.

        Args:
            path: File to convert.
            output: Directory to write, which must not exist, or be empty.
            name: Name of the checkpoint on its card; None = the file's name.
            arguments: Options of `add_arguments` that the user gave, by name; the others keep their defaults.

        Returns:
            The report, the configuration and what was written.

        Raises:
            ValueError: If the file is damaged or of another family, an argument is missing or contradicts the file,
                or the output exists.
        """

    def to_original(self, directory: Path, output: Path) -> int:
        """Write a file of the original program from a Hugging Face directory.

        Args:
            directory: Directory that holds config.json and weights.
            output: File to write, which must not exist.

        Returns:
            The number of arrays.

        Raises:
            ValueError: If the weights do not fit, the original cannot express the model, or the output exists.
        """
