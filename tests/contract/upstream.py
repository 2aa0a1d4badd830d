"""Upstream's data, which lies beside the repository and is not part of it."""

import pathlib
from typing import Any

import pytest
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
UPSTREAM = ROOT.parent / "shared" / "upstream"


def load(path: str) -> Any:
    """A YAML file of upstream's; the test is skipped where there is none."""
    file = UPSTREAM / path
    if not file.exists():
        pytest.skip(f"upstream's {path} is not at ../shared/upstream")
    return yaml.safe_load(file.read_text())
