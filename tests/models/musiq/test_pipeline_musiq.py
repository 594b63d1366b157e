# SPDX-License-Identifier: Apache-2.0
import base64
import http.server
import math
import threading
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from datasets import Image as ImageFeature
from PIL import Image
from transformers import pipeline
from transformers.pipelines.pt_utils import KeyDataset

from musiq_hf import MusiqForImageClassification, MusiqImageProcessor

SIZES = ((30, 41), (17, 16), (9, 50), (48, 24), (25, 25), (64, 33), (12, 12), (40, 90))


@pytest.fixture(scope="module")
def scorer(tiny_model):
    model = tiny_model(score_offset=50.0, score_scale=20.0, score_range=(0, 100))
    return pipeline(
        "image-quality-assessment", model=model, image_processor=MusiqImageProcessor.from_config(model.config)
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    folder, generator = tmp_path_factory.mktemp("pictures"), np.random.default_rng(3)
    paths = []
    for height, width in SIZES:
        coarse = generator.integers(0, 256, (1 + height // 8, 1 + width // 8, 3), dtype=np.uint8)
        paths.append(str(folder / f"{height}x{width}.png"))
        Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def singles(scorer, files) -> list[float]:
    return [scorer(path)["score"] for path in files]


def test_pictures_get_different_scores(singles):
    assert np.ptp(singles) > 0.1


def test_single_picture_is_answered_with_a_dict_of_plain_numbers(scorer, files):
    result = scorer(files[0])
    assert list(result) == ["score"]
    assert type(result["score"]) is float


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_of_mixed_sizes_do_not_change_a_score(scorer, files, singles, batch_size):
    results = scorer(files, batch_size=batch_size)
    np.testing.assert_allclose([result["score"] for result in results], singles, atol=1e-5 * 100, rtol=0)


def test_path_pil_array_tensor_and_base64_of_one_picture_get_one_score(scorer, files, singles):
    image = Image.open(files[0])
    array = np.array(image)
    encoded = base64.b64encode(Path(files[0]).read_bytes()).decode()
    inputs = [Path(files[0]), image, array, torch.from_numpy(array).permute(2, 0, 1), encoded]
    inputs.append(f"data:image/png;base64,{encoded}")
    assert [scorer(source)["score"] for source in inputs] == pytest.approx([singles[0]] * len(inputs), abs=1e-5)


def test_arguments_that_the_pipeline_lacks_are_named(scorer, files):
    with pytest.raises(
        TypeError, match="knows `timeout`, .*`batch_size` and `num_workers`, got `top_k`. Leave it out"
    ):
        scorer(files[0], top_k=1)


def test_url_is_fetched_and_scored(scorer, files, singles):
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(Path(files[0]).parent))
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert scorer(f"{url}/{Path(files[0]).name}", timeout=10)["score"] == singles[0]
        with pytest.raises(ValueError, match="absent.png: cannot be downloaded"):
            scorer(f"{url}/absent.png", timeout=10)
        server.shutdown()


def test_lists_tuples_and_columns_are_answered_with_lists(scorer, files, singles):
    rows = Dataset.from_dict({"image": files}).cast_column("image", ImageFeature())
    for inputs in (files, tuple(files), rows["image"]):
        results = scorer(inputs)
        assert isinstance(results, list)
        assert [result["score"] for result in results] == singles
    assert scorer([]) == []


def test_generators_and_key_datasets_are_answered_one_by_one(scorer, files, singles):
    rows = Dataset.from_dict({"image": files}).cast_column("image", ImageFeature())
    for inputs in ((path for path in files), KeyDataset(rows, "image")):
        results = scorer(inputs, batch_size=3)
        assert not isinstance(results, list)
        np.testing.assert_allclose([result["score"] for result in results], singles, atol=1e-3, rtol=0)


def test_files_are_opened_with_the_loader_of_the_processor(scorer, tmp_path):
    generator = np.random.default_rng(5)
    rgba, deep = generator.integers(0, 256, (20, 30, 4), dtype=np.uint8), generator.integers(0, 65536, (20, 30))
    Image.fromarray(rgba).save(tmp_path / "alpha.png")
    Image.fromarray(deep.astype(np.uint16)).save(tmp_path / "deep.png")
    assert scorer(str(tmp_path / "alpha.png")) == scorer(rgba)  # alpha on white, not dropped to black
    assert scorer(str(tmp_path / "deep.png")) == scorer(deep.astype(np.uint16))  # 16 bits, not saturated


def test_distribution_models_add_distribution_and_deviation(tiny_model, files):
    model = tiny_model(num_labels=10)
    scorer = pipeline(
        "image-quality-assessment", model=model, image_processor=MusiqImageProcessor.from_config(model.config)
    )
    result = scorer(files[0])
    values, probabilities = np.arange(1, 11), np.array(result["distribution"])
    assert probabilities.sum() == pytest.approx(1)
    assert result["score"] == pytest.approx(probabilities @ values, abs=1e-5)
    assert result["std"] == pytest.approx(np.sqrt(probabilities @ values**2 - (probabilities @ values) ** 2))
    batched = scorer(files, batch_size=8)
    np.testing.assert_allclose(batched[0]["distribution"], probabilities, atol=1e-6)


def test_half_precision_models_score_too(tiny_model, files, singles):
    model = tiny_model(score_offset=50.0, score_scale=20.0).to(torch.bfloat16)
    processor = MusiqImageProcessor.from_config(model.config)
    scorer = pipeline("image-quality-assessment", model=model, image_processor=processor)
    assert scorer(files[0])["score"] == pytest.approx(singles[0], abs=5)


def test_saved_pipeline_loads_again(scorer, files, singles, tmp_path):
    scorer.save_pretrained(tmp_path)
    assert pipeline("image-quality-assessment", model=str(tmp_path))(files[0])["score"] == singles[0]


def test_classification_checkpoint_is_refused(tiny_config):
    config = tiny_config(num_labels=7)
    with pytest.raises(
        ValueError, match="got MusiqForImageClassification. An ImageNet checkpoint has no quality head"
    ):
        pipeline(
            "image-quality-assessment",
            model=MusiqForImageClassification(config),
            image_processor=MusiqImageProcessor.from_config(config),
        )


def test_processor_that_disagrees_with_the_model_is_refused(tiny_model):
    with pytest.raises(ValueError, match="must agree on `patch_size`, got 8 and 32"):
        pipeline("image-quality-assessment", model=tiny_model(), image_processor=MusiqImageProcessor())


def test_mistakes_get_one_sentence_that_names_the_picture(scorer, files, tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    whole = Path(files[0]).read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="notes.txt: not a picture"):
        scorer(str(tmp_path / "notes.txt"))
    with pytest.raises(ValueError, match="cut.png: cannot be decoded"):
        scorer([files[1], str(tmp_path / "cut.png")], batch_size=2)
    with pytest.raises(FileNotFoundError, match="absent.png: no such file"):
        scorer("absent.png")
    with pytest.raises(ValueError, match="One picture was expected"):
        scorer([np.zeros((2, 8, 8, 3), dtype=np.uint8)])


@pytest.mark.parametrize("task", ["image-quality-assessment", "image-classification"])
def test_bytes_files_batches_and_folders_are_pictures(scorer, files, singles, tmp_path, task):
    other = pipeline(task, model=scorer.model, image_processor=scorer.image_processor)

    def score(inputs):
        answers = other(inputs)
        answers = answers if isinstance(answers, list) else [answers]
        return [(answer[0] if isinstance(answer, list) else answer)["score"] for answer in answers]

    content = Path(files[0]).read_bytes()
    for source in (content, bytearray(content), BytesIO(content)):
        assert score(source) == pytest.approx(singles[:1], abs=1e-5)
    assert score([content, BytesIO(Path(files[1]).read_bytes())]) == pytest.approx(singles[:2], abs=1e-5)
    pixels = np.array(Image.open(files[0]))
    batch = np.stack([pixels, pixels[::-1]])
    expected = score(list(batch))
    for array in (batch, batch.transpose(0, 3, 1, 2), torch.tensor(batch).permute(0, 3, 1, 2) / 255):
        assert score(array) == pytest.approx(expected, abs=1e-3)
    (tmp_path / "b").mkdir()
    for place, file in (("b/1.png", files[0]), ("a.PNG", files[1]), ("c.png", files[2])):
        (tmp_path / place).write_bytes(Path(file).read_bytes())
    for name in ("notes.txt", ".hidden.png"):
        (tmp_path / name).write_text("no picture")
    for folder in (tmp_path, str(tmp_path)):
        found = score(folder)
        assert found == pytest.approx([singles[1], singles[0], singles[2]], abs=1e-3)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no picture"):
        other(str(tmp_path / "empty"))


def test_the_standard_task_answers_in_mos_points(tiny_model, files, tmp_path):
    for number, fields in enumerate(({"score_offset": 50.0, "score_scale": 20.0}, {"num_labels": 5})):
        model = tiny_model(**fields, score_range=(0, 100))
        processor = MusiqImageProcessor.from_config(model.config)
        model.save_pretrained(tmp_path / str(number))
        processor.save_pretrained(tmp_path / str(number))
        ways = ({"model": model, "image_processor": processor}, {"model": str(tmp_path / str(number))})
        for settings in ways:
            expected = [answer["score"] for answer in pipeline("image-quality-assessment", **settings)(files)]
            answers = pipeline("image-classification", **settings)(files, top_k=3)
            assert [[one["label"] for one in answer] for answer in answers] == [["MOS"]] * len(files)
            assert [answer[0]["score"] for answer in answers] == pytest.approx(expected, abs=1e-4)
        answers = pipeline("image-classification", **ways[0])(files, batch_size=len(files))
        assert [answer[0]["score"] for answer in answers] == pytest.approx(expected, abs=1e-4)
        with pytest.raises(ValueError, match="in MOS points, to which no function is applied"):
            pipeline("image-classification", **ways[0])(files[0], function_to_apply="sigmoid")


@pytest.mark.parametrize("task", ["image-quality-assessment", "image-classification"])
def test_a_picture_that_is_too_large_is_refused(tiny_model, files, tmp_path, task):
    model = tiny_model()
    scorer = pipeline(task, model=model, image_processor=MusiqImageProcessor.from_config(model.config))
    width, height = Image.open(files[0]).size
    limit = width * height / 1e6
    answer = scorer(files[0])
    for source in (files[0], Image.open(files[0]), np.array(Image.open(files[0]))):
        assert scorer(source, max_megapixels=limit) == answer == scorer(source, max_megapixels=math.inf)
        with pytest.raises(ValueError, match=f"{width}x{height} pixels are .*megapixels.*`max_megapixels`"):
            scorer(source, max_megapixels=limit * 0.99)
    for wrong in (0, "3"):
        with pytest.raises(ValueError, match="`max_megapixels` must be above 0"):
            scorer(files[0], max_megapixels=wrong)


@pytest.mark.parametrize("task", ["image-quality-assessment", "image-classification"])
def test_a_picture_of_too_many_tokens_is_refused(tiny_model, task):
    model = tiny_model(patch_size=1, patch_encoder="linear", longer_side_lengths=[8])
    scorer = pipeline(task, model=model, image_processor=MusiqImageProcessor.from_config(model.config))
    with pytest.raises(ValueError, match="260x210 pixels are 54,648 tokens of this model.*`max_megapixels`"):
        scorer(Image.new("RGB", (260, 210)))


def test_the_standard_task_reads_pictures_as_the_other(tiny_model, tmp_path):
    model = tiny_model()
    settings = {"model": model, "image_processor": MusiqImageProcessor.from_config(model.config)}
    pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 4), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "alpha.png")
    path = str(tmp_path / "alpha.png")
    answers = [pipeline(task, **settings)(path) for task in ("image-quality-assessment", "image-classification")]
    assert answers[0]["score"] == answers[1][0]["score"]
