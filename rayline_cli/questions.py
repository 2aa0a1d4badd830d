"""Questions to a model that gives vectors, scores or classes in place of text, and what a right answer has."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayline.facts.choices import Task
from rayline.service.tasks import ROUTES


@dataclass(frozen=True)
class PooledAnswer:
    """One answer of a model that pools."""

    question: str
    text: str
    total_seconds: float


@dataclass(frozen=True)
class PoolingQuestion:
    """A request of a task."""

    path: str
    text: str
    """The question for people."""
    body: Mapping[str, Any]
    """The request without its model."""
    read: Callable[[Mapping[str, Any]], str]
    """Returns the answer for people. Raises ValueError with what is wrong."""

    def answer(self, answer: Mapping[str, Any]) -> str:
        """Return the answer for people. Raises ValueError, also for an answer of another form."""
        try:
            return self.read(answer)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"an answer of another form ({type(error).__name__}: {error})") from None


# The first two say the same, the third does not.
SENTENCES = ("A cat sleeps on the sofa.", "A kitten is asleep on the couch.", "The central bank raised interest rates.")


def _numbers(values: Sequence[Any]) -> list[float]:
    if not values or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
        raise ValueError("an answer with values that are no numbers")
    return [float(value) for value in values]


def _vectors(answer: Mapping[str, Any]) -> str:
    vectors = [_numbers(row["embedding"]) for row in answer["data"]]
    if len(vectors) != len(SENTENCES) or len({len(vector) for vector in vectors}) != 1:
        raise ValueError(f"{len(vectors)} vectors of {sorted({len(vector) for vector in vectors})} values")
    if not all(any(vector) for vector in vectors):
        raise ValueError("a vector of zeros")
    same, other = (_cosine(vectors[0], vector) for vector in vectors[1:])
    return f"{len(vectors)} vectors of {len(vectors[0])} values; the first is {same:.2f} near the second, {other:.2f} the third"


def _cosine(left: Sequence[float], right: Sequence[float]) -> float:
    dot = sum(a * b for a, b in zip(left, right, strict=True))
    return dot / (math.hypot(*left) * math.hypot(*right))


def _order(answer: Mapping[str, Any]) -> str:
    scores = _numbers([row["relevance_score"] for row in answer["results"]])
    if sorted(row["index"] for row in answer["results"]) != [0, 1] or scores != sorted(scores, reverse=True):
        raise ValueError("documents that are not in order of their relevance")
    rows = (f"{SENTENCES[1 + row['index']]} ({score:.2f})" for row, score in zip(answer["results"], scores, strict=True))
    return " then ".join(rows)


def _classes(answer: Mapping[str, Any]) -> str:
    (row,) = answer["data"]
    probabilities = _numbers(row["probs"])
    likely = max(range(len(probabilities)), key=probabilities.__getitem__)
    return f"{row.get('label') or f'class {likely}'} ({probabilities[likely]:.2f}), one of {len(probabilities)}"


QUESTIONS: Mapping[Task, PoolingQuestion] = {
    Task.EMBED: PoolingQuestion(
        ROUTES[Task.EMBED][0],
        f"vectors of: {' '.join(SENTENCES)}",
        {"input": list(SENTENCES), "encoding_format": "float"},
        _vectors,
    ),
    Task.RERANK: PoolingQuestion(
        ROUTES[Task.RERANK][0],
        f"order by relevance to {SENTENCES[0]!r}: {' '.join(SENTENCES[1:])}",
        {"query": SENTENCES[0], "documents": list(SENTENCES[1:])},
        _order,
    ),
    Task.CLASSIFY: PoolingQuestion(ROUTES[Task.CLASSIFY][0], f"class of: {SENTENCES[0]}", {"input": SENTENCES[0]}, _classes),
}
"""The question of each task but generate."""
