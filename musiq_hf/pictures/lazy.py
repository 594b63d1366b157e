# SPDX-License-Identifier: Apache-2.0
"""Pictures that are read where and when they are decoded, and those that can only say what is wrong with them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO

from PIL import Image

from .opening import Preset, decoder_of


@dataclass(frozen=True)
class LazyPicture:
    """A picture that is read when it is opened, header included: in the thread or process that decodes it.

    Attributes:
        name: Name of the picture in error messages.
        read: Function that gives its path or its bytes; it can be sent to another process.
    """

    name: str
    read: Callable[[], str | BytesIO]

    def open(self, preset: Preset = "default") -> Image.Image:
        """Read and decode the picture.

        Raises:
            ValueError: Whatever is wrong, in one sentence that names the picture.
        """
        try:
            return decoder_of(preset)(self.read(), self.name)
        except ValueError:
            raise
        except Exception as error:  # damaged files provoke all kinds in decoders, and none may stop the run
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self.name}: cannot be read or decoded ({reason}).") from error


Source = tuple[str, LazyPicture]  # key and picture


def as_text(name: str) -> str:
    """A file name that any output can hold: bytes that are not Unicode are written with backslashes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def unreadable(name: str, reason: str) -> Source:
    """A picture that only says what is wrong."""
    message = f"{as_text(name)}: {' '.join(as_text(reason).split())}"
    return as_text(name), LazyPicture(as_text(name), partial(_refuse, message))


def _refuse(message: str) -> str:
    raise ValueError(message)


def why(error: Exception) -> str:
    """What an error says, or its name if it says nothing."""
    return str(error) or type(error).__name__


def checked_path(path: str, name: str) -> str:
    """The path of a file, or a ValueError that calls it by its name."""
    if not os.path.isfile(path):
        raise ValueError(f"{name}: {'not a regular file' if os.path.exists(path) else 'no such file'}.")
    return path
