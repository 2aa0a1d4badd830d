"""Markdown as the pages have it: tables, one line of prose, text as it is typed."""

import re
from collections.abc import Iterable, Sequence
from itertools import cycle

NOTHING = "-"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; a bar or a line break inside a cell does not end it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(prose(str(cell)).replace("|", "\\|") for cell in row) + " |" for row in lines)


def prose(text: str) -> str:
    """Return text from the code as one line of Markdown: outside of backticks `*` and `<` mean themselves."""
    parts = " ".join(text.split()).split("`")
    return "`".join(
        part if odd else re.sub(r"([*<])", r"\\\1", part) for part, odd in zip(parts, cycle((0, 1)), strict=False)
    )


def code(text: object) -> str:
    """Return text as it is typed."""
    return f"`{text}`"


def listed(items: Iterable[str]) -> str:
    """Return texts, each as it is typed, with commas."""
    return ", ".join(code(item) for item in items)
