"""Upstream's data, which lies beside the repository and is not part of it."""

import functools
import pathlib
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
UPSTREAM = ROOT.parent / "shared" / "upstream"


@functools.cache
def load(path: str) -> Any:
    """A YAML file of upstream's, to be read only; the test is skipped where there is none."""
    file = UPSTREAM / path
    if not file.exists():
        pytest.skip(f"upstream's {path} is not at ../shared/upstream")
    # the CRDs have tens of thousands of lines: libyaml takes one second where Python takes ten
    return yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
