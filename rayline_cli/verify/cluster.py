"""A service in a cluster, seen through kubectl, with the kubeconfig and the rights of the caller.

inside.py is sent to `python -` in every Ray pod of the service. Ray's token and the endpoint's key are in the pods and stay
there, so `pods/exec` is the only right that is needed beside reading RayServices, pods, Services and NetworkPolicies.
"""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rayline.facts.labels import BENCH_LABEL, NODE_TYPE_LABEL, SERVE_PORT, SERVICE_LABEL, Role, serve_service_name
from rayline.service.reading import RayService, plain_environment, ray_container
from rayline_cli.clients.kubernetes import Kubectl, NotFound, Unreachable
from rayline_cli.clients.serve import APPLICATIONS, State, every_deployment, rollout
from rayline_cli.errors import FailedError
from rayline_cli.progress import Report
from rayline_cli.verify import inside
from rayline_cli.verify.check import Outcome, Verdict, verdict
from rayline_cli.verify.expected import Expected
from rayline_cli.verify.outside import closed
from rayline_cli.verify.target import Node, NotSeen, Target, View, entrances

_INSIDE = pathlib.Path(inside.__file__).read_text()
SETTLES_SECONDS = 30.0
POLL_SECONDS = 3.0
UNREACHABLE_SECONDS = 60.0
"""How long an unreachable cluster is tried again: a new cluster may not have its DNS name or the caller's rights yet."""
TELL_AGAIN_MINUTES = 2
CLUSTER_LABEL = "ray.io/cluster"


Pods = Sequence[Mapping[str, Any]]


def nodes(kubectl: Kubectl, pods: Pods, place: Mapping[str, Any]) -> list[Node]:
    """Return Ray pods as nodes; `place` is for inside.py."""
    return [_node(kubectl, pod, place) for pod in pods]


def _node(kubectl: Kubectl, pod: Mapping[str, Any], place: Mapping[str, Any]) -> Node:
    name, container = pod["metadata"]["name"], ray_container(pod).name

    def run(job: Mapping[str, Any]) -> Any:
        script = f"{_INSIDE}\nprint(json.dumps(run(*json.loads({json.dumps([job, place])!r}))))\n"
        return kubectl.python(name, container, script)

    return Node(name, _is_head(pod), run)


def _is_head(pod: Mapping[str, Any]) -> bool:
    return pod["metadata"]["labels"][NODE_TYPE_LABEL] == Role.HEAD.value


def pod_selector(service: str) -> str:
    """Return the label selector of a service's heads and workers, of whatever RayCluster."""
    roles = ",".join(role.value for role in (Role.HEAD, Role.WORKER))
    return f"{SERVICE_LABEL}={service},{NODE_TYPE_LABEL} in ({roles})"


def ray_service(kubectl: Kubectl, service: str) -> dict[str, Any]:
    """Return the RayService of a service. Raises NotFound, which names the missing object, and NotSeen."""
    try:
        return kubectl.get("rayservice", service)
    except NotFound:
        missing = f"RayService {service} in namespace {kubectl.namespace}"
    try:
        kubectl.get("namespace", kubectl.namespace)
    except NotFound:
        missing = f"namespace {kubectl.namespace}"
    except NotSeen:
        pass  # namespaces are objects of the cluster, which not every user may read
    raise NotFound(
        f"the cluster has no {missing}, so {service} is not deployed there. "
        "Fix: bring the stack up, or name its own cluster with --context"
    )


def ray_pods(kubectl: Kubectl, service: str, manifest: Mapping[str, Any], *, or_coming: bool = False) -> Pods:
    """Return the running pods, head first, of the RayCluster that serves, with `or_coming` else of the one that starts.

    Raises NotSeen.
    """
    declared = RayService(manifest)
    active = declared.active_cluster or (declared.pending_cluster if or_coming else None)
    fix = f"Fix: see why with {kubectl.by_hand(f'describe rayservice {service}')}"
    if not active:
        raise NotSeen(f"RayService {service} has no RayCluster that serves. {fix}")
    pods = [
        pod
        for pod in kubectl.get("pods", "-l", f"{pod_selector(service)},{CLUSTER_LABEL}={active}")["items"]
        if pod["status"].get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")
    ]
    pods.sort(key=lambda pod: (not _is_head(pod), pod["metadata"]["name"]))
    if not pods or not _is_head(pods[0]):
        raise NotSeen(f"RayCluster {active} has no running head pod. {fix}")
    return pods


class ClusterTarget(Target):
    """One service in a cluster."""

    settles_seconds = SETTLES_SECONDS

    def __init__(self, kubectl: Kubectl, expected: Expected, policies: Sequence[Mapping[str, Any]]) -> None:
        """`policies` are the NetworkPolicies that the stack declares. Raises NotSeen where nothing serves."""
        self.expected = expected
        self._kubectl, self._policies = kubectl, policies
        self.look_again()
        self._host = f"{serve_service_name(expected.service)}.{kubectl.namespace}.svc"
        self.endpoint = f"http://{self._host}:{SERVE_PORT}"

    def look_again(self) -> None:
        """List the pods again: a worker may have come with a replica."""
        service = self.expected.service
        self._pods = ray_pods(self._kubectl, service, ray_service(self._kubectl, service))
        self.nodes = nodes(self._kubectl, self._pods, {"serve": f"http://127.0.0.1:{self.expected.port}"})

    def run_client(self, job: Mapping[str, Any]) -> Any:
        """Run a job of inside.py in a pod that clients come through: its key never leaves it."""
        return entrances(self.nodes)[0].run(job)

    def reachability(self, view: View) -> Verdict:
        """Check ports, Services, NetworkPolicies and the dashboard."""
        outcome, evidence, fix = closed(self, self._host, SERVE_PORT)
        problems = [evidence] if outcome is Outcome.FAIL else []
        problems += _published(self._kubectl.get("services")["items"], self._pods)
        problems += _changed_policies(self._kubectl.get("networkpolicies")["items"], self._policies, self._pods)
        dashboard = self.nodes[0].dashboard(APPLICATIONS, auth=False)
        if dashboard["status"] not in (401, 403):
            problems.append(f"the dashboard answers HTTP {dashboard['status']} without Ray's token")
        if problems:
            return verdict(False, "; ".join(problems), fix if outcome is Outcome.FAIL else "bring the stack up again")
        seen = f"{evidence}; the dashboard refuses requests without a token"
        if not self._policies:
            seen += "; no NetworkPolicy is declared, so every pod of the cluster reaches every port"
            return Outcome.OFF, seen, "isolation.network_policies: true closes the namespace"
        seen += f"; {len(self._policies)} NetworkPolicies are as declared (whether the network enforces them is not seen here)"
        return verdict(True, seen, "")


def _published(services: Sequence[Mapping[str, Any]], pods: Pods) -> list[str]:
    """Return a problem for each Service that publishes Ray pods outside of the cluster."""
    return [
        f"Service {service['metadata']['name']} of type {service['spec']['type']} shows Ray pods outside"
        for service in services
        if service["spec"].get("type") in ("NodePort", "LoadBalancer")
        and service["spec"].get("selector")
        and _selects_any(service["spec"]["selector"], pods)
    ]


def _selects_any(labels: Mapping[str, str], pods: Pods) -> bool:
    return any(labels.items() <= pod["metadata"]["labels"].items() for pod in pods)


def _changed_policies(
    existing: Sequence[Mapping[str, Any]], declared: Sequence[Mapping[str, Any]], pods: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return a problem for each declared policy that is missing or changed, and for others that open Ray pods.

    Policies add up: a connection is allowed where one of them allows it.
    """
    policies = {policy["metadata"]["name"]: policy for policy in existing}
    wanted = {policy["metadata"]["name"]: policy["spec"] for policy in declared}
    problems = [f"NetworkPolicy {name} is missing" for name in sorted(wanted.keys() - policies.keys())]
    for name, policy in policies.items():
        spec = policy["spec"]
        if name in wanted:
            if _without_empty(spec) != _without_empty(wanted[name]):
                problems.append(f"NetworkPolicy {name} is not as declared")
        elif declared and spec.get("ingress") and _selects_any((spec.get("podSelector") or {}).get("matchLabels") or {}, pods):
            of_a_benchmark = BENCH_LABEL in (policy["metadata"].get("labels") or {})
            owner = " (a benchmark's, which deletes it when it ends)" if of_a_benchmark else ""
            problems.append(f"NetworkPolicy {name} is not declared and lets others in{owner}")
    return problems


def _without_empty(value: Any) -> Any:
    """Return a policy's spec without empty fields: a server leaves them out or writes them, as it likes."""
    if isinstance(value, Mapping):
        return {key: _without_empty(item) for key, item in value.items() if key == "podSelector" or item not in (None, [], {})}
    return [_without_empty(item) for item in value] if isinstance(value, list) else value


# --- waiting ---------------------------------------------------------------------------------------------------------


class NotServed(FailedError):
    """The declared configuration does not serve; the message has the reason, in Serve's words where it has any."""


def wait_until_served(kubectl: Kubectl, declared: Mapping[str, Any], report: Report, seconds: float) -> None:
    """Return when the service runs the configuration of its RayService `declared`, and nothing older. Raises NotServed.

    `pulumi up` may return before: an edit of serveConfigV2 alone leaves the RayService Ready and RUNNING throughout
    (docs/decisions/0015). Only Serve's dashboard reports the deployed configuration.
    """
    rollout_to = _RolloutInCluster(kubectl, RayService(declared))
    name = RayService(declared).name
    started = reached = time.monotonic()
    while True:
        try:
            reason = rollout_to.waits_for()
            reached = time.monotonic()
        except NotSeen as error:
            reason = str(error)
            if not isinstance(error, Unreachable):
                reached = time.monotonic()
            elif time.monotonic() - reached > UNREACHABLE_SECONDS:
                raise NotServed(f"{name} cannot be seen for {UNREACHABLE_SECONDS:.0f} s: {reason}") from None
        took = time.monotonic() - started
        if not reason:
            report.done(name, took, "every replica runs the declared configuration")
            return
        report.phase(name, _since(took, reason))
        if took > seconds:
            raise NotServed(f"{name} is not served after {seconds:.0f} s: {reason}")
        time.sleep(POLL_SECONDS)


def _since(took: float, reason: str) -> str:
    """Return the reason of a wait, in other words every few minutes: a log that stands still looks as if nothing ran."""
    minutes = int(took / 60) // TELL_AGAIN_MINUTES * TELL_AGAIN_MINUTES
    return f"after {minutes} min: {reason}" if minutes else reason


class _RolloutInCluster:
    """The rollout of one declared RayService."""

    def __init__(self, kubectl: Kubectl, declared: RayService) -> None:
        self._kubectl, self._declared = kubectl, declared
        self._wanted = declared.serve
        self._before: dict[str, Any] | None = None

    def waits_for(self) -> str:
        """Return the reason to wait, or "". Raises NotSeen, which may pass, and NotServed, which will not."""
        name = self._declared.name
        manifest = ray_service(self._kubectl, name)
        service = RayService(manifest)
        if reason := _operator_waits(service):
            return reason
        if service.serve != self._wanted:
            return "the RayService in the cluster does not have the declared serveConfigV2"
        pods = ray_pods(self._kubectl, name, manifest)
        if not self._declared.keeps_its_cluster and (old := _with_another_environment(pods, self._declared)):
            return f"pods have another environment than declared, a new RayCluster has to come: {', '.join(old)}"
        answer = nodes(self._kubectl, pods, {})[0].dashboard(APPLICATIONS)
        if answer["status"] != 200:
            return f"Serve's dashboard answers: {answer['status'] or ''} {answer['text'][:200]}".strip()
        details = json.loads(answer["text"])
        self._before = self._before or details
        now = rollout(details, self._wanted.data, self._before)
        if now.state is State.FAILED:
            raise NotServed(f"{name}: {now.detail}")
        return now.detail if now.state is State.WAITING else _leftovers(details)


def _operator_waits(service: RayService) -> str:
    """Return the unfinished work of KubeRay, or ""."""
    if not service.is_seen_by_the_operator:
        return "KubeRay has not taken up the change yet"
    conditions, pending = service.conditions, service.pending_cluster
    if pending or conditions.get("UpgradeInProgress", {}).get("status") == "True":
        return f"RayCluster {pending or '(new)'} is coming up, the old one serves"
    ready = conditions.get("Ready", {})
    return (
        ""
        if ready.get("status") == "True"
        else f"the RayService is not ready: {ready.get('message') or 'no word from KubeRay'}"
    )


def _with_another_environment(pods: Pods, declared: RayService) -> list[str]:
    """Return the pods of the serving RayCluster that lack a declared variable's value."""
    groups = {True: declared.head, False: declared.workers[0]}
    names = []
    for pod in pods:
        actual = plain_environment(ray_container(pod))
        wanted = plain_environment(groups[_is_head(pod)].ray_container)
        if any(value is not None and actual.get(name) != value for name, value in wanted.items()):
            names.append(pod["metadata"]["name"])
    return names


def _leftovers(details: Mapping[str, Any]) -> str:
    """Return the first deployment with replicas beside those that should run, or ""."""
    for name, deployment in every_deployment(details):
        others = [replica["state"] for replica in deployment["replicas"] if replica["state"] != "RUNNING"]
        if others:
            return f"{name}: {len(others)} replica(s) still {', '.join(sorted(set(others)))}"
    return ""
