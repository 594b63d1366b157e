# SPDX-License-Identifier: Apache-2.0
"""Inputs of the page: files as they were uploaded, and nothing else that a request may name.

The picture component that gradio has converts a file to RGB and writes it anew, which changes the score. Where an
upload is expected, gradio also takes files of the server and addresses; these are refused here.
"""

import asyncio
import html
import os
from abc import ABCMeta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import gradio as gr
import httpx
import safehttpx

from ..pictures.opening import URL_PREFIXES
from .access import is_upload
from .settings import MEGABYTE

DOWNLOAD_SECONDS = 30
FOREIGN = "Only pictures that were uploaded, and are here still, are scored. Upload the picture itself."
NO_ADDRESSES = "Addresses are not fetched here. Upload the picture itself."


class Upload(NamedTuple):
    """Upload as a function of the page gets it.

    Attributes:
        name: Name that the client gave the file; it is shown and never opened.
        path: File in the folder of uploads.
    """

    name: str
    path: str


def make_refusal(sentence: str) -> gr.Error:
    """Make the error that shows a sentence on the page, which takes it as HTML."""
    return gr.Error(html.escape(sentence), print_exception=False)


async def download_public(url: str, folder: str, max_bytes: int) -> str:
    """Download a picture from a public address, without following redirects.

    Args:
        url: Address, http or https.
        folder: Folder in which the file gets a folder of its own.
        max_bytes: Largest file, in bytes.

    Returns:
        Path of the file.

    Raises:
        gradio.Error: If the address is one of this machine or its network, or the file cannot be had or is too large.
    """
    name = os.path.basename(unquote(urlsplit(url).path)).replace("\0", "")[-100:] or "picture"
    path = Path(mkdtemp(dir=folder)) / name
    try:
        async with asyncio.timeout(DOWNLOAD_SECONDS):
            address = await safehttpx.async_validate_url(urlsplit(url).hostname or "")
            transport = safehttpx.AsyncSecureTransport(address)  # to that address alone, whatever a later answer says
            async with httpx.AsyncClient(transport=transport) as client, client.stream("GET", url) as response:
                if response.status_code != httpx.codes.OK:
                    raise ValueError(f"it answers {response.status_code}, and redirects are not followed")
                with open(path, "xb") as file:
                    async for chunk in response.aiter_bytes():
                        file.write(chunk)
                        if file.tell() > max_bytes:
                            raise ValueError(f"it has more than {max_bytes / MEGABYTE:g} megabytes")
    except (ValueError, OSError, TimeoutError, httpx.HTTPError) as error:
        path.unlink(missing_ok=True)
        path.parent.rmdir()
        reason = str(error) or type(error).__name__
        raise make_refusal(f"{url}: not a picture that can be fetched ({reason}).") from error
    return str(path)


class _PlainMeta(type(gr.Image)):  # type: ignore[misc]
    """Metaclass of inputs without gradio's habit of writing a .pyi file beside the source."""

    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> "_PlainMeta":
        return ABCMeta.__new__(cls, name, bases, attributes)


class _Guard:
    """Part of every input: it lets only uploads in, and public addresses where these are wanted.

    gradio calls it for whatever looks like a file in what a client sends, to a menu as well.
    """

    shown_as: str  # gradio's own component, which the browser shows
    max_download: int | None = None  # largest file that is fetched from an address, in bytes; None fetches none
    GRADIO_CACHE: str
    temp_files: set[str]

    def get_block_name(self) -> str:
        """Return the name of the component that the browser shows."""
        return self.shown_as

    def get_block_class(self) -> str:
        """Return the name of the component that a client takes this one for."""
        return self.shown_as

    async def async_move_resource_to_block_cache(self, url_or_file_path: str | Path | None) -> str:
        """Return the path of an upload, or of a picture that was fetched; refuse anything else."""
        place = str(url_or_file_path or "")
        if not place.startswith(URL_PREFIXES):
            return self.check_upload(place)
        if self.max_download is None:
            raise make_refusal(NO_ADDRESSES)
        os.makedirs(self.GRADIO_CACHE, exist_ok=True)
        path = await download_public(place, self.GRADIO_CACHE, self.max_download)
        self.temp_files.add(path)  # gradio deletes it when it is old
        return path

    def check_upload(self, path: str | None) -> str:
        """Return a path, or refuse it if it leads to no upload."""
        if path is None or not is_upload(path, self.GRADIO_CACHE):
            raise make_refusal(FOREIGN)
        return path

    def take_upload(self, payload: Any) -> Upload:
        """Return what a client names as an upload, or refuse it."""
        path = self.check_upload(payload.path)
        return Upload(payload.orig_name or os.path.basename(path), path)


class Picture(_Guard, gr.Image, metaclass=_PlainMeta):
    """Input of one picture, which gives its file untouched."""

    shown_as = "image"

    def preprocess(self, payload: Any) -> Upload | None:
        """Return the upload; None if there is none."""
        return None if payload is None else self.take_upload(payload)


class Files(_Guard, gr.File, metaclass=_PlainMeta):
    """Input of several files, which gives them untouched."""

    shown_as = "file"

    def preprocess(self, payload: Any) -> list[Upload]:
        """Return the uploads; an empty list if there are none."""
        return [self.take_upload(file) for file in payload or ()]


class Menu(_Guard, gr.Dropdown, metaclass=_PlainMeta):
    """Input of one of several names."""

    shown_as = "dropdown"
