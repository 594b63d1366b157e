# SPDX-License-Identifier: Apache-2.0
"""Server of `musiq serve`: the page and the route behind one access control, until a signal ends it."""

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..common.extras import require
from .access import AccessControl
from .service import Service
from .settings import ServeSettings, check_address

UPLOADS = "GRADIO_TEMP_DIR"  # variable that tells gradio where uploads lie
ANALYTICS = "GRADIO_ANALYTICS_ENABLED"  # variable that tells gradio whether to report its use


@contextmanager
def _own_uploads() -> Iterator[str]:
    """Give uploads a folder that nobody else may read, and that goes with the server."""
    before = os.environ.get(UPLOADS)
    with tempfile.TemporaryDirectory(prefix="musiq-serve-", ignore_cleanup_errors=True) as folder:
        os.environ[UPLOADS] = folder
        try:
            yield folder
        finally:
            os.environ.pop(UPLOADS, None)
            if before is not None:
                os.environ[UPLOADS] = before


@contextmanager
def start_server(settings: ServeSettings) -> Iterator[str]:
    """Start a server, and end it with the context.

    Args:
        settings: Settings of the server.

    Yields:
        Address of the page.

    Raises:
        ValueError: If the address, a checkpoint or the device cannot be used.
        ImportError: If gradio is missing, or what the tool needs.
    """
    check_address(settings.host, settings.port)
    os.environ.setdefault(ANALYTICS, "False")
    with _own_uploads() as folder:
        require("gradio", extra="serve")  # it reads both variables as it is imported
        if settings.mcp:
            require("mcp", extra="mcp")
        from starlette.middleware import Middleware

        from .page import NAMING, STYLE, THEME, make_page
        from .route import make_routes

        service = Service(settings.models, device=settings.device, max_megapixels=settings.max_megapixels)
        page = make_page(service, max_download=settings.max_bytes if settings.mcp else None)
        page.queue(max_size=settings.queue, default_concurrency_limit=1, api_open=False)
        access = Middleware(AccessControl, max_bytes=settings.max_bytes, uploads=folder, mcp=settings.mcp)
        _, address, _ = page.launch(
            server_name=settings.host,
            server_port=settings.port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=settings.max_bytes,
            show_error=False,
            footer_links=[],
            run_history=False,
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=settings.mcp,
            theme=THEME,
            css=STYLE,
            js=NAMING,
            app_kwargs={
                "routes": make_routes(service, settings),
                "middleware": [access],
                "openapi_url": None,
            },
        )
        try:
            yield address
        finally:
            page.close(verbose=False)


def serve(settings: ServeSettings, *, on_start: Callable[[str], None]) -> None:
    """Serve until Ctrl-C, or until the system asks the process to end.

    Args:
        settings: Settings of the server.
        on_start: Function that is called with the address once the server listens.

    Raises:
        ValueError: If the address, a checkpoint or the device cannot be used.
        ImportError: If gradio is missing, or what the tool needs.
        KeyboardInterrupt: If it is ended before it listens.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C, so that uploads are deleted
    try:
        with start_server(settings) as address, suppress(KeyboardInterrupt):
            on_start(address)
            threading.Event().wait()
    finally:
        signal.signal(signal.SIGTERM, before)
