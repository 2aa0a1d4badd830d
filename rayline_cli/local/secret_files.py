"""Mounted Secrets as files in a session's folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

SECRETS_FOLDER = "secrets"
"""Folder of mounted Secrets under the session's."""


def write_files(folder: Path, files: Mapping[str, str]) -> bool:
    """Makes the mounted Secrets under `folder` what `files` says, each file at once. Whether one changed."""
    changed = False
    home = folder / SECRETS_FOLDER
    for name, content in files.items():
        path = folder / name
        if path.is_file() and path.read_text() == content:
            continue
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        # hidden: who reads the folder takes each of its other files for a key
        scratch = path.with_name(f".{path.name}.new")
        descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        scratch.replace(path)
        changed = True
    for path in [path for path in home.rglob("*") if path.is_file()]:
        if str(path.relative_to(folder)) not in files:
            path.unlink()
            changed = True
    return changed
