"""Variables of Ray and vLLM and engine arguments of the default runtime, generated from the installed packages."""

import json
import pathlib
from functools import cache
from typing import NamedTuple

FILE = pathlib.Path(__file__).with_name("runtime.json")


class RuntimeFacts(NamedTuple):
    """Names in one pair of versions. A variable that is not here is not read; some that are here are no variables."""

    ray: str
    vllm: str
    variables: frozenset[str]
    engine_arguments: dict[str, list[str]]
    """Kinds of values by the argument's name: bool, int, float, text, list, map or any."""
    architectures_without_lora: frozenset[str]
    """Architectures of config.json that vLLM runs without LoRA adapters."""


@cache
def runtime_facts() -> RuntimeFacts:
    """Return the facts of the default runtime."""
    read = json.loads(FILE.read_text())
    return RuntimeFacts(
        *(read["ray"], read["vllm"], frozenset(read["variables"])),
        *(read["engine_arguments"], frozenset(read["architectures_without_lora"])),
    )
