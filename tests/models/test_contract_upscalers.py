# SPDX-License-Identifier: Apache-2.0
"""One list of promises for every family whose models enlarge pictures, as test_contract.py has it for scores."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from families import Case, make_case
from isolated import run_isolated
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForImageToImage

from musiq_hf.cli import main
from musiq_hf.evaluation import collect_feature_maps
from musiq_hf.hub.model_card import CheckpointCard
from musiq_hf.hub.publishing import add_remote_code
from musiq_hf.models import FAMILIES, family_of
from musiq_hf.models.handler import EndpointHandler
from musiq_hf.scoring import load_quality, make_signature
from musiq_hf.scoring.loading import load_with_head
from musiq_hf.upscaling import load_upscaler, upscale_picture

HEIGHT, WIDTH, TARGET = 21, 34, (47, 55)  # of a source, and of its enlargement, whose sides have factors of their own
NAMES = [name for name, family in FAMILIES.items() if family.upscaler is not None]
OTHER_FILES = {"config.json", "preprocessor_config.json", "model.safetensors", "self_test.json"}


@pytest.fixture(scope="module", params=NAMES)
def case(request, tmp_path_factory) -> Case:
    return make_case(request.param, "upscaler", tmp_path_factory.mktemp("checkpoint"), noise=0.1)


def pictures(count: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 256, (HEIGHT, WIDTH, 3), generator=generator, dtype=torch.uint8) for _ in range(count)]


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(pictures()[0].numpy()).save(path)
    return path


@torch.no_grad()
def enlarge(model: Any, batch: Any) -> torch.Tensor:
    return model(**batch, target_size=TARGET).reconstruction


def answers_of(case: Case) -> torch.Tensor:
    return enlarge(case.model, case.processor([picture.numpy() for picture in pictures()]))


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 5e-5) -> None:
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=0)


def test_a_picture_has_one_answer_alone_and_in_a_batch(case):
    features = [case.processor.cut(picture) for picture in pictures(3)]
    together = enlarge(case.model, case.processor.pad(features))
    assert together.shape == (3, 3, *TARGET)
    for answer, feature in zip(together, features, strict=True):
        close(answer, enlarge(case.model, case.processor.pad([feature]))[0])
    assert (together[0] - together[1]).abs().max() > 0.1
    other = case.processor.cut(pictures()[0][1:])
    with pytest.raises(
        ValueError, match="Pictures of one size make a batch, got 34 x 20, 34 x 21. Upscale others one"
    ):
        case.processor.pad([features[0], other])


def test_the_network_adds_something_to_an_interpolation(case):
    batch = case.processor([picture.numpy() for picture in pictures()])
    plain = torch.nn.functional.interpolate(batch["pixel_values"], size=TARGET, mode="bilinear")
    assert (answers_of(case) - plain).abs().mean() > 0.05


def test_bytes_and_floats_are_one_picture(case):
    (picture,) = pictures()
    as_float = case.processor.pad([case.processor.cut(picture.float() / 255)])
    close(enlarge(case.model, as_float), answers_of(case), 1e-3)


@torch.no_grad()
@pytest.mark.parametrize("tile_size", [5, 16, None])
def test_tiles_and_single_pixels_give_the_whole(case, tile_size):
    batch, whole = case.processor([picture.numpy() for picture in pictures()]), answers_of(case)
    close(case.model.upscale(**batch, target_size=TARGET, tile_size=tile_size).reconstruction, whole)
    positions = torch.tensor([[[0, 0], [46, 54], [20, 31]]])
    pixels = case.model(**batch, target_size=TARGET, positions=positions).reconstruction
    close(pixels, whole[:, :, positions[0, :, 0], positions[0, :, 1]])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_gives_nearly_the_same(case, dtype):
    model = AutoModelForImageToImage.from_pretrained(case.folder, dtype=dtype)
    assert {weight.dtype for weight in model.parameters()} >= {dtype}
    found = enlarge(model, case.processor([picture.numpy() for picture in pictures()]))
    assert found.dtype == torch.float32 and (found - answers_of(case)).abs().mean() < 0.01


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "Exactly one of `scale` and `target_size` must be given, got neither"),
        ({"scale": 2, "target_size": TARGET}, "got both"),
        ({"scale": 0}, "`scale` must be a number above 0 and at most 64, got 0"),
        ({"target_size": (0, 9)}, "two whole numbers from 1"),
        ({"scale": 2, "pixel_values": None}, "`pixel_values` is required"),
        ({"scale": 2, "pixel_values": torch.zeros(1, 3, 4, 5, dtype=torch.uint8)}, "must be floats of shape"),
        ({"scale": 2, "sharpness": 3}, "takes no argument sharpness"),
    ],
)
def test_wrong_arguments_are_a_sentence(case, given, message):
    with pytest.raises(ValueError, match=message):
        case.model(**{"pixel_values": torch.zeros(1, 3, 4, 5)} | given)
    with pytest.raises(ValueError, match="`tile_size` must be a whole number of pixels from 1, got 0"):
        case.model.upscale(torch.zeros(1, 3, 4, 5), scale=2, tile_size=0)


def test_a_checkpoint_is_loaded_by_every_way(case):
    batch, expected = case.processor([picture.numpy() for picture in pictures()]), answers_of(case)
    for auto in (AutoModel, AutoModelForImageToImage):
        model = auto.from_pretrained(case.folder)
        assert type(model) is case.family.upscaler and family_of(model.config) is case.family and not model.training
        assert torch.equal(enlarge(model, batch), expected)
    assert type(AutoImageProcessor.from_pretrained(case.folder)) is case.family.processor
    model, processor = load_with_head(str(case.folder))
    processor.check_config(model.config)
    with pytest.raises(ValueError, match="which predicts no quality. Give a checkpoint of another family"):
        load_quality(str(case.folder))
    with pytest.raises(ValueError, match="A checkpoint with a quality head is needed"):
        EndpointHandler(str(case.folder))


def test_function_and_command_give_what_the_model_answers(case, file, tmp_path, capsys):
    picture = Image.open(file)
    with torch.no_grad():
        outputs = case.model.upscale(**case.processor(picture), target_size=TARGET)
    (expected,) = case.processor.post_process(outputs, picture)
    large = upscale_picture(file, size=TARGET[::-1], model=load_upscaler(case.folder))
    assert np.array_equal(large, expected)
    words = [str(file), "-o", str(tmp_path / "out"), "--size", "55x47", "-m", str(case.folder)]
    assert main(["upscale", *words, "--device", "cpu"]) == 0
    assert np.array_equal(Image.open(tmp_path / "out" / "photo.png"), expected)


@pytest.mark.slow
def test_remote_code_answers_and_saves_in_a_fresh_process(case, file, tmp_path):
    saved = {path.name: path.read_bytes() for path in case.folder.iterdir()}
    assert add_remote_code(shutil.copytree(case.folder, tmp_path / "renewed")) == sorted(saved.keys() - OTHER_FILES)
    script = f"""
from transformers import AutoModelForImageToImage
folder, trust = {str(case.folder)!r}, {{"trust_remote_code": True}}
names = {{
    "config": ["AutoConfig"],
    "processor": ["AutoImageProcessor"],
    "both": ["AutoModelForImageToImage", "AutoImageProcessor"],
}}
for name, parts in names.items():
    for part in parts:
        getattr(__import__("transformers"), part).from_pretrained(folder, **trust).save_pretrained(name)

model = AutoModelForImageToImage.from_pretrained(folder, **trust)
processor, picture = AutoImageProcessor.from_pretrained(folder, **trust), Image.open(PICTURE)
outputs = model.upscale(**processor(picture), target_size={TARGET}, tile_size=9)
(large,) = processor.post_process(outputs, picture)
result |= {{"module": type(model).__module__, "class": type(model).__name__, "size": large.size}}
result["answers"] = outputs.reconstruction.tolist()
"""
    found = run_isolated(script, home=tmp_path, cwd=tmp_path, picture=file, package=False)
    assert found["module"].startswith("transformers_modules.") and found["class"] == case.family.upscaler.__name__
    assert found["size"] == list(TARGET[::-1])
    close(torch.tensor(found["answers"]), answers_of(case))
    for name in ("config", "processor", "both"):
        again = {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}
        assert again == {file: saved[file] for file in again}
        assert saved.keys() - OTHER_FILES - {"handler.py"} <= again.keys()  # it goes along with a model
    assert again == saved


def test_commands_tell_about_a_checkpoint_and_refuse_what_it_cannot(case, file, tmp_path, capsys):
    assert main(["info", str(case.folder)]) == main(["verify", str(case.folder)]) == 0
    assert case.family.upscaler.__name__ in capsys.readouterr().out
    (tmp_path / "scores.csv").write_text("image,mos\nphoto.png,1\n")
    words = ["--data", str(tmp_path / "scores.csv"), "--model", str(case.folder)]
    assert main(["finetune", *words, "--output_dir", str(tmp_path / "out")]) == 2
    assert "has no quality head, so this command cannot train it" in capsys.readouterr().err
    for command in (
        ["score", str(file), "-m", str(case.folder)],
        ["export", str(case.folder), str(tmp_path / "x.pt2")],
    ):
        assert main(command) == 2
        assert "predicts no quality. Give a checkpoint of another family" in capsys.readouterr().err


def test_damaged_weights_are_named(case, tmp_path, capsys):
    folder = shutil.copytree(case.folder, tmp_path / "damaged")
    weights = load_file(folder / "model.safetensors")
    first = sorted(weights)[0]
    save_file(weights | {"renamed": weights.pop(first)}, folder / "model.safetensors", metadata={"format": "pt"})
    assert main(["info", str(folder)]) == 2
    assert f"missing {first}; unexpected renamed. If you changed" in capsys.readouterr().err


def change(value: Any) -> Any:
    """Return another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return [*value, 1] if isinstance(value, list) else "replicate"


def test_whatever_changes_an_answer_changes_the_signature(case):
    def sign() -> str:
        return make_signature(case.model, case.processor, checkpoint="x")

    plain, expected, moved = sign(), answers_of(case), set()
    for owner in (case.model.config, case.processor):
        for name, value in owner.to_dict().items():
            if name not in vars(owner) or value is None or isinstance(value, dict):
                continue
            object.__setattr__(owner, name, change(value))  # past the checks of the field
            try:
                found = answers_of(case)
            except (ValueError, TypeError, RuntimeError, LookupError, AttributeError):  # needs another model
                found = expected
            if found.shape != expected.shape or not torch.allclose(found, expected, atol=5e-5, rtol=0):
                moved.add(name)
                assert sign() != plain, name
            object.__setattr__(owner, name, value)
    assert sign() == plain and moved


def test_the_card_says_what_it_cannot_and_its_lines_run(case, file, tmp_path, monkeypatch):
    card = CheckpointCard(name=str(case.folder), config=case.model.config, source="a", training_data="b", recipe="c")
    text = case.family.card(case.model.config)
    assert "\npipeline_tag: image-to-image\n" in card.render()
    assert text.limits in card.render() and text.citation in card.render()
    (code,) = re.findall(r"^```python\n(.*?)^```$", card.render(), flags=re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("photo.jpg", "photo.png"), {})
    assert Image.open("large.png").size == (2 * WIDTH, 2 * HEIGHT)


def test_feature_maps_have_the_size_of_the_picture(case):
    found = collect_feature_maps(case.model, case.processor, pictures()[0].numpy())
    for maps in found.values():
        assert len(maps) > 1 and all(item.shape[2:] == (HEIGHT, WIDTH) and not item.requires_grad for item in maps)


def test_the_names_of_a_family_are_those_by_which_saving_finds_its_classes(case):
    assert case.family.upscaler.__name__.endswith("ForImageSuperResolution")
    assert case.family.parts(case.model)["head"][-1].out_features == 3
