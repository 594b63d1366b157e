# SPDX-License-Identifier: Apache-2.0
"""Gates: a threshold that lets pictures pass or not, with the error that is known of it."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ..scoring.calibration import CheckpointCalibration
    from ..scoring.rows import Scorers

PASSED, FAILED, NOT_RUN = 0, 1, 2  # exit statuses


class Verdict(NamedTuple):
    """Verdict on one picture.

    Attributes:
        key: Name of the picture.
        passes: Whether its score reaches the threshold; None if it has none.
        score: Score in MOS points, or None.
        threshold: Threshold in MOS points.
        error: Sentence that says why there is no score, or None.
    """

    key: str
    passes: bool | None
    score: float | None
    threshold: float
    error: str | None


@dataclass(frozen=True)
class Gate:
    """Threshold of one checkpoint.

    Attributes:
        threshold: Lowest score that passes, in MOS points.
        calibration: Calibration of the checkpoint, by which the error of the threshold is known; None if it has none.
    """

    threshold: float
    calibration: "CheckpointCalibration | None" = None

    def describe(self) -> str:
        """Return the threshold and its known error in sentences."""
        text = f"A score of at least {self.threshold:.4g} passes."
        known = self.calibration
        shares = None if known is None else known.find_opposed(self.threshold)
        if known is None or shares is None:
            return f"{text} How often people are of another opinion is not known for it."
        return (
            f"{text} Of {known.num_pictures:,} pictures ({known.data}), {known.percentile(self.threshold):.0f}% score "
            f"lower. People rated {100 * shares[0]:.0f}% of those that pass below the threshold, and "
            f"{100 * shares[1]:.0f}% of those that fail at or above it."
        )


def make_gate(
    checkpoint: str, scorers: "Scorers", *, minimum: float | None = None, expect_fail_rate: float | None = None
) -> Gate:
    """Make the gate of a checkpoint.

    Args:
        checkpoint: Folder, Hub id or name of an embedded checkpoint.
        scorers: The same checkpoint, loaded.
        minimum: Lowest score that passes, in MOS points; or else `expect_fail_rate`.
        expect_fail_rate: Share of the checkpoint's validation pictures that would fail, between 0 and 1. The
            threshold is the score that this share of them does not reach. Other pictures may fail more or less often.

    Raises:
        ValueError: If not one of both is given, or the checkpoint has no calibration and the second needs it.
    """
    if (minimum is None) == (expect_fail_rate is None):
        raise ValueError("One of --min and --expect_fail_rate is needed, not both.")
    from ..scoring.calibration import load_calibration  # it loads PyTorch, which selecting does without

    model, processor = scorers.loaded[0]
    try:
        calibration = load_calibration(checkpoint, model, processor)
    except ValueError:
        if expect_fail_rate is not None:
            raise
        calibration = None
    if minimum is not None:
        return Gate(minimum, calibration)
    if calibration is None or expect_fail_rate is None or not 0 < expect_fail_rate < 1:
        raise ValueError(f"`expect_fail_rate` must lie between 0 and 1, got {expect_fail_rate}.")
    return Gate(calibration.find_score(100 * expect_fail_rate), calibration)


def judge_rows(gate: Gate, rows: Iterable[tuple[str, float | None, str | None]]) -> Iterator[Verdict]:
    """Yield the verdict on each picture.

    Args:
        gate: Gate.
        rows: Key, score and error of each picture.
    """
    for key, score, error in rows:
        passes = None if score is None else score >= gate.threshold
        yield Verdict(key, passes, score, gate.threshold, error)


def find_status(counts: Counter[bool | None]) -> int:
    """Return the exit status: 0 if all pass, 1 if some fail, 2 if some have no score, or there are none.

    Args:
        counts: Number of the verdicts by `Verdict.passes`.
    """
    if counts[None] or not counts.total():
        return NOT_RUN
    return FAILED if counts[False] else PASSED
