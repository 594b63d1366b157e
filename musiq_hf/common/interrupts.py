# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C while a program is still importing, which takes seconds: one sentence in place of a traceback."""

import os
import sys
from pathlib import Path
from types import TracebackType


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Report Ctrl-C as `run_command` does later, and end the process."""
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    print(f"{Path(*sys.argv[:1]).name}: interrupted.", file=sys.stderr, flush=True)
    os._exit(130)  # an exit code from here on is not asked for, and nothing has been begun


def report_interrupts() -> None:
    """Report Ctrl-C in one sentence from now on, until `run_command` does."""
    sys.excepthook = _report


def stop_reporting_interrupts() -> None:
    """Take back what `report_interrupts` has done, before a program begins what it may have to clean up."""
    if sys.excepthook is _report:
        sys.excepthook = sys.__excepthook__
