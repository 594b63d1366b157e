# SPDX-License-Identifier: Apache-2.0
import pytest

from musiq_hf import MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.common.files import read_json
from musiq_hf.hub.checkpoints import save_checkpoint
from musiq_hf.hub.publishing import add_remote_code, check_upload, find_hub_id, upload
from musiq_hf.scoring import load_quality


@pytest.fixture
def directory(tmp_path, tiny_config):
    config = tiny_config()
    MusiqForImageQualityAssessment(config).save_pretrained(tmp_path)
    MusiqImageProcessor.from_config(config).save_pretrained(tmp_path)
    return tmp_path


def test_code_files_import_only_each_other_and_are_renewed(directory):
    names = add_remote_code(directory)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    assert set(names) | {"config.json", "preprocessor_config.json", "model.safetensors"} == set(before)
    for name in names:
        lines = (directory / name).read_text().splitlines()
        assert {line.split()[1][1:] + ".py" for line in lines if line.startswith("from .")} <= set(names), name
    (directory / "encoder_musiq.py").write_text("stale")
    assert add_remote_code(directory) == names
    assert {path.name: path.read_bytes() for path in directory.iterdir()} == before


@pytest.mark.parametrize(
    ("architecture", "autos", "tasks"),
    [
        (
            "MusiqForImageQualityAssessment",
            ["AutoModel", "AutoModelForImageClassification"],
            ["image-classification", "image-quality-assessment"],
        ),
        ("MusiqForImageClassification", ["AutoModel", "AutoModelForImageClassification"], []),
        ("MusiqModel", ["AutoModel"], []),
    ],
)
def test_json_files_name_existing_classes(directory, architecture, autos, tasks):
    config = read_json(directory / "config.json")
    (directory / "config.json").write_text(f'{{"architectures": ["{architecture}"], "hidden_size": 16}}')
    add_remote_code(directory)
    config, processor = read_json(directory / "config.json"), read_json(directory / "preprocessor_config.json")
    assert sorted(config["auto_map"]) == ["AutoConfig", *autos]
    assert {config["auto_map"][auto] for auto in autos} == {f"modeling_musiq.{architecture}"}
    assert sorted(config.get("custom_pipelines", {})) == tasks
    assert config["hidden_size"] == 16 and processor["patch_size"] == 8
    references = [*config["auto_map"].values(), *processor["auto_map"].values()]
    references += [task["impl"] for task in config.get("custom_pipelines", {}).values()]
    for reference in references:
        module, name = reference.split(".")
        assert f"class {name}(" in (directory / f"{module}.py").read_text()


def test_remote_code_needs_a_saved_model(tmp_path):
    with pytest.raises(ValueError, match="holds no config.json. Save model and image processor there first"):
        add_remote_code(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"`architectures` in .* must name one of .*, got None"):
        add_remote_code(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def make_pushed(tiny_model, folder):
    model = tiny_model()
    save_checkpoint(model, MusiqImageProcessor.from_config(model.config), folder, dtype="float32")
    return load_quality(str(folder))[0]


def test_uploads_are_checked_before_the_work(monkeypatch):
    for name in ("name", "a/b/c", "owner/na me", ""):
        with pytest.raises(ValueError, match="`push_to_hub` must be OWNER/NAME, got "):
            check_upload(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="the Hub does not know you .* Run `hf auth login` first"):
        check_upload("owner/name")


def test_a_failed_upload_tells_that_the_checkpoint_is_saved(tiny_model, tmp_path, monkeypatch):
    model, pushed = make_pushed(tiny_model, tmp_path), []
    monkeypatch.setattr(type(model), "push_to_hub", lambda model, repository: pushed.append(repository))
    upload(model, "owner/name", tmp_path)
    assert pushed == ["owner/name"]

    def fail(model, repository):
        raise ConnectionError("no network")

    monkeypatch.setattr(type(model), "push_to_hub", fail)
    with pytest.raises(ValueError, match="is saved in .*, but was not uploaded .no network.. .*hf upload owner/name"):
        upload(model, "owner/name", tmp_path)


def test_ids_of_the_hub_are_told_from_what_is_here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    names = ["someone/musiq", "runs/mine", "musiq-lite-biq2021", "scratch:musiq-tiny", "/data/a.csv", "a/b/*.parquet"]
    assert [find_hub_id(name) for name in names] == ["someone/musiq", *[None] * 5]
