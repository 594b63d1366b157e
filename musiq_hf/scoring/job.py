# SPDX-License-Identifier: Apache-2.0
"""Jobs that score any number of pictures into a table, and that may be killed at any moment.

Rows go to a journal beside the output, from which the same job continues. Shards and the processes of one launch
share the pictures. Without an output the rows come as a stream. Both use the same engine.
"""

import itertools
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import KW_ONLY, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..common.checks import check_calibration_choice, check_choice, check_counts, check_ensemble
from ..common.devices import count_cores
from ..common.files import check_output_file
from ..common.outputs import check_table_path
from ..models.auto import DEFAULT_CHECKPOINT
from ..pictures.opening import Preset, check_limit, check_preset
from ..pictures.sources.parts import find_parts, take_every
from ..pictures.sources.paths import check_sources, count_sources, find_sources
from ..pictures.sources.tables import Columns
from .calibration import Calibration
from .finished import check_finished
from .journal import (
    THREADS,
    Journal,
    Totals,
    check_no_other_journal,
    name_journals,
    name_shard,
    write_output,
)
from .ray import RayScorers
from .remote_journal import RemoteJournal, check_remote_output, has_object, write_remote_output
from .rows import Entry, Scorers, ScorerSettings

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16")
ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Share:
    """Share of the pictures: number `index` of every `count`.

    Attributes:
        index: Number of the share, from 1.
        count: Number of shares in all.
        is_launched: Whether the shares are those of processes of one launch, which write one output together. Others
            are shards, each of which is a job with an output of its own.

    Raises:
        ValueError: If the number lies outside of 1 to `count`.
    """

    index: int = 1
    count: int = 1
    is_launched: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"A share must have a number from 1 to {self.count}, got {self.index}.")


def find_launched_share() -> Share:
    """Return the share of this process, from what `accelerate launch` and `torchrun` tell it; all if it is alone."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    return Share() if count == 1 else Share(int(os.environ.get("RANK", "0")) + 1, count, is_launched=True)


@dataclass(frozen=True)
class ScoreJob:
    """Pictures to score, checkpoints that score them, and the table that is made.

    >>> job = ScoreJob(["photos"], output="scores.csv")
    >>> run_job(job)
    JobResult(state='written', pictures=1200, errors=3)

    Attributes:
        paths: Pictures, URLs, folders, patterns, archives, tables and data sets; see `pictures.find_sources`.
        output: A .csv, .jsonl or .parquet file, see `run_job`; None for a stream, see `score_rows`. It may be the URL
            of an object in a remote store, such as "s3://bucket/scores.parquet".
        columns: Columns of tables and data sets that hold the pictures and the keys.
        allow_missing: Whether a path that leads to nothing is a row with its error; else it is refused.
        share: Part of the pictures that is scored. The default is all of them, or, in a process of a launch, its part.
        overwrite: Whether the output is replaced if it exists.
        models: Checkpoints: folders, Hub ids or names of embedded ones; all of them score what is decoded once.
        weights: Weight of each checkpoint in the ensemble; None makes no ensemble.
        percentile: Whether rows have percentile and stars, by the calibration of each checkpoint.
        calibration: Scores of other pictures by which rows have percentile and stars in place of that; see
            `assessment.Calibration`. It is of one checkpoint, so several are refused.
        preset: Way in which files become pixels; see `pictures.opening`.
        shorter_side: Length to which pictures are shrunk first, in pixels; None keeps their size.
        max_megapixels: Largest size of a picture as it is scored, in millions of pixels; a larger one has its error.
            `math.inf` sets no limit, None that of `score_with_several`. A run may be continued with another limit,
            which counts from there on.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for a GPU if there is one.
        dtype: Type of the weights of the models, "float32" or "bfloat16".
        max_tokens: Tokens (patches) of a batch, padding counted; None: one picture at a time on a CPU, 65,536 tokens
            elsewhere.
        num_workers: Processes that decode. None: two threads of this process for a CPU, up to 8 processes for a GPU.
        engine: "local" scores in this process, "ray" in workers on the machines of a Ray cluster. The rows are the
            same, and a run that was begun with one may be continued with the other.
        workers: Number of workers; None takes as many as the cluster has GPUs, or CPUs if it has none.
        cpus_per_worker: CPUs of a worker, which is the number of its threads and bounds its decoding processes;
            None takes one.
        gpus_per_worker: GPUs of a worker, which may be a fraction. None takes one if the cluster has any, unless
            `device` is "cpu".

    Raises:
        ValueError: If a setting is out of range, or two contradict each other. Paths, checkpoints and the device are
            checked when the job runs.
    """

    paths: Sequence[str]
    _: KW_ONLY
    output: str | os.PathLike[str] | None = None
    columns: Columns = Columns()
    allow_missing: bool = False
    share: Share = field(default_factory=find_launched_share)
    overwrite: bool = False
    models: Sequence[str] = (str(DEFAULT_CHECKPOINT),)
    weights: Sequence[float] | None = None
    percentile: bool = False
    calibration: Calibration | None = None
    preset: Preset = "default"
    shorter_side: int | None = None
    max_megapixels: float | None = None
    device: str = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    max_tokens: int | None = None
    num_workers: int | None = None
    engine: Literal["local", "ray"] = "local"
    workers: int | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: float | None = None

    def __post_init__(self) -> None:
        for name in ("paths", "models"):
            value = getattr(self, name)
            if isinstance(value, str | os.PathLike) or not value:
                raise ValueError(f"`{name}` must be a list of at least one name, got {value!r}.")
            object.__setattr__(self, name, tuple(map(os.fspath, value)))
        if self.output is not None:
            check_table_path(self.output)
        check_counts(self, "shorter_side", "max_tokens", "num_workers", "workers", "cpus_per_worker")
        check_preset(self.preset)
        check_limit(self.max_megapixels)
        check_choice("dtype", self.dtype, DTYPES)
        check_ensemble(self.models, self.weights)
        check_calibration_choice(self.models, self.calibration, percentile=self.percentile)
        self._check_share()
        self._check_engine()

    def _check_engine(self) -> None:
        """Raise a ValueError if settings of workers have no workers, or contradict each other."""
        check_choice("engine", self.engine, ENGINES)
        names = ("workers", "cpus_per_worker", "gpus_per_worker")
        given = [name for name in names if getattr(self, name) is not None]
        if self.engine == "local":
            if given:
                raise ValueError(f"--{given[0]} is of the workers of a cluster, and needs --engine ray.")
            return
        if self.share.is_launched:
            raise ValueError(
                f"--engine ray cannot be used by the {self.share.count} processes of one launch. Start it once, alone."
            )
        gpus = self.gpus_per_worker
        if gpus is not None and not (0 <= gpus <= 1 or gpus > 1 and float(gpus).is_integer()):
            raise ValueError(f"`gpus_per_worker` must be a whole number or lie between 0 and 1, got {gpus}.")
        if gpus and self.device == "cpu":
            raise ValueError(f"--device cpu leaves no work for --gpus_per_worker {gpus:g}. Drop one of the two.")

    def _check_share(self) -> None:
        """Raise a ValueError if the job asks the processes of one launch for what they cannot do."""
        count, refusal = find_launched_share().count, "cannot be used by the {} processes of one launch."
        if count > 1 and not self.share.is_launched:
            raise ValueError(f"--shard {refusal.format(count)} Each of them scores its share anyway.")
        if not self.share.is_launched:
            return
        if self.overwrite:
            raise ValueError(f"--overwrite {refusal.format(self.share.count)} Delete the output first.")
        if self.output is None:
            raise ValueError("Several processes need an output that they write together. Give one with -o.")
        if isinstance(self.table, str):
            raise ValueError(
                f"{self.table} {refusal.format(self.share.count)} Write a file that all of them see, and upload it."
            )

    @property
    def table(self) -> Path | str | None:
        """File of the table, with the number of the shard in its name if it is one; None without an output.

        That of a remote store is a URL, as text.
        """
        if self.output is None:
            return None
        path = check_table_path(self.output)
        is_shard = self.share.count > 1 and not self.share.is_launched
        return name_shard(path, self.share.index, self.share.count) if is_shard else path

    @property
    def journals(self) -> list[Path]:
        """Files with the rows so far, one of each process that writes the table; empty unless the table is a file."""
        if not isinstance(self.table, Path):
            return []
        return name_journals(self.table, self.share.count if self.share.is_launched else 1)

    @property
    def journal(self) -> Path | str | None:
        """File with this process's rows so far, or the URL of their folder; None without an output."""
        if isinstance(self.table, str):
            return f"{self.table}.part"
        return self.journals[self.share.index - 1 if self.share.is_launched else 0] if self.journals else None


class JobResult(NamedTuple):
    """Outcome of `run_job`.

    Attributes:
        state: "written": the table is there. "waiting": this process of a launch is done, and the last one makes the
            table. "found": the table of this job was there already, and nothing was scored.
        pictures: Number of pictures in the table; None while the state is "waiting".
        errors: Number of these pictures with an error in one of their rows; None unless `pictures` is known.
    """

    state: Literal["written", "waiting", "found"]
    pictures: int | None = None
    errors: int | None = None


@dataclass(frozen=True)
class RowStream:
    """Rows of a job as they come: for each picture a tuple with the row of each checkpoint. Iterate over it once.

    Attributes:
        models: Names of the checkpoints, in the order of the rows.
        signatures: Signatures of their scores, in the same order.
        has_std: Whether a checkpoint predicts a distribution, so that its rows have a standard deviation.
        has_percentiles: Whether rows have percentiles.
        rows: The rows; closing this generator ends the threads or processes that decode.
        resources: Stack whose end ends the workers of a cluster.
    """

    models: Sequence[str]
    signatures: Sequence[str]
    has_std: bool
    has_percentiles: bool
    rows: Generator[Entry]
    resources: ExitStack

    def __iter__(self) -> Iterator[Entry]:
        return self.rows

    def close(self) -> None:
        """Stop the stream early, and with it all threads, processes and workers."""
        self.rows.close()
        self.resources.close()


def count_pictures(job: ScoreJob) -> int | None:
    """Count the pictures of a job's share without reading them; None if a data set does not say how many it has.

    Raises:
        ValueError: If a path does not exist, or cannot hold pictures.
    """
    count = count_sources(job.paths, columns=job.columns)
    return None if count is None else len(range(job.share.index - 1, count, job.share.count))


def score_rows(job: ScoreJob) -> RowStream:
    """Score the pictures of a job without a file: rows come as soon as they are there.

    >>> with closing(score_rows(ScoreJob(["photos"]))) as stream:
    ...     for (row,) in stream:
    ...         print(row.key, row.score, row.error)

    Args:
        job: Job without `output`.

    Returns:
        Stream of the rows; a picture that cannot be read or scored has its error in them.

    Raises:
        ValueError: If the job has an output, a path or a checkpoint does not exist or cannot be used, or the device
            cannot be used. That there is no picture at all shows only with the first row.
    """
    if job.output is not None:
        raise ValueError(f"`score_rows` writes no file, but the job has the output {job.output}. Use `run_job`.")
    check_sources(job.paths, columns=job.columns, allow_missing=job.allow_missing)
    with ExitStack() as stack:
        scorers = _load_scorers(job, stack)
        terms, rows = scorers.terms, _score(job, scorers, None)
        kinds = terms.has_std, terms.has_percentiles
        return RowStream(terms.names, terms.signatures, *kinds, rows, stack.pop_all())


def run_job(job: ScoreJob, *, on_progress: Callable[[Totals], None] | None = None) -> JobResult:
    """Score the pictures of a job into its table, or continue a run that was interrupted.

    The table is that of a run that was never interrupted, bit by bit on a CPU with the same number of threads. The
    journal notes that number, `torch.get_num_threads()`. With another one, or with batches (on a GPU, or with
    `max_tokens`), the last digits can differ. An interruption, such as Ctrl-C, is raised to the caller and leaves the
    journal.

    Args:
        job: Job with `output`.
        on_progress: Function that is called with the numbers of pictures, once before the first and after each. The
            pictures of an earlier run count.

    Returns:
        State and numbers. A picture that cannot be read or scored has a row with its error, and counts.

    Raises:
        ValueError: If the job has no output, or the output is a folder. If the output exists, or a run of it is
            unfinished, with other settings or pictures, unless the job may overwrite. Also if a path, a checkpoint or
            the device cannot be used.
        StoreError: If a remote store gives no answer. It is an OSError, and the same job continues.
    """
    table, path = job.table, job.journal
    if table is None or path is None:
        raise ValueError("`run_job` writes a file, but the job has no `output`. Give one, or use `score_rows`.")
    if isinstance(table, Path):
        check_output_file(table)
    else:
        check_remote_output(table)
    check_sources(job.paths, columns=job.columns, allow_missing=job.allow_missing)
    if isinstance(table, Path):
        check_no_other_journal(table, job.journals, remove=job.overwrite)
    with ExitStack() as stack:
        scorers = _load_scorers(job, stack)
        settings = _list_settings(job, scorers)
        journal = stack.enter_context(closing(_open_journal(path, settings, renew=job.overwrite)))
        if job.overwrite and journal.find_change(_find_pictures(job)) is not None:
            journal.clear(settings)
        if not journal.is_finished:
            if not job.overwrite and (table.exists() if isinstance(table, Path) else has_object(table)):
                whole = Share() if job.share.is_launched else job.share  # processes of a launch share one table
                return JobResult("found", *check_finished(table, _find_pictures(job, whole), scorers.terms))
            _score_missing(journal, job, scorers, on_progress or (lambda totals: None))
    totals = _write_table(job)
    return JobResult("waiting") if totals is None else JobResult("written", *totals)


def _open_journal(path: Path | str, settings: dict[str, Any], *, renew: bool) -> Journal:
    """Open the journal of a file, or of an object in a remote store."""
    if isinstance(path, str):
        return RemoteJournal(path, settings, renew=renew)
    return Journal(path, settings, renew=renew)


def _write_table(job: ScoreJob) -> Totals | None:
    """Make the table of a job of its journals; None if another process does so."""
    if isinstance(job.table, Path) and isinstance(job.journal, Path):
        temporary = job.journal.with_name(f"{job.journal.name}.tmp")
        return write_output(job.table, job.journals, temporary=temporary)
    return write_remote_output(str(job.table))


def _load_scorers(job: ScoreJob, stack: ExitStack) -> Scorers | RayScorers:
    """Load the checkpoints of a job in this process, or in workers that the end of a stack ends."""
    if job.calibration is not None and job.calibration.signature is None:
        logger.warning(
            "The calibration does not say which checkpoint its scores are of, and is taken for one of this "
            "checkpoint. Give their signature to `Calibration.fit`."
        )
    settings = ScorerSettings(**{item.name: getattr(job, item.name) for item in fields(ScorerSettings)})
    if job.engine == "local":
        return settings.load(cores=_count_cores())
    scorers = RayScorers(
        settings,
        workers=job.workers,
        cpus_per_worker=job.cpus_per_worker or 1,
        gpus_per_worker=job.gpus_per_worker,
        paths=job.paths,
    )
    return stack.enter_context(closing(scorers))


def _count_cores() -> int:
    """Count the cores that are left for this process; those of one launch share the cores that the job may use."""
    return count_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def _score(job: ScoreJob, scorers: Scorers | RayScorers, journal: Journal | None) -> Generator[Entry]:
    """Score the pictures of a job that a journal lacks."""
    watch, done = _KeyWatch(), 0
    sources = _find_pictures(job, watch=watch)
    if journal is not None:
        journal.check_done(sources)
        done = journal.pictures
    if isinstance(scorers, Scorers):
        entries = scorers.score(sources)
    else:
        parts = find_parts(job.paths, columns=job.columns, size=scorers.part_size)
        first = job.share.index - 1 + done * job.share.count
        entries = scorers.score(take_every(parts, first, job.share.count))
        if job.columns.key is not None:
            entries = watch.read_rows(entries)
    with closing(entries):
        yield from scorers.terms.watch(entries)


def _find_pictures(
    job: ScoreJob, share: Share | None = None, *, watch: "_KeyWatch | None" = None
) -> Iterator[tuple[str, Any]]:
    """Yield the pictures of a job's share, or of another one, and watch their keys if they come from a column."""
    share, sources = share or job.share, find_sources(job.paths, columns=job.columns)
    if job.columns.key is not None:
        sources = (watch or _KeyWatch()).read(sources)
    return itertools.islice(sources, share.index - 1, None, share.count)


class _KeyWatch:
    """Keys so far; that two pictures have one key is warned of once. The order of the rows still tells them apart."""

    def __init__(self) -> None:
        self.seen: set[int] | None = set()

    def read(self, sources: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        """Yield pictures, and see their keys."""
        for key, picture in sources:
            self._see(key)
            yield key, picture

    def read_rows(self, entries: Generator[Entry]) -> Generator[Entry]:
        """Yield the rows of pictures, and see their keys."""
        with closing(entries):
            for entry in entries:
                self._see(entry[0].key)
                yield entry

    def _see(self, key: str) -> None:
        if self.seen is not None and hash(key) in self.seen:
            logger.warning(
                "Several rows have the key %r, so scores cannot be joined to them by it. Name another by --key.",
                key,
            )
            self.seen = None
        elif self.seen is not None:
            self.seen.add(hash(key))  # of millions of keys, numbers take less memory


def _list_settings(job: ScoreJob, scorers: Scorers | RayScorers) -> dict[str, Any]:
    """List the settings that must be the same when a run is continued, and the number of threads, which should be."""
    terms = scorers.terms
    return {
        "paths": job.paths,
        "column": job.columns.picture,
        "key": job.columns.key,
        "shorter_side": job.shorter_side,
        "preset": job.preset,
        "dtype": job.dtype,
        "models": terms.names,
        "std": terms.has_std,
        "signatures": terms.signatures,
        "weights": job.weights,
        "percentile": terms.has_percentiles,
        "calibrations": terms.calibrations,
        "share": f"{job.share.index}/{job.share.count}",
        THREADS: scorers.threads,
    }


def _score_missing(
    journal: Journal, job: ScoreJob, scorers: Scorers | RayScorers, on_progress: Callable[[Totals], None]
) -> None:
    """Score the pictures that a journal lacks."""
    on_progress(Totals(journal.pictures, journal.errors))
    with closing(_score(job, scorers, journal)) as entries:
        for entry in entries:
            journal.append(entry)
            on_progress(Totals(journal.pictures, journal.errors))
    journal.finish()
