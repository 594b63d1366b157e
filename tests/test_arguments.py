# SPDX-License-Identifier: Apache-2.0
import argparse
import sys

import pytest

from musiq_hf.arguments import parse_arguments


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
