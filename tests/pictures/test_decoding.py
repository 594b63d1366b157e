# SPDX-License-Identifier: Apache-2.0
"""Pictures decoded ahead in processes: order, what is sent where, and files that kill who decodes them."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from musiq_hf import MusiqImageProcessor
from musiq_hf.pictures import decoding
from musiq_hf.pictures.decoding import Decoder, decode_ahead
from musiq_hf.pictures.lazy import LazyPicture
from musiq_hf.pictures.sources.paths import find_sources
from musiq_hf.scoring.engine import score_pictures


def pixels(seed):
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)


@pytest.fixture
def photos(tmp_path):
    for index in range(5):
        Image.fromarray(pixels(index)).save(tmp_path / f"{index}.png")
    return tmp_path


def kill():
    """What a damaged file can do to a decoder."""
    os.kill(os.getpid(), signal.SIGKILL)


def decoded(sources, **options):
    rows = decode_ahead(sources, Decoder(), num_workers=2, in_processes=True, **options)
    return {key: future.exception() or np.asarray(future.result()) for key, future in rows}


def test_processes_give_what_threads_give(photos, tiny_model):
    (photos / "broken.jpg").write_bytes(b"no picture")
    model = tiny_model()
    options = {"model": model, "processor": MusiqImageProcessor.from_config(model.config)}
    sources = [*find_sources([str(photos)]), str(photos / "missing.png"), pixels(7), Image.fromarray(pixels(8))]
    in_threads = list(score_pictures(sources, **options))
    assert list(score_pictures(sources, **options, in_processes=True)) == in_threads
    assert [row.error is None for row in in_threads] == [True] * 5 + [False] * 2 + [True] * 2


def test_a_file_that_kills_its_process_costs_its_own_row_only(photos):
    sources = list(find_sources([str(photos)]))
    for place in (1, 4):
        sources.insert(place, (f"bad {place}", LazyPicture(f"bad {place}", kill)))
    rows = decoded(sources)
    assert list(rows) == [key for key, _ in sources]
    for key, result in rows.items():
        if key.startswith("bad"):
            assert isinstance(result, ValueError) and str(result).startswith(f"{key}: the process that decoded it")
        else:
            np.testing.assert_array_equal(result, pixels(int(os.path.basename(key)[0])))


def run_script(folder, text):
    (folder / "run.py").write_text(text)
    return subprocess.run([sys.executable, "run.py"], cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_waits_until_processes_have_been_started(request):
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run side by side ignore it
    done = []
    with pytest.raises(KeyboardInterrupt), decoding._hold_interrupts():
        os.kill(os.getpid(), signal.SIGINT)
        done.append("started")
    assert done == ["started"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.slow
def test_processes_that_cannot_start_are_said_once_and_blamed_on_no_picture(photos):
    # Without the guard, each process would begin the script again.
    script = "from musiq_hf.pictures.decoding import *\n"
    script += "list(decode_ahead(['0.png'], Decoder(), num_workers=1, in_processes=True))"
    ended = run_script(photos, script)
    assert ended.returncode == 1
    assert "OSError: The processes that decode cannot be started. In a script of your own, begin with" in ended.stderr


def test_settings_of_pillow_hold_in_processes(photos, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    (error,) = decoded([str(photos / "0.png")]).values()
    assert "safety limit" in str(error)


@pytest.mark.parametrize("in_processes", [False, True])
def test_after_an_error_of_the_source_or_of_its_copy_nothing_more_is_read(in_processes, monkeypatch):
    plain, copied = decoding._copy_pixels, []

    def own(source):
        copied.append(source)
        if len(copied) == 3:
            raise MemoryError("no room")
        return plain(source)

    monkeypatch.setattr(decoding, "_copy_pixels", own)
    rows = decode_ahead([pixels(i) for i in range(9)], Decoder(), num_workers=2, in_processes=in_processes)
    assert [next(rows)[0] for _ in range(2)] == [0, 1]
    with pytest.raises(MemoryError, match="no room"):
        next(rows)
    assert len(copied) == 3


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_processes_end_with_their_parent_even_if_it_is_killed(photos, tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import itertools, sys, time\n"
        "from musiq_hf.pictures.decoding import Decoder, decode_ahead\n"
        "if __name__ == '__main__':\n"
        f"    sources = itertools.cycle(['{photos}/0.png'])\n"
        "    next(decode_ahead(sources, Decoder(), num_workers=2, in_processes=True))\n"
        "    print('decoded', flush=True)\n"
        "    time.sleep(60)\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert parent.stdout.readline() == "decoded\n"
    parent.kill()
    parent.wait()
    for _ in range(200):  # all of its session, workers among them
        if not [pid for pid in os.listdir("/proc") if pid.isdigit() and _session(pid) == parent.pid]:
            return
        time.sleep(0.05)
    pytest.fail("processes that decode have outlived their parent")


def _session(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[3])
    except OSError:
        return None


def damaged_tiff(compression):
    """A TIFF file of which the middle of the pixels is changed, so that libtiff has something to say."""
    file = BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "TIFF", compression=compression)
    content = bytearray(file.getvalue())
    third = len(content) // 3
    content[third : third + 200] = bytes(byte ^ 0x5A for byte in content[third : third + 200])
    return bytes(content)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere libtiff may be a part of Pillow's own library")
def test_libtiff_and_pillow_say_nothing_of_their_own_in_our_programs(tmp_path):
    for compression in ("tiff_deflate", "tiff_lzw", "jpeg"):
        (tmp_path / f"{compression}.tif").write_bytes(damaged_tiff(compression))
    (tmp_path / "cut.tif").write_bytes(damaged_tiff("tiff_deflate")[:5000])
    script = """
import sys
from pathlib import Path
from musiq_hf.pictures.decoding import silence_decoders
from musiq_hf.pictures import open_picture
if sys.argv[1] == "silent":
    silence_decoders()
for path in sorted(Path().glob("*.tif")):
    try:
        open_picture(path)
    except ValueError as error:
        print(error)
"""
    said = {}
    for mode in ("loud", "silent"):
        words = [sys.executable, "-c", script, mode]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": ""}
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
        assert done.stdout.count("tif: ") == 3, done.stderr
        said[mode] = done.stderr
    assert said["silent"] == ""
    assert "ZIPDecode" in said["loud"] and "UserWarning" in said["loud"]
