# SPDX-License-Identifier: Apache-2.0
"""The command `musiq upscale`, from the words to the copies and rows."""

import json
import os

import numpy as np
import pytest
from PIL import ExifTags, Image
from safetensors.torch import load_file, save_file
from upscalers import save_upscaler

from musiq_hf.cli import main
from musiq_hf.upscaling import enlarging_job

SETTINGS = "musiq upscale|scale:2|method:bicubic|picture:"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_upscaler(tmp_path_factory.mktemp("upscale") / "msit-test"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder `photos` with three pictures, one of them below it, and a damaged one."""
    monkeypatch.chdir(tmp_path)
    levels = np.random.default_rng(0).integers(0, 256, (3, 12, 17, 3), dtype=np.uint8)
    for pixels, name in zip(levels, ("a.png", "b.jpg", "below/c.webp"), strict=True):
        os.makedirs(os.path.dirname(f"photos/{name}"), exist_ok=True)
        Image.fromarray(pixels).save(f"photos/{name}", lossless=True)
    with open("photos/bad.jpg", "wb") as file:
        file.write(b"no picture")
    return tmp_path


@pytest.fixture
def upscale(folder, capsys):
    """(exit code, output, errors) of the command, with bicubic enlargement unless words name a method or model."""

    def run(*words):
        way = [] if {"-m", "--method"} & set(words) else ["--method", "bicubic"]
        code = main(["upscale", *words, *way])
        return code, *capsys.readouterr()

    return run


def list_files(path):
    return sorted(os.path.relpath(os.path.join(top, name), path) for top, _, names in os.walk(path) for name in names)


def open_copy(path):
    with Image.open(path) as image:
        image.load()
        return image


def test_a_folder_keeps_its_structure_and_an_error_is_a_row(upscale):
    code, printed, errors = upscale("photos", "--scale", "2", "-o", "out/large")
    assert code == 1 and errors == "4 pictures, 1 of them with an error instead of a copy\n"
    heads, *lines = printed.splitlines()
    assert heads.split() == "width height output_width output_height seconds key".split()
    assert [line.split()[:4] for line in lines if "error" not in line] == [["17", "12", "34", "24"]] * 3
    assert [line.split()[-1] for line in lines if "error" not in line] == [
        "photos/a.png",
        "photos/b.jpg",
        "photos/below/c.webp",
    ]
    assert "error: photos/bad.jpg: not a picture that Pillow can read" in lines[2]
    assert list_files("out") == ["large/a.png", "large/b.png", "large/below/c.png"]
    copy = open_copy("out/large/a.png")
    assert copy.size == (34, 24) and copy.getexif()[ExifTags.Base.Software].startswith(SETTINGS)
    expected = open_copy("photos/a.png").resize((34, 24), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(copy), np.asarray(expected))


def test_a_model_enlarges_and_rows_are_json(upscale, model):
    words = ("photos/a.png", "photos/below", "-o", "out", "--longer_side", "20", "-m", model, "--json")
    code, printed, errors = upscale(*words, "--format", "webp")
    first, second = map(json.loads, printed.splitlines())
    assert (code, errors) == (0, "") and list_files("out") == ["a.webp", "c.webp"]
    assert first["made_by"].startswith("musiq upscale|longer_side:20|method:msit|weights:")
    assert (second["key"], second["output"], second["width"], second["height"]) == (
        "photos/below/c.webp",
        "out/c.webp",
        17,
        12,
    )
    assert (second["output_width"], second["output_height"], second["score"], second["error"]) == (20, 14, None, None)
    assert second["method"] == "msit" and second["seconds"] > 0
    assert open_copy("out/c.webp").size == (20, 14)


def test_scores_are_those_of_both_files(upscale, monkeypatch, checkpoint):
    load = enlarging_job.load_quality
    monkeypatch.setattr(enlarging_job, "load_quality", lambda: load(checkpoint))
    words = ("photos/a.png", "-o", "out", "--scale", "2", "--json", "--score")
    row = json.loads(upscale(*words)[1])
    assert main(["score", "photos/a.png", "out/a.png", "-m", checkpoint, "-o", "scores.jsonl"]) == 0
    with open("scores.jsonl") as file:
        scores = [json.loads(line)["score"] for line in file]
    assert [row["score"], row["output_score"]] == pytest.approx(scores, abs=1e-4) and scores[0] != scores[1]


def test_a_run_continues_and_never_mixes_settings(upscale, monkeypatch):
    write, written = enlarging_job._write_copy, []

    def stop(path, *args):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(str(path))
        write(path, *args)

    monkeypatch.setattr(enlarging_job, "_write_copy", stop)
    words = ("photos", "-o", "out", "--scale", "2")
    assert upscale(*words)[0] == 130 and list_files("out") == ["a.png", "b.png"]
    written.clear()
    code, printed, errors = upscale(*words)
    assert code == 1 and written == ["out/below/c.png"] and errors.startswith("out: 2 of 4 pictures were finished")
    os.remove("photos/bad.jpg")
    assert upscale(*words) == (0, "", "out: 3 of 3 pictures were finished before.\n")
    code, printed, errors = upscale("photos", "-o", "out", "--scale", "3")
    assert (code, printed) == (2, "") and "exists already, made otherwise (scale:2, now scale:3)." in errors
    assert open_copy("out/a.png").size == (34, 24)
    written.clear()
    assert upscale("photos", "-o", "out", "--scale", "3", "--overwrite")[0] == 130
    written.clear()
    assert upscale("photos", "-o", "out", "--scale", "3", "--overwrite")[0] == 0
    assert written == ["out/below/c.png"] and open_copy("out/a.png").size == (51, 36)


def test_a_copy_of_another_picture_or_by_another_method_is_told(upscale, model):
    os.mkdir("more")
    Image.new("RGB", (17, 12), (9, 9, 9)).save("more/a.png")
    assert upscale("photos/a.png", "-o", "out", "--scale", "2")[0] == 0
    code, printed, errors = upscale("more", "-o", "out", "--scale", "2")
    assert (code, printed) == (2, "") and "out/a.png exists already, made otherwise (picture:" in errors
    code, printed, errors = upscale("photos/a.png", "-o", "out", "--scale", "2", "-m", model)
    assert code == 2 and "made otherwise (method:bicubic, now method:msit; weights:" in errors
    assert upscale("more", "-o", "out", "--scale", "2", "--overwrite")[0] == 0
    assert np.asarray(open_copy("out/a.png")).max() == 9
    assert upscale("more", "-o", "out", "--scale", "2")[2] == "out: 1 of 1 pictures were finished before.\n"


def test_weights_that_are_not_finite_make_no_copy(upscale, tmp_path):
    damaged = save_upscaler(tmp_path / "damaged")
    weights = load_file(damaged / "model.safetensors")
    weights["decoder.others.0.bias"][0] = float("nan")
    save_file(weights, damaged / "model.safetensors", metadata={"format": "pt"})
    code, printed, _ = upscale("photos/a.png", "-o", "out", "--scale", "2", "-m", str(damaged))
    assert code == 1 and "photos/a.png: The model answered numbers that are not finite" in printed
    assert not os.path.exists("out")


def test_files_of_others_stay(upscale):
    os.mkdir("out")
    with open("out/a.png", "w") as file:
        file.write("mine")
    code, printed, errors = upscale("photos", "-o", "out", "--scale", "2")
    assert (code, printed) == (2, "") and "out/a.png exists already, and is no copy of this command." in errors
    assert list_files("out") == ["a.png"] and open("out/a.png").read() == "mine"
    code, printed, errors = upscale("photos/a.png", "-o", "photos", "--scale", "2", "--overwrite")
    assert code == 2 and "photos/a.png is a picture to enlarge, and would be lost." in errors
    assert open_copy("photos/a.png").size == (17, 12)


def test_two_copies_of_one_name_are_told(upscale):
    Image.new("L", (3, 3)).save("photos/a.gif")
    code, printed, errors = upscale("photos", "photos/a.png", "-o", "out", "--scale", "2", "--json")
    rows = {row["key"]: row for row in map(json.loads, printed.splitlines())}
    assert code == 1 and len(rows) == 5
    assert rows["photos/a.gif"]["output"] == "out/a.png"
    assert rows["photos/a.png"]["error"] == (
        "photos/a.png: its copy would have the name of that of photos/a.gif. Enlarge it into another folder."
    )
    assert open_copy("out/a.png").size == (6, 6)


@pytest.mark.parametrize(
    ("mode", "kind", "held"),
    [
        ("L", "png", True),
        ("RGBA", "png", True),
        ("I;16", "png", True),
        ("L", "jpeg", True),
        ("RGBA", "jpeg", False),
        ("I;16", "jpeg", False),
        ("RGBA", "tiff", True),
        ("I;16", "tiff", True),
        ("RGBA", "webp", True),
        ("I;16", "webp", False),
    ],
)
def test_a_format_holds_the_whole_picture_or_it_is_an_error(upscale, mode, kind, held):
    levels = np.random.default_rng(1).integers(0, 256, (8, 9, 4)).astype(np.uint8)
    picture = Image.fromarray(levels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(levels)
    (picture if mode in ("RGBA", "I;16") else picture.convert(mode)).save("own.png")
    code, printed, _ = upscale("own.png", "-o", "out", "--size", "18x16", "--format", kind, "--json")
    if not held:
        assert code == 1 and f"own.png: a {kind} file holds pictures of the modes" in json.loads(printed)["error"]
        assert not os.path.exists("out") or not os.listdir("out")
        return
    copy = open_copy(json.loads(printed)["output"])
    assert (code, copy.mode, copy.size) == (0, mode, (18, 16))
    expected = open_copy("own.png").resize((18, 16), Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(copy, float) - np.asarray(expected, float))
    assert difference.mean() < 4 if kind == "jpeg" else difference.max() == 0
    assert upscale("own.png", "-o", "out", "--size", "18x16", "--format", kind)[2].startswith("out: 1 of 1")


def test_orientation_profile_and_name_of_a_copy(upscale):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    profile = b"\0" * 16 + b"RGB " + b"\0" * 108
    levels = np.random.default_rng(2).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    Image.fromarray(levels).save("own.v2", "JPEG", exif=exif, icc_profile=profile)
    code, printed, _ = upscale("own.v2", "-o", "out", "--scale", "2", "--format", "tiff")
    copy = open_copy("out/own.v2.tiff")
    assert code == 0 and copy.size == (12, 18) and copy.info["icc_profile"] == profile
    assert copy.getexif().get(ExifTags.Base.Orientation, 1) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "-o", "out"], "One of `scale`, `size` and `longer_side` is needed, got none."),
        (["absent", "-o", "out", "--scale", "2"], "absent: no such file or folder."),
        (["photos", "-o", "photos/large", "--scale", "2"], "photos/large lies in photos"),
        (["photos", "-o", "photos/a.png", "--scale", "2"], "photos/a.png is no folder"),
        (["photos", "-o", "out", "--scale", "nan"], "`scale` must be a number between 1 and 64, got nan."),
        (
            ["photos", "-o", "out", "--scale", "2", "--method", "bicubic", "-m", "x"],
            "`model` is for the method 'msit'",
        ),
        (
            ["photos", "-o", "out", "--scale", "2", "--method", "bicubic", "--tile_size", "96"],
            "`tile_size` is for the method 'msit', got 'bicubic' with it. Leave one out.",
        ),
        (
            ["photos", "-o", "out", "--scale", "2", "--method", "lanczos", "--device", "cpu"],
            "`device` is for models, and 'lanczos' without `score` uses none. Leave it out.",
        ),
        (["photos", "-o", "out", "--scale", "2", "-m", "musiq-tiny-biq2021"], "which enlarges no pictures."),
        (["photos", "-o", "out", "--scale", "2", "-m", "sudds-small-biq2021"], "which enlarges no pictures."),
    ],
)
def test_mistakes_are_told(upscale, words, message):
    code, printed, errors = upscale(*words)
    assert (code, printed) == (2, "") and message in errors and not os.path.exists("out")


def test_a_picture_too_small_for_the_size_is_a_row(upscale):
    Image.new("RGB", (40, 30)).save("photos/d.png")
    code, printed, errors = upscale("photos/a.png", "photos/d.png", "-o", "out", "--longer_side", "34")
    assert code == 1 and "photos/d.png: 40x30 pixels would become 34x26, which shrinks." in printed
    assert list_files("out") == ["a.png"]
