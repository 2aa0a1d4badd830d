"""Every file in tests/bad_configs is refused by the real program, with the message that it asks for in its first lines.

`# expect: <text>` has to occur in the message, and a problem that no `# expect:` line asks for is one too many.
`# stack: <name>` names the stack where that is what is wrong.
"""

import functools
import pathlib
import re

import pytest
from pulumi.runtime import settings as pulumi_settings

from rayline_cli import offline

FILES = sorted((pathlib.Path(__file__).parent.parent / "bad_configs").glob("*.yaml"))
# The others fail before the program runs.
STACK_FILES = [path for path in FILES if not path.stem.startswith("file_")]


def remarks(text: str, kind: str) -> list[str]:
    return [line.removeprefix(f"# {kind}: ") for line in text.splitlines() if line.startswith(f"# {kind}: ")]


@functools.cache
def refusal(path: pathlib.Path) -> tuple[str, int]:
    """What the program says to a stack file, and how much it declared before. A failed test when it says nothing."""
    stack = (remarks(path.read_text(), "stack") or ["bad"])[0]
    with pytest.raises(offline.ProgramError) as caught:
        offline.record(stack, config=offline.read_stack_file(path))
    recorder = pulumi_settings.get_monitor()
    assert isinstance(recorder, offline._Recorder)
    return str(caught.value), len(recorder.declared)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_bad_configuration_is_refused_with_the_message_that_helps(path):
    text = path.read_text()
    expected = remarks(text, "expect")
    assert expected, f"{path.name} has to begin with `# expect: <text>`"
    message, _ = refusal(path)

    for part in expected:
        assert part in message
    for problem in message.splitlines()[1:] if path in STACK_FILES else ():
        assert any(part in problem for part in expected), f"nobody asked for: {problem}"
    assert "Traceback" not in message
    assert '.py", line' not in message
    for secret in re.findall(r"[\w-]*secret-value[\w-]*", text):
        assert secret not in message


@pytest.mark.parametrize("path", STACK_FILES, ids=lambda path: path.stem)
def test_nothing_is_declared_before_a_refusal(path):
    _, declared = refusal(path)
    assert declared == 0
