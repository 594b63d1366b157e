# SPDX-License-Identifier: Apache-2.0
"""Text on terminals, which may hold names that someone else has chosen.

A name may hold signs that steer a terminal, and signs that its encoding does not have. Both are shown escaped.
"""

import sys
import unicodedata
from typing import TextIO

# Control signs, halves of a sign, and separators of lines; then what turns the direction of the text after it.
HIDDEN_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


def escape_controls(text: str) -> str:
    """Return a text with backslash escapes for what steers a terminal; line breaks stay."""
    return "".join(sign.encode("unicode_escape").decode() if _is_steering(sign) else sign for sign in text)


def _is_steering(sign: str) -> bool:
    is_hidden = unicodedata.category(sign) in HIDDEN_CATEGORIES and sign != "\n"
    return is_hidden or unicodedata.bidirectional(sign) in TURNING


def print_text(text: str, *, file: TextIO | None = None, end: str = "\n") -> None:
    """Print a text that may hold names, with backslash escapes for what the stream or a terminal cannot show.

    Args:
        text: One or several lines.
        file: Stream; None prints on stdout.
        end: Text after it.
    """
    stream = sys.stdout if file is None else file
    encoding = stream.encoding or "utf-8"
    shown = escape_controls(text).encode(encoding, "backslashreplace").decode(encoding)
    print(shown, file=stream, end=end, flush=True)


def print_line(text: str, *, file: TextIO | None = None) -> None:
    """Print a text on one line, with a backslash escape for each line break in the names that it holds."""
    print_text(text.replace("\n", "\\n"), file=file)
