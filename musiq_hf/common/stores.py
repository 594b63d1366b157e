# SPDX-License-Identifier: Apache-2.0
"""Objects of remote stores, such as S3, which fsspec reaches by their URLs.

Credentials, endpoints and other settings are those of fsspec's configuration and of the environment. A store that does
not answer is asked three times, and then ends the run. What is wrong with one object alone is an error of that object.
"""

import errno
import io
import logging
import os
import re
from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, BinaryIO, TypeGuard, TypeVar

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")
URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)://(.*)", re.DOTALL)  # a single letter is a drive of Windows
OTHER = ("http://", "https://", "hf://datasets/")  # addresses that have a meaning of their own
LOCAL = ("file", "local")  # names that fsspec has for this machine
PACKAGES = {"smbclient": "smbprotocol", "git": "pygit2"}  # of modules that are named otherwise
WAITS = (5, 30)  # seconds before the second and the third try
PATIENCE = 120  # seconds after which nothing is tried again; libraries wait and try by themselves too
AT_ONCE = 1 << 20  # bytes of an object that are read at least, for requests are slow
CONTINUE = "The same command continues."
CHECK = (
    "Check the address, and the credentials and endpoint, which come from the environment or the configuration of "
    "fsspec."
)
LONGEST_REASON = 300  # characters
# Refusals of S3 that are about the credentials, and so about every object; `PermissionError` does not tell them apart.
NO_CREDENTIALS = (
    "AccountProblem",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "NotSignedUp",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
)
TOO_SHORT = ("InvalidRange", "416")  # answers of S3 to who asks for bytes after the last one


class StoreError(OSError):
    """Failure of a store that says nothing about one object, and so ends a run instead of becoming a row of it."""


def is_remote(path: str | os.PathLike[str]) -> TypeGuard[str]:
    """Return whether a path is the URL of an object, a folder or a pattern in a store that fsspec may know."""
    return isinstance(path, str) and URL.match(path) is not None and not path.startswith(OTHER)


def hide_password(text: str) -> str:
    """Return a text in which URLs have lost the user names and passwords that they hold."""
    return re.sub(r"://[^/@\s]*:[^/@\s]*@", "://", text)


def check_url(url: str) -> None:
    """Raise an error for a URL that no store can be found for; nothing is connected.

    Raises:
        ValueError: If the URL holds a password, leads through another file, or has an unknown protocol or that of
            this machine.
        ImportError: If the package for its protocol is missing; the message holds the pip line.
    """
    _find_store(url)


def _find_store(url: str) -> Any:
    """Return the class of fsspec for a URL; `check_url` tells the errors."""
    import fsspec  # type: ignore[import-untyped]  # a dependency of datasets

    match = URL.match(url)
    protocol, rest = match.groups() if match else ("", url)
    shown = hide_password(url)
    if shown != url:
        raise ValueError(
            f"{shown}: the address holds a user name and a password, which would be written into tables. Give them "
            "by the environment or by the configuration of fsspec."
        )
    if "::" in rest and "://" in rest.partition("::")[2]:
        raise ValueError(f"{url}: addresses that lead through another file (::) are not read. Unpack it first.")
    if protocol in LOCAL:
        raise ValueError(f"{url}: a file of this machine is named by its plain path. Drop {protocol}://.")
    try:
        return fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        module = (getattr(error.__cause__, "name", None) or str(error)).partition(".")[0]
        package = PACKAGES.get(module, module)
        raise ImportError(
            f"{url}: {package} is needed for {protocol}://. Install it with: pip install {package}"
        ) from error
    except ValueError as error:
        raise ValueError(f"{url}: fsspec knows no {protocol}://. Check how the address begins.") from error


def has_search(url: str) -> bool:
    """Return whether the store of a URL lists all files below a folder by a search of its own.

    That of fsspec walks from folder to folder, and leaves out those that cannot be listed without a word.
    """
    from fsspec import AbstractFileSystem
    from fsspec.asyn import AsyncFileSystem  # type: ignore[import-untyped]

    kind = _find_store(url)
    if kind.async_impl:
        return kind._find is not AsyncFileSystem._find
    return kind.find is not AbstractFileSystem.find


def ask(url: str, request: Callable[[Any, str], Answer], *, once: bool = False) -> Answer:
    """Ask a store, and ask again if it gives no answer; one that answers nothing for minutes is not asked again.

    Args:
        url: URL of an object or folder.
        request: Function of the file system of fsspec and of the path in it.
        once: Whether the store is asked a single time, before any work, when the mistake is most often in the command.

    Raises:
        StoreError: If the store gives no answer the last time either, or refuses the credentials.
        Exception: Error of the store if it is about this object, see `is_of_one_object`.
    """
    kind = _find_store(url)
    path, options = kind._strip_protocol(url), kind._get_kwargs_from_urls(url)
    began = monotonic()
    for number, wait in enumerate((None,) if once else (*WAITS, None), start=1):
        store = None
        try:
            store = kind(**options)
            return request(store, path)
        except Exception as raised:  # the libraries of the stores raise errors of all kinds
            error = _explain_refusal(raised, store, path)
            if is_of_one_object(error):
                raise error from error.__cause__  # it tells the code of the refusal
            reason = _describe(error)
            if wait is None or monotonic() - began > PATIENCE:
                tries, advice = ("", CHECK) if once else (f", tried {number} time{'s' * (number > 1)}", CONTINUE)
                raise StoreError(f"{url}: the store gives no answer{tries} ({reason}). {advice}") from error
        logger.warning("%s: the store gives no answer (%s). Trying again in %g seconds.", url, reason, wait)
        sleep(wait)
    raise AssertionError("the last try has returned or raised")


def _find_code(error: Exception) -> str | None:
    """Return the code of S3 that an error of s3fs was made of, if there is one."""
    response = getattr(error.__cause__, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    return None if code is None else str(code)


def _explain_refusal(error: Exception, store: Any, path: str) -> Exception:
    """Return the error of a read in place of a refusal that gives no reason, as S3's when it is asked for a size."""
    if isinstance(error, PermissionError) and _find_code(error) in (None, "403"):
        try:
            store.cat_file(path, start=0, end=1)
        except PermissionError as reason:
            return reason
        except Exception:  # it is no object, or the store has no such call
            return error
    return error


def is_of_one_object(error: Exception) -> bool:
    """Return whether an error of a store is about the object that was asked for, which others need not share.

    It is missing, forbidden, a folder or too short, there is one already, or its name cannot be one.
    """
    code = _find_code(error)
    if isinstance(error, PermissionError):
        return code not in NO_CREDENTIALS
    if isinstance(error, FileNotFoundError | FileExistsError | IsADirectoryError | NotADirectoryError):
        return True
    has_odd_name = type(error) is ValueError or type(error).__name__ == "ParamValidationError"
    return has_odd_name or code in TOO_SHORT or getattr(error, "errno", None) == errno.ENAMETOOLONG


def _describe(error: Exception) -> str:
    """Describe an error in a few words of one line, without passwords and what may sign a URL."""
    text = re.sub(r"(://[^\s?\"']+)\?[^\s\"')]*", r"\1", hide_password(" ".join(str(error).split())))
    return f"{type(error).__name__}: {text}"[:LONGEST_REASON] if text else type(error).__name__


def describe_object_error(error: Exception) -> str:
    """Describe an error for which `is_of_one_object` holds, in place of "cannot be read"."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, PermissionError):
        return "may not be read, check its permissions"
    if type(error) is ValueError:
        return hide_password(str(error)).rstrip(".")
    return f"cannot be read ({_describe(error)})"


class StoredFile(io.RawIOBase):
    """Object of a store as a file that is read at any place, by a request for each part.

    Args:
        url: URL of the object.

    Raises:
        FileNotFoundError: If there is no such object.
    """

    def __init__(self, url: str):
        super().__init__()
        self.url, self._place = url, 0
        self.size = int(ask(url, lambda store, path: store.info(path))["size"])

    def readable(self) -> bool:
        """Return True: the file can be read."""
        return True

    def seekable(self) -> bool:
        """Return True: the file can be read at any place."""
        return True

    def tell(self) -> int:
        """Return the place of the next byte that is read."""
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to another place, and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self.size}[whence]
        self._place = max(0, start + offset)
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        """Fill a buffer as far as the file goes, and return the number of bytes."""
        end = min(self._place + len(buffer), self.size)
        content = read_object(self.url, self._place, end) if self._place < end else b""
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)


def read_object(url: str, start: int | None = None, end: int | None = None) -> bytes:
    """Return the bytes of an object, or those from one place to before another one."""
    if start is not None and start == end:
        return b""  # there is no such range
    content: bytes = ask(url, lambda store, path: store.cat_file(path, start=start, end=end))
    return content


def open_binary(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a file of this machine, or an object by its URL, for reading at any place."""
    return io.BufferedReader(StoredFile(path), AT_ONCE) if is_remote(path) else open(path, "rb")
