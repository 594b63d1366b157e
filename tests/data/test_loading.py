# SPDX-License-Identifier: Apache-2.0
import json
import tarfile
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from musiq_hf import MusiqImageProcessor
from musiq_hf.data.checks import count_tokens_of_rows
from musiq_hf.data.loading import load_data, load_pictures, load_scored_images
from musiq_hf.models.musiq.family import MusiqTrainingView
from musiq_hf.pictures.finding import find_pictures
from musiq_hf.pictures.opening import open_picture
from musiq_hf.training.collators import Augmentation, TrainingCollator
from musiq_hf.training.finetuning import _load_parts
from musiq_hf.training.settings import FinetuneSettings


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "photos").mkdir()
    for index in range(4):
        Image.new("RGB", (20 + index, 30), (60 * index, 0, 0)).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path


def write_csv(folder: Path, text: str) -> str:
    (folder / "scores.csv").write_text(text)
    return str(folder / "scores.csv")


def test_csv_is_read_with_splits_groups_and_root(folder):
    csv = write_csv(
        folder, "image,mos,split,group\n0.png,10,train,a\n1.png,20.5,train,b\n2.png,30,validation,a\n3.png,40,test,a\n"
    )
    splits = load_scored_images(csv, image_root=str(folder / "photos"))
    assert sorted(splits) == ["test", "train", "validation"]
    assert splits["train"]["mos"][:] == [10.0, 20.5]
    assert splits["train"]["group"][:] == ["a", "b"]
    assert open_picture(splits["validation"][0]["image"]).size == (22, 30)


def test_csv_without_split_is_all_train_and_starts_from_its_own_directory(folder):
    splits = load_scored_images(write_csv(folder, "image,mos\nphotos/0.png,1\nphotos/1.png,2\n"))
    assert list(splits) == ["train"]
    assert len(splits["train"]) == 2


def test_imagefolder_is_read(folder):
    (folder / "photos" / "metadata.csv").write_text("file_name,mos\n0.png,1.5\n1.png,2\n2.png,3\n3.png,4\n")
    splits = load_scored_images(str(folder / "photos"))
    assert sorted(splits["train"]["mos"][:]) == [1.5, 2.0, 3.0, 4.0]
    assert open_picture(splits["train"][0]["image"]).size[1] == 30


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("picture,mos\n0.png,1\n", r"scores.csv: columns \['image'\] are missing, got \['picture', 'mos'\]"),
        ("image,mos\n0.png,1\n9.png,2\n", "line 3: picture .*9.png does not exist. Check `--image_root`"),
        ("image,mos\n0.png,good\n", "line 2: `mos` must be a number, got good"),
        ("image,mos\n0.png,\n", "line 2: `mos` must be a number, got nothing"),
        ("image,mos\n0.png\n", "line 2: `mos` must be a number, got nothing"),
        ("image,mos\n,1\n", "line 2: a picture or the name of one was expected, but there is none"),
        ("image,mos\n", "scores.csv, split train: no rows. Give at least one picture"),
        ("image,mos,split\n", "scores.csv, split train: no rows. Give at least one picture"),
        ("", "scores.csv: not a CSV table"),
    ],
)
def test_mistakes_in_a_csv_name_file_and_line(folder, text, message):
    with pytest.raises(ValueError, match=message):
        load_scored_images(write_csv(folder, text), image_root=str(folder / "photos"))


def test_missing_csv_is_named():
    with pytest.raises(ValueError, match="absent.csv: no such file"):
        load_scored_images("absent.csv")


def test_undecodable_picture_is_named(tmp_path):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0nothing")
    with pytest.raises(ValueError, match="broken.jpg"):
        open_picture({"path": str(tmp_path / "broken.jpg"), "bytes": None})


def test_csv_with_counts_gives_distributions(folder):
    text = "image,c1,c2,c3\n0.png,0,1,3\n1.png,2,2,0\n"
    rows = load_scored_images(write_csv(folder, text), image_root=str(folder / "photos"))["train"]
    assert rows["distribution"][:] == [[0, 0.25, 0.75], [0.5, 0.5, 0]]
    assert "mos" not in rows.column_names
    with pytest.raises(ValueError, match="line 3: a distribution must be 2 or more numbers"):
        load_scored_images(write_csv(folder, text.replace("2,2,0", "2,-2,0")), image_root=str(folder / "photos"))
    with pytest.raises(ValueError, match=r"columns \['c2'\] are missing, got \['c1', 'c3'\]"):
        load_scored_images(write_csv(folder, text.replace("c2", "b")), image_root=str(folder / "photos"))


@pytest.fixture
def cache(tmp_path, monkeypatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def write_parquet(folder: Path, name: str, *, pictures: bool = True, **columns) -> str:
    import datasets

    rows = datasets.Dataset.from_dict(columns)
    if pictures:  # in the file, not as paths
        cells = [{"bytes": (folder / "photos" / file).read_bytes(), "path": file} for file in columns["image"]]
        features = datasets.Features({**rows.features, "image": datasets.Image()})
        rows = datasets.Dataset.from_dict({**columns, "image": cells}, features=features)
    (folder / "tables").mkdir(exist_ok=True)
    rows.to_parquet(str(folder / "tables" / name))
    return str(folder / "tables" / name)


NAMES = [f"{index}.png" for index in range(4)]


def test_parquet_holds_pictures_distributions_and_splits(folder, cache):
    counts = [[1, 3], [2, 2], [4, 0], [0, 4]]
    path = write_parquet(folder, "scores.parquet", image=NAMES, distribution=counts, split=["train"] * 3 + ["test"])
    splits = load_scored_images(path)
    assert splits.num_rows == {"test": 1, "train": 3}
    assert splits["train"]["distribution"][:] == [[0.25, 0.75], [0.5, 0.5], [1, 0]]
    assert [open_picture(row["image"]).size for row in splits["train"]] == [(20, 30), (21, 30), (22, 30)]
    with pytest.raises(ValueError, match="`--image_root` belongs to a CSV, or to parquet files with paths"):
        load_scored_images(path, image_root=str(folder))


def test_parquet_with_paths_is_checked(folder, cache):
    path = write_parquet(folder, "paths.parquet", pictures=False, image=NAMES, mos=[1.0, 2.0, 3.0, 4.0])
    rows = load_scored_images(path, image_root=str(folder / "photos"))["train"]
    assert open_picture(rows[2]["image"]).size == (22, 30)
    with pytest.raises(ValueError, match=r"paths.parquet, split train, row 0: picture .*0.png does not exist"):
        load_scored_images(path)
    stream = load_scored_images(path, image_root=str(folder / "photos"), streaming=True)["train"]
    assert open_picture(list(stream)[3]["image"]).size == (23, 30)


def test_streams_give_the_rows_of_the_whole_and_meet_mistakes_when_they_are_read(folder, cache):
    write_parquet(folder, "train-0.parquet", image=NAMES[:2], mos=[1, 2])
    write_parquet(folder, "train-1.parquet", image=NAMES[2:3], mos=[3])
    write_parquet(folder, "test-0.parquet", image=NAMES[3:], mos=[4])
    whole, stream = (load_scored_images(str(folder / "tables"), streaming=own) for own in (False, True))
    assert sorted(stream) == sorted(whole) == ["test", "train"]
    assert [row["mos"] for row in stream["train"]] == whole["train"]["mos"][:] == [1, 2, 3]
    assert [open_picture(row["image"]).size for row in stream["test"]] == [(23, 30)]
    bad = write_parquet(folder, "bad.parquet", image=NAMES[:2], mos=[1.0, float("nan")])
    rows = iter(load_scored_images(bad, streaming=True)["train"])
    assert next(rows)["mos"] == 1
    with pytest.raises(ValueError, match=r"bad.parquet, split train, row 1: `mos` must be a number, got nothing"):
        next(rows)
    with pytest.raises(ValueError, match=r"bad.parquet, split train, row 1: `mos` must be a number, got nothing"):
        load_scored_images(bad)


def test_wrong_parquet_columns_are_named(folder, cache):
    path = write_parquet(folder, "a.parquet", image=NAMES[:1], score=[1.0])
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"split train: columns \['mos'\] are missing, got \['image', 'score'\]"):
            load_scored_images(path, streaming=streaming)
    path = write_parquet(folder, "b.parquet", image=NAMES[:2], distribution=[[1, 2], [1, 2, 3]])
    with pytest.raises(ValueError, match="row 1: `distribution` must have 2 numbers as in row 0, got 3"):
        load_scored_images(path)
    path = write_parquet(folder, "c.parquet", image=NAMES[:1], mos=[1.0], split=["train"])
    with pytest.raises(ValueError, match="a stream cannot be parted by a `split` column"):
        load_scored_images(path, streaming=True)
    (folder / "d.parquet").write_bytes(b"none" * 10)
    with pytest.raises(ValueError, match="d.parquet cannot be read as parquet files: .*magic bytes"):
        load_scored_images(str(folder / "d.parquet"))
    with pytest.raises(ValueError, match="absent-.*.parquet: no such file"):
        load_scored_images(str(folder / "absent-*.parquet"))


def test_csv_cannot_be_streamed(folder):
    with pytest.raises(ValueError, match="parquet files, WebDataset shards and Hub data can be streamed"):
        load_scored_images(write_csv(folder, "image,mos\nphotos/0.png,1\n"), streaming=True)


def write_shard(folder: Path, name: str, labels: list[dict[str, str]]) -> str:
    """One sample per entry: a picture and files of the named extensions."""
    with tarfile.open(folder / name, "w") as tar:
        for index, files in enumerate(labels):
            contents = {"png": (folder / "photos" / f"{index % 4}.png").read_bytes()}
            contents |= {extension: text.encode() for extension, text in files.items()}
            for extension, content in contents.items():
                entry = tarfile.TarInfo(f"{index:03d}.{extension}")
                entry.size = len(content)
                tar.addfile(entry, BytesIO(content))
    return str(folder / name)


@pytest.mark.parametrize("streaming", [False, True])
def test_webdataset_scores_keep_decimals_that_come_late(folder, cache, streaming):
    labels = [{"json": json.dumps({"mos": mos, "group": "g"})} for mos in (50, 51, 52, 53, 54, 55, 3.5)]
    rows = list(load_scored_images(write_shard(folder, "a.tar", labels), streaming=streaming)["train"])
    assert [row["mos"] for row in rows] == [50, 51, 52, 53, 54, 55, 3.5]
    assert set(rows[0]) == {"image", "mos", "group"} and rows[0]["group"] == "g"
    assert open_picture(rows[6]["image"]).size == (22, 30)


def test_webdataset_scores_may_be_texts_or_distributions(folder, cache):
    rows = load_scored_images(write_shard(folder, "a.tar", [{"txt": "1.5"}, {"txt": "2\n"}]))["train"]
    assert rows["mos"][:] == [1.5, 2]
    labels = [{"json": json.dumps({"distribution": counts})} for counts in ([1, 3], [2, 2])]
    rows = load_scored_images(write_shard(folder, "b.tar", labels))["train"]
    assert rows["distribution"][:] == [[0.25, 0.75], [0.5, 0.5]]


def test_mistakes_in_shards_are_named(folder, cache):
    path = write_shard(folder, "a.tar", [{"txt": "1.5"}, {"txt": "good"}])
    with pytest.raises(ValueError, match=r"a.tar, split train, sample 001: `mos` must be a number, got good"):
        load_scored_images(path)
    path = write_shard(folder, "b.tar", [{"json": '{"score": 1}'}])
    with pytest.raises(ValueError, match="every sample needs a picture .* and a json file with `mos`"):
        load_scored_images(path, streaming=True)


@pytest.mark.parametrize("content", [b"", b"nothing" * 100, b"\0" * 300])
@pytest.mark.parametrize("name", ["a.tar", "a.parquet", "a.csv"])
def test_files_of_another_kind_are_named(tmp_path, cache, name, content):
    (tmp_path / name).write_bytes(content)
    expected = {
        "a.tar": "a.tar cannot be read as webdataset files",
        "a.parquet": "a.parquet cannot be read as parquet",
    }
    with pytest.raises(ValueError, match=expected.get(name, "a.csv: (not a CSV table|columns .* are missing)")):
        load_scored_images(str(tmp_path / name))


def test_rows_without_pictures_are_named(folder, cache):
    path = write_parquet(folder, "a.parquet", pictures=False, image=["0.png", None], mos=[1.0, 2.0])
    with pytest.raises(ValueError, match="row 1: a picture or the name of one was expected, but there is none"):
        load_scored_images(path, image_root=str(folder / "photos"))
    path = write_parquet(folder, "b.parquet", pictures=False, image=[3], mos=[1.0])
    with pytest.raises(ValueError, match="b.parquet, split train: `image` must hold pictures or their paths, got "):
        load_scored_images(path)
    with pytest.raises(ValueError, match="A row has no picture"):
        open_picture(None)


def test_scores_outside_of_their_range_name_file_and_row(folder, cache):
    root = str(folder / "photos")
    csv = write_csv(folder, "image,mos\n0.png,1\n1.png,5\n2.png,5.5\n")
    assert len(load_scored_images(csv, image_root=root, score_range=(1, 5.5))["train"]) == 3
    with pytest.raises(ValueError, match=r"scores.csv, line 4: `mos` must be a number in 1..5, got 5.5"):
        load_scored_images(csv, image_root=root, score_range=(1, 5))
    with pytest.raises(ValueError, match=r"scores.csv, line 2: `mos` must be a number in 2..6, got 1"):
        load_data(csv, image_root=root, score_range=(2, 6))
    parquet = write_parquet(folder, "a.parquet", image=NAMES[:2], mos=[1.0, 9.0])
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"a.parquet, split train, row 1: `mos` must be a number in 1..5, got 9"):
            list(load_scored_images(parquet, score_range=(1, 5), streaming=streaming)["train"])
    shard = write_shard(folder, "a.tar", [{"txt": "1.5"}, {"txt": "-1"}])
    with pytest.raises(ValueError, match=r"a.tar, split train, sample 001: `mos` must be a number in 0..5, got -1"):
        load_scored_images(shard, score_range=(0, 5))


@pytest.mark.parametrize("dataset", ["scores", "koniq"])
def test_ranges_that_are_none_are_refused(folder, dataset):
    with pytest.raises(ValueError, match=r"`score_range` must be \(lowest, highest\), got \(5, 1\)"):
        load_data(write_csv(folder, "image,mos\n0.png,1\n"), dataset=dataset, score_range=(5, 1))


def test_distributions_have_their_own_range(folder):
    csv = write_csv(folder, "image,c1,c2\n0.png,0,1\n")
    with pytest.raises(
        ValueError, match="`score_range` bounds `mos`, but these data have distributions. Leave it out"
    ):
        load_scored_images(csv, image_root=str(folder / "photos"), score_range=(1, 2))


def test_training_checks_the_range_of_its_settings(folder):
    csv = write_csv(folder, "image,mos\n0.png,50\n1.png,500\n")
    settings = FinetuneSettings(
        data=csv, model="scratch:musiq-tiny", output_dir="", image_root=str(folder / "photos"), score_range=(0, 100)
    )
    with pytest.raises(ValueError, match="line 3: `mos` must be a number in 0..100, got 500"):
        _load_parts(settings)


def test_pictures_of_a_folder_are_those_that_can_be_opened(folder):
    (folder / "photos" / "below").mkdir()
    Image.new("RGB", (5, 5)).save(folder / "photos" / "below" / "A.JPG", format="JPEG")
    Image.new("RGB", (5, 5)).save(folder / "photos" / "album.pdf")
    for name in ("notes.txt", "data.h5", "clip.mpg"):
        (folder / "photos" / name).write_bytes(b"none")
    (folder / "photos" / "folder.png").mkdir()
    found = find_pictures(folder / "photos")
    assert [path.name for path in found] == ["0.png", "1.png", "2.png", "3.png", "A.JPG"]
    rows = load_pictures(str(folder / "photos"))
    assert [cell["path"] for cell in rows["image"]] == [str(path) for path in found]
    assert all(open_picture(cell).size for cell in rows["image"])
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no picture. Give a folder of PNG"):
        find_pictures(folder / "empty")
    with pytest.raises(ValueError, match="absent: no such folder"):
        find_pictures(folder / "absent")


LENGTHS = {
    "plain": ({}, {}, {}),
    "native_limit": ({"max_native_patches": 6}, {}, {}),
    "subsets": ({}, {"native_patches": 9}, {}),
    "both": ({"max_native_patches": 6}, {"resized_patches": 4, "native_patches": 9}, {}),
    "shrunk": ({}, {}, {"shorter_side": 25}),
    "all": ({"max_native_patches": 11}, {"resized_patches": 3, "native_patches": 10}, {"shorter_side": 33}),
    "no_native": ({"use_native_resolution": False}, {"resized_patches": 2}, {}),
    "square": ({"resize_mode": "square"}, {}, {"shorter_side": 25}),
}


@pytest.mark.parametrize(("own", "subsets", "shrinking"), LENGTHS.values(), ids=LENGTHS)
def test_counted_patches_are_the_lengths_of_the_training_sequences(tmp_path, own, subsets, shrinking):
    lines = ["image,mos"]
    for index, size in enumerate([(24, 32), (61, 40), (16, 16), (33, 50), (77, 31)]):
        tag = Image.Exif()
        tag[0x0112] = 6 if index == 1 else 1  # a camera that was turned
        Image.new("RGB", size).save(tmp_path / f"{index}.png", exif=tag)
        lines.append(f"{index}.png,{index}")
    rows = load_scored_images(write_csv(tmp_path, "\n".join(lines) + "\n"))["train"]
    processor = MusiqImageProcessor(patch_size=8, longer_side_lengths=[16, 24], **own)
    view = MusiqTrainingView(**({"native_patches": None} | subsets))
    collate = TrainingCollator(processor, view=view, augmentation=Augmentation(), **shrinking)
    lengths = [int(collate([row])["pixel_attention_mask"].sum()) for row in rows]
    assert count_tokens_of_rows(rows, processor, view=view, **shrinking) == lengths
    assert len(set(lengths)) > 1 or subsets


def test_patches_of_boxes_are_counted(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "0.png")
    rows = load_scored_images(write_csv(tmp_path, "image,mos\n0.png,1\n0.png,1\n"))["train"]
    rows = rows.add_column("box", [[0, 0, 16, 8], None])
    processor = MusiqImageProcessor(patch_size=8, longer_side_lengths=[])
    assert count_tokens_of_rows(rows, processor) == [2, 64]
    assert count_tokens_of_rows(rows, processor, shorter_side=16) == [2, 4]


def test_pictures_that_cannot_be_counted_are_named(tmp_path):
    (tmp_path / "0.png").write_bytes(b"none")
    rows = load_scored_images(write_csv(tmp_path, "image,mos\n0.png,1\n"))["train"]
    processor = MusiqImageProcessor(patch_size=8, longer_side_lengths=[16])
    with pytest.raises(ValueError, match="0.png: not a picture that Pillow can read"):
        count_tokens_of_rows(rows, processor)
    Image.new("RGB", (200, 1)).save(tmp_path / "0.png")
    with pytest.raises(ValueError, match="0.png, 200x1 pixels: its aspect ratio is too extreme"):
        count_tokens_of_rows(rows, processor)
