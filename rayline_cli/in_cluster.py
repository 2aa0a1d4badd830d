"""What an engineer on call needs of a service in a cluster: its status, its logs and its key, through kubectl."""

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
from rayline_cli.clients.kubernetes import Kubectl, NotFound, NotSeen
from rayline_cli.clients.serve import APPLICATIONS, State, replica_counts, rollout
from rayline_cli.errors import FailedError
from rayline_cli.local.failures import root_cause
from rayline_cli.ray_logs import log_patterns
from rayline_cli.verify.cluster import nodes, pod_selector, ray_pods, ray_service

OPERATOR = "operator"
RAY_FOLDER = "/tmp/ray"
"""What Ray writes in a pod (ray/_private/utils.py, get_ray_temp_dir); the head shares it with the autoscaler."""
RAY_LOGS = f"{RAY_FOLDER}/session_latest/logs"
CRASHES = 5
"""How many of the last crashes are shown."""
OUTPUT = "ray"
"""The component whose logs are the containers' own output, too."""


@dataclass(frozen=True)
class ClusterStatus:
    """One service in a cluster."""

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
    """Pod that KubeRay deleted because its Ray container ended -> when and why it ended, as long as its event is kept."""

    def rows(self) -> list[tuple[str, str]]:
        """Return label and value of each line that a terminal shows."""
        return [
            ("endpoint", f"{self.url}/v1 in the cluster"),
            *(("application", f"{name} {state}") for name, state in self.applications.items()),
            *(("replicas", f"{count} {name}") for name, count in self.replicas.items()),
            *(("pod", f"{name}  {state}") for name, state in self.pods.items()),
            *(("crashed", f"{name}  {said}") for name, said in self.crashed.items()),
        ]


def status(kubectl: Kubectl, service: str) -> ClusterStatus:
    """Return what runs of a service. Raises NotSeen where the cluster does not answer."""
    url = f"http://{serve_service_name(service)}.{kubectl.namespace}:{SERVE_PORT}"
    try:
        found = ray_service(kubectl, service)
    except NotFound as error:
        return ClusterStatus(False, False, str(error), url)
    conditions = RayService(found).conditions
    pods = _pods(kubectl, service)
    serve = _serve(kubectl, service, found)
    ready = conditions.get("Ready", {})
    serves = bool(serve.applications) and set(serve.applications.values()) == {"RUNNING"}
    healthy = ready.get("status") == "True" and serves
    if healthy:
        detail = "serving"
    elif found["spec"].get("suspend"):
        detail = "parked"
    else:
        said = serve.waits or (ready.get("message") if ready.get("status") != "True" else "")
        detail = "; ".join(filter(None, [(said or "").rstrip("."), serve.unseen])) or "KubeRay has reported no status yet"
    return ClusterStatus(
        running=bool(pods),
        healthy=healthy,
        detail=detail,
        url=url,
        conditions={name: one["status"] for name, one in conditions.items()},
        applications=serve.applications,
        replicas=serve.replicas,
        pods={pod["metadata"]["name"]: _pod_line(pod) for pod in pods},
        crashed=_crashed(kubectl, service, pods),
    )


@dataclass(frozen=True)
class _Serve:
    """What Serve says of a service."""

    applications: Mapping[str, str]
    replicas: Mapping[str, str]
    waits: str = ""
    """What is still waited for, or what failed."""
    unseen: str = ""
    """Why Serve could not be asked: then `applications` are KubeRay's copy."""


def _serve(kubectl: Kubectl, service: str, found: Mapping[str, Any]) -> _Serve:
    """Ask the Serve of the RayCluster that serves; of the first one also while it is still coming."""
    try:
        head = nodes(kubectl, ray_pods(kubectl, service, found, or_coming=True), {})[0]
        answer = head.dashboard(APPLICATIONS)
        if answer["status"] != 200:
            # 0: nobody took the connection
            said = f"answers HTTP {answer['status']}" if answer["status"] else "does not answer"
            raise NotSeen(f"Serve's dashboard {said}")
        details = json.loads(answer["text"])
        applications = {name: app["status"] for name, app in details["applications"].items()}
        return _Serve(applications, replica_counts(details), _waits(details, found))
    except NotSeen as error:
        state = found.get("status") or {}
        copies = [(state.get(f"{which}ServiceStatus") or {}).get("applicationStatuses") for which in ("active", "pending")]
        copied = {name: app.get("status", "UNKNOWN") for name, app in (copies[0] or copies[1] or {}).items()}
        wrong = [f"{name} is {said}" for name, said in copied.items() if said != "RUNNING"]
        return _Serve(copied, {}, "; ".join(wrong), str(error))


def _waits(details: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """Return what the declared configuration waits for, or why it failed; nothing where it serves."""
    now = rollout(details, RayService(found).serve.data)
    if now.state is State.READY:
        return ""
    lines = now.detail.splitlines()
    cause = root_cause(now.detail)
    return f"{lines[0]} {cause}" if cause and len(lines) > 1 else " ".join(now.detail.split())


def _pods(kubectl: Kubectl, service: str) -> list[dict[str, Any]]:
    """Return every Ray pod of a service, of an old and a coming RayCluster too, heads first."""
    found = kubectl.get("pods", "-l", pod_selector(service))["items"]
    return sorted(found, key=lambda pod: (_role(pod) != Role.HEAD.value, pod["metadata"]["name"]))


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
    found = [
        one
        for event in events
        if of_the_service.fullmatch(event["involvedObject"]["name"])
        and (one := _DELETED.search(event.get("message") or ""))
        and one["pod"] not in there
    ]
    return {
        one["pod"]: f"{one['role']}, ended with {one['code']}: {one['reason'] or 'Unknown'} at {one['at']} UTC"
        for one in sorted(found, key=lambda one: one["at"])[-CRASHES:]
    }


def _role(pod: Mapping[str, Any]) -> str:
    return pod["metadata"]["labels"][NODE_TYPE_LABEL]


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the status of each container, those that run before the others included."""
    state = pod.get("status") or {}
    return [*(state.get("initContainerStatuses") or []), *(state.get("containerStatuses") or [])]


def _pod_line(pod: Mapping[str, Any]) -> str:
    state = pod.get("status") or {}
    parts = [_role(pod), "Terminating" if pod["metadata"].get("deletionTimestamp") else state.get("phase", "Unknown")]
    for one in _containers(pod):
        waiting = (one.get("state") or {}).get("waiting")
        ended = (one.get("state") or {}).get("terminated")
        if waiting:
            parts.append(f"{one['name']} waits: {_reason(waiting)}")
        elif ended and ended.get("exitCode"):
            parts.append(f"{one['name']} ended with {ended['exitCode']}: {_reason(ended)}")
        if one.get("restartCount"):
            parts.append(f"{one['name']} restarted {one['restartCount']} times")
    parts += [
        f"{one['name']} is not ready"
        for one in state.get("containerStatuses") or []
        if "running" in (one.get("state") or {}) and one.get("ready") is False
    ]
    unscheduled = [one for one in state.get("conditions") or [] if one.get("reason") == "Unschedulable"]
    parts += [f"unschedulable: {one.get('message', '')}" for one in unscheduled]
    return ", ".join(parts)


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
    for name, said in _crashed(kubectl, service, pods).items():
        yield f"==> {name}: {said}; KubeRay deleted the pod, and its logs with it <=="
    for pod in pods:
        name = pod["metadata"]["name"]
        yield f"==> {name}: {_pod_line(pod)} <=="
        if component in (None, OUTPUT):
            for one in _containers(pod):
                yield from _output(kubectl, name, one, lines)
        if (pod.get("status") or {}).get("phase") == "Running":
            yield from _files(kubectl, pod, patterns, lines)


def _output(kubectl: Kubectl, pod: str, container: Mapping[str, Any], lines: int) -> Iterator[str]:
    crashed = ["--previous"] if container.get("restartCount") else []
    for which in [*([crashed] if crashed else []), []]:
        title = f"==> {pod}/{container['name']}{' before its last restart' if which else ''} <=="
        try:
            said = kubectl("logs", pod, "-c", container["name"], f"--tail={lines}", *which)
        except NotSeen as error:
            said = str(error)
        if said.strip():
            yield title
            yield from said.splitlines()


def _files(kubectl: Kubectl, pod: Mapping[str, Any], patterns: Sequence[str], lines: int) -> Iterator[str]:
    """Yield the end of Ray's log files in a pod. The patterns are the kit's own, so the shell gets nothing foreign."""
    name = pod["metadata"]["name"]
    show = f'[ -s "$f" ] && echo "==> {name}:$f <==" && tail -n {lines} "$f"'
    script = f"cd {RAY_LOGS} && for f in {' '.join(patterns)}; do {show}; done; true"
    try:
        said = kubectl("exec", name, "-c", _reader(pod), "--", "sh", "-c", script)
    except NotSeen as error:
        said = f"==> {name}: Ray's log files cannot be read: {error} <=="
    yield from said.splitlines()


def _reader(pod: Mapping[str, Any]) -> str:
    """Return the container that Ray's files are read in: where Ray's own has ended, one that shares its folder."""
    ray = ray_container(pod).name
    ended = {one["name"] for one in _containers(pod) if "terminated" in (one.get("state") or {})}
    sharing = [
        one["name"]
        for one in pod["spec"]["containers"]
        if any(mount["mountPath"] == RAY_FOLDER for mount in one.get("volumeMounts") or [])
    ]
    return next((name for name in [ray, *sharing] if name not in ended), ray)


def operator_logs(kubectl: Kubectl, namespace: str | None, *, lines: int) -> Iterator[str]:
    """Yield the last lines of the KubeRay operator, of its last crash too, which runs in `namespace` (default kuberay-system).

    Raises FailedError where no operator runs there: GKE's add-on runs outside of the cluster.
    """
    there = replace(kubectl, namespace=namespace or OPERATOR_NAMESPACE)
    pods = there.get("pods", "-l", ",".join(f"{name}={value}" for name, value in OPERATOR_POD.items()))["items"]
    if not pods:
        raise FailedError(
            f"no KubeRay operator in namespace {there.namespace}. Fix: isolation.operator_namespace, where it runs "
            "elsewhere; GKE's add-on logs to Cloud Logging"
        )
    for pod in pods:
        for one in _containers(pod):
            yield from _output(there, pod["metadata"]["name"], one, lines)


def api_key(kubectl: Kubectl, service: str, *, previous: bool = False) -> str:
    """Return the API key of a service from its Secret, or the previous one. Raises NotSeen or FailedError."""
    try:
        secret = kubectl.get("secret", api_key_secret(service))
    except NotFound as error:
        ray_service(kubectl, service)
        raise FailedError(f"{error}. Fix: bring the stack up again, which makes it") from None
    value = (secret.get("data") or {}).get(PREVIOUS_API_KEY_KEY if previous else API_KEY_KEY)
    if not value:
        which = "previous key. Fix: it has one after a change of api.key_generation" if previous else "key"
        raise FailedError(f"the Secret {api_key_secret(service)} holds no {which}")
    return base64.b64decode(value).decode()
