"""What comes from outside is plain text: by `plain`, and nowhere else."""

import ast
import html
import re
from pathlib import Path

import pytest

import horinsight
from horinsight.viewer.service.plain_text import plain

VIEWER = Path(horinsight.__file__).parent / "viewer"
READS_MARKDOWN = {
    "badge", "button", "caption", "checkbox", "download_button", "error", "exception", "expander", "file_uploader",
    "header", "info", "latex", "link_button", "markdown", "metric", "multiselect", "number", "number_input",
    "page_link", "pills", "popover", "progress", "radio", "segmented_control", "segments", "select", "selectbox",
    "several", "share", "slider", "spinner", "status", "subheader", "success", "switch", "tabs", "text_input", "title",
    "toast", "toggle", "warning", "write",
}  # fmt: skip
OURS = {  # what is said in Markdown and computed, and why it is nobody else's words
    ("paper.py", "share"),
    ("paper.py", "words"),
    ("choices.py", "label"),  # given by pages, which this test reads as well
    ("option_form.py", "label"),  # of our own options
    ("downloads.py", "file.kind.upper()"),
    ("mixing.py", "label"),  # a number of channels
    ("compare.py", "label"),  # written out where it is called
    ("compare.py", "placeholder"),  # numbers of blocks
    ("lead.py", "one"),  # a page of ours
    ("page.py", "ONE_SCALE"),
    ("cost.py", "done / len(missing)"),
    ("spectra.py", "share"),  # of work
    ("cost.py", "len(missing)"),
    ("page.py", "label"),
    ("spectra.py", "'s' * (len(todo) > 1)"),
    ("attribution.py", "'s' * (count > 1)"),
    ("attribution.py", "name.replace('_', ' ')"),  # one of our methods
    ("attribution.py", "count"),
    ("spectra.py", "done - 1"),
    ("spectra.py", "block.index"),
    ("spectra.py", "total"),
    ("spectra.py", "total - len(todo)"),
    ("spectra.py", "len(todo)"),
    ("cost.py", "label"),
    ("cost.py", "convention"),
    ("cost.py", "sizes.dim"),
    ("cost.py", "sum((bool(bound.holds) for bound in checked))"),
    ("cost.py", "len(checked)"),
    ("cost.py", "exact"),
    ("cost.py", "others"),  # a number
    (
        "cost.py",
        "f' The other {len(bounds) - len(checked)} use GF, which the bound is not about.' * (checked != bounds)",
    ),
    ("cost.py", "str(default)"),
    ("mixing.py", "', '.join(map(str, default))"),  # numbers of blocks
    ("option_form.py", "words"),  # of our own options
    ("option_form.py", "said.default_in_words or None"),
    ("page.py", "TRAINED"),  # names of models that come along
    ("query_cell.py", "rows - 1"),
    ("query_cell.py", "columns - 1"),
    ("attribution.py", "done / total"),
    ("attribution.py", "len(todo) / total"),
    ("spectra.py", "(done - 1) / total"),
}
HTML_OF_OURS = {
    ("plain_text.py", "kind"),  # checked by ROLES[kind]
    ("plain_text.py", "ROLES[kind]"),
    ("plain_text.py", "after"),  # HTML by contract: the calls of `heading` are read as well
    ("page.py", "what"),  # of plain()
    ("page.py", "rows"),
    ("page.py", "LOOK"),  # our style sheet
    ("provenance_card.py", "STYLE"),
    ("provenance_card.py", "rows"),
    ("report_table.py", "notes"),
    ("filter_cards.py", "STYLE"),
    ("filter_cards.py", "''.join((_card(found, int(one)) for one in channels))"),
    ("curves.py", "samples"),
    ("printed_table.py", "HEAD"),
    ("spectra_charts.py", "stops"),  # colours
    ("printed_table.py", "lines"),  # of plain()
    ("map_row.py", "source"),  # base64
}


def computed(node: ast.expr) -> list[str]:
    """The parts of what is said that are neither written out, nor numbers, nor made by `plain`."""
    if isinstance(node, ast.Constant):
        return []
    if isinstance(node, ast.JoinedStr):
        return [part for value in node.values for part in computed(value)]
    if isinstance(node, ast.FormattedValue):
        spec = ast.unparse(node.format_spec) if node.format_spec else ""
        return [] if re.search(r"[defg%,]'$", spec) else computed(node.value)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return computed(node.left) + computed(node.right)
    if isinstance(node, ast.IfExp):
        return computed(node.body) + computed(node.orelse)
    if isinstance(node, ast.Call) and ast.unparse(node.func) in ("plain", "page.plain"):
        return []
    return [ast.unparse(node)]


def said(names: set[str], *, arguments: int = 1) -> list[tuple[str, str]]:
    """File and part of everything computed that calls of some functions say."""
    found = []
    for path in VIEWER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            owner, _, name = ast.unparse(node.func).rpartition(".")
            if name in names and owner != "horinsight.data":
                words = {"text", "help", "label", "body", "after", "placeholder"}
                given = [*node.args[:arguments], *(one.value for one in node.keywords if one.arg in words)]
                found += [(path.name, part) for one in given for part in computed(one)]
    return found


def test_nothing_from_outside_is_read_as_markdown():
    strange = {one for one in said(READS_MARKDOWN) if one not in OURS}
    assert not strange


def test_nothing_from_outside_is_html_but_by_plain():
    strange = {one for one in said({"html"}) if one not in HTML_OF_OURS}
    assert not strange
    for file, part in said({"heading"}, arguments=0):
        assert "plain(" in part, (file, part)


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=alert(1)>",
        "[a](http://b)",
        "![a](http://b/c.png)",
        "&#47;&lt;",
        "'\"",
        ":red[x] :smile:",
        "$x$",
        "é → 😀",
    ],
)
def test_plain_text_shows_its_characters(text):
    made = plain(text)
    assert html.unescape(made) == text
    assert not re.search(r"[<>\"']", made)


def test_what_cannot_be_seen_is_spelled():
    assert plain("a\u202egnp.exe") == "a\\u202egnp.exe"
    assert plain("a\x00\u200b\ud800\U000e0041") == "a\\x00\\u200b\\ud800\\U000e0041"
    assert plain("a\r\nb\tc") == "a  b c"
    assert len(plain("x" * 10_000)) < 1000
