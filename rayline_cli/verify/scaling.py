"""Check of autoscaling by the time to first token: Prometheus has the metric of every running replica."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from rayline_cli.verify.check import Verdict, verdict
from rayline_cli.verify.endpoint import status_text
from rayline_cli.verify.target import View

_METRIC = "ray_vllm_time_to_first_token_seconds_count"
_FIX = "let Prometheus read the metrics port of the workers, and the head reach Prometheus"


def latency(view: View) -> Verdict:
    """Check from the head that Prometheus knows the replicas whose time to first token decides."""
    problems, seen = [], []
    for application, deployment, policy in view.expected.latency_policies:
        state = view.details["applications"].get(application, {}).get("deployments", {}).get(deployment, {})
        running = {replica["replica_id"] for replica in state.get("replicas", []) if replica["state"] == "RUNNING"}
        query = f"count by (ReplicaId) ({_METRIC}{{model_name={json.dumps(policy['model'])}}})"
        request = {"path": f"/api/v1/query?query={quote(query)}", "auth": False}
        (answer,) = view.target.nodes[0].run({"do": "ask", "base": policy["prometheus"].rstrip("/"), "requests": [request]})
        known = _replicas(answer) & running
        if answer["status"] != 200:
            problems.append(f"{policy['prometheus']} does not answer the head: {status_text(answer)}")
        elif missing := sorted(running - known):
            problems.append(f"{policy['prometheus']} has no {_METRIC} of replica {', '.join(missing)} of {policy['model']}")
        seen.append(f"{policy['prometheus']} has {_METRIC} of {len(known)} replica(s) of {policy['model']}")
    return verdict(not problems, "; ".join(problems or seen), _FIX)


def _replicas(answer: Mapping[str, Any]) -> set[str]:
    try:
        return {row["metric"]["ReplicaId"] for row in json.loads(answer["text"])["data"]["result"]}
    except (ValueError, KeyError, TypeError):
        return set()
