# SPDX-License-Identifier: Apache-2.0
"""Ctrl-C at any moment of the start: one sentence and exit code 130, from every program."""

import os

import pytest
from launching import BELOW_COMMANDS, BELOW_TRANSFORMERS, launch
from PIL import Image
from places import ROOT

# This runs before the program. It sends the signal when a module is about to be imported.
SITE = """
import atexit, os, signal, sys

class Interrupter:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(Interrupter)
            os.kill(os.getpid(), signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run side by side ignore it
sys.meta_path.insert(0, Interrupter)
if "CLEANED" in os.environ:
    atexit.register(lambda: open(os.environ["CLEANED"], "w").close())
"""
# Commands, with words that they do not refuse before they load anything.
COMMANDS = {
    "score": ["tests"],
    "explain": ["x", "-o", "y.html"],
    "info": ["x"],
    "verify": ["x"],
    "convert": ["x", "y"],
    "export": ["x", "y.onnx"],
    "evaluate": ["--data", "x"],
    "finetune": ["--data", "x"],
}


def interrupt(words, moment, libraries=BELOW_COMMANDS):
    """Run a program that is interrupted when it imports a module; return its exit code and what it said."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "INTERRUPT_AT": moment}
    done = launch(words, environment=environment, cwd=ROOT, first=SITE, libraries=libraries)
    assert len(done.stdout.splitlines()) <= 1  # of a table no more than its head
    return done.returncode, done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_is_interrupted_while_it_loads(command):
    code, errors = interrupt(["-m", "musiq_hf.cli", command, *COMMANDS[command]], "torch")
    assert (code, errors) == (130, f"musiq {command}: interrupted.\n")


@pytest.mark.parametrize("moment", ["musiq_hf.cli", "argparse", "musiq_hf.common.arguments", "numpy"])
def test_the_command_is_interrupted_at_any_moment(moment):
    code, errors = interrupt(["-m", "musiq_hf.cli", "info", "x"], moment)
    assert code == 130 and len(errors.splitlines()) == 1 and errors.endswith(": interrupted.\n"), errors


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_each_example_is_interrupted_while_it_loads(name):
    code, errors = interrupt([f"examples/{name}", "x"], "torch")
    assert (code, errors) == (130, f"{name}: interrupted.\n")


@pytest.mark.parametrize(
    ("name", "words", "moment"),
    [
        ("score_images", ["a.pcx"], "PIL.PcxImagePlugin"),  # Pillow imports it when it opens the picture
        pytest.param("make_figures", [], "PIL.GifImagePlugin", marks=pytest.mark.slow),
        pytest.param("make_pictures", ["--output_dir", "out"], "skimage", marks=pytest.mark.slow),
    ],
)
def test_an_example_that_has_begun_cleans_up(tmp_path, monkeypatch, name, words, moment):
    monkeypatch.setenv("CLEANED", str(tmp_path / "cleaned"))
    Image.new("L", (40, 40)).save(tmp_path / "a.pcx")
    words = [str(tmp_path / word) if word in ("a.pcx", "out") else word for word in words]
    code, errors = interrupt([f"examples/{name}.py", *words], moment, BELOW_TRANSFORMERS)
    assert (code, errors) == (130, f"{name}: interrupted.\n")  # as `run_command` says it
    assert (tmp_path / "cleaned").exists()


def test_the_converter_is_interrupted_while_it_loads():
    code, errors = interrupt(["-m", "conversion.convert_musiq_checkpoint", "a", "b"], "torch")
    assert code == 130 and len(errors.splitlines()) == 1 and errors.endswith(": interrupted.\n"), errors


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["torch._C", "torch.nn", "transformers.modeling_utils", "datasets", "safetensors"])
@pytest.mark.parametrize("command", ["score", "finetune"])
def test_the_command_is_interrupted_inside_of_its_libraries(tmp_path, command, moment):
    words = {"score": ["a.png"], "finetune": ["--data", "a.csv", "--output_dir", str(tmp_path / "out")]}[command]
    code, errors = interrupt(["-m", "musiq_hf.cli", command, *words], moment)
    if code != 2:  # without that module
        assert (code, errors) == (130, f"musiq {command}: interrupted.\n")
