# SPDX-License-Identifier: Apache-2.0
"""What every way to save a checkpoint gives, with the package and without it: as much as uploading its directory."""

import json
import shutil

import pytest
import torch
from fake_hub import TOKEN, FakeHub, check_card
from isolated import run_isolated, save_checkpoints, save_picture
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, Trainer, TrainingArguments

from musiq_hf import TINY_CHECKPOINT, MusiqForImageQualityAssessment, MusiqImageProcessor
from musiq_hf.hub import CheckpointCard, save_checkpoint
from musiq_hf.metrics.report_files import StoredMetrics, write_metrics
from musiq_hf.metrics.reports import Metrics, QualityReport
from musiq_hf.models.musiq.publishing_musiq import list_code
from musiq_hf.scoring import load_quality, write_calibration
from musiq_hf.scoring.verification import run_self_test, write_self_test

RESULTS = {"self_test.json", "metrics.json", "calibration.json"}
# The ways to save and to upload; `trust` is empty where the package is imported.
AUTHOR = """
if os.environ["WITH"] == "package":
    import musiq_hf
published, prefix = os.environ["PUBLISHED"], "someone/" + os.environ["WITH"] + "-"
trust = {"trust_remote_code": True}

model = AutoModel.from_pretrained(published, **trust)
processor = AutoImageProcessor.from_pretrained(published, **trust)
model.push_to_hub(prefix + "model", tags=["mine"])
processor.push_to_hub(prefix + "pair")
model.push_to_hub(prefix + "pair")
processor.push_to_hub(prefix + "pair")
model.config.push_to_hub(prefix + "pair")
pipeline("image-quality-assessment", model=published, **trust).push_to_hub(prefix + "pipeline")
pipeline("image-classification", model=published, **trust).push_to_hub(prefix + "standard")

model.save_pretrained("saved", push_to_hub=True, repo_id=prefix + "saved")
model.save_pretrained("saved", push_to_hub=True, repo_id=prefix + "twice")
processor.save_pretrained("saved")
model.save_pretrained("sharded", max_shard_size="20KB")
processor.save_pretrained("sharded", push_to_hub=True, repo_id=prefix + "settings")
AutoModel.from_pretrained("sharded", **trust).push_to_hub(prefix + "sharded")
AutoModel.from_pretrained(prefix + "model", **trust).push_to_hub(prefix + "again")

gone = AutoModel.from_pretrained("saved", **trust), AutoImageProcessor.from_pretrained("saved", **trust)
__import__("shutil").rmtree("saved")
for part in gone:
    part.push_to_hub(prefix + "gone")

with torch.no_grad():
    for parameter in model.parameters():
        parameter.add_(0.01)
model.save_pretrained("changed")
processor.save_pretrained("changed")
model.push_to_hub(prefix + "changed")
processor.push_to_hub(prefix + "changed")
result["changed"] = describe(model, published, trust)
"""
USER = """
for name in os.environ["NAMES"].split():
    result[name] = load(name, trust_remote_code=True)
"""
WHOLE = ("model", "pair", "pipeline", "standard", "saved", "twice", "sharded", "again")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("saving")


@pytest.fixture(scope="module")
def picture(folder):
    return save_picture(folder / "picture.png")


@pytest.fixture(scope="module")
def published(folder, tiny_model, tiny_config):
    """A directory as training and conversion leave it."""
    path = save_checkpoints(folder, tiny_model, tiny_config)["published"]
    model, processor = load_quality(str(path))
    reports = {"test": QualityReport(num_pictures=3, overall=Metrics(srcc=0.4375, plcc=0.5, krcc=0.5, rmse=9.0))}
    card = CheckpointCard(
        name="mine",
        config=model.config,
        source="Random numbers.",
        training_data="None.",
        recipe="None.",
        metrics=reports,
        largest_difference=3e-7,
    )
    card.save(path)
    write_metrics(path, StoredMetrics(reports=reports))
    write_self_test(model, processor, path)
    write_calibration(path, range(100), model=model, processor=processor, data="numbers")
    return path


@pytest.fixture(scope="module")
def hub():
    with FakeHub() as hub:
        yield hub
        assert [request for request in hub.requests if request[2] >= 500] == []


@pytest.fixture(scope="module", params=[pytest.param("package", marks=pytest.mark.slow), "code"])
def authored(request, hub, published, picture, folder):
    cwd = folder / request.param
    cwd.mkdir()
    variables = {"HF_TOKEN": TOKEN, "PUBLISHED": str(published), "WITH": request.param}
    with_package = request.param == "package"
    places = {"home": folder / f"{request.param}_home", "cwd": cwd, "picture": picture, "endpoint": hub.url}
    return request.param, cwd, run_isolated(AUTHOR, package=with_package, **places, **variables)


@pytest.fixture(scope="module")
def loaded(authored, hub, picture, folder):
    """What a user without the package makes of each repository."""
    prefix = f"someone/{authored[0]}-"
    names = [prefix + name for name in (*WHOLE, "gone", "changed")]
    places = {"home": folder / f"{authored[0]}_user", "cwd": folder, "picture": picture, "endpoint": hub.url}
    found = run_isolated(USER, package=False, **places, NAMES=" ".join(names))
    return {name.removeprefix(prefix): answer for name, answer in found.items()}


def scores_of(answer):
    return [answer["AutoModel"]["scores"][0], answer["image-quality-assessment"], answer["image-classification"]]


@pytest.mark.slow
def test_every_way_to_upload_gives_what_uploading_the_directory_gives(authored, hub, published):
    local = {path.name: path.read_bytes() for path in published.iterdir()}
    for name in WHOLE:
        files = hub.files(f"someone/{authored[0]}-{name}")
        assert set(local) - {"model.safetensors"} <= set(files), name
        for file in {file for file in local if file.endswith(".py")} | RESULTS:
            assert files[file] == local[file], (name, file)
        for file in ("config.json", "preprocessor_config.json"):
            ours, theirs = json.loads(files[file]), json.loads(local[file])
            keys = ("auto_map", "custom_pipelines")
            assert [ours.get(key) for key in keys] == [theirs.get(key) for key in keys], (name, file)
        # The owner is known now, also of "again", a copy of "model".
        card, uploaded = files["README.md"].decode(), f'model="someone/{authored[0]}-{name}"'
        ours = local["README.md"].decode().replace('model="mine"', uploaded)
        assert check_card(card) == [] and card.partition("\n# ")[2] == ours.partition("\n# ")[2]
        assert uploaded in card
    assert b"- mine\n" in hub.files(f"someone/{authored[0]}-model")["README.md"]


@pytest.mark.slow
def test_every_upload_scores_alike_without_the_package(loaded, published, picture):
    model, processor = load_quality(str(published))
    with torch.no_grad():
        score = model(**processor(Image.open(picture))).scores.item()
    for name in (*WHOLE, "gone"):
        assert scores_of(loaded[name]) == [pytest.approx(score, abs=1e-4)] * 3, name


def test_a_checkpoint_that_is_gone_leaves_a_card_that_claims_nothing(authored, hub):
    card = hub.files(f"someone/{authored[0]}-gone")["README.md"].decode()
    assert check_card(card) == [] and f'("someone/{authored[0]}-gone", trust_remote_code=True)' in card
    assert "More Information Needed" not in card
    assert not RESULTS & set(hub.files(f"someone/{authored[0]}-gone"))


def test_a_processor_alone_is_uploaded_with_its_code(authored, hub, published):
    files = hub.files(f"someone/{authored[0]}-settings")
    assert {path.name for path in published.glob("*_musiq.py")} <= set(files)
    assert json.loads(files["preprocessor_config.json"])["auto_map"] == {
        "AutoImageProcessor": "image_processing_musiq.MusiqImageProcessor"
    }


@pytest.mark.slow
def test_changed_weights_are_published_without_the_results_of_others(authored, loaded, hub):
    name, cwd, report = authored
    expected = [pytest.approx(report["changed"]["scores"][0], abs=1e-4)] * 3
    assert scores_of(loaded["changed"]) == expected
    local = {path.name: path.read_bytes() for path in (cwd / "changed").iterdir()}
    for files in (local, hub.files(f"someone/{name}-changed")):
        assert not RESULTS & set(files)
        card = files["README.md"].decode()
        assert check_card(card) == [] and "Weights or settings were changed after this card was written" in card
        assert "0.4375" not in card and "3.0e-07" not in card and "## Limits and bias" in card


@pytest.fixture
def copy(published, tmp_path):
    return shutil.copytree(published, tmp_path / "mine")


def change(model):
    with torch.no_grad():
        model.head.classifier.bias.add_(1.0)


def test_a_model_saved_in_its_own_directory_leaves_every_file_as_it_was(copy, published):
    model = AutoModel.from_pretrained(copy)
    model.save_pretrained(copy)
    AutoImageProcessor.from_pretrained(copy).save_pretrained(copy)
    before = {path.name: path.read_bytes() for path in published.iterdir()}
    assert {path.name: path.read_bytes() for path in copy.iterdir()} == before


def test_results_are_removed_where_other_weights_take_the_place_of_theirs(copy, caplog):
    model = AutoModel.from_pretrained(copy)
    change(model)
    model.save_pretrained(copy)
    assert not RESULTS & {path.name for path in copy.iterdir()}
    card = (copy / "README.md").read_text()
    assert "0.4375" not in card and card.count("> Weights or settings were changed") == 1
    change(model)
    model.save_pretrained(copy)
    assert (copy / "README.md").read_text() == card


@pytest.mark.parametrize("changed", ["weights", "precision", "config", "processor", "processor first"])
def test_results_go_with_nothing_that_scores_otherwise(copy, tmp_path, changed):
    model = AutoModel.from_pretrained(copy)
    processor = AutoImageProcessor.from_pretrained(copy)
    if changed == "weights":
        change(model)
    elif changed == "precision":
        model.half()
    elif changed == "config":
        model.config.score_offset = 61.0
    else:
        processor.resize_mode = "square"
    order = (processor, model) if changed == "processor first" else (model, processor)
    for part in order:
        part.save_pretrained(tmp_path / "out")
    assert not RESULTS & {path.name for path in (tmp_path / "out").iterdir()}
    assert "0.4375" not in (tmp_path / "out" / "README.md").read_text()
    written = json.loads((tmp_path / "out" / "preprocessor_config.json").read_text())
    assert written["resize_mode"] == processor.resize_mode


def test_a_card_by_hand_is_kept(copy, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "README.md").write_text("# Mine\n\n## Evaluation\n\nMeasured before.\n")
    model = AutoModel.from_pretrained(copy)
    change(model)
    model.save_pretrained(out)
    assert (out / "README.md").read_text() == "# Mine\n\n## Evaluation\n\nMeasured before.\n"
    save_checkpoint(model, AutoImageProcessor.from_pretrained(copy), out, dtype="float32")
    assert (out / "README.md").read_text() == "# Mine\n\n## Evaluation\n\nMeasured before.\n"


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("README.md", b"---\nmodel-index:\n- name: [\n  0.4375\nlicense: {\n---\n# Mine\n"),
        ("README.md", b"---\nlicense: mit\n---\n# Mine \xff\n## Evaluation\n0.4375\n"),
        ("model.safetensors.index.json", b"{}"),
        ("model.safetensors", b"damaged"),
        ("config.json", b"damaged"),
    ],
)
def test_damage_where_a_model_is_saved_does_not_cost_the_model(file, content, copy, tmp_path):
    model, processor = AutoModel.from_pretrained(copy), AutoImageProcessor.from_pretrained(copy)
    change(model)
    processor.resize_mode = "square"
    if file.startswith("model"):
        (copy / "model.safetensors").unlink()
    (copy / file).write_bytes(content)
    for part in (model, processor):
        part.save_pretrained(copy)
    saved, _ = load_quality(str(copy))
    assert all(map(torch.equal, saved.state_dict().values(), model.state_dict().values()))
    card = (copy / "README.md").read_text()
    assert "0.4375" not in card and card.count("> Weights or settings were changed") == 1
    assert not (copy / "metrics.json").exists()


def test_half_precision_files_are_those_of_the_same_weights(tmp_path):
    model = AutoModel.from_pretrained(TINY_CHECKPOINT)
    model.save_pretrained(tmp_path)
    model, processor = load_quality(str(tmp_path))
    assert all(answer.is_within(1e-3) for answer in run_self_test(model, processor, tmp_path))
    for name in ("README.md", "metrics.json", "self_test.json"):
        assert (tmp_path / name).read_bytes() == (TINY_CHECKPOINT / name).read_bytes()


def test_a_fresh_model_has_code_and_no_card(tiny_config, tmp_path):
    model = MusiqForImageQualityAssessment(tiny_config())
    model.save_pretrained(tmp_path)
    assert "modeling_musiq.py" in {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "README.md").exists()


def test_a_class_that_a_user_derives_names_no_class_of_ours(tiny_config, tmp_path):
    class Mine(MusiqForImageQualityAssessment):
        pass

    Mine(tiny_config()).save_pretrained(tmp_path)
    assert "auto_map" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.slow
def test_checkpoints_of_the_trainer_and_earlier_ones_saved_again_load_without_the_package(
    copy, published, tmp_path, picture
):
    model, processor = AutoModel.from_pretrained(copy), MusiqImageProcessor.from_pretrained(copy)
    change(model)
    arguments = TrainingArguments(output_dir=str(tmp_path / "run"), report_to="none", use_cpu=True)
    Trainer(model=model, args=arguments, processing_class=processor).save_model()
    with torch.no_grad():
        score = model.eval()(**processor(Image.open(picture))).scores.item()
    assert not (tmp_path / "run" / "self_test.json").exists()

    earlier = shutil.copytree(published, tmp_path / "earlier")
    kernels = (earlier / "cpu_kernels_musiq.py").rename(earlier / "kernels_musiq.py")
    for path in earlier.glob("*_musiq.py"):
        path.write_text(path.read_text().replace(".cpu_kernels_musiq", ".kernels_musiq"))
    AutoModel.from_pretrained(earlier).save_pretrained(earlier)
    assert not kernels.exists()

    places = {"home": tmp_path / "home", "cwd": tmp_path, "picture": picture}
    found = run_isolated(USER, package=False, **places, NAMES=f"run earlier {published}")
    assert scores_of(found["run"]) == [pytest.approx(score, abs=1e-4)] * 3
    assert scores_of(found["earlier"]) == scores_of(found[str(published)])


@pytest.mark.parametrize("way", ["model", "processor", "training"])
def test_no_file_of_an_earlier_version_of_the_code_stays(way, tiny_model, tmp_path):
    model, code = tiny_model(), {path.name for path in list_code()}
    processor = MusiqImageProcessor.from_config(model.config)
    model.save_pretrained(tmp_path)
    (tmp_path / "modeling_musiq.py").write_text("from .packs_musiq import pack\n")
    (tmp_path / "packs_musiq.py").write_text("def f():\n    from .kernels_musiq import (\n        one,\n    )\n")
    (tmp_path / "kernels_musiq.py").write_text("from .modeling_musiq import two")
    (tmp_path / "patching_musiq.py").write_bytes(b"from .resizing_musiq import a  # \xff")
    others = {"resizing_musiq.txt", "mine_musiq.py", "packs_toy.py"}
    for name in ("resizing_musiq.py", *others):
        (tmp_path / name).touch()
    if way == "training":
        save_checkpoint(model, processor, tmp_path, dtype="float32")
    else:
        (model if way == "model" else processor).save_pretrained(tmp_path)
    kept = {path.name for path in tmp_path.iterdir() if path.suffix in (".py", ".txt")}
    assert kept == code | others
    assert all((tmp_path / path.name).read_bytes() == path.read_bytes() for path in list_code())


@pytest.mark.parametrize("part", ["config", "processor"])
def test_changed_settings_leave_no_results_of_others(part, copy):
    auto, field, value = {
        "config": (AutoConfig, "score_scale", 2.0),
        "processor": (AutoImageProcessor, "resize_mode", "square"),
    }[part]
    settings = auto.from_pretrained(copy)
    setattr(settings, field, value)
    settings.save_pretrained(copy)
    assert not RESULTS & {path.name for path in copy.iterdir()}
    assert "0.4375" not in (copy / "README.md").read_text()


@pytest.mark.parametrize("order", [(None, "20KB"), ("20KB", None), ("20KB", "9KB", "20KB", None, "9KB")])
def test_the_weights_that_were_saved_last_are_those_that_load(order, copy):
    model = AutoModel.from_pretrained(copy)
    for size in order:
        change(model)
        model.save_pretrained(copy, **({} if size is None else {"max_shard_size": size}))
        for loaded in (AutoModel.from_pretrained(copy), load_quality(str(copy))[0]):
            assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))
    AutoModel.from_pretrained(copy).save_pretrained(copy / "again")
    assert (copy / "again" / "README.md").read_bytes() == (copy / "README.md").read_bytes()


@pytest.mark.parametrize("present", ["README.md", "metrics.json"])
def test_what_is_in_a_folder_costs_no_other_file(present, copy, published, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / present).write_text("{}")
    AutoModel.from_pretrained(copy).save_pretrained(out)
    for name in {"README.md", "metrics.json", "self_test.json", "preprocessor_config.json"} - {present}:
        assert (out / name).read_bytes() == (published / name).read_bytes()
    assert (out / present).read_text() == "{}"


def test_a_model_does_not_take_the_card_of_another_one(copy, published, tmp_path):
    other = shutil.copytree(published, tmp_path / "other")
    model = AutoModel.from_pretrained(other)
    change(model)
    model.save_pretrained(other)
    (other / "README.md").write_text("# Another\n")
    AutoModel.from_pretrained(copy).save_pretrained(other)
    for name in ("README.md", "metrics.json", "self_test.json"):
        assert (other / name).read_bytes() == (published / name).read_bytes()


@pytest.mark.parametrize("form", ["variant", "pickle"])
def test_whatever_files_a_model_was_loaded_from_its_results_go_with_it(form, copy, published, tmp_path):
    model, options = AutoModel.from_pretrained(copy), {}
    (copy / "model.safetensors").unlink()
    if form == "variant":
        options = {"variant": "fp16"}
        model.save_pretrained(copy, **options)
    else:
        torch.save(model.state_dict(), copy / "pytorch_model.bin")
    shutil.copy(published / "README.md", copy)
    AutoModel.from_pretrained(copy, **options).save_pretrained(tmp_path / "out")
    for name in ("README.md", "metrics.json", "self_test.json", "preprocessor_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (published / name).read_bytes()


def test_a_marked_card_claims_only_what_was_done(copy):
    card = "---\nlicense: mit\nmodel-index:\n- name: x\n---\n```sh\n# install\n## Evaluation\n```\n# Mine\n\n"
    card += "## The score\n\n21 times the logit\n\n## Results\n\n0.95\n\n## Evaluation\n\n0.4375\n"
    (copy / "README.md").write_bytes(card.replace("\n", "\r\n").encode())
    model = AutoModel.from_pretrained(copy)
    model.config.score_offset = 61.0
    model.save_pretrained(copy)
    marked = (copy / "README.md").read_bytes().decode()
    assert "# install\n## Evaluation\n```\n# Mine\n\n> Weights or settings were changed" in marked
    assert "0.95" in marked and "Its numbers were measured before the change." in marked
    assert not [words for words in ("0.4375", "model-index", "21 times", "left out", "\r") if words in marked]
