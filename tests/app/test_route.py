# SPDX-License-Identifier: Apache-2.0
"""`POST /v1/score` of a server that runs: rows, mistakes and limits. It needs the extra `serve`."""

import asyncio
import io
import json
import re
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
from app_server import MODELS, start, stop
from PIL import Image
from places import ROOT

from musiq_hf.app.settings import ServeSettings

pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")

PHOTO = ROOT / "examples" / "pictures" / "rocket_blurred.jpg"


def post(server, files=(), **options):
    parts = [("files", (name, content)) for name, content in files] or None
    return httpx.post(f"{server.url}/v1/score", files=parts, timeout=120, **options)


def test_scores_are_those_of_the_command_for_every_kind_of_picture(server, kinds, expected):
    for model in MODELS:
        answer = post(server, [(name, path.read_bytes()) for name, path in kinds.items()], data={"model": model})
        rows = answer.json()["rows"]
        assert answer.status_code == 200 and [row["key"] for row in rows] == list(kinds)
        for row in rows:
            assert row["score"] == pytest.approx(expected[row["key"], model], abs=1e-3), row["key"]
            assert row["model"] == model and row["signature"].startswith(f"{model}|weights:")
            assert 0 <= row["percentile"] <= 100 and 1 <= row["stars"] <= 5


def test_without_a_model_the_first_one_scores(server):
    (row,) = post(server, [("a.jpg", PHOTO.read_bytes())]).json()["rows"]
    assert row["model"] == MODELS[0] and (row["width"], row["height"]) == (640, 427)


def test_broken_files_are_rows_with_the_name_of_the_upload(server):
    name = "<b>x</b>.jpg"
    answer = post(server, [(name, b"no picture"), ("empty.png", b""), ("a.jpg", PHOTO.read_bytes())])
    rows = answer.json()["rows"]
    assert answer.status_code == 200 and [row["score"] is None for row in rows] == [True, True, False]
    assert rows[0]["error"].startswith(f"{name}: not a picture") and rows[1]["error"].startswith("empty.png: an empty")


@pytest.mark.parametrize(
    ("options", "status", "sentence"),
    [
        ({"json": {"files": ["/etc/passwd"]}}, 415, "The request must be a form (multipart/form-data)."),
        ({"data": {"files": "/etc/passwd"}}, 415, "The request must be a form"),
        ({}, 415, "The request must be a form"),
        ({"files": {"model": (None, MODELS[0])}}, 400, "The form has no picture."),
        ({"files": {"files": (None, str(PHOTO))}}, 400, "The field `files` takes pictures, got a text."),
        ({"files": {"files": (None, "http://127.0.0.1/")}}, 400, "The field `files` takes pictures, got a text."),
        (
            {"files": {"file": ("a.jpg", b"x")}},
            400,
            "The form has the unknown field 'file'; known are files and model",
        ),
        ({"files": {"model": ("a.jpg", b"x")}}, 400, "The field `model` takes the name of a checkpoint, got a file."),
        ({"files": {"files": ("a.jpg", b"x")}, "data": {"model": "other"}}, 400, "other: no such checkpoint here."),
        ({"files": {"files": ("a.jpg", b"x")}, "data": {"model": list(MODELS)}}, 400, "The field `model` is given 2"),
        ({"files": [("files", ("a.jpg", b"x"))] * 101}, 400, "The form cannot be read (Too many files."),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "The form cannot be read"),
        ({"files": {"files": ("a.jpg", b"x" * 2_100_000)}}, 413, "a.jpg: a file may have 2 megabytes."),
        ({"files": [("files", ("a.jpg", b"x" * 1_990_000))] * 26}, 413, "A request may have 50 megabytes in all."),
    ],
)
def test_a_mistake_has_a_status_and_one_sentence(server, options, status, sentence):
    answer = httpx.post(f"{server.url}/v1/score", timeout=60, **options)
    assert answer.status_code == status and list(answer.json()) == ["error"]
    assert answer.json()["error"].startswith(sentence)


def test_a_file_of_too_many_pixels_is_a_row_that_names_both_numbers(server):
    file = io.BytesIO()
    Image.new("1", (8000, 8000)).save(file, "PNG")
    (row,) = post(server, [("x.png", file.getvalue())]).json()["rows"]
    assert row["error"] == "x.png: 8000x8000 pixels are 64 megapixels, and the limit is 12.5. Send a smaller copy."


def test_the_description_lists_the_route_alone(server):
    schema = httpx.get(f"{server.url}/openapi.json").json()
    assert list(schema["paths"]) == ["/v1/score"]
    form = schema["paths"]["/v1/score"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert form["properties"]["model"]["enum"] == list(MODELS)
    answered = post(server, [("a.jpg", PHOTO.read_bytes())]).json()["rows"][0]
    row = schema["components"]["schemas"]["Rows"]["properties"]["rows"]["items"]["properties"]
    assert set(answered) == set(row)
    assert "POST /v1/score" in httpx.get(f"{server.url}/docs").text


def test_health_tells_the_signatures(server):
    health = httpx.get(f"{server.url}/healthz").json()
    assert health["status"] == "ok" and [one["model"] for one in health["models"]] == list(MODELS)
    assert all(one["signature"].startswith(f"{one['model']}|") for one in health["models"])


def connect(server):
    address = urlsplit(server.url)
    return socket.create_connection((address.hostname, address.port), timeout=30)


def test_a_slow_client_blocks_nobody(server):
    head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    slow, printed = [connect(server) for _ in range(20)], server.log.read_text()
    try:
        for client in slow:
            client.sendall(head + b"Content-Length: 100000\r\n\r\n--b\r\n")
        start_time = time.monotonic()
        assert post(server, [("a.jpg", PHOTO.read_bytes())]).status_code == 200
        assert time.monotonic() - start_time < 20  # seconds; those clients are given 300
        for client in slow:
            client.sendall(b"C")  # they are still there
    finally:
        for client in slow:
            client.close()
    assert post(server, [("a.jpg", PHOTO.read_bytes())]).status_code == 200
    assert server.log.read_text() == printed  # a client that breaks off is no defect


@pytest.mark.parametrize("has_gone", [False, True])
def test_a_client_that_has_gone_while_it_waited_is_not_scored(has_gone):
    from starlette.requests import Request

    from musiq_hf.app.route import ScoreRoute

    class Service:
        num_scored = 0

        def make_picture(self, name, read):
            return name

        def find(self):
            return None

        def score(self, pictures, checkpoint):
            self.num_scored += len(pictures)
            return pictures

    asked = httpx.Request("POST", "http://x/v1/score", files={"files": ("a.jpg", b"x")})
    messages = [{"type": "http.request", "body": asked.read(), "more_body": False}]
    messages += [{"type": "http.disconnect"}] * has_gone

    async def receive():
        return messages.pop(0) if messages else await asyncio.sleep(60)

    headers = [(name.lower(), value) for name, value in asked.headers.raw]
    request = Request({"type": "http", "method": "POST", "path": "/v1/score", "headers": headers}, receive)
    service = Service()
    answer = asyncio.run(ScoreRoute(service, ServeSettings()).answer(request))
    assert (answer.status_code, service.num_scored) == ((400, 0) if has_gone else (200, 1))


def test_an_endless_body_is_ended(server):
    head = b"POST /v1/score HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    head += b"Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    part = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
    chunk = b"%x\r\n%s\r\n" % (1_000_000, b"x" * 1_000_000)
    with connect(server) as client:
        client.sendall(head + b"%x\r\n%s\r\n" % (len(part), part))
        num_sent = 0
        try:
            while num_sent < 500:  # megabytes; the limit is 50
                client.sendall(chunk)
                num_sent += 1
        except OSError:
            pass
        assert num_sent < 150  # what the system holds on the way counts too
    assert post(server, [("a.jpg", PHOTO.read_bytes())]).status_code == 200


def test_more_requests_than_may_wait_are_refused_and_none_is_lost(tmp_path):
    server = start(tmp_path, "-m", MODELS[1], "--queue", "2")
    try:
        with ThreadPoolExecutor(12) as pool:
            content = PHOTO.read_bytes()
            answers = list(pool.map(lambda index: post(server, [(f"{index}.jpg", content)] * 4), range(12)))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 503} and statuses.count(200) >= 3
        refused = next(answer for answer in answers if answer.status_code == 503)
        assert refused.json() == {"error": "2 requests are waiting already. Try again in a few seconds."}
        assert int(refused.headers["retry-after"]) > 0
    finally:
        stop(server)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_that_ends_leaves_nothing(tmp_path, number):
    server = start(tmp_path, "-m", MODELS[1])
    upload = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("a.jpg", PHOTO.read_bytes())})
    (path,) = upload.json()
    assert path.startswith(str(tmp_path)) and list(tmp_path.iterdir())
    folder = next(tmp_path.glob("musiq-serve-*"))
    assert folder.stat().st_mode & 0o077 == 0  # nobody else reads it
    server.process.send_signal(number)
    server.process.wait(timeout=60)
    printed = server.log.read_text()
    assert server.process.returncode == 0 and printed.endswith("musiq serve: stopped.\n")
    assert re.fullmatch(r"musiq serve: http://127\.0\.0\.1:\d+/ \(Ctrl-C ends it\)", printed.splitlines()[0])
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_reported_or_shared(server):
    config = httpx.get(f"{server.url}/config").json()
    assert config["analytics_enabled"] is False
    assert "share" not in json.dumps(httpx.get(f"{server.url}/healthz").json())
    assert httpx.get(f"{server.url}/").text.count("googleapis") == 0
