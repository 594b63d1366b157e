# SPDX-License-Identifier: Apache-2.0
"""Access control of the server: which paths are open, and how much a request may send; an ASGI middleware.

gradio has many paths that this page does not need. One fetches any address of the internet, others write files. A
path that is not listed here is closed, so that a new version of gradio opens none.
"""

import asyncio
import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from .settings import FILES_OF_FULL_SIZE, MEGABYTE, UPLOAD_SECONDS

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

SCORE, SCHEMA, DOCUMENTS, HEALTH = "/v1/score", "/openapi.json", "/docs", "/healthz"
METHODS = {SCORE: ("POST",), SCHEMA: ("GET", "HEAD"), DOCUMENTS: ("GET", "HEAD"), HEALTH: ("GET", "HEAD")}
API = "/gradio_api"
FILE = f"{API}/file="
UPLOAD = f"{API}/upload"
MCP = f"{API}/mcp"
SMALL_BODY = MEGABYTE  # of a request without files
BODILESS = ("GET", "HEAD", "OPTIONS", "DELETE")  # methods whose requests have no body that is read
TOO_SLOW = f"The request did not come within {UPLOAD_SECONDS} seconds. Send fewer pictures at a time."
PAGES = re.compile(
    r"/|/config/?|/(assets|static|svelte)/.*|/theme\.css|/favicon\.ico|/robots\.txt|/manifest\.json|/pwa_icon(/\d+)?"
    rf"|{API}/(info/?|theme\.css|app_id/?|upload|upload_progress|startup-events|heartbeat/\w+|cancel|reset/?)"
    rf"|{API}/(queue/(join|data|status)|call/(v2/)?\w+/?|call/\w+/\w+)"
)
TOOLS = re.compile(rf"{MCP}(/.*)?")


class _EndedError(Exception):
    """End of a request whose body is too large, too slow or not whole, with status and sentence of the answer."""


def is_upload(path: str, folder: str) -> bool:
    """Return whether a path leads to a file in a folder, links followed."""
    if "\0" in path:
        return False
    return os.path.isfile(path) and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


class AccessControl:
    """Middleware that closes all paths but those of the page, the route and, if wanted, of the tool.

    Args:
        app: Application behind it.
        max_bytes: Largest file, in bytes.
        uploads: Folder with uploads and results, the only one whose files are handed out.
        mcp: Whether the paths of the Model Context Protocol are open.
    """

    def __init__(self, app: Application, *, max_bytes: int, uploads: str, mcp: bool):
        self.app, self.max_bytes, self.uploads, self.mcp = app, max_bytes, uploads, mcp

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        refusal = self._refuse(path, scope["method"])
        limit = self._find_limit(path)
        if refusal is None and _read_length(scope) > limit:
            refusal = 413, _describe_limit(limit)
        if refusal is not None:
            await _answer(send, *refusal)
            return
        await self._pass(scope, receive, send, limit)

    def _refuse(self, path: str, method: str) -> tuple[int, str] | None:
        """Return status and sentence for a path that is closed; None for one that is open."""
        if path in METHODS:
            allowed = METHODS[path]
            return None if method in allowed else (405, f"{path} takes {' and '.join(allowed)}, got {method}.")
        if path.startswith(FILE):
            return None if is_upload(path.removeprefix(FILE), self.uploads) else (403, "No such upload.")
        if PAGES.fullmatch(path) or (self.mcp and TOOLS.fullmatch(path)):
            return None
        return 404, f"There is nothing here. Pictures go to POST {SCORE}; {DOCUMENTS} tells how."

    def _find_limit(self, path: str) -> int:
        """Return the largest body that a path takes, in bytes."""
        if path in (SCORE, UPLOAD):
            return FILES_OF_FULL_SIZE * self.max_bytes
        return 2 * self.max_bytes if path.startswith(MCP) else SMALL_BODY  # base64 makes a picture larger

    async def _pass(self, scope: Message, receive: Receive, send: Send, limit: int) -> None:
        """Let a request in, and end it once its body is too large or too slow."""
        body, has_begun = _Body(receive, limit, has_more=scope["method"] not in BODILESS), False

        async def give(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self.app(scope, body.take, give)
        except _EndedError as end:
            if not has_begun:
                await _answer(send, *end.args)


class _Body:
    """Body of a request that is counted as it comes.

    Args:
        receive: Function that waits for the next part.
        limit: Largest body, in bytes.
        has_more: Whether there is a body at all.
    """

    def __init__(self, receive: Receive, limit: int, *, has_more: bool):
        self.receive, self.limit, self.has_more = receive, limit, has_more
        self.num_bytes = 0
        self.deadline = asyncio.get_running_loop().time() + UPLOAD_SECONDS

    async def take(self) -> Message:
        """Return the next part.

        Raises:
            _EndedError: If the body is too large, too slow, or breaks off.
        """
        if not self.has_more:
            return await self.receive()
        try:
            message = await asyncio.wait_for(self.receive(), self.deadline - asyncio.get_running_loop().time())
        except TimeoutError:
            raise _EndedError(408, TOO_SLOW) from None
        if message["type"] == "http.disconnect":
            raise _EndedError(400, "The request broke off.")
        self.num_bytes += len(message.get("body", b""))
        self.has_more = message.get("more_body", False)
        if self.num_bytes > self.limit:
            raise _EndedError(413, _describe_limit(self.limit))
        return message


def _read_length(scope: Message) -> int:
    """Return the length of a body that the client has told, in bytes; 0 if it has told none."""
    told = dict(scope["headers"]).get(b"content-length", b"0")
    return int(told) if told.isdigit() else 0


def _describe_limit(limit: int) -> str:
    return f"A request may have {limit / MEGABYTE:g} megabytes in all. Send fewer or smaller pictures at a time."


def make_error(sentence: str) -> Mapping[str, str]:
    """Return the JSON object of every error of the route."""
    return {"error": sentence}


async def _answer(send: Send, status: int, sentence: str) -> None:
    body = json.dumps(make_error(sentence)).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"connection", b"close")]})
    await send({"type": "http.response.body", "body": body})
