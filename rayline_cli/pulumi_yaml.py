"""Read YAML as Pulumi's CLI reads it, within limits. Imports no Pulumi, so that it is quick.

The CLI decodes a file with gopkg.in/yaml.v3 v3.0.1, writes the values as YAML and decodes that again (LoadProjectStackBytes in
pulumi v3, sdk/go/common/workspace/loaders.go). Rules below that look odd are theirs. Where the CLI drops or guesses something
in silence, this reader refuses the file.
"""

import base64
import dataclasses
import json
import math
import pathlib
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import Any

import yaml

# Limits of this reader, far above any real stack file. What aliases repeat counts each time.
MOST_BYTES = 1 << 20
MOST_VALUES = 50_000
MOST_LEVELS = 100


class YamlProblem(Exception):
    """What is wrong with a file, without the file's name."""


def shown(text: str) -> str:
    """Return a text of the file as a message shows it: in quotes, and cut where it is long."""
    return repr(text if len(text) <= 60 else text[:60] + "…")


# --- bytes to text ------------------------------------------------------------------------------------------------------

# The CLI reads UTF-16 with a byte order mark, which is what PowerShell's `>` writes.
_MARKS = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16-LE", b"\xfe\xff": "UTF-16-BE"}
# A byte order mark after the beginning is one of them: yaml.v3 and libyaml read it in different ways.
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_DIRECTIVE = re.compile("^%", re.MULTILINE)


def read_text(path: pathlib.Path) -> str:
    """Return a file's text. Raises YamlProblem."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise YamlProblem(f" cannot be read: {error.strerror}. Fix: write a stack file there") from None
    if len(data) > MOST_BYTES:
        raise YamlProblem(f" is larger than {MOST_BYTES >> 20} MiB. Fix: keep notes and data out of it")
    mark = next((mark for mark in _MARKS if data.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "UTF-8")
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = len(mark) + error.start
        line = _line_at(data[len(mark) : at].decode(encoding, "replace"))
        wrong = f" is not {encoding}: byte {at + 1} of the file, in line {line}, is 0x{data[at]:02x}"
        raise YamlProblem(f"{wrong}. Fix: save it as UTF-8") from None
    if match := _NOT_YAML.search(text):
        wrong = f"has the character U+{ord(match[0]):04X}, which YAML does not allow there"
        raise YamlProblem(f": line {_line_at(text[: match.start()])} {wrong}. Fix: delete it, or save the file as UTF-8")
    if match := _DIRECTIVE.search(text):
        raise YamlProblem(f": line {_line_at(text[: match.start()])} begins with %. Fix: delete it, no stack file needs it")
    return text


def _line_at(before: str) -> int:
    """Return the number of the line in which the text ends."""
    return len(re.findall("\r\n|[\n\r]", before)) + 1


# --- text to values -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(slots=True, eq=False)
class YamlNode:
    """One node of a file, and what the map or list around it needs to know."""

    line: int
    value: Any = None
    """A map with text keys, a list, a text, a number, true, false or None."""
    text: str | None = None
    """A scalar as it is written; None for a map or a list."""
    tag: str = "!!null"
    children: list["YamlNode"] = field(default_factory=list)
    """A list's items; a map's keys and values in turn."""
    in_flow: bool = False
    """Whether it is a collection in [] or {}; then all in it are."""
    anchored: bool = False
    """Whether it has an anchor, or something in it has."""
    is_open: bool = False
    """Whether its end is still to come."""
    is_alias: bool = False
    size: int = 1
    """Values in it, itself and what aliases repeat included."""
    characters: int = 0
    levels: int = 0

    def pairs(self) -> Iterator[tuple["YamlNode", "YamlNode"]]:
        """Yield each key of a map with its value."""
        return zip(self.children[::2], self.children[1::2], strict=True)


# The C parser is quick, and the nearest relative of the CLI's, which is a port of it. Wheels of PyYAML have it.
_PARSER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_STANDARD = "tag:yaml.org,2002:"


def read_document(text: str) -> YamlNode:
    """Return the root of a file's only document. Raises YamlProblem."""
    document = _Document()
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            document.take(event)
    except yaml.MarkedYAMLError as error:
        raise YamlProblem(_syntax(error, text)) from None
    except yaml.YAMLError as error:
        raise YamlProblem(f" is not YAML: {error}. Fix: save it as YAML, in UTF-8") from None
    return document.root or YamlNode(1)


class _Document:
    """Makes values of a parser's events. An alias shares the value of its target, and counts as if it was written out."""

    def __init__(self) -> None:
        self.root: YamlNode | None = None
        self.path: list[YamlNode] = []
        self.anchors: dict[str, YamlNode] = {}
        self.values = self.repeated = self.characters = 0

    def take(self, event: yaml.Event) -> None:
        """Take the next event. Raises YamlProblem."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent) and self.root:
            raise YamlProblem(
                f": line {line} starts a second document, and Pulumi reads the first only. Fix: keep one document in the file"
            )
        if isinstance(event, yaml.CollectionEndEvent):
            _close(self.path.pop(), isinstance(event, yaml.MappingEndEvent))
        if not isinstance(event, yaml.NodeEvent):
            return
        around = self.path[-1] if self.path else None
        node = self._node(event, line, in_flow=bool(around and around.in_flow))
        self._count(node)
        if around:
            around.children.append(node)
        else:
            self.root = node
        if node.is_open:
            self.path.append(node)
        if len(self.path) + node.levels > MOST_LEVELS:
            raise YamlProblem(f": line {line} is nested more than {MOST_LEVELS} levels deep. Fix: nest less, as stack files do")

    def _node(self, event: yaml.NodeEvent, line: int, in_flow: bool) -> YamlNode:
        if isinstance(event, yaml.AliasEvent):
            target = self.anchors.get(event.anchor)
            if target is None:
                missing = f"line {line} has the alias *{event.anchor}, and there is no &{event.anchor} before it"
                raise YamlProblem(f": {missing}. Fix: write the anchor before the alias")
            if target.is_open:
                raise YamlProblem(f": line {line} has an alias of what it is in, which has no end. Fix: delete the alias")
            self.repeated += target.size
            return dataclasses.replace(target, line=line, size=target.size + 1, is_alias=True, anchored=False)
        tag = (event.tag if event.tag != "!" else None) or ""  # type: ignore[attr-defined]
        tag = tag.replace(_STANDARD, "!!")
        if tag and not tag.startswith("!!"):
            raise YamlProblem(f": line {line}: the tag {shown(tag)} has no meaning. Fix: delete it, or put the value in quotes")
        if isinstance(event, yaml.ScalarEvent):
            node = _scalar(event.value, line, tag, plain=not event.style, in_flow=in_flow)
        else:
            in_flow = in_flow or bool(event.flow_style)  # type: ignore[attr-defined]
            node = YamlNode(line, tag=tag, in_flow=in_flow, is_open=True)
        node.anchored = event.anchor is not None
        if node.anchored:
            self.anchors[event.anchor] = node
        return node

    def _count(self, node: YamlNode) -> None:
        """Count a node with what it repeats. Raises YamlProblem where a limit is passed."""
        self.values += node.size
        self.characters += node.characters
        if self.values - self.repeated > MOST_VALUES:
            raise YamlProblem(f" has more than {MOST_VALUES:,} values. Fix: keep notes and data out of it")
        # the last is a rule of yaml.v3 (allowedAliasRatio in decode.go)
        if (
            self.values > MOST_VALUES
            or self.characters > MOST_BYTES
            or (self.values > 1000 and self.repeated > 0.99 * self.values)
        ):
            raise YamlProblem(f": line {node.line}: aliases repeat too much. Fix: use fewer of them")


def _close(node: YamlNode, is_map: bool) -> None:
    """Give a collection its value, now that all of it is read. Raises YamlProblem."""
    node.value = _map(node) if is_map else [item.value for item in node.children]
    node.is_open = False
    node.anchored = node.anchored or any(item.anchored for item in node.children)
    node.size += sum(item.size for item in node.children)
    node.characters = sum(item.characters for item in node.children)
    node.levels = 1 + max((item.levels for item in node.children), default=0)


def _map(node: YamlNode) -> dict[str, Any]:
    """Return a map with what `<<` merges into it. The map's own keys win, then those of the first map that is merged."""
    values: dict[str, Any] = {}
    lines: dict[str, int] = {}
    merged: list[YamlNode] = []
    for key, item in node.pairs():
        name = key_text(key)
        # YAML allows no key twice; PyYAML and JSON take the last one in silence
        if name in lines:
            again = f"line {key.line}: the key {shown(name)} is there twice, first in line {lines[name]}"
            raise YamlProblem(f": {again}. Fix: keep one of them")
        lines[name] = key.line
        if name == "<<":
            merged = item.children if isinstance(item.value, list) and not item.is_alias else [item]
        else:
            values[name] = item.value
    for source in merged:
        if not isinstance(source.value, dict):
            raise YamlProblem(f": line {source.line}: `<<` takes a map or a list of maps. Fix: write `<<: *common`")
        values = source.value | values
    return values


def key_text(key: YamlNode) -> str:
    """Return a map's key as a text. Raises YamlProblem for a key that is no text and can be written in several ways."""
    if key.text is None:
        raise YamlProblem(f": line {key.line}: a key is a text, not a map or a list. Fix: put it in quotes")
    if key.tag == "!!str":
        return key.value
    # the CLI makes 15 or 017 of the key 017, and <nil> or nothing of the key ~, by what else is in the map
    if isinstance(key.value, int) and json.dumps(key.value) == key.text:
        return key.text
    raise YamlProblem(f": line {key.line}: the key {shown(key.text)} is no text. Fix: put it in quotes")


# Where YAML wants a space, a character that only looks like one. It comes with texts copied from a page.
_LIKE_A_SPACE = re.compile("(?:^[ -]*|:)([\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000])")


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    """Return what is wrong with a file that does not parse, with the fix where its cause is a common one."""
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f" is not YAML: {error.problem}"
    lines = re.split("\r\n|[\n\r]", text)[: mark.line + 1]
    last = lines[mark.line] if mark.line < len(lines) else ""
    fix = ". Fix: indent with spaces, not with tabs" if "\t" in last[: len(last) - len(last.lstrip())] else ""
    for number, line in enumerate(lines, 1):
        if match := _LIKE_A_SPACE.search(line):
            name = unicodedata.name(match[1]).lower()
            fix = f". Fix: line {number} has U+{ord(match[1]):04X} ({name}), write a space in its place"
    begin = error.context_mark
    where = f", {error.context} that begins in line {begin.line + 1}" if begin and begin.line != mark.line else ""
    return f" is not YAML: line {mark.line + 1}, column {mark.column + 1}: {error.problem}{where}{fix}"


# --- scalars ------------------------------------------------------------------------------------------------------------

# Words that are no texts (resolve.go in yaml.v3). yes, no, on and off are texts.
_WORDS: Mapping[str, tuple[str, Any]] = (
    dict.fromkeys(("", "~", "null", "Null", "NULL"), ("!!null", None))
    | dict.fromkeys(("true", "True", "TRUE"), ("!!bool", True))
    | dict.fromkeys(("false", "False", "FALSE"), ("!!bool", False))
    | {sign + word: ("!!float", math.inf) for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")}
    | dict.fromkeys((".nan", ".NaN", ".NAN"), ("!!float", math.nan))
)
_TYPED = ("", "!!bool", "!!int", "!!float", "!!null", "!!timestamp")
# Underscores are out by then. A decimal of more than 20 digits has more than 64 bits.
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]{0,19}))")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_FLOAT_WITH_A_POINT_FIRST = re.compile(r"\.[0-9](_?[0-9])*([eE][-+]?[0-9](_?[0-9])*)?")
# What yaml.v3 reads as a time (parseTimestamp in resolve.go), and the CLI writes in Go's form with a zone behind it.
_TIME = re.compile(
    r"\d{4}-\d{1,2}-\d{1,2}"
    r"([Tt]\d{1,2}:\d{1,2}:\d{1,2}([.,]\d+)?(Z|[-+]\d{2}:\d{2})| +\d{1,2}:\d{1,2}:\d{1,2}([.,]\d+)?)?",
    re.ASCII,
)


def _scalar(text: str, line: int, tag: str, *, plain: bool, in_flow: bool) -> YamlNode:
    """Return the node of a scalar. Raises YamlProblem."""
    node = YamlNode(line, text, text, "!!str", characters=len(text))
    if plain and in_flow and "?" in text:
        raise YamlProblem(f": line {line}: Pulumi reads no ? within [] or {{}}. Fix: put {shown(text)} in quotes")
    if "\n" in text and text[0] in "\n\t\u2028\u2029":
        # it writes such a text in a form that it reads back without the first line break, or not at all
        raise YamlProblem(f": line {line}: Pulumi drops what this text begins with. Fix: begin it with its first word")
    if tag == "!!binary":
        try:
            node.value = base64.b64decode(re.sub("[\r\n]", "", text), validate=True).decode()
        except ValueError:
            wrong = f"{shown(text)} is not the base64 form of a text"
            raise YamlProblem(f": line {line}: {wrong}. Fix: write the text itself, without !!binary") from None
        return node
    if tag not in _TYPED or not (tag or plain):
        return node
    if _TIME.fullmatch(text) and tag in ("", "!!timestamp"):
        raise YamlProblem(f": line {line}: Pulumi writes the time {text} in another form. Fix: put it in quotes")
    node.tag, node.value = resolved(text)
    if tag == "!!float" and node.tag == "!!int":
        node.tag, node.value = "!!float", float(node.value)
    if tag not in ("", node.tag):
        raise YamlProblem(f": line {line}: {shown(text)} is no {tag}. Fix: delete the tag")
    if isinstance(node.value, float) and not math.isfinite(node.value):
        raise YamlProblem(f": line {line}: {text} is no number that Pulumi takes. Fix: write a finite number")
    return node


def resolved(text: str) -> tuple[str, Any]:
    """Return the tag and the value that a text has without quotes, such as ("!!int", 15) for 017."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] == ".":
        value = float(text.replace("_", "")) if _FLOAT_WITH_A_POINT_FIRST.fullmatch(text) else math.inf
        return ("!!float", value) if math.isfinite(value) else ("!!str", text)
    if text[0] not in "+-0123456789":
        return "!!str", text
    digits = text.replace("_", "")
    if match := _INTEGER.fullmatch(digits):
        sign, *forms = match.groups()
        number = next(int(form, base) for form, base in zip(forms, (16, 2, 8, 10), strict=True) if form)
        number = -number if sign == "-" else number
        if -(1 << 63) <= number < 1 << (63 if sign else 64):
            return "!!int", number
    if _FLOAT.fullmatch(digits) and math.isfinite(value := float(digits)):
        return "!!float", value
    return "!!str", text
