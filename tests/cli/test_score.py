# SPDX-License-Identifier: Apache-2.0
"""`musiq score` from the words of the command line to the table."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image
from places import ROOT

from musiq_hf import MusiqImageProcessor, __version__, cli
from musiq_hf.cli import main, progress, score, score_output
from musiq_hf.scoring.engine import score_pictures, score_with_several

pytestmark = pytest.mark.usefixtures("alone")

SIZES = [(30, 41), (64, 17), (50, 50), (8, 9), (33, 64), (20, 20), (24, 31)]


def picture(height, width, seed=0):
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder of seven pictures in the working directory, and the rows that they should get."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for i, size in enumerate(SIZES):
        picture(*size, i).save(tmp_path / "photos" / f"{i}.png")
    return tmp_path / "photos"


@pytest.fixture
def run(checkpoint):
    """Run `musiq score` with the tiny checkpoint and return the exit code."""
    return lambda *words: main(["score", *map(str, words), "-m", checkpoint, "--device", "cpu"])


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_folder_becomes_a_table(run, photos, tiny_model, checkpoint, capsys):
    assert run("photos", "-o", "scores.csv") == 0
    model = tiny_model()
    expected = list(
        score_pictures(sorted(photos.iterdir()), model=model, processor=MusiqImageProcessor.from_config(model.config))
    )
    rows = read_csv("scores.csv")
    assert [row["key"] for row in rows] == [f"photos/{i}.png" for i in range(7)]
    for row, own in zip(rows, expected, strict=True):
        assert (int(row["width"]), int(row["height"])) == (own.width, own.height)
        assert float(row["score"]) == pytest.approx(own.score, abs=1e-5)
        assert float(row["score_0_1"]) == pytest.approx((own.score + 10) / 20, abs=1e-6)
        assert "std" not in row and row["error"] == ""
        assert row["model"] == checkpoint
    assert len({row["signature"] for row in rows}) == 1 and rows[0]["signature"]
    assert os.listdir(photos.parent).count("scores.csv.part") == 0
    output = capsys.readouterr()
    assert output.out == "" and output.err == "scores.csv: 7 pictures.\n"


def test_the_formats_hold_the_same_rows(run, photos):
    for suffix in ("csv", "jsonl", "parquet"):
        assert run("photos", "-o", f"scores.{suffix}") == 0
    rows = pyarrow.parquet.read_table("scores.parquet").to_pylist()
    lines = [json.loads(line) for line in Path("scores.jsonl").read_text().splitlines()]
    assert lines == rows and len(rows) == 7
    texts = [{name: "" if value is None else str(value) for name, value in row.items()} for row in rows]
    assert read_csv("scores.csv") == texts


def test_all_kinds_of_inputs_in_one_run(run, photos):
    with tarfile.open("shard.tar", "w") as archive:
        archive.add("photos/0.png", "a/0.png")
    cells = [{"bytes": Path("photos/1.png").read_bytes(), "path": "1.png"}]
    pyarrow.parquet.write_table(pyarrow.table({"mine": cells, "other": cells}), "p.parquet")
    Path("t.csv").write_text("mine\nphotos/2.png\n")
    words = ("photos/3.png", "shard.tar", "p.parquet", "t.csv", "photos/[45].png")
    assert run(*words, "--column", "mine", "-o", "all.csv") == 0
    assert run("photos", "-o", "folder.csv") == 0
    keys = ["photos/3.png", "shard.tar::a/0.png", "p.parquet::0", "photos/2.png", "photos/4.png", "photos/5.png"]
    found, single = read_csv("all.csv"), read_csv("folder.csv")
    assert [row["key"] for row in found] == keys
    assert [row["score"] for row in found] == [single[i]["score"] for i in (3, 0, 1, 2, 4, 5)]


def test_without_an_output_a_table_is_printed(run, photos, capsys):
    (photos / "2.png").write_bytes(b"no picture")
    assert run("photos") == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["score", "in", "0..1", "size", "key"]
    assert len(lines) == 8
    assert re.fullmatch(r" +-?\d+\.\d\d +\d\.\d\d +41x30  photos/0\.png", lines[1])
    assert lines[3].split(maxsplit=1) == [
        "error:",
        "photos/2.png: not a picture that Pillow can read. Convert it to PNG or JPEG.",
    ]
    assert run("photos") == 1
    assert capsys.readouterr().err.startswith("7 pictures, 1 of them with an error instead of a score\nmade with ")
    Path("empty").mkdir()
    assert run("empty") == 2
    assert capsys.readouterr().out == ""
    assert sorted(os.listdir()) == ["empty", "photos"]


def test_a_distribution_has_a_deviation_and_a_range_and_what_has_none_no_place_in_it(tiny_model, photos, capsys):
    model = tiny_model(num_labels=5)
    model.save_pretrained("distribution")
    MusiqImageProcessor.from_config(model.config).save_pretrained("distribution")
    assert main(["score", "photos/0.png", "-o", "s.csv", "-m", "distribution", "--device", "cpu"]) == 0
    (row,) = read_csv("s.csv")
    assert float(row["std"]) > 0 and float(row["score_0_1"]) == pytest.approx((float(row["score"]) - 1) / 4)
    model = tiny_model()
    model.save_pretrained("no range")
    MusiqImageProcessor.from_config(model.config).save_pretrained("no range")
    assert main(["score", "photos/0.png", "-o", "n.csv", "-m", "no range", "--device", "cpu"]) == 0
    (row,) = read_csv("n.csv")
    assert row["score_0_1"] == "" and row["score"] and "std" not in row
    assert (
        main(["score", "photos/0.png", "-o", "b.csv", "-m", "no range", "-m", "distribution", "--device", "cpu"]) == 0
    )
    assert [bool(row["std"]) for row in read_csv("b.csv")] == [False, True]
    capsys.readouterr()
    assert main(["score", "photos/0.png", "-m", "distribution", "--device", "cpu"]) == 0
    assert "std" in capsys.readouterr().out.splitlines()[0]


def test_errors_are_rows_and_the_exit_code_tells(run, photos, capsys):
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:100])
    picture(1, 900).save(photos / "3.png")
    (photos / "5.png").unlink()
    (photos / "5.png").symlink_to("5.png")
    assert run("photos", "-o", "scores.csv") == 1
    rows = read_csv("scores.csv")
    assert [bool(row["error"]) for row in rows] == [False, True, False, True, False, True, False]
    assert all((row["score"] == "") == bool(row["error"]) for row in rows)
    for row, reason in zip(rows[1::2], ("truncated or damaged", "too extreme", "no such file"), strict=True):
        assert reason in row["error"] and "\n" not in row["error"]
    assert "7 pictures, 3 of them with an error" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_errors(run, photos, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # twice as many are refused
    assert run("photos", "-o", "scores.csv") == 1
    rows = read_csv("scores.csv")
    bombs = [i for i, (height, width) in enumerate(SIZES) if height * width > 1000]
    assert [i for i, row in enumerate(rows) if "safety limit" in row["error"]] == bombs == [0, 1, 2, 4]


def test_options_change_what_they_say(run, photos):
    assert run("photos", "-o", "a.csv") == 0
    assert run("photos", "-o", "b.csv", "--shorter-side", 8) == 0
    assert run("photos", "-o", "c.csv", "--dtype", "bfloat16") == 0
    assert run("photos", "-o", "d.csv", "--max_tokens", 10_000, "--num_workers", 1) == 0
    plain, small, short, batched = (read_csv(f"{name}.csv") for name in "abcd")
    assert [min(int(row["width"]), int(row["height"])) for row in small] == [8] * 7
    assert len({rows[0]["signature"] for rows in (plain, small, short)}) == 3
    assert batched[0]["signature"] == plain[0]["signature"]
    numbers = [[float(row["score"]) for row in rows] for rows in (plain, short, batched)]
    assert numbers[1] != numbers[0] and numbers[1] == pytest.approx(numbers[0], abs=0.5)
    assert numbers[2] == pytest.approx(numbers[0], abs=1e-4)


def interrupt_after(monkeypatch, number, read):
    """Let Ctrl-C come after a number of rows; the keys that are scored go into `read`."""

    def interrupted(sources, models, **options):
        for count, rows in enumerate(score_with_several(sources, models, **options)):
            if count == number:
                raise KeyboardInterrupt
            read.append(rows[0].key)
            yield rows

    monkeypatch.setattr("musiq_hf.scoring.rows.score_with_several", interrupted)


def test_an_interrupted_run_continues(run, photos, monkeypatch, capsys):
    (photos / "1.png").write_bytes(b"no picture")
    assert run("photos", "-o", "whole.csv") == 1
    read = []
    for number in (3, 0, 2):
        interrupt_after(monkeypatch, number, read)
        assert run("photos", "-o", "scores.csv") == 130
        assert not os.path.exists("scores.csv")
    assert "Stopped after 5 pictures. The same command continues." in capsys.readouterr().err
    interrupt_after(monkeypatch, None, read)
    assert run("photos", "-o", "scores.csv") == 1
    assert read == [f"photos/{i}.png" for i in range(7)]  # none twice
    assert Path("scores.csv").read_bytes() == Path("whole.csv").read_bytes()
    assert "continuing after 5 pictures" in capsys.readouterr().err
    assert not os.path.exists("scores.csv.part")


def test_other_settings_or_other_pictures_do_not_continue_a_run(run, photos, monkeypatch, capsys):
    read = []
    interrupt_after(monkeypatch, 3, read)
    assert run("photos", "-o", "scores.csv") == 130
    interrupt_after(monkeypatch, None, read)
    assert run("photos", "-o", "scores.csv", "--shorter_side", 10) == 2
    assert "unfinished run with other settings (shorter_side: None, now 10)" in capsys.readouterr().err
    (photos / "0.png").rename(photos / "9.png")
    assert run("photos", "-o", "scores.csv") == 2
    assert "the pictures have changed since the run began (photos/0.png was expected" in capsys.readouterr().err
    (photos / "9.png").rename(photos / "0.png")
    Path("scores.csv").write_text("another file")
    assert run("photos", "-o", "scores.csv") == 2
    assert "scores.csv exists already" in capsys.readouterr().err
    assert run("photos", "-o", "scores.csv", "--overwrite") == 0
    assert len(read) == 7 and len(read_csv("scores.csv")) == 7


def test_a_finished_table_is_only_replaced_on_request(run, photos, capsys):
    assert run("photos/0.png", "-o", "scores.csv") == 0
    before = Path("scores.csv").read_bytes()
    assert run("photos", "-o", "scores.csv") == 2
    said = capsys.readouterr().err
    assert "scores.csv exists already, with other pictures (nothing is there for photos/1.png). Add --overw" in said
    assert run("photos/0.png", "-o", "scores.csv") == 0
    assert capsys.readouterr().err == (
        "scores.csv: 1 picture. It was finished before, with the same pictures and settings: nothing to do.\n"
    )
    assert Path("scores.csv").read_bytes() == before
    assert run("photos", "-o", "scores.csv", "--overwrite") == 0
    assert len(read_csv("scores.csv")) == 7


def test_shards_part_the_inputs(run, photos):
    assert run("photos", "-o", "scores.csv") == 0
    rows = read_csv("scores.csv")
    for i in (1, 2, 3):
        assert run("photos", "-o", "scores.csv", "--shard", f"{i}/3") == 0
        assert read_csv(f"scores.{i}-of-3.csv") == rows[i - 1 :: 3]
    assert run("photos/0.png", "-o", "one.csv", "--shard", "2/2") == 0
    assert read_csv("one.2-of-2.csv") == []


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_processes_of_a_launch_write_the_file_of_one(run, photos, monkeypatch, order, capsys):
    (photos / "2.png").write_bytes(b"no picture")
    assert run("photos", "-o", "one.parquet") == 1
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in order:
        assert not os.path.exists("scores.parquet")
        monkeypatch.setenv("RANK", str(rank))
        # A process that failed would make the launcher end the others.
        assert run("photos", "-o", "scores.parquet") == (1 if rank == order[-1] else 0)
    assert Path("scores.parquet").read_bytes() == Path("one.parquet").read_bytes()
    assert sorted(os.listdir()) == ["one.parquet", "photos", "scores.parquet"]
    for is_late in (False, True):  # a restarted launch, in which another process was faster
        if is_late:
            Path("scores.parquet.1-of-3.part").touch()
            monkeypatch.setenv("RANK", "0")
        assert run("photos", "-o", "scores.parquet") == 0
        assert "scores.parquet: 7 pictures, 1 of them with an error" in (said := capsys.readouterr().err)
        assert "It was finished before, with the same pictures and settings: nothing to do." in said
    assert sorted(os.listdir()) == ["one.parquet", "photos", "scores.parquet"]
    Path("new.csv.1-of-2.part").touch()
    assert run("photos", "-o", "new.csv") == 2
    assert "with another number of processes" in capsys.readouterr().err
    for words, message in (
        (["-o", "new.csv", "--overwrite"], "--overwrite cannot be used by the 3 processes"),
        (["-o", "new.csv", "--shard", "1/2"], "--shard cannot be used by the 3 processes"),
        ([], "Several processes need an output"),
    ):
        assert run("photos", *words) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["missing"], "musiq score: missing: no such file or folder"),
        (["photos", "-o", "scores.xlsx"], "musiq score: scores.xlsx: tables are written as .csv, .jsonl, .parquet"),
        (["photos", "--column", "image"], "musiq score: --column names a column"),
        (["photos", "-o", "s.csv", "-m", "no/such/folder"], "no/such/folder"),
        (["photos", "-o", "s.csv", "-m", "photos"], "photos"),
        (["empty", "-o", "s.csv"], "musiq score: There is no picture in empty"),
        (["photos", "-o", "s.csv", "--device", "nonsense"], "musiq score: --device nonsense cannot be used here"),
    ],
)
def test_mistakes_are_one_sentence(checkpoint, photos, words, message, capsys):
    Path("empty").mkdir()
    model = [] if "-m" in words else ["-m", checkpoint]
    assert main(["score", *words, *model]) == 2
    output = capsys.readouterr()
    assert message in output.err and output.err.count("\n") == 1 and "Traceback" not in output.err
    assert sorted(os.listdir()) == ["empty", "photos"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "--shard", "4/3"], "argument --shard: must be i/n with i from 1 to n, as 3/8, got 4/3"),
        (["photos", "--shard", "two"], "must be i/n"),
        (["photos", "--num_workers", "0"], "argument --num_workers: must be at least 1, got 0"),
        (["photos", "--max_tokens", "x"], "argument --max_tokens: invalid positive value: 'x'"),
        (["photos", "--dtype", "float16"], "invalid choice: 'float16'"),
        ([], "the following arguments are required: PATH"),
    ],
)
def test_wrong_words_are_refused(words, message, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["score", *words])
    assert caught.value.code == 2 and message in capsys.readouterr().err


def test_progress_is_shown_where_it_is_wanted(run, photos, capsys):
    assert run("photos", "-o", "a.csv", "--progress") == 0
    shown = capsys.readouterr().err
    assert re.search(r"pictures/s|s/ pictures", shown) and "7" in shown
    assert run("photos", "-o", "b.csv") == 0
    assert capsys.readouterr().err == "b.csv: 7 pictures.\n"


def test_the_time_left_is_known_once_the_inputs_are_counted(photos, monkeypatch):
    arguments = cli.build_parser().parse_args(["score", "photos", "--progress", "--shard", "2/3"])
    started, thread = [], SimpleNamespace(start=lambda: None)
    monkeypatch.setattr(progress.threading, "Thread", lambda target, daemon: started.append(target) or thread)
    with score_output.make_progress(score.make_job(arguments), show=arguments.progress) as shown:
        shown.start(1)
        started[0]()
        assert (shown.bar.n, shown.bar.total) == (1, 2)  # inputs 2 and 5


def test_help_reads_well(capsys):
    for words in (["--help"], ["score", "--help"]):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert caught.value.code == 0
    output = capsys.readouterr().out
    assert re.search(r"^    score +score pictures, folders", output, re.MULTILINE)
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"musiq_hf {__version__}\n"
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 2


def test_a_reader_that_leaves_is_no_mistake(run, photos, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert run("photos") == 0
        print("what is printed now goes nowhere", file=output, flush=True)


def count_lines(path):
    """Return the number of whole lines of a file; 0 if there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.slow
def test_ten_kills_cost_nothing(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for i in range(600):
        picture(20 + i % 13, 20 + i % 17, i).save(f"photos/{i:04}.png", compress_level=0)
        if i % 50 == 7:
            Path(f"photos/{i:04}.png").write_bytes(b"no picture")
    words = ["score", "photos", "-m", checkpoint, "--device", "cpu", "-o"]
    output, part = Path("scores.csv"), Path("scores.csv.part")
    assert main([*words, "whole.csv"]) == 1
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "musiq_hf.cli", *words, str(output)]
    for steps in np.random.default_rng(0).integers(1, 50, 10):  # so many rows a run, then it is killed
        rows = count_lines(part) + steps
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and count_lines(part) < rows:
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL and rows <= count_lines(part)
        assert not output.exists()
    assert main([*words, str(output)]) == 1
    assert output.read_bytes() == Path("whole.csv").read_bytes()
    assert not part.exists()


def odd_pictures(folder):
    """Write odd files; by name, whether they are pictures."""
    good = picture(40, 60, 1)
    kinds = {}

    def keep(name, is_picture, content=None):
        kinds[name] = is_picture
        if content is not None:
            (folder / name).write_bytes(content)

    for name, image, options in (
        ("cmyk.jpg", good.convert("CMYK"), {}),
        ("gray.jpg", good.convert("L"), {}),
        ("bits16.png", Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 20), {}),
        ("bits16.tif", Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60) * 20), {}),
        ("palette.png", good.convert("P"), {"transparency": 3}),
        ("one_bit.png", good.convert("1"), {}),
        ("alpha.webp", good.convert("RGBA"), {}),
        ("animated.gif", good, {"save_all": True, "append_images": [picture(40, 60, 2)], "duration": 50}),
        ("progressive.jpg", good, {"progressive": True}),
        ("broken_exif.jpg", good, {"exif": b"Exif\0\0MM\0*\xff\xff\xff\xff garbage"}),
        ("pages.tiff", good, {"save_all": True, "append_images": [good]}),
        ("plain.bmp", good, {}),
        ("plain.png", good, {}),
    ):
        image.save(folder / name, **options)
        keep(name, True)
    exif = Image.Exif()
    exif[0x0112] = 6
    good.save(folder / "rotated.jpg", exif=exif)
    keep("rotated.jpg", True)
    good.save(folder / "is_a_jpeg.png", format="JPEG")
    keep("is_a_jpeg.png", True)
    keep("empty.jpg", False, b"")
    keep("text.gif", False, b"GIF89a")
    keep("zeros.png", False, bytes(3000))
    picture(1, 1).save(folder / "1x1.png")
    picture(1, 900).save(folder / "1x900.png")
    kinds |= {"1x1.png": True, "1x900.png": False}
    for side in (0, 1 << 16, (1 << 31) - 1):  # what the heads claim
        for name, start, order in (("plain.png", 16, "big"), ("plain.bmp", 18, "little")):
            content = bytearray((folder / name).read_bytes())
            content[start : start + 8] = side.to_bytes(4, order) * 2
            keep(f"head_{side}{Path(name).suffix}", False, bytes(content))
    return kinds


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
def test_two_hundred_odd_and_corrupt_files(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "odd"
    folder.mkdir()
    kinds = odd_pictures(folder)
    whole = [name for name, is_picture in kinds.items() if is_picture]
    random = np.random.default_rng(0)
    for i in range(200 - len(kinds)):  # cut off, or bytes changed, in every format
        source = folder / whole[i % len(whole)]
        content = bytearray(source.read_bytes())
        if i % 2:
            content = content[: random.integers(1, len(content))]
        else:
            for place in random.integers(0, len(content), 1 + i // 20):
                content[place] = random.integers(256)
        (folder / f"corrupt_{i:03}{source.suffix}").write_bytes(content)
    assert len(os.listdir(folder)) == 200
    with tarfile.open("odd.tar", "w") as archive:
        archive.add("odd")
    cells = [(folder / name).read_bytes() for name in sorted(os.listdir(folder))]
    pyarrow.parquet.write_table(pyarrow.table({"image": cells}), "odd.parquet")
    assert run("odd", "odd.tar", "odd.parquet", "-o", "scores.csv") == 1
    rows = {row["key"]: row for row in read_csv("scores.csv")}
    assert len(rows) == 600
    for name, is_picture in kinds.items():
        row = rows[f"odd/{name}"]
        assert (row["error"] == "") == is_picture, row
        assert rows[f"odd.tar::odd/{name}"]["score"] == row["score"]
    assert rows["odd/rotated.jpg"]["width"] == "40"
    assert all((row["score"] == "") == (row["error"] != "") for row in rows.values())
    for index, name in enumerate(sorted(os.listdir(folder))):
        assert rows[f"odd.parquet::{index}"]["score"] == rows[f"odd/{name}"]["score"], name


@pytest.mark.slow
def test_a_launch_of_two_processes(checkpoint, photos, run):
    assert run("photos", "-o", "one.csv") == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "musiq_hf.cli"]
    words = ["score", "photos", "-m", checkpoint, "--device", "cpu", "-o", "scores.csv"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([*launch, *words], env=environment, check=True, timeout=300)
    assert Path("scores.csv").read_bytes() == Path("one.csv").read_bytes()
    assert sorted(os.listdir()) == ["one.csv", "photos", "scores.csv"]
