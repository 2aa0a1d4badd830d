"""The plan of a stack as `rayline plan` prints it into a pipe."""

import io

from rich.console import Console

from rayline_cli import offline, plan_view

STACK = "dev-l4"


def card() -> str:
    """Return the command and its output, without warnings and the tree of resources."""
    output = io.StringIO()
    view = plan_view.program_view(offline.record(STACK), tree=False, plain=True)
    Console(file=output, width=10_000, highlight=False).print(view)
    lines = [line.rstrip() for line in output.getvalue().strip().splitlines() if not line.startswith("! ")]
    return "\n".join(["```console", f"$ rayline plan --stack {STACK}", *lines, "```"])


PARTS = {"plan": card}
