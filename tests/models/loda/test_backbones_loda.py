# SPDX-License-Identifier: Apache-2.0
"""Networks of timm on the Hub: files that a repository lacks, and a Hub that cannot be reached."""

import json
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import httpx

from musiq_hf.models.loda.backbones_loda import find_file, load_vit

NAME = "timm/some_vit"
UNREACHABLE = f"{NAME}: there is no such folder, and no such model on the Hub that can be reached from here"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """Hub with one repository, whose files lie in `folder`, unless it `is_offline`."""
    repository, commit = tmp_path / "cache" / "models--timm--some_vit", "0" * 40
    state = SimpleNamespace(folder=repository / "snapshots" / commit, is_offline=False)
    state.folder.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)

    def download(name, file, **_):
        response = httpx.Response(404, request=httpx.Request("GET", "http://127.0.0.1"))
        if state.is_offline:
            raise LocalEntryNotFoundError("offline")
        if name != NAME:
            raise RepositoryNotFoundError("unknown", response=response)
        if not (state.folder / file).is_file():
            raise RemoteEntryNotFoundError("no such file", response=response)

    monkeypatch.setattr("transformers.utils.hub.hf_hub_download", download)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return state


def test_a_repository_may_lack_one_of_the_files(hub):
    (hub.folder / "config.json").write_text(json.dumps({"architecture": "some_vit"}))
    assert find_file(NAME, "model.safetensors") is None
    with pytest.raises(ValueError, match=f"{NAME} holds neither model.safetensors nor pytorch_model.bin"):
        load_vit(NAME)
    torch.save({"head.weight": torch.ones(2)}, hub.folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=f"{NAME} holds no vision Transformer of timm"):  # so it was read
        load_vit(NAME)


def test_what_cannot_be_reached_is_one_sentence(hub, tmp_path):
    with pytest.raises(ValueError, match=UNREACHABLE):  # no config.json
        load_vit(NAME)
    with pytest.raises(ValueError, match=UNREACHABLE.replace("some", "other")):
        load_vit("timm/other_vit")
    hub.is_offline = True
    with pytest.raises(ValueError, match=UNREACHABLE + r".*, which `--vit` and `--cnn` take as well\.$"):
        load_vit(NAME)
    with pytest.raises(ValueError, match=r"holds no config.json\. Give an id on the Hub, a folder"):
        load_vit(tmp_path)
