"""A table of finished cells, and how it is written as text, HTML, LaTeX, Markdown, Typst and
Great Tables.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from .text import padded, width, wrapped

SIDES = {"l": "left", "r": "right", "c": "center"}
LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
} | {c: "\\" + c for c in "&%$#_{}"}
MARKDOWN = {c: "\\" + c for c in "\\`*_{}[]<>#|~$"} | {"&": "&amp;"}


@dataclass(frozen=True, repr=False)
class Table:
    r"""A table of finished cells: `print` it, let a notebook show it, or write it into a paper.

    title: above the table; may be empty. header: names of the columns. rows: their cells, text.
    align: a letter for each column, `l`, `r` or `c`. notes: sentences below the table. rules:
    positions of rows with a line above them. Whatever the cells hold (`&`, `_`, `%`, `|`, `<`) is
    escaped for the language written.

    >>> sleep = interlace_jax.load_dataset("sleepstudy")
    >>> fit = interlace_jax.fit("Reaction ~ Days + (1 + Days | Subject)", sleep)
    >>> table = interlace_jax.table(fit.anova(), "Tests of the fixed effects")
    >>> print(table)
    Tests of the fixed effects
         Sum Sq Mean Sq NumDF DenDF F value Pr(>F)
    Days  30031   30031     1  17.0   45.85  <.001
    >>> print(table.to_latex(label="tab:tests"))
    \begin{table}[htbp]
    \centering
    \caption{Tests of the fixed effects}
    \label{tab:tests}
    \begin{tabular}{lrrrrrr}
    \toprule
     & Sum Sq & Mean Sq & NumDF & DenDF & F value & Pr(\textgreater{}F) \\
    \midrule
    Days & 30031 & 30031 & 1 & 17.0 & 45.85 & \textless{}.001 \\
    \bottomrule
    \end{tabular}
    \end{table}
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    align: str
    notes: Sequence[str] = ()
    rules: Sequence[int] = ()

    @property
    def frame(self) -> pd.DataFrame:
        """The cells as a pandas frame of text; columns may share a name."""
        return pd.DataFrame([list(row) for row in self.rows], columns=list(self.header))

    def __str__(self) -> str:
        cells = [self.header, *self.rows]
        widths = [max(map(width, column)) for column in zip(*cells, strict=True)]
        lines = [" ".join(map(padded, row, widths, self.align)).rstrip() for row in cells]
        for at in reversed(self.rules):
            lines.insert(at + 1, "-" * max(map(width, lines)))
        return "\n".join([*[self.title] * bool(self.title), *lines, *map(wrapped, self.notes)])

    __repr__ = __str__

    def to_html(self) -> str:
        """A `<table>` with its title above and its notes below, styled by itself.

        >>> table = interlace_jax.Table("", ("term", "b"), [("x_1", "0.5")], "lr")
        >>> "<td" in table.to_html()
        True
        """
        head = _html_row(self.header, "th", self.align, "")
        lines = ["border-top:1px solid" if i in self.rules else "" for i in range(len(self.rows))]
        body = "".join(
            _html_row(row, "td", self.align, line)
            for row, line in zip(self.rows, lines, strict=True)
        )
        title = f"<b>{escape(self.title)}</b>" if self.title else ""
        notes = "".join(f"<p><small>{escape(note)}</small></p>" for note in self.notes)
        return (
            f'{title}<table style="border-collapse:collapse"><thead>{head}</thead>'
            f"<tbody>{body}</tbody></table>{notes}"
        )

    def _repr_html_(self) -> str:
        return f"<div>{self.to_html()}</div>"

    def to_latex(self, caption: str | None = None, label: str | None = None) -> str:
        r"""A `table` float with rules of booktabs: `\usepackage{booktabs}` belongs in the preamble.

        caption: by default the title; "" leaves it out; it is escaped like the cells. label: for
        `\ref`, written as it is given. Letters beyond Latin need XeLaTeX or LuaLaTeX.

        >>> table = interlace_jax.Table("", ("term", "b"), [("x_1", "0.5")], "lr")
        >>> print(table.to_latex())
        \begin{table}[htbp]
        \centering
        \begin{tabular}{lr}
        \toprule
        term & b \\
        \midrule
        x\_1 & 0.5 \\
        \bottomrule
        \end{tabular}
        \end{table}
        """
        caption = self.title.rstrip(":") if caption is None else caption
        lines = [r"\begin{table}[htbp]", r"\centering"]
        lines += [rf"\caption{{{latex(caption)}}}"] if caption else []
        lines += [rf"\label{{{label}}}"] if label else []
        lines += [
            rf"\begin{{tabular}}{{{self.align}}}",
            r"\toprule",
            _latex_row(self.header),
            r"\midrule",
        ]
        for i, row in enumerate(self.rows):
            lines += [r"\midrule"] * (i in self.rules) + [_latex_row(row)]
        lines += [r"\bottomrule", r"\end{tabular}"]
        lines += [
            r"\par\smallskip",
            *(rf"{{\footnotesize {latex(note)}\par}}" for note in self.notes),
        ] * bool(self.notes)
        return "\n".join([*lines, r"\end{table}", ""])

    def _repr_latex_(self) -> str:
        return self.to_latex()

    def to_markdown(self) -> str:
        r"""A table of GitHub's and Pandoc's pipes.

        >>> table = interlace_jax.Table("", ("term", "b"), [("x_1", "0.5")], "lr")
        >>> print(table.to_markdown())
        | term | b |
        | :-- | --: |
        | x\_1 | 0.5 |
        """
        marks = {"l": ":--", "r": "--:", "c": ":-:"}
        rows = [self.header, *self.rows]
        lines = ["| " + " | ".join(map(markdown, row)) + " |" for row in rows]
        lines.insert(1, "| " + " | ".join(marks[side] for side in self.align) + " |")
        title = [f"**{markdown(self.title)}**", ""] if self.title else []
        notes = [line for note in self.notes for line in ("", markdown(note))]
        return "\n".join([*title, *lines, *notes, ""])

    def to_typst(self, caption: str | None = None) -> str:
        """A figure with a table for Typst. caption: by default the title; "" leaves it out.

        >>> table = interlace_jax.Table("", ("term", "b"), [("x_1", "0.5")], "lr")
        >>> print(table.to_typst())
        #figure(
          table(
            columns: 2,
            align: (left, right,),
            stroke: none,
            table.hline(),
            table.header("term", "b"),
            table.hline(stroke: 0.5pt),
            "x_1", "0.5",
            table.hline(),
          ),
        )
        """
        caption = self.title.rstrip(":") if caption is None else caption
        sides = ", ".join(SIDES[side] for side in self.align)
        lines = [
            "#figure(",
            "  table(",
            f"    columns: {len(self.align)},",
            f"    align: ({sides},),",
        ]
        lines += [
            "    stroke: none,",
            "    table.hline(),",
            f"    table.header({_typst_row(self.header)}),",
        ]
        lines += ["    table.hline(stroke: 0.5pt),"]
        for i, row in enumerate(self.rows):
            lines += ["    table.hline(stroke: 0.5pt),"] * (i in self.rules) + [
                f"    {_typst_row(row)},"
            ]
        lines += [
            "    table.hline(),",
            "  ),",
            *[f"  caption: {typst(caption)},"] * bool(caption),
            ")",
        ]
        lines += [f"#text(size: 0.85em, {typst(note)})\n" for note in self.notes]
        return "\n".join([*lines, ""])

    def to_great_tables(self) -> Any:
        """The table as a `great_tables.GT`, to be styled further or saved as a picture.

        Raises ImportError where great_tables is not installed.

        >>> table = interlace_jax.Table("", ("term", "b"), [("x_1", "0.5")], "lr")
        >>> type(table.to_great_tables()).__name__
        'GT'
        """
        try:
            gt = importlib.import_module("great_tables")  # optional, and slow to import
        except ImportError as err:
            raise ImportError(
                "to_great_tables needs great_tables: python -m pip install great-tables"
            ) from err
        names = [f"c{i}" for i in range(len(self.header))]  # headings may repeat
        table = gt.GT(pd.DataFrame([list(row) for row in self.rows], columns=names))
        table = table.cols_label(
            **{name: gt.html(escape(head)) for name, head in zip(names, self.header, strict=True)}
        )
        for name, side in zip(names, self.align, strict=True):
            table = table.cols_align(SIDES[side], columns=[name])
        if self.rules:
            line = gt.style.borders(sides="top", color="#808080")
            table = table.tab_style(line, gt.loc.body(rows=list(self.rules)))
        for note in self.notes:
            table = table.tab_source_note(gt.html(escape(note)))
        return table.tab_header(gt.html(escape(self.title))) if self.title else table


def _html_row(cells: Iterable[str], tag: str, align: str, line: str) -> str:
    style = f' style="{line}"' if line else ""
    inside = "".join(
        f'<{tag} style="text-align:{SIDES[side]};padding:0.1em 0.6em">{escape(cell)}</{tag}>'
        for cell, side in zip(cells, align, strict=True)
    )
    return f"<tr{style}>{inside}</tr>"


def _latex_row(cells: Iterable[str]) -> str:
    row = " & ".join(map(latex, cells))
    # after \\ both would be read as its arguments
    return "{}" * row.startswith(("[", "*")) + row + r" \\"


def latex(text: str) -> str:
    """Text as LaTeX sets it literally; the minus of a number becomes one of mathematics."""
    escaped = _translated(text, LATEX).replace("--", "-{}-")
    return _with_minus(escaped, "$-$")


def markdown(text: str) -> str:
    """Text as Markdown shows it literally, inside a cell too."""
    return _translated(text, MARKDOWN)


def typst(text: str) -> str:
    """Text as a string literal of Typst."""
    quoted = _translated(text, {"\\": "\\\\", '"': '\\"'})
    return f'"{_with_minus(quoted, chr(0x2212))}"'


def _typst_row(cells: Iterable[str]) -> str:
    return ", ".join(map(typst, cells))


def _translated(text: str, table: dict[str, str]) -> str:
    return " ".join(str(text).split()).translate(str.maketrans(table))


def _with_minus(text: str, minus: str) -> str:
    """The hyphens that stand for a minus, at the beginning of a number, as `minus`."""
    return re.sub(r"(?<![\w.\-})])-(?=\.?\d)", lambda _: minus, text)


def as_text(part: str | Table) -> str:
    """A paragraph or a table as text."""
    return wrapped(part) if isinstance(part, str) else str(part)


def as_html(part: str | Table) -> str:
    """A paragraph or a table as HTML."""
    return (
        part.to_html()
        if isinstance(part, Table)
        else f"<p>{escape(part).replace(chr(10), '<br/>')}</p>"
    )
