"""The commands that this package adds to `rayline`."""

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from rayline_cli import cli

HEAVY = ("httpx", "psutil", "pulumi", "pydantic", "ray", "vllm", "yaml")


@pytest.mark.parametrize("command", ["bench", "faults"])
def test_a_command_explains_itself_with_an_example(command: str):
    result = CliRunner().invoke(cli.app, [command, "--help"])
    assert result.exit_code == 0
    assert "Example: rayline " in " ".join(result.output.split())


def test_the_help_lists_both_commands_and_imports_nothing_heavy():
    code = f"""
import sys
from typer.testing import CliRunner
from rayline_cli import cli
said = CliRunner().invoke(cli.app, ["--help"]).output
assert "bench" in said and "faults" in said
print([name for name in {HEAVY} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "[]\n", done.stdout + done.stderr
