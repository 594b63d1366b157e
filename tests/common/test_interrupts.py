# SPDX-License-Identifier: Apache-2.0
"""The hook that reports Ctrl-C is there while a program imports, and gone once it has begun."""

import sys

from musiq_hf.common.arguments import run_command
from musiq_hf.common.interrupts import report_interrupts


def test_a_command_that_has_begun_takes_the_hook_back(monkeypatch):
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    report_interrupts()
    assert sys.excepthook is not sys.__excepthook__
    found = []
    assert run_command("a", lambda: found.append(sys.excepthook)) == 0
    assert found == [sys.__excepthook__]


def test_the_hook_of_another_program_stays(monkeypatch):
    other = lambda *details: None  # noqa: E731
    monkeypatch.setattr(sys, "excepthook", other)
    run_command("a", lambda: None)
    assert sys.excepthook is other
