"""Check of LoRA adapters: the loader answers, names an adapter that does not exist, and is behind the API key."""

from __future__ import annotations

import json

from rayline_cli.verify.check import Verdict, verdict
from rayline_cli.verify.endpoint import status_text
from rayline_cli.verify.target import View

MISSING = "rayline-verify-no-such-adapter"
"""Name of an adapter that no bucket has."""
_FIX = "bring the stack up again; with another answer than 404, look at the replica's log, and at the workers' rights on the bucket"


def adapters(view: View) -> Verdict:
    """Check by the name of a missing adapter that a replica reads the bucket, and only for a request with the key."""
    model, location = next(iter(view.expected.adapters.items()))
    body = {"model": f"{model}:{MISSING}", "prompt": "a", "max_tokens": 1}
    request = {"path": "/v1/completions", "method": "POST", "body": body}
    missing, keyless, models = view.endpoint(request, request | {"auth": False}, {"path": "/v1/models"})
    problems = []
    if missing["status"] != 404 or f"{location}/{MISSING}" not in missing["text"]:
        problems.append(f"an adapter that does not exist gets {status_text(missing)}, and not 404 with its place in {location}")
    if view.expected.api_key and keyless["status"] != 401:
        problems.append(f"without the key it gets {status_text(keyless)}: adapters are loaded before the key is checked")
    if models["status"] != 200:
        problems.append(f"GET /v1/models: {status_text(models)}")
        return verdict(False, "; ".join(problems), _FIX)
    loaded = [entry["id"] for entry in json.loads(models["text"])["data"] if entry["id"].startswith(f"{model}:")]
    seen = f"an adapter that does not exist gets HTTP 404 with its place in {location}"
    seen += ", and HTTP 401 without the key" if view.expected.api_key else ""
    seen += f"; loaded and listed: {', '.join(loaded)}" if loaded else "; no request has loaded an adapter yet"
    return verdict(not problems, "; ".join(problems) or seen, _FIX)
