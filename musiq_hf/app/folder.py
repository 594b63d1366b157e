# SPDX-License-Identifier: Apache-2.0
"""Folder of uploads and results: nobody else reads it, what is old goes, and all of it goes with the server."""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from .settings import CLEANING_SECONDS, OLD_SECONDS, UPLOAD_SECONDS

VARIABLE = "GRADIO_TEMP_DIR"  # variable that tells gradio where uploads lie


@contextmanager
def open_folder() -> Iterator[str]:
    """Make the folder and keep it clean, until the context ends."""
    before, has_ended = os.environ.get(VARIABLE), threading.Event()
    with tempfile.TemporaryDirectory(prefix="musiq-serve-", ignore_cleanup_errors=True) as folder:
        os.environ[VARIABLE] = folder
        threading.Thread(target=_keep_clean, args=(folder, has_ended), daemon=True).start()
        try:
            yield folder
        finally:
            has_ended.set()
            os.environ.pop(VARIABLE, None)
            if before is not None:
                os.environ[VARIABLE] = before


def _keep_clean(folder: str, has_ended: threading.Event) -> None:
    """Delete what is left, until the server ends; later than gradio, which deletes the files that it knows."""
    while not has_ended.wait(CLEANING_SECONDS):
        delete_old(folder, OLD_SECONDS + 2 * CLEANING_SECONDS)


def delete_old(folder: str, seconds: float) -> None:
    """Delete uploads that broke off, and old files and empty folders.

    Args:
        folder: Folder in which they are, at any depth; it stays itself. Uploads that are under way lie directly in it.
        seconds: Age from which a file or folder is old, by its last change.
    """
    now = time.time()
    for place, folders, files in os.walk(folder, topdown=False):
        for delete, names in ((os.remove, files), (os.rmdir, folders)):
            age = UPLOAD_SECONDS if place == folder and names is files else seconds
            for path in (os.path.join(place, name) for name in names):
                with suppress(OSError):  # it is gone, or not empty
                    if now - os.lstat(path).st_mtime > age:
                        delete(path)
