"""Access tokens for Google's REST APIs, and their errors. No process gets a token as an argument."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

# Pulumi's Google provider reads it as well (preflight.py).
TOKEN_VARIABLE = "GOOGLE_OAUTH_ACCESS_TOKEN"
# The first is a person's or a job's own login, the second a key's file or a workload identity.
_COMMANDS = (("auth", "print-access-token"), ("auth", "application-default", "print-access-token"))
# gcloud may ask its server for a token.
_SECONDS = 60


def access_token(environment: Mapping[str, str] | None = None) -> str:
    """Return the token of GOOGLE_OAUTH_ACCESS_TOKEN, else gcloud's; empty where there is none."""
    environment = os.environ if environment is None else environment
    # httpx refuses another one in a header
    if (token := environment.get(TOKEN_VARIABLE, "")) and token.isascii():
        return token
    gcloud = shutil.which("gcloud", path=environment.get("PATH"))
    for command in _COMMANDS if gcloud else ():
        try:
            done = subprocess.run(
                [str(gcloud), *command, "--quiet"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
                env=dict(environment),
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0 and (token := done.stdout.strip()):
            return token
    return ""


def error_of(answer: httpx.Response) -> Mapping[str, Any]:
    """Return the error in an answer of Google's, with its `message` and `details`; empty for an answer of another form."""
    try:
        error = answer.json()["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {}
