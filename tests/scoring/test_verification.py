# SPDX-License-Identifier: Apache-2.0
"""Self-tests that are stored with checkpoints, and the comparison with official scores."""

import copy
import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from musiq_hf import DEFAULT_CHECKPOINT, TINY_CHECKPOINT, MusiqForImageClassification, MusiqImageProcessor, MusiqModel
from musiq_hf.scoring.loading import load_with_head
from musiq_hf.scoring.verification import (
    NAMES,
    OFFICIAL_PICTURES,
    SELF_TEST,
    TOLERANCE,
    answer,
    answer_width,
    compare_with_official,
    make_self_test_pictures,
    run_self_test,
    write_self_test,
)


@pytest.fixture
def scorer(tiny_model):
    model = tiny_model()
    return model, MusiqImageProcessor.from_config(model.config)


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Five pictures under the official names, in two formats."""
    folder = tmp_path_factory.mktemp("dist_dir")
    generator = np.random.default_rng(3)
    for index, name in enumerate(OFFICIAL_PICTURES):
        picture = Image.fromarray(generator.integers(0, 40 * (index + 2), (30, 40, 3), dtype=np.uint8))
        picture.save(folder / (f"{name.lower()}.png" if index % 2 else f"{name}.bmp"))
    return folder


def is_right(model, comparisons):
    return [line.is_within(TOLERANCE * answer_width(model)) for line in comparisons]


def test_the_formula_makes_these_bytes_everywhere():
    pictures = make_self_test_pictures()
    assert tuple(pictures) == NAMES
    assert [picture.shape for picture in pictures.values()] == [(120, 160, 3), (150, 75, 3), (64, 64, 3)]
    digest = hashlib.sha256(b"".join(picture.tobytes() for picture in pictures.values())).hexdigest()
    assert digest == "9215e7f9f03d64087ab31a588df794bd27c4ddc2793a264bfa99187a04c099c2"
    assert all(picture.std() > 30 and picture.dtype == np.uint8 for picture in pictures.values())


def test_a_checkpoint_passes_its_own_test(scorer, tmp_path):
    path = write_self_test(*scorer, tmp_path)
    assert path == tmp_path / SELF_TEST and list(tmp_path.iterdir()) == [path]
    comparisons = run_self_test(*scorer, tmp_path)
    assert [line.name for line in comparisons] == list(NAMES)
    assert [line.got for line in comparisons] == [line.expected for line in comparisons]
    assert np.ptp([line.got for line in comparisons]) > 0.1
    assert all(is_right(scorer[0], comparisons))


def test_answers_are_scores(scorer, tmp_path):
    model, processor = scorer
    write_self_test(model, processor, tmp_path)
    stored = json.loads((tmp_path / SELF_TEST).read_text())["answers"]
    for name, picture in make_self_test_pictures().items():
        with torch.no_grad():
            score = model(**processor(picture, return_tensors="pt")).scores.item()
        assert stored[name] == pytest.approx(score, abs=1e-6)


def test_a_changed_weight_is_found(scorer, tmp_path):
    model, processor = scorer
    write_self_test(model, processor, tmp_path)
    with torch.no_grad():
        model.musiq.embeddings.patch_projection.weight[3] *= 1.1
    assert not any(is_right(model, run_self_test(model, processor, tmp_path)))


def test_another_preprocessing_is_found(scorer, tmp_path):
    model, processor = scorer
    write_self_test(model, processor, tmp_path)
    other = copy.deepcopy(processor)
    other.resize_mode = "square"
    # A square picture stays as it is.
    assert is_right(model, run_self_test(model, other, tmp_path)) == [False, False, True]


def test_not_a_number_is_no_answer(scorer, tmp_path):
    model, processor = scorer
    write_self_test(model, processor, tmp_path)
    with torch.no_grad():
        model.head.classifier.bias[0] = float("nan")
    assert not any(is_right(model, run_self_test(model, processor, tmp_path)))
    with pytest.raises(ValueError, match="answers nan for the picture smooth. Are all of its weights finite"):
        write_self_test(model, processor, tmp_path)


def test_classifier_answers_depend_on_every_class(tiny_config, tmp_path):
    torch.manual_seed(0)
    model = MusiqForImageClassification(tiny_config(num_labels=7)).eval()
    with torch.no_grad():
        model.head.classifier.weight.normal_()
    processor = MusiqImageProcessor.from_config(model.config)
    write_self_test(model, processor, tmp_path)
    assert all(is_right(model, run_self_test(model, processor, tmp_path)))
    with torch.no_grad():
        model.head.classifier.bias[5] += 1
    assert not any(is_right(model, run_self_test(model, processor, tmp_path)))


def test_training_mode_is_refused(scorer, tmp_path):
    scorer[0].train()
    with pytest.raises(ValueError, match=r"must be in evaluation mode.*`model.eval\(\)`"):
        write_self_test(*scorer, tmp_path)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"answers": {"smooth": 1}}', '{"answers": [1, 2, 3]}'])
def test_a_damaged_file_gets_a_sentence(scorer, tmp_path, text):
    (tmp_path / SELF_TEST).write_text(text)
    with pytest.raises(ValueError, match="is damaged: it must hold one number for each of smooth, grainy, edges"):
        run_self_test(*scorer, tmp_path)


def test_a_missing_file_gets_a_sentence(scorer, tmp_path):
    with pytest.raises(ValueError, match=r"holds no self_test.json. Convert the checkpoint again"):
        run_self_test(*scorer, tmp_path)


@pytest.mark.parametrize(
    ("settings", "span"),
    [
        ({"score_range": (0, 100)}, 100),
        ({"score_range": (1, 5), "score_scale": 0.7}, 4),
        ({"score_scale": -12.5}, 12.5),
        ({"num_labels": 10}, 9),
    ],
)
def test_tolerances_are_in_the_range_of_scores(tiny_model, settings, span):
    assert answer_width(tiny_model(**settings)) == span


@pytest.mark.parametrize("checkpoint", [DEFAULT_CHECKPOINT, TINY_CHECKPOINT], ids=lambda path: path.name)
def test_embedded_checkpoints_pass_their_tests(checkpoint):
    model, processor = load_with_head(str(checkpoint))
    comparisons = run_self_test(model, processor, checkpoint)
    assert all(is_right(model, comparisons)), comparisons


def test_checkpoints_that_answer_nothing_are_refused(tiny_config, blank, tmp_path):
    with pytest.raises(ValueError, match="holds no weights. Give a trained or converted checkpoint"):
        load_with_head(blank)
    model = MusiqModel(tiny_config())
    model.save_pretrained(tmp_path)
    MusiqImageProcessor.from_config(model.config).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="holds a MusiqModel, which answers nothing. Give one with a head"):
        load_with_head(str(tmp_path))


def test_official_scores_belong_to_their_pictures(scorer, official):
    model, processor = scorer
    comparisons = compare_with_official(model, processor, name="koniq", folder=official)
    # From the table in the source that the module names.
    assert [(line.name, line.expected) for line in comparisons] == [
        ("I03", 12.494),
        ("I04", 75.332),
        ("I06", 73.429),
        ("I08", 75.188),
        ("I19", 36.938),
    ]
    paths = {path.stem.upper(): path for path in official.iterdir()}
    assert [line.got for line in comparisons] == [answer(model, processor, paths[line.name]) for line in comparisons]
    assert len({line.got for line in comparisons}) == 5


def test_official_pictures_become_pixels_as_in_the_published_program(scorer, official, tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6
    for path in official.iterdir():
        with Image.open(path) as picture:
            picture.save(tmp_path / f"{path.stem}.png", exif=turned)
    model, processor = scorer
    for plain, own in zip(
        *(compare_with_official(model, processor, name="koniq", folder=folder) for folder in (official, tmp_path)),
        strict=True,
    ):
        assert own == plain


def test_missing_official_pictures_are_named(scorer, official, tmp_path):
    with pytest.raises(ValueError, match="Official scores are known for koniq, ava, paq2piq, spaq, got 'mine'"):
        compare_with_official(*scorer, name="mine", folder=official)
    with pytest.raises(ValueError, match="is not a folder. Give one with I03, I04, I06, I08, I19"):
        compare_with_official(*scorer, name="koniq", folder=tmp_path / "none")
    (tmp_path / "I03.bmp").write_bytes((official / "I03.bmp").read_bytes())
    with pytest.raises(ValueError, match="lacks I04, I06, I08, I19, as .bmp or .png"):
        compare_with_official(*scorer, name="koniq", folder=tmp_path)
