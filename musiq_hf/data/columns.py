# SPDX-License-Identifier: Apache-2.0
"""Columns of tables of scored pictures, under names of one's own."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """Names of the columns of a table of scored pictures, and what is done about missing pictures.

    Attributes:
        image_column: Column with pictures or their paths; None = `image`, in the table of a folder `file_name`.
        score_column: Column with scores, or with lists of counts in parquet files; None = `mos` or `distribution`.
        split_column: Column with the names of splits; None = `split` if there is one.
        skip_missing: Whether pictures that do not exist are no error here, because `readable_rows` leaves them out.
    """

    image_column: str | None = None
    score_column: str | None = None
    split_column: str | None = None
    skip_missing: bool = False

    def __post_init__(self) -> None:
        """Raise a ValueError if one column is to have two meanings."""
        given = list(self.list_given().values())
        if len(set(given)) < len(given):
            raise ValueError(f"`image_column`, `score_column` and `split_column` must differ, got {', '.join(given)}.")

    def list_given(self) -> dict[str, str]:
        """Return the names that were given, by what they name."""
        names = {"image_column": self.image_column, "score_column": self.score_column}
        names["split_column"] = self.split_column
        return {argument: name for argument, name in names.items() if name is not None}

    def rename(self, names: Sequence[str], *, source: str, picture: str = "image", score: str = "mos") -> list[str]:
        """Return the usual name of each column; it is empty for one whose usual name another column takes.

        Args:
            names: Names of the columns.
            source: Name of the table in error messages.
            picture: Usual name of the column with pictures.
            score: Usual name of the column with scores.

        Raises:
            ValueError: If there is no column of a given name.
        """
        usual = {"image_column": picture, "score_column": score, "split_column": "split"}
        changes = {}
        for argument, name in self.list_given().items():
            if name not in names:
                raise ValueError(
                    f"`--{argument} {name}`: {source} has no such column, only {', '.join(filter(None, names))}."
                )
            changes[name] = usual[argument]
        taken = {*changes.values()} | ({"mos", "distribution"} if self.score_column is not None else set())
        return [changes.get(name, "" if name in taken else name) for name in names]
