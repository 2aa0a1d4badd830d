"""The plan as a comment on a pull request: GitHub-flavoured Markdown from the same texts as the terminal's card."""

import re
from collections.abc import Iterable, Iterator, Sequence

from .offline import Program
from .plan_view import Card, StackCard, stack_card

# The most characters that GitHub takes for a comment.
LIMIT = 65_536
# What Markdown or GitHub would read as something else than text. An escaped letter shows as itself.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~&$])")
# A name after an @ is notified, a number after a # becomes a link.
_REFERENCE = re.compile(r"(?<!\w)([@#])(?=\w)")


def escaped(text: str) -> str:
    """Text that shows as it is, in a paragraph, a list or a cell of a table."""
    one_line = " ".join(text.split())
    plain = _SPECIAL.sub(r"\\\1", one_line)
    return _REFERENCE.sub(lambda found: f"&#{ord(found[1])};", plain)


def markdown(programs: Iterable[Program], limit: int = LIMIT) -> str:
    """A comment of at most `limit` characters. What does not fit is left out from the end, and the comment says so."""
    return bounded([line for program in programs for line in _stack(stack_card(program))], limit)


def bounded(lines: Sequence[str], limit: int) -> str:
    """As many whole lines as fit, and how many do not."""
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


def _stack(card: StackCard) -> Iterator[str]:
    """What decides first, so that it is never what is left out."""
    yield f"## {escaped(card.stack)}"
    yield ""
    yield escaped(card.where)
    yield ""
    if card.cost:
        yield f"**{escaped(card.cost)}**"
        yield ""
    if card.warnings:
        yield f"**{len(card.warnings)} warning{'s' if len(card.warnings) > 1 else ''}**"
        yield ""
        yield from (f"- {escaped(warning)}" for warning in card.warnings)
        yield ""
    if card.facts:
        # a paragraph, else both lists would be one
        yield "**Platform**"
        yield ""
        yield from (f"- {escaped(fact)}" for fact in card.facts)
        yield ""
    for service in card.services:
        yield from _service(service)


def _service(card: Card) -> Iterator[str]:
    yield f"### {escaped(card.title)}"
    yield ""
    yield "| | |"
    yield "|---|---|"
    yield from (f"| {escaped(label)} | {escaped(text)} |" for label, text in card.rows)
    yield ""
