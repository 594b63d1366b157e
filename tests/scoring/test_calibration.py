# SPDX-License-Identifier: Apache-2.0
"""Percentiles and stars: values by hand, whose scores they hold for, and where they are shown."""

import csv
import itertools
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from isolated import run_isolated, save_picture
from PIL import Image
from transformers import AutoModel, pipeline

from musiq_hf import MusiqImageProcessor
from musiq_hf.assessment import Calibration
from musiq_hf.cli import main
from musiq_hf.common.tables import read_table
from musiq_hf.hub import CheckpointCard, renew_card, save_checkpoint
from musiq_hf.scoring import (
    CheckpointCalibration,
    ScoreJob,
    Share,
    load_calibration,
    load_quality,
    make_signature,
    run_job,
    write_calibration,
)

SIGNATURE = {"weights": "1a2b3c4d", "preset": "default", "preprocessing": "5e6f7a8b"}


def make(quantiles):
    return CheckpointCalibration(data="numbers", num_pictures=1000, quantiles=list(quantiles), signature=SIGNATURE)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_model):
    """A checkpoint with a calibration, by which a score of x has the percentile 10 x; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("checkpoint") / "calibrated"
    model = tiny_model(score_offset=5.0)  # the middle of the calibration, whatever weights this torch draws
    processor = MusiqImageProcessor.from_config(model.config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_calibration(folder, np.linspace(0, 10, 101), model=model, processor=processor, data="a line")
    return folder


@pytest.fixture
def copy(checkpoint, tmp_path):
    return shutil.copytree(checkpoint, tmp_path / "copy")


@pytest.fixture
def photos(tmp_path, monkeypatch, alone):
    """Five pictures, of which the fourth is broken, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(5):
        pixels = np.random.default_rng(i).integers(0, 256, (20 + 7 * i, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{i}.png")
    Path("photos/3.png").write_bytes(b"no picture")
    return tmp_path


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    ("score", "percentile", "stars"),
    [
        (-30.0, 0, 1),  # below all
        (100, 0, 1),
        (101, 0.5, 1),  # halfway from the first quantile, 100, to the second, 102
        (139.8, 19.9, 1),
        (139.92, 20.0, 2),  # stars follow the percentile as it is shown
        (140, 20, 2),
        (180, 40, 3),
        (220, 60, 4),
        (259.8, 79.9, 4),
        (260, 80, 5),
        (300, 100, 5),
        (9e9, 100, 5),
    ],
)
def test_percentile_and_stars_by_hand(score, percentile, stars):
    calibration = make(range(100, 301, 2))
    assert (calibration.percentile(score), calibration.stars(score)) == (percentile, stars)


def test_equal_scores_have_the_middle_of_their_place():
    calibration = make([0.0] * 21 + [1.0] * 60 + [2.0] * 20)
    assert [calibration.percentile(score) for score in (-1, 0, 0.5, 1, 1.5, 2, 3)] == [
        0,
        10,
        20.5,
        50.5,
        80.5,
        90.5,
        100,
    ]
    assert [make([7.0] * 101).percentile(score) for score in (6, 7, 8)] == [0, 50, 100]


def test_a_higher_score_has_no_lower_percentile():
    generator = np.random.default_rng(0)
    calibration = make(np.sort(generator.normal(50, 20, 101).round(0)).tolist())
    percentiles = [calibration.percentile(score) for score in np.linspace(-50, 150, 2001)]
    assert percentiles == sorted(percentiles) and {percentiles[0], percentiles[-1]} == {0, 100}
    assert len(set(percentiles)) > 200


def test_a_score_that_is_no_number_has_no_percentile():
    with pytest.raises(ValueError, match="A score that is a number has a percentile, got nan. Check the weights."):
        make(range(101)).percentile(float("nan"))


def test_the_file_holds_the_quantiles_of_the_scores(checkpoint, tmp_path):
    model, processor = load_quality(str(checkpoint))
    scores = np.random.default_rng(0).permutation(201) / 3
    written = write_calibration(tmp_path, scores, model=model, processor=processor, data="thirds")
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert content.keys() == {"data", "num_pictures", "quantiles", "signature"}
    assert (content["data"], content["num_pictures"]) == ("thirds", 201)
    assert content["quantiles"] == [float(f"{2 * percent / 3:.6g}") for percent in range(101)]
    assert sorted(content["signature"]) == sorted(SIGNATURE)
    assert load_calibration(str(tmp_path), model, processor) == written


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (range(99), "At least 100 pictures are needed for percentiles, got 99."),
        ([float("nan"), *range(100)], "`quantiles` must be 101 finite numbers, got 0."),
    ],
)
def test_scores_that_make_no_quantiles_are_refused(checkpoint, tmp_path, scores, message):
    model, processor = load_quality(str(checkpoint))
    with pytest.raises(ValueError, match=message):
        write_calibration(tmp_path, list(scores), model=model, processor=processor, data="few")
    assert not (tmp_path / "calibration.json").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("data"), "missing 1 required positional argument: 'data'"),
        (lambda content: content.update(more=1), "unexpected keyword argument 'more'"),
        (lambda content: content.update(quantiles=[1, 2]), "`quantiles` must be 101 finite numbers, got 2"),
        (lambda content: content.update(quantiles=["a"] * 101), "`quantiles` must be a list, got"),
        (lambda content: content["quantiles"].reverse(), "`quantiles` must never fall"),
        (lambda content: content.update(signature="all"), "`signature` must be an object, got 'all'"),
        (lambda content: content.update(rated_below=[0.5]), "`rated_below` must be 101 numbers from 0 to 1"),
        (lambda content: content.update(rated_above=[2] * 101), "`rated_above` must be 101 numbers from 0 to 1"),
        (lambda content: content.update(rated_above="no"), "`rated_above` must be"),
    ],
)
def test_a_damaged_file_is_named(copy, change, message):
    path = copy / "calibration.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError) as caught:
        load_calibration(str(copy), *load_quality(str(copy)))
    assert str(caught.value).startswith(f"{path} is damaged (") and message in str(caught.value)
    assert str(caught.value).endswith("). Delete it, and write it anew with `musiq evaluate --write_calibration`.")
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged"):
        load_calibration(str(copy), *load_quality(str(copy)))


@pytest.mark.parametrize("changed", ["weights", "precision", "config", "preprocessing", "shorter_side", "preset"])
def test_a_calibration_of_other_scores_is_refused(checkpoint, changed):
    model, processor = load_quality(str(checkpoint), dtype=torch.bfloat16 if changed == "precision" else torch.float32)
    options = {"shorter_side": {"shorter_side": 20}, "preset": {"preset": "google"}}.get(changed, {})
    if changed == "weights":
        with torch.no_grad():
            model.head.classifier.bias.add_(1.0)
    elif changed == "config":
        model.config.score_offset = 1.0
    elif changed == "preprocessing":
        processor.resize_mode = "square"
    part = {"preset": "preset", "preprocessing": "preprocessing", "shorter_side": "preprocessing"}.get(
        changed, "weights"
    )
    with pytest.raises(
        ValueError, match=rf"calibration.json is of other scores \({part} \w+, now \w+\). It holds for"
    ):
        load_calibration(str(checkpoint), model, processor, **options)


def test_it_goes_with_the_same_weights_alone(checkpoint, tmp_path, tiny_model):
    model, processor = load_quality(str(checkpoint))
    for folder in (tmp_path / "saved", tmp_path / "stored"):
        if folder.name == "saved":
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
        else:
            save_checkpoint(model, processor, folder, dtype="float32")
        assert (folder / "calibration.json").read_bytes() == (checkpoint / "calibration.json").read_bytes()
        load_calibration(str(folder), *load_quality(str(folder)))
        other = tiny_model(seed=1)
        if folder.name == "saved":
            other.save_pretrained(folder)
        else:
            save_checkpoint(other, processor, folder, dtype="float32")
        assert not (folder / "calibration.json").exists()


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_tables_have_two_more_columns_on_request(photos, checkpoint, suffix):
    words = ["score", "photos", "-m", str(checkpoint), "--device", "cpu"]
    assert main([*words, "-o", f"plain.{suffix}"]) == main([*words, "-o", f"scores.{suffix}", "--percentile"]) == 1
    if suffix == "csv":
        plain, rows = read_csv("plain.csv"), read_csv("scores.csv")
    elif suffix == "jsonl":
        plain, rows = (
            [*map(json.loads, Path(f"{name}.jsonl").read_text().splitlines())] for name in ("plain", "scores")
        )
    else:
        plain, rows = (pyarrow.parquet.read_table(f"{name}.parquet").to_pylist() for name in ("plain", "scores"))
    assert list(rows[0]) == [*plain[0], "percentile", "stars"]
    model, processor = load_quality(str(checkpoint))
    calibration = load_calibration(str(checkpoint), model, processor)
    for before, row in zip(plain, rows, strict=True):
        assert {name: row[name] for name in before} == before
        if row["error"]:
            assert "photos/3.png" in row["key"] and row["percentile"] in ("", None) and row["stars"] in ("", None)
        else:
            score = float(row["score"])
            assert float(row["percentile"]) == calibration.percentile(score)
            assert int(row["stars"]) == calibration.stars(score)
    assert len({row["percentile"] for row in rows}) > 2


def test_several_checkpoints_have_their_own_percentiles_beside_the_ensemble(photos, copy, tiny_model):
    model = tiny_model(seed=1, score_range=(-10, 10))
    processor = MusiqImageProcessor.from_config(model.config)
    model.save_pretrained("b")
    processor.save_pretrained("b")
    tiny = tiny_model(score_range=(-10, 10))
    tiny.save_pretrained("a")
    processor.save_pretrained("a")
    words = ["score", "photos/0.png", "-m", "a", "-m", "b", "--weights", "1,1", "-o", "s.csv", "--percentile"]
    assert main(words) == 2
    write_calibration("a", np.linspace(-100, 100, 101), model=tiny, processor=processor, data="one")
    write_calibration("b", np.linspace(-50, 150, 101), model=model, processor=processor, data="other")
    assert main(words) == 0
    first, second = read_csv("s.csv")
    assert list(first)[-3:] == ["ensemble", "percentile", "stars"] and first["ensemble"] == second["ensemble"] != ""
    assert float(first["percentile"]) == pytest.approx((float(first["score"]) + 100) / 2, abs=0.051)
    assert float(second["percentile"]) == pytest.approx((float(second["score"]) + 50) / 2, abs=0.051)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_scores_of_own_pictures_are_a_calibration(photos, checkpoint, suffix):
    words = ["score", "photos", "-m", str(checkpoint), "--device", "cpu"]
    assert main([*words, "-o", f"own.{suffix}"]) == 1
    assert main([*words, "-o", f"scores.{suffix}", "--calibration", f"own.{suffix}"]) == 1
    Calibration.load(f"own.{suffix}").save("own.json")
    again = main([*words, "-o", f"again.{suffix}", "--calibration", "own.json"])
    assert again == 1 and Path(f"again.{suffix}").read_bytes() == Path(f"scores.{suffix}").read_bytes()
    rows = list(itertools.islice(read_table(f"scores.{suffix}"), 1, None))
    assert list(rows[0])[-2:] == ["percentile", "stars"]
    assert rows[3]["percentile"] in ("", None) and rows[3]["stars"] in ("", None)
    scores = [float(row["score"]) for row in rows if not row["error"]]
    for row in rows[:3] + rows[4:]:
        place = sorted(scores).index(float(row["score"]))
        assert (float(row["percentile"]), int(row["stars"])) == (25 * place + 12.5, [1, 2, 4, 5][place])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--percentile"], "--percentile takes the checkpoint's own calibration, --calibration another. Drop one."),
        (["-m", "musiq-lite-biq2021"], "--calibration holds the scores of one checkpoint, got 2 checkpoints (-m)."),
        (["-o", "own.csv", "--overwrite"], "own.csv is the calibration, and would be lost. Choose another name."),
        ([], "own.csv"),
    ],
)
def test_a_calibration_stands_alone(photos, checkpoint, capsys, more, message):
    words = ["score", "photos", "-m", str(checkpoint), "-o", "s.csv", "--calibration", "own.csv", *more]
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_a_calibration_of_other_scores_is_refused_and_one_without_a_signature_is_warned_of(photos, checkpoint, capsys):
    model, processor = load_quality(str(checkpoint))
    words = ["score", "photos/0.png", "-m", str(checkpoint), "--device", "cpu", "--calibration", "c.json"]
    own = make_signature(model, processor, checkpoint="elsewhere", preset="default").replace("torch:", "torch:other")
    Calibration.fit([5.0], signature=own).save("c.json")
    assert main(words) == 0
    assert "does not say" not in capsys.readouterr().err
    weights = re.search(r"weights:(\w+)", own)[1]
    Calibration.fit([5.0], signature=own.replace(weights, "1a2b3c4d")).save("c.json")
    assert main(words) == 2
    assert capsys.readouterr().err == (
        f"musiq score: The calibration is of other scores (weights 1a2b3c4d, now {weights}): of elsewhere, to be used "
        "for calibrated. Score its pictures in the same way, and fit it anew.\n"
    )
    Calibration.fit([5.0], signature=own).save("c.json")
    assert main([*words, "--shorter_side", "20"]) == 2
    assert "of other scores (preprocessing" in capsys.readouterr().err
    Calibration.fit([5.0]).save("c.json")
    assert main(words) == 0
    assert "The calibration does not say which checkpoint its scores are of" in capsys.readouterr().err


def test_the_terminal_shows_them_on_request(photos, checkpoint, capsys):
    words = ["score", "photos", "-m", str(checkpoint), "--device", "cpu"]
    assert main(words) == 1
    assert capsys.readouterr().out.splitlines()[0].split() == ["score", "in", "0..1", "size", "key"]
    Calibration.fit(range(11)).save("own.json")
    assert main([*words, "--calibration", "own.json"]) == 1
    heads = ["score", "in", "0..1", "percentile", "stars", "size", "key"]
    assert capsys.readouterr().out.splitlines()[0].split() == heads
    assert main([*words, "--percentile"]) == 1
    head, first, *_, broken, _ = capsys.readouterr().out.splitlines()
    assert head.split() == heads
    score, percentile, stars, size, key = first.split()
    assert (size, key) == ("30x20", "photos/0.png")
    assert float(percentile) == pytest.approx(min(max(10 * float(score), 0), 100), abs=0.11)
    assert int(stars) == min(int(float(percentile) // 20) + 1, 5)
    assert broken.split()[:2] == ["error:", "photos/3.png:"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_without_a_calibration_that_holds_the_command_says_so(photos, copy, capsys, dtype):
    if dtype == "float32":
        (copy / "calibration.json").unlink()
    words = ["score", "photos", "-m", str(copy), "-o", "s.csv", "--percentile", "--device", "cpu", "--dtype", dtype]
    assert main(words) == 2
    message = {
        "float32": f"{copy} holds no calibration.json, so its scores have no percentiles. Write it with",
        "bfloat16": f"{copy / 'calibration.json'} is of other scores (weights ",
    }[dtype]
    assert message in capsys.readouterr().err
    assert not Path("s.csv").exists() and not list(Path().glob("*.part"))


def test_a_continued_run_keeps_its_percentiles(photos, copy):
    def job(name, **settings):
        return ScoreJob(["photos"], output=name, models=[str(copy)], device="cpu", **{"percentile": True} | settings)

    def stop(totals):
        if totals.pictures == 2:
            raise KeyboardInterrupt

    run_job(job("whole.csv"))
    with pytest.raises(KeyboardInterrupt):
        run_job(job("s.csv"), on_progress=stop)
    with pytest.raises(
        ValueError, match=r"s.csv.part is of an unfinished run with other settings \(percentile: True, now"
    ):
        run_job(job("s.csv", percentile=False))
    before = (copy / "calibration.json").read_bytes()
    model, processor = load_quality(str(copy))
    write_calibration(copy, range(100), model=model, processor=processor, data="others")
    with pytest.raises(ValueError, match=r"other settings \(calibrations: \w{8}, now \w{8}\)"):
        run_job(job("s.csv"))
    with pytest.raises(ValueError, match=r"other settings \(calibrations: \w{8}, now \w{8}\)"):
        run_job(job("s.csv", percentile=False, calibration=Calibration.fit([1, 2])))
    (copy / "calibration.json").write_bytes(before)
    assert run_job(job("s.csv")) == ("written", 5, 1)
    assert Path("s.csv").read_bytes() == Path("whole.csv").read_bytes()


def test_a_run_with_another_calibration_is_another_run(photos, checkpoint):
    def job(name, scores, **settings):
        calibration = Calibration.fit(scores)
        return ScoreJob(["photos"], output=name, models=[str(checkpoint)], calibration=calibration, **settings)

    def stop(totals):
        if totals.pictures == 2:
            raise KeyboardInterrupt

    run_job(job("whole.csv", range(11), device="cpu"))
    with pytest.raises(KeyboardInterrupt):
        run_job(job("s.csv", range(11), device="cpu"), on_progress=stop)
    with pytest.raises(ValueError, match=r"other settings \(calibrations: \w{8}, now \w{8}\)"):
        run_job(job("s.csv", range(12), device="cpu"))
    for share in (Share(1, 2), Share(2, 2)):
        run_job(job("part.csv", range(11), device="cpu", share=share))
    parts = [read_csv(f"part.{index}-of-2.csv") for index in (1, 2)]
    assert run_job(job("s.csv", range(11), device="cpu")) == ("written", 5, 1)
    assert Path("s.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert [parts[i % 2][i // 2] for i in range(5)] == read_csv("s.csv")
    assert run_job(job("s.csv", range(11), device="cpu")) == ("found", 5, 1)
    with pytest.raises(ValueError, match=r"other settings, the calibration \(percentile of photos/0.png: "):
        run_job(job("s.csv", [*range(11), 100], device="cpu"))


def test_the_pipeline_answers_them_on_request(photos, checkpoint):
    scorer = pipeline("image-quality-assessment", model=str(checkpoint))
    plain, answer = scorer("photos/0.png"), scorer("photos/0.png", percentile=True)
    assert list(plain) == ["score"] and list(answer) == ["score", "percentile", "stars"]
    assert answer["score"] == plain["score"]
    assert answer["percentile"] == round(min(max(10 * answer["score"], 0), 100), 1)
    always = pipeline("image-quality-assessment", model=str(checkpoint), percentile=True)
    assert always("photos/0.png") == answer
    assert always(["photos/0.png", "photos/0.png"], batch_size=2)[1].keys() == answer.keys()
    assert always("photos/0.png", percentile=False) == plain
    with torch.no_grad():
        scorer.model.head.classifier.bias.add_(1.0)
    with pytest.raises(ValueError, match="calibration.json is of other scores"):
        scorer("photos/0.png", percentile=True)


@pytest.mark.parametrize("is_saved", [True, False])
def test_the_pipeline_says_that_there_is_none(copy, tiny_model, is_saved):
    (copy / "calibration.json").unlink()
    model = tiny_model()
    processor = MusiqImageProcessor.from_config(model.config)
    parts = {"model": str(copy)} if is_saved else {"model": model, "image_processor": processor}
    with pytest.raises(
        ValueError, match=f"{re.escape(str(copy)) if is_saved else 'The model'} holds no calibration.json"
    ):
        pipeline("image-quality-assessment", percentile=True, **parts)


def test_a_model_with_a_distribution_has_them_by_its_mean_score(photos, tiny_model):
    model = tiny_model(num_labels=10)
    processor = MusiqImageProcessor.from_config(model.config)
    model.save_pretrained("bins")
    processor.save_pretrained("bins")
    write_calibration("bins", np.linspace(1, 11, 101), model=model, processor=processor, data="a line")
    answer = pipeline("image-quality-assessment", model="bins", percentile=True)("photos/0.png")
    assert list(answer) == ["score", "percentile", "stars", "distribution", "std"]
    assert answer["percentile"] == round(10 * (answer["score"] - 1), 1)


@pytest.mark.slow
def test_the_pipeline_answers_them_without_the_package(checkpoint, tmp_path):
    picture = save_picture(tmp_path / "picture.png")
    script = f"""
scorer = pipeline("image-quality-assessment", model={str(checkpoint)!r}, trust_remote_code=True, percentile=True)
result["answer"] = scorer(PICTURE)
"""
    found = run_isolated(script, home=tmp_path / "home", cwd=tmp_path, picture=picture, package=False)
    expected = pipeline("image-quality-assessment", model=str(checkpoint), percentile=True)(str(picture))
    assert found["answer"] == pytest.approx(expected, abs=0.1)


def test_the_card_shows_them(copy):
    config = AutoModel.from_pretrained(copy).config
    card = CheckpointCard(name="mine", config=config, source="None.", training_data="None.", recipe="None.")
    card.save(copy)
    assert "Percentiles" not in (copy / "README.md").read_text()
    renew_card(copy)
    text = (copy / "README.md").read_text()
    part = "\n\n### Percentiles and stars\n\nAmong 101 pictures (a line). A percentile says"
    assert part in text.split("\n## Evaluation\n")[1].split("\n## ")[0]
    assert "| percentile | 5 % | 20 % | 40 % | 60 % | 80 % | 95 % |" in text
    assert "| score | 0.5 | 2 | 4 | 6 | 8 | 9.5 |\n| stars | 1 | 2 | 3 | 4 | 5 | 5 |\n" in text
    renew_card(copy)
    assert (copy / "README.md").read_text() == text
    by_hand = "# Mine\n\n## Evaluation\n\nBy hand.\n\n## Limits\n\nNone.\n"
    (copy / "README.md").write_text(by_hand)
    renew_card(copy)
    before, _, after = (copy / "README.md").read_text().partition(part)
    assert before == "# Mine\n\n## Evaluation\n\nBy hand." and after.endswith(" |\n\n## Limits\n\nNone.\n")
    (copy / "README.md").write_text("# Mine\n")
    renew_card(copy)
    assert (copy / "README.md").read_text().startswith("# Mine\n\n## Evaluation\n\n")
    (copy / "README.md").write_text(text)
    (copy / "calibration.json").unlink()
    renew_card(copy)
    assert (copy / "README.md").read_text() == card.render()
