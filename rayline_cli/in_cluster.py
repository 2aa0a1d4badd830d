"""Status, logs and API key of a service in a cluster, through kubectl."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from rayline.facts.defaults import OPERATOR_NAMESPACE
from rayline.facts.labels import NODE_TYPE_LABEL, SERVE_PORT, Role, serve_service_name
from rayline.isolation.manifests import OPERATOR_POD
from rayline.service.api_key import API_KEY_KEY, PREVIOUS_API_KEY_KEY, api_key_secret
from rayline.service.reading import RayService, ray_container
from rayline.service.types import ServicePlan
from rayline_cli.clients.kubernetes import Kubectl, NotFound, NotSeen
from rayline_cli.clients.serve import APPLICATIONS, State, replica_counts, rollout, serving
from rayline_cli.errors import FailedError
from rayline_cli.local.failures import root_cause
from rayline_cli.ray_logs import log_patterns
from rayline_cli.verify.cluster import nodes, pod_selector, ray_pods, ray_service

OPERATOR = "operator"
# Ray's folder in a pod (ray/_private/utils.py, get_ray_temp_dir); the head shares it with the autoscaler.
RAY_FOLDER = "/tmp/ray"
RAY_LOGS = f"{RAY_FOLDER}/session_latest/logs"
# How many of the last crashes are shown.
CRASHES = 5
# The component whose logs include the containers' own output.
OUTPUT = "ray"


@dataclass(frozen=True)
class ClusterStatus:
    """State of one service in a cluster."""

    running: bool
    """Whether a RayCluster of it exists."""
    healthy: bool
    """Whether the RayService is ready and every application is RUNNING."""
    detail: str
    url: str
    """Address of the endpoint inside the cluster."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """Condition of the RayService -> "True", "False" or "Unknown"."""
    applications: Mapping[str, str] = field(default_factory=dict)
    """Application -> Serve's status."""
    replicas: Mapping[str, str] = field(default_factory=dict)
    """Deployment -> "running/target"."""
    pods: Mapping[str, str] = field(default_factory=dict)
    """Pod -> role, phase and, where a container waits or has ended, the reason."""
    crashed: Mapping[str, str] = field(default_factory=dict)
    """Pod that KubeRay deleted because its Ray container ended -> time and reason, as long as its event is kept."""

    def rows(self) -> list[tuple[str, str]]:
        """Return label and value of each line that a terminal shows."""
        return [
            ("endpoint", f"{self.url}/v1 in the cluster"),
            *(("application", f"{name} {state}") for name, state in self.applications.items()),
            *(("replicas", f"{count} {name}") for name, count in self.replicas.items()),
            *(("pod", f"{name}  {state}") for name, state in self.pods.items()),
            *(("crashed", f"{name}  {reason}") for name, reason in self.crashed.items()),
        ]


def status(kubectl: Kubectl, service: str) -> ClusterStatus:
    """Return the status of a service. Raises NotSeen where the cluster does not answer."""
    url = f"http://{serve_service_name(service)}.{kubectl.namespace}:{SERVE_PORT}"
    try:
        manifest = ray_service(kubectl, service)
    except NotFound as error:
        return ClusterStatus(False, False, str(error), url)
    conditions = RayService(manifest).conditions
    pods = _pods(kubectl, service)
    serve = _serve(kubectl, service, manifest)
    ready = conditions.get("Ready", {})
    is_ready = ready.get("status") == "True"
    healthy = is_ready and set(serve.applications.values()) == {"RUNNING"}
    if healthy:
        detail = serving(serve.replicas)
    elif manifest["spec"].get("suspend"):
        detail = "parked"
    else:
        message = serve.waits or ("" if is_ready else ready.get("message")) or ""
        detail = "; ".join(filter(None, [message.rstrip("."), serve.unseen])) or "KubeRay has reported no status yet"
    return ClusterStatus(
        running=bool(pods),
        healthy=healthy,
        detail=detail,
        url=url,
        conditions={name: condition["status"] for name, condition in conditions.items()},
        applications=serve.applications,
        replicas=serve.replicas,
        pods={pod["metadata"]["name"]: _pod_line(pod) for pod in pods},
        crashed=_crashed(kubectl, service, pods),
    )


@dataclass(frozen=True)
class _Serve:
    """Serve's own status of a service."""

    applications: Mapping[str, str]
    replicas: Mapping[str, str]
    waits: str = ""
    """Why the service does not serve yet, or what failed."""
    unseen: str = ""
    """Why Serve did not answer: then `applications` are KubeRay's copy."""


def _serve(kubectl: Kubectl, service: str, manifest: Mapping[str, Any]) -> _Serve:
    """Return the status from the Serve of the RayCluster that serves, or of the first one while it is still starting."""
    try:
        head = nodes(kubectl, ray_pods(kubectl, service, manifest, or_coming=True), {})[0]
        answer = head.dashboard(APPLICATIONS)
        if answer["status"] != 200:
            # 0: no process took the connection
            reason = f"answers HTTP {answer['status']}" if answer["status"] else "does not answer"
            raise NotSeen(f"Serve's dashboard {reason}")
        details = json.loads(answer["text"])
        applications = {name: app["status"] for name, app in details["applications"].items()}
        return _Serve(applications, replica_counts(details), _waits(details, manifest))
    except NotSeen as error:
        status = manifest.get("status") or {}
        copies = [(status.get(f"{which}ServiceStatus") or {}).get("applicationStatuses") for which in ("active", "pending")]
        applications = {name: app.get("status", "UNKNOWN") for name, app in (copies[0] or copies[1] or {}).items()}
        wrong = [f"{name} is {state}" for name, state in applications.items() if state != "RUNNING"]
        return _Serve(applications, {}, "; ".join(wrong), str(error))


def _waits(details: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    """Return why the declared configuration does not serve yet, or why it failed; nothing where it serves."""
    now = rollout(details, RayService(manifest).serve.data)
    if now.state is State.READY:
        return ""
    lines = now.detail.splitlines()
    cause = root_cause(now.detail)
    return f"{lines[0]} {cause}" if cause and len(lines) > 1 else " ".join(now.detail.split())


def _pods(kubectl: Kubectl, service: str) -> list[dict[str, Any]]:
    """Return every Ray pod of a service, of an old and a coming RayCluster too, heads first."""
    pods = kubectl.get("pods", "-l", pod_selector(service))["items"]
    return sorted(pods, key=lambda pod: (_role(pod) != Role.HEAD.value, pod["metadata"]["name"]))


_DELETED = re.compile(
    r"Deleted (?P<role>\w+) Pod [^/]+/(?P<pod>[\w.-]+); .*ContainerStateTerminated\{ExitCode:(?P<code>\d+),.*?"
    r"Reason:(?P<reason>\w*),.*?FinishedAt:(?P<at>[\d-]+ [\d:]+)"
)
"""KubeRay's event for a pod whose Ray container ended (ray-operator/controllers/ray/raycluster_controller.go, v1.7.0)."""


def _crashed(kubectl: Kubectl, service: str, pods: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the pods beside `pods` that KubeRay deleted because their Ray container ended, the last one at the end.

    With Ray's autoscaler no pod restarts its containers: KubeRay replaces it, and its logs go with it. Nothing where events
    may not be read.
    """
    try:
        events = kubectl.get("events", "--field-selector", "involvedObject.kind=RayCluster")["items"]
    except NotSeen:
        return {}
    # as KubeRay names the RayClusters of a RayService
    of_the_service = re.compile(rf"{re.escape(service)}-[a-z0-9]{{5}}")
    there = {pod["metadata"]["name"] for pod in pods}
    messages = [event.get("message") or "" for event in events if of_the_service.fullmatch(event["involvedObject"]["name"])]
    crashes = [match for match in map(_DELETED.search, messages) if match and match["pod"] not in there]
    return {
        crash["pod"]: f"{crash['role']}, ended with {crash['code']}: {crash['reason'] or 'Unknown'} at {crash['at']} UTC"
        for crash in sorted(crashes, key=lambda crash: crash["at"])[-CRASHES:]
    }


def _role(pod: Mapping[str, Any]) -> str:
    return pod["metadata"]["labels"][NODE_TYPE_LABEL]


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the status of each container, those that run before the others included."""
    state = pod.get("status") or {}
    return [*(state.get("initContainerStatuses") or []), *(state.get("containerStatuses") or [])]


def _pod_line(pod: Mapping[str, Any]) -> str:
    """Return role and phase of a pod, and what is wrong with its containers."""
    status = pod.get("status") or {}
    parts = [_role(pod), "Terminating" if pod["metadata"].get("deletionTimestamp") else status.get("phase", "Unknown")]
    for container in _containers(pod):
        name, state = container["name"], container.get("state") or {}
        if waiting := state.get("waiting"):
            parts.append(f"{name} waits: {_reason(waiting)}")
        elif (ended := state.get("terminated")) and ended.get("exitCode"):
            parts.append(f"{name} ended with {ended['exitCode']}: {_reason(ended)}")
        elif "running" in state and container.get("ready") is False and container in (status.get("containerStatuses") or []):
            parts.append(f"{name} is not ready")
        if container.get("restartCount"):
            parts.append(f"{name} restarted {container['restartCount']} times")
    unscheduled = [each for each in status.get("conditions") or [] if each.get("reason") == "Unschedulable"]
    return ", ".join([*parts, *(f"unschedulable: {each.get('message', '')}" for each in unscheduled)])


def _reason(state: Mapping[str, Any]) -> str:
    return " ".join(filter(None, [state.get("reason", "Unknown"), state.get("message", "")])).strip()


def logs(kubectl: Kubectl, service: str, *, component: str | None, lines: int) -> Iterator[str]:
    """Yield the last `lines` lines of each log of a service's pods, each log below a line with its name.

    The containers' output comes with component "ray" or without one, for a container that restarted also the output before its
    last crash. Ray's log files are read in each running pod. Raises UsageError for an unknown component, FailedError where
    the service has no pod.
    """
    patterns = log_patterns(component, OPERATOR)
    pods = _pods(kubectl, service)
    if not pods:
        parked = ray_service(kubectl, service)["spec"].get("suspend")
        why = f"service {service} {'is parked: it ' if parked else ''}has no pod in namespace {kubectl.namespace}"
        fix = f"services.{service}.park: false" if parked else kubectl.by_hand(f"describe rayservice {service}")
        raise FailedError(f"{why}. Fix: {fix}")
    for name, reason in _crashed(kubectl, service, pods).items():
        yield f"==> {name}: {reason}; KubeRay deleted the pod, and its logs with it <=="
    for pod in pods:
        yield f"==> {pod['metadata']['name']}: {_pod_line(pod)} <=="
        if component in (None, OUTPUT):
            yield from _output(kubectl, pod, lines)
        if (pod.get("status") or {}).get("phase") == "Running":
            yield from _files(kubectl, pod, patterns, lines)


def _output(kubectl: Kubectl, pod: Mapping[str, Any], lines: int) -> Iterator[str]:
    """Yield the end of each container's output, before its last restart too."""
    name = pod["metadata"]["name"]
    for container in _containers(pod):
        for which in (["--previous"], []) if container.get("restartCount") else ([],):
            try:
                text = kubectl("logs", name, "-c", container["name"], f"--tail={lines}", *which)
            except NotSeen as error:
                text = str(error)
            if text.strip():
                yield f"==> {name}/{container['name']}{' before its last restart' if which else ''} <=="
                yield from text.splitlines()


def _files(kubectl: Kubectl, pod: Mapping[str, Any], patterns: Sequence[str], lines: int) -> Iterator[str]:
    """Yield the end of Ray's log files in a pod. The patterns are the kit's own, so the shell gets nothing foreign."""
    name = pod["metadata"]["name"]
    show = f'[ -s "$f" ] && echo "==> {name}:$f <==" && tail -n {lines} "$f"'
    script = f"cd {RAY_LOGS} && for f in {' '.join(patterns)}; do {show}; done; true"
    try:
        text = kubectl("exec", name, "-c", _reader(pod), "--", "sh", "-c", script)
    except NotSeen as error:
        text = f"==> {name}: Ray's log files cannot be read: {error} <=="
    yield from text.splitlines()


def _reader(pod: Mapping[str, Any]) -> str:
    """Return the container that Ray's files are read in: where Ray's own has ended, one that shares its folder."""
    ray = ray_container(pod).name
    ended = {container["name"] for container in _containers(pod) if "terminated" in (container.get("state") or {})}
    sharing = [
        container["name"]
        for container in pod["spec"]["containers"]
        if any(mount["mountPath"] == RAY_FOLDER for mount in container.get("volumeMounts") or [])
    ]
    return next((name for name in [ray, *sharing] if name not in ended), ray)


def operator_logs(kubectl: Kubectl, namespace: str | None, *, lines: int) -> Iterator[str]:
    """Yield the last lines of the KubeRay operator in `namespace` (default kuberay-system), of its last crash too.

    Raises FailedError where no operator runs there: GKE's add-on runs outside the cluster.
    """
    there = replace(kubectl, namespace=namespace or OPERATOR_NAMESPACE)
    pods = there.get("pods", "-l", ",".join(f"{name}={value}" for name, value in OPERATOR_POD.items()))["items"]
    if not pods:
        fix = "isolation.operator_namespace, where it runs elsewhere; GKE's add-on logs to Cloud Logging"
        raise FailedError(f"no KubeRay operator in namespace {there.namespace}. Fix: {fix}")
    for pod in pods:
        yield from _output(there, pod, lines)


def api_key(kubectl: Kubectl, service: ServicePlan, *, previous: bool = False) -> str:
    """Return the API key of a model from its Secret, or the previous one. Raises NotSeen or FailedError."""
    name = api_key_secret(service.name, service.application)
    try:
        secret = kubectl.get("secret", name)
    except NotFound as error:
        ray_service(kubectl, service.name)
        raise FailedError(f"{error}. Fix: bring the stack up again") from None
    value = (secret.get("data") or {}).get(PREVIOUS_API_KEY_KEY if previous else API_KEY_KEY)
    if not value:
        which = "previous key. Fix: raise api.key_generation" if previous else "key. Fix: bring the stack up again"
        raise FailedError(f"the Secret {name} holds no {which}")
    return base64.b64decode(value).decode()
