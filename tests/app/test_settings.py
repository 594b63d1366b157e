# SPDX-License-Identifier: Apache-2.0
"""Settings of a server, its address, and the access control in front of it: nothing here needs gradio."""

import asyncio
import errno
import json
import os
import socket

import pytest

from musiq_hf.app import access
from musiq_hf.app.access import AccessControl
from musiq_hf.app.origins import is_loopback
from musiq_hf.app.settings import MEGABYTE, ServeSettings, check_address


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"models": []}, "`models` must be a list of at least one name"),
        ({"models": ["a", "a"]}, "-m a is given 2 times"),
        ({"port": 70000}, "`port` must be at most 65535, got 70000"),
        ({"queue": 0}, "`queue` must be at least 1, got 0"),
        ({"max_megabytes": 0}, "`max_megabytes` must be at least 1, got 0"),
        ({"max_megapixels": -1.0}, "`max_megapixels` must be above 0"),
    ],
)
def test_settings_out_of_range_are_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        ServeSettings(**changes)


def test_a_busy_port_is_one_sentence():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(ValueError, match=rf"^Port {port} of 127\.0\.0\.1 cannot be used \(.*\)\. .*--port\.$"):
            check_address("127.0.0.1", port)
    check_address("127.0.0.1", port)


def test_a_host_that_is_no_address_here_is_one_sentence():
    with pytest.raises(ValueError, match="--host no host is no name or address of this machine"):
        check_address("no host", 7860)
    with pytest.raises(ValueError, match="--host 192.0.2.1 is no address of this machine"):
        check_address("192.0.2.1", 7860)  # of documents, and of no machine


GONE = "gone"


class Client:
    """One request to an application behind it, which reads the body and answers its length."""

    def __init__(self, uploads, *, max_megabytes=1, mcp=False, local_host="127.0.0.1"):
        self.received, max_bytes = None, max_megabytes * MEGABYTE
        self.access = AccessControl(
            self.read, max_bytes=max_bytes, uploads=str(uploads), mcp=mcp, local_host=local_host
        )

    async def read(self, scope, receive, send):
        self.received = 0
        while True:
            message = await receive()
            self.received += len(message.get("body", b""))
            if not message.get("more_body"):
                break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    def request(self, method, path, chunks=(b"",), headers=()):
        self.received, sent, waiting = None, [], iter(chunks)

        async def receive():
            chunk = next(waiting, None)
            if chunk is None:  # the client is silent
                await asyncio.sleep(60)
            if chunk is GONE:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": chunk, "more_body": True if chunk else False}

        async def send(message):
            sent.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
        asyncio.run(self.access(scope, receive, send))
        return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.fixture
def client(tmp_path):
    return Client(tmp_path)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/config",
        "/assets/index.js",
        "/theme.css",
        "/gradio_api/info",
        "/gradio_api/queue/join",
        "/gradio_api/call/score",
        "/gradio_api/call/score/0a1b",
        "/gradio_api/upload",
        "/gradio_api/heartbeat/abc1",
    ],
)
def test_paths_of_the_page_are_open(client, path):
    assert client.request("GET", path) == (200, {})


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/proxy=http://127.0.0.1/",
        "/gradio_api/deep_link",
        "/gradio_api/component_server",
        "/gradio_api/run/score",
        "/gradio_api/api/score",
        "/gradio_api/run-history/buckets",
        "/gradio_api/vibe-edit",
        "/gradio_api/process_recording",
        "/gradio_api/mcp/",
        "/gradio_api/stream/abc",
        "/monitoring",
        "/login",
        "/v1/other",
        "//v1/score",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_paths_are_closed(client, method, path):
    status, answer = client.request(method, path)
    assert status == 404 and "POST /v1/score" in answer["error"] and client.received is None


def test_the_tool_has_paths_only_where_it_is_wanted(tmp_path):
    assert Client(tmp_path, mcp=True).request("POST", "/gradio_api/mcp/") == (200, {})


def test_a_route_takes_its_own_methods_alone(client):
    assert client.request("GET", "/v1/score") == (405, {"error": "/v1/score takes POST, got GET."})
    assert client.request("POST", "/healthz")[0] == 405
    assert client.request("POST", "/v1/score") == (200, {}) == client.request("GET", "/healthz")


def test_only_files_of_uploads_are_handed_out(tmp_path):
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"a")
    (tmp_path / "secret.txt").write_bytes(b"b")
    os.symlink(tmp_path / "secret.txt", folder / "link.png")
    client, start = Client(folder), "/gradio_api/file="
    assert client.request("GET", f"{start}{folder}/a.png") == (200, {})
    for path in (
        f"{folder}/../secret.txt",
        f"{folder}/link.png",
        str(folder),
        "/etc/passwd",
        "http://127.0.0.1/",
        "\0",
    ):
        assert client.request("GET", start + path) == (403, {"error": "No such upload."}), path


def test_a_body_is_counted_as_it_comes(client):
    chunk = b"x" * (MEGABYTE // 2)
    status, answer = client.request("POST", "/v1/score", iter(lambda: chunk, None))  # it has no end
    assert (status, answer) == (
        413,
        {"error": "A request may have 25 megabytes in all. Send fewer or smaller pictures at a time."},
    )
    assert client.received == 25 * MEGABYTE


def test_a_body_without_files_is_small(client):
    chunk = b"x" * (MEGABYTE // 2)
    assert client.request("POST", "/gradio_api/queue/join", [chunk, chunk, b"x"])[0] == 413
    assert client.request("POST", "/gradio_api/queue/join", [chunk, chunk, b""])[0] == 200
    assert client.request("POST", "/gradio_api/upload", [chunk, chunk, chunk, b""])[0] == 200


def test_a_length_that_is_told_is_refused_before_the_body(client):
    told = [(b"content-length", str(26 * MEGABYTE).encode())]
    assert client.request("POST", "/v1/score", headers=told)[0] == 413 and client.received is None


def test_a_body_that_does_not_come_is_ended(client, monkeypatch):
    monkeypatch.setattr(access, "UPLOAD_SECONDS", 0.05)
    status, answer = client.request("POST", "/v1/score", [b"x"])
    assert status == 408 and client.received == 1 and answer["error"].startswith("The request did not come")


def test_a_request_that_breaks_off_is_no_defect(client):
    assert client.request("POST", "/v1/score", [b"x", GONE]) == (400, {"error": "The request broke off."})


def head(**values):
    return [(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()]


@pytest.mark.parametrize(
    "headers",
    [
        head(host="evil.example:7860"),  # a name that leads to this machine
        head(host="evil.example", origin="http://evil.example"),
        head(host="127.0.0.1.evil.example"),
        head(host="127.0.0.1:7860@evil.example"),
        head(host="[::1"),
        head(host="localhost:7860", origin="http://evil.example"),
        head(host="localhost:7860", origin="null"),
        head(host="localhost:7860", origin="http://localhost:3000"),
        head(host="localhost:7860", sec_fetch_site="cross-site"),
        head(host="localhost:7860", sec_fetch_site="same-site", sec_fetch_mode="cors"),
        head(host="localhost:7860", sec_fetch_site="cross-site", sec_fetch_mode="navigate"),
    ],
)
def test_pages_elsewhere_do_not_use_a_server(client, headers):
    status, answer = client.request("POST", "/v1/score", headers=headers)
    assert status == 403 and client.received is None and list(answer) == ["error"]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        *(head(host=name) for name in ("127.0.0.1:7860", "localhost", "LOCALHOST:1", "[::1]:7860", "127.0.0.1")),
        head(host="localhost:7860", origin="http://localhost:7860", sec_fetch_site="same-origin"),
        head(host="localhost:7860", origin="http://localhost:7860"),
        head(host="localhost:7860", sec_fetch_site="none", sec_fetch_mode="navigate"),
        head(host="localhost:7860", origin="https://q.example", x_forwarded_host="q.example"),  # by a proxy
    ],
)
def test_the_page_itself_and_programs_use_a_server(client, headers):
    assert client.request("POST", "/v1/score", headers=headers) == (200, {})


def test_a_link_elsewhere_leads_to_the_page(client):
    link = head(host="localhost:7860", sec_fetch_site="cross-site", sec_fetch_mode="navigate")
    assert client.request("GET", "/", headers=link) == (200, {})
    assert (
        client.request("GET", "/healthz", headers=head(sec_fetch_site="cross-site", sec_fetch_mode="no-cors"))[0]
        == 403
    )


def test_a_server_for_others_has_any_name(tmp_path):
    client = Client(tmp_path, local_host=None)
    assert client.request("POST", "/v1/score", headers=head(host="q.example")) == (200, {})
    assert client.request("POST", "/v1/score", headers=head(host="q.example", origin="http://evil.example"))[0] == 403


def test_a_name_of_its_own_is_known_on_this_machine(tmp_path):
    client = Client(tmp_path, local_host="My-Laptop")
    assert client.request("POST", "/v1/score", headers=head(host="my-laptop:7860")) == (200, {})


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("::", False)])
def test_addresses_of_this_machine_alone_are_known(host, expected):
    assert is_loopback(host) is expected
    assert ServeSettings(host=host).host_in_address == (f"[{host}]" if ":" in host else host)


def test_a_full_disk_is_one_sentence(client):
    async def fail(scope, receive, send):
        raise OSError(errno.ENOSPC, "No space left on device")

    client.access.app = fail
    status, answer = client.request("POST", "/v1/score")
    assert status == 507 and answer["error"].startswith("The disk of the server is full.")
