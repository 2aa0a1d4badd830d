"""Checks of the endpoint as a client sees it: its models, a streamed completion, and the API key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rayline.facts.serve_flags import DIRECT_STREAMING
from rayline_cli.verify.check import Outcome, Verdict, verdict
from rayline_cli.verify.target import NotSeen, View

KEY_FIX = (
    "the endpoint asks for a key and has none, or not its own: put it in RAYLINE_API_KEY "
    "(with --stack it is found where the service runs)"
)


def served_models(view: View) -> list[str]:
    """What the stack declares, or for a bare address what it says of itself."""
    if view.expected.model_ids:
        return view.expected.model_ids
    (answer,) = view.endpoint({"path": "/v1/models"})
    if answer["status"] != 200:
        raise NotSeen(f"GET /v1/models: {status_text(answer)}")
    return [model["id"] for model in json.loads(answer["text"])["data"]]


def status_text(answer: Mapping[str, Any]) -> str:
    """Return the status of an answer, or why there is none."""
    return f"HTTP {answer['status']}" if answer["status"] else answer["text"]


def models(view: View) -> Verdict:
    """Check that the endpoint lists the declared models."""
    (answer,) = view.endpoint({"path": "/v1/models"})
    listed = [model["id"] for model in json.loads(answer["text"])["data"]] if answer["status"] == 200 else []
    missing = [model for model in view.expected.model_ids if model not in listed]
    return verdict(
        bool(listed) and not missing,
        f"GET /v1/models: {status_text(answer)}"
        + (f", lists {', '.join(listed)}" if listed else "")
        + (f", lacks {', '.join(missing)}" if missing else ""),
        KEY_FIX if answer["status"] == 401 else "look at the replica's log",
    )


def completion(view: View) -> dict[str, Any]:
    """Return the body of a completion of 16 tokens."""
    # min_tokens: a model may end at once, and a stream of one chunk proves nothing
    return {"model": served_models(view)[0], "prompt": "a", "max_tokens": 16, "min_tokens": 16}


def why_broken(said: Mapping[str, Any]) -> str:
    """What is wrong with a stream, or ""."""
    if said["status"] != 200:
        return f"POST /v1/completions: HTTP {said['status']} {said['text'][:300]}".strip()
    if said["events"] < 2 or not said["done"] or said["text"]:
        end = "with" if said["done"] else "without"
        return f"the stream had {said['events']} events and ended {end} [DONE] {said['text']}".strip()
    return ""


def streamed(view: View) -> Verdict:
    """Check that a streamed completion comes in several events, to its end."""
    job = {"do": "stream", "base": view.target.endpoint, "path": "/v1/completions", "body": completion(view)}
    said = view.target.run_client(job)
    return verdict(
        not why_broken(said),
        why_broken(said) or f"{said['events']} events and [DONE] in {said['seconds']:.2f} s",
        KEY_FIX if said["status"] == 401 else "look at the replica's log, and at what stands before the endpoint",
    )


# Requests that reach the model or say something about it, asked for whatever the application says of itself.
_GUARDED = (
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/invocations"),
    ("POST", "/tokenize"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
)


def api_key(view: View) -> Verdict:
    """Check that no route answers without the key, and that those for clients answer with it."""
    if not view.expected.api_key:
        return Outcome.NOT_APPLICABLE, "the service declares no gate (api.key: false): the endpoint is open", ""
    (described,) = view.endpoint({"path": "/openapi.json"})
    paths = json.loads(described["text"])["paths"] if described["status"] == 200 else {}
    mounted = [(method.upper(), path) for path, methods in paths.items() for method in methods]
    # a path's parameters may be anything: nobody gets as far as to read them
    asked = list(dict.fromkeys([*_GUARDED, *((method, re.sub(r"{.*?}", "x", path)) for method, path in mounted)]))
    answers = view.endpoint(
        *(
            {"path": path, "method": method, "auth": False} | ({"body": {}} if method == "POST" else {})
            for method, path in asked
        )
    )
    open_ones = [
        f"{method} {path}: {status_text(answer)}"
        for (method, path), answer in zip(asked, answers, strict=True)
        if answer["status"] != 401
    ]
    tokenize = {"model": served_models(view)[0], "prompt": "a"}
    models, tokens = view.endpoint({"path": "/v1/models"}, {"path": "/tokenize", "method": "POST", "body": tokenize})
    return verdict(
        not open_ones and bool(mounted) and (models["status"], tokens["status"]) == (200, 200),
        f"without the key {', '.join(open_ones) or f'HTTP 401 on all of {len(asked)} routes'}; "
        f"with it {status_text(models)} on /v1/models, {status_text(tokens)} on /tokenize"
        + ("" if mounted else f", but {status_text(described)} on /openapi.json, which lists the routes"),
        f"the gate stands in vLLM's own app: {DIRECT_STREAMING} must be on, and the replica's engine_kwargs must name it",
    )
