# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from places import ROOT
from transformers import AutoImageProcessor

from musiq_hf import MusiqForImageClassification, MusiqImageProcessor
from musiq_hf.cli import main
from musiq_hf.cli.evaluate import add_arguments
from musiq_hf.data.batches import open_row
from musiq_hf.data.loading import load_data
from musiq_hf.evaluation.checkpoints import EvaluationSettings, evaluate_checkpoints, score_rows
from musiq_hf.metrics.correlation import MEAN_OF_GROUPS
from musiq_hf.metrics.rendering import render
from musiq_hf.metrics.reports import ComparisonReport, quality_report
from musiq_hf.scoring.calibration import load_calibration
from musiq_hf.scoring.loading import load_quality

MOS = [10, 20, 30, 45, 50, 65, 70, 80, 15, 95, 40, 60, 55, 25]


@pytest.fixture(scope="module")
def scores_csv(tmp_path_factory) -> str:
    """Pictures of different sizes: six to test on, in two groups and two places, the others to train on."""
    folder, generator = tmp_path_factory.mktemp("scored"), np.random.default_rng(3)
    lines = ["image,mos,split,group,place"]
    for index, mos in enumerate(MOS):
        shape = (16 + 3 * index, 44 - 2 * index, 3)
        Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{index}.png")
        split = "test" if index < 6 else "train"
        lines.append(f"{index}.png,{mos},{split},{'ab'[index % 2]},{'north' if index < 3 else 'south'}")
    (folder / "scores.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "scores.csv")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory, tiny_model) -> list[str]:
    """Two checkpoints, one score and ten bins."""
    folders = []
    for name, model in {"scorer": tiny_model(), "bins": tiny_model(seed=1, num_labels=10)}.items():
        folders.append(str(tmp_path_factory.mktemp("checkpoints") / name))
        model.save_pretrained(folders[-1])
        MusiqImageProcessor.from_config(model.config).save_pretrained(folders[-1])
    return folders


def measure(models, data, **changes):
    settings = EvaluationSettings(models=models, data=data, **{"num_resamples": 20} | changes)
    return evaluate_checkpoints(settings).results


def tables(*reports) -> str:
    return render(ComparisonReport(results=reports))


def predict(scorer, rows, **options):
    """Score rows with a model and its processor."""
    model, processor = scorer
    return score_rows(rows, model=model, processor=processor, **options)


def test_scores_and_opinion_scores_are_handed_out(checkpoints, scores_csv):
    seen, settings = [], EvaluationSettings(models=checkpoints[:1], data=[scores_csv], num_resamples=20)
    (report,) = evaluate_checkpoints(settings, on_scores=lambda *pair: seen.append(pair)).results
    ((scores, opinions),) = seen
    assert opinions.tolist() == MOS[:6] and quality_report(scores, opinions).overall == report.overall


def test_a_table_without_splits_is_measured_whole(checkpoints, scores_csv, tmp_path, caplog):
    image_root, lines = str(Path(scores_csv).parent), Path(scores_csv).read_text().splitlines()
    (tmp_path / "plain.csv").write_text("\n".join(",".join(line.split(",")[:2]) for line in lines) + "\n")
    (report,) = measure(checkpoints[:1], [str(tmp_path / "plain.csv")], image_root=image_root)
    assert (report.split, report.num_pictures) == ("all rows", len(MOS))
    assert list(report.intervals) == ["overall"] and "has only 14 pictures" in caplog.text
    assert "standard error of an SRCC is about 0.30" in caplog.text
    value, (low, high) = report.overall.srcc, report.intervals["overall"].srcc
    assert f"| 14 | {value:.4f} [{low:.4f}, {high:.4f}] |" in tables(report)
    (named,) = measure(checkpoints[:1], [str(tmp_path / "plain.csv")], image_root=image_root, split="train")
    assert (named.split, named.overall) == ("train", report.overall)


def test_report_is_that_of_the_models_own_scores(checkpoints, scores_csv):
    (report,) = measure(checkpoints[:1], [scores_csv], batch_size=4)
    model, processor = load_quality(checkpoints[0])
    folder = Path(scores_csv).parent
    with torch.no_grad():
        scores = [model(**processor(str(folder / f"{index}.png"))).scores.item() for index in range(6)]
    expected = quality_report(scores, MOS[:6], groups=list("ababab"), num_resamples=20)
    assert (report.model, report.data, report.split) == ("scorer", "scores.csv", "test")
    assert report.num_pictures == 6
    for name, value in expected.overall.to_json().items():
        assert getattr(report.overall, name) == pytest.approx(value, abs=1e-3), name
    assert report.groups["a"].srcc == pytest.approx(expected.groups["a"].srcc)
    assert not report.intervals  # of so few pictures


def test_a_table_with_names_of_ones_own_is_measured(checkpoints, scores_csv, tmp_path):
    lines = Path(scores_csv).read_text().split("\n")
    names = {"image": "photo", "mos": "quality", "split": "set"}
    own = [",".join(names.get(name, name) for name in lines[0].split(",")), *lines[1:]]
    (tmp_path / "scores.csv").write_text("\n".join(own).replace(",", ";"))
    used = {"image_column": "photo", "score_column": "quality", "split_column": "set"}
    used["image_root"] = str(Path(scores_csv).parent)
    assert measure(checkpoints[:1], [str(tmp_path / "scores.csv")], **used) == measure(checkpoints[:1], [scores_csv])


def test_predictions_keep_the_order_of_the_rows_and_need_no_fitting_labels(checkpoints, scores_csv):
    rows = load_data(scores_csv)["test"]
    scorer = load_quality(checkpoints[1])  # ten bins: one opinion score could not be its label
    scores, logits = predict(scorer, rows, max_pictures=4, max_tokens=1000)
    backwards, _ = predict(scorer, rows.select(range(5, -1, -1)), max_pictures=5, max_tokens=1000)
    np.testing.assert_allclose(scores, backwards[::-1], atol=1e-4)
    assert logits.shape == (6, 10) and np.ptp(scores) > 0.01
    smaller, _ = predict(scorer, rows, shorter_side=10)
    assert np.abs(smaller - scores).max() > 1e-3


@pytest.mark.slow
def test_predictions_follow_the_boxes_in_threads_as_in_processes(checkpoints, scores_csv):
    rows = load_data(scores_csv)["test"].select(range(3))
    boxed = rows.add_column("box", [None, [2, 3, 30, 17], [0, 0, 20, 20]])
    scorer = load_quality(checkpoints[0])
    model, processor = scorer
    whole, (scores, _), (same, _) = (
        predict(scorer, rows).scores,
        predict(scorer, boxed),
        predict(scorer, boxed, num_workers=1, in_processes=True),
    )
    with torch.no_grad():
        expected = [model(**processor(open_row(row))).scores.item() for row in boxed]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_array_equal(scores, same)
    assert scores[0] == whole[0] and abs(scores[1] - whole[1]) > 1e-4
    outside = rows.add_column("box", [None, [2, 3, 300, 17], None])
    with pytest.raises(ValueError, match=r"1\.png: the box \[2, 3, 300, 17\] must lie inside of its 42x19 pixels"):
        predict(scorer, outside)


def test_pictures_that_cannot_be_scored_are_named(checkpoints, scores_csv, tmp_path):
    rows, scorer = load_data(scores_csv)["test"].to_list(), load_quality(checkpoints[0])
    (tmp_path / "broken.png").write_bytes(b"nothing")
    Image.new("RGB", (900, 1)).save(tmp_path / "thin.png")
    cases = {
        "broken.png": "broken.png: not a picture",
        "thin.png": "thin.png: its aspect ratio is too extreme",
        "absent.png": "absent.png: no such file",
    }
    for name, message in cases.items():
        rows[2]["image"] = {"bytes": None, "path": str(tmp_path / name)}
        with pytest.raises(ValueError, match=message):
            predict(scorer, rows)
    rows[2]["image"] = {"bytes": b"nothing", "path": None}
    with pytest.raises(ValueError, match="row 2: not a picture"):
        predict(scorer, rows)


def test_signature_and_pixels_follow_the_preset(checkpoints, scores_csv, tmp_path):
    folder = Path(scores_csv).parent
    turned = Image.Exif()
    turned[0x0112] = 6
    for index in range(6):
        with Image.open(folder / f"{index}.png") as picture:
            picture.save(tmp_path / f"{index}.png", exif=turned)
    lines = Path(scores_csv).read_text()
    (tmp_path / "scores.csv").write_text(lines)
    for file in folder.glob("*.png"):
        if not (tmp_path / file.name).exists():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    data = str(tmp_path / "scores.csv")
    plain, ours, google = (
        measure(checkpoints[:1], [table], preset=preset)[0]
        for table, preset in ((scores_csv, "default"), (data, "default"), (data, "google"))
    )
    assert google.overall == plain.overall != ours.overall
    (signature,) = google.signatures
    assert signature.startswith("scorer|weights:") and "|preset:google|" in signature
    assert tables(plain, google).endswith(f"Made with\n\n- `{plain.signatures[0]}`\n- `{signature}`")
    with pytest.raises(ValueError, match="`preset` must be one of default, google, got 'tf'"):
        measure(checkpoints[:1], [data], preset="tf")


def test_distributions_are_measured_where_both_sides_have_them(checkpoints, scores_csv, monkeypatch):
    rows = load_data(scores_csv)["test"]
    counts = np.random.default_rng(0).integers(1, 9, (6, 10))
    with_bins = rows.remove_columns("mos").add_column("distribution", counts.tolist())  # as in AVA
    monkeypatch.setattr("musiq_hf.evaluation.checkpoints.load_data", lambda *args, **kwargs: {"test": with_bins})
    scorer, bins = measure(checkpoints, ["any"])
    assert {"emd", "accuracy_at_5", "mse"} <= set(bins.overall.to_json())
    assert "emd" not in scorer.overall.to_json()
    scores, _ = predict(load_quality(checkpoints[1]), with_bins)
    means = counts @ np.arange(1, 11) / counts.sum(axis=1)
    assert bins.overall.mse == pytest.approx(np.mean((scores - means) ** 2), rel=1e-4)
    assert bins.overall.rmse == pytest.approx(bins.overall.mse**0.5, rel=1e-4)
    assert "| accuracy at 5 |" in tables(scorer, bins)


def test_several_checkpoints_and_data_sets_make_tables(checkpoints, scores_csv, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text(Path(scores_csv).read_text().replace(",test,", ",validation,"))
    folder = str(Path(scores_csv).parent)
    reports = measure(checkpoints, [scores_csv, str(other)], image_root=folder, group_by="place")
    assert [(report.model, report.data, report.split) for report in reports] == [
        ("scorer", "scores.csv", "test"),
        ("scorer", "other.csv", "validation"),
        ("bins", "scores.csv", "test"),
        ("bins", "other.csv", "validation"),
    ]
    text = tables(*reports)
    assert f"| scorer | scores.csv | test | 6 | {reports[0].overall.srcc:.4f} |" in text
    assert "| checkpoint | scores.csv | other.csv |" in text
    assert f"| bins | {reports[2].overall.srcc:.4f} | {reports[3].overall.srcc:.4f} |" in text
    assert "| bins | other.csv | south |" in text and f"| bins | other.csv | {MEAN_OF_GROUPS} |" in text


def test_ensemble_is_measured_by_the_mean_of_the_scores(checkpoints, scores_csv, tmp_path):
    other = tmp_path / "other"
    model, processor = load_quality(checkpoints[0])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.2)
    model.save_pretrained(other)
    processor.save_pretrained(other)
    *single, both = measure([checkpoints[0], str(other)], [scores_csv], ensemble=True)
    rows = load_data(scores_csv)["test"]
    scores = [predict(load_quality(name), rows).scores for name in (checkpoints[0], other)]
    expected = quality_report(np.mean(scores, axis=0), MOS[:6], groups=list("ababab"), num_resamples=20)
    assert [report.model for report in (*single, both)] == ["scorer", "other", "mean of 2 checkpoints"]
    for name, value in expected.overall.to_json().items():
        assert getattr(both.overall, name) == pytest.approx(value, abs=1e-4), name
    assert both.overall.rmse != pytest.approx(single[0].overall.rmse, rel=1e-3)
    assert both.signatures == tuple(report.signatures[0] for report in single)
    assert (both.data, both.split, sorted(both.groups)) == ("scores.csv", "test", ["a", "b", MEAN_OF_GROUPS])
    last = tables(*single, both).split("\n\n")[1].splitlines()[-1]
    assert last.startswith("| mean of 2 checkpoints | scores.csv | test | 6 |")


def test_ensemble_needs_several_checkpoints_of_one_range(tiny_config, tmp_path, checkpoints, scores_csv):
    with pytest.raises(ValueError, match="`ensemble` is the mean of several checkpoints, got 1"):
        EvaluationSettings(models=["m"], data=["d"], ensemble=True)
    tiny_config(score_range=[0, 100]).save_pretrained(tmp_path / "percent")
    models = [str(tmp_path / "percent"), *checkpoints]
    with pytest.raises(ValueError, match=r"must have one score range, got .*percent: 0 to 100, .*bins: 1 to 10\."):
        measure(models, [scores_csv], ensemble=True)


def test_one_checkpoint_makes_no_table_across_data_sets(checkpoints, scores_csv):
    text = tables(*measure(checkpoints[:1], [scores_csv], group_by="none"))
    assert "across data sets" not in text and "Within groups" not in text


def test_checkpoints_that_cannot_score_are_refused(tiny_config, tmp_path, checkpoints, scores_csv):
    config = tiny_config(num_labels=7)
    config.save_pretrained(tmp_path / "blank")
    with pytest.raises(ValueError, match="blank holds no weights"):
        load_quality(str(tmp_path / "blank"))
    MusiqForImageClassification(config).save_pretrained(tmp_path / "classes")
    with pytest.raises(ValueError, match="holds a MusiqForImageClassification, which predicts no quality"):
        load_quality(str(tmp_path / "classes"))
    model, processor = load_quality(checkpoints[0])
    with torch.no_grad():
        model.head.classifier.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match=r"The score of .*0\.png is nan"):
        predict((model, processor), load_data(scores_csv)["test"])


def test_too_few_pictures_are_refused_before_scoring(scores_csv, tmp_path):
    lines = Path(scores_csv).read_text().splitlines()
    (tmp_path / "few.csv").write_text("\n".join(lines[:3]) + "\n")
    with pytest.raises(ValueError, match="few.csv, split test: at least 3 pictures are needed, got 2"):
        measure(["no such model"], [str(tmp_path / "few.csv")], image_root=str(Path(scores_csv).parent))


@pytest.mark.parametrize("name", ["batch_size", "num_resamples", "shorter_side"])
def test_wrong_settings_are_refused(name):
    with pytest.raises(ValueError, match=f"`{name}` must be at least 1, got 0"):
        EvaluationSettings(models=["m"], data=["d"], **{name: 0})
    with pytest.raises(ValueError, match="`num_workers` must be at least 0, got -1"):
        EvaluationSettings(models=["m"], data=["d"], num_workers=-1)


def test_help_of_the_command_is_that_of_the_settings():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    shown = {action.help for action in parser._actions}
    texts = {field.name: field.metadata["help"] for field in fields(EvaluationSettings)}
    assert {name for name, text in texts.items() if text not in shown} == {"num_resamples"}  # no flag


def command(*words: str, launch: tuple[str, ...] = ()) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, *launch, str(ROOT / "examples" / "evaluate.py"), *words]
    return subprocess.run(line, capture_output=True, text=True, env=environment, check=False)


def run_main(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    """The command in this process: importing everything anew for each mistake would take long."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("examples_evaluate", ROOT / "examples" / "evaluate.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words])
    code = script.main()
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_command_measures_writes_and_fills_the_card(checkpoints, scores_csv, tmp_path, monkeypatch, capsys):
    words = ("--data", scores_csv, "--model", checkpoints[0], "--output", str(tmp_path / "report.json"))
    code, output, errors = run_main(monkeypatch, capsys, *words, "--update_card", "--card-title", "validation")
    assert code == 0, errors
    (report,) = json.loads((tmp_path / "report.json").read_text())["results"]
    assert f"| {report['overall']['srcc']:.4f} |" in output == (tmp_path / "report.md").read_text()
    stored = json.loads((Path(checkpoints[0]) / "metrics.json").read_text())
    assert stored["validation"]["overall"] == report["overall"]
    assert AutoImageProcessor.from_pretrained(checkpoints[0]).patch_size == 8  # the checkpoint still loads


def test_command_adds_the_ensemble_to_the_report_but_to_no_card(
    checkpoints, tiny_model, scores_csv, tmp_path, monkeypatch, capsys
):
    names = []
    for seed in range(2):
        model = tiny_model(seed=seed)
        names.append(str(tmp_path / f"m{seed}"))
        model.save_pretrained(names[-1])
        MusiqImageProcessor.from_config(model.config).save_pretrained(names[-1])
    words = ("--data", scores_csv, "--model", *names, "--ensemble", "--update_card")
    code, output, errors = run_main(monkeypatch, capsys, *words)
    assert code == 0, errors
    assert "| mean of 2 checkpoints | scores.csv | test | 6 |" in output
    stored = [json.loads((Path(name) / "metrics.json").read_text()) for name in names]
    assert [list(entries) for entries in stored] == [["scores.csv, test"]] * 2
    assert stored[0] != stored[1]


def test_command_repeats_runs_with_groups_and_fills_their_cards(
    scores_csv, tiny_config, tmp_path, monkeypatch, capsys
):
    config = tiny_config(longer_side_lengths=[16])
    config.save_pretrained(tmp_path / "blank")
    MusiqImageProcessor.from_config(config).save_pretrained(tmp_path / "blank")
    words = ["--data", scores_csv, "--model", str(tmp_path / "blank"), "--output_dir", str(tmp_path / "runs")]
    words += ["--set", "max_steps=1", "--set", "batch_size=4", "--set", "holdout_fraction=0.4", "--fixed_splits"]
    words += ["--runs", "2", "--update_card", "--group_by", "place"]
    code, output, errors = run_main(monkeypatch, capsys, *words)
    assert code == 0, errors
    printed = (tmp_path / "runs" / "report.md").read_text()
    summary = json.loads((tmp_path / "runs" / "report.json").read_text())["summary"]
    assert sorted(summary["test"]["groups"]) == [MEAN_OF_GROUPS, "north", "south"]
    assert summary["test"]["groups"]["north"]["srcc"]["num_runs"] == 2
    for name in ("run_00", "run_01"):
        card = (tmp_path / "runs" / name / "README.md").read_text()
        assert "Trained with `musiq evaluate` of musiq_hf" in card
        assert "**Repeated runs**" in card and printed.strip() in card and "**Test split**" in card
        stored = json.loads((tmp_path / "runs" / name / "metrics.json").read_text())
        assert stored["Repeated runs"]["summary"] == summary
    code, _, errors = run_main(monkeypatch, capsys, *words[:-1], "size")
    assert code == 2 and "holds runs with other settings (group_by)" in errors
    # Once more: finished runs are read, and what was added to their cards is no split of theirs.
    code, again, errors = run_main(monkeypatch, capsys, *words)
    assert (code, again) == (0, printed), errors
    assert output.endswith(printed)


def test_command_refuses_a_wrong_group_column_before_it_trains(scores_csv, tmp_path, monkeypatch, capsys):
    words = ["--data", scores_csv, "--runs", "2", "--group_by", "size", "--output_dir", str(tmp_path / "runs")]
    words += ["--set", "holdout_fraction=0.4"]
    code, _, errors = run_main(monkeypatch, capsys, *words)
    assert code == 2
    assert "`--group_by size`:" in errors and "has no such column, only" in errors.splitlines()[-2]
    assert not (tmp_path / "runs" / "run_00").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--data is needed: pictures with opinion scores."),
        (["--data", "absent.csv"], "absent.csv"),
        (["--data", "a.csv", "--recipe", "koniq"], "`--recipe` needs `--runs`"),
        (["--data", "a.csv", "--fixed_splits"], "`--fixed_splits` needs `--runs`"),
        (["--data", "a.csv", "--runs", "2", "--split", "test"], "`--split` cannot be combined with `--runs`"),
        (["--data", "a.csv", "b.csv", "--runs", "2"], "`--runs` trains from one `--data`, got several"),
        (["--data", "a.csv", "--runs", "2", "--ensemble"], "`--ensemble` cannot be combined with `--runs`"),
        (["--data", "a.csv", "--ensemble"], "`ensemble` is the mean of several checkpoints, got 1"),
        (["--data", "a.csv", "--output", "report.txt"], "The report is a .json file"),
        (["--data", "a.csv", "--card_title", "x"], "`--card_title` names the results on one data set and needs"),
        (["--data", "a.csv", "--model", "some/hub-id", "--update_card"], "The card of some/hub-id cannot be updated"),
        (["--data", "a.csv", "--runs", "2", "--card_title", "x"], "`--card_title` names the results on one data set"),
        (["--data", "a.csv", "--runs", "2", "--set", "epochs=0"], "`epochs` must be positive"),
    ],
)
def test_mistakes_get_one_sentence(words, message, monkeypatch, capsys):
    code, _, errors = run_main(monkeypatch, capsys, *words)
    assert code == 2
    sentence, example = errors.splitlines()[-2:]
    assert message in sentence and sentence.startswith("musiq evaluate: ")
    assert example.startswith("Example: musiq evaluate --data")


@pytest.mark.slow
def test_two_processes_measure_what_one_does(checkpoints, scores_csv, tmp_path):
    reports = []
    for index, launch in enumerate([(), ("-m", "torch.distributed.run", "--nproc_per_node", "2")]):
        output = tmp_path / f"{index}.json"
        words = ("--data", scores_csv, "--model", *checkpoints, "--output", str(output), "--batch_size", "4")
        result = command(*words, launch=launch)  # 4 and 2 pictures for two processes: the last is filled up
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("Overall;") == 1
        reports.append(json.loads(output.read_text())["results"])
    for one, two in zip(*reports, strict=True):
        assert two["num_pictures"] == 6
        assert two["overall"] == pytest.approx(one["overall"], abs=1e-4)


@pytest.mark.slow
def test_command_repeats_training_and_goes_on(scores_csv, tiny_config, tmp_path):
    config = tiny_config(longer_side_lengths=[16])
    config.save_pretrained(tmp_path / "blank")
    MusiqImageProcessor.from_config(config).save_pretrained(tmp_path / "blank")
    words = ["--data", scores_csv, "--model", str(tmp_path / "blank"), "--output_dir", str(tmp_path / "runs")]
    words += ["--set", "epochs=1", "--set", "batch_size=4", "--set", "holdout_fraction=0.4", "--fixed_splits"]
    first = command(*words, "--runs", "1")
    assert first.returncode == 0, first.stderr
    weights = tmp_path / "runs" / "run_00" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    result = command(*words, "--runs", "2")
    assert result.returncode == 0, result.stderr
    assert weights.stat().st_mtime_ns == written  # the finished run was kept
    content = json.loads((tmp_path / "runs" / "report.json").read_text())
    assert len(content["runs"]) == 2
    assert content["summary"]["test"]["overall"]["srcc"]["num_runs"] == 2
    assert (tmp_path / "runs" / "report.md").read_text() in result.stdout


@pytest.fixture(scope="module")
def hundred(tmp_path_factory) -> str:
    """A hundred pictures of few pixels and of all brightnesses, to validate on, and five to test on."""
    folder, generator = tmp_path_factory.mktemp("hundred"), np.random.default_rng(5)
    lines = ["image,mos,split"]
    for index in range(105):
        values = generator.integers(0, 10 + 2 * index, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{index},{'validation' if index < 100 else 'test'}")
    (folder / "hundred.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "hundred.csv")


def test_the_command_writes_the_percentiles_of_each_checkpoint(checkpoints, hundred, tmp_path, capsys):
    folders = [shutil.copytree(checkpoint, tmp_path / Path(checkpoint).name) for checkpoint in checkpoints]
    written = {"calibration.json", "README.md"}
    before = [
        {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in written} for folder in folders
    ]
    words = ["evaluate", "--data", hundred, "--model", *map(str, folders), "--write_calibration"]
    assert main([*words, "--split", "validation"]) == 0
    rows = load_data(hundred)["validation"]
    for folder, others in zip(folders, before, strict=True):
        model, processor = load_quality(str(folder))
        scores, _ = predict((model, processor), rows)
        calibration = load_calibration(str(folder), model, processor)
        assert (calibration.data, calibration.num_pictures) == ("hundred.csv, validation", 100)
        np.testing.assert_allclose(calibration.quantiles, np.quantile(scores, np.linspace(0, 1, 101)), rtol=1e-5)
        assert calibration.quantiles[0] < calibration.quantiles[50] < calibration.quantiles[100]
        assert "Among 100 pictures (hundred.csv, validation)" in (folder / "README.md").read_text()
        assert {path.name for path in folder.iterdir()} == others.keys() | written
        assert all((folder / name).read_bytes() == content for name, content in others.items())
    assert main([*words, "--split", "validation", "--shorter_side", "8"]) == 0
    with pytest.raises(ValueError, match=r"of other scores \(preprocessing \w+, now \w+\)"):
        load_calibration(str(folders[0]), *load_quality(str(folders[0])))
    load_calibration(str(folders[0]), *load_quality(str(folders[0])), shorter_side=8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "At least 100 pictures are needed for percentiles, got 5."),
        (["--split", "validation", "--model", "someone/musiq"], "that needs a local directory with a config.json"),
        (["--split", "validation", "--data", "a.csv", "b.csv"], "`write_calibration` needs one data set, got 2"),
        (["--runs", "2"], "`--write_calibration` cannot be combined with `--runs`"),
    ],
)
def test_percentiles_that_cannot_be_written_are_refused_before_scoring(
    checkpoints, hundred, monkeypatch, capsys, words, message
):
    monkeypatch.setattr("musiq_hf.evaluation.checkpoints.score_rows", None)
    assert main(["evaluate", "--data", hundred, "--model", checkpoints[0], "--write_calibration", *words]) == 2
    assert message in capsys.readouterr().err
    assert not (Path(checkpoints[0]) / "calibration.json").exists()
