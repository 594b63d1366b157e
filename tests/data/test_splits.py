# SPDX-License-Identifier: Apache-2.0
import os

import numpy as np
import pytest
from scored import draw, names_of, reference_of, table, write, write_csv, write_parquet

from musiq_hf.data import load_data, load_paq2piq, load_scored_images, load_tid2013, split_at_random
from musiq_hf.data.splits import choose_groups, choose_split, draw_strata, is_whole, split_data


@pytest.mark.parametrize("seed", range(3))
def test_the_epoch_is_chosen_on_references_that_are_not_trained_on(tmp_path, seed):
    names = [f"I{index:02d}_01_{level}.bmp" for index in range(1, 26) for level in range(1, 5)]
    draw(tmp_path, [])
    for name in names:
        (tmp_path / name).touch()
    data = write(tmp_path / "mos_with_names.txt", "".join(f"5.5 {name}\n" for name in names))
    splits = load_tid2013(data, split_seed=seed)
    train, selection = split_data(splits, holdout_fraction=0.1, seed=seed)
    parts = [{reference_of(name) for name in names_of(rows)} for rows in (train, selection, splits["test"])]
    assert [len(part) for part in parts] == [18, 2, 5] and len(set.union(*parts)) == 25
    again = split_data(splits, holdout_fraction=0.1, seed=seed)
    assert [names_of(rows) for rows in again] == [names_of(train), names_of(selection)]
    assert names_of(split_data(splits, holdout_fraction=0.1, seed=seed + 1)[1]) != names_of(selection)


def test_patches_are_held_out_with_their_pictures(paq2piq):
    train, selection = split_data(load_paq2piq(str(paq2piq)), holdout_fraction=0.34, seed=0)
    assert (len(train), len(selection)) == (8, 4)  # a picture and its three patches
    assert not set(names_of(train)) & set(names_of(selection))


def test_random_splits_are_repeatable_complete_and_differ_between_seeds():
    rows = table(mos=list(range(50)))
    fractions = {"train": 0.7, "validation": 0.1, "test": 0.2}
    first, again, other = (split_at_random(rows, fractions=fractions, seed=seed) for seed in (0, 0, 1))
    assert {name: len(split) for name, split in first.items()} == {"train": 35, "validation": 5, "test": 10}
    assert sorted(mos for split in first.values() for mos in split["mos"][:]) == list(range(50))
    assert first["test"]["mos"][:] == again["test"]["mos"][:] != other["test"]["mos"][:]
    # Stored, so that a seed means the same pictures for ever.
    assert first["test"]["mos"][:] == sorted(first["test"]["mos"][:]) == [0, 3, 9, 19, 21, 36, 39, 44, 46, 47]


def test_random_splits_keep_groups_together():
    rows = table(mos=list(range(20)), scene=[f"s{index % 10}" for index in range(20)])
    splits = split_at_random(rows, fractions={"train": 0.8, "test": 0.2}, seed=3, by="scene")
    assert not set(splits["train"]["scene"]) & set(splits["test"]["scene"])
    assert (len(splits["train"]), len(splits["test"])) == (16, 4)


def test_rows_without_their_group_cannot_be_kept_with_it():
    with pytest.raises(ValueError, match="Row 1 has no `scene`. Name it in every row, or leave out the column"):
        rows = table(mos=[1.0, 2.0, 3.0], scene=["a", None, "b"])
        split_at_random(rows, fractions={"train": 0.5, "test": 0.5}, seed=0, by="scene")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fractions": {"train": 0.8, "test": 0.3}}, "`fractions` must be positive and sum to 1"),
        ({"fractions": {"train": 0.5, "test": 0.5}, "by": "scene"}, r"`by` must be one of the columns \['mos'\]"),
        ({"fractions": {"train": 0.9, "test": 0.1}}, "2 pictures are too few for the splits"),
    ],
)
def test_impossible_splits_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        split_at_random(table(mos=[1.0, 2.0]), seed=0, **arguments)


@pytest.mark.parametrize(
    ("names", "split", "chosen"),
    [
        (["train", "validation", "test"], None, "test"),
        (["train", "validation"], None, "validation"),
        (["train", "test"], "train", "train"),
        (["train", "validation"], "val", "validation"),
        (["train", "validation", "test"], "Training", "train"),
        (["train", "test"], "eval", "test"),
        (["train", "validation", "dev"], "dev", "dev"),  # as a data set of the Hub may call it
    ],
)
def test_split_is_the_wanted_one_else_test_else_validation(names, split, chosen):
    splits = {name: table(mos=[1.0], split=[name]) for name in names}
    assert choose_split(splits, split, source="a.csv") == chosen


def test_all_rows_are_chosen_where_the_data_name_no_splits():
    splits = {"train": table(mos=[1.0])}
    assert is_whole(splits) and choose_split(splits, None, source="a.csv") == "train"
    assert not is_whole({**splits, "test": splits["train"]})


def test_missing_splits_and_columns_are_named():
    with pytest.raises(ValueError, match="a.csv has no `test` or `validation` split, only train. Name one of them"):
        choose_split({"train": table(mos=[1.0], split=["train"])}, None, source="a.csv")
    with pytest.raises(ValueError, match="a.csv has no split 'dev', only test, train"):
        choose_split(dict.fromkeys(("train", "test"), table(mos=[1.0])), "dev", source="a.csv")
    rows = table(mos=[1, 2], lens=[35, 50])
    assert choose_groups(rows, None, source="a.csv") is None
    assert choose_groups(rows, "lens", source="a.csv") == ["35", "50"]
    with pytest.raises(ValueError, match="`--group_by size`: a.csv has no such column, only mos, lens"):
        choose_groups(rows, "size", source="a.csv")
    grouped = rows.add_column("group", ["x", "y"])
    assert choose_groups(grouped, None, source="a.csv") == ["x", "y"]
    assert choose_groups(grouped, "none", source="a.csv") is None


def test_strata_mirror_groups_and_scores_and_leave_out_what_is_excluded():
    generator = np.random.default_rng(0)
    groups = ["a"] * 130 + ["b"] * 70
    scores = [*generator.uniform(0, 50, 130), *generator.uniform(40, 100, 70)]
    excluded = frozenset(range(0, 200, 3))
    drawn = draw_strata(groups, scores, count=20, seed=4, excluded=excluded)
    assert drawn == draw_strata(groups, scores, count=20, seed=4, excluded=excluded) == sorted(set(drawn))
    assert drawn != draw_strata(groups, scores, count=20, seed=5, excluded=excluded)
    assert not excluded & set(drawn)
    assert [groups[row] for row in drawn].count("a") == 13 and len(drawn) == 20
    for name in ("a", "b"):
        rows = sorted((row for row in range(200) if groups[row] == name), key=lambda row: scores[row])
        assert sorted(rows.index(row) // 10 for row in drawn if groups[row] == name) == list(range(len(rows) // 10))


def test_strata_sum_to_the_count_and_refuse_what_cannot_be_drawn():
    groups, scores = ["a"] * 5 + ["b"] * 5 + ["c"], [float(row) for row in range(11)]
    for count in (1, 4, 10, 11):
        assert len(draw_strata(groups, scores, count=count, seed=0)) == count
    with pytest.raises(ValueError, match="`count` must lie between 1 and the 11 rows, got 12"):
        draw_strata(groups, scores, count=12, seed=0)
    with pytest.raises(ValueError, match="`excluded` leaves nothing to draw near score 10.0 of 'c'"):
        draw_strata(groups, scores, count=11, seed=0, excluded=frozenset({10}))


@pytest.mark.parametrize(
    ("word", "split"),
    [
        ("val", "validation"),
        ("valid", "validation"),
        ("dev", "validation"),
        ("training", "train"),
        ("testing", "test"),
    ],
)
def test_splits_have_other_names_in_any_case(folder, word, split):
    for name in (word, word.upper(), f" {word.title()} "):
        text = f"image,mos,split\n0.png,1,{name}\n1.png,2,{split}\n"
        splits = load_scored_images(write_csv(folder, text), image_root=str(folder / "photos"))
        assert splits.num_rows == {split: 2}


def test_a_row_without_its_split_is_an_error(folder):
    csv = write_csv(folder, "image,mos,split\n0.png,1,train\n1.png,2,\n")
    with pytest.raises(ValueError, match="splits are train, validation, test, also named training, .*, got nothing"):
        load_scored_images(csv, image_root=str(folder / "photos"))


def paths(rows) -> set[str]:
    return {os.path.basename(cell["path"]) for cell in rows["image"]}


@pytest.mark.parametrize("seed", range(3))
def test_all_rows_of_a_picture_are_on_one_side(folder, cache, seed):
    lines = "".join(f"{['', './', '../photos/'][row % 3]}{row // 3}.png,{row}\n" for row in range(12))
    csv = write_csv(folder, "image,mos\n" + lines)
    whole = load_data(csv, image_root=str(folder / "photos"))
    drawn = load_data(csv, image_root=str(folder / "photos"), split_seed=seed)
    assert drawn.num_rows == {"train": 9, "test": 3} and not paths(drawn["train"]) & paths(drawn["test"])
    train, held = split_data(whole, holdout_fraction=0.25, seed=seed)
    assert (len(train), len(held)) == (9, 3) and not paths(train) & paths(held)
    parquet = write_parquet(folder, "a.parquet", image=[f"{row // 3}.png" for row in range(12)], mos=list(range(12)))
    drawn = load_data(parquet, split_seed=seed)  # the pictures are bytes
    assert len({mos // 3 for mos in drawn["test"]["mos"]}) == 1 and len(drawn["test"]) == 3


def test_one_row_cannot_be_parted(folder):
    splits = load_data(write_csv(folder, "image,mos\nphotos/0.png,1\n"))
    with pytest.raises(ValueError, match="At least 2 training pictures are needed"):
        split_data(splits, holdout_fraction=None, seed=0)
