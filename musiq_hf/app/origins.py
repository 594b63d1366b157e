# SPDX-License-Identifier: Apache-2.0
"""Origins of requests: pages of other servers may lead a browser here, and may not use it to score.

A page elsewhere can send forms to 127.0.0.1 through the browser of whoever reads it. If its own name leads there too
(DNS rebinding), it can even read the answers. Programs send none of the headers that browsers send.
"""

import ipaddress
import socket
from collections.abc import Mapping
from urllib.parse import urlsplit

OWN_SITES = (b"same-origin", b"none")  # values of Sec-Fetch-Site: a request of this page, or of the user by hand
ELSEWHERE = "Pages of other servers may not use this one. Open it by its own address."


def is_loopback(host: str) -> bool:
    """Return whether a name or address of a host is one that only its own machine reaches."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback for *_, address in found)


def check_origin(headers: Mapping[bytes, bytes], method: str, local_host: str | None) -> str | None:
    """Check whether a request comes from where it may come from.

    Args:
        headers: Headers of the request by their names in small letters.
        method: Method of the request.
        local_host: Host on which the server listens if only its own machine reaches it, else None.

    Returns:
        Sentence that refuses the request; None for one that may pass.
    """
    host = headers.get(b"host")
    if local_host is not None and host is not None and not _is_local_name(host, local_host):
        return f"This server is for its own machine and answers to {local_host} and localhost alone. See --host."
    site = headers.get(b"sec-fetch-site")
    if site is not None:
        is_link = method in ("GET", "HEAD") and headers.get(b"sec-fetch-mode") == b"navigate"
        return None if site in OWN_SITES or is_link else ELSEWHERE
    origin = headers.get(b"origin")
    if origin is None:
        return None
    own = [value.lower() for name in (b"host", b"x-forwarded-host") if (value := headers.get(name)) is not None]
    return None if origin.lower().partition(b"://")[2] in own else ELSEWHERE


def _is_local_name(host: bytes, local_host: str) -> bool:
    """Return whether the header Host names this machine."""
    try:
        name = urlsplit(f"//{host.decode('latin-1')}").hostname or ""
        return name in (local_host.lower(), "localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:  # no address, or no name at all
        return False
