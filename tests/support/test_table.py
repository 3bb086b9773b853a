"""One table in every language: what stands in a cell comes out of it, whatever characters it
has.
"""

import importlib
import re
from xml.etree import ElementTree

import pytest

from interlace_jax.support.table import LATEX, Table, latex, markdown, typst

HARD = (
    "a & b",
    "50 %",
    "sub_ject",
    "$x^2$",
    "{c}~#",
    "p < .001",
    "sd_x|g",
    "back\\slash",
    'say "so"',
    "`raw`",
)
ROWS = [[name, f"-{i}.5"] for i, name in enumerate(HARD)]
TABLE = Table("Models & more", ("", "Esti_mate"), ROWS, "lr", ("A note: 95 %.",), (3,))


def unescaped_latex(cell):
    """What LaTeX sets for a cell that has no commands but the escapes."""
    for char, command in sorted(LATEX.items(), key=lambda pair: -len(pair[1])):
        cell = cell.replace(command, f"\0{ord(char)}\0")
    assert not re.search(r"[\\&%$#_{}~^]", cell)
    return re.sub("\0(\\d+)\0", lambda found: chr(int(found[1])), cell)


def test_text_aligns_columns_and_draws_rules():
    lines = str(TABLE).splitlines()
    assert lines[0] == "Models & more" and lines[-1] == "A note: 95 %."
    assert {len(line) for line in lines[2:5]} == {len(lines[1])}
    assert set(lines[5]) == {"-"}


@pytest.mark.parametrize("name", HARD)
def test_latex_sets_every_character_literally(name):
    assert unescaped_latex(latex(name)) == name


def test_latex_has_the_parts_of_a_booktabs_table():
    text = TABLE.to_latex(label="tab:one")
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(rows) == len(HARD) + 1
    assert all(len(re.findall(r"(?<!\\)&", row)) == 1 for row in rows)
    assert (
        text.count(r"\midrule") == 2
        and r"\caption{Models \& more}" in text
        and r"\label{tab:one}" in text
    )
    assert text.count(r"\begin{") == text.count(r"\end{") == 2


def test_latex_takes_no_cell_for_an_argument_of_a_line_break():
    text = Table("", ("*", "x"), [("[0, 1]", "a"), ("* p", "b")], "lr").to_latex()
    assert not re.search(r"\\\\\s*[\[*]", text)
    assert r"\caption" not in text


def test_the_minus_of_numbers_is_set_as_one_and_hyphens_stay():
    assert latex("-0.5") == "$-$0.5" and latex("[-1, -2]") == "[$-$1, $-$2]"
    assert latex("a-b 1-2 a - b") == "a-b 1-2 a - b"
    assert typst("-0.5") == '"\N{MINUS SIGN}0.5"' and typst("T-1") == '"T-1"'


def test_markdown_keeps_its_columns_whatever_the_cells_hold():
    lines = TABLE.to_markdown().splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert len(rows) == len(HARD) + 2
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    for name, row in zip(HARD, rows[2:], strict=True):
        cell = row.split(" | ")[0].removeprefix("| ")
        assert re.sub(r"\\(.)", r"\1", cell).replace("&amp;", "&") == name


def test_typst_writes_cells_as_strings():
    text = TABLE.to_typst()
    assert typst('a\\"b') == r'"a\\\"b"'
    assert text.count("(") - text.count(")") == 0
    assert 'caption: "Models & more"' in text and "columns: 2" in text
    assert "caption" not in TABLE.to_typst(caption="")


def test_html_is_well_formed_and_escaped():
    tree = ElementTree.fromstring(TABLE._repr_html_())
    cells = [cell.text for cell in tree.iter("td")]
    assert cells[::2] == list(HARD)
    assert [i for i, row in enumerate(tree.iter("tr")) if "border" in row.get("style", "")] == [4]


def test_line_breaks_and_tabs_in_names_do_not_break_rows():
    assert latex("a\nb\tc") == markdown("a\nb\tc") == "a b c"


def test_frame_has_the_cells():
    assert TABLE.frame.to_numpy().tolist() == ROWS
    assert list(TABLE.frame) == ["", "Esti_mate"]


def test_great_tables_gets_every_cell_or_is_asked_for(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(ImportError, match="pip install great-tables"):
        TABLE.to_great_tables()


def test_great_tables_shows_cells_literally():
    pytest.importorskip("great_tables")
    html = TABLE.to_great_tables().as_raw_html()
    assert (
        "a &amp; b" in html
        and "&amp;amp;" not in html
        and "p &lt; .001" in html
        and "Esti_mate" in html
    )
