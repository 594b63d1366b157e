# SPDX-License-Identifier: Apache-2.0
"""Types of a conversion: a checkpoint as it was found, the result, and the converter of a family."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from transformers import PreTrainedConfig

Array = np.ndarray[Any, Any]
# Options that several converters read, each a whole number, and their help.
SHARED_OPTIONS = {
    "num_attention_heads": "attention heads, where no array tells them: of a MUSIQ .pth whose hidden size is not 384, "
    "or of a vision Transformer of timm whose heads are not 64 wide"
}


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Checkpoint of another program, as it was found.

    Attributes:
        path: File that holds it.
        sha256: Hash of the file.
        kind: Name of its format, for the report.
        arrays: Weights by their names in the file; half precision is widened to float32.
        num_optimizer_arrays: Number of arrays of optimizer state in the file, which `arrays` leaves out.
    """

    path: Path
    sha256: str
    kind: str
    arrays: dict[str, Array]
    num_optimizer_arrays: int = 0

    @property
    def num_parameters(self) -> int:
        """Number of values in all arrays."""
        return sum(array.size for array in self.arrays.values())


@dataclass(frozen=True, kw_only=True)
class Conversion:
    """Result of a conversion: its source, the configuration, and the directory that was written.

    Attributes:
        checkpoint: Source of the weights.
        config: Configuration that was inferred from the arrays.
        inferred: Lines about the configuration, for the report.
        largest_difference: Largest absolute difference of an answer between two models: the one built from the
            arrays and the one loaded from the directory.
        directory: Directory that was written.
        answer: Name of what the models answer, and differ in.
    """

    checkpoint: Checkpoint
    config: PreTrainedConfig
    inferred: tuple[str, ...]
    largest_difference: float
    directory: Path
    answer: str = "a logit"

    def report(self) -> str:
        """Write the report, a few lines for the terminal."""
        source = self.checkpoint
        skipped = f"; {source.num_optimizer_arrays} of the optimizer's state left out"
        lines = (
            f"source    {source.path} ({source.kind})",
            f"sha256    {source.sha256}",
            f"arrays    {len(source.arrays)} with {source.num_parameters:,} parameters"
            + (skipped if source.num_optimizer_arrays else ""),
            *(f"{'' if index else 'inferred':<10}{line}" for index, line in enumerate(self.inferred)),
            f"check     largest difference of {self.answer} after reloading {self.largest_difference:.1e}; "
            "arrays back bit by bit",
            f"written   {self.directory}",
        )
        return "\n".join(lines)


class Unpublished:
    """Part of each converter whose checkpoints no program can download."""

    published: Sequence[str] = ()

    def fetch(self, name: str) -> tuple[Path, str] | None:
        """Return None: no name is that of a published checkpoint."""
        return None


class Converter(Protocol):
    """Converter of the checkpoints of one family, to Hugging Face directories and back.

    Attributes:
        family: Name of the family.
        accepts: Description of the files that it converts, such as "a MUSIQ checkpoint, the original's .npz".
        endings: Endings of the names of these files, such as ".npz". They decide about a file that no converter
            recognises.
        published: Names of the checkpoints that it can download.
        shared: Names of the `SHARED_OPTIONS` that it reads, beside the options of its own.
        left_out: Sentences about what the original's files cannot hold of a model, and where it is; `{directory}`
            stands for the Hugging Face directory. Empty if they hold the whole model.
    """

    @property
    def family(self) -> str: ...

    @property
    def accepts(self) -> str: ...

    @property
    def endings(self) -> Sequence[str]: ...

    @property
    def published(self) -> Sequence[str]: ...

    @property
    def shared(self) -> Sequence[str]: ...

    @property
    def left_out(self) -> str: ...

    def fetch(self, name: str) -> tuple[Path, str] | None:
        """Download a published checkpoint, unless it is there already.

        Args:
            name: Any name that the user has given; a converter may know more than those in `published`.

        Returns:
            The file and the name of the checkpoint; None if the name is not a published one.

        Raises:
            ConnectionError: If the download fails.
        """

    def recognises(self, path: Path) -> bool:
        """Return True if the content of a file is a checkpoint of this family; False for a damaged file."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the options of this converter; none may be required, nor have the name of another converter's option."""

    def convert(
        self, path: Path, output: Path, *, name: str | None = None, arguments: Mapping[str, Any] | None = None
    ) -> Conversion:
        """Convert a file to a Hugging Face directory, load that again and compare; a failure leaves nothing behind.

        Args:
            path: File to convert.
            output: Directory to write, which must not exist, or be empty.
            name: Name of the checkpoint on its card; None = the file's name.
            arguments: Options that the user gave, its own or shared ones, by name; the others keep their defaults.

        Returns:
            The source, the configuration and the directory, with a report.

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
            The number of arrays in the file.

        Raises:
            ValueError: If the weights do not fit, the original cannot express the model, or the output exists.
        """
