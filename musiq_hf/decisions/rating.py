# SPDX-License-Identifier: Apache-2.0
"""Stars for photographs: which picture gets how many, and where they are written or why they are not."""

import os
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ..common.files import hash_file
from ..pictures.finding import find_pictures
from .packets import Tag
from .sidecars import (
    NAMES,
    OUR_RATING,
    PICTURE,
    SCORE,
    SIGNATURE,
    find_embedded_rating,
    find_rating,
    name_sidecar,
    read_sidecar,
)

MADE, CHANGED, THERE, KEPT, NOT_WRITTEN = STATES = ("made", "changed", "there", "kept", "not written")


class RatedRow(NamedTuple):
    """Row of a picture; its values are None where there is an error.

    Attributes:
        key: Path of the picture.
        sidecar: Path of its sidecar.
        score: Score in MOS points; None also where a rating was kept, for such a picture is not scored.
        stars: Stars that the score gives, from 1 to 5; None without a score.
        rating: Rating that stands in the sidecar or the picture now; None where nothing was to be written.
        state: "made" and "changed" of a sidecar, "there" if it had these stars already, "kept" for a person's rating,
            "not written" without sidecars.
        error: Sentence that says why there are no stars, or why they could not be written.
    """

    key: str
    sidecar: str | None = None
    score: float | None = None
    stars: int | None = None
    rating: str | None = None
    state: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Place:
    """Picture, and where its stars go.

    Attributes:
        picture: Path of the picture.
        sidecar: Path of its sidecar.
        other: Path of the sidecar as other programs would name it.
        error: Sentence that says why nothing can be written there; None if it can.
    """

    picture: str
    sidecar: Path
    other: Path
    error: str | None = None


@dataclass(frozen=True)
class Plan:
    """Knowledge about a picture before it is scored.

    Attributes:
        place: Picture and sidecar.
        before: Bytes of the sidecar; None if there is none.
        person: Rating of a person that must stay; None if there is none.
        digest: Hash of the picture file, as we note it; empty if it is not needed.
        known: Score by the same checkpoint of the same file, that an earlier run noted; None if there is none.
        noted: Stars that stand in the sidecar as ours; None if none do.
        error: Sentence that says why the picture is left alone; None if it is not.
    """

    place: Place
    before: bytes | None = None
    person: str | None = None
    digest: str = ""
    known: float | None = None
    noted: str | None = None
    error: str | None = None

    @property
    def needs_score(self) -> bool:
        """Need of a score, which costs time."""
        return self.error is None and self.person is None and self.known is None


def find_places(paths: Sequence[str], naming: str) -> list[Place]:
    """List pictures and their sidecars; a picture that is named twice counts once.

    Pictures that would share a sidecar have an error.

    Args:
        paths: Pictures, and folders of pictures.
        naming: Form of their names, one of `NAMES`.

    Raises:
        ValueError: If a folder holds no picture.
    """
    (second,) = (name for name in NAMES if name != naming)
    places: dict[str, Place] = {}
    sharing: dict[str, list[str]] = {}
    for picture in _list_pictures(paths):
        real = os.path.realpath(picture)
        if real not in places:
            sidecar = name_sidecar(picture, naming)
            places[real] = Place(picture, sidecar, name_sidecar(picture, second))
            sharing.setdefault(os.path.normcase(os.path.realpath(sidecar)), []).append(real)
    for pictures in sharing.values():
        for real in pictures if len(pictures) > 1 else ():
            place = places[real]
            others = ", ".join(os.path.basename(places[other].picture) for other in pictures if other != real)
            reason = f"{place.sidecar.name} would be the sidecar of {others} too. Add --names {NAMES[0]}."
            places[real] = Place(place.picture, place.sidecar, place.other, reason)
    return list(places.values())


def _list_pictures(paths: Sequence[str]) -> Iterator[str]:
    for path in paths:
        yield from map(str, find_pictures(path)) if os.path.isdir(path) else [path]


def make_plan(place: Place, signature: str, *, overwrite_ratings: bool, reads_sidecars: bool) -> Plan:
    """Look at the sidecar of a picture, and find out whether it must be scored.

    Args:
        place: Picture and sidecar.
        signature: Signature of the scores.
        overwrite_ratings: Whether ratings of people are replaced.
        reads_sidecars: Whether sidecars matter at all.
    """
    if place.error is not None or not reads_sidecars:
        return Plan(place, error=place.error)
    try:
        before = read_sidecar(place.sidecar)
        found = find_rating(before, str(place.sidecar))
        person = None if overwrite_ratings else found.person or _find_elsewhere(place, found.ours)
        # Without a rating of a person, and only then, the picture is read.
        digest = hash_file(Path(place.picture))[:16] if person is None else ""
    except (ValueError, OSError) as error:
        return Plan(place, error=str(error))
    ours = found.ours or {}
    is_same = ours.get(SIGNATURE) == signature and ours.get(PICTURE) == digest
    known = _read_number(ours.get(SCORE)) if is_same else None
    return Plan(place, before, person, digest, known, ours.get(OUR_RATING))


def _find_elsewhere(place: Place, ours: Mapping[Tag, str | None] | None) -> str | None:
    """Return the rating of a person in the picture itself, or in a sidecar of another name.

    Raises:
        ValueError: If that sidecar is damaged.
        OSError: If it cannot be read.
    """
    other = find_rating(read_sidecar(place.other), str(place.other)).person
    embedded = find_embedded_rating(place.picture)
    noted = None if ours is None else ours.get(OUR_RATING)  # programs copy sidecars into pictures
    return next((rating for rating in (other, embedded) if rating is not None and rating != noted), None)


def _read_number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def choose_stars(score: float, intervals: Sequence[float] | None, calibration: Any) -> int:
    """Return the stars of a score, from 1 to 5.

    Args:
        score: Score in MOS points.
        intervals: Four scores that rise, from which on there are 2, 3, 4 and 5 stars; None asks the calibration.
        calibration: Calibration, whose fifths are the stars.
    """
    return int(calibration.stars(score)) if intervals is None else bisect_right(intervals, score) + 1
