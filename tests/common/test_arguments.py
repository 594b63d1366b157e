# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import os
import sys

import pytest
import torch

from musiq_hf.common.arguments import (
    INTERRUPTED,
    CommandParser,
    one_sentence,
    parse_arguments,
    print_report,
    run_command,
)


@pytest.fixture
def parser():
    parser = argparse.ArgumentParser()
    parser.add_argument("pictures", nargs="*")
    parser.add_argument("--output_dir")
    parser.add_argument("--max_native_patches", type=int)
    parser.add_argument("--use_ema", action="store_true")
    return parser


@pytest.mark.parametrize(
    "argv",
    [
        ["--output_dir", "runs/a-b", "--max_native_patches", "-1", "--use_ema"],
        ["--output-dir", "runs/a-b", "--max-native-patches", "-1", "--use-ema"],
        ["--output-dir=runs/a-b", "--max_native-patches=-1", "--use-ema"],
    ],
)
def test_underscores_and_hyphens_name_one_argument(parser, argv):
    arguments = parse_arguments(parser, argv)
    assert (arguments.output_dir, arguments.max_native_patches, arguments.use_ema) == ("runs/a-b", -1, True)


def test_values_keep_their_hyphens(parser):
    arguments = parse_arguments(parser, ["--output_dir=--a-b=c-d", "my-picture.png", "-"])
    assert arguments.pictures == ["my-picture.png", "-"]
    assert arguments.output_dir == "--a-b=c-d"


def test_what_follows_two_hyphens_is_no_argument_name(parser):
    arguments = parse_arguments(parser, ["--use-ema", "--", "--odd-name.png", "plain.png"])
    assert (arguments.use_ema, arguments.pictures) == (True, ["--odd-name.png", "plain.png"])


def test_command_line_is_the_default(parser, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["musiq", "--output-dir", "here"])
    assert parse_arguments(parser).output_dir == "here"


def test_unknown_argument_exits_with_2(parser, capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(parser, ["--output-directory-of-all", "x"])
    assert stopped.value.code == 2
    assert "unrecognized arguments" in capsys.readouterr().err


def test_mistakes_show_names_with_escapes(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(CommandParser(), ["\x1b]0;title\x07.png"])

    def command():
        raise OSError("\x1b[2J.png: no such file")

    assert run_command("score", command) == 2
    printed = capsys.readouterr().err
    assert (
        r"unrecognized arguments: \x1b]0;title\x07.png" in printed and r"score: \x1b[2J.png: no such file" in printed
    )
    assert "\x1b" not in printed


class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise ValueError("photo.jpg: cannot be decoded.")


def test_errors_of_decoding_processes_keep_their_sentence_alone():
    with pytest.raises(ValueError) as caught:
        next(iter(torch.utils.data.DataLoader(Broken(), num_workers=1)))
    assert "Traceback" in str(caught.value)
    assert one_sentence(caught.value) == "photo.jpg: cannot be decoded."


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("`epochs` must be\npositive."), "train: `epochs` must be positive."),
        (ImportError("peft is needed here."), "train: peft is needed here."),
        (torch.OutOfMemoryError("CUDA out of memory."), "train: the memory ran out. Give the program more"),
        (MemoryError("Cannot allocate memory (os error 12)"), "train: the memory ran out. Give the program more"),
        (RuntimeError("could not create a primitive"), "train: the memory ran out. Give the program more"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "train: the memory ran out. Give the program more",
        ),
    ],
)
def test_mistakes_end_a_command_with_one_sentence(error, sentence, capsys):
    def command():
        raise error

    assert run_command("train", command, example="python train.py") == 2
    printed = capsys.readouterr().err
    assert printed.startswith(sentence) and "memory" in printed or printed == f"{sentence}\nExample: python train.py\n"


def test_mistakes_of_a_command_without_example_are_one_line(capsys):
    def command():
        raise OSError("photo.jpg: no such file")

    assert run_command("score", command) == 2
    assert capsys.readouterr().err == "score: photo.jpg: no such file\n"


def test_wrong_fields_of_a_configuration_are_mistakes(capsys, tiny_config):
    assert run_command("train", lambda: tiny_config(hidden_size="wide")) == 2
    assert capsys.readouterr().err.startswith("train: ")


def test_commands_choose_their_exit_code():
    assert [run_command("train", lambda code=code: code) for code in (None, 0, 1)] == [0, 0, 1]


def test_an_interrupt_is_one_sentence(capsys):
    def command():
        raise KeyboardInterrupt

    assert run_command("train", command, example="python train.py") == INTERRUPTED
    assert capsys.readouterr().err == "train: interrupted.\n"


def test_a_reader_that_has_gone_is_no_mistake(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert run_command("train", lambda: print("a line", flush=True)) == 0


def test_defects_of_the_program_keep_their_traceback():
    def command():
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        run_command("train", command, example="python train.py")


def test_reports_are_printed_as_json(capsys):
    assert run_command("train", lambda: print_report({"srcc": 0.5})) == 0
    assert json.loads(capsys.readouterr().out) == {"srcc": 0.5}
