# SPDX-License-Identifier: Apache-2.0
"""Maker of `configuration/splits/biq2021.csv`: validation pictures drawn from the official training pictures.

The second look stays as it is in the list, and the validation pictures are drawn anew, with the same result.

python examples/draw_validation.py --data biq2021 > biq2021.csv
"""

import argparse
import csv
import sys
from pathlib import Path

from musiq_hf.common.arguments import CommandParser, parse_arguments
from musiq_hf.data import draw_strata, load_biq2021, read_listed_parts

COUNT = 1000


def main() -> None:
    """Write the list: names of pictures as in the official file, and their part."""
    parser = CommandParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the official files of BIQ2021")
    data: str = parse_arguments(parser).data
    rows = load_biq2021(data, validation_part="none")["train"]
    names = [Path(cell["path"]).name for cell in rows["image"]]
    listed = read_listed_parts("biq2021")
    second = frozenset(row for row, name in enumerate(names) if listed.get(name.lower()) == "second")
    drawn = set(draw_strata(rows["group"][:], rows["mos"][:], count=COUNT, seed=0, excluded=second))
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["image", "part"])
    for row in sorted(drawn | second, key=lambda row: names[row]):
        writer.writerow([names[row].lower(), "validation" if row in drawn else "second"])


if __name__ == "__main__":
    main()
