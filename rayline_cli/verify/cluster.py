"""A service in a cluster, seen through kubectl: the Kubernetes API with the kubeconfig and the rights of whoever asks.

inside.py is sent to `python -` in every Ray pod of the service. Ray's token and the endpoint's key are in the pods and stay
there, so `pods/exec` is the only right that is needed beside reading RayServices, pods, Services and NetworkPolicies.
"""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayline.facts.labels import BENCH_LABEL, NODE_TYPE_LABEL, SERVE_PORT, SERVICE_LABEL, Role, serve_service_name
from rayline.service.reading import RayService, plain_environment, ray_container
from rayline_cli.clients.kubernetes import Kubectl, NotFound, Unreachable
from rayline_cli.clients.serve import APPLICATIONS, State, every_deployment, rollout
from rayline_cli.errors import FailedError
from rayline_cli.progress import Report
from rayline_cli.verify import inside
from rayline_cli.verify.check import Outcome, Verdict
from rayline_cli.verify.expected import Expected
from rayline_cli.verify.outside import closed
from rayline_cli.verify.target import Node, NotSeen, View, entrances

_INSIDE = pathlib.Path(inside.__file__).read_text()
SETTLES_SECONDS = 30.0
POLL_SECONDS = 3.0
UNREACHABLE_SECONDS = 60.0
"""How long a cluster that cannot be reached is looked at again: one just made may not know its name or the caller yet."""
TELL_AGAIN_MINUTES = 2
CLUSTER_LABEL = "ray.io/cluster"


@dataclass(frozen=True)
class RayPods:
    """The Ray pods that serve now."""

    cluster: str
    pods: Sequence[Mapping[str, Any]]
    """Running ones, the head first."""

    def nodes(self, kubectl: Kubectl, place: Mapping[str, Any]) -> list[Node]:
        """Return the pods as nodes to look into."""
        return [_node(kubectl, pod, place) for pod in self.pods]


def _node(kubectl: Kubectl, pod: Mapping[str, Any], place: Mapping[str, Any]) -> Node:
    name, container = pod["metadata"]["name"], ray_container(pod).name
    return Node(name, _is_head(pod), lambda job: kubectl.python(name, container, _script(job, place)))


def _script(job: Mapping[str, Any], place: Mapping[str, Any]) -> str:
    """Return inside.py as a program that does `job` and prints the result."""
    return f"{_INSIDE}\nprint(json.dumps(run(*json.loads({json.dumps([job, place])!r}))))\n"


def _is_head(pod: Mapping[str, Any]) -> bool:
    return pod["metadata"]["labels"][NODE_TYPE_LABEL] == Role.HEAD.value


def pod_selector(service: str) -> str:
    """Return the label selector of a service's heads and workers, of whatever RayCluster."""
    roles = ",".join(role.value for role in (Role.HEAD, Role.WORKER))
    return f"{SERVICE_LABEL}={service},{NODE_TYPE_LABEL} in ({roles})"


def ray_service(kubectl: Kubectl, service: str) -> dict[str, Any]:
    """Return the RayService of a service. Raises NotFound, which says what is missing, and what Kubectl raises."""
    try:
        return kubectl.get("rayservice", service)
    except NotFound:
        missing = f"RayService {service} in namespace {kubectl.namespace}"
    try:
        kubectl.get("namespace", kubectl.namespace)
    except NotFound:
        missing = f"namespace {kubectl.namespace}"
    except NotSeen:
        pass  # namespaces are the cluster's own, and not everybody may read them
    raise NotFound(
        f"the cluster has no {missing}, so {service} is not deployed there. "
        "Fix: bring the stack up, or name its own cluster with --context"
    )


def ray_pods(kubectl: Kubectl, service: str, ray_service: Mapping[str, Any], *, or_coming: bool = False) -> RayPods:
    """The pods of the RayCluster that serves, else on request of the one that is coming. Raises NotSeen without a head."""
    found = RayService(ray_service)
    active = found.active_cluster or (found.pending_cluster if or_coming else None)
    describe = kubectl.by_hand(f"describe rayservice {service}")
    if not active:
        raise NotSeen(f"RayService {service} has no RayCluster that serves. Fix: see why with {describe}")
    pods = [
        pod
        for pod in kubectl.get("pods", "-l", f"{pod_selector(service)},{CLUSTER_LABEL}={active}")["items"]
        if pod["status"].get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
    ]
    pods.sort(key=lambda pod: (not _is_head(pod), pod["metadata"]["name"]))
    if not pods or not _is_head(pods[0]):
        raise NotSeen(f"RayCluster {active} has no running head pod. Fix: see why with {describe}")
    return RayPods(active, pods)


def _place(port: int) -> dict[str, Any]:
    return {"serve": f"http://127.0.0.1:{port}"}


class ClusterTarget:
    """Implements rayline_cli.verify.Target for one service in a cluster."""

    settles_seconds = SETTLES_SECONDS

    def __init__(self, kubectl: Kubectl, expected: Expected, policies: Sequence[Mapping[str, Any]]) -> None:
        """`policies` are the NetworkPolicies that the stack declares. Raises NotSeen where nothing serves."""
        self.expected = expected
        self._kubectl, self._policies = kubectl, policies
        self._ray = ray_pods(kubectl, expected.service, ray_service(kubectl, expected.service))
        self.nodes = self._ray.nodes(kubectl, _place(expected.port))
        self._host = f"{serve_service_name(expected.service)}.{kubectl.namespace}.svc"
        self.endpoint = f"http://{self._host}:{SERVE_PORT}"

    def run_client(self, job: Mapping[str, Any]) -> Any:
        """Do a job of inside.py in a pod that clients come through."""
        # in a pod, because nobody takes the keys out of them
        return entrances(self.nodes)[0].run(job)

    def reachability(self, view: View) -> Verdict:
        """Check ports, Services, NetworkPolicies and the dashboard."""
        outcome, evidence, fix = closed(self.run_client, self._host, SERVE_PORT)
        problems = [evidence] if outcome is Outcome.FAIL else []
        problems += _published(self._kubectl.get("services")["items"], self._ray.pods)
        problems += _changed_policies(self._kubectl.get("networkpolicies")["items"], self._policies, self._ray.pods)
        dashboard = self.nodes[0].dashboard(APPLICATIONS, auth=False)
        if dashboard["status"] not in (401, 403):
            problems.append(f"the dashboard answers HTTP {dashboard['status']} without Ray's token")
        if problems:
            return Outcome.FAIL, "; ".join(problems), fix if outcome is Outcome.FAIL else "bring the stack up again"
        seen = f"{evidence}; the dashboard refuses who has no token"
        if not self._policies:
            return (
                Outcome.OFF,
                f"{seen}; no NetworkPolicy is declared, so every pod of the cluster reaches every port",
                "isolation.network_policies: true closes the namespace",
            )
        return (
            Outcome.PASS,
            f"{seen}; {len(self._policies)} NetworkPolicies are as declared (whether the network enforces them is not seen here)",
            "",
        )


def _published(services: Sequence[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]]) -> list[str]:
    """Services that show Ray pods outside of the cluster."""
    return [
        f"Service {service['metadata']['name']} of type {service['spec']['type']} shows Ray pods outside"
        for service in services
        if service["spec"].get("type") in ("NodePort", "LoadBalancer")
        and service["spec"].get("selector")
        and any(_labels_match(service["spec"]["selector"], pod) for pod in pods)
    ]


def _labels_match(wanted: Mapping[str, str], pod: Mapping[str, Any]) -> bool:
    return wanted.items() <= pod["metadata"]["labels"].items()


def _changed_policies(
    found: Sequence[Mapping[str, Any]], declared: Sequence[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Declared policies that are missing or say something else, and others that open Ray pods. Policies add up."""
    specs = {policy["metadata"]["name"]: policy["spec"] for policy in found}
    names = {policy["metadata"]["name"] for policy in declared}
    problems = [f"NetworkPolicy {name} is missing" for name in sorted(names - specs.keys())]
    problems += [
        f"NetworkPolicy {name} is not as declared"
        for name, spec in ((policy["metadata"]["name"], policy["spec"]) for policy in declared)
        if name in specs and _plain(specs[name]) != _plain(spec)
    ]
    if declared:
        problems += [
            f"NetworkPolicy {metadata['name']} is not declared and lets others in{_whose(metadata)}"
            for metadata, spec in ((policy["metadata"], policy["spec"]) for policy in found)
            if metadata["name"] not in names
            and spec.get("ingress")
            and any(_labels_match((spec.get("podSelector") or {}).get("matchLabels") or {}, pod) for pod in pods)
        ]
    return problems


def _whose(metadata: Mapping[str, Any]) -> str:
    is_a_benchmarks = BENCH_LABEL in (metadata.get("labels") or {})
    return " (a benchmark's, which deletes it when it ends)" if is_a_benchmarks else ""


def _plain(value: Any) -> Any:
    """Without what is empty: a server leaves such fields out or writes them, as it likes."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items() if key == "podSelector" or item not in (None, [], {})}
    return [_plain(item) for item in value] if isinstance(value, list) else value


# --- waiting ---------------------------------------------------------------------------------------------------------


class NotServed(FailedError):
    """What was declared is not served; the message says why, in Serve's words where it has any."""


def wait_until_served(kubectl: Kubectl, declared: Mapping[str, Any], report: Report, seconds: float) -> None:
    """Returns when the service runs what its RayService `declared` says, and nothing older. Raises NotServed.

    `pulumi up` may return before: an edit of serveConfigV2 alone leaves the RayService Ready and RUNNING throughout
    (docs/decisions/0015). What Serve's dashboard reports as deployed is the only truth.
    """
    service, started = RayService(declared), time.monotonic()
    name, look = service.name, _Wait(kubectl, service)
    seen = started
    while True:
        try:
            waiting = look.next()
            seen = time.monotonic()
        except Unreachable as error:
            waiting = str(error)
            if time.monotonic() - seen > UNREACHABLE_SECONDS:
                raise NotServed(f"{name} cannot be seen for {UNREACHABLE_SECONDS:.0f} s: {waiting}") from None
        except NotSeen as error:
            waiting = str(error)
            seen = time.monotonic()
        took = time.monotonic() - started
        if not waiting:
            report.done(name, took, "every replica runs the declared configuration")
            return
        report.phase(name, _since(took, waiting))
        if took > seconds:
            raise NotServed(f"{name} is not served after {seconds:.0f} s: {waiting}")
        time.sleep(POLL_SECONDS)


def _since(took: float, waiting: str) -> str:
    """What is waited for, in other words every few minutes: a log that stands still looks as if nothing ran."""
    minutes = int(took / 60) // TELL_AGAIN_MINUTES * TELL_AGAIN_MINUTES
    return f"after {minutes} min: {waiting}" if minutes else waiting


class _Wait:
    """One service on its way to what is declared."""

    def __init__(self, kubectl: Kubectl, declared: RayService) -> None:
        self._kubectl, self._declared = kubectl, declared
        self._wanted = declared.serve
        self._before: dict[str, Any] | None = None

    def next(self) -> str:
        """What is waited for, or "". Raises NotSeen, which may pass, and NotServed, which will not."""
        name = self._declared.name
        found = ray_service(self._kubectl, name)
        waiting = _operator_waits(RayService(found))
        if waiting:
            return waiting
        if RayService(found).serve != self._wanted:
            return "the RayService in the cluster does not have the declared serveConfigV2"
        ray = ray_pods(self._kubectl, name, found)
        if not self._declared.keeps_its_cluster:
            old = _with_another_environment(ray, self._declared)
            if old:
                return f"pods have another environment than declared, a new RayCluster has to come: {', '.join(old)}"
        answer = ray.nodes(self._kubectl, {})[0].dashboard(APPLICATIONS)
        if answer["status"] != 200:
            return f"Serve's dashboard answers: {answer['status'] or ''} {answer['text'][:200]}".strip()
        details = json.loads(answer["text"])
        self._before = self._before or details
        now = rollout(details, self._wanted.data, self._before)
        if now.state is State.FAILED:
            raise NotServed(f"{name}: {now.detail}")
        return now.detail if now.state is State.WAITING else _leftovers(details)


def _operator_waits(ray_service: RayService) -> str:
    """What KubeRay still has to do, or ""."""
    if not ray_service.is_seen_by_the_operator:
        return "KubeRay has not taken up the change yet"
    conditions, pending = ray_service.conditions, ray_service.pending_cluster
    if pending or conditions.get("UpgradeInProgress", {}).get("status") == "True":
        return f"RayCluster {pending or '(new)'} is coming up, the old one serves"
    if conditions.get("Ready", {}).get("status") != "True":
        return f"the RayService is not ready: {conditions.get('Ready', {}).get('message') or 'no word from KubeRay'}"
    return ""


def _with_another_environment(ray: RayPods, declared: RayService) -> list[str]:
    """Pods of the serving RayCluster that lack a declared variable's value."""
    groups = {True: declared.head, False: declared.workers[0]}
    names = []
    for pod in ray.pods:
        has = plain_environment(ray_container(pod))
        wanted = plain_environment(groups[_is_head(pod)].ray_container)
        if any(value is not None and has.get(name) != value for name, value in wanted.items()):
            names.append(pod["metadata"]["name"])
    return names


def _leftovers(details: Mapping[str, Any]) -> str:
    """Replicas beside those that should run, or ""."""
    for name, deployment in every_deployment(details):
        others = [replica["state"] for replica in deployment["replicas"] if replica["state"] != "RUNNING"]
        if others:
            return f"{name}: {len(others)} replica(s) still {', '.join(sorted(set(others)))}"
    return ""
