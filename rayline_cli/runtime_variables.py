"""Write components/rayline/facts/runtime_variables.py from the installed Ray and vLLM: every variable that they may read.

    python -m rayline_cli.runtime_variables

A name counts when it stands as a whole text in their Python code or in Ray's programs, where RAY_CONFIG of
src/ray/common/ray_config_def.h leaves it. Some such texts are no variables. What matters is the reverse: a name that stands nowhere is
not read.
"""

import importlib.metadata
import importlib.util
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).resolve().parents[1] / "components" / "rayline" / "facts" / "runtime_variables.py"
NAME = rb"(?:RAY|RAYLLM|VLLM)_[A-Za-z0-9_]*[A-Za-z0-9]"
IN_PYTHON = re.compile(rb"(?<!\w)(?P<quote>[\"'])(?P<name>" + NAME + rb")(?P=quote)")
# A text in a program ends with a zero byte. Only Ray's names stand there; a fixed beginning is found four times as fast.
IN_PROGRAMS = re.compile(rb"RAY_[A-Za-z0-9_]*[A-Za-z0-9](?=\x00)")
PART_OF_A_WORD = re.compile(rb"\w")
PROGRAMS = ("_raylet.so", "core/src/ray/gcs/gcs_server", "core/src/ray/raylet/raylet")


def folder(package: str) -> Path:
    """Where an installed package lies. It is not imported."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"{package} is not installed. Fix: make .venv/bin/.installed-all")
    return Path(spec.submodule_search_locations[0])


def _found() -> Iterator[bytes]:
    ray = folder("ray")
    for package in (ray, folder("vllm")):
        for path in package.rglob("*.py"):
            yield from (match["name"] for match in IN_PYTHON.finditer(path.read_bytes()))
    for program in PROGRAMS:
        code = (ray / program).read_bytes()
        for match in IN_PROGRAMS.finditer(code):
            if not PART_OF_A_WORD.match(code, match.start() - 1):
                yield match[0]


def names() -> list[str]:
    """Every such name in the installed packages, sorted."""
    return sorted({name.decode() for name in _found()})


def versions() -> tuple[str, str]:
    """Versions of the installed Ray and vLLM."""
    # vLLM for the CPU is a distribution of its own with the same code
    vllm = importlib.metadata.packages_distributions()["vllm"][0]
    return importlib.metadata.version("ray"), importlib.metadata.version(vllm)


def module() -> str:
    """The text of the module."""
    ray, vllm = versions()
    table = "\n".join(textwrap.wrap(" ".join(names()), 128, break_long_words=False, break_on_hyphens=False))
    return f'''"""Names of variables in Ray {ray} and vLLM {vllm}. Written by `python -m rayline_cli.runtime_variables`, which says how.

A name that is not here is not read. Some that are here are no variables.
"""

RAY_VERSION, VLLM_VERSION = "{ray}", "{vllm}"

NAMES = frozenset(
    """
{table}
""".split()  # noqa: SIM905 - a list would be 1,300 lines
)
'''


if __name__ == "__main__":
    FILE.write_text(module())
