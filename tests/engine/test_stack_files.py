"""The reader of stack files against Pulumi's CLI: the same file, and what a real program gets of it."""

import json
import pathlib
import random
import string

import pytest

from rayline_cli.stack_files import MOST_HANDED_OVER, ProgramError, read_stack_file
from tests.engine.conftest import a_project
from tests.pulumi_project import PulumiProject
from tests.stack_file_cases import READ, REFUSED, REFUSED_HERE, VALUES

pytestmark = pytest.mark.engine

PROGRAM = """
import json, os, pathlib
pathlib.Path("seen.json").write_text(json.dumps([os.environ["PULUMI_CONFIG"], os.environ["PULUMI_CONFIG_SECRET_KEYS"]]))
"""
# Pulumi.yaml of the project asks for a cluster and services, which these files are not about.
PROJECT = """
name: rayline
runtime: {name: python, options: {toolchain: pip, virtualenv: .venv}}
stackConfigDir: stacks
config:
  in_all: {default: 5, type: integer}
  gcp:zone: {value: z}
"""
IN_ALL = {"rayline:in_all": "5", "gcp:zone": "z"}


Configuration = tuple[dict[str, str], list[str]]


class Reader:
    """A stack whose program writes down what it gets."""

    def __init__(self, project: PulumiProject) -> None:
        self.project = project
        self.salt = project.path.read_bytes().splitlines()[-1]
        (project.folder / "Pulumi.yaml").write_text(PROJECT)
        (project.folder / "__main__.py").write_text(PROGRAM)
        # Go writes the name of the machine's own zone in place of an offset
        self.project.environment["TZ"] = "UTC"

    def ours(self, content: bytes) -> Configuration:
        """What this project's reader makes of a stack file. Raises ProgramError."""
        self.project.path.write_bytes(content)
        return read_stack_file(self.project.path, self.project.folder)

    def theirs(self, content: bytes) -> Configuration:
        """What a program gets of a stack file; an AssertionError where it does not run."""
        self.project.path.write_bytes(content)
        seen = self.project.folder / "seen.json"
        seen.unlink(missing_ok=True)
        self.project.pulumi("preview", "--stack", self.project.stack)
        values, secret = json.loads(seen.read_text())
        return json.loads(values), sorted(json.loads(secret))

    def refuses(self, content: bytes) -> bool:
        """Whether the CLI reads no configuration in a stack file."""
        self.project.path.write_bytes(content)
        return self.project.run("config", "--stack", self.project.stack).code != 0


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, stand_ins: pathlib.Path) -> Reader:
    folder = tmp_path_factory.mktemp("reader")
    return Reader(a_project(folder, "kind", stand_ins))


def test_a_program_gets_every_value_as_this_reader_says(reader):
    content = "config:\n" + "".join(
        f"  a{number}: {written}\n  b{number}:\n    c: {written}\n  d{number}:\n    - {written}\n    - x\n"
        for number, (written, _, _) in enumerate(VALUES)
    )
    values, secret = reader.theirs(content.encode())
    for number, (written, text, in_json) in enumerate(VALUES):
        found = [values[f"rayline:{key}{number}"] for key in "abd"]
        assert found == [text, f'{{"c":{in_json}}}', f'[{in_json},"x"]'], written
    assert secret == []
    assert reader.ours(content.encode()) == (values, secret)


@pytest.mark.parametrize(("content", "values"), READ.values(), ids=READ)
def test_a_program_gets_of_a_file_what_this_reader_says(reader, content, values):
    assert reader.theirs(content) == (IN_ALL | values, [])
    # the CLI may have written the file in the meantime, and then says the same in another way
    assert read_stack_file(reader.project.path, reader.project.folder)[0] == IN_ALL | values


SEED = 20261128
WORDS = ["0", "1", "7", "8", "_", ".", "e", "E", "+", "-", "x", "o", "b", "f", ":", "T", "Z", "2026-01", "08:00", "1e"]
WORDS += ["true", "null", "~", "no", "nan", "inf", " ", "=", "é", "<", "#", "'"]


def a_value(chance: random.Random, depth: int = 3) -> str:
    """Some YAML in one line."""
    kind = chance.random()
    if depth == 0 or kind < 0.5:
        plain = "".join(chance.choice(WORDS) for _ in range(chance.randint(1, 5)))
        return plain if kind < 0.4 else json.dumps(plain)
    if kind < 0.7:
        return "[" + ", ".join(a_value(chance, depth - 1) for _ in range(chance.randint(0, 3))) + "]"
    keys = chance.sample([*string.ascii_letters, "5", "on", "'no'"], chance.randint(0, 3))
    pairs = [f"{key}: {a_value(chance, depth - 1)}" for key in keys]
    return "{" + ", ".join([*pairs, *chance.choice([[], [], ["<<: *one"], ["<<: [*one, *two]"]])]) + "}"


def test_a_program_gets_values_of_any_form_as_this_reader_says(reader):
    chance = random.Random(SEED)
    head = b"x-m: [&one {a: 017, on: [yes]}, &two {a: 1e3, z: 1_000}]\nconfig:\n"
    lines: list[bytes] = []
    while len(lines) < 600:
        line = f"  k{len(lines)}: {a_value(chance)}\n".encode()
        try:
            reader.ours(head + line)
        except ProgramError:
            continue
        lines.append(line)
    content = head + b"".join(lines)
    assert reader.theirs(content) == reader.ours(content)


def test_an_encrypted_value_is_a_secret_wherever_it_is(reader):
    reader.project.path.write_text("config: {a: 1, b: {c: [x, y], d: 2}}")
    for path in ("a", "b.c[1]"):
        reader.project.pulumi("config", "set", "--stack", "kind", "--secret", "--path", path, stdin="hidden")
    content = reader.project.path.read_bytes()
    values, secret = reader.theirs(content)
    assert values == IN_ALL | {"rayline:a": "hidden", "rayline:b": '{"c":["x","hidden"],"d":2}'}
    assert secret == ["rayline:a", "rayline:b"]
    ours = reader.ours(content)
    assert ours == ({key: text.replace("hidden", "held elsewhere") for key, text in values.items()}, secret)


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_the_cli_refuses_what_this_reader_refuses(reader, content, message):
    assert reader.refuses(content)


@pytest.mark.parametrize(("content", "message"), REFUSED_HERE.values(), ids=REFUSED_HERE)
def test_the_cli_reads_what_only_this_reader_refuses(reader, content, message):
    assert not reader.refuses(content)


def test_a_program_gets_at_most_what_this_reader_allows(reader):
    room = MOST_HANDED_OVER - len(json.dumps(IN_ALL | {"rayline:a": ""}, separators=(",", ":")))
    content = f"config: {{a: {'x' * room}}}".encode()
    assert len(reader.theirs(content)[0]["rayline:a"]) == room
    assert reader.ours(content) == reader.theirs(content)
    longer = content.replace(b"x}", b"xx}")
    with pytest.raises(ProgramError, match="at most 128 KiB"):
        reader.ours(longer)
    reader.project.path.write_bytes(longer)
    done = reader.project.run("preview", "--stack", "kind")
    assert done.code != 0
    assert "argument list too long" in done.output


def test_the_cli_writes_out_anchors_where_it_writes_the_file(reader):
    # docs/configuration.md says so
    reader.project.path.write_bytes(READ["merge keys"][0])
    reader.project.pulumi("config", "set", "--stack", "kind", "other", "1")
    text = reader.project.path.read_text()
    assert "x-common" not in text
    assert "<<" not in text
    assert "rayline:services:" in text
    assert reader.ours(text.encode())[0] == IN_ALL | READ["merge keys"][1] | {"rayline:other": "1"}

    kept = READ["merge keys"][0] + reader.salt + b"\n"
    assert reader.theirs(kept)[0] == IN_ALL | READ["merge keys"][1]
    assert reader.project.path.read_bytes() == kept


def test_a_new_stack_gets_its_file_rewritten_as_the_readme_says(reader: Reader) -> None:
    path = reader.project.folder / "stacks" / "Pulumi.other.yaml"
    path.write_text("# stays\nconfig:\n  # stays\n  gcp:project: p\n  services: {b: 2, a: 1} # goes\n")
    reader.project.pulumi("stack", "init", "other")
    expected = "# stays\nconfig:\n  # stays\n  gcp:project: p\n  rayline:services:\n    a: 1\n    b: 2\nencryptionsalt: "
    assert path.read_text().startswith(expected)
