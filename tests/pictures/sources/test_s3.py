# SPDX-License-Identifier: Apache-2.0
"""Pictures and tables in S3, against a server on this machine; `make test-ray` installs what these tests need."""

import io
import tarfile
from pathlib import Path

import pytest
from picture_files import keys, outcomes, pixels, png

from musiq_hf import MusiqImageProcessor
from musiq_hf.common.stores import StoreError
from musiq_hf.pictures import Columns
from musiq_hf.pictures.sources.paths import check_sources, find_sources
from musiq_hf.scoring import ScoreJob, run_job

s3fs = pytest.importorskip("s3fs")
server = pytest.importorskip("moto.server")

pytestmark = pytest.mark.slow
NAMES = ("b.JPG", "a/z.png", "a/c/1.png", "a-b/2.png", "odd [1] #%?+&.png", "ü/ä.png", "notes.txt", ".hidden.png")


@pytest.fixture(scope="module")
def address():
    """Address of a server that runs in threads of this process."""
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def s3(address, tmp_path, monkeypatch, alone):
    """A new bucket with pictures, the same ones in the working directory, and no waiting for the store."""
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "hushhush",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("musiq_hf.common.stores.sleep", lambda seconds: None)
    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem()
    if store.exists("bucket"):
        store.rm("bucket", recursive=True)
    store.mkdir("bucket")
    for number, name in enumerate(NAMES):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).write_bytes(png(number))
        store.pipe_file(f"bucket/photos/{name}", png(number))
    store.pipe_file("bucket/photos2/x.png", png(9))
    store.pipe_file("bucket/photos/", b"")  # an object that marks a folder
    return store


@pytest.mark.parametrize("path", ["photos", "photos/a", "photos/*.png", "photos/**/*.png", "pho*/a*"])
def test_a_bucket_gives_what_the_same_folder_gives_here(s3, path):
    check_sources([f"s3://bucket/{path}"])
    assert [key.removeprefix("s3://bucket/") for key in keys(f"s3://bucket/{path}")] == keys(path)


def test_pictures_archives_and_tables_are_read(s3):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in ("x.png", "y.png"):
            member = tarfile.TarInfo(name)
            member.size = len(png(3))
            archive.addfile(member, io.BytesIO(png(3)))
    s3.pipe_file("bucket/a.tar", file.getvalue())
    s3.pipe_file("bucket/cut.tar", file.getvalue()[: 2 * 512 + len(png(3)) // 512 * 512 + 512])
    s3.pipe_file("bucket/t.csv", b"image\nphotos/a/z.png\nphotos/none.png\ns3://bucket/photos/b.JPG\ns3://B/x.png\n")
    paths = [f"s3://bucket/{name}" for name in ("a.tar", "t.csv", "photos/odd [1] #%?+&.png", "photos/none.png")]
    check_sources(paths, columns=Columns("image"), allow_missing=True)
    found = outcomes(*paths)
    assert (found["s3://bucket/a.tar::y.png"] == pixels(3)).all() and (found["photos/a/z.png"] == pixels(1)).all()
    assert (found["s3://bucket/photos/odd [1] #%?+&.png"] == pixels(4)).all()
    assert (found["s3://bucket/photos/b.JPG"] == pixels(0)).all()
    assert found["s3://bucket/photos/none.png"] == "s3://bucket/photos/none.png: no such file."
    assert found["photos/none.png"] == "photos/none.png: no such file." and isinstance(found["s3://B/x.png"], str)
    assert any("cut.tar" in str(value) for value in outcomes("s3://bucket/cut.tar").values())


def test_mistakes_are_sentences(s3, monkeypatch):
    for path in ("s3://none/photos", "s3://bucket/none.png", "s3://bucket/none/*"):
        with pytest.raises(ValueError, match=r"no such file or folder"):
            check_sources([path])
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(StoreError, match="Could not connect.*Check the address, and the credentials") as caught:
        check_sources(["s3://bucket/photos"])
    assert "hushhush" not in str(caught.value)
    with pytest.raises(StoreError, match="tried 3 times .*The same command continues"):
        list(find_sources(["s3://bucket/photos"]))


def test_a_table_in_a_bucket_is_that_of_a_run_here(s3, tiny_model):
    model = tiny_model(score_range=(-10, 10))
    model.save_pretrained("a")
    MusiqImageProcessor.from_config(model.config).save_pretrained("a")

    def interrupt(totals):
        if totals.pictures == 3:
            raise KeyboardInterrupt

    options = {"models": ["a"], "device": "cpu"}
    remote = ScoreJob(["s3://bucket/photos"], output="s3://bucket/out/scores.csv", **options)
    with pytest.raises(KeyboardInterrupt):
        run_job(remote, on_progress=interrupt)
    s3.invalidate_cache()
    assert s3.ls("bucket/out/scores.csv.part") and not s3.exists("bucket/out/scores.csv")
    local = ScoreJob(["photos"], output="scores.csv", **options)
    assert run_job(remote) == run_job(local)
    s3.invalidate_cache()
    assert s3.find("bucket/out") == ["bucket/out/scores.csv"]
    assert s3.cat_file("bucket/out/scores.csv").decode().replace("s3://bucket/", "") == Path("scores.csv").read_text()
    assert run_job(remote).state == "found"
    with pytest.raises(ValueError, match="the bucket or folder does not exist. Make it first"):
        run_job(ScoreJob(["photos"], output="s3://none/scores.csv", **options))
