# SPDX-License-Identifier: Apache-2.0
import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from scored import BOXES, draw, names_of, reference_of, write

from musiq_hf.data import load_ava, load_biq2021, load_kadid10k, load_koniq, load_paq2piq, load_spaq, load_tid2013
from musiq_hf.data.batches import open_row
from musiq_hf.data.loading import load_data
from musiq_hf.data.splits import read_listed_parts


def test_koniq_has_its_official_split(koniq):
    splits = load_koniq(str(koniq))
    assert {name: names_of(rows) for name, rows in splits.items()} == {
        "train": ["0.jpg", "3.jpg"],
        "validation": ["2.jpg"],
        "test": ["1.jpg"],
    }
    assert splits["train"]["mos"][:] == [60, 63]
    assert open_row(splits["test"][0]).size == (11, 8)
    assert load_koniq(str(koniq), distribution=True)["train"][0]["distribution"] == [0, 0.25, 0.25, 0.5, 0]


def test_koniq_with_a_seed_is_split_at_random(koniq):
    splits = load_koniq(str(koniq), split_seed=5)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 3, "test": 1}


def test_koniq_file_without_sets_counts_votes_and_keeps_scores_elsewhere(tmp_path):
    draw(tmp_path, [f"{index}.jpg" for index in range(5)])
    lines = "".join(f'"{index}.jpg",0,25,25,50,0,100,3.25,0.8,{40 + index}\n' for index in range(5))
    header = '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"\n'
    csv = write(tmp_path / "koniq10k_scores_and_distributions.csv", header + lines)
    splits = load_koniq(csv)
    assert sorted(splits["train"]["mos"][:] + splits["test"]["mos"][:]) == [40, 41, 42, 43, 44]
    assert load_koniq(csv, distribution=True)["test"][0]["distribution"] == [0, 0.25, 0.25, 0.5, 0]


def test_spaq_text_and_split(tmp_path):
    draw(tmp_path / "TestImage", [f"0000{index}.jpg" for index in range(5)])
    text = "".join(f"0000{index}.jpg 4{index}.5 17.55\n" for index in range(5))
    splits = load_spaq(write(tmp_path / "SPAQ_mos_std.txt", text), split_seed=1)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 4, "test": 1}
    assert splits["train"]["mos"][:] == [40.5 + int(name[4]) for name in names_of(splits["train"])]
    assert names_of(splits["test"]) == names_of(load_spaq(str(tmp_path), split_seed=1)["test"])
    write(tmp_path / "SPAQ_mos_std.txt", text + "\n00009.jpg 4\n")
    with pytest.raises(
        ValueError, match="line 7: a name, a MOS and a standard deviation were expected, got '00009.jpg"
    ):
        load_spaq(str(tmp_path))


def test_spaq_excel_gives_the_same_as_the_text(tmp_path):
    openpyxl = pytest.importorskip("openpyxl")
    draw(tmp_path / "TestImage", [f"0000{index}.jpg" for index in range(5)])
    write(tmp_path / "SPAQ_mos_std.txt", "".join(f"0000{index}.jpg 4{index}.5 17.55\n" for index in range(5)))
    book = openpyxl.Workbook()
    book.active.append(["Image name", "MOS", "Brightness"])
    for index in range(5):
        book.active.append([f"0000{index}.jpg", 40.5 + index, 50])
    (tmp_path / "Annotations").mkdir()
    excel = tmp_path / "Annotations" / "MOS and Image attribute scores.xlsx"
    book.save(excel)
    splits, expected = load_spaq(str(tmp_path)), load_spaq(str(tmp_path / "SPAQ_mos_std.txt"))
    assert [splits[name].to_list() for name in splits] == [expected[name].to_list() for name in expected]
    book.active["B7"], book.active["A7"] = None, "00004.jpg"  # its row is shorter than the header
    book.save(excel)
    with pytest.raises(ValueError, match=r"scores.xlsx, line 7: `MOS` must be a number in 0..100, got nothing"):
        load_spaq(str(excel))
    book.active["B3"] = 150
    book.save(excel)
    with pytest.raises(ValueError, match=r"scores.xlsx, line 3: `MOS` must be a number in 0..100, got 150"):
        load_spaq(str(excel))
    excel.write_bytes(b"none")
    with pytest.raises(ValueError, match=r"scores.xlsx: an Excel file \(.xlsx\) was expected"):
        load_spaq(str(excel))


def test_paq2piq_trains_on_pictures_and_patches_and_evaluates_on_pictures(paq2piq):
    splits = load_paq2piq(str(paq2piq))
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 12, "validation": 2, "test": 2}
    assert splits["validation"]["mos"][:] == [70, 71] and splits["test"]["mos"][:] == [75, 76]
    assert splits["test"]["box"][:] == [None, None]
    assert splits["train"]["mos"][:4] == [72, 50, 51, 52]
    assert [tuple(box) for box in splits["train"]["box"][1:4]] == BOXES[:3]  # the shift of padding is taken out
    assert [open_row(row).size for row in splits["train"].select(range(4))] == [(12, 8), (4, 4), (4, 4), (5, 6)]
    assert splits["train"]["reference"][:] == [f"voc/{index}.png" for index in (2, 3, 4) for _ in range(4)]


def test_a_row_is_cut_at_its_box(tmp_path):
    picture = Image.new("RGB", (6, 4))
    picture.putpixel((3, 2), (255, 0, 0))
    picture.save(tmp_path / "p.png")
    row = {"image": {"path": str(tmp_path / "p.png"), "bytes": None}, "box": [3, 2, 5, 4]}
    assert open_row(row).getpixel((0, 0)) == (255, 0, 0)
    assert open_row({**row, "box": None}).size == (6, 4)
    with pytest.raises(ValueError, match=r"p.png: the box \[3, 2, 7, 4\] must lie inside of its 6x4 pixels"):
        open_row({**row, "box": [3, 2, 7, 4]})


def test_paq2piq_without_its_large_file_needs_a_seed(paq2piq):
    (paq2piq / "labels=640_padded.csv").unlink()
    with pytest.raises(ValueError, match="labels=640_padded.csv is missing, .* or give `split_seed`"):
        load_paq2piq(str(paq2piq))
    splits = load_paq2piq(str(paq2piq), split_seed=0)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 4, "validation": 1, "test": 2}


def test_paq2piq_box_inside_out_names_its_line(paq2piq):
    text = (paq2piq / "labels640.csv").read_text().replace("50.0,2,1,6,5", "50.0,6,1,2,5", 1)
    write(paq2piq / "labels640.csv", text)
    with pytest.raises(ValueError, match=r"labels640.csv, line 2: the box of patch_1 must be left < right"):
        load_paq2piq(str(paq2piq))


def test_paq2piq_row_that_ends_early_names_its_line(paq2piq):
    text = (paq2piq / "labels=640_padded.csv").read_text().splitlines()
    text[2] = text[2].rsplit(",", 1)[0]
    write(paq2piq / "labels=640_padded.csv", "\n".join(text) + "\n")
    with pytest.raises(ValueError, match=r"640_padded.csv, line 3: the row ends before \['is_valid'\]"):
        load_paq2piq(str(paq2piq))


def ava_line(index: int, *, counts: str = "0 1 5 17 38 36 15 6 5 1") -> str:
    return f"{index + 1} {953600 + index} {counts} 1 22 1396\n"


@pytest.fixture
def ava(tmp_path) -> Path:
    draw(tmp_path / "images", [f"{953600 + index}.jpg" for index in range(6)])
    write(tmp_path / "AVA.txt", "".join(map(ava_line, range(6))))
    write(tmp_path / "aesthetics_image_lists" / "generic_test.jpgl", "953601\n953603\n999999\n")
    return tmp_path


def test_ava_counts_become_fractions_and_the_list_names_the_test_pictures(ava):
    splits = load_ava(str(ava))
    assert names_of(splits["test"]) == ["953601.jpg", "953603.jpg"]
    assert len(splits["train"]) == 4
    counts = [0, 1, 5, 17, 38, 36, 15, 6, 5, 1]
    assert splits["train"][0]["distribution"] == pytest.approx([count / 124 for count in counts])
    own = load_ava(str(ava), test_list=write(ava / "mine.txt", "953600.jpg\n"))
    assert names_of(own["test"]) == ["953600.jpg"]
    assert len(load_ava(str(ava), split_seed=0)["test"]) == 1


@pytest.mark.parametrize("decode_all", [False, True])
def test_ava_leaves_out_missing_and_broken_pictures_with_one_warning_each(ava, caplog, decode_all):
    (ava / "images" / "953602.jpg").unlink()
    (ava / "images" / "953604.jpg").write_bytes(b"")
    Image.radial_gradient("L").save(ava / "images" / "953605.jpg")
    whole = (ava / "images" / "953605.jpg").read_bytes()
    (ava / "images" / "953605.jpg").write_bytes(whole[: -len(whole) // 3])
    splits = load_ava(str(ava), decode_all=decode_all)
    assert len(splits["train"]) == (1 if decode_all else 2)  # the header of the cut file is whole
    broken = "(2): 953604, 953605" if decode_all else "(1): 953604"
    messages = [record.message for record in caplog.records]
    assert len(messages) == 2
    assert "AVA.txt: pictures that are missing are left out (1): 953602" in messages[0]
    assert messages[1].endswith(f"AVA.txt: pictures that cannot be decoded are left out {broken}")


def test_ava_json_is_the_split_of_its_name(ava):
    entries = [{"image_id": str(953600 + index), "label": [0, 1, 2, 3, 4, 4, 3, 2, 1, 0]} for index in range(3)]
    (ava / "AVA.txt").unlink()
    write(ava / "ava_labels_test.json", json.dumps(entries[:1]))
    assert {name: len(rows) for name, rows in load_ava(str(ava / "ava_labels_test.json")).items()} == {"test": 1}
    write(ava / "ava_labels_train.json", json.dumps(entries[1:]))
    splits = load_ava(str(ava))
    assert names_of(splits["train"]) == ["953601.jpg", "953602.jpg"]
    write(ava / "ava_labels_train.json", json.dumps([{"image_id": "953600", "label": [1, 2]}]))
    with pytest.raises(ValueError, match=r"train.json, entry 0: 10 counts were expected, got \[1, 2\]"):
        load_ava(str(ava))
    for text in (json.dumps({"953600": [1, 2]}), "", "[" * 100_000):
        write(ava / "ava_labels_train.json", text)
        with pytest.raises(ValueError, match="train.json: a list of `image_id` and `label` was expected"):
            load_ava(str(ava))
    (ava / "ava_labels_train.json").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="^[^ ]*train.json: a text file was expected, but it is none"):
        load_ava(str(ava))
    for counts in ([10**400] * 10, [1e308] * 10, [float("inf"), -float("inf")] * 5):
        write(ava / "ava_labels_train.json", json.dumps([{"image_id": "953600", "label": counts}]))
        with pytest.raises(ValueError, match="train.json, entry 0: a distribution must be 2 or more numbers"):
            load_ava(str(ava))


def test_wrong_ava_files_and_settings_are_refused(ava):
    with pytest.raises(ValueError, match="none of its 6 pictures can be read from .*lists. Check `--image_root`"):
        load_ava(str(ava), image_root=str(ava / "aesthetics_image_lists"))
    with pytest.raises(ValueError, match="`test_list` splits AVA.txt, without `split_seed`"):
        load_ava(str(ava), test_list="list", split_seed=0)
    with pytest.raises(ValueError, match="absent: no such file. Give a list of the ids"):
        load_ava(str(ava), test_list="absent")
    write(ava / "AVA.txt", ava_line(0) + ava_line(1, counts="0 1 5"))
    with pytest.raises(ValueError, match="AVA.txt, line 2: index, picture id, 10 counts"):
        load_ava(str(ava))
    write(ava / "AVA.txt", ava_line(0) + ava_line(1, counts="0 0 0 0 0 0 0 0 0 0"))
    with pytest.raises(ValueError, match="AVA.txt, line 2: a distribution must be"):
        load_ava(str(ava))


def test_biq2021_reads_its_official_files_with_their_traps(tmp_path):
    draw(tmp_path / "Images", ["ss01 (10).JPG", "ss03 (7).jpg"])
    first, second = Image.new("RGB", (9, 9), (255, 0, 0)), Image.new("RGB", (5, 5))
    first.save(tmp_path / "Images" / "ss02 (99991).jpg", format="MPO", save_all=True, append_images=[second])
    lines = "Image Name,MOS,,\nss01 (10).jpg,0.25,,\nss02 (99991).jpg,0.5,,\n"
    write(tmp_path / "Train (Images and MOS).csv", lines)
    write(tmp_path / "Test (Images and MOS).csv", "Image Name,MOS\nss03 (7).JPG,0.75\n")
    splits = load_biq2021(str(tmp_path))
    assert splits["train"]["mos"][:] == [25, 50] and splits["test"]["mos"][:] == [75]
    assert splits["train"]["group"][:] == ["ss01", "ss02"] and splits["test"]["group"][:] == ["ss03"]
    assert names_of(splits["train"]) == ["ss01 (10).JPG", "ss02 (99991).jpg"]
    assert open_row(splits["train"][1]).size == (9, 9)
    only = load_biq2021(str(tmp_path / "Train (Images and MOS).csv"))
    assert {name: len(rows) for name, rows in only.items()} == {"train": 2}
    write(tmp_path / "Train (Images and MOS).csv", lines.replace("0.5", "-0.02777"))
    with pytest.raises(ValueError, match=r"line 3: `MOS` must be a number in 0..1, got -0.02777"):
        load_biq2021(str(tmp_path))


def test_biq2021_takes_the_listed_pictures_out_of_the_official_ones(tmp_path):
    listed = read_listed_parts("biq2021")
    chosen, second = (next(name for name in listed if listed[name] == part) for part in ("validation", "second"))
    upper = chosen.replace("ss", "SS")  # names are matched without regard to case
    draw(tmp_path / "Images", [upper, second, "ss02 (99999).jpg", "ss03 (99999).jpg"])
    lines = f"Image Name,MOS\n{upper},0.25\n{second},0.5\nss02 (99999).jpg,0.75\n"
    write(tmp_path / "Train (Images and MOS).csv", lines)
    write(tmp_path / "Test (Images and MOS).csv", "Image Name,MOS\nss03 (99999).jpg,1\n")
    unlisted = {"train": ["ss02 (99999).jpg"], "test": ["ss03 (99999).jpg"]}
    expected = {
        "validation": unlisted | {"validation": [upper]},
        "second": unlisted | {"validation": [second]},
        "none": unlisted | {"train": [upper, second, "ss02 (99999).jpg"]},
    }
    for part, names in expected.items():
        splits = load_biq2021(str(tmp_path), validation_part=part)
        assert {name: names_of(rows) for name, rows in splits.items()} == names
    assert load_data(str(tmp_path), dataset="biq2021")["validation"]["mos"][:] == [25]
    assert load_data(str(tmp_path), dataset="biq2021_second")["validation"]["mos"][:] == [50]
    assert sum(map(len, load_biq2021(str(tmp_path), split_seed=3).values())) == 4
    with pytest.raises(ValueError, match="`validation_part` must be 'validation' or 'second' or 'none', got 'third'"):
        load_biq2021(str(tmp_path), validation_part="third")


def test_listed_parts_of_biq2021_are_apart_and_have_the_mix_of_its_subsets():
    listed = read_listed_parts("biq2021")
    counts = Counter((part, name[:4]) for name, part in listed.items())
    # Of the 10,000: 1,665 in ss01, 1,656 in ss02, 6,679 in ss03.
    assert {key[1]: count for key, count in counts.items() if key[0] == "validation"} == {
        "ss01": 166,
        "ss02": 166,
        "ss03": 668,
    }
    assert sum(count for key, count in counts.items() if key[0] == "second") == 542


def test_biq2021_reads_a_table_with_own_splits_and_names(tmp_path):
    draw(tmp_path / "images", ["ss01_0001.jpg", "other.jpg"])
    csv = write(tmp_path / "labels.csv", "image,mos,split\nss01_0001.jpg,0.1,train\nother.jpg,0.2,validation\n")
    splits = load_biq2021(csv)
    assert sorted(splits) == ["train", "validation"]
    assert splits["train"].column_names == ["image", "mos"]  # not every name tells its subset
    write(tmp_path / "labels.csv", "image,mos\nss01_0001.jpg,0.1\n")
    with pytest.raises(ValueError, match=r"labels.csv: columns \['split'\] are missing"):
        load_biq2021(csv)


def test_tid2013_keeps_references_apart_and_ignores_case(tmp_path):
    files = [f"{'i' if index % 2 else 'I'}{index:02d}_01_{level}.bmp" for index in range(1, 6) for level in (1, 2)]
    draw(tmp_path / "distorted_images", files)
    lines = "".join(f"5.51429 {name.swapcase() if index % 3 else name}\n" for index, name in enumerate(files))
    splits = load_tid2013(write(tmp_path / "mos_with_names.txt", lines))
    train, test = ({reference_of(name) for name in names_of(splits[split])} for split in ("train", "test"))
    assert (len(train), len(test)) == (4, 1) and not train & test
    for rows in splits.values():
        assert rows["reference"][:] == [reference_of(name) for name in names_of(rows)]
    write(tmp_path / "mos_with_names.txt", lines + "5.5 1.jpg\n")
    with pytest.raises(ValueError, match="line 11: a name such as I01_01_1.bmp was expected, got '1.jpg'"):
        load_tid2013(str(tmp_path))


def test_kadid10k_text_and_table_give_the_same(tmp_path):
    names = [(f"I{index:02d}.png", f"I{index:02d}_01_0{level}.png") for index in range(1, 6) for level in (1, 2)]
    draw(tmp_path / "images", [name for _, name in names])
    text = "".join(f"{reference} {name} 4.57 0.7\n" for reference, name in names)
    from_text = load_kadid10k(write(tmp_path / "FR_KADID_mos_std.txt", text))
    train, test = ({reference_of(name) for name in names_of(from_text[split])} for split in ("train", "test"))
    assert (len(train), len(test)) == (4, 1) and not train & test
    table = "".join(f"{name},{reference},4.57,0.7\n" for reference, name in names)
    from_table = load_kadid10k(write(tmp_path / "dmos.csv", "dist_img,ref_img,dmos,var\n" + table))
    assert [rows.to_list() for rows in from_table.values()] == [rows.to_list() for rows in from_text.values()]
    assert set(from_table["test"]["reference"]) == {f"{name.lower()}.png" for name in test}
    write(tmp_path / "dmos.csv", "dist_img,ref_img,dmos,var\n" + table.replace("4.57", "5.57", 1))
    with pytest.raises(ValueError, match=r"dmos.csv, line 2: `MOS` must be a number in 1..5, got 5.57"):
        load_kadid10k(str(tmp_path))
