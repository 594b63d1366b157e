# SPDX-License-Identifier: Apache-2.0
"""Fifty names of files that break programs which quote, split, escape or print them carelessly."""

import os

SIGNS = "\n\r\t\"'`;|&$<>*?[]{}()!#~%^=+@,:\\ \x01\x1b\x7f"
WORDS = (
    "-rf", "--help", "-", "--", "..x", "$(touch x)", "`touch x`", "; rm x", "| cat", "&& true", "%s%n", "{0}",
    "<script>alert(1)<\\script>", "<img src=x onerror=y>", "&amp;", "' onload='", '"><b>', "a,b;c", "=1+1", "NULL",
    "nan", "é", "e\u0301", "日本語", "😀", "\u202egpj", "\u200b", "\ufeff", "\u2028", "İ", "ﬀ", "x" * 251,
    "é" * 125, "\udcff\udcfe", "a\udc80b", "\\udc80", "\\n", "C:x", "con", "x.tar::y", "#1", "~", "* *", " a ",
)  # fmt: skip


def list_names() -> list[str]:
    """Return fifty names that end in .jpg, each of at most 255 bytes; those beyond ASCII may hold raw bytes."""
    names = [f"{word}.jpg" for word in WORDS]
    names += [f"{''.join(SIGNS[at :: len(WORDS) % 7])}{at}.jpg" for at in range(50 - len(names))]
    assert len(set(names)) == 50 and all(len(os.fsencode(name)) <= 255 for name in names)
    return names
