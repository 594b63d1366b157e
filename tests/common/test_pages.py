# SPDX-License-Identifier: Apache-2.0
from html.parser import HTMLParser

from musiq_hf.common.markdown import markdown_table
from musiq_hf.common.pages import embed_png, make_page, render_markdown


class Reader(HTMLParser):
    """Texts of a page with the elements that they stand in, and its open elements at the end."""

    def __init__(self, page):
        super().__init__()
        self.open, self.texts = [], []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1], data))


def test_markdown_of_reports_becomes_html():
    table = markdown_table(["group", "value"], [["a|b <i>", "**1.5**"], ["", "-"]])
    text = f"# Title\n\nOne line,\nand `code` with **bold**.\n\n{table}\n\n### Small\n\nEnd."
    reader = Reader(render_markdown(text))
    assert not reader.open
    assert reader.texts == [
        ("h1", "Title"),
        ("p", "One line, and "),
        ("code", "code"),
        ("p", " with "),
        ("strong", "bold"),
        ("p", "."),
        ("th", "group"),
        ("th", "value"),
        ("td", "a|b <i>"),
        ("strong", "1.5"),
        ("td", "-"),
        ("h3", "Small"),
        ("p", "End."),
    ]
    assert render_markdown(table).count("<td>") == 4


def test_a_page_is_whole_and_names_do_not_break_it():
    picture = embed_png(b"png", 'a "name"')
    page = make_page("<b> & co", f"<p>{picture}</p>", style=".own{color:red}")
    reader = Reader(page)
    assert not reader.open and ("h1", "<b> & co") in reader.texts and ("title", "<b> & co") in reader.texts
    assert 'alt="a &quot;name&quot;" src="data:image/png;base64,cG5n"' in page and ".own{color:red}</style>" in page
    assert "prefers-color-scheme:dark" in page and "http" not in page
