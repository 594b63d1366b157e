# SPDX-License-Identifier: Apache-2.0
"""Command `musiq plan-session`: plans what the panels of a viewing test see, and makes their sheets."""

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ...common.outputs import PLAN, SESSIONS
from ...common.terminal import print_line
from ...subjective.planner import Presentation, list_sessions, plan_sessions
from ...subjective.rendering import Clips, read_clips, render_sessions
from ...subjective.sheets import describe_plan, read_cells, read_plan, write_plan
from ..words import read_limit, read_size

DESCRIPTION = """\
Plan the sessions of an expert viewing test (after BT.500): in which order each panel sees the test cells, and when.

musiq plan-session cells.csv -o plan
musiq plan-session cells.csv -o plan --panels 3 --clip_seconds 8 --display 3840x2160

CELLS is a CSV table with columns clip,first,second,quality and a row for each cell, two versions of a clip. quality is
the expected quality of both, a mean of scores say: it chooses the cells that a session begins with. FOLDER gets
plan.csv and, in sheets, a table and a page to print for each session. Viewers note grades from 0 to 10 there.

musiq plan-session cells.csv -o plan --render clips

makes a video of each session too, in sessions. CLIPS has a folder for each clip, with reference.mp4 and VERSION.mp4;
other kinds of videos will do, and still pictures. The same command goes on where it was ended.
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
    parser.add_argument("--render", metavar="CLIPS", help="folder of the clips, of which videos of sessions are made")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the plan in FOLDER, its videos, and sheets with their votes"
    )


def _keeps_plan(path: Path, plan: list[Presentation], arguments: argparse.Namespace) -> bool:
    """Return whether a plan that is there stays; raise a ValueError if it is another one."""
    if arguments.overwrite or not path.is_file():
        return False
    if read_plan(path) != plan:
        raise ValueError(
            f"{path} is another plan than that of these arguments. Choose another folder, or add --overwrite to "
            "replace it, and its sheets with their votes."
        )
    return True


def _render(folder: Path, plan: list[Presentation], clips: Clips) -> None:
    with tqdm(total=len(plan), desc="rendering", unit="cell", disable=None) as bar:
        written = render_sessions(folder, plan, clips, on_cell=bar.update)
    kept = len(list_sessions(plan)) - len(written)
    print_line(f"{folder / SESSIONS}: {len(written)} videos" + (f", {kept} were there" if kept else ""))


def run(arguments: argparse.Namespace) -> int:
    """Write the plan and perhaps its videos, and print its timetable.

    Raises:
        ValueError: If the arguments, the cells or the clips are wrong.
        ImportError: If PyAV is missing, which renders.
    """
    plan = plan_sessions(
        read_cells(arguments.cells),
        clip_seconds=arguments.clip_seconds,
        max_minutes=arguments.max_minutes,
        num_training=arguments.training,
        num_panels=arguments.panels,
        seed=arguments.seed,
    )
    folder = Path(arguments.output)
    keeps_plan = _keeps_plan(folder / PLAN, plan, arguments)
    clips = None if arguments.render is None else read_clips(arguments.render, plan)
    if not keeps_plan:
        write_plan(folder, plan)
    for line in describe_plan(plan, arguments.display):
        print_line(line)
    if clips is not None:
        _render(folder, plan, clips)
    return 0
