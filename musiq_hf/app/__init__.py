# SPDX-License-Identifier: Apache-2.0
"""Page and HTTP route of `musiq serve`, which need the extra `serve` once a server starts."""

from .serving import serve, start_server
from .settings import ServeSettings

__all__ = ["ServeSettings", "serve", "start_server"]
