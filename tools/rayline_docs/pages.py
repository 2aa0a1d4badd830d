"""The pages of docs/ that have generated parts, and what generates each part.

docs/configuration.md is generated as a whole, and so are stacks/schema.json and the facts of the installed runtime. In the other pages only what stands between `<!-- generated: NAME -->` and
`<!-- end -->` is, by the function that PARTS names; the prose around it is written by hand. What was measured comes from
rayline_bench.docs, all else from the product.
"""

import pathlib
import re
from collections.abc import Callable, Mapping

from rayline_bench import docs as measured
from rayline_cli.errors import FailedError
from rayline_cli.stack_names import PROJECT_ROOT

from . import decisions, editor_schema, hardware, high_throughput, models, runtime_facts
from .configuration import configuration

DOCS = PROJECT_ROOT / "docs"
PARTS: Mapping[str, Mapping[str, Callable[[], str]]] = {
    "hardware.md": hardware.PARTS,
    "models.md": {**models.PARTS, **measured.MODELS_PARTS},
    "high-throughput.md": high_throughput.PARTS,
    "upstream-differences.md": high_throughput.UPSTREAM_PARTS,
    "this-machine.md": high_throughput.LOCAL_PARTS,
    "measured/settings.md": high_throughput.SETTINGS_PARTS,
    "measured/throughput.md": measured.THROUGHPUT_PARTS,
    "measured/workloads.md": measured.WORKLOADS_PARTS,
    "measured/faults.md": measured.FAULTS_PARTS,
    "benchmark.md": measured.BENCHMARK_PARTS,
    "decisions/README.md": decisions.PARTS,
}


class DocsError(FailedError):
    """A page and PARTS do not agree about what is generated."""


def filled(page: str, text: str) -> str:
    """A page's text with its generated parts as the code has them now. Raises DocsError."""
    parts = PARTS.get(page, {})
    seen: list[str] = []

    def part(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in parts:
            raise DocsError(f"docs/{page}: nothing generates {name!r}; known: {', '.join(parts) or 'nothing'}")
        seen.append(name)
        return f"<!-- generated: {name} -->\n\n{parts[name]()}\n\n<!-- end -->"

    result = re.sub(r"<!-- generated: (?P<name>[\w-]+) -->.*?<!-- end -->", part, text, flags=re.DOTALL)
    if missing := [name for name in parts if name not in seen]:
        raise DocsError(f"docs/{page}: no place for {', '.join(missing)}: <!-- generated: NAME --> … <!-- end -->")
    return result


def pages() -> dict[pathlib.Path, str]:
    """Every page with something generated in it, as it should be."""
    wanted = {DOCS / "configuration.md": configuration(), editor_schema.FILE: editor_schema.text()}
    if runtime_facts.outdated():
        wanted[runtime_facts.FILE] = runtime_facts.text()
    for page in PARTS:
        path = DOCS / page
        wanted[path] = filled(page, path.read_text())
    return wanted


def stale() -> dict[pathlib.Path, str]:
    """The pages that differ from what the code says now, with the text that they should have."""
    return {path: text for path, text in pages().items() if not path.exists() or path.read_text() != text}


def write() -> list[pathlib.Path]:
    """Write the pages that are stale. Return their paths."""
    changed = stale()
    for path, text in changed.items():
        path.write_text(text)
    return list(changed)
