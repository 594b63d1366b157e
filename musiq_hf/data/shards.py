# SPDX-License-Identifier: Apache-2.0
"""WebDataset shards of scored pictures."""

from typing import TYPE_CHECKING, Any

from ..pictures.finding import has_picture_suffix
from .annotation_files import Range, check_score, check_unit, list_column_kinds

if TYPE_CHECKING:
    import datasets


def _holds_pictures(name: str, kind: Any) -> bool:
    """Return whether a field of shards holds pictures; `datasets` does not know the endings of all formats."""
    import datasets

    is_plain = isinstance(kind, datasets.Value) and kind.dtype == "binary"
    return isinstance(kind, datasets.Image) or (is_plain and has_picture_suffix(f"sample.{name}"))


def make_shard_features(features: "datasets.Features") -> "datasets.Features":
    """Return the types of the fields of shards, with scores as floats and pictures undecoded.

    `datasets` takes the type of a score from five samples and would cut off decimals that come later.
    """
    import datasets

    changed = {
        name: datasets.Image(decode=False) if _holds_pictures(name, kind) else kind for name, kind in features.items()
    }
    if isinstance(changed.get("json"), dict):
        changed["json"] = {name: list_column_kinds().get(name, kind) for name, kind in changed["json"].items()}
    return datasets.Features(changed)


def read_shards(rows: Any, source: str, score_range: Range) -> Any:
    """Read rows of shards, which have a field per file extension, into the columns of all other data.

    Args:
        rows: Data set or stream, as `datasets` reads shards.
        source: Name of the data in error messages.
        score_range: Lowest and highest possible `mos`; None allows any number.

    Returns:
        Data set or stream with columns `image` and `mos` or `distribution`, and with `group`, `reference` and `box` if
        the shards have them.

    Raises:
        ValueError: If samples have no picture or no score. A single such sample raises when it is read.
    """
    import datasets

    fields = rows.features
    pictures = [name for name, kind in fields.items() if isinstance(kind, datasets.Image)]
    labels = fields["json"] if isinstance(fields.get("json"), dict) else {}
    score = next((name for name in ("mos", "distribution") if name in labels), "mos")
    text = None if score in labels else next((name for name in ("txt", "cls") if name in fields), None)
    if not pictures or (text is None and score not in labels):
        raise ValueError(
            f"{source}: every sample needs a picture (jpg, png, ...) and a json file with `mos` or `distribution`, or "
            f"a txt or cls file with the score, got {sorted(fields)}."
        )
    check_unit([score], source, score_range)
    optional = [name for name in ("group", "reference", "box") if name in labels]

    def convert(row: dict[str, Any]) -> dict[str, Any]:
        where = f"{source}, sample {row['__key__']}"
        values = (row.get("json") or {}) | ({} if text is None else {score: row[text]})
        cell = next((row[name] for name in pictures if row[name] is not None), None)
        if cell is None:
            raise ValueError(f"{where}: a picture ({', '.join(pictures)}) was expected, but there is none.")
        rest = {name: values.get(name) for name in optional}
        return {"image": cell, score: check_score(score, values.get(score), where, score_range), **rest}

    kinds = {name: list_column_kinds()[name] for name in ("image", score, *optional)}
    return rows.map(convert, remove_columns=list(fields), features=datasets.Features(kinds))
