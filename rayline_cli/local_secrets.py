"""Secrets of the local runtime: random values in a file that only its owner can read.

In a cluster Pulumi makes them and keeps them encrypted. Here there is one for each key of the declared Secrets.
"""

import json
import os
import pathlib
import secrets as random_source
from collections.abc import Mapping, Sequence

from rayline.facts.labels import HF_TOKEN_KEY
from rayline.service.api_key import API_KEY_KEY, PREVIOUS_API_KEY_KEY, api_key_secret
from rayline.service.types import every_model
from rayline_cli import render
from rayline_cli.offline import Program

FILE = "secrets.json"


def stack_secrets(program: Program, state_dir: pathlib.Path) -> dict[tuple[str, str], str]:
    """Return a value for every (Secret, key) that the stack's program declares, kept in `state_dir`."""
    models = every_model(program.plan.services)
    generations = {api_key_secret(model.name, model.application): model.asked.api.key_generation for model in models}
    return secret_values(render.secrets(program), state_dir, generations)


def secret_values(
    declared: Mapping[str, Sequence[str]], state_dir: pathlib.Path, generations: Mapping[str, int] | None = None
) -> dict[tuple[str, str], str]:
    """Return a value for every (Secret, key): from an earlier run, else a new one. The Hugging Face token is $HF_TOKEN.

    `generations` maps the Secret of a service's API keys to api.key_generation (else 1), which decides the current and the
    previous key. As in a cluster, the generations before these two are forgotten.
    """
    path = state_dir / FILE
    known: dict[str, dict[str, str]] = json.loads(path.read_text()) if path.exists() else {}
    kept: dict[str, dict[str, str]] = {}
    values: dict[tuple[str, str], str] = {}
    for name, keys in declared.items():
        generation = (generations or {}).get(name, 1)
        for key in keys:
            if key == HF_TOKEN_KEY:
                values[name, key] = os.environ.get("HF_TOKEN", "")
                continue
            stored = key
            if key == API_KEY_KEY:
                stored = _stored(generation)
            elif key == PREVIOUS_API_KEY_KEY:
                if generation == 1:
                    values[name, key] = ""
                    continue
                stored = _stored(generation - 1)
            value = known.get(name, {}).get(stored) or random_source.token_urlsafe(36)
            kept.setdefault(name, {})[stored] = values[name, key] = value
    state_dir.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)  # a file that is there keeps its own mode otherwise
    with os.fdopen(descriptor, "w") as file:
        json.dump(kept, file)
    return values


def _stored(generation: int) -> str:
    """Return the name of a generation of an API key in the file."""
    return API_KEY_KEY if generation == 1 else f"{API_KEY_KEY}-{generation}"
