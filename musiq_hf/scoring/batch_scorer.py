# SPDX-License-Identifier: Apache-2.0
"""Scores as one step of other people's pipelines: `datasets.map`, pandas, Ray Data and Spark."""

import hashlib
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
import torch
from transformers.utils import CONFIG_NAME, IMAGE_PROCESSOR_NAME

from ..common.checks import check_calibration_choice, check_choice, check_counts
from ..common.devices import find_device
from ..common.stores import check_url, is_remote
from ..models.auto import DEFAULT_CHECKPOINT
from ..pictures.lazy import LazyPicture, make_unreadable, name_file, read_url
from ..pictures.opening import URL_PREFIXES, Preset, check_limit, check_preset, describe_decoder, download
from ..pictures.sources.data_sets import is_hub_file, read_hub_file
from ..pictures.sources.paths import URL_TIMEOUT
from ..pictures.sources.tables import choose_key, open_cell
from ..version import __version__
from .calibration import CALIBRATION, Calibration
from .job import DTYPES
from .loading import check_checkpoint, find_file, find_weight_files
from .rows import ScoreRow, Scorers, name_checkpoint

# Columns of an answer and their types, as Spark calls them.
SCORES = {
    "score": "double",
    "score_0_1": "double",
    "std": "double",
    "width": "int",
    "height": "int",
    "signature": "string",
    "error": "string",
}
PLACES = {"percentile": "double", "stars": "int"}
ARROW_TYPES = {"double": "float64", "int": "int32", "string": "string"}
PANDAS_TYPES = {"double": "float64", "int": "Int32", "string": "object"}
KEPT = 4  # checkpoints that a process keeps loaded
CHANNELS = (1, 3, 4)  # length of the last axis of one picture in an array


class Column(list[Any]):
    """List of the values of a column, to which Arrow gives the right type even if all of them are None.

    Args:
        values: Values of the column.
        kind: Name of their Arrow type.
    """

    def __init__(self, values: Sequence[Any], kind: str):
        super().__init__(values)
        self.kind = kind

    def __arrow_array__(self, type: Any = None) -> Any:
        import pyarrow  # type: ignore[import-untyped]

        return pyarrow.array(list(self), type or pyarrow.type_for_alias(self.kind))


@dataclass(frozen=True)
class BatchScorer:
    """Function from columns with pictures to columns with scores, which travels to other processes.

    >>> scorer = BatchScorer("musiq-lite-biq2021", picture="image")
    >>> dataset.map(scorer, batched=True, batch_size=32, num_proc=8)                # datasets
    >>> scorer(frame)                                                               # pandas
    >>> dataset.map_batches(scorer.actor, batch_format="pyarrow", concurrency=8)    # Ray Data
    >>> frame.mapInPandas(scorer.frames, schema=scorer.spark_schema)                # Spark, with key=

    A process loads the checkpoint when it scores its first batch. `datasets.map` finds its cached result again unless
    weights, settings or versions change.

    Attributes:
        checkpoint: Folder, Hub id or name of an embedded checkpoint.
        picture: Column with the pictures: bytes, mappings with bytes and path as `datasets` writes them, paths, URLs,
            PIL images, or arrays.
        key: Column that tells the pictures apart. Errors name it, and Spark keeps no other column.
        prefix: Start of the names of the new columns, for data that have columns of these names already.
        folder: Folder that paths start from, of this machine or of a remote store; None is the current one of each
            process.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for a GPU if there is one. With `with_rank=True` each process
            of `datasets.map` takes a GPU of its own.
        dtype: Type of the weights of the model, "float32" or "bfloat16".
        threads: Threads with which torch computes. None is one in processes that another one has started by
            `multiprocessing`, because they share the cores, and torch's own number elsewhere.
        percentile: Whether there are columns "percentile" and "stars", by the calibration of the checkpoint.
        calibration: Calibration by which there are these columns in place of that; see `assessment.Calibration`.
        preset: Way in which files become pixels; see `pictures.opening`.
        shorter_side: Length to which pictures are shrunk first, in pixels; None keeps their size.
        max_megapixels: Largest size of a picture as it is scored, in millions of pixels; see `score_with_several`.
        identity: Hash of the checkpoint's files and versions of the libraries, found when the scorer is made.

    Raises:
        ValueError: If a setting is out of range, or there is no such checkpoint.
        ImportError: If the folder needs a package that is missing.
    """

    checkpoint: str = str(DEFAULT_CHECKPOINT)
    picture: str = "image"
    key: str | None = None
    prefix: str = ""
    folder: str | None = None
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    threads: int | None = None
    percentile: bool = False
    calibration: Calibration | None = None
    preset: Preset = "default"
    shorter_side: int | None = None
    max_megapixels: float | None = None
    identity: str = field(init=False)

    def __post_init__(self) -> None:
        check_counts(self, "threads", "shorter_side")
        check_choice("dtype", self.dtype, DTYPES)
        check_preset(self.preset)
        check_limit(self.max_megapixels)
        check_calibration_choice([self.checkpoint], self.calibration, percentile=self.percentile)
        for name, value in (("picture", self.picture), ("key", self.key or ""), ("prefix", self.prefix)):
            if not isinstance(value, str):
                raise ValueError(f"`{name}` must be a text, got {value!r}. Columns have names.")
        if self.key in self.columns:
            raise ValueError(
                f"`key` names {self.key!r}, which is one of the new columns. Give these another name by `prefix`."
            )
        object.__setattr__(self, "checkpoint", _name_everywhere(self.checkpoint))
        if self.folder is not None and is_remote(self.folder):
            check_url(self.folder)
        elif self.folder is not None:
            object.__setattr__(self, "folder", os.path.abspath(self.folder))
        object.__setattr__(self, "identity", self._identify())

    def _identify(self) -> str:
        """Write what the scores depend on besides the settings: files of the checkpoint, and versions."""
        check_checkpoint(self.checkpoint)
        digest = hashlib.sha256()
        named = [find_file(self.checkpoint, name) for name in (CONFIG_NAME, IMAGE_PROCESSOR_NAME, CALIBRATION)]
        for path in filter(None, (*named, *find_weight_files(self.checkpoint))):
            with open(path, "rb") as file:
                digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
        decoder = describe_decoder(self.preset)
        return f"files:{digest.hexdigest()[:16]}|{decoder}|musiq_hf:{__version__}|torch:{torch.__version__}"

    @property
    def columns(self) -> dict[str, str]:
        """Names of the new columns, and their types as Spark calls them."""
        return {self.prefix + name: kind for name, kind in self._fields.items()}

    @property
    def _fields(self) -> dict[str, str]:
        """Fields of the answer, without the prefix, and their types."""
        return SCORES | (PLACES if self.percentile or self.calibration is not None else {})

    def __call__(self, batch: Any, rank: int | None = None) -> Any:
        """Score the pictures of a batch.

        Args:
            batch: Columns by name, an Arrow table, or a pandas frame.
            rank: Number of this process, as `datasets.map` gives it by `with_rank=True`; it chooses the GPU.

        Returns:
            The table or frame with the new columns. For columns by name, the new ones alone, as lists; `datasets.map`
            adds them to the others. A picture that cannot be read or scored has a row with its error.

        Raises:
            ValueError: If the column of pictures is missing or holds none, a new column would replace one of the
                batch, or the checkpoint or the device cannot be used.
        """
        if rank is not None and not isinstance(rank, int):
            raise ValueError(
                f"`rank` must be a number, got {type(rank).__name__}. Leave out with_indices and the like."
            )
        names, take = _open_batch(batch)
        replaced = [name for name in self.columns if name in names]
        if replaced:
            raise ValueError(
                f"The data have columns of the same name already ({', '.join(replaced)}), which must not be replaced. "
                "Name the new ones otherwise: prefix='quality_', say."
            )
        columns = self._score(names, take, rank)
        if hasattr(batch, "append_column"):
            for name, column in columns.items():
                batch = batch.append_column(name, column.__arrow_array__())
            return batch
        return self._to_frame(columns, batch.index, batch) if hasattr(batch, "iloc") else columns

    def frames(self, frames: Iterator[Any]) -> Iterator[Any]:
        """Score frames of Spark; see `DataFrame.mapInPandas`.

        Args:
            frames: Pandas frames.

        Yields:
            Frames with the key, as text, and the new columns alone, as `spark_schema` says.

        Raises:
            ValueError: If there is no `key`, or as a call does.
        """
        key = self._require_key()
        for frame in frames:
            names, take = _open_batch(frame)
            columns = self._score(names, take, None)
            keys = {key: Column([choose_key(value, "") for value in _list_cells(take(key), key)], "string")}
            yield self._to_frame(keys | columns, frame.index)

    @property
    def spark_schema(self) -> str:
        """Schema of what `frames` gives, in the language of Spark."""
        kinds = {self._require_key(): "string"} | self.columns
        return ", ".join(f"`{name.replace('`', '``')}` {kind}" for name, kind in kinds.items())

    @property
    def actor(self) -> type:
        """Class whose objects are actors of Ray Data that score Arrow tables; they load the checkpoint at once."""
        scorer = self

        class Actor:
            """Actor that scores Arrow tables."""

            def __init__(self) -> None:
                with _use_threads(scorer.threads):
                    scorer._load(None)

            def __call__(self, table: Any) -> Any:
                return scorer(table)

        return Actor

    def _require_key(self) -> str:
        """Return the name of the column of keys, or raise a ValueError if there is none."""
        if self.key is None:
            raise ValueError("Rows of Spark have no order. Name the column that tells them apart: key='path', say.")
        return self.key

    def _score(self, names: Sequence[str], take: Callable[[str], Any], rank: int | None) -> dict[str, Column]:
        """Score the pictures of a batch of which names and columns are known, and return the new columns."""
        for option, wanted in (("picture", self.picture), ("key", self.key)):
            if wanted is not None and wanted not in names:
                shown = ", ".join(map(str, names))[:200] or "none"
                raise ValueError(
                    f"There is no column {wanted!r} in the data (columns: {shown}). Name it by `{option}`."
                )
        cells = _list_cells(take(self.picture), self.picture)
        keys = [None] * len(cells) if self.key is None else _list_cells(take(self.key), self.key)
        if len(keys) != len(cells):
            raise ValueError(f"{len(cells)} pictures and {len(keys)} keys were given. A row has one of each.")
        rows, signature = [], None
        if cells:
            sources = [
                _find_source(cell, key, row, self.folder or "")
                for row, (cell, key) in enumerate(zip(cells, keys, strict=True))
            ]
            with _use_threads(self.threads):
                scorers = self._load(rank)
                rows, (signature,) = self._score_sources(sources, scorers), scorers.terms.signatures
        columns = {}
        for name, kind in self._fields.items():
            values = [signature if name == "signature" else getattr(row, name) for row in rows]
            columns[self.prefix + name] = Column(values, ARROW_TYPES[kind])
        return columns

    def _score_sources(self, sources: Sequence[tuple[str, Any]], scorers: Scorers) -> list[ScoreRow]:
        """Score pictures that have keys, and return their rows."""
        try:
            return [row for (row,) in scorers.score(iter(sources))]
        except TypeError as error:  # of a cell that can be no picture at all
            raise ValueError(f"The column {self.picture!r} must hold pictures. {error}") from error

    def _to_frame(self, columns: Mapping[str, Column], index: Any, frame: Any = None) -> Any:
        """Return a pandas frame of columns, or a copy of a frame to which they are added."""
        import pandas

        kinds = {arrow: PANDAS_TYPES[kind] for kind, arrow in ARROW_TYPES.items()}
        series = {
            name: pandas.Series(list(column), index, dtype=kinds[column.kind]) for name, column in columns.items()
        }
        return pandas.DataFrame(series, index) if frame is None else frame.assign(**series)

    def _load(self, rank: int | None) -> Scorers:
        """Return the checkpoint of this process; a process that was forked from another one loads its own."""
        return _load(self, rank, os.getpid())


@lru_cache(maxsize=KEPT)
def _load(scorer: BatchScorer, rank: int | None, process: int) -> Scorers:
    """Load the checkpoint of a scorer in this process.

    Args:
        scorer: Scorer.
        rank: Number of the process among those that share the GPUs; None takes the first GPU.
        process: Id of the process.

    Raises:
        ValueError: If the checkpoint or the versions are not those with which the scorer was made, or the device
            cannot be used.
    """
    identity = scorer._identify()
    if identity != scorer.identity:
        raise ValueError(
            f"{scorer.checkpoint} or the libraries are others than when the scorer was made ({scorer.identity} then, "
            f"{identity} here). Make the scorer anew, and install the same versions everywhere."
        )
    device = find_device(scorer.device)
    if scorer.device == "auto" and device.type != "cpu" and rank is not None:
        device = torch.device(device.type, rank % torch.accelerator.device_count())
    try:
        return Scorers(
            [scorer.checkpoint],
            device=device,
            dtype=getattr(torch, scorer.dtype),
            has_percentiles=scorer.percentile,
            calibration=scorer.calibration,
            preset=scorer.preset,
            shorter_side=scorer.shorter_side,
            max_megapixels=scorer.max_megapixels,
        )
    except RuntimeError as error:
        if "forked" not in str(error):
            raise
        raise ValueError(
            f"{device} was in use before this process was forked. Start processes by "
            'multiprocess.set_start_method("spawn"), or score on the CPU: device="cpu".'
        ) from error


def _name_everywhere(checkpoint: str | os.PathLike[str]) -> str:
    """Return the name of a checkpoint in other processes: the path of a folder starts from the root."""
    name = name_checkpoint(os.fspath(checkpoint))
    return os.path.abspath(name) if os.path.isdir(name) else name


def _has_started_us(library: str) -> bool:
    """Return whether a process started this one by a library, `multiprocessing` or its relative `multiprocess`."""
    module = sys.modules.get(f"{library}.process")
    return module is not None and module.parent_process() is not None


@contextmanager
def _use_threads(threads: int | None) -> Iterator[None]:
    """Load and compute with so many threads of torch; see `BatchScorer`.

    A forked process does not have the threads of the other one, and would wait for them for ever. A number that is set
    before anything else makes torch forget them.
    """
    before = torch.get_num_threads()
    shares_cores = any(map(_has_started_us, ("multiprocessing", "multiprocess")))
    torch.set_num_threads(threads or (1 if shares_cores else before))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _open_batch(batch: Any) -> tuple[list[str], Callable[[str], Any]]:
    """Return the names of the columns of a batch, and a function that gives one of them.

    Raises:
        ValueError: If the batch is something else.
    """
    if isinstance(batch, Mapping):
        # The batches of `datasets` would decode the pictures, and stop at a broken one; their table has the files.
        table = getattr(batch, "pa_table", None) if type(batch).__name__ == "LazyBatch" else None
        return list(batch), batch.__getitem__ if table is None else table.column
    if hasattr(batch, "append_column"):
        return batch.schema.names, batch.column
    if hasattr(batch, "iloc") and hasattr(batch, "columns"):
        return list(batch.columns), batch.__getitem__
    raise ValueError(
        "Columns by name, an Arrow table or a pandas frame is expected, got "
        f"{type(batch).__name__}. With datasets.map, leave out `input_columns`."
    )


def _list_cells(column: Any, name: str) -> list[Any]:
    """Return the cells of a column as a list.

    Raises:
        ValueError: If the column is one picture, not several.
    """
    if hasattr(column, "to_pylist"):
        cells: list[Any] = column.to_pylist()
        return cells
    is_array = isinstance(column, np.ndarray | torch.Tensor)
    is_text = isinstance(column, str | bytes | bytearray | memoryview)
    is_picture = is_array and (column.ndim == 0 or (column.ndim == 3 and column.shape[-1] in CHANNELS))
    if is_picture or is_text or not (is_array or isinstance(column, Sequence) or hasattr(column, "iloc")):
        raise ValueError(
            f"The column {name!r} must be a list of cells, got {type(column).__name__}. Give several rows at once: "
            "`map` needs batched=True."
        )
    return list(column)


def _find_source(cell: Any, key: Any, row: int, folder: str) -> tuple[str, Any]:
    """Return the name and the picture of a cell.

    Args:
        cell: Cell of the column of pictures.
        key: Cell of the column of keys; None if there is none.
        row: Number of the row in its batch.
        folder: Folder that paths start from.
    """
    path = cell.get("path") if isinstance(cell, Mapping) else cell
    otherwise = path if isinstance(path, str) and path else f"row {row} of the batch"
    name = choose_key(None if _is_missing(key) else key, otherwise)
    if _is_missing(cell) or (isinstance(cell, Mapping | str | bytes) and not cell):
        return make_unreadable(name, "the row has no picture.")
    if isinstance(cell, Mapping) and cell.get("bytes"):
        return name, {**cell, "path": None}
    if isinstance(path, str | os.PathLike) or isinstance(cell, Mapping):
        return name, _open_later(path, name, folder)
    return name, cell


def _open_later(path: Any, name: str, folder: str) -> LazyPicture:
    """Return the picture of a path or URL, which is opened where it is decoded."""
    shown = name_file(name, path)
    text = "" if path is None else os.fspath(path)
    if text.startswith(URL_PREFIXES):
        return LazyPicture(shown, partial(download, text, name=shown, timeout=URL_TIMEOUT))
    if is_hub_file(text):
        return LazyPicture(shown, partial(read_hub_file, text))
    if is_remote(text):
        return LazyPicture(shown, partial(read_url, text, shown))
    return LazyPicture(shown, partial(open_cell, text, shown, folder))


def _is_missing(cell: Any) -> bool:
    """Return whether a cell is empty, in whatever way a library says so."""
    return cell is None or (isinstance(cell, float) and math.isnan(cell)) or type(cell).__name__ == "NAType"
