"""Find the known word that a misspelt one resembles."""

import re
from collections.abc import Iterable

# One mistake in this many letters is a slip of the fingers. More mistakes make another word.
LETTERS_PER_MISTAKE = 7
SHORTEST = 3
# `tensor_parallel` is tensor_parallel_size; `gpus` need not be gpus_for_each_worker.
MOST = 2 / 3


def meant(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` probably misspells or shortens; None where there is none.

    Words with other digits never match: they are another version, size or number. A model may be named without its owner.
    """
    if len(word) < SHORTEST:
        return None
    known = list(known)
    longer = [name for name in known if name.startswith(f"{word}_")]
    if len(longer) == 1 and len(word) >= len(longer[0]) * MOST:
        return longer[0]
    allowed = max(1, len(word) // LETTERS_PER_MISTAKE)
    candidates = []
    for name in known:
        whole = name if "/" in word else name.rpartition("/")[2]
        if abs(len(whole) - len(word)) <= allowed and _digits(whole) == _digits(word):
            candidates.append((distance(word.casefold(), whole.casefold()), name))
    mistakes, nearest = min(candidates, default=(allowed + 1, ""))
    return nearest if mistakes <= allowed else None


def hint(word: str, known: Iterable[str], otherwise: str) -> str:
    """Return the end of a message about an unknown word: the word that it resembles, else `otherwise`."""
    nearest = meant(word, known)
    return f"did you mean {nearest}?" if nearest else otherwise


def _digits(text: str) -> str:
    return "".join(re.findall(r"\d", text))


def distance(word: str, other: str) -> int:
    """Return how many letters to add, remove, replace or swap with a neighbour to make one text of the other."""
    last: list[int] = []
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(word, 1):
        last, before, row = before, row, [i]
        for j, wanted in enumerate(other, 1):
            best = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != wanted))
            if i > 1 and j > 1 and letter == other[j - 2] and word[i - 2] == wanted:
                best = min(best, last[j - 2] + 1)
            row.append(best)
    return row[-1]
