# SPDX-License-Identifier: Apache-2.0
"""Command `musiq plan-session`: plans what the panels of a viewing test see, and makes their sheets."""

import argparse
from pathlib import Path
from typing import Any

from ...common.terminal import print_line
from ...subjective.planner import plan_sessions
from ...subjective.sheets import describe_plan, read_cells, write_plan
from ..words import read_limit, read_size

DESCRIPTION = """\
Plan the sessions of an expert viewing test (after BT.500): in which order each panel sees the test cells, and when.

musiq plan-session cells.csv -o plan
musiq plan-session cells.csv -o plan --panels 3 --clip_seconds 8 --display 3840x2160

CELLS is a CSV table with columns clip,first,second,quality and a row for each cell, two versions of a clip. quality is
the expected quality of both, a mean of scores say: it chooses the cells that a session begins with. FOLDER gets
plan.csv and, in sheets, a table and a page to print for each session. Viewers note grades from 0 to 10 there.
"""


def add_arguments(parser: Any) -> None:
    """Add the arguments."""
    parser.add_argument("cells", metavar="CELLS", help="CSV table of test cells")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="folder of the plan and its sheets")
    parser.add_argument("--clip_seconds", type=read_limit, default=10.0, metavar="S", help="length of the clips (10)")
    parser.add_argument("--max_minutes", type=read_limit, default=20.0, metavar="M", help="longest session (20)")
    parser.add_argument("--training", type=int, default=4, metavar="N", help="cells of the training (4)")
    parser.add_argument("--panels", type=int, default=1, metavar="N", help="panels, each with an order of its own (1)")
    parser.add_argument("--seed", type=int, default=0, help="seed of what is left to chance (0)")
    parser.add_argument(
        "--display", type=read_size, default=(1920, 1080), metavar="WxH", help="pixels of the display (1920x1080)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the plan in FOLDER, and its sheets with their votes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the plan, and print its timetable.

    Raises:
        ValueError: If the arguments or the cells are wrong.
    """
    plan = plan_sessions(
        read_cells(arguments.cells),
        clip_seconds=arguments.clip_seconds,
        max_minutes=arguments.max_minutes,
        num_training=arguments.training,
        num_panels=arguments.panels,
        seed=arguments.seed,
    )
    write_plan(Path(arguments.output), plan)
    for line in describe_plan(plan, arguments.display):
        print_line(line)
    return 0
