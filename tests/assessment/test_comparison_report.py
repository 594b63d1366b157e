# SPDX-License-Identifier: Apache-2.0
import json
import math
import statistics

import numpy as np
import pytest

from musiq_hf.assessment import paired_difference
from musiq_hf.assessment.comparison_report import ReportInputs, report_systems
from musiq_hf.assessment.comparison_rows import ComparisonRow
from musiq_hf.assessment.comparison_tables import format_lines, render_systems, write_systems_report
from musiq_hf.metrics import quality_metrics

SYSTEMS = ("one", "two")


def make_rows(num=9, **changes):
    """Make rows of two systems, the second a bit better, in groups x and y, with changes by (key, system)."""
    numbers = np.random.default_rng(0)
    rows = []
    for index in range(num):
        base, groups = numbers.normal(30, 3), ("x" if index % 3 else "y", "low")
        for system, gain in zip(SYSTEMS, (0, numbers.normal(1, 1)), strict=True):
            psnr, score = base + gain, 50 + base - gain
            row = ComparisonRow(f"{index}.png", system, groups, 8, 8, 1, psnr, psnr - 1, score=score)
            rows.append(row._replace(**changes.get(f"{index}_{system}", {})))
    return rows


def report(rows, metrics=("psnr", "musiq"), **inputs):
    return report_systems(rows, ReportInputs(systems=SYSTEMS, metrics=metrics, signature="s|psnr", **inputs))


def values(rows, metric, system, keep=lambda row: True):
    return [getattr(row, metric) for row in rows if row.system == system and keep(row)]


def test_means_are_those_of_the_rows_and_skip_keys_with_an_error_for_all_systems():
    rows = make_rows(**{"4_two": {"error": "4.png: gone."}})
    rows.append(ComparisonRow("extra.png", "one", (None, None), error="extra.png: no reference."))
    found = report(rows, columns=("group", "motion"))
    sound = [row for row in rows if row.key not in ("4.png", "extra.png")]
    assert list(found.groups) == ["all", "x", "y", "motion: low"]
    assert (found.num_keys, found.num_sound) == (10, 8)
    for group, keep in {"all": lambda row: True, "x": lambda row: row.groups[0] == "x"}.items():
        for system in SYSTEMS:
            own = found.groups[group][system]
            for metric in ("psnr_y", "psnr_rgb", "score"):
                assert own.means[metric] == pytest.approx(
                    statistics.fmean(values(sound, metric, system, keep)), abs=1e-12
                )
            assert own.num == len(values(sound, "score", system, keep))
    assert found.best["all"] == {"psnr_y": "two", "psnr_rgb": "two", "score": "one"}


def test_pairs_have_the_paired_difference_of_the_same_keys():
    rows = make_rows(**{"4_two": {"error": "4.png: gone."}})
    found = report(rows, columns=("group", "motion"))
    (pair,) = [pair for pair in found.pairs if (pair.group, pair.metric) == ("all", "score")]
    sides = [values([row for row in rows if row.key != "4.png"], "score", system) for system in SYSTEMS]
    assert pair.difference == paired_difference(*sides)
    assert [(own.group, own.metric) for own in found.pairs][:3] == [
        ("all", m) for m in ("psnr_y", "psnr_rgb", "score")
    ]


def test_few_keys_have_means_but_no_differences():
    found = report(make_rows(2), columns=("group", "motion"))
    assert found.pairs == () and found.groups["all"]["one"].num == 2


def test_infinite_psnr_is_null_in_json_best_and_in_no_difference(tmp_path):
    rows = make_rows(4, **{"1_two": {"psnr_y": math.inf}})
    found = report(rows, columns=("group", "motion"))
    content = found.to_json()
    assert content["groups"]["all"]["two"]["psnr_y"] is None and content["best"]["all"]["psnr_y"] == "two"
    (pair,) = [pair for pair in content["pairs"] if (pair["group"], pair["metric"]) == ("all", "psnr_y")]
    sides = [[value for i, value in enumerate(values(rows, "psnr_y", system)) if i != 1] for system in SYSTEMS]
    assert pair["mean"] == paired_difference(*sides).mean and pair["num_pairs"] == 3
    write_systems_report(tmp_path / "r" / "c.json", found)
    assert json.loads((tmp_path / "r" / "c.json").read_text()) == json.loads(json.dumps(content))
    assert "| all | two | 4 | **inf** |" in (tmp_path / "r" / "c.md").read_text()


def test_a_file_that_equals_its_reference_does_not_make_its_system_the_best():
    infinite = {"psnr_y": math.inf}
    rows = make_rows(4, **{"1_one": infinite})
    found = report(rows, columns=("group", "motion"))
    assert found.best["all"]["psnr_y"] == "two" and math.isinf(found.groups["all"]["one"].means["psnr_y"])
    (pair,) = [own for own in found.pairs if (own.group, own.metric) == ("all", "psnr_y")]
    assert pair.difference.mean > 0  # as the differences have it
    assert any("PSNR is infinite where a file equals" in line for line in format_lines(found))
    rows = make_rows(2, **{"0_two": infinite, "1_one": infinite, "0_one": infinite})
    assert report(rows, columns=("group", "motion")).best["all"]["psnr_y"] == "one"  # no file tells, so the count does
    assert not any("infinite" in line for line in format_lines(report(make_rows(3), columns=("group", "motion"))))


def test_agreement_without_enough_opinions_is_said():
    found = report(make_rows(4), columns=("group", "motion"), opinions={("0", "one"): 3.0})
    assert list(format_lines(found))[-1] == (
        "agreement with opinion scores: none, a group needs 3 files that have one"
    )


def test_metrics_that_a_key_lacks_are_left_out_of_its_groups_alone():
    rows = make_rows(6, **{f"0_{system}": {"psnr_rgb": None} for system in SYSTEMS})
    found = report(rows, columns=("group", "motion"))
    assert "psnr_rgb" not in found.groups["all"]["one"].means and "psnr_rgb" not in found.groups["y"]["one"].means
    assert "psnr_rgb" in found.groups["x"]["one"].means and "psnr_rgb" not in found.best["all"]


def test_thirds_of_descriptors_are_groups():
    rows = make_rows(6, **{"5_one": {"error": "5.png: gone."}})
    found = report(rows, columns=("group", "motion"), descriptors={"si": {f"{i}.png": float(i) for i in range(6)}})
    assert [(name, found.groups[name]["one"].num) for name in found.tables["thirds of si"]] == [
        ("si: low", 2),
        ("si: middle", 1),
        ("si: high", 2),
    ]
    assert found.to_json()["bins"] == {"si": pytest.approx([4 / 3, 8 / 3])}
    with pytest.raises(ValueError, match="No reference without an error has ti, so --bins ti groups nothing"):
        report(rows, columns=("group", "motion"), descriptors={"ti": {"5.png": 1.0}})


def test_agreement_with_opinions_is_that_of_all_files_which_have_one():
    rows = make_rows()
    opinions = {(row.key, row.system): row.psnr_y + (index % 3) for index, row in enumerate(rows[:-4])}
    found = report(rows, columns=("group", "motion"), opinions=opinions)
    for metric in ("psnr_y", "score"):
        expected = quality_metrics([getattr(row, metric) for row in rows[:-4]], list(opinions.values()))
        own = found.agreements["all"][metric]
        assert (own.srcc, own.plcc, own.krcc) == tuple(expected[name] for name in ("srcc", "plcc", "krcc"))
        assert own.num == 14 and own.srcc_interval[0] <= own.srcc <= own.srcc_interval[1]
    assert found.to_json()["mos"]["all"]["score"]["num"] == 14


def test_no_sound_key_at_all_is_a_report_of_nothing():
    rows = [row._replace(error="gone", psnr_y=None, psnr_rgb=None, score=None) for row in make_rows(3)]
    found = report(rows, columns=("group", "motion"))
    assert found.to_json()["groups"] == {"all": {"one": {"num": 0}, "two": {"num": 0}}}
    assert list(format_lines(found))[1].split() == ["all", "one", "0", "-", "-", "-"]


def test_the_terminal_shows_means_and_marks_the_best():
    found = report(make_rows(3), columns=("group", "motion"))
    lines = list(format_lines(found))
    assert lines[0].split() == ["group", "system", "num", "psnr_y", "psnr_rgb", "score"]
    assert len(lines) == 1 + 2 * 4 + 1 and len({line.rindex(".") for line in lines[1:3]}) == 1
    assert lines[2].split()[:3] == ["all", "two", "3"] and lines[2].count("*") == 2 and lines[1].endswith("*")


def test_the_page_names_groups_units_and_what_it_was_made_with():
    rows = make_rows()
    opinions = {(row.key, row.system): row.psnr_y for row in rows}
    descriptors = {"si": {f"{i}.png": float(i) for i in range(9)}}
    page = render_systems(report(rows, columns=("group", "motion"), opinions=opinions, descriptors=descriptors))
    for part in (
        "## All keys",
        "## By group",
        "## By motion",
        "## By thirds of si",
        "| group | system | keys | PSNR of luma (dB) | PSNR of RGB (dB) | MUSIQ (MOS points) |",
        "si: spatial information (mean over frames), after BT.1886 and the perceptual quantizer; not the legacy kind.",
        "| all | PSNR of luma (dB) | 18 | **1.0000** |",
        "Made with `s|psnr`",
    ):
        assert part in page
