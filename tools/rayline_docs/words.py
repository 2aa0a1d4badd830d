"""Check the words of pages and code: the rules of CONTRIBUTING.md that a machine can see."""

import ast
import re
from collections.abc import Iterator

from rayline_cli.stack_names import PROJECT_ROOT

# Folders of code whose docstrings and phrases are checked. A new folder goes here once `make check` passes with it.
FOLDERS = ("components", "rayline_cli", "policy", "benchmarks", "tools")
# Files that run inside pods: their text is in manifests, so a new word would replace objects of a running stack.
# This file lists the phrases themselves.
_SKIPPED_FILES = re.compile(r"components/rayline/\w+/in_pods/.*|tools/rayline_docs/words\.py")
PAGES = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", ".github/*.md")
# Pages that are not checked yet.
LATER: tuple[str, ...] = ()

LONGEST_SENTENCE = 25

# A phrase to avoid (a regular expression; a space is any white space), and the field's own words.
PHRASES = {
    "that which": "the noun",
    "nobody|whoever|(some|every)body": "the role: a client, an operator",
    "(wants?|wanted) (to|from)": "needs",
    "(is|are|was|were|been) told": "receives, is set to",
    "(is|are|was|were|been) asked( for)?": "is requested, is required",
    "(it|tool|kit|plan|command|Serve|Ray|operator|kubelet|engine|bench|verify|up) (asks|knows|wants|tells|looks at)": "needs, reads, has",
    "asks? (for|who|each|every|Serve|Ray|the)": "requires, requests",
    "all the same": "still",
    "but for": "except for",
    "what is there": "the noun",
    "(refuses?|rejects?|locks? out|lets? in) who": "requests without",
    "the way (that|of)": "the noun: path, method, source",
    "who is there": "the caller's identity",
    "saying so": "a confirmation",
    "of (yours|ours|theirs|Google's (in|that|for|which))": "your, our, Google's NOUN",
    "(goes|going|go|went) on": "continues",
    "lays? (something )?over": "overrides",
    "stands? (beside|in the (way|manifest|state))": "is next to, is in",
    "the (other )?one before": "the previous NOUN",
    "in the (place|stead) of": "instead of",
    "anew": "again",
    "looks? into": "inspects",
}
_PHRASES = {
    re.compile(rf"\b(?:{phrase})\b".replace(" ", r"""(?:[\s"#]|(?<=\s)f(?="))+"""), re.IGNORECASE): use
    for phrase, use in PHRASES.items()
}

# First words of a function's docstring that are no verb.
_NO_VERBS = re.compile(
    """
    A|All|An|And|Any|Are|As|At|Because|Both|But|By|Can|Does|Each|Either|Enough|Every|Everything|Few|First|For|From|Has|He|Here|How|
    If|In|Is|It|Its|Last|Least|Less|Like|Many|Maybe|May|More|Most|Must|Neither|Never|No|None|Not|Nothing|Of|On|One|Once|Only|Or|
    Other|Our|Out|Own|Same|Should|Since|So|Some|Something|Such|That|The|Their|Them|Then|There|These|They|This|Those|To|True|False|
    Until|Was|We|What|Whatever|When|Where|Whether|Which|While|Who|Whoever|Whose|Why|Will|With|Without|You|Your
    """,
    re.VERBOSE,
)
# Decorators of functions that need no docstring. The sentence of a policy rule is the argument of `rule`.
_TELLING_DECORATORS = ("property", "overload", "override", "rule")
# Methods that a library names and calls.
_CALLED_BY_A_LIBRARY = re.compile(r"do_[A-Z]+|visit_\w+|log_message|setUp|tearDown|list_commands|get_command")

_SENTENCE_END = re.compile(r"""(?<=[.!?])["')\]*]*\s+(?=["'(\[*_]*[A-Z0-9<`]|vLLM|kube|psutil)|;\s+""")
_SKIPPED_PARTS = re.compile(r"^\s*```.*?^\s*```|<!-- generated.*?<!-- end -->|<!--.*?-->", re.DOTALL | re.MULTILINE)
_LIST_ITEM = re.compile(r"\s*(?:[-*]|\d+\.)\s+")


def violations(folders: tuple[str, ...] = FOLDERS, later: tuple[str, ...] = LATER) -> list[str]:
    """Return a line for each violation in the pages and in the code of `folders`."""
    pages = {path for pattern in PAGES for path in PROJECT_ROOT.glob(pattern)}
    lines = []
    for path in sorted(pages):
        name = path.relative_to(PROJECT_ROOT).as_posix()
        if name not in later:
            lines += [f"{name}:{line}" for line in in_page(path.read_text())]
    for path in sorted(path for folder in folders for path in (PROJECT_ROOT / folder).rglob("*.py")):
        name = path.relative_to(PROJECT_ROOT).as_posix()
        if not _SKIPPED_FILES.fullmatch(name):
            lines += [f"{name}:{line}" for line in in_code(path.read_text(), tests="tests" in path.parts)]
    return lines


def in_page(text: str) -> Iterator[str]:
    """Yield `line: violation` for the prose of a page."""
    text = _SKIPPED_PARTS.sub(lambda part: "\n" * part[0].count("\n"), text)
    for number, paragraph in _paragraphs(text):
        for sentence in _SENTENCE_END.split(_spoken(paragraph)):
            words = len([word for word in sentence.split() if re.search(r"\w", word)])
            if words > LONGEST_SENTENCE:
                yield f"{number}: {words} words, at most {LONGEST_SENTENCE}: {sentence[:60]}..."
    yield from _phrases(text)


def in_code(text: str, tests: bool = False) -> Iterator[str]:
    """Yield `line: violation` for the docstrings, comments and messages of a module. Tests need no docstrings."""
    if not tests:
        tree = ast.parse(text)
        if text.strip() and not ast.get_docstring(tree):
            yield "1: the module has no docstring"
        yield from _docstrings(tree)
    yield from _phrases(text)


def _paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Yield (first line, text) of each paragraph and each item of a list. Headings and tables are none."""
    number, lines = 0, []
    for at, line in enumerate([*text.splitlines(), ""], start=1):
        apart = not line.strip() or line.lstrip().startswith(("#", "|", ">", "<"))
        if lines and (apart or _LIST_ITEM.match(line)):
            yield number, " ".join(lines)
            lines = []
        if not apart:
            number = number if lines else at
            lines.append(line.strip())


def _spoken(paragraph: str) -> str:
    """Return a paragraph as it is read: a code span is one word, a link its text."""
    text = _LIST_ITEM.sub("", paragraph, count=1)
    text = re.sub(r"`[^`]+`", "`code`", text)
    return re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)


def _phrases(text: str) -> Iterator[str]:
    for phrase, use in _PHRASES.items():
        for match in phrase.finditer(text):
            yield f"{text.count(chr(10), 0, match.start()) + 1}: {' '.join(match[0].split())!r}: write {use}"


def _docstrings(node: ast.Module | ast.ClassDef) -> Iterator[str]:
    for child in node.body:
        if not isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or child.name.startswith("_"):
            continue
        text = ast.get_docstring(child)
        if isinstance(child, ast.ClassDef):
            if not text:
                yield f"{child.lineno}: class {child.name} has no docstring"
            yield from _docstrings(child)
        elif not _decorated(child, *_TELLING_DECORATORS) and not _CALLED_BY_A_LIBRARY.fullmatch(child.name):
            if not text:
                yield f"{child.lineno}: {child.name}() has no docstring"
            elif not is_verb(text.split()[0].rstrip(".,:;")):
                yield f"{child.lineno}: the docstring of {child.name}() starts with {text.split()[0]!r}, no verb: Return, Yield, Write"


def _decorated(function: ast.FunctionDef | ast.AsyncFunctionDef, *names: str) -> bool:
    return any(
        ast.unparse(decorator).partition("(")[0].rpartition(".")[2] in (*names, "cached_property", "setter")
        for decorator in function.decorator_list
    )


def is_verb(word: str) -> bool:
    """Return whether a docstring may start with the word: a plain capitalised one that is no article, pronoun or plural."""
    plural = word.endswith("s") and not word.endswith("ss")
    return bool(re.fullmatch(r"[A-Z][a-z]+", word)) and not _NO_VERBS.fullmatch(word) and not plural
