"""Checks of the endpoint as a client sees it: its models, a streamed completion, and the API key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from rayline.facts.choices import Task
from rayline.facts.serve_flags import DIRECT_STREAMING
from rayline_cli.questions import QUESTIONS
from rayline_cli.verify.check import Verdict, not_applicable, verdict
from rayline_cli.verify.target import NotSeen, View

KEY_FIX = (
    "the request had no key, or a wrong one. Fix: put the endpoint's key in RAYLINE_API_KEY, or use --stack, which reads the key "
    "where the service runs"
)


def status_text(answer: Mapping[str, Any]) -> str:
    """Return the status of an answer, or why there is none."""
    return f"HTTP {answer['status']}" if answer["status"] else answer["text"]


def _listed(view: View) -> tuple[Mapping[str, Any], list[str]]:
    """Return the answer to GET /v1/models, and the models in it."""
    (answer,) = view.endpoint({"path": "/v1/models"})
    return answer, [model["id"] for model in json.loads(answer["text"])["data"]] if answer["status"] == 200 else []


def models(view: View) -> Verdict:
    """Check that the endpoint lists the declared models."""
    answer, listed = _listed(view)
    missing = [model for model in view.expected.model_ids if model not in listed]
    seen = f"GET /v1/models: {status_text(answer)}"
    seen += f", lists {', '.join(listed)}" if listed else ""
    seen += f", lacks {', '.join(missing)}" if missing else ""
    return verdict(bool(listed) and not missing, seen, KEY_FIX if answer["status"] == 401 else "look at the replica's log")


def _first_model(view: View) -> str:
    """Return the first declared model, or the first listed one where only the address is known. Raises NotSeen."""
    if view.expected.model_ids:
        return view.expected.model_ids[0]
    answer, listed = _listed(view)
    if answer["status"] != 200:
        raise NotSeen(f"GET /v1/models: {status_text(answer)}")
    return listed[0]


def probe(view: View) -> dict[str, Any]:
    """Return path and body of the request that proves a service: a streamed completion of 16 tokens, or its task's question."""
    if question := QUESTIONS.get(view.task):
        return {"path": question.path, "body": {"model": _first_model(view), **question.body}}
    # A model may end at once, and a stream of one chunk proves nothing. A prefill replica refuses min_tokens: it makes one token.
    body = {"model": _first_model(view), "prompt": "a", "max_tokens": 16, "ignore_eos": True, "stream": True}
    return {"path": "/v1/completions", "body": body}


def why_broken(said: Mapping[str, Any], task: Task) -> str:
    """Return the reason why the answer to a probe is incomplete; nothing where it is complete."""
    question = QUESTIONS.get(task)
    if said["status"] != 200 or (question and said["text"]):
        path = question.path if question else "/v1/completions"
        return f"POST {path}: HTTP {said['status']} {said['text'][:300]}".strip()
    if question:
        try:
            question.answer(json.loads(said["whole"]))
        except ValueError as error:
            return f"POST {question.path}: {error}"
        return ""
    if said["events"] < 2 or not said["done"] or said["text"]:
        end = "with" if said["done"] else "without"
        return f"the stream had {said['events']} events and ended {end} [DONE] {said['text']}".strip()
    return ""


def streamed(view: View) -> Verdict:
    """Check that a streamed completion comes in several events, to its end."""
    said = view.target.run_client({"do": "stream", "base": view.target.endpoint, **probe(view)})
    reason = why_broken(said, view.task)
    return verdict(not reason, reason or f"{said['events']} events and [DONE] in {said['seconds']:.2f} s", _fix(said))


def pooled(view: View) -> Verdict:
    """Check that the question of the task has a right answer."""
    said = view.target.run_client({"do": "stream", "base": view.target.endpoint, **probe(view)})
    if reason := why_broken(said, view.task):
        return verdict(False, reason, _fix(said))
    question = QUESTIONS[view.task]
    return verdict(True, f"POST {question.path} in {said['seconds']:.2f} s: {question.answer(json.loads(said['whole']))}", "")


def speculation(view: View) -> Verdict:
    """Check that tokens are drafted: an answer to a text that repeats itself counts them."""
    body = {"model": _first_model(view), "prompt": "one two three " * 16, "max_tokens": 64, "min_tokens": 64, "temperature": 0}
    (answer,) = view.endpoint({"path": "/v1/completions", "method": "POST", "body": body})
    if answer["status"] != 200:
        return verdict(False, f"POST /v1/completions: {status_text(answer)} {answer['text'][:300]}", _fix(answer))
    counted = (json.loads(answer["text"]).get("metrics") or {}).get("speculative_decoding") or {}
    drafted, accepted = counted.get("num_draft_tokens", 0), counted.get("num_accepted_draft_tokens", 0)
    evidence = f"{drafted} tokens were drafted for an answer of 64, and the model accepted {accepted}"
    return verdict(drafted > 0, evidence, "bring the stack up again: the engine drafts nothing")


def _fix(said: Mapping[str, Any]) -> str:
    return KEY_FIX if said["status"] == 401 else "look at the replica's log, and at proxies before the endpoint"


# Requests that reach the model or its data. They are sent whatever routes the application lists.
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
        return not_applicable("the service declares no gate (api.key: false): the endpoint is open")
    # parameters in a path may be anything: the gate refuses before they are read
    mounted = [(method.upper(), re.sub(r"{.*?}", "x", path)) for path, methods in view.routes.items() for method in methods]
    asked = [("POST", question.path)] if (question := QUESTIONS.get(view.task)) else []
    routes = list(dict.fromkeys([*_GUARDED, *asked, *mounted]))
    requests = [
        {"path": path, "method": method, "auth": False} | ({"body": {}} if method == "POST" else {}) for method, path in routes
    ]
    open_routes = [
        f"{method} {path}: {status_text(answer)}"
        for (method, path), answer in zip(routes, view.endpoint(*requests), strict=True)
        if answer["status"] != 401
    ]
    tokenize = {"model": _first_model(view), "prompt": "a"}
    models, tokens = view.endpoint({"path": "/v1/models"}, {"path": "/tokenize", "method": "POST", "body": tokenize})
    return verdict(
        not open_routes and bool(mounted) and (models["status"], tokens["status"]) == (200, 200),
        f"without the key {', '.join(open_routes) or f'HTTP 401 on all of {len(routes)} routes'}; "
        f"with it {status_text(models)} on /v1/models, {status_text(tokens)} on /tokenize"
        + ("" if mounted else f", but {status_text(view.description)} on /openapi.json, which lists the routes"),
        f"turn {DIRECT_STREAMING} on and name the gate in the replica's engine_kwargs: it stands in vLLM's own app",
    )
