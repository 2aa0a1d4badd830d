"""Stack files are read as Pulumi's CLI reads them, and what cannot be read is refused in words."""

import json
import os
import pathlib
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from rayline_cli import offline, pulumi_yaml, stack_files
from rayline_cli.stack_files import ProgramError, read_stack, read_stack_file
from rayline_cli.stack_names import PROJECT_ROOT
from tests.stack_file_cases import READ, REFUSED, REFUSED_HERE, VALUES

STACK = "Pulumi.test.yaml"


@pytest.fixture
def read(tmp_path: pathlib.Path) -> Callable[[bytes | str], dict[str, str]]:
    """The configuration in the text of a stack file."""

    def configuration(content: bytes | str) -> dict[str, str]:
        path = tmp_path / STACK
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_stack_file(path)[0]

    return configuration


@pytest.fixture
def refusal(read: Callable[[bytes | str], dict[str, str]]) -> Callable[[bytes | str], str]:
    """What is said to the text of a stack file."""

    def message(content: bytes | str) -> str:
        with pytest.raises(ProgramError) as caught:
            read(content)
        return str(caught.value)

    return message


# --- what is read


@pytest.mark.parametrize(("written", "text", "in_json"), VALUES, ids=[written for written, _, _ in VALUES])
def test_a_value_means_what_it_means_to_pulumi(read, written, text, in_json):
    found = read(f"config:\n  a: {written}\n  b:\n    c: {written}\n  d:\n    - {written}\n    - x\n")
    assert found == {"rayline:a": text, "rayline:b": f'{{"c":{in_json}}}', "rayline:d": f'[{in_json},"x"]'}


@pytest.mark.parametrize(("content", "values"), READ.values(), ids=READ)
def test_a_file_is_read_as_pulumi_reads_it(read, content, values):
    assert read(content) == values


@pytest.mark.parametrize("parser", [yaml.CSafeLoader, yaml.SafeLoader])
def test_a_file_is_read_the_same_without_the_c_parser(read, monkeypatch, parser):
    monkeypatch.setattr(pulumi_yaml, "_PARSER", parser)
    for written, text, _ in VALUES:
        assert read(f"config:\n  a: {written}\n") == {"rayline:a": text}, written
    for name, (content, values) in READ.items():
        assert read(content) == values, name


def test_an_encrypted_value_is_a_secret_wherever_it_is(tmp_path):
    path = tmp_path / STACK
    path.write_text("config: {a: {secure: v1:abc}, b: {c: [{secure: v1:abc}, 1]}, d: {secure: 5}, e: 1}")
    values, secret = read_stack_file(path)
    assert secret == ["rayline:a", "rayline:b"]
    assert values == {
        "rayline:a": "held elsewhere",
        "rayline:b": '{"c":["held elsewhere",1]}',
        "rayline:d": '{"secure":5}',
        "rayline:e": "1",
    }


def test_a_stack_file_is_read_without_pulumi():
    code = "import sys; from rayline_cli import stack_files; sys.exit(any(m.split('.')[0] in ('pulumi', 'grpc', 'rayline') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], cwd=PROJECT_ROOT).returncode == 0


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Callable[..., pathlib.Path]:
    """A folder with a Pulumi.yaml and stack files."""

    def root(text: str, **stacks: str) -> pathlib.Path:
        (tmp_path / "Pulumi.yaml").write_text(text)
        (tmp_path / "stacks").mkdir()
        for name, content in stacks.items():
            (tmp_path / "stacks" / f"Pulumi.{name}.yaml").write_text(content)
        return tmp_path

    return root


def test_the_prefix_is_the_name_in_pulumi_yaml(project):
    root = project("name: another\nruntime: python\n", one="config: {a: 1, 'another:b': 2, 'rayline:c': 3}")
    assert read_stack("one", root)[0] == {"another:a": "1", "another:b": "2", "rayline:c": "3"}


def test_pulumi_yaml_gives_values_to_stacks_that_have_none(project):
    root = project(
        "name: rayline\nconfig:\n  a: {type: object}\n  b: {type: integer, default: 5}\n  c: text\n  gcp:region: {value: r}\n",
        one="config: {c: own}",
    )
    assert read_stack("one", root)[0] == {"rayline:b": "5", "rayline:c": "own", "gcp:region": "r"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("runtime: python\n", "Pulumi.yaml: the project has no name. Fix: write one, such as `name: rayline`"),
        ("name: 12345\n", "Pulumi.yaml: the project has no name"),
        ("name:\n", "Pulumi.yaml: the project has no name"),
        ("[]\n", "Pulumi.yaml: the project has no name"),
        ("name: [\n", "Pulumi.yaml is not YAML: line 2, column 1"),
    ],
)
def test_a_pulumi_yaml_that_cannot_be_read_is_refused_by_its_name(project, text, message):
    with pytest.raises(ProgramError, match=r"^Pulumi\.yaml") as caught:
        read_stack("one", project(text, one="config: {}"))
    assert message in str(caught.value)


# --- what is refused


@pytest.mark.parametrize(("content", "message"), (REFUSED | REFUSED_HERE).values(), ids=REFUSED | REFUSED_HERE)
def test_a_file_that_cannot_be_read_is_refused_in_words(refusal, content, message):
    said = refusal(content)
    assert message in said
    assert said.startswith(STACK)
    assert len(said) < 400


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "cannot be read: Is a directory"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read: No such file or directory"),
        (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels of symbolic links"),
        (lambda path: (path.touch(), os.truncate(path, 400 << 20)), "is larger than 1 MiB"),
        (lambda path: path.symlink_to("/dev/zero"), "is larger than 1 MiB"),
    ],
    ids=["folder", "broken link", "link to itself", "400 MiB", "without end"],
)
def test_what_is_no_readable_file_is_refused_in_words(tmp_path, make, message):
    path = tmp_path / STACK
    make(path)
    with pytest.raises(ProgramError) as caught:
        read_stack_file(path)
    assert str(caught.value).startswith(STACK)
    assert message in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_a_file_that_one_may_not_read_is_refused_in_words(tmp_path):
    path = tmp_path / STACK
    path.touch(mode=0)
    with pytest.raises(ProgramError, match="cannot be read: Permission denied"):
        read_stack_file(path)


MIB = 1 << 20
ALIASES = "".join(f"x-{b}: &{b} [{','.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
LARGE = {
    "a list as long as a file": "config: {a: [" + "1," * (MIB // 2 - 20) + "]}",
    "as many keys": "config:\n" + "".join(f"  k{number}: v\n" for number in range(70_000)),
    "100,000 levels of lists": "config: {a: " + "[" * 100_000,
    "100,000 levels of maps": "config: {a: " + "{b: " * 100_000,
    "1,400 levels of blocks": "config:\n" + "".join(" " * (level + 1) + "a:\n" for level in range(1400)),
    "a billion laughs": f"x-a: &a [1,1,1,1,1,1,1,1,1]\n{ALIASES}config: {{a: *i}}\n",
    "9 GB of text": f'x-a: &a "{"x" * 500_000}"\nconfig: {{a: [{"*a," * 18_000}]}}\n',
    "merges of merges": "x-a: &a {"
    + "".join(f"k{number}: 1," for number in range(200))
    + "}\nconfig: {a: {<<: ["
    + "*a," * 5000
    + "]}}",
    "directives": "".join(f"%TAG !a{number}! tag:x\n" for number in range(40_000)) + "---\n{}",
    "a number of a million digits": "config: {a: " + "9" * (MIB - 20) + "}",
    "a text larger than a program gets": f'config: {{a: "{"x" * 140_000}"}}',
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_a_file_without_end_is_refused_after_bounded_work_and_in_little_memory(monkeypatch, refusal, text):
    done: list[object] = []
    make = pulumi_yaml.YamlNode

    def counted(*values: Any, **named: Any) -> pulumi_yaml.YamlNode:
        done.append(values)
        return make(*values, **named)

    monkeypatch.setattr(pulumi_yaml, "YamlNode", counted)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = refusal(text[:MIB])
    # what is one too many is counted, and nothing after it; the file of the project is read as well
    assert len(done) <= pulumi_yaml.MOST_VALUES + 100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300 << 10
    assert len(said) < 400


def test_a_configuration_as_large_as_a_program_gets_is_read(read):
    # the engine tier gives the same to a real program
    room = stack_files.MOST_HANDED_OVER - len('{"rayline:a":""}')
    assert len(read(f"config: {{a: {'x' * room}}}")["rayline:a"]) == room
    with pytest.raises(ProgramError, match="a program on Linux gets at most 128 KiB"):
        read(f"config: {{a: {'x' * (room + 1)}}}")


def test_the_example_of_the_documentation_is_read(read):
    page = (PROJECT_ROOT / "docs" / "configuration.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    services = json.loads(read(example)["rayline:services"])
    common = {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4"}
    assert services == {"chat": common | {"replicas": 4}, "batch": common | {"nodes": {"capacity": "spot"}}}


# --- one of several


def test_a_stack_that_is_refused_does_not_stop_the_others(project):
    good = (PROJECT_ROOT / "stacks" / "Pulumi.local.yaml").read_text()
    root = project("name: rayline\n", good=good, list="config: [\n", latin="", wrong="config: {cluster: {mode: local}}")
    (root / "stacks" / "Pulumi.latin.yaml").write_bytes(b"config: {a: \xe9}")
    for name in ("__main__.py", "components", "rayline_cli"):
        (root / name).symlink_to(PROJECT_ROOT / name)
    programs, refused = offline.record_all(["list", "good", "latin", "wrong"], root)
    assert [program.stack for program in programs] == ["good"]
    assert list(refused) == ["list", "latin", "wrong"]
    for (name, error), part in zip(refused.items(), ("is not YAML", "is not UTF-8", "services: required"), strict=True):
        assert part in str(error), name


def test_a_stack_of_no_name_is_unknown(project):
    with pytest.raises(offline.UnknownStack, match=r"no stack 'two'\. Fix: one of one"):
        read_stack("two", project("name: rayline\n", one=""))


def test_a_map_is_given_only_where_there_is_one():
    values = {"rayline:cluster": '{"mode":"local"}', "rayline:services": "[1]", "rayline:head": "{", "rayline:weights": ""}
    assert stack_files.map_of(values, "cluster") == {"mode": "local"}
    for name in ("services", "head", "weights", "endpoint"):
        assert stack_files.map_of(values, name) == {}


def test_json_is_written_as_go_writes_it():
    value = {"b": ["<&>\u2028", 1.0, -0.0, 1e21, 1e-7], "a": None, "é": True}
    assert stack_files.in_json(value) == '{"a":null,"b":["\\u003c\\u0026\\u003e\\u2028",1,0,1e+21,1e-7],"é":true}'
    assert json.loads(stack_files.in_json(value)) == value
