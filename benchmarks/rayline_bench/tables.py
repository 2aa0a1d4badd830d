"""One model of a table for the terminal, for pages and for the docs. A cell is text; commands and names are in backticks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle

from rich import table as rich_table

NOTHING = "-"


@dataclass(frozen=True)
class Table:
    """A header, rows, and a title."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""

    def markdown(self) -> str:
        """Return the table in Markdown, without its title."""
        return table(self.header, self.rows)

    def rich(self) -> rich_table.Table:
        """Return the table for a terminal, numbers to the right."""
        shown = rich_table.Table(title=self.title.replace("`", ""), title_justify="left")
        for place, name in enumerate(self.header):
            shown.add_column(name.replace("`", ""), justify="right" if place else "left", no_wrap=not place)
        for row in self.rows:
            shown.add_row(*(str(cell).replace("`", "") for cell in row))
        return shown


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; a bar or a line break inside a cell does not end it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(prose(str(cell)).replace("|", "\\|") for cell in row) + " |" for row in lines)


def prose(text: str) -> str:
    """Return text as one line of Markdown: outside of backticks `*` and `<` mean themselves."""
    parts = " ".join(text.split()).split("`")
    return "`".join(part if odd else re.sub(r"([*<])", r"\\\1", part) for part, odd in zip(parts, cycle((0, 1)), strict=False))


def code(text: object) -> str:
    """Return text as it is typed."""
    return f"`{text}`"


def listed(items: Iterable[str]) -> str:
    """Return texts, each as it is typed, with commas."""
    return ", ".join(code(item) for item in items)
