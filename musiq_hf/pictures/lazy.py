# SPDX-License-Identifier: Apache-2.0
"""Pictures that are read where and when they are decoded, or raise an error that says what is wrong with them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO

from PIL import Image

from ..common.stores import StoreError, describe_object_error, hide_password, read_object
from .opening import Preset, SizeCheck, accept_size, choose_decoder

LONGEST_PATH = 200  # characters of a path in an error message; a longer text may be a picture in base64


@dataclass(frozen=True)
class LazyPicture:
    """Picture that is read, header included, when it is opened, in the thread or process that decodes it.

    Attributes:
        name: Name of the picture in error messages.
        read: Function that returns the path or the bytes of the picture; it can be sent to another process.
    """

    name: str
    read: Callable[[], str | BytesIO]

    def open(self, preset: Preset = "default", *, check_size: SizeCheck = accept_size) -> Image.Image:
        """Read and decode the picture, if it passes a check of its size.

        Raises:
            ValueError: If the picture cannot be read or decoded, for any reason; one sentence names the picture.
            StoreError: If a remote store gives no answer, which says nothing about the picture.
        """
        try:
            return choose_decoder(preset)(self.read(), self.name, check_size=check_size)
        except (ValueError, StoreError):
            raise
        except Exception as error:  # damaged files provoke errors of all kinds, and none may stop the run
            reason = f"{type(error).__name__}: {error}"
            raise ValueError(f"{self.name}: cannot be read or decoded ({reason}).") from error


Source = tuple[str, LazyPicture]  # key and picture


@dataclass(frozen=True)
class LeftOutFile:
    """File that was found where pictures are, and is none by its ending.

    Attributes:
        name: Name of the file, which may end with bytes that are not Unicode.
    """

    name: str


def escape_name(name: str) -> str:
    """Return a file name that any output can hold: it writes bytes that are not Unicode with backslashes."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def write_line(text: str) -> str:
    """Return a text on one line that any output can hold."""
    return " ".join(escape_name(text).split())


def name_file(key: str, path: object) -> str:
    """Return the name of a picture in error messages: its key, and its path too if that is known and another one."""
    if not isinstance(path, str | os.PathLike) or not (shown := escape_name(hide_password(os.fspath(path)))):
        return key
    return key if key == shown or len(shown) > LONGEST_PATH else f"{key}: {shown}"


def make_unreadable(name: str, reason: str) -> Source:
    """Return a picture that raises a ValueError with this reason when it is opened."""
    message = f"{escape_name(name)}: {write_line(reason)}"
    return escape_name(name), LazyPicture(escape_name(name), partial(_refuse, message))


def _refuse(message: str) -> str:
    raise ValueError(message)


def describe_error(error: Exception) -> str:
    """Return the message of an error that is about a file, or the name of its class if it has none.

    Raises:
        StoreError: If the error is one, which says nothing about the file.
    """
    if isinstance(error, StoreError):
        raise error
    return str(error) or type(error).__name__


def check_path(path: str, name: str) -> str:
    """Return a path if it leads to a file; if not, raise a ValueError that names the picture."""
    if not os.path.isfile(path):
        raise ValueError(f"{name}: {'not a regular file' if os.path.exists(path) else 'no such file'}.")
    return path


def read_url(url: str, name: str, start: int | None = None, end: int | None = None) -> BytesIO:
    """Read an object of a remote store, or a part of it.

    Args:
        url: URL of the object, see `common.stores`.
        name: Name of the picture in error messages.
        start: Place of the first byte; None for that of the object.
        end: Place after the last byte; None for the end of the object.

    Raises:
        ValueError: If there is no such object, or it may not be read.
        StoreError: If the store gives no answer, or cannot be reached by this installation.
    """
    try:
        return BytesIO(read_object(url, start, end))
    except StoreError:
        raise
    except ImportError as error:  # all pictures of this store share it
        raise StoreError(str(error)) from error
    except Exception as error:
        raise ValueError(f"{name}: {describe_object_error(error)}.") from error
