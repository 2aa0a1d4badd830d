"""Pure: what a misspelt word was meant to be."""

import re
from collections.abc import Iterable

# One mistake in this many letters is a slip of the fingers; more make another word.
LETTERS_PER_MISTAKE = 7
SHORTEST = 3
# `tensor_parallel` is tensor_parallel_size; `gpus` need not be gpus_for_each_worker.
MOST = 2 / 3


def meant(word: str, known: Iterable[str]) -> str | None:
    """The known word that `word` is a likely misspelling of, or most of, else None.

    Other digits are another version, size or number, and so another thing. A model may be named without its owner.
    """
    if len(word) < SHORTEST:
        return None
    known = list(known)
    longer = [one for one in known if one.startswith(f"{word}_")]
    if len(longer) == 1 and len(word) >= len(longer[0]) * MOST:
        return longer[0]
    allowed = max(1, len(word) // LETTERS_PER_MISTAKE)
    found = []
    for one in known:
        whole = one if "/" in word else one.rpartition("/")[2]
        if abs(len(whole) - len(word)) <= allowed and _digits(whole) == _digits(word):
            found.append((distance(word.casefold(), whole.casefold()), one))
    mistakes, nearest = min(found, default=(allowed + 1, ""))
    return nearest if mistakes <= allowed else None


def hint(word: str, known: Iterable[str], otherwise: str) -> str:
    """The end of a message about an unknown word: what was meant, else `otherwise`, such as the list of what there is."""
    nearest = meant(word, known)
    return f"did you mean {nearest}?" if nearest else otherwise


def _digits(text: str) -> str:
    return "".join(re.findall(r"\d", text))


def distance(one: str, other: str) -> int:
    """Letters to add, take away, replace or swap with their neighbour, to make one text of the other."""
    last: list[int] = []
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, 1):
        last, before, row = before, row, [i]
        for j, wanted in enumerate(other, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == wanted:
                best = min(best, last[j - 2] + 1)
            row.append(best)
    return row[-1]
