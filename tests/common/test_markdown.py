# SPDX-License-Identifier: Apache-2.0
from musiq_hf.common.markdown import markdown_table


def test_table_has_a_rule_below_its_heads():
    assert markdown_table(["a", "b"], [["1", "2"], ["3", ""]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |\n| 3 |  |"
