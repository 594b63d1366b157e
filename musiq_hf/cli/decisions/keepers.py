# SPDX-License-Identifier: Apache-2.0
"""Measured shares of groups in which the score picks the better picture, for the help and the warning of --bursts.

They come from `examples/analysis/measure_keepers.py`, on 100 photographs of BIQ2021 that chose the epoch of the
default checkpoint and taught it nothing.
"""

# Percent of groups of four in which the picture without a made fault has the highest score, by the kind of group.
STRONG = {"copies": 83, "shifted frames": 83, "different crops": 82}
MILD = {"copies": 55, "shifted frames": 54, "different crops": 50}
CHANCE, NEEDED = 25, 80

_NAMED = ", ".join(f"{MILD[kind]}% and {STRONG[kind]}% of {kind}" for kind in MILD)
NOTE = f"""\
The best score is not always the best picture. Of four, three of them with a mild or a strong made fault, the score
picked the one without in {_NAMED} ({CHANCE}% is chance)."""
WARNING = (
    f"the best score is often not the best picture. Where the faults of four were mild, it was the one without in "
    f"{min(MILD.values())} to {max(MILD.values())}% of groups, below {NEEDED}% ({CHANCE}% is chance). Look at the "
    "bursts before you delete anything."
)
