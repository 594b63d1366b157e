# SPDX-License-Identifier: Apache-2.0
"""Recording of the words of all subcommands, from their modules to words.json.

`make style` runs `python -m musiq_hf.cli.recording`. A test compares the file with the modules.
"""

import json
from typing import Any

from ..common.files import write_text
from . import COMMANDS
from .words import FILE, TYPES


class _Recorder:
    """Stand-in for a parser that notes what is added to it, group by group."""

    def __init__(self) -> None:
        self.groups: list[dict[str, Any]] = []
        self._begin(None)

    def _begin(self, title: str | None) -> None:
        self.groups.append({"title": title, "arguments": []})

    def add_argument(self, *names: str, **options: Any) -> None:
        """Note an argument in the last group."""
        if "type" in options:
            options["type"] = options["type"].__name__
            if options["type"] not in TYPES:
                raise ValueError(f"{names[0]} has the type {options['type']}, which cli/words.py does not know.")
        self.groups[-1]["arguments"].append([names, options])

    def add_argument_group(self, title: str) -> "_Recorder":
        """Begin a group, to which all further arguments belong."""
        self._begin(title)
        return self


def record_words() -> str:
    """Return the words of all subcommands as JSON."""
    words = {}
    for name, command in COMMANDS.items():
        module, recorder = command.load(), _Recorder()
        module.add_arguments(recorder)
        words[name] = {
            "description": module.DESCRIPTION,
            "epilog": getattr(module, "EPILOG", None),
            "groups": recorder.groups,
        }
    return json.dumps(words, indent=1) + "\n"


def main() -> None:
    """Write the file."""
    write_text(FILE, record_words())


if __name__ == "__main__":
    main()
