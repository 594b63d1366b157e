# SPDX-License-Identifier: Apache-2.0
"""HTTP route `POST /v1/score`: files in a form become the rows of `musiq score`, as JSON.

Pixels, columns and errors of a picture are those of the command. A mistake in the request has a status and one
sentence.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from io import BytesIO
from typing import Any, NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse
from starlette.routing import Route

from ..pictures.lazy import LazyPicture
from .access import DOCUMENTS, HEALTH, SCHEMA, SCORE, make_error
from .description import describe_route, draw_documents
from .service import Checkpoint, Service
from .settings import MAX_FILES, MEGABYTE, ServeSettings

FORM = "multipart/form-data"
FILES, MODEL = "files", "model"  # fields of the form
MAX_FIELDS = 8  # fields without a file; one is known, the others are refused by name
HOW = f"Send pictures as fields `{FILES}` of a form, as `curl -F {FILES}=@photo.jpg` does"


class RefusedError(Exception):
    """Mistake in a request, with the status and the sentence that answer it."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


class Query(NamedTuple):
    """Request that is understood.

    Attributes:
        pictures: Pictures to score, at least one.
        checkpoint: Checkpoint that scores them.
    """

    pictures: Sequence[LazyPicture]
    checkpoint: Checkpoint


class Waiting:
    """Queue of requests, one of which is served at a time.

    Args:
        size: Requests that wait at most; more are refused.
    """

    def __init__(self, size: int):
        self.size, self._count = size, 0
        self._turn = asyncio.Semaphore(1)

    @asynccontextmanager
    async def take_turn(self) -> AsyncIterator[None]:
        """Wait until it is this request's turn.

        Raises:
            RefusedError: If too many wait already.
        """
        if self._count > self.size:  # one of them is served, and does not wait
            raise RefusedError(503, f"{self.size} requests are waiting already. Try again in a few seconds.")
        self._count += 1
        try:
            async with self._turn:
                yield
        finally:
            self._count -= 1


def read_query(form: FormData, service: Service, max_bytes: int) -> Query:
    """Read what a form asks for.

    Args:
        form: Fields of the form.
        service: Checkpoints to choose from.
        max_bytes: Largest file, in bytes.

    Raises:
        RefusedError: If a field is unknown, missing or of another kind, or a file is too large.
    """
    pictures, names = [], []
    for name, value in form.multi_items():
        if name == FILES:
            pictures.append(_read_file(value, service, max_bytes))
        elif name == MODEL and isinstance(value, str):
            names.append(value)
        elif name == MODEL:
            raise RefusedError(400, f"The field `{MODEL}` takes the name of a checkpoint, got a file.")
        else:
            raise RefusedError(400, f"The form has the unknown field {name!r}; known are {FILES} and {MODEL}.")
    if not pictures:
        raise RefusedError(400, f"The form has no picture. {HOW}.")
    if len(names) > 1:
        raise RefusedError(400, f"The field `{MODEL}` is given {len(names)} times. Give it once.")
    try:
        return Query(pictures, service.find(*names))
    except ValueError as error:
        raise RefusedError(400, str(error)) from error


def _read_file(value: UploadFile | str, service: Service, max_bytes: int) -> LazyPicture:
    """Return the picture in a field of a form."""
    if not isinstance(value, UploadFile):
        raise RefusedError(400, f"The field `{FILES}` takes pictures, got a text. {HOW}.")
    if (value.size or 0) > max_bytes:
        limit = f"{max_bytes / MEGABYTE:g} megabytes"
        raise RefusedError(413, f"{value.filename}: a file may have {limit}. Send a smaller copy.")
    return service.make_picture(value.filename or "", partial(_read, value.file))


def _read(file: Any) -> BytesIO:
    file.seek(0)
    return BytesIO(file.read())


class ScoreRoute:
    """Endpoint of `POST /v1/score`.

    Args:
        service: Checkpoints that score.
        settings: Settings of the server.
    """

    def __init__(self, service: Service, settings: ServeSettings):
        self.service, self.max_bytes = service, settings.max_bytes
        self.waiting = Waiting(settings.queue)

    async def answer(self, request: Request) -> JSONResponse:
        """Answer a request with rows, or with its mistake."""
        try:
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
                raise RefusedError(415, f"The request must be a form ({FORM}). {HOW}.")
            async with _read_form(request) as form:
                query = read_query(form, self.service, self.max_bytes)
                async with self.waiting.take_turn():
                    if await request.is_disconnected():
                        raise RefusedError(400, "The client has gone.")
                    rows = await run_in_threadpool(lambda: list(self.service.score(*query)))
        except RefusedError as refusal:
            headers = {"retry-after": "5"} if refusal.status == 503 else None
            return JSONResponse(make_error(refusal.sentence), refusal.status, headers)
        return JSONResponse({"rows": rows})


@asynccontextmanager
async def _read_form(request: Request) -> AsyncIterator[FormData]:
    """Read a form, whose files lie on the disk until its end."""
    try:
        form = await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS)
    except HTTPException as error:  # of Starlette, for a form that it cannot read
        reason = error.detail.rstrip(".")
        raise RefusedError(400, f"The form cannot be read ({reason}). {HOW}, up to {MAX_FILES} of them.") from error
    try:
        yield form
    finally:
        await form.close()


def make_routes(service: Service, settings: ServeSettings) -> list[Route]:
    """Make the routes of the server beside its page: score, description, documents and health."""
    schema = describe_route(service, settings)
    documents = draw_documents(service, settings)
    health = {
        "status": "ok",
        "models": [{"model": name, "signature": one.signature} for name, one in service.checkpoints.items()],
    }

    async def show_schema(request: Request) -> JSONResponse:
        return JSONResponse(schema)

    async def show_documents(request: Request) -> HTMLResponse:
        return HTMLResponse(documents)

    async def show_health(request: Request) -> JSONResponse:
        return JSONResponse(health)

    return [
        Route(SCORE, ScoreRoute(service, settings).answer, methods=["POST"]),
        Route(SCHEMA, show_schema),
        Route(DOCUMENTS, show_documents),
        Route(HEALTH, show_health),
    ]
