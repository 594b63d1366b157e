# SPDX-License-Identifier: Apache-2.0
from musiq_hf.common.markdown import markdown_table


def test_table_has_a_rule_below_its_heads_and_whole_rows():
    assert markdown_table(["a|b"], [["1\r\n2"], ["3\u2028|"]]) == "| a\\|b |\n| --- |\n| 1 2 |\n| 3 \\| |"
    assert markdown_table(["a", "b"], [["1", "2"], ["3", ""]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 |  |"
