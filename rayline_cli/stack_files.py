"""Read a stack file as Pulumi's CLI reads it: the same texts for the same file. Imports no Pulumi, so that it is quick.

The CLI decodes the file with gopkg.in/yaml.v3 v3.0.1, writes what it found as YAML and decodes that again
(LoadProjectStackBytes in pulumi v3, sdk/go/common/workspace/loaders.go). The program gets each value as a text
(sdk/go/common/resource/config). Rules below that look odd are theirs; tests/engine/test_stack_files.py compares with the
CLI. Where the CLI drops or guesses something in silence, this reader refuses the file.
"""

import base64
import calendar
import json
import math
import pathlib
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

import yaml

from .errors import UsageError
from .stack_names import PROJECT_ROOT, stack_names

# Limits of this reader, far above any real stack file. What aliases repeat counts each time.
MOST_BYTES = 1 << 20
MOST_VALUES = 50_000
MOST_LEVELS = 100
# Pulumi hands all of the configuration to the program in one environment variable, PULUMI_CONFIG. Linux allows 128 KiB
# for one, with its name and the zero at its end (MAX_ARG_STRLEN, execve(2)).
MOST_HANDED_OVER = (128 << 10) - len("PULUMI_CONFIG=") - 1

# What the CLI reads at the top of a stack file (ProjectStack in sdk/go/common/workspace/project.go).
TOP_KEYS = ("config", "environment", "secretsprovider", "encryptedkey", "encryptionsalt")
# In place of an encrypted value: the reader has no key.
HELD_ELSEWHERE = "held elsewhere"

# Full keys with their texts, and the keys that are secret: what the SDK's set_all_config takes.
Configuration = tuple[dict[str, str], list[str]]


class ProgramError(UsageError):
    """A stack's configuration is refused, by this reader or by the program. The message says why."""


class UnknownStack(UsageError):
    """There is no stack file of that name. The message lists those that exist."""


def read_stack(stack: str, root: pathlib.Path = PROJECT_ROOT, file: pathlib.Path | None = None) -> Configuration:
    """Return a stack's configuration as the engine hands it over.

    `file` is the stack's file where it is not in stacks/. Raises UnknownStack or ProgramError.
    """
    names = stack_names(root)
    if file is None and stack not in names:
        raise UnknownStack(f"no stack {stack!r}; there are: {', '.join(names)}")
    return read_stack_file(file or root / "stacks" / f"Pulumi.{stack}.yaml", root)


def read_stack_file(path: pathlib.Path, root: pathlib.Path = PROJECT_ROOT) -> Configuration:
    """Return the configuration in a stack file anywhere, like read_stack. Raises ProgramError."""
    project, defaults = _project(root)
    try:
        values, secret = _configuration(_read(path), project)
        values = defaults | values
        if (size := len(in_json(values).encode())) > MOST_HANDED_OVER:
            raise _Problem(f": the configuration has {size >> 10} KiB, and a program on Linux gets at most 128 KiB")
    except _Problem as problem:
        raise ProgramError(f"{path.name}{problem}") from None
    return values, secret


def read_document(path: pathlib.Path) -> dict[str, Any]:
    """Return all that a stack file or Pulumi.yaml says, as the CLI reads it; encrypted values stay so. Raises ProgramError."""
    try:
        document = _value(_document(_read(path)), _Budget())
    except _Problem as problem:
        raise ProgramError(f"{path.name}{problem}") from None
    return document if isinstance(document, dict) else {}


def project_name(root: pathlib.Path = PROJECT_ROOT) -> str:
    """Return the project's name, the prefix of its keys. Raises ProgramError."""
    return _project(root)[0]


def full_key(name: str, root: pathlib.Path = PROJECT_ROOT) -> str:
    """Return one of this program's keys with the project's prefix. Raises ProgramError."""
    return f"{project_name(root)}:{name}"


def map_of(values: Mapping[str, str], name: str, root: pathlib.Path = PROJECT_ROOT) -> dict[str, Any]:
    """Return what a configuration says under one of this program's keys; empty where that is no map."""
    try:
        found = json.loads(values.get(full_key(name, root), "{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


class _Problem(Exception):
    """What is wrong with a file, without the file's name."""


def _project(root: pathlib.Path) -> tuple[str, dict[str, str]]:
    """Return the project's name and the configuration that Pulumi.yaml sets for every stack. Raises ProgramError."""
    document = read_document(root / "Pulumi.yaml")
    try:
        name = document.get("name")
        if not isinstance(name, str) or not name:
            raise _Problem(": the project has no name. Fix: write one, such as `name: rayline`")
        defaults = {}
        config = document.get("config")
        for key, given in config.items() if isinstance(config, dict) else ():
            # mergeConfig in pkg/workspace/config.go; a map declares a key, and its value is in there
            value = given.get("default", given.get("value")) if isinstance(given, dict) else given
            if value is not None:
                defaults[_full(key, name)] = _text(value)
    except _Problem as problem:
        raise ProgramError(f"Pulumi.yaml{problem}") from None
    return name, defaults


# --- bytes to text ------------------------------------------------------------------------------------------------------

# The CLI reads UTF-16 with a byte order mark, which is what PowerShell's `>` writes.
_MARKS = {b"\xef\xbb\xbf": "UTF-8", b"\xff\xfe": "UTF-16-LE", b"\xfe\xff": "UTF-16-BE"}
# A byte order mark after the beginning is one of them: yaml.v3 and libyaml read it in different ways.
_NOT_YAML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")
_DIRECTIVE = re.compile("^%", re.MULTILINE)


def _read(path: pathlib.Path) -> str:
    """Return a file's text. Raises _Problem."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise _Problem(": there is no such file") from None
    except IsADirectoryError:
        raise _Problem(" is a folder, not a file") from None
    except OSError as error:
        raise _Problem(f" cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise _Problem(f" is larger than {MOST_BYTES >> 20} MiB, and no stack file is")
    mark = next((mark for mark in _MARKS if data.startswith(mark)), b"")
    encoding = _MARKS.get(mark, "UTF-8")
    try:
        text = data[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        at = len(mark) + error.start
        line = _line(data[len(mark) : at].decode(encoding, "replace"))
        raise _Problem(
            f" is not {encoding}: byte {at + 1} of the file, in line {line}, is 0x{data[at]:02x}. Fix: save it as UTF-8"
        ) from None
    if found := _NOT_YAML.search(text):
        raise _Problem(
            f": line {_line(text[: found.start()])} has the character U+{ord(found.group()):04X}, which YAML does not "
            "allow there. Fix: delete it, or save the file as UTF-8"
        )
    if found := _DIRECTIVE.search(text):
        raise _Problem(f": line {_line(text[: found.start()])} begins with %. Fix: delete it, no stack file needs it")
    return text


def _line(before: str) -> int:
    """Return the number of the line in which the text ends."""
    return len(re.findall("\r\n|[\n\r]", before)) + 1


# --- text to nodes ------------------------------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Node:
    """One node of a file."""

    kind: type[yaml.Event]
    content: Any
    """A scalar's text; a list's items; a map's keys and values in turn; an alias' target."""
    line: int
    tag: str = ""
    """The tag that the file states, such as !!int."""
    plain: bool = False
    """Whether a scalar has no quotes."""
    anchors: bool = False
    """Whether it has an anchor, or something in it has."""


# The C parser is quick, and the nearest relative of the CLI's, which is a port of it. Wheels of PyYAML have it.
_PARSER = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader
_STANDARD = "tag:yaml.org,2002:"


def _document(text: str) -> _Node:
    """Return the root of a file's only document. Raises _Problem."""
    root: _Node | None = None
    values = flows = 0
    path: list[_Node] = []
    anchors: dict[str, _Node] = {}
    try:
        for event in yaml.parse(text, Loader=_PARSER):
            if isinstance(event, yaml.DocumentStartEvent) and root:
                raise _Problem(
                    f": line {event.start_mark.line + 1} starts a second document, and Pulumi reads the first only. "
                    "Fix: keep one document in the file"
                )
            if isinstance(event, yaml.CollectionEndEvent):
                path.pop()
                flows -= bool(flows)
            if not isinstance(event, yaml.NodeEvent):
                continue
            node = _node(event, anchors, flows > 0)
            values += 1
            if values > MOST_VALUES:
                raise _Problem(f" has more than {MOST_VALUES:,} values, and no stack file has")
            if path:
                path[-1].content.append(node)
            else:
                root = node
            if event.anchor and node.kind is not yaml.AliasEvent:
                anchors[event.anchor] = node
                for one in (*path, node):
                    one.anchors = True
            if isinstance(event, yaml.CollectionStartEvent):
                path.append(node)
                # all in a flow collection, which is one in [] or {}, are flow collections
                flows += bool(event.flow_style)
                if len(path) > MOST_LEVELS:
                    raise _Problem(_too_deep(node))
    except yaml.MarkedYAMLError as error:
        raise _Problem(_syntax(error, text)) from None
    except yaml.YAMLError as error:
        raise _Problem(f" is not YAML: {error}") from None
    return root or _Node(yaml.ScalarEvent, "", 1, plain=True)


def _node(event: yaml.NodeEvent, anchors: dict[str, _Node], in_flow: bool) -> _Node:
    line = event.start_mark.line + 1
    if isinstance(event, yaml.AliasEvent):
        if event.anchor not in anchors:
            raise _Problem(f": line {line} has the alias *{event.anchor}, and there is no &{event.anchor} before it")
        return _Node(yaml.AliasEvent, anchors[event.anchor], line)
    stated = getattr(event, "tag", None)
    tag = "" if stated in (None, "!") else stated.replace(_STANDARD, "!!")
    if tag and not tag.startswith("!!"):
        raise _Problem(f": line {line}: the tag {_shown(tag)} has no meaning. Fix: delete it, or put the value in quotes")
    if not isinstance(event, yaml.ScalarEvent):
        return _Node(type(event), [], line, tag)
    plain = not event.style
    if plain and in_flow and "?" in event.value:
        raise _Problem(f": line {line}: Pulumi reads no ? within [] or {{}}. Fix: put {_shown(event.value)} in quotes")
    return _Node(yaml.ScalarEvent, event.value, line, tag, plain)


def _too_deep(node: _Node) -> str:
    return f": line {node.line} is nested more than {MOST_LEVELS} levels deep, and no stack file is"


def _shown(text: str) -> str:
    """Return a text of the file as a message shows it: in quotes, and not all of a long one."""
    return repr(text if len(text) <= 60 else text[:60] + "…")


# Where YAML wants a space, a character that only looks like one. It comes with texts copied from a page.
_LIKE_A_SPACE = re.compile("(?:^[ -]*|:)([\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000])")


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f" is not YAML: {error.problem}"
    lines = re.split("\r\n|[\n\r]", text)
    line = lines[mark.line :][:1]
    tab = line and "\t" in line[0][: len(line[0]) - len(line[0].lstrip())]
    fix = ". Fix: indent with spaces, not with tabs" if tab else ""
    begin = error.context_mark
    for number, one in enumerate(lines[: mark.line + 1], 1):
        if found := _LIKE_A_SPACE.search(one):
            character = found[1]
            name = unicodedata.name(character).lower()
            fix = f". Fix: line {number} has U+{ord(character):04X} ({name}), write a space in its place"
    where = f", {error.context} that begins in line {begin.line + 1}" if begin and begin.line != mark.line else ""
    return f" is not YAML: line {mark.line + 1}, column {mark.column + 1}: {error.problem}{where}{fix}"


# --- nodes to values ----------------------------------------------------------------------------------------------------


@dataclass
class _Budget:
    """What bounds the values of a file with its aliases written out."""

    values: int = 0
    repeated: int = 0
    characters: int = 0
    open: list[_Node] = field(default_factory=list)
    """What is being written out in place of an alias."""

    def spend(self, node: _Node) -> None:
        """Count one value. Raises _Problem where it is one too many."""
        self.values += 1
        self.repeated += bool(self.open)
        self.characters += len(node.content) if node.kind is yaml.ScalarEvent else 0
        # the last is a rule of yaml.v3 (allowedAliasRatio in decode.go)
        if (
            self.values > MOST_VALUES
            or self.characters > MOST_BYTES
            or (self.values > 1000 and self.repeated > 0.99 * self.values)
        ):
            raise _Problem(f": line {node.line}: aliases repeat too much. Fix: use fewer of them")


def _value(node: _Node, budget: _Budget, level: int = 0) -> Any:
    """Return what a node means: a map with text keys, a list, a text, a number, true, false or None. Raises _Problem."""
    budget.spend(node)
    if level > MOST_LEVELS:
        raise _Problem(_too_deep(node))
    if node.kind is yaml.AliasEvent:
        if node.content in budget.open:
            raise _Problem(f": line {node.line} has an alias of what it is in, which has no end")
        budget.open.append(node.content)
        value = _value(node.content, budget, level)
        budget.open.pop()
        return value
    if node.kind is yaml.SequenceStartEvent:
        return [_value(item, budget, level + 1) for item in node.content]
    if node.kind is yaml.MappingStartEvent:
        return _map(node, budget, level + 1)
    return _scalar(node)[1]


def _map(node: _Node, budget: _Budget, level: int) -> dict[str, Any]:
    """Return a map with what `<<` merges into it. The map's own keys win, then those of the first map that is merged."""
    found: dict[str, Any] = {}
    lines: dict[str, int] = {}
    merged: list[_Node] = []
    for key, item in _pairs(node):
        name = _key(key)
        # YAML allows no key twice; PyYAML and JSON take the last one in silence
        if name in lines:
            raise _Problem(f": line {key.line}: the key {_shown(name)} is there twice, first in line {lines[name]}")
        lines[name] = key.line
        if name == "<<":
            merged = item.content if item.kind is yaml.SequenceStartEvent else [item]
        else:
            found[name] = _value(item, budget, level)
    for source in merged:
        if (source.content if source.kind is yaml.AliasEvent else source).kind is not yaml.MappingStartEvent:
            raise _Problem(f": line {source.line}: `<<` takes a map or a list of maps, such as `<<: *common`")
        for name, value in _value(source, budget, level).items():
            found.setdefault(name, value)
    return found


def _pairs(node: _Node) -> Iterator[tuple[_Node, _Node]]:
    return zip(node.content[::2], node.content[1::2], strict=True)


def _key(node: _Node) -> str:
    """Return a map's key as a text. Raises _Problem for a key that is no text and can be written in several ways."""
    node = node.content if node.kind is yaml.AliasEvent else node
    if node.kind is not yaml.ScalarEvent:
        raise _Problem(f": line {node.line}: a key is a text, not a map or a list")
    tag, value = _scalar(node)
    if tag == "!!str":
        return value
    # the CLI makes 15 or 017 of the key 017, and <nil> or nothing of the key ~, by what else is in the map
    if isinstance(value, int) and json.dumps(value) == node.content:
        return node.content
    raise _Problem(f": line {node.line}: the key {_shown(node.content)} is no text. Fix: put it in quotes")


# Words that are no texts (resolve.go in yaml.v3). yes, no, on and off are texts.
_WORDS: Mapping[str, tuple[str, Any]] = (
    dict.fromkeys(("", "~", "null", "Null", "NULL"), ("!!null", None))
    | dict.fromkeys(("true", "True", "TRUE"), ("!!bool", True))
    | dict.fromkeys(("false", "False", "FALSE"), ("!!bool", False))
    | {sign + word: ("!!float", math.inf) for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")}
    | dict.fromkeys((".nan", ".NaN", ".NAN"), ("!!float", math.nan))
)
# Underscores are out by then. A decimal of more than 20 digits has more than 64 bits.
_INTEGER = re.compile(r"([-+]?)(?:0[xX]([0-9a-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9][0-9]{0,19}))")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_FLOAT_WITH_A_POINT_FIRST = re.compile(r"\.[0-9](_?[0-9])*([eE][-+]?[0-9](_?[0-9])*)?")


def _scalar(node: _Node) -> tuple[str, Any]:
    """Return a scalar's tag and value. Raises _Problem."""
    text = node.content
    if "\n" in text and text[0] in "\n\t\u2028\u2029":
        # it writes such a text in a form that it reads back without the first line break, or not at all
        raise _Problem(f": line {node.line}: Pulumi drops what this text begins with. Fix: begin it with its first word")
    if node.tag == "!!binary":
        try:
            return "!!str", base64.b64decode(re.sub("[\r\n]", "", text), validate=True).decode()
        except ValueError:
            raise _Problem(f": line {node.line}: {_shown(text)} is not the base64 form of a text") from None
    if node.tag not in ("", "!!bool", "!!int", "!!float", "!!null", "!!timestamp") or not (node.tag or node.plain):
        return "!!str", text
    tag, value = resolved(text, node.tag in ("", "!!timestamp"))
    if node.tag == "!!float" and tag == "!!int":
        tag, value = "!!float", float(value)
    if node.tag not in ("", tag):
        raise _Problem(f": line {node.line}: {_shown(text)} is no {node.tag}")
    if isinstance(value, float) and not math.isfinite(value):
        raise _Problem(f": line {node.line}: {text} is no number that Pulumi takes. Fix: write a finite number")
    return tag, value


def resolved(text: str, times: bool = True) -> tuple[str, Any]:
    """Return the tag and the value that a text has without quotes, such as ("!!int", 15) for 017."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] == ".":
        value = float(text.replace("_", "")) if _FLOAT_WITH_A_POINT_FIRST.fullmatch(text) else math.inf
        return ("!!float", value) if math.isfinite(value) else ("!!str", text)
    if text[0] not in "+-0123456789":
        return "!!str", text
    if times and (time := _time(text)):
        return "!!timestamp", time
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


_TIME = re.compile(
    r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})"
    r"(?:(?P<t>[Tt]| +)([0-9]{1,2}):([0-9]{1,2}):([0-9]{1,2})(?:[.,]([0-9]+))?(?P<zone>Z|[-+][0-9]{2}:[0-9]{2})?)?"
)


def _time(text: str) -> str | None:
    """Return a time as Go prints it; None where the text is no time to yaml.v3 (parseTimestamp in resolve.go)."""
    match = _TIME.fullmatch(text)
    # after a T there is a zone, after a space there is none
    if not match or bool(match["zone"]) != ((match["t"] or " ")[0] != " "):
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.group(1, 2, 3, 5, 6, 7))
    if not (1 <= month <= 12 and 1 <= day <= calendar.monthrange(year or 4, month)[1]):
        return None
    zone = match["zone"] or "Z"
    if hour > 23 or minute > 59 or second > 59 or zone[1:3] > "24" or zone[4:] > "60":
        return None
    fraction = (match[8] or "")[:9].rstrip("0")
    ahead = 0 if zone == "Z" else int(zone[1:3]) * 60 + int(zone[4:])
    offset = f"{zone[0]}{ahead // 60:02}{ahead % 60:02}"
    # Go names a zone by its offset, or by its name where that is the machine's own zone
    zone = f"{offset} {offset}" if ahead else "+0000 UTC"
    return f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{'.' + fraction if fraction else ''} {zone}"


# --- values to what the program gets ------------------------------------------------------------------------------------


def _configuration(text: str, project: str) -> Configuration:
    """Return what a stack file's text configures. Raises _Problem."""
    root = _document(text)
    document = _value(root, _Budget())
    if document is None:
        return {}, []
    if not isinstance(document, dict):
        raise _Problem(": a stack file is a map, such as `config: {cluster: {mode: create}, services: …}`")
    _check_top(root, document)
    config = document.get("config")
    if not isinstance(config, dict | None):
        raise _Problem(": config is a map, such as `config: {cluster: {mode: create}, services: …}`")
    values: dict[str, str] = {}
    written: dict[str, str] = {}
    secret: list[str] = []
    for key, value in (config or {}).items():
        name = _full(key, project)
        if name in values:
            raise _Problem(f": {_shown(written[name])} and {_shown(key)} are the same key. Fix: keep one of them")
        written[name] = key
        shown, is_secret = _without_secrets(value)
        values[name] = shown if isinstance(shown, str) else _text(shown)
        if is_secret:
            secret.append(name)
    return values, secret


def _check_top(root: _Node, document: dict[str, Any]) -> None:
    """Refuse a key at the top that the CLI would pass over in silence, unless it holds anchors. Raises _Problem."""
    holders = {_key(key) for key, value in _pairs(root) if value.anchors}
    for key in document:
        if key in TOP_KEYS or key in holders or key.startswith("x-"):
            continue
        near = get_close_matches(key.lower(), TOP_KEYS, n=1)
        fix = f"write {near[0]}" if near else "put it under config, or begin it with x- where it holds anchors or notes"
        raise _Problem(f": Pulumi reads no key {_shown(key)} at the top of a stack file. Fix: {fix}")


def _full(key: str, project: str) -> str:
    """Return a key with its prefix (ParseKey in sdk/go/common/resource/config/key.go). Raises _Problem."""
    parts = key.split(":")
    if "" in parts:
        raise _Problem(f": config has the key {_shown(key)}. Fix: write a name, such as gcp:project")
    if len(parts) == 1:
        return f"{project}:{key}"
    if len(parts) == 3 and parts[1] == "config":
        return f"{parts[0]}:{parts[2]}"
    if len(parts) > 2:
        raise _Problem(f": config has the key {_shown(key)}. Fix: write one colon at most, such as gcp:project")
    return key


def _without_secrets(value: Any) -> tuple[Any, bool]:
    """Return a value with a text in place of each encrypted one, and whether there was one."""
    if isinstance(value, dict):
        if len(value) == 1 and isinstance(value.get("secure"), str):
            return HELD_ELSEWHERE, True
        pairs = {key: _without_secrets(item) for key, item in value.items()}
        return {key: item for key, (item, _) in pairs.items()}, any(found for _, found in pairs.values())
    if isinstance(value, list):
        items = [_without_secrets(item) for item in value]
        return [item for item, _ in items], any(found for _, found in items)
    return value, False


def _text(value: Any) -> str:
    """Return the text that the program gets for a value."""
    if value is None or isinstance(value, str):
        return value or ""
    return str(value) if type(value) is int else in_json(value)


def in_json(value: Any) -> str:
    """Return JSON as Go's encoding/json writes it."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{in_json(key)}:{in_json(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(in_json, value)) + "]"
    if isinstance(value, str):
        text = json.dumps(value, ensure_ascii=False)
        return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found.group()):04x}", text)
    if type(value) is int:
        # the CLI reads back what it wrote, and has no unsigned numbers then
        return str(value) if value < 1 << 63 else in_json(float(value))
    if isinstance(value, float):
        digits = repr(value)
        if value == 0 or 1e-6 <= abs(value) < 1e21:
            return str(int(Decimal(digits))) if value.is_integer() else f"{Decimal(digits):f}"
        return digits.replace("e-0", "e-")
    return json.dumps(value)
