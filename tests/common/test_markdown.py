# SPDX-License-Identifier: Apache-2.0
import pytest

from musiq_hf.common.markdown import markdown_table, put_into, update_document


def test_table_has_a_rule_below_its_heads_and_whole_rows():
    assert markdown_table(["a|b"], [["1\r\n2"], ["3\u2028|"]]) == "| a\\|b |\n| --- |\n| 1 2 |\n| 3 \\| |"
    assert markdown_table(["a", "b"], [["1", "2"], ["3", ""]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 |  |"


def test_tables_go_to_their_place_alone_and_what_others_write_meanwhile_is_kept(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- x: begin -->\nold\n<!-- x: end -->\n<!-- y: begin -->\n<!-- y: end -->\nb")

    def measure():
        page.write_text(put_into(page.read_text(), "y", "another"))
        return "new"

    update_document(page, "x", measure)
    filled = "<!-- x: begin -->\nnew\n<!-- x: end -->\n<!-- y: begin -->\nanother\n<!-- y: end -->"
    assert page.read_text() == f"a\n{filled}\nb"
    assert capsys.readouterr().out == "new\n"


def test_a_document_without_a_place_is_refused_before_anything_is_measured(tmp_path):
    page = tmp_path / "page.md"
    with pytest.raises(ValueError, match=r"page\.md is no file"):
        update_document(page, "x", lambda: pytest.fail("measured"))
    page.write_text("<!-- x: begin -->")
    with pytest.raises(ValueError, match="no place for the tables. Write <!-- x: begin --> and <!-- x: end -->"):
        update_document(page, "x", lambda: pytest.fail("measured"))
