"""A cluster for tests: a `kubectl` on PATH that answers as the stack `kind` would, with recorded answers of real pods."""

from __future__ import annotations

import base64
import copy
import functools
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from rayline_cli import offline, render
from rayline_cli.clients.kubernetes import Kubectl
from rayline_cli.verify import CheckResult, check_switches, expected
from rayline_cli.verify.cluster import ClusterTarget
from tests.unit.verify_service import Service

STAND_IN = '''#!{python} -IS
"""kubectl for tests: get KIND [NAME] [-l SELECTOR] -o json, and exec -i POD -c CONTAINER -- python -."""
import ast, json, pathlib, re, sys

folder = pathlib.Path(__file__).parent
state = json.loads((folder / "state.json").read_text())
arguments = sys.argv[1:]
with (folder / "calls").open("a") as file:
    print(json.dumps(arguments), file=file)
options = {{}}
while arguments[0].startswith("--"):
    options[arguments[0]] = arguments[1]
    arguments = arguments[2:]
for context in ("*", options.get("--context")):
    if context in state["refusals"]:
        sys.exit(state["refusals"][context])


def selected(labels, selector):
    for part in re.split(r",(?![^(]*\\))", selector):
        one = re.fullmatch(r"(\\S+) in \\((.*)\\)", part)
        if one and labels.get(one[1]) not in one[2].split(","):
            return False
        if not one and labels.get(part.split("=")[0]) != part.split("=")[1]:
            return False
    return True


if arguments[0] == "get":
    rows = state["objects"][arguments[1]]
    if not arguments[2].startswith("-"):
        found = [row for row in rows if row["metadata"]["name"] == arguments[2]]
        if not found:
            sys.exit(f'Error from server (NotFound): {{arguments[1]}}.ray.io "{{arguments[2]}}" not found')
        print(json.dumps(found[0]))
    else:
        selector = arguments[arguments.index("-l") + 1] if "-l" in arguments else ""
        rows = [row for row in rows if not selector or selected(row["metadata"]["labels"], selector)]
        print(json.dumps({{"items": rows}}))
    sys.exit()

if arguments[0] == "logs":
    sys.stdout.buffer.write(state["logs"][" ".join(arguments[1:])].encode("latin-1") + b"\\n")
    sys.exit()
if arguments[:2] == ["exec", arguments[1]] and arguments[4:7] == ["--", "sh", "-c"]:
    print(state["files"][arguments[1]])
    sys.exit()
assert arguments[:2] == ["exec", "-i"] and arguments[3] == "-c" and arguments[5:] == ["--", "python", "-"], arguments
pod = next(row for row in state["objects"]["pods"] if row["metadata"]["name"] == arguments[2])
assert arguments[4] in [one["name"] for one in pod["spec"]["containers"]]
script = sys.stdin.read()
compile(script, "sent", "exec")
if (folder / "drops").exists() and (left := int((folder / "drops").read_text())):
    (folder / "drops").write_text(str(left - 1))
    print('E1122 11:23:18.242206 10768 v2.go:130] "Waiting for server to close stdin failed"', file=sys.stderr)
    sys.exit("error: error reading from error stream: next reader: websocket: close 1006 (abnormal closure): unexpected EOF")
job, place = json.loads(ast.literal_eval(re.search(r"json\\.loads\\(('.*')\\)\\)\\)\\)$", script.strip())[1]))
assert not {{"token", "key"}} & set(place), "a secret on its way into a pod"
answers = state["pods"][arguments[2]]
if job["do"] == "ask":
    said = []
    for request in job["requests"]:
        key = request.get("method", "GET") + " " + request["path"] + ("" if request.get("auth", True) else " without")
        status, text = answers.get(job["base"] + " " + key.split("?")[0]) or answers[key.split("?")[0]]
        said.append({{"status": status, "text": text, "server": ""}})
    print("a warning that something printed")
    print(json.dumps(said))
elif job["do"] == "connect":
    print(json.dumps([port in state["open"] for _, port in job["addresses"]]))
else:
    print(json.dumps(answers[job["do"]]))
'''

SERVICE, NAMESPACE, ACTIVE = "chat", "rayline", "chat-9xkqs"
HEAD, WORKER = f"{ACTIVE}-head-7bd2k", f"{ACTIVE}-cpu-worker-x2x9z"


@functools.cache
def kind() -> offline.Program:
    return offline.record("kind")


class FakeCluster:
    """A cluster with one service of the stack `kind` that serves; `save` after a change."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self.program = kind()
        (manifest,) = render.ray_services(self.program)
        self.manifest = manifest
        tool = folder / "kubectl"
        tool.write_text(STAND_IN.format(python=sys.executable))
        tool.chmod(0o755)
        status = {
            "observedGeneration": 3,
            "activeServiceStatus": {"rayClusterName": ACTIVE},
            "conditions": [{"type": "Ready", "status": "True"}, {"type": "UpgradeInProgress", "status": "False"}],
        }
        live = copy.deepcopy(manifest)
        live["metadata"]["generation"] = 3
        self.ray_service = live | {"status": status}
        cluster_spec = manifest["spec"]["rayClusterConfig"]
        self.pods = [
            _pod(WORKER, "worker", cluster_spec["workerGroupSpecs"][0]),
            _pod(HEAD, "head", cluster_spec["headGroupSpec"]),
            # of the old cluster, whose streams end
            _pod("chat-old-head-aaaaa", "head", cluster_spec["headGroupSpec"], of="chat-old"),
        ]
        self.services = [
            {
                "metadata": {"name": f"{SERVICE}-serve-svc"},
                "spec": {"type": "ClusterIP", "ports": [{"port": 8000}], "selector": {"rayline/service": SERVICE}},
            }
        ]
        self.policies = copy.deepcopy(render.network_policies(self.program))
        self.open = [8000]
        self.recorded = Service(environment=expected(manifest).environment[_head_role()])  # type: ignore[arg-type]
        self.details = _as_declared(self.recorded.details, manifest)
        self.dashboard_without_token = 401
        self.worker_environment: dict[str, str] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        """Secret -> key -> value, in clear."""
        self.logs: dict[str, str] = {}
        """Arguments of `kubectl logs` -> output."""
        self.files: dict[str, str] = {}
        """Pod -> what a shell in it prints."""
        self.events: list[dict[str, Any]] = []
        """Events of RayClusters."""
        self.refusals = {"nowhere": 'error: context "nowhere" does not exist'}
        """Context, or "*" for any -> what kubectl says in place of an answer."""
        self.namespaces = [NAMESPACE]
        self.labels: dict[str, dict[str, str]] = {}
        """Labels of other namespaces, by name."""
        self.save()

    def answers(self) -> dict[str, Any]:
        """What each pod says: the same look twice, each process with its pod's environment."""
        service = self.recorded
        model = expected(self.manifest).model_ids[0]
        without = {
            f"{method} {path} without": [401, ""]
            for path, methods in [*service.routes.items(), *GUARDED.items()]
            for method in (one.upper() for one in methods)
        }
        without = {key.replace("{response_id}", "x").replace("{model}", "x"): value for key, value in without.items()}
        described = {"paths": {path: {key: {} for key in methods} for path, methods in service.routes.items()}}
        common: dict[str, Any] = {
            **without,
            "GET /openapi.json": [200, json.dumps(described)],
            "GET /v1/models": [200, json.dumps({"data": [{"id": model}]})],
            "POST /tokenize": [200, "{}"],
            "dashboard GET /api/serve/applications/": [200, json.dumps(self.details)],
            "dashboard GET /api/serve/applications/ without": [self.dashboard_without_token, ""],
            "dashboard GET /api/v0/actors": [200, json.dumps({"data": {"result": {"result": service.actors}}})],
            "stream": service.stream,
            "settings": service.settings,
        }
        (deployment,) = expected(self.manifest).llm_deployments
        declared = {name: value for name, value in service.environment.items() if value is not None}

        def look(environment: Mapping[str, str]) -> dict[str, Any]:
            found = copy.deepcopy(service.look)
            for process in found["processes"]:
                process["environ"] = dict(environment)
                process["title"] = process["title"].replace("LLMServer:tiny", deployment)
            return found

        # no API key is mounted into the head
        refused: dict[str, Any] = {key: [401, ""] for key in ("GET /openapi.json", "GET /v1/models", "POST /tokenize")}
        refused["stream"] = service.stream | {"status": 401, "bytes": 0}
        return {
            HEAD: common | refused | {"look": look(declared)},
            WORKER: common | {"look": look(declared | self.worker_environment)},
        }

    def save(self) -> None:
        objects = {
            "namespace": [{"metadata": {"name": name}} for name in self.namespaces],
            "namespaces": [
                {"metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name} | labels}}
                for name, labels in self.labels.items()
            ],
            "rayservice": [self.ray_service],
            "events": self.events,
            "pods": self.pods,
            "services": self.services,
            "networkpolicies": self.policies,
            "secret": [
                {
                    "metadata": {"name": name},
                    "data": {key: base64.b64encode(text.encode()).decode() for key, text in values.items()},
                }
                for name, values in self.secrets.items()
            ],
        }
        state = {
            "objects": objects,
            "pods": self.answers(),
            "open": self.open,
            "logs": self.logs,
            "files": self.files,
            "refusals": self.refusals,
        }
        (self.folder / "state.json").write_text(json.dumps(state))

    def refuse(self, said: str) -> None:
        """Let kubectl fail with what it says, or reach the cluster again with nothing."""
        self.refusals["*"] = said
        if not said:
            del self.refusals["*"]
        self.save()

    def target(self) -> ClusterTarget:
        self.save()
        target = ClusterTarget(Kubectl(NAMESPACE), expected(self.manifest), render.network_policies(self.program))
        target.settles_seconds = 0
        return target

    def checks(self) -> dict[str, CheckResult]:
        return {check.name: check for check in check_switches(self.target())}


GUARDED = {
    "/v1/models": ["get"],
    "/v1/chat/completions": ["post"],
    "/invocations": ["post"],
    "/tokenize": ["post"],
    "/metrics": ["get"],
    "/openapi.json": ["get"],
}


def _head_role() -> Any:
    from rayline.facts.labels import Role

    return Role.HEAD


def _pod(name: str, role: str, group: Mapping[str, Any], of: str = ACTIVE) -> dict[str, Any]:
    """A running pod of a group, as KubeRay makes it: labels of its own, and a sidecar before the Ray container."""
    ray = copy.deepcopy(group["template"]["spec"]["containers"][0])
    labels = {"rayline/service": SERVICE, "ray.io/cluster": of, "ray.io/node-type": role}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [{"name": "injected"}, ray]},
        "status": {"phase": "Running"},
    }


def _as_declared(details: dict[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded account of Serve, with the stack's configuration and its model's deployment."""
    want = expected(manifest)
    found = copy.deepcopy(details)
    application = found["applications"]["llm"]
    application["deployed_app_config"] = copy.deepcopy(want.serve_config["applications"][0])
    deployments = application["deployments"]
    (name,) = want.llm_deployments
    deployments[name] = deployments.pop("LLMServer:tiny")
    return found
