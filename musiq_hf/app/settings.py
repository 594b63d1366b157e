# SPDX-License-Identifier: Apache-2.0
"""Settings of `musiq serve`, checked before anything is loaded."""

import errno
import os
import socket
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass

from ..common.checks import check_counts, check_ensemble
from ..models.auto import DEFAULT_CHECKPOINT
from ..pictures.opening import check_limit

MEGABYTE = 10**6
MAX_FILES = 100  # files of one request
FILES_OF_FULL_SIZE = 25  # a request may have as many bytes as so many of the largest files
UPLOAD_SECONDS = 300  # in which the body of a request must have come

CLEANING_SECONDS, OLD_SECONDS = 60, 3600  # files are deleted every minute, once they are an hour old


@dataclass(frozen=True)
class ServeSettings:
    """Settings of a server.

    Attributes:
        models: Checkpoints: folders, Hub ids or names of embedded ones. The first one is the default.
        host: Name or address on which the server listens.
        port: Port on which it listens.
        device: "cpu", "cuda", "cuda:1", "mps", or "auto" for a GPU if there is one.
        max_megapixels: Largest picture that is decoded, in millions of pixels. None: 25 if every checkpoint shrinks
            larger pictures, else 12.5.
        max_megabytes: Largest file, in millions of bytes.
        queue: Requests that wait at most, of the page and of the route each; more are refused.
        mcp: Whether the page offers its score as a tool of the Model Context Protocol.

    Raises:
        ValueError: If a setting is out of range, or a checkpoint is named twice.
    """

    models: Sequence[str] = (DEFAULT_CHECKPOINT.name,)
    _: KW_ONLY
    host: str = "127.0.0.1"
    port: int = 7860
    device: str = "auto"
    max_megapixels: float | None = None
    max_megabytes: int = 20
    queue: int = 16
    mcp: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.models, str) or not self.models:
            raise ValueError(f"`models` must be a list of at least one name, got {self.models!r}.")
        object.__setattr__(self, "models", tuple(map(os.fspath, self.models)))
        check_ensemble(self.models, None)
        check_counts(self, "port", "max_megabytes", "queue")
        check_limit(self.max_megapixels)
        if self.port > 65535:
            raise ValueError(f"`port` must be at most 65535, got {self.port}.")

    @property
    def host_in_address(self) -> str:
        """Host as an address of the web has it: with brackets if it is one of IPv6."""
        return f"[{self.host}]" if ":" in self.host else self.host

    @property
    def max_bytes(self) -> int:
        """Largest file, in bytes."""
        return self.max_megabytes * MEGABYTE


def check_address(host: str, port: int) -> None:
    """Raise a ValueError if no server can listen on a host and port, because another one does, say."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"--host {host} is no name or address of this machine ({error}). Try 127.0.0.1.") from error
    try:
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise ValueError(f"--host {host} is no address of this machine. Try 127.0.0.1, or 0.0.0.0.") from error
        raise ValueError(
            f"Port {port} of {host} cannot be used ({error.strerror}). End what listens there, or choose another one "
            "with --port."
        ) from error
