# SPDX-License-Identifier: Apache-2.0
import datetime

import pytest
from scored import NAMES, write, write_csv, write_parquet, write_shard

from musiq_hf.data.columns import TableOptions
from musiq_hf.data.loading import load_data, load_pictures, load_scored_images

OWN = TableOptions(image_column="photo", score_column="quality", split_column="set")


def check_own_names(splits) -> None:
    assert {name: rows["mos"][:] for name, rows in splits.items()} == {"train": [1.5, 2.0], "validation": [3.0]}
    assert all(cell["path"] is None or cell["path"].endswith(".png") for cell in splits["train"]["image"])
    assert not {"photo", "quality", "set"} & set(splits["train"].column_names)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_columns_of_a_csv_have_names_of_ones_own(folder, delimiter):
    text = "photo,quality,set,mos\n0.png,1.5,Training,9\n1.png,2,train,9\n2.png,3,dev,9\n".replace(",", delimiter)
    check_own_names(load_scored_images(write_csv(folder, text), image_root=str(folder / "photos"), options=OWN))


def test_columns_of_parquet_have_names_of_ones_own(folder, cache):
    path = write_parquet(folder, "a.parquet", image=NAMES[:3], mos=[1.5, 2.0, 3.0], split=["train", "training", "val"])
    import datasets

    rows = datasets.Dataset.from_parquet(path)
    rows = rows.rename_columns({"image": "photo", "mos": "quality", "split": "set"}).add_column("mos", ["a"] * 3)
    rows.to_parquet(path)
    check_own_names(load_scored_images(path, options=OWN))
    rows = rows.remove_columns("quality").add_column("quality", [[1, 3]] * 3)
    rows.to_parquet(path)
    assert load_scored_images(path, options=OWN)["train"]["distribution"][:] == [[0.25, 0.75]] * 2
    stream = load_scored_images(path, options=TableOptions(image_column="photo", score_column="quality"))
    assert stream["train"][0]["distribution"] == [0.25, 0.75]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_columns_of_a_folder_have_names_of_ones_own(folder, ending):
    lines = {
        "csv": "photo,quality,set\n0.png,1.5,train\n1.png,2,train\n2.png,3,valid\n",
        "jsonl": '{"photo": "0.png", "quality": 1.5, "set": "train", "mos": 3}\n'
        '{"photo": "1.png", "quality": 2, "set": "train"}\n{"photo": "2.png", "quality": 3, "set": "valid"}\n',
    }
    write(folder / "photos" / f"metadata.{ending}", lines[ending])
    check_own_names(load_scored_images(str(folder / "photos"), options=OWN))


def test_names_that_no_column_has_are_named(folder):
    csv = write_csv(folder, "photo,quality\n0.png,1\n")
    with pytest.raises(ValueError, match=r"`--score_column mos`: .*csv has no such column, only photo, quality"):
        load_scored_images(csv, options=TableOptions(image_column="photo", score_column="mos"))
    with pytest.raises(ValueError, match="must differ, got a, a"):
        TableOptions(image_column="a", split_column="a")
    with pytest.raises(ValueError, match=r"columns \['image', 'mos'\] are missing.*`--image_column`, "):
        load_scored_images(csv)


def test_names_of_columns_are_refused_where_there_is_no_table(folder, koniq):
    shard = write_shard(folder, "a.tar", [{"txt": "1.5"}])
    with pytest.raises(ValueError, match="name columns of one's own tables, but .*a.tar is none. Leave them out"):
        load_scored_images(shard, options=OWN)
    with pytest.raises(ValueError, match="but `--dataset koniq` is none"):
        load_data(str(koniq), dataset="koniq", options=OWN)
    with pytest.raises(ValueError, match="but .*photos is none"):
        load_pictures(str(folder / "photos"), options=OWN)
    assert len(load_scored_images(shard, options=TableOptions(skip_missing=True))["train"]) == 1


@pytest.mark.parametrize(("delimiter", "number"), [(";", 71.5), ("\t", 71.5), (",", None)])
def test_decimal_commas_are_read_where_no_comma_stands_between_cells(folder, delimiter, number):
    text = f'image{delimiter}mos{delimiter}note\n0.png{delimiter}"71,5"{delimiter}"a,b{delimiter}c"\n'
    csv = write_csv(folder, text)
    if number is None:
        with pytest.raises(ValueError, match="line 2: `mos` must be a number, got 71,5"):
            load_scored_images(csv, image_root=str(folder / "photos"))
        return
    row = load_scored_images(csv, image_root=str(folder / "photos"))["train"][0]
    assert (row["mos"], row["note"]) == (number, f"a,b{delimiter}c")
    (folder / "scores.csv").write_bytes(b"\xef\xbb\xbf\r\n" + text.replace("71,5", "1.234,5").encode())
    with pytest.raises(ValueError, match="line 3: `mos` must be a number, got 1.234,5"):
        load_scored_images(csv, image_root=str(folder / "photos"))


def test_counts_may_have_decimal_commas(folder):
    csv = write_csv(folder, "image;c1;c2\n0.png;0,5;1,5\n")
    assert load_scored_images(csv, image_root=str(folder / "photos"))["train"]["distribution"][:] == [[0.25, 0.75]]


def test_the_first_sheet_of_an_excel_file_is_a_table(folder):
    openpyxl = pytest.importorskip("openpyxl")
    book, path = openpyxl.Workbook(), str(folder / "scores.xlsx")
    day = datetime.date(2020, 1, 2)
    for cells in (["photo", "quality", "set", "group", None], ["0.png", 1.5, "train", 7], ["1.png", 2, "train", day]):
        book.active.append(cells)
    book.active.append([None])
    book.active.append(["2.png", "3", "valid"])
    book.create_sheet("notes").append(["nothing"])
    book.save(path)
    splits = load_scored_images(path, image_root=str(folder / "photos"), options=OWN)
    check_own_names(splits)
    assert splits["train"]["group"][:] == ["7", "2020-01-02 00:00:00"]
    book.active.append(["3.png", "good", "valid"])
    book.save(path)
    with pytest.raises(ValueError, match="scores.xlsx, line 6: `mos` must be a number, got good"):
        load_scored_images(path, image_root=str(folder / "photos"), options=OWN)


@pytest.mark.parametrize("name", ["scores.xls", "scores.ods"])
def test_other_spreadsheets_are_told_what_to_become(tmp_path, name):
    (tmp_path / name).write_bytes(b"\xd0\xcf\x11\xe0")
    with pytest.raises(ValueError, match=f"{name}: of spreadsheets, .xlsx files are read. Save it as one, or as CSV"):
        load_scored_images(str(tmp_path / name))


@pytest.mark.parametrize("name", ["absent.tsv", "absent.xlsx"])
def test_tables_that_do_not_exist_are_named(name):
    with pytest.raises(ValueError, match=f"{name}: no such file"):
        load_scored_images(name)


def test_all_missing_pictures_are_named_at_once(folder, cache):
    lines = "".join(f"absent{index}.png,{index},{'train' if index < 8 else 'test'}\n" for index in range(12))
    csv = write_csv(folder, "image,mos,split\n0.png,1,train\n" + lines)
    every = r"line 3: .*absent0.png does not exist; .*absent9.png does not exist; .... 12 pictures are missing. "
    with pytest.raises(ValueError, match=every + "Check `--image_root`; training goes on without them") as caught:
        load_scored_images(csv, image_root=str(folder / "photos"))
    assert str(caught.value).count("does not exist") == 10
    names = ["0.png", *[f"absent{index}.png" for index in range(12)]]
    splits = ["train"] * 6 + ["test"] * 7
    path = write_parquet(folder, "a.parquet", pictures=False, image=names, mos=list(range(13)), split=splits)
    with pytest.raises(ValueError, match="split test, row 0: .*split train, row 3.* 12 pictures are") as caught:
        load_scored_images(path, image_root=str(folder / "photos"))
    assert str(caught.value).count("does not exist") == 10
    kept = load_scored_images(path, image_root=str(folder / "photos"), options=TableOptions(skip_missing=True))
    assert kept.num_rows == {"test": 7, "train": 6}


def test_missing_pictures_of_several_tables_are_named_at_once(folder):
    for part in ("train", "test"):
        write(folder / "photos" / part / "metadata.csv", "file_name,mos\n8.png,1\n9.png,2\n")
    with pytest.raises(ValueError, match="test/8.png does not exist; .*train/9.png does not exist. 4 pictures are"):
        load_scored_images(str(folder / "photos"))
    kept = load_scored_images(str(folder / "photos"), options=TableOptions(skip_missing=True))
    assert kept.num_rows == {"train": 2, "test": 2}


def test_missing_pictures_of_data_sets_are_named_at_once(koniq):
    for index in (1, 3):
        (koniq / "1024x768" / f"{index}.jpg").unlink()
    with pytest.raises(ValueError, match="line 3: .*1.jpg does not exist; .*line 5: .*3.jpg does not exist. 2 "):
        load_data(str(koniq), dataset="koniq")
    kept = load_data(str(koniq), dataset="koniq", options=TableOptions(skip_missing=True))
    assert kept.num_rows == {"train": 2, "validation": 1, "test": 1}
