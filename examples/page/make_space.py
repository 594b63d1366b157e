# SPDX-License-Identifier: Apache-2.0
"""Folder of a Space of the Hub, which shows the page of `musiq serve`.

python examples/page/make_space.py --output runs/space

Afterwards: `hf upload NAME/musiq runs/space --repo-type space`.
"""

import argparse
import sys
from pathlib import Path

from musiq_hf import __version__
from musiq_hf.common.arguments import parse_arguments, run_command
from musiq_hf.common.files import write_text

CONSTRAINTS = Path(__file__).parents[2] / "constraints-serve.txt"
CARD = """\
---
title: musiq_hf
emoji: 📷
colorFrom: blue
colorTo: gray
sdk: gradio
sdk_version: {gradio}
python_version: "3.11"
app_file: app.py
license: apache-2.0
short_description: The quality of photographs, without a reference
---

Scores photographs with the checkpoint `musiq-lite-biq2021` that comes with `musiq_hf` {version}.
"""
# The Space brings gradio in the version of the card, which the extra takes.
REQUIREMENTS = "musiq_hf[serve]=={version}\n"
APP = '''\
"""Page of `musiq serve` on a Space."""

from musiq_hf.app import ServeSettings, serve

SETTINGS = ServeSettings(host="0.0.0.0", port=7860)

if __name__ == "__main__":
    serve(SETTINGS, on_start=print)
'''


def write_space(folder: Path) -> None:
    """Write the three files of the Space."""
    pins = dict(line.split("==") for line in CONSTRAINTS.read_text().splitlines() if "==" in line)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "README.md", CARD.format(gradio=pins["gradio"], version=__version__))
    write_text(folder / "requirements.txt", REQUIREMENTS.format(version=__version__))
    write_text(folder / "app.py", APP)


def main() -> None:
    """Write the folder that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    arguments = parse_arguments(parser)
    write_space(arguments.output)
    print(f"{arguments.output}: README.md, requirements.txt and app.py")


if __name__ == "__main__":
    sys.exit(run_command("make_space.py", main))
