# SPDX-License-Identifier: Apache-2.0
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from scored import NAMES, write_csv, write_parquet

from musiq_hf.data.loading import load_scored_images
from musiq_hf.pictures.opening import open_picture


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
        ("image,mos\n0.png,3,5\n", "line 2: the row has 3 cells for 2 columns. Quote texts that hold what stands"),
        ("", r"scores.csv: columns \['image', 'mos'\] are missing, got \[\]"),
    ],
)
def test_mistakes_in_a_csv_name_file_and_line(folder, text, message):
    with pytest.raises(ValueError, match=message):
        load_scored_images(write_csv(folder, text), image_root=str(folder / "photos"))


def test_csv_with_counts_gives_distributions(folder):
    text = "image,c1,c2,c3\n0.png,0,1,3\n1.png,2,2,0\n"
    rows = load_scored_images(write_csv(folder, text), image_root=str(folder / "photos"))["train"]
    assert rows["distribution"][:] == [[0, 0.25, 0.75], [0.5, 0.5, 0]]
    assert "mos" not in rows.column_names
    with pytest.raises(ValueError, match="line 3: a distribution must be 2 or more numbers"):
        load_scored_images(write_csv(folder, text.replace("2,2,0", "2,-2,0")), image_root=str(folder / "photos"))
    with pytest.raises(ValueError, match=r"columns \['c2'\] are missing, got \['c1', 'c3'\]"):
        load_scored_images(write_csv(folder, text.replace("c2", "b")), image_root=str(folder / "photos"))


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


def test_rows_without_pictures_are_named(folder, cache):
    path = write_parquet(folder, "a.parquet", pictures=False, image=["0.png", None], mos=[1.0, 2.0])
    with pytest.raises(ValueError, match="row 1: a picture or the name of one was expected, but there is none"):
        load_scored_images(path, image_root=str(folder / "photos"))
    path = write_parquet(folder, "b.parquet", pictures=False, image=[3], mos=[1.0])
    with pytest.raises(ValueError, match="b.parquet, split train: `image` must hold pictures or their paths, got "):
        load_scored_images(path)
    with pytest.raises(ValueError, match="A row has no picture"):
        open_picture(None)


TEXTS = [
    pyarrow.string(),
    pyarrow.large_string(),
    pyarrow.string_view(),
    pyarrow.dictionary(pyarrow.int32(), pyarrow.string()),
]
BYTES = [
    pyarrow.binary(),
    pyarrow.large_binary(),
    pyarrow.binary_view(),
    pyarrow.dictionary(pyarrow.int32(), pyarrow.binary()),
]


def write_arrow(folder, **columns) -> str:
    path = str(folder / "a.parquet")
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_paths_in_parquet_are_texts_of_any_kind(folder, cache, kind, streaming):
    path = write_arrow(folder, image=pyarrow.array(NAMES[:2], kind), mos=[1.0, 2.0])
    rows = list(load_scored_images(path, image_root=str(folder / "photos"), streaming=streaming)["train"])
    assert open_picture(rows[1]["image"]).size == (21, 30)
    with pytest.raises(ValueError, match=r"a.parquet, split train, row 0: picture .*0.png does not exist"):
        list(load_scored_images(path, streaming=streaming)["train"])


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", [*BYTES, "fixed"], ids=str)
def test_pictures_in_parquet_are_bytes_of_any_kind(folder, cache, kind, streaming):
    content = [(folder / "photos" / name).read_bytes() for name in NAMES[:2]]
    if kind == "fixed":
        kind = pyarrow.binary(max(map(len, content)))
        content = [picture.ljust(kind.byte_width, b"\0") for picture in content]
    path = write_arrow(folder, image=pyarrow.array(content, kind), mos=[1.0, 2.0])
    rows = list(load_scored_images(path, streaming=streaming)["train"])
    assert [open_picture(row["image"]).size for row in rows] == [(20, 30), (21, 30)]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("paths", TEXTS[:3], ids=str)
@pytest.mark.parametrize("pictures", [*BYTES[:3], None], ids=str)
def test_cells_in_parquet_start_from_the_folder_of_the_table(folder, cache, paths, pictures, streaming):
    cells = {} if pictures is None else {"bytes": pyarrow.nulls(2, pictures)}
    cells["path"] = pyarrow.array(["photos/0.png", "photos/1.png"], paths)
    image = pyarrow.StructArray.from_arrays(list(cells.values()), names=list(cells))
    path = write_arrow(folder, image=image, mos=[1.0, 2.0])
    rows = list(load_scored_images(path, streaming=streaming)["train"])
    assert [row["image"]["path"] for row in rows] == [str(folder / "photos" / name) for name in NAMES[:2]]
    (folder / "photos" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"row 1: picture .*1.png does not exist"):
        list(load_scored_images(path, streaming=streaming)["train"])


def test_a_table_may_hold_pictures_and_paths(folder, cache):
    content = (folder / "photos" / "0.png").read_bytes()
    cells = [{"bytes": content, "path": "any.png"}, {"bytes": None, "path": "photos/1.png"}]
    path = write_arrow(folder, image=cells, mos=[1.0, 2.0])
    rows = load_scored_images(path)["train"]
    assert [open_picture(row["image"]).size for row in rows] == [(20, 30), (21, 30)]


@pytest.mark.parametrize("kind", [*TEXTS, *BYTES[:3]], ids=str)
def test_groups_references_and_splits_are_texts_of_any_kind(folder, cache, kind):
    is_text = kind in TEXTS
    columns = {"group": ["NA", "None"], "reference": ["007", "1e3"], "split": ["train", "train"]}
    made = {
        name: pyarrow.array([value if is_text else value.encode() for value in values], kind)
        for name, values in columns.items()
    }
    path = write_arrow(folder, image=[f"photos/{name}" for name in NAMES[:2]], mos=[1.0, 2.0], **made)
    rows = load_scored_images(path)["train"]
    assert {name: rows[name][:] for name in columns} == columns


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", [*TEXTS, pyarrow.binary(), pyarrow.int8(), pyarrow.decimal128(5, 2)], ids=str)
def test_scores_of_any_kind_become_numbers(folder, cache, kind, streaming):
    values = [b"1", b"2"] if kind == pyarrow.binary() else [1, 2] if kind not in TEXTS else [" 1.5", "2e0\n"]
    path = write_arrow(folder, image=["photos/0.png", "photos/1.png"], mos=pyarrow.array(values, kind))
    rows = load_scored_images(path, streaming=streaming)["train"]
    assert rows.features["mos"].dtype == "float64"
    assert [row["mos"] for row in rows] == ([1.5, 2.0] if kind in TEXTS else [1.0, 2.0])
    if kind in TEXTS:
        path = write_arrow(folder, image=["photos/0.png", "photos/1.png"], mos=pyarrow.array(["1", "1_0"], kind))
        with pytest.raises(ValueError, match="row 1: `mos` must be a number, got 1_0"):
            list(load_scored_images(path, streaming=streaming)["train"])


@pytest.mark.parametrize("kind", TEXTS, ids=str)
def test_distributions_of_texts_become_numbers(folder, cache, kind):
    counts = pyarrow.array([["1", "3"]], pyarrow.list_(kind)) if kind in TEXTS[:3] else [["1", "3"]]
    path = write_arrow(folder, image=["photos/0.png"], distribution=counts)
    assert load_scored_images(path)["train"]["distribution"][:] == [[0.25, 0.75]]


@pytest.mark.parametrize("streaming", [False, True])
def test_answers_of_yes_and_no_are_no_scores(folder, cache, streaming):
    path = write_arrow(folder, image=["photos/0.png", "photos/1.png"], mos=pyarrow.array([True, False]))
    with pytest.raises(ValueError, match="row 0: `mos` must be a number, got True"):
        list(load_scored_images(path, streaming=streaming)["train"])


def test_errors_name_the_line_as_an_editor_counts_it(folder):
    text = 'image,mos,note\r\n\r\n0.png,1,"two\r\nlines"\r\n\r\n1.png,bad,"two\r\nlines"\r\n'
    with pytest.raises(ValueError, match="scores.csv, line 6: `mos` must be a number, got bad"):
        load_scored_images(write_csv(folder, text.replace("\r\n", "\n")), image_root=str(folder / "photos"))
    (folder / "scores.csv").write_bytes(text.encode())
    with pytest.raises(ValueError, match="scores.csv, line 6: `mos` must be a number, got bad"):
        load_scored_images(str(folder / "scores.csv"), image_root=str(folder / "photos"))


def test_texts_in_a_csv_are_not_parsed(folder):
    names = ["NA", "null", "007", "1e3", "nan", "True", "2024-01-01", " a "]
    for name in names:
        Image.new("RGB", (9, 9)).save(folder / "photos" / name, "PNG")
    lines = "".join(f"{name},{index},{name},{name},{name}\n" for index, name in enumerate(names))
    csv = write_csv(folder, "image,mos,group,reference,other\n" + lines + "0.png,1,,,\n")
    rows = load_scored_images(csv, image_root=str(folder / "photos"))["train"]
    assert [cell["path"] for cell in rows["image"]] == [str(folder / "photos" / name) for name in [*names, "0.png"]]
    for column in ("group", "reference", "other"):
        assert rows[column][:] == [*names, None]


def test_paths_may_start_from_a_folder_that_is_relative(folder, cache, monkeypatch):
    monkeypatch.chdir(folder)
    write_csv(folder, "image,mos\n0.png,1\n./below/1.png,2\n")
    (folder / "photos" / "below").mkdir()
    Image.new("RGB", (9, 9)).save(folder / "photos" / "below" / "1.png")
    rows = load_scored_images("scores.csv", image_root="photos")["train"]
    assert [cell["path"] for cell in rows["image"]] == ["photos/0.png", "photos/below/1.png"]
    write_parquet(folder, "paths.parquet", pictures=False, image=NAMES[:2], mos=[1.0, 2.0])
    rows = load_scored_images("tables/paths.parquet", image_root="photos")["train"]
    assert [cell["path"] for cell in rows["image"]] == ["photos/0.png", "photos/1.png"]
