# SPDX-License-Identifier: Apache-2.0
"""How the command starts, and the subcommands that need no pictures or forward: verify, info, convert and others."""

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
from golden import DIRECTORY
from launching import BELOW_COMMANDS, launch
from PIL import Image
from places import ROOT

import musiq_hf
from musiq_hf import DEFAULT_CHECKPOINT, TINY_CHECKPOINT, MusiqForImageClassification, MusiqImageProcessor, cli
from musiq_hf.cli import build_parser, main
from musiq_hf.cli.info import describe_checkpoint
from musiq_hf.cli.recording import record_words
from musiq_hf.cli.words import FILE
from musiq_hf.common.arguments import parse_arguments
from musiq_hf.hub.model_card import CheckpointCard
from musiq_hf.scoring.signature import make_signature
from musiq_hf.scoring.verification import OFFICIAL_PICTURES, SELF_TEST, write_self_test

COMMANDS = ("verify", "info", "convert", "export", "evaluate", "finetune", "mos", "pairs", "plan-session")
SCRIPTS = sysconfig.get_path("scripts")


def musiq(capsys, *words):
    """(exit code, output, errors) of a command; a ValueError, which `musiq` prints, is raised."""
    arguments = parse_arguments(build_parser(), [str(word) for word in words])
    command = cli.COMMANDS[arguments.command]
    if command.check is not None:
        command.check(arguments)
    code = command.load().run(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def mistake(capsys, *words):
    """(exit code, errors) of a command that cannot do what it is asked."""
    code = main([str(word) for word in words])
    return code, capsys.readouterr().err


def in_a_process(*words, cwd, **variables):
    """A Python process that can import the package, offline."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"} | variables
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def save(model, folder):
    processor = MusiqImageProcessor.from_config(model.config)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    write_self_test(model, processor, folder)
    return folder


@pytest.fixture
def checkpoint(tiny_model, tmp_path):
    return save(tiny_model(score_range=(0, 100)), tmp_path / "musiq-koniq")


@pytest.fixture
def official(tmp_path):
    """Five gray pictures under the official names."""
    folder = tmp_path / "dist_dir"
    folder.mkdir()
    for level, name in enumerate(OFFICIAL_PICTURES):
        Image.new("RGB", (40, 30), (40 * level, 90, 120)).save(folder / f"{name}.bmp")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_and_every_command_can_stand_beside_the_others(command, capsys):
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args([command, "--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert printed.startswith(f"usage: musiq {command} [-h]") and f"\nmusiq {command} " in printed
    assert printed.count("--help") == 1


# How the command starts


@pytest.mark.parametrize(
    ("words", "code", "printed"),
    [
        (["--help"], 0, "    finetune    train on your own opinion scores\n"),
        (["--version"], 0, f"musiq_hf {musiq_hf.__version__}\n"),
        (["scor", "photo.jpg"], 2, "argument COMMAND: invalid choice: 'scor' (choose from "),
        ([], 2, "the following arguments are required: COMMAND"),
        *(([command, "--help"], 0, f"\nmusiq {command} ") for command in COMMANDS),
        (["score", "--help"], 0, "\nexamples:\n  musiq score photo.jpg\n"),
        (["explain", "--help"], 0, "\nmusiq explain photo.jpg -o report.html\n"),
        *(([command], 2, f"usage: musiq {command} [-h] ") for command in ("score", "explain", "convert")),
        *(([command, "--bad", "1"], 2, f"usage: musiq {command} [-h] ") for command in ("evaluate", "finetune")),
        (["score", "a.png", "--shard", "4/3"], 2, "argument --shard: must be i/n with i from 1 to n"),
        (["score", "a.png", "--max_tokens", "0"], 2, "argument --max_tokens: must be at least 1, got 0"),
        (["evaluate"], 2, "musiq evaluate: --data is needed: pictures with opinion scores."),
        (["evaluate", "--data", "a.csv", "--recipe", "koniq"], 2, "`--recipe` needs `--runs`."),
        (["finetune", "--epochs", "2"], 2, "musiq finetune: --data is needed"),
        (["export", "a", "b.pth"], 2, "musiq export: OUT must end in .onnx or .pt2, got b.pth"),
        (["evaluate", "--data", "a.csv", "--output", "a.txt"], 2, "The report is a .json file"),
        (["explain", "a.png", "-o", "a.pdf"], 2, "musiq explain: a.pdf: a report is HTML. "),
        (["score", "a.png"], 2, "musiq score: a.png: no such file or folder, and no picture"),
        (["score", ".", "-o", "a.txt"], 2, "musiq score: a.txt: tables are written as .csv, .jsonl, .parquet files."),
        (["score", ".", "-m", "a", "--weights", "1,2"], 2, "musiq score: --weights needs several checkpoints (-m)"),
        (["score", "a.png", "--null"], 2, "`--null` says how names on standard input end"),
        (["mos", "a.csv", "-o", "a.txt"], 2, "musiq mos: a.txt: a .csv or .jsonl or .parquet file is written."),
        (["verify", "a", "--name", "koniq"], 2, "`--name` says which official scores"),
    ],
)
def test_help_and_refusals_import_no_library(words, code, printed, tmp_path):
    module = "musiq_hf" if words == ["--version"] else "musiq_hf.cli"  # both are the command
    told = "import atexit, sys; atexit.register(lambda: print('imported', *sys.modules, file=sys.stderr))"
    environment, words_of_python = os.environ | {"PYTHONPATH": str(ROOT)}, ["-m", module, *words]
    done = launch(words_of_python, environment=environment, cwd=tmp_path, first=told, libraries=BELOW_COMMANDS)
    assert done.returncode == code and printed in done.stdout + done.stderr
    imported = set(done.stderr.splitlines()[-1].split()[1:])
    assert {"argparse", "musiq_hf.cli"} <= imported
    roots = {name.partition(".")[0] for name in imported}
    # After a mistake that argparse does not know of, one small file of huggingface_hub says whether it is one.
    heavy = {"torch", "transformers", "datasets", "accelerate", "numpy", "PIL", "pyarrow", "yaml"}
    assert not roots & heavy
    assert all(name in done.stderr for name in (*COMMANDS, "score", "explain")) or words != ["scor", "photo.jpg"]


def test_the_words_that_are_read_are_those_of_the_modules():
    assert FILE.read_text() == record_words(), "write them anew: python -m musiq_hf.cli.recording"


def test_every_command_takes_its_own_flags_as_its_module_does(capsys):
    names = vars(build_parser().parse_args(["finetune", "--data", "a.csv", "--score_range", "0", "5", "--bf16"]))
    assert names == {"command": "finetune", "data": "a.csv", "score_range": [0, 5], "bf16": True} | {
        "recipe": None,
        "set": [],
    }
    given = build_parser().parse_args(["score", "a.png", "--shard", "2/3", "--weights", "1,2", "--max_tokens", "9"])
    assert (given.shard, given.weights, given.max_tokens, given.max_megapixels) == ((2, 3), (1, 2), 9, None)


@pytest.mark.parametrize("word", ["--modell", "--mod", "--work", "--max"])
@pytest.mark.parametrize("command", [*COMMANDS, "score", "explain"])
def test_flags_that_are_mistyped_or_cut_short_show_the_usage_of_their_command(command, word, capsys):
    needed = {
        "convert": ["a", "b"],
        "export": ["a", "b.onnx"],
        "explain": ["a", "-o", "b"],
        "evaluate": [],
        "finetune": [],
        "plan-session": ["a", "-o", "b"],
    }
    with pytest.raises(SystemExit) as stop:
        main([command, *needed.get(command, ["a"]), word, "1"])
    printed = capsys.readouterr().err
    assert stop.value.code == 2 and printed.startswith(f"usage: musiq {command} [-h]")
    assert f"musiq {command}: error: unrecognized arguments: {word}" in printed


@pytest.mark.parametrize(
    ("argv", "orig_argv", "expected"),
    [
        ([f"{SCRIPTS}/musiq", "--help"], ["python", f"{SCRIPTS}/musiq", "--help"], True),
        ([f"{SCRIPTS}/musiq.exe"], ["python", f"{SCRIPTS}/musiq.exe"], True),
        (["link/musiq", "score"], ["python", "link/musiq", "score"], True),
        (["elsewhere/musiq", "score"], ["python", "elsewhere/musiq", "score"], False),
        (["elsewhere/musiq.py"], ["python", "elsewhere/musiq.py"], False),
        ([f"{SCRIPTS}/pytest"], ["python", f"{SCRIPTS}/pytest"], False),
        (["-m", "score", "a"], ["python", "-X", "dev", "-m", "musiq_hf.cli", "score", "a"], True),
        (["-m"], ["python", "-m", "musiq_hf.cli"], True),
        (["-m", "score", "a"], ["python", "-m", "musiq_hf", "score", "a"], True),
        (["-m", "musiq_hf"], ["python", "-m", "timeit", "musiq_hf"], False),
        (["-m", "-m", "musiq_hf.cli"], ["python", "-m", "torch.distributed.run", "-m", "musiq_hf.cli"], False),
        (["train.py", "-m", "musiq_hf.cli"], ["python", "train.py", "-m", "musiq_hf.cli"], False),
        (["-c"], ["python", "-c"], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_only_the_command_itself_puts_off_the_registration(argv, orig_argv, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("link", "elsewhere"):
        Path(folder).mkdir()
    Path("link/musiq").symlink_to(f"{SCRIPTS}/musiq")
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", orig_argv)
    assert musiq_hf._is_command() is expected


@pytest.mark.slow
def test_a_script_that_is_merely_called_musiq_registers_on_import(tmp_path):
    script = tmp_path / "musiq.py"
    script.write_text(
        "import musiq_hf\n"
        "from transformers import AutoConfig\n"
        "print(type(AutoConfig.for_model('musiq')) is musiq_hf.MusiqConfig)\n"
    )
    done = in_a_process(script, cwd=tmp_path)
    assert done.stdout == "True\n", done.stderr


def test_in_the_command_the_names_of_the_package_come_when_they_are_asked_for(tmp_path):
    script = f"""
import sys
sys.argv = [{SCRIPTS + "/musiq"!r}, "score"]
import musiq_hf
assert "torch" not in sys.modules and musiq_hf.__version__ and not hasattr(musiq_hf, "Musiq")
from musiq_hf import *
from transformers import AutoConfig
assert type(AutoConfig.for_model("musiq")) is MusiqConfig
for name in musiq_hf.__all__:
    assert name.startswith(("DEFAULT", "TINY", "__")) or globals()[name].__name__ == name
print("done")
"""
    done = in_a_process("-c", script, cwd=tmp_path)
    assert done.stdout == "done\n", done.stderr


def test_information_names_the_class(checkpoint, capsys):
    code, printed, _ = musiq(capsys, "info", checkpoint)
    assert code == 0 and "\nclass        MusiqForImageQualityAssessment\n" in printed
    assert "\npercentiles  none\n" in printed and "shrunk" not in printed


def test_information_tells_of_shrinking_and_percentiles():
    lines = describe_checkpoint(str(DEFAULT_CHECKPOINT))
    assert lines["scales"] == "longer side 224, native (shrunk to a longer side of 1024 if larger)"
    assert lines["percentiles"] == "stored; `musiq score --percentile` adds them"


def test_a_command_that_lacks_something_does_not_harm_the_others(monkeypatch, capsys):
    def load():
        raise ImportError("No module named 'not_there'")

    monkeypatch.setitem(cli.COMMANDS, "verify", cli.Command("lacks something", load))
    for words in (["--help"], ["info", "--help"], ["verify", "--help"]):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 0
    capsys.readouterr()
    assert mistake(capsys, "verify", "a") == (2, "musiq verify: No module named 'not_there'\n")


def test_an_interrupt_while_a_command_is_loaded_is_one_sentence(monkeypatch, capsys):
    def load():
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "info", cli.Command("", load))
    assert mistake(capsys, "info", "musiq-koniq") == (130, "musiq info: interrupted.\n")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no names that are not Unicode")
@pytest.mark.parametrize("encoding", ["ascii", pytest.param("utf-8", marks=pytest.mark.slow)])
def test_names_that_a_terminal_cannot_show_are_rows_with_escapes(checkpoint, encoding, tmp_path, monkeypatch):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in (b"a.png", "\u00e9.png".encode(), "\u65e5.png".encode(), b"\xff.png", b"\x1b]0;title\x07.png"):
        Image.new("RGB", (20, 16)).save(folder / os.fsdecode(name))
    words = ("-m", "musiq_hf.cli", "score", "photos", "-m", checkpoint, "--device", "cpu")
    done = in_a_process(*words, cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr  # also: the command registers the classes before it runs
    shown = [line.split("photos/")[1] for line in done.stdout.splitlines()[1:]]
    names = [r"\x1b]0;title\x07.png", "a.png", "\u00e9.png", "\u65e5.png", r"\udcff.png"]
    assert shown == [name.encode(encoding, "backslashreplace").decode() for name in names]


@pytest.mark.parametrize("error", [MemoryError("os error 12"), RuntimeError("could not create a primitive")])
def test_memory_that_runs_out_while_loading_is_one_sentence_and_the_journal_stays(
    error, checkpoint, tmp_path, monkeypatch, capsys
):
    Image.new("RGB", (20, 16)).save(tmp_path / "a.png")
    words = ("score", tmp_path / "a.png", "-o", tmp_path / "s.csv", "-m", checkpoint, "--device", "cpu")

    def fail(*_, **__):
        raise error

    for place in ("models.auto.register", "scoring.rows.load_quality", "scoring.journal.Journal.finish"):
        with monkeypatch.context() as patch:
            patch.setattr(f"musiq_hf.{place}", fail)
            code, errors = mistake(capsys, *words)
        said = errors.splitlines()[-1]  # below a note about scores beyond the range
        assert code == 2 and said.startswith("musiq score: the memory ran out. Give the program more"), errors
    assert (tmp_path / "s.csv.part").read_bytes().count(b"\n") == 2
    assert mistake(capsys, *words)[0] == 0 and not (tmp_path / "s.csv.part").exists()


# Checkpoints


def test_verify_passes_a_checkpoint_as_it_was_saved(checkpoint, capsys):
    code, printed, _ = musiq(capsys, "verify", checkpoint)
    assert code == 0
    assert printed.startswith("musiq-koniq|weights:")
    assert "Self-test, tolerance 0.01" in printed
    assert printed.count("| ok |") == 3 and "WRONG" not in printed


def test_verify_shows_a_difference_and_exits_with_1(checkpoint, capsys):
    path = checkpoint / SELF_TEST
    stored = json.loads(path.read_text())
    stored["answers"]["grainy"] += 0.02  # twice the tolerance
    path.write_text(json.dumps(stored))
    code, printed, _ = musiq(capsys, "verify", checkpoint)
    assert code == 1
    (wrong,) = [line for line in printed.splitlines() if "WRONG" in line]
    assert wrong.startswith("| grainy | ") and "| -2.0e-02 |" in wrong
    assert printed.count("| ok |") == 2


def test_verify_compares_with_official_scores(checkpoint, official, capsys):
    code, printed, _ = musiq(capsys, "verify", checkpoint, "--images", official)
    assert code == 1  # these are other weights
    table = printed.partition("Official scores of koniq, tolerance 0.5")[2]
    assert "| I03 | 12.4940 |" in table and "| I19 | 36.9380 |" in table
    assert table.count("WRONG") == 5


def test_verify_accepts_scores_within_the_tolerance(checkpoint, official, capsys, monkeypatch):
    code, printed, _ = musiq(capsys, "verify", checkpoint, "--images", official)
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| I")]
    got = [float(row[2]) for row in rows]
    (checkpoint / SELF_TEST).unlink()  # with pictures it is not needed
    for shift, expected_code in ((0.4, 0), (0.6, 1)):
        scores = (got[0] + shift, *got[1:])
        monkeypatch.setitem(sys.modules["musiq_hf.scoring.verification"].OFFICIAL_SCORES, "koniq", scores)
        code, printed, _ = musiq(capsys, "verify", checkpoint, "--images", official)
        assert code == expected_code and "Self-test" not in printed


def test_verify_takes_the_published_name_from_an_argument(checkpoint, official, capsys):
    mine = checkpoint.rename(checkpoint.with_name("mine"))
    _, printed, _ = musiq(capsys, "verify", mine, "--images", official, "--name", "spaq")
    assert "Official scores of spaq" in printed and "| I03 | 17.6850 |" in printed
    with pytest.raises(ValueError, match="mine: no official scores are known under this name, only for koniq, ava"):
        musiq(capsys, "verify", mine, "--images", official)
    with pytest.raises(ValueError, match="`--name` says which official scores to compare with and needs `--images`"):
        musiq(capsys, "verify", mine, "--name", "spaq")


def test_verify_needs_something_to_check(checkpoint, capsys, tmp_path):
    (checkpoint / SELF_TEST).unlink()
    with pytest.raises(ValueError, match="musiq-koniq holds no self_test.json. Convert the checkpoint again"):
        musiq(capsys, "verify", checkpoint)
    with pytest.raises(ValueError, match="none: neither a directory with a config.json nor an id on the Hub"):
        musiq(capsys, "verify", tmp_path / "none")


def test_info_tells_what_a_checkpoint_is(checkpoint, tiny_model, capsys):
    model = tiny_model(score_range=(0, 100))
    known = {"source": "Here.", "training_data": "None.", "recipe": "None."}
    CheckpointCard(name="musiq-koniq", config=model.config, **known).save(checkpoint)
    code, printed, _ = musiq(capsys, "info", checkpoint)
    lines = dict(line.split("  ", 1) for line in printed.splitlines())
    assert code == 0
    assert {name: value.strip() for name, value in lines.items()} == {
        "card": "musiq-koniq",
        "class": "MusiqForImageQualityAssessment",
        "predicts": "mean opinion score",
        "parameters": f"{sum(weight.numel() for weight in model.parameters()):,}",
        "scales": "longer side 16, longer side 24, native",
        "score range": "0 to 100; predictions are not clipped",
        "self-test": "stored; `musiq verify` runs it",
        "percentiles": "none",
        "signature": make_signature(model, MusiqImageProcessor.from_config(model.config), checkpoint=str(checkpoint)),
    }


def test_info_of_a_distribution_and_of_a_classifier(tiny_model, tiny_config, tmp_path, capsys):
    _, printed, _ = musiq(capsys, "info", save(tiny_model(num_labels=10), tmp_path / "ava"))
    assert "distribution over the score values 1 to 10\n" in printed and "score range  1 to 10\n" in printed
    assert "card         none\n" in printed
    config = tiny_config(num_labels=7, use_native_resolution=False, architectures=["MusiqForImageClassification"])
    folder = save(MusiqForImageClassification(config).eval(), tmp_path / "imagenet")
    (folder / SELF_TEST).unlink()
    _, printed, _ = musiq(capsys, "info", folder)
    assert "classifier of 7 classes; predicts no quality\n" in printed and "score range  none\n" in printed
    assert "longer side 16, longer side 24\n" in printed and "self-test    none\n" in printed


def test_the_embedded_checkpoint_verifies_and_has_its_card(capsys):
    code, printed, _ = musiq(capsys, "verify", DEFAULT_CHECKPOINT)
    assert code == 0 and printed.count("| ok |") == 3
    code, printed, _ = musiq(capsys, "info", DEFAULT_CHECKPOINT)
    assert code == 0 and f"\nsignature    {DEFAULT_CHECKPOINT.name}|weights:" in printed
    assert printed.startswith("card         ") and not printed.startswith("card         none")


@pytest.mark.parametrize("words", [(), (DEFAULT_CHECKPOINT.name,), (TINY_CHECKPOINT.name,)], ids=str)
def test_verify_and_info_take_names_and_know_the_default(capsys, words):
    name = words[0] if words else DEFAULT_CHECKPOINT.name
    code, printed, _ = musiq(capsys, "verify", *words)
    assert code == 0 and printed.startswith(f"{name}|weights:")
    code, printed, _ = musiq(capsys, "info", *words)
    assert code == 0 and f"\nsignature    {name}|weights:" in printed


def test_score_takes_the_name_of_an_embedded_checkpoint(tmp_path, capsys):
    Image.new("RGB", (40, 30), (90, 120, 60)).save(tmp_path / "a.png")
    _, by_name, told = musiq(capsys, "score", tmp_path / "a.png", "-m", TINY_CHECKPOINT.name)
    _, by_path, same = musiq(capsys, "score", tmp_path / "a.png", "-m", TINY_CHECKPOINT)
    assert by_name == by_path and told == same and f"made with {TINY_CHECKPOINT.name}, " in told


def test_convert_there_and_back(tmp_path, capsys):
    source = DIRECTORY / "golden" / "ckpt_tiny10_opt.npz"
    code, printed, errors = musiq(capsys, "convert", source, tmp_path / "out", "--name", "mine")
    assert code == 0, errors
    assert "arrays back bit by bit" in printed and (tmp_path / "out" / "model.safetensors").is_file()
    code, printed, _ = musiq(capsys, "convert", tmp_path / "out", tmp_path / "back.npz", "--to-original")
    assert code == 0 and "written" in printed
    with np.load(source) as first, np.load(tmp_path / "back.npz") as second:
        names = [name for name in first.files if name.startswith("opt/target/")]
        assert names and all(np.array_equal(first[name], second[name]) for name in names)


def test_convert_gives_one_sentence_for_a_mistake(tmp_path, capsys):
    code, errors = mistake(capsys, "convert", tmp_path / "none.npz", tmp_path / "out")
    assert code == 2 and errors.startswith("musiq convert: ") and "none.npz: no such file" in errors
    assert "Example: musiq convert koniq_ckpt.npz musiq-koniq" in errors


# Commands that forward


@pytest.fixture
def scores_csv(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    lines = ["image,mos,split"]
    for index in range(12):
        values = generator.integers(0, 256, (16, 24, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{index}.png")
        lines.append(f"{index}.png,{float(index)},{'train' if index < 6 else 'validation'}")
    path = tmp_path / "scores.csv"
    path.write_text("\n".join(lines) + "\n")
    return ("--data", path, "--image_root", folder)


def test_evaluate_prints_and_writes_tables(scores_csv, checkpoint, tmp_path, capsys):
    words = ("--model", checkpoint, "--output", tmp_path / "report.json", "--figure", tmp_path / "new/scatter.png")
    code, printed, errors = musiq(capsys, "evaluate", *scores_csv, *words)
    with Image.open(tmp_path / "new/scatter.png") as image:
        assert image.format == "PNG"
    assert code == 0, errors
    (report,) = json.loads((tmp_path / "report.json").read_text())["results"]
    assert report["num_pictures"] == 6 and f"| {report['overall']['srcc']:.4f} |" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "--data is needed: pictures with opinion scores."),
        (("--data", "a.csv", "--recipe", "koniq"), "`--recipe` needs `--runs`."),
        (("--data", "a.csv", "--runs", "2", "--split", "test"), "`--split` cannot be combined with `--runs`."),
        (("--data", "a.csv", "--output", "report.txt"), "The report is a .json file"),
        (("--data", "a.csv", "--figure", "scatter.jpg"), "scatter.jpg: a .png file is written"),
        (("--data", "a.csv", "b.csv", "--figure", "a.png"), "`--figure` shows one checkpoint on one data set"),
        (("--data", "a.csv", "--model", "a", "b", "--figure", "a.png"), "got several `--model`. Give one."),
        (("--data", "a.csv", "--runs", "2", "--figure", "a.png"), "`--figure` cannot be combined with `--runs`."),
    ],
)
def test_evaluate_gives_one_sentence_for_a_mistake(words, message, capsys):
    code, errors = mistake(capsys, "evaluate", *words)
    assert code == 2 and errors.startswith("musiq evaluate: ") and message in errors
    assert "Example: musiq evaluate --data" in errors


def test_finetune_trains_and_prints_metrics(scores_csv, checkpoint, tmp_path, capsys):
    words = ("--model", checkpoint, "--output_dir", tmp_path / "out", "--max-steps", 1, "--batch_size", 2)
    code, printed, errors = musiq(capsys, "finetune", *scores_csv, *words)
    assert code == 0, errors
    assert json.loads(printed[printed.index("{\n") :])["selection"]["num_pictures"] == 6
    assert f"{tmp_path / 'out'}: saved. To score with it: musiq score PICTURES -m {tmp_path / 'out'}" in errors
    trained = MusiqImageProcessor.from_pretrained(tmp_path / "out")
    assert trained.patch_size == 8 and (tmp_path / "out" / "model.safetensors").is_file()


def test_finetune_gives_one_sentence_for_a_mistake(capsys):
    code, errors = mistake(capsys, "finetune", "--epochs", "2")
    assert code == 2 and errors.startswith("musiq finetune: --data is needed")
    assert "Example: musiq finetune --data scores.csv --image_root photos --output_dir runs/new" in errors


def test_models_start_from_the_embedded_checkpoint(monkeypatch, capsys, scores_csv):
    seen = []
    monkeypatch.setattr("musiq_hf.training.finetuning.finetune", lambda settings, **_: seen.append(settings) or {})
    code, _, _ = musiq(capsys, "finetune", *scores_csv)
    assert code == 0 and seen[0].model == str(DEFAULT_CHECKPOINT) and seen[0].output_dir == "runs/finetune"
