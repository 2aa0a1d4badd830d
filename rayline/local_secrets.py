"""Secrets of the local runtime: random values kept in a file that only its owner can read.

In a cluster Pulumi makes them and keeps them encrypted; here the declared Secrets' names and keys decide what is made.
"""

import json
import os
import pathlib
import secrets as random_source
from collections.abc import Mapping, Sequence

from components.ray_service_manifest import HF_TOKEN_KEY

FILE = "secrets.json"


def secret_values(declared: Mapping[str, Sequence[str]], state_dir: pathlib.Path) -> dict[tuple[str, str], str]:
    """A value for every (Secret, key): kept from an earlier run, else made now. The Hugging Face token is $HF_TOKEN."""
    path = state_dir / FILE
    known: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}
    values: dict[tuple[str, str], str] = {}
    for name, keys in declared.items():
        for key in keys:
            if key == HF_TOKEN_KEY:
                values[name, key] = os.environ.get("HF_TOKEN", "")
                continue
            value = known.setdefault(name, {}).setdefault(key, random_source.token_urlsafe(36))
            values[name, key] = value
    state_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)  # a file that is there keeps its own mode otherwise
    with os.fdopen(descriptor, "w") as file:
        json.dump(known, file)
    return values
