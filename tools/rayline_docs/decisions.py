"""The list of decision records in docs/decisions/README.md."""

from rayline_bench.tables import table
from rayline_cli.stack_names import PROJECT_ROOT

FOLDER = PROJECT_ROOT / "docs" / "decisions"


def _decisions_part() -> str:
    """Return a row for each record, with the title from its first line."""
    rows = []
    for path in sorted(FOLDER.glob("0*.md")):
        number = path.name[:4]
        title = path.read_text().partition("\n")[0].removeprefix("# ").removeprefix(number).lstrip(": ")
        rows.append((number, f"[{title}]({path.name})"))
    return table(("Number", "Decision"), rows)


PARTS = {"decisions": _decisions_part}
