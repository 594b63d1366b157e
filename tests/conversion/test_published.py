# SPDX-License-Identifier: Apache-2.0
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import golden
import pytest
from huggingface_hub import constants

from musiq_hf.conversion import published
from musiq_hf.conversion.command import main


@pytest.fixture
def storage(tmp_path, monkeypatch):
    """Public location with one checkpoint, on the loopback; yields its address and the list of requests."""
    content, requests = (golden.DIRECTORY / "golden" / "ckpt_tiny10.npz").read_bytes(), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            known = self.path == "/musiq/full_size_single_scale/ava_ckpt.npz"
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content if known else content[:100])

        def log_message(self, *arguments):
            pass

    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/musiq/", requests
    server.shutdown()
    server.server_close()


def test_published_checkpoint_is_downloaded_once_with_a_progress_bar(storage, tmp_path, capsys):
    location, requests = storage
    path = published.download("ava-single", location=location)
    assert path.read_bytes() == (golden.DIRECTORY / "golden" / "ckpt_tiny10.npz").read_bytes()
    assert published.download("ava-single", location=location) == path
    assert requests == ["/musiq/full_size_single_scale/ava_ckpt.npz"]
    assert "100%" in capsys.readouterr().err
    assert [file.name for file in (tmp_path / "home").rglob("*.npz*")] == ["ava_ckpt.npz"]


def test_failed_download_is_one_sentence_and_leaves_no_file(storage, tmp_path, capsys, monkeypatch):
    location, _ = storage
    with pytest.raises(ConnectionError, match=r"koniq_ckpt\.npz cannot be downloaded \(Client error '404"):
        published.download("koniq", location=location)
    with pytest.raises(ConnectionError, match=r"127.0.0.1:9/ava_ckpt\.npz cannot be downloaded \(.*\)\. Fetch it"):
        published.download("ava", location="http://127.0.0.1:9/")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    capsys.readouterr()
    assert main(["musiq-paq2piq", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("convert: ") and "paq2piq_ckpt.npz cannot be downloaded (HF_HUB_OFFLINE is set)" in error
    assert len(error.splitlines()) == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_published_names_and_addresses():
    public = "https://storage.googleapis.com/gresearch/musiq/"
    assert {name: published.url_of(name).removeprefix(public) for name in published.PUBLISHED} == {
        f"{name}{suffix}": f"{folder}{file}"
        for suffix, folder in (("", ""), ("-single", "full_size_single_scale/"))
        for name, file in {
            "koniq": "koniq_ckpt.npz",
            "spaq": "spaq_ckpt.npz",
            "paq2piq": "paq2piq_ckpt.npz",
            "ava": "ava_ckpt.npz",
            "imagenet": "imagenet_pretrain.npz",
        }.items()
    }
    assert published.published_name("musiq-ava-single") == "ava-single"
    assert published.dataset_of("someone/musiq-spaq") is published.DATASETS["spaq"]
    assert published.published_name("mine") is None and published.dataset_of("mine") is None
