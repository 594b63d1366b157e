# SPDX-License-Identifier: Apache-2.0
"""The page's own API: scores, and what it refuses on every way in. It needs the extra `serve`."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from app_server import MODELS
from places import ROOT

gradio_client = pytest.importorskip("gradio_client")
httpx = pytest.importorskip("httpx")

PHOTO = ROOT / "examples" / "pictures" / "rocket_blurred.jpg"
META = {"_type": "gradio.FileData"}


@pytest.fixture(scope="module")
def client(server):
    return gradio_client.Client(server.url, verbose=False)


@pytest.fixture(scope="module")
def events(server):
    """Events of the page: the number of each, and the kinds of its inputs."""
    config = httpx.get(f"{server.url}/config").json()
    kinds = {component["id"]: component["type"] for component in config["components"]}
    return {one["id"]: [kinds[key] for key in one["inputs"]] for one in config["dependencies"] if one["backend_fn"]}


@pytest.fixture(scope="module")
def stranger():
    """A server that is nobody's business; it notes who calls."""
    calls = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            calls.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(PHOTO.read_bytes())

        def log_message(self, *words):
            pass

    running = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}/secret.jpg", calls
    running.shutdown()


def wait_for(url, **params):
    """Read a stream of messages to its end."""
    with httpx.stream("GET", url, params=params, timeout=60) as stream:
        for line in stream.iter_lines():
            if line.startswith("data: ") and line != "data: null":
                message = json.loads(line.removeprefix("data: "))
                if isinstance(message, dict) and message.get("msg") == "process_completed":
                    return message
    return message


def run_event(server, number, data):
    """Run an event of the page as a browser does, and return its success and its whole answer."""
    body = {"data": data, "fn_index": number, "session_hash": f"s{number}x"}
    joined = httpx.post(f"{server.url}/gradio_api/queue/join", json=body, timeout=60)
    if joined.status_code != 200:
        return False, joined.text
    message = wait_for(f"{server.url}/gradio_api/queue/data", session_hash=body["session_hash"])
    return message["success"], json.dumps(message)


def fill(kinds, index, payload):
    """Make the inputs of an event: the payload in one of them, and in the others what belongs there."""
    values = {"image": None, "file": [], "dropdown": MODELS[0]}
    data = [values[kind] for kind in kinds]
    data[index] = [payload] if kinds[index] == "file" else payload
    return data


def test_scores_are_those_of_the_command_for_every_kind_of_picture(client, kinds, expected):
    for name, path in kinds.items():
        for model in MODELS:
            row = client.predict(gradio_client.handle_file(path), model, api_name="/score")
            assert row["score"] == pytest.approx(expected[name, model], abs=1e-3), name
            assert row["key"] == name and row["signature"].startswith(f"{model}|")


def test_the_api_has_one_endpoint(client):
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/score"]


def test_a_broken_file_is_a_row_with_the_name_of_the_upload(client, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    row = client.predict(gradio_client.handle_file(broken), MODELS[0], api_name="/score")
    assert row["score"] is None and row["error"].startswith("broken.jpg: not a picture")


@pytest.mark.parametrize(("picture", "model"), [(None, MODELS[0]), (PHOTO, "other")])
def test_mistakes_of_a_client_are_sentences(client, picture, model):
    file = None if picture is None else gradio_client.handle_file(picture)
    with pytest.raises((gradio_client.exceptions.AppError, ValueError), match="A picture is needed|other"):
        client.predict(file, model, api_name="/score")


def foreign(stranger, server):
    """What a client may try in place of an upload."""
    url, _ = stranger
    own = f"{server.url}/gradio_api/file={PHOTO}"
    paths = (str(PHOTO), "/etc/passwd", f"{server.temporary}/../{PHOTO}", "/etc/pass\0wd", "")
    for path in (*paths, url, own, url.replace("127.0.0.1", "localhost"), "file:///etc/passwd"):
        yield {"path": path, "orig_name": "x.jpg"}
        yield {"path": path, "orig_name": "x.jpg", "meta": META}
        yield {"path": path, "url": url, "orig_name": "x.jpg", "meta": META}
        yield {"path": path, "is_stream": True, "meta": META}
    yield {"url": url, "meta": META}
    yield {"url": f"data:image/png;base64,{'A' * 40}"}
    yield str(PHOTO)
    yield url


def test_every_event_refuses_files_of_the_server_and_addresses(server, events, stranger):
    tried = 0
    for number, kinds in events.items():
        for index, kind in enumerate(kinds):
            for payload in foreign(stranger, server):
                success, answer = run_event(server, number, fill(kinds, index, payload))
                shown = answer.replace("\\u", "")
                assert not success, (number, kind, payload, answer[:300])
                assert "mq-score" not in shown and "signature" not in shown and "root:" not in shown
                tried += 1
    assert tried > 300 and stranger[1] == []


def test_the_simple_way_in_refuses_them_too(server, stranger):
    for way in ("call", "call/v2"):
        for payload in foreign(stranger, server):
            body = {"data": [payload, MODELS[0]]} if way == "call" else {"picture": payload, "model": MODELS[0]}
            asked = httpx.post(f"{server.url}/gradio_api/{way}/score", json=body, timeout=60)
            if asked.status_code == 200:
                stream = httpx.get(f"{server.url}/gradio_api/call/score/{asked.json()['event_id']}", timeout=60).text
                assert "event: error" in stream and "event: complete" not in stream, (way, payload, stream)
    assert stranger[1] == []


def test_refusals_say_what_to_do(server, events):
    number = next(number for number, kinds in events.items() if kinds == ["image", "dropdown"])
    _, answer = run_event(server, number, [{"path": "/etc/passwd"}, MODELS[0]])
    assert "Upload the picture itself." in answer
    _, answer = run_event(server, number, [{"path": "http://127.0.0.1/a.jpg", "meta": META}, MODELS[0]])
    assert "Addresses are not fetched here." in answer


def test_an_upload_that_is_too_large_is_refused(server):
    answer = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("a.jpg", b"x" * 2_100_000)})
    assert answer.status_code == 413


def test_no_file_of_the_server_is_handed_out(server):
    upload = httpx.post(f"{server.url}/gradio_api/upload", files={"files": ("a.jpg", PHOTO.read_bytes())})
    (path,) = upload.json()
    assert httpx.get(f"{server.url}/gradio_api/file={path}").content == PHOTO.read_bytes()
    for other in (PHOTO, "/etc/passwd", f"{path}/../../../../../../etc/passwd", f"{server.url}/healthz"):
        assert httpx.get(f"{server.url}/gradio_api/file={other}").status_code == 403


def test_no_interface_file_is_written_beside_the_source():
    assert not list(Path(ROOT / "musiq_hf").rglob("*.pyi"))
