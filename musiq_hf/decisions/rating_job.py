# SPDX-License-Identifier: Apache-2.0
"""Jobs that rate any number of photographs, by runs that may be killed at any moment."""

import errno
import os
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from functools import partial

from ..common.checks import check_choice, check_intervals
from ..common.devices import count_cores
from ..models.auto import DEFAULT_CHECKPOINT
from ..pictures.lazy import LazyPicture, check_path, escape_name, write_line
from ..scoring.calibration import Calibration, hash_calibration
from ..scoring.rows import ScoreRow, Scorers, ScorerSettings
from ..scoring.tables.forms import CONSTANTS, TableForm
from ..scoring.tables.row_jobs import Inputs, RowJob
from .rating import (
    CHANGED,
    KEPT,
    MADE,
    NOT_WRITTEN,
    THERE,
    Place,
    Plan,
    RatedRow,
    choose_stars,
    find_places,
    make_plan,
)
from .sidecars import FULL, NAMES, PICTURE, SCORE, SIGNATURE, write_rating

COMMAND = "musiq rate"
# The order is that of a table: what decides a row stands after what it says.
COLUMNS: dict[str, type] = {
    **dict.fromkeys(("key", "sidecar"), str),
    **{"score": float, "stars": int},
    **dict.fromkeys(("rating", "state", "rule", "model", "signature", "error"), str),
}
# Numbers of errors that are those of a folder or a name; a full disk is that of all pictures, and ends the run.
OF_ONE_FOLDER = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG)
RATED_ROWS = TableForm(COMMAND, RatedRow, lambda settings: COLUMNS)


@dataclass(frozen=True)
class RatingSettings:
    """Photographs to rate, and how.

    Attributes:
        paths: Pictures, and folders of pictures.
        sidecars: Whether stars are written beside the pictures; else they are in the rows alone.
        naming: "photo.jpg.xmp" as darktable and digiKam name sidecars, or "photo.xmp" as Lightroom does.
        intervals: Four scores that rise, from which on a picture has 2, 3, 4 and 5 stars. None takes the fifths of
            the calibration.
        calibration: Scores of other pictures, whose fifths are the stars; None takes the checkpoint's own.
        overwrite_ratings: Whether ratings that people gave are replaced.
        model: Checkpoint: folder, Hub id or name of an embedded one.
        device: Device on which it computes.
        output: Table of the rows, a .csv, .jsonl or .parquet file; None for rows on the terminal.
        overwrite: Whether that table is replaced if it exists.

    Raises:
        ValueError: If a setting is out of range, or two contradict each other.
    """

    paths: Sequence[str]
    _: KW_ONLY
    sidecars: bool = False
    naming: str = FULL
    intervals: Sequence[float] | None = None
    calibration: Calibration | None = None
    overwrite_ratings: bool = False
    model: str = str(DEFAULT_CHECKPOINT)
    device: str = "auto"
    output: str | os.PathLike[str] | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        check_choice("naming", self.naming, NAMES)
        check_intervals(self.intervals, self.calibration)

    def make_job(self) -> RowJob:
        """Load the checkpoint, find the pictures, and make the job.

        A sidecar notes the score, its signature and the hash of the picture. A finished picture is not scored again,
        even for other intervals.

        Raises:
            ValueError: If there is no picture, or the checkpoint has no calibration and there are no intervals.
        """
        scorers = self._load()
        (signature,), (name,) = scorers.terms.signatures, scorers.terms.names
        places = find_places(self.paths, self.naming)
        constants = {"rule": self._name_rule(scorers), "model": name, "signature": signature}
        return RowJob(
            RATED_ROWS,
            settings={"overwrite_ratings": self.overwrite_ratings, "naming": self.naming, CONSTANTS: constants},
            find=lambda: ((escape_name(place.picture), place) for place in places),
            count=lambda: len(places),
            measure=partial(_rate, settings=self, scorers=scorers),
            known=lambda place: [{"sidecar": _name_written(place, self)}],
            output=self.output,
            overwrite=self.overwrite,
        )

    def _name_rule(self, scorers: Scorers) -> str:
        """Return what decides the stars, as a table has it."""
        calibration = scorers.terms.stored[0]
        if calibration is not None:
            return f"calibration:{hash_calibration(calibration)}"
        return "intervals:" + ",".join(f"{value:g}" for value in self.intervals or ())

    def _load(self) -> Scorers:
        """Load the checkpoint.

        Raises:
            ValueError: If it cannot be used, or the stars cannot be chosen.
        """
        own = self.intervals is None and self.calibration is None
        settings = ScorerSettings([self.model], percentile=own, calibration=self.calibration, device=self.device)
        try:
            return settings.load(cores=count_cores())
        except ValueError as error:
            if not own or "calibration" not in str(error):
                raise
            raise ValueError(
                f"{error} Or give the scores from which on a picture has 2, 3, 4 and 5 stars: --intervals 20,40,60,80."
            ) from error


def _name_written(place: Place, settings: RatingSettings) -> str | None:
    """Return the sidecar of a picture as a table names it; None where none is written."""
    return escape_name(str(place.sidecar)) if settings.sidecars else None


def _rate(inputs: Inputs, *, settings: RatingSettings, scorers: Scorers) -> Generator[tuple[RatedRow]]:
    """Yield the rows of pictures in order; those whose rating stands are not scored."""
    waiting: deque[tuple[str, Plan]] = deque()
    (signature,) = scorers.terms.signatures

    def list_unscored() -> Iterator[tuple[str, LazyPicture]]:
        for key, place in inputs:
            plan = make_plan(
                place, signature, overwrite_ratings=settings.overwrite_ratings, reads_sidecars=settings.sidecars
            )
            waiting.append((key, plan))
            if plan.needs_score:
                yield key, LazyPicture(key, partial(check_path, place.picture, key))

    with closing(scorers.score(list_unscored())) as entries:
        for (row,) in entries:
            yield from _finish_known(waiting, settings, scorers)
            key, plan = waiting.popleft()
            yield (_finish(key, plan, row, settings, scorers),)
        yield from _finish_known(waiting, settings, scorers)


def _finish_known(
    waiting: deque[tuple[str, Plan]], settings: RatingSettings, scorers: Scorers
) -> Iterator[tuple[RatedRow]]:
    """Yield the rows of pictures that need no score, up to the first that does."""
    while waiting and not waiting[0][1].needs_score:
        key, plan = waiting.popleft()
        yield (_finish(key, plan, ScoreRow(key, score=plan.known, error=plan.error), settings, scorers),)


def _finish(key: str, plan: Plan, scored: ScoreRow, settings: RatingSettings, scorers: Scorers) -> RatedRow:
    """Write the stars of a picture, if they are to be written, and return its row."""
    row = RatedRow(key, _name_written(plan.place, settings))
    if plan.person is not None:
        return row._replace(rating=plan.person, state=KEPT)
    if scored.score is None:
        return row._replace(error=_name_error(key, scored.error or "there is no score."))
    stars = choose_stars(scored.score, settings.intervals, scorers.terms.stored[0])
    row = row._replace(score=scored.score, stars=stars, state=NOT_WRITTEN)
    if not settings.sidecars:
        return row
    if plan.known is not None and plan.noted == str(stars):
        return row._replace(rating=plan.noted, state=THERE)
    notes = {
        SCORE: repr(scored.score),
        SIGNATURE: scorers.terms.signatures[0],
        PICTURE: plan.digest,
    }
    try:
        write_rating(plan.place.sidecar, plan.before, stars, notes)
    except OSError as error:
        if error.errno not in OF_ONE_FOLDER:
            raise
        return row._replace(state=None, error=_name_error(key, f"{error}. The sidecar cannot be written there."))
    except ValueError as error:
        return row._replace(state=None, error=_name_error(key, str(error)))
    return row._replace(rating=str(stars), state=MADE if plan.before is None else CHANGED)


def _name_error(key: str, text: str) -> str:
    """Return a sentence on one line that begins with the key."""
    line = write_line(text)
    return line if line.startswith(f"{key}:") else f"{key}: {line}"
