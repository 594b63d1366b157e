# SPDX-License-Identifier: Apache-2.0
"""Pictures that are read where and when they are decoded, and those that can only say what is wrong with them."""

import os
from collections.abc import Callable
from functools import partial
from io import BytesIO
from typing import Any

from PIL import Image

from .image_loading_musiq import decode_image


class LazyPicture(Image.Image):
    """A picture that is read when its pixels are asked for, header included: in the thread or process that decodes it.

    Args:
        name: What error messages call it.
        read: Gives its path or its bytes; can be sent to another process.
    """

    def __init__(self, name: str, read: Callable[[], str | BytesIO]):
        super().__init__()
        self.filename = name
        self._read = read
        self._is_loaded = False

    def __reduce__(self) -> tuple[type, tuple[str, Callable[[], str | BytesIO]]]:
        return LazyPicture, (self.filename, self._read)  # not the pixels, which are to be decoded elsewhere

    def decode(self, decode: Callable[[str | BytesIO, str], Image.Image] = decode_image) -> Image.Image:
        """Read and decode.

        Raises:
            ValueError: Whatever is wrong, in one sentence that names the picture.
        """
        try:
            return decode(self._read(), self.filename)
        except ValueError:
            raise
        except Exception as error:  # damaged files provoke all kinds in decoders, and none may stop the run
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self.filename}: cannot be read or decoded ({reason}).") from error

    def load(self) -> Any:
        """Become the decoded picture, once; errors are those of `decode`."""
        if not self._is_loaded:
            self.__dict__.update(self.decode().__dict__)
            self._is_loaded = True
        return super().load()


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
