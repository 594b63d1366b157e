# SPDX-License-Identifier: Apache-2.0
import json
from pathlib import Path

import pytest
import torch
from fake_hub import TOKEN, FakeHub, check_card
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError
from isolated import run_isolated, save_checkpoints, save_picture
from PIL import Image

from musiq_hf import MusiqConfig, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.hub.model_card import CheckpointCard
from musiq_hf.metrics.reports import Metrics, QualityReport

QUALITY = "MusiqForImageQualityAssessment"

# What an author does: push a model, upload a published directory, check its card, convert and push.
AUTHOR = """
import musiq_hf
from musiq_hf.conversion.command import main
from musiq_hf.conversion.original import to_original
from huggingface_hub import HfApi, ModelCard, constants, repocard
from pathlib import Path
from types import SimpleNamespace

plain, published, convertible = (os.environ[name] for name in ("PLAIN", "PUBLISHED", "CONVERTIBLE"))
AutoModel.from_pretrained(plain).push_to_hub("pushed")
AutoImageProcessor.from_pretrained(plain).push_to_hub("someone/pushed")

api = HfApi()
api.create_repo("someone/published")
commits = [str(api.upload_folder(repo_id="someone/published", folder_path=published)) for _ in range(2)]
result["second upload changes nothing"] = commits[0] == commits[1]

# huggingface_hub before 2.2 validates at huggingface.co, whatever the endpoint is.
post = repocard.get_session().post
at_endpoint = lambda url, **options: post(url.replace("https://huggingface.co", constants.ENDPOINT), **options)
repocard.get_session = lambda: SimpleNamespace(post=at_endpoint)
card = ModelCard.load(f"{published}/README.md")
card.validate()
card.data.pipeline_tag = "image-quality-assessment"
try:
    card.validate()
except ValueError as error:
    result["refused"] = str(error)

to_original(Path(convertible), Path("original.npz"))
flags = ["--longer_side_lengths", "16", "24", "--push_to_hub", "someone/converted"]
result["converter"] = main(["original.npz", "converted", *flags])
"""
# What a user does, by id; the same lines online and offline.
USER = """
import musiq_hf

autos.append(musiq_hf.AutoModelForImageQualityAssessment)
for name in ("musiq-koniq", "someone/pushed", "someone/published"):
    result[name] = load(name)
"""
USER_WITHOUT_PACKAGE = """
for name in ("someone/published", "someone/converted"):
    result[name] = load(name, trust_remote_code=True)
"""


def score_of(directory, picture):
    model = MusiqForImageQualityAssessment.from_pretrained(directory)
    with torch.no_grad():
        return model(**MusiqImageProcessor.from_pretrained(directory)(Image.open(picture))).scores.item()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def checkpoints(folder, tiny_model, tiny_config):
    checkpoints = save_checkpoints(folder, tiny_model, tiny_config)
    card = CheckpointCard(
        name="someone/published",
        config=MusiqConfig.from_pretrained(checkpoints["published"]),
        source="Random numbers.",
        training_data="None.",
        recipe="None.",
        metrics={
            "validation": QualityReport(num_pictures=3, overall=Metrics(srcc=0.5, plcc=0.5, krcc=0.5, rmse=9.0)),
        },
        datasets=["someone/pictures"],
    )
    card.save(checkpoints["published"])
    # The original's program has 32 groups, so its checkpoints need that many channels.
    checkpoints["convertible"] = folder / "convertible"
    model = tiny_model(patch_encoder_width=32, patch_encoder_groups=32)
    model.save_pretrained(checkpoints["convertible"])
    MusiqImageProcessor.from_config(model.config).save_pretrained(checkpoints["convertible"])
    return checkpoints


@pytest.fixture(scope="module")
def picture(folder):
    return save_picture(folder / "picture.png")


@pytest.fixture(scope="module")
def score(checkpoints, picture):
    return pytest.approx(score_of(checkpoints["plain"], picture), abs=1e-4)


@pytest.fixture(scope="module")
def hub(checkpoints):
    with FakeHub() as hub:
        hub.add("musiq-koniq", checkpoints["plain"])  # without a namespace, as the Hub's oldest repositories
        yield hub
        assert [request for request in hub.requests if request[2] >= 500] == []


@pytest.fixture(scope="module")
def authored(hub, checkpoints, picture, folder):
    names = {name: str(checkpoints[name.lower()]) for name in ("PLAIN", "PUBLISHED", "CONVERTIBLE")}
    cwd, home = folder / "author", folder / "author_home"
    cwd.mkdir()
    variables = names | {"HF_TOKEN": TOKEN}
    return run_isolated(AUTHOR, home=home, cwd=cwd, picture=picture, endpoint=hub.url, package=True, **variables)


@pytest.fixture(scope="module")
def downloaded(hub, authored, picture, folder):
    return run_isolated(USER, home=folder / "user_home", cwd=folder, picture=picture, endpoint=hub.url, package=True)


@pytest.fixture(scope="module")
def downloaded_code(hub, authored, picture, folder):
    return run_isolated(
        USER_WITHOUT_PACKAGE,
        home=folder / "bare_home",
        cwd=folder,
        picture=picture,
        endpoint=hub.url,
        package=False,
    )


def assert_scores(report, score, *, package):
    answers = {name: answer for name, answer in report.items() if name.startswith("Auto")}
    assert len(answers) == (3 if package else 2)
    for answer in answers.values():
        assert answer["class"] == QUALITY
        assert answer["module"].startswith("musiq_hf." if package else "transformers_modules.")
        assert answer["scores"] == [score]
    assert report["image-quality-assessment"] == score
    assert report["image-classification"] == score


def test_pushed_model_and_processor_arrive_with_a_card(hub, authored, checkpoints):
    files = hub.files("someone/pushed")
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "README.md"} <= set(files)
    assert files["model.safetensors"] == (checkpoints["plain"] / "model.safetensors").read_bytes()
    assert check_card(files["README.md"].decode()) == []


def test_uploaded_directory_arrives_whole_and_once(hub, authored, checkpoints):
    files = hub.files("someone/published")
    local = {path.name: path.read_bytes() for path in checkpoints["published"].iterdir()}
    assert {name: files[name] for name in local} == local
    assert authored["second upload changes nothing"] is True


def test_weights_travel_as_large_files(hub, authored, checkpoints):
    assert len(hub.paths("PUT", "/lfs/")) == 2  # the plain and the published ones are the same; the converted others
    assert set(hub.objects.values()) == {
        hub.files("someone/published")["model.safetensors"],
        hub.files("someone/converted")["model.safetensors"],
    }


def test_model_card_is_valid_and_an_unknown_task_would_not_be(hub, authored):
    assert "image-quality-assessment is not a task" in authored["refused"]


def test_converter_pushes_a_published_directory_with_its_card(hub, authored):
    assert authored["converter"] == 0
    files = hub.files("someone/converted")
    assert {"config.json", "model.safetensors", "modeling_musiq.py", "README.md"} <= set(files)
    assert "auto_map" in json.loads(files["config.json"])
    assert check_card(files["README.md"].decode()) == []


@pytest.mark.parametrize("name", ["musiq-koniq", "someone/pushed", "someone/published"])
def test_ids_load_with_the_package_in_a_fresh_cache(hub, downloaded, score, name):
    assert_scores(downloaded[name], score, package=True)
    assert len([path for path in hub.paths("GET", f"/{name}/resolve/") if path.endswith("model.safetensors")]) >= 1


@pytest.mark.slow
def test_published_id_loads_without_the_package_if_trusted(hub, downloaded_code, score):
    assert_scores(downloaded_code["someone/published"], score, package=False)


@pytest.mark.slow
def test_converted_id_scores_as_the_checkpoint_before_the_conversions(downloaded_code, checkpoints, picture):
    expected = pytest.approx(score_of(checkpoints["convertible"], picture), abs=1e-4)
    assert_scores(downloaded_code["someone/converted"], expected, package=False)


@pytest.mark.slow
def test_downloaded_ids_load_offline(hub, downloaded, score, picture, folder):
    before = len(hub.requests)
    offline = run_isolated(USER, home=folder / "user_home", cwd=folder, picture=picture, package=True)
    for name in ("musiq-koniq", "someone/pushed", "someone/published"):
        assert_scores(offline[name], score, package=True)
    assert len(hub.requests) == before


@pytest.mark.slow
def test_downloaded_code_runs_offline(hub, downloaded_code, score, picture, folder):
    before = len(hub.requests)
    offline = run_isolated(USER_WITHOUT_PACKAGE, home=folder / "bare_home", cwd=folder, picture=picture, package=False)
    assert_scores(offline["someone/published"], score, package=False)
    assert len(hub.requests) == before


def test_fake_hub_refuses_writers_without_a_token(hub):
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(endpoint=hub.url, token=False).create_repo("someone/else")
    assert "someone/else" not in hub.commits


def test_whole_repository_downloads_as_it_is(hub, checkpoints, tmp_path):
    assert HfApi(endpoint=hub.url, token=TOKEN).whoami()["name"] == "someone"
    copy = Path(snapshot_download("musiq-koniq", endpoint=hub.url, token=False, cache_dir=tmp_path))
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == {
        path.name: path.read_bytes() for path in checkpoints["plain"].iterdir()
    }


@pytest.mark.parametrize(
    ("card", "complaint"),
    [
        ("# No head", "empty or missing"),
        ("---\ntags: [a\n---\n", "invalid YAML"),
        ("---\n- a\n---\n", "not a mapping"),
        ("---\ntags: [1]\n---\n", '"tags" must be a list of strings'),
        ("---\nlicense: Apache License\n---\n", "not a licence identifier"),
        ("---\nmodel-index:\n- name: a\n  results:\n  - task: {type: a}\n---\n", "needs task, dataset and metrics"),
    ],
)
def test_fake_hub_refuses_cards_that_the_hub_would_refuse(card, complaint):
    assert complaint in " ".join(check_card(card))
