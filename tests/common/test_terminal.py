# SPDX-License-Identifier: Apache-2.0
"""Names on terminals: what steers a terminal, or what its encoding lacks, is shown with backslashes."""

import io
import os

import pytest

from musiq_hf.common.terminal import escape_controls, print_line, print_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("photos/caf\u00e9 \u65e5\u672c.png\nnext line", "photos/caf\u00e9 \u65e5\u672c.png\nnext line"),
        ("\x1b]0;title\x07.png", r"\x1b]0;title\x07.png"),
        ("a\rb\tc\x7f\x9b\x00", r"a\rb\tc\x7f\x9b\x00"),
        ("gpj.\u202egnp\u2066", r"gpj.\u202egnp\u2066"),
        ("a\u2028b", r"a\u2028b"),
        (os.fsdecode(b"\xff.png"), r"\udcff.png"),
    ],
)
def test_what_steers_a_terminal_is_escaped(text, shown):
    assert escape_controls(text) == shown


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("ascii", rb"\xe9 \u65e5"), ("latin-1", b"\xe9 \\u65e5"), ("utf-8", "\u00e9 \u65e5".encode())],
)
def test_what_the_encoding_lacks_is_escaped(encoding, shown):
    buffer = io.BytesIO()
    stream = io.TextIOWrapper(buffer, encoding=encoding, errors="strict")
    print_text("\u00e9 \u65e5", file=stream)
    assert buffer.getvalue() == shown + os.linesep.encode()


def test_a_line_stays_one_line():
    stream = io.StringIO()
    print_line("a\nb\r\nc.png", file=stream)
    assert stream.getvalue() == "a\\nb\\r\\nc.png\n"


def test_a_stream_without_an_encoding_takes_every_text():
    stream = io.StringIO()
    print_text("\u65e5", file=stream, end="")
    assert stream.getvalue() == "\u65e5"
