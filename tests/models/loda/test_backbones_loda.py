# SPDX-License-Identifier: Apache-2.0
"""Networks of timm on the Hub: files that a repository lacks, and a Hub that cannot be reached."""

import json
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError, RemoteEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import httpx
from places import ROOT
from safetensors.torch import load_file, save_file
from transformers import AutoBackbone, AutoConfig, AutoModel

from musiq_hf.models.loda.backbones_loda import load_backbone, load_vit
from musiq_hf.models.loda.reading_loda import find_file
from musiq_hf.models.loda.timm_loda import check_architecture, read_vit

SIZES = json.loads((ROOT / "tests" / "models" / "loda" / "tiny.json").read_text())
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
    with pytest.raises(ValueError, match=UNREACHABLE + r".*; command lines take them as well\.$"):
        load_vit(NAME)
    with pytest.raises(ValueError, match=r"holds no config.json\. Give an id on the Hub, a folder"):
        load_vit(tmp_path)


def test_weights_that_a_folder_lacks_are_never_made_up(tmp_path):
    kinds = {"vit": (load_vit, "layernorm.weight"), "cnn": (load_backbone, "embedder.embedder.normalization.bias")}
    for part, (load, lost) in kinds.items():
        config = AutoConfig.for_model(**SIZES[f"{part}_config"])
        network = AutoModel.from_config(config) if part == "vit" else AutoBackbone.from_config(config)
        network.save_pretrained(tmp_path / part)
        file = tmp_path / part / "model.safetensors"
        weights = load_file(file)
        load(tmp_path / part)
        del weights[lost]
        save_file(weights, file, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=f"lacks weights of a .*: {lost}. Download it again"):
            load(tmp_path / part)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "resnetaa50"}, "`resnetaa50` of timm, with anti-aliased pooling"),
        ({"architecture": "resnetblur50.bt_in1k"}, "with anti-aliased pooling"),
        ({"architecture": "vit_base_patch16_rpn_224"}, "with norms after their blocks"),
        ({"architecture": "vit_base_patch32_clip_quickgelu_224"}, "with another activation"),
        ({"architecture": "vit_x", "model_args": {"num_heads": 9, "img_size": 32}}, "not read: num_heads"),
    ],
)
def test_architectures_that_arrays_do_not_tell_are_refused(values, message, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        load_vit(tmp_path)


@pytest.mark.parametrize("name", ["vit_base_patch16_224.augreg2_in21k_ft_in1k", "resnet50.a1_in1k", "resnet18"])
def test_the_published_architectures_are_read(name):
    check_architecture({"architecture": name, "model_args": {"img_size": 224}}, source="x")


@pytest.mark.parametrize(("width", "heads"), [(768, 12), (1280, 16), (1664, 16), (48, 1)])
def test_heads_are_those_of_the_published_widths(width, heads):
    with torch.device("meta"):
        arrays = {
            "cls_token": torch.empty(1, 1, width),
            "pos_embed": torch.empty(1, 5, width),
            "patch_embed.proj.weight": torch.empty(width, 3, 14, 14),
            "blocks.0.mlp.fc1.weight": torch.empty(4 * width, width),
        }
    config, _ = read_vit(arrays)
    assert (config.num_attention_heads, config.image_size) == (heads, 28)
