"""Write the plan as a comment on a pull request: GitHub-flavoured Markdown from the same texts as the terminal's card."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .offline import Program
from .plan_cards import StackCard, stack_card

# The most characters that GitHub takes for a comment.
LIMIT = 65_536
# What Markdown or GitHub would read as something else than text. An escaped letter shows as itself.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")
# A name after an @ is notified, a number after a # becomes a link.
_REFERENCE = re.compile(r"(?<!\w)([@#])(?=\w)")


def escaped(text: str) -> str:
    """Return Markdown that shows the text as it is, in a paragraph, a list or a cell of a table."""
    plain = _SPECIAL.sub(r"\\\1", " ".join(text.split()))
    return _REFERENCE.sub(lambda match: f"&#{ord(match[1])};", plain)


def markdown(programs: Iterable[Program], limit: int = LIMIT, notes: Mapping[str, Sequence[str]] | None = None) -> str:
    """Return a comment of at most `limit` characters. Lines that do not fit are left out at the end, with their count.

    `notes` are texts about the prices of a stack.
    """
    lines = [line for program in programs for line in _stack(stack_card(program), (notes or {}).get(program.stack, ()))]
    return bounded(lines, limit)


def bounded(lines: Sequence[str], limit: int) -> str:
    """Return as many whole lines as fit, with the count of the others."""
    if sum(len(line) + 1 for line in lines) <= limit:
        return "".join(f"{line}\n" for line in lines)
    # room for the last line, with any count
    room = limit - len(_left_out(len(lines)))
    kept: list[str] = []
    for line in lines:
        room -= len(line) + 1
        if room < 0:
            break
        kept.append(f"{line}\n")
    return "".join(kept) + _left_out(len(lines) - len(kept))


def _left_out(count: int) -> str:
    return f"\n_{count} more lines do not fit into a comment: `rayline plan` shows them._\n"


def _stack(card: StackCard, prices: Sequence[str]) -> Iterator[str]:
    """Yield the lines of one stack. Cost and warnings come first, so that they are never left out."""
    yield from (f"## {escaped(card.stack)}", "", escaped(card.where), "")
    if card.cost:
        yield from (f"**{escaped(card.cost)}**", "")
    if prices:
        yield from _listed("Prices", prices)
    if card.warnings:
        count = len(card.warnings)
        yield from _listed(f"{count} warning{'s' if count > 1 else ''}", card.warnings)
    if card.facts:
        yield from _listed("Platform", card.facts)
    for service in card.services:
        yield from (f"### {escaped(service.title)}", "", "| | |", "|---|---|")
        yield from (f"| {escaped(label)} | {escaped(text)} |" for label, text in service.rows)
        yield ""


def _listed(title: str, texts: Sequence[str]) -> Iterator[str]:
    # the paragraph keeps two lists apart
    yield from (f"**{title}**", "", *(f"- {escaped(text)}" for text in texts), "")
