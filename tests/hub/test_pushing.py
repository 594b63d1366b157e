# SPDX-License-Identifier: Apache-2.0
"""What an upload leaves in a repository that holds something already: nothing that holds no longer."""

import json
import re

import pytest
from fake_hub import TOKEN, FakeHub, check_card
from isolated import run_isolated, save_picture

from musiq_hf import TINY_CHECKPOINT

pytestmark = pytest.mark.slow  # many uploads of whole checkpoints

SCRIPT = """
import shutil
from pathlib import Path

import musiq_hf
from huggingface_hub import HfApi

published = os.environ["PUBLISHED"]

def load(folder=published):
    return AutoModel.from_pretrained(folder)

def load_square():
    processor = AutoImageProcessor.from_pretrained(published)
    processor.resize_mode = "square"
    return processor

def put_card(repository, content):
    HfApi().upload_file(path_or_fileobj=content, path_in_repo="README.md", repo_id=repository)

pipe = pipeline("image-quality-assessment", model=published)
pipe.image_processor = load_square()
pipe.push_to_hub("someone/pipeline")

model = load()
model.push_to_hub("someone/config")
model.config.score_scale = 2.0
model.config.push_to_hub("someone/config")

load().push_to_hub("someone/processor")
load_square().push_to_hub("someone/processor")

load().push_to_hub("someone/weights")
model = load()
with torch.no_grad():
    model.head.classifier.bias.add_(1.0)
model.push_to_hub("someone/weights")

load().push_to_hub("someone/sharded")
load().push_to_hub("someone/sharded", max_shard_size="1MB")
load().push_to_hub("someone/whole", max_shard_size="1MB")
load().push_to_hub("someone/whole")

load().push_to_hub("someone/edited")
put_card("someone/edited", b"---\\nlicense: apache-2.0\\n---\\n# By hand\\n\\n## Results\\n\\n0.9\\n")
load().push_to_hub("someone/edited")
result["kept"] = HfApi().hf_hub_download("someone/edited", "README.md")
result["kept"] = Path(result["kept"]).read_text()
load_square().push_to_hub("someone/edited")
AutoModel.from_pretrained("someone/edited").save_pretrained("without results")

shutil.copytree(published, "earlier")
Path("earlier", "calibration.json").unlink()
Path("earlier", "README.md").write_text("---\\nlicense: apache-2.0\\n---\\n# By hand\\n")
load("earlier").push_to_hub("someone/earlier")
result["earlier"] = HfApi().list_repo_files("someone/earlier")
load().push_to_hub("someone/earlier")

for name, card in {
    "latin": b"---\\nlicense: mit\\n---\\n# caf\\xe9\\n",
    "broken": b"---\\nlicense: [mit\\n---\\n# Mine\\n",
    "headless": b"# Mine\\n",
}.items():
    shutil.copytree(published, name)
    Path(name, "README.md").write_bytes(card)
    load(name).push_to_hub("someone/" + name, tags=["mine"])
    load_square().push_to_hub("someone/" + name)

AutoImageProcessor.from_pretrained(published).push_to_hub("someone/alone")
result["alone"] = Path(HfApi().hf_hub_download("someone/alone", "README.md")).read_text()
AutoImageProcessor.from_pretrained(published).push_to_hub("someone/filled")
put_card("someone/filled", result["alone"].replace("alone", "filled").encode() + b"Mine.\\n")
load().push_to_hub("someone/filled")
HfApi().create_repo("someone/blank")
blanks = 39 * "[More Information Needed]\\n"
put_card("someone/blank", ("---\\nlicense: mit\\n---\\n# Model Card\\n" + blanks).encode())
load().push_to_hub("someone/blank")
load().push_to_hub("someone/alone")

shutil.copytree(published, "local")
Path("local", "README.md").write_text("---\\nlicense: mit\\n---\\n# By hand\\n")
given = load("local")
given.config.score_scale = 2.0
given.save_pretrained("local", push_to_hub=True, repo_id="someone/local")
result["local"] = Path("local", "README.md").read_text()

given.save_pretrained("none", is_main_process=False, push_to_hub=True, repo_id="someone/none")

HfApi().create_repo("someone/below")
for path in Path(published).iterdir():
    HfApi().upload_file(path_or_fileobj=path, path_in_repo="x/" + path.name, repo_id="someone/below")
AutoModel.from_pretrained("someone/below", subfolder="x", cache_dir="cache").save_pretrained("fetched")
for offline in (False, True):
    choices = {"subfolder": "x", "cache_dir": "other", "local_files_only": offline}
    model = AutoModel.from_pretrained("someone/below", **choices)
model.save_pretrained("unreachable")
"""
RESULTS = {"metrics.json", "self_test.json", "calibration.json"}
NOTE = "Weights or settings were changed after this card was written"


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pushing")
    with FakeHub() as hub:
        places = {"home": folder / "home", "cwd": folder, "picture": save_picture(folder / "picture.png")}
        variables = {"HF_TOKEN": TOKEN, "PUBLISHED": str(TINY_CHECKPOINT), "HF_HUB_DISABLE_XET": "1"}
        report = run_isolated(SCRIPT, package=True, endpoint=hub.url, **places, **variables)
        yield hub, report, folder


def read_card(hub, name):
    card = hub.files(f"someone/{name}")["README.md"].decode()
    assert check_card(card) == []
    return card


@pytest.mark.parametrize("name", ["pipeline", "config", "processor", "weights"])
def test_no_result_from_before_a_change_stays_in_a_repository(name, pushed):
    files, card = pushed[0].files(f"someone/{name}"), read_card(pushed[0], name)
    assert not RESULTS & set(files)
    assert card.count(NOTE) == 1 and "0.8062" not in card and "21.1383" not in card
    settings = json.loads(files["preprocessor_config.json"]), json.loads(files["config.json"])
    assert (settings[0]["resize_mode"] == "square") == (name in ("pipeline", "processor"))
    assert (settings[1]["score_scale"] == 2.0) == (name == "config")


def test_a_repository_holds_the_layout_of_weights_that_was_written_last(pushed):
    sharded, whole = (set(pushed[0].files(f"someone/{name}")) for name in ("sharded", "whole"))
    assert "model.safetensors.index.json" in sharded and "model.safetensors" not in sharded and RESULTS <= sharded
    assert {name for name in whole if "safetensors" in name} == {"model.safetensors"} and RESULTS <= whole


def test_the_snippet_of_a_card_names_the_owner(pushed):
    for name in ("whole", "sharded", "weights"):
        assert re.findall(r'model="(.*?)"', read_card(pushed[0], name)) == [f"someone/{name}"]


def test_a_card_that_was_edited_on_the_hub_stays(pushed):
    hub, report, _ = pushed
    assert report["kept"] == "---\nlicense: apache-2.0\n---\n# By hand\n\n## Results\n\n0.9\n"
    assert NOTE in read_card(hub, "edited") and "## Results" in read_card(hub, "edited")


def test_a_result_that_a_repository_lacked_comes_without_a_note_of_a_change(pushed):
    hub, report, _ = pushed
    assert RESULTS - set(report["earlier"]) == {"calibration.json"} and RESULTS <= set(hub.files("someone/earlier"))
    card = read_card(hub, "earlier")
    assert "# By hand" in card and NOTE not in card


def test_damaged_cards_do_not_stop_an_upload(pushed):
    for name, words in {"latin": "# café", "broken": "license: [mit", "headless": "# Mine"}.items():
        card = read_card(pushed[0], name)
        assert words in card and "- mine\n" in card and NOTE in card


def test_a_processor_alone_has_a_card_about_itself_until_a_model_comes(pushed):
    hub, report, _ = pushed
    assert "AutoImageProcessor" in report["alone"] and "AutoModel" not in report["alone"]
    assert "Pristine pictures: 24" in read_card(hub, "alone")


def test_only_a_card_that_says_nothing_is_replaced(pushed):
    hub, report, _ = pushed
    assert read_card(hub, "filled") == report["alone"].replace("alone", "filled") + "Mine.\n"
    assert "Pristine pictures: 24" in read_card(hub, "blank")


def test_saving_with_an_upload_keeps_the_card_of_the_folder(pushed):
    hub, report, _ = pushed
    assert "# By hand" in report["local"] and NOTE in report["local"]
    assert read_card(hub, "local") == report["local"] and not RESULTS & set(hub.files("someone/local"))


def test_one_process_of_several_uploads(pushed):
    assert "someone/none" not in pushed[0].commits


def test_all_files_of_a_subfolder_on_the_hub_are_saved(pushed):
    names = {path.name for path in (pushed[2] / "fetched").iterdir()}
    assert {*RESULTS, "README.md", "preprocessor_config.json"} <= names


def test_files_that_cannot_be_fetched_are_named(pushed):
    _, report, folder = pushed
    said = "metrics.json of someone/below cannot be fetched, and is not saved: We couldn't connect to"
    assert report["stderr"].count(said) == 1
    assert "someone/edited cannot be fetched" not in report["stderr"]
    assert not RESULTS & {path.name for path in (folder / "unreachable").iterdir()}
