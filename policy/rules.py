"""What a platform team may rely on, as plain functions over a stack's resources.

A rule takes resources as Pulumi sees them (type token, inputs, the protect option) and yields what is wrong. A ResourceRule
judges one resource and stops it before it is made; a StackRule needs several to judge. `__main__.py` hands them to Pulumi's
policy engine, tests run them over what the program declares. Imports the facts and the reading of a RayService only, so that no
rule can agree with a plan just because it is the plan.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rayline.facts.accelerators import GPU_RESOURCE
from rayline.facts.serve_flags import SWITCHES
from rayline.service.reading import Group, RayService, plain_environment

Violation = tuple["Resource", str]


@dataclass(frozen=True)
class Resource:
    """One resource. `inputs` is plain data; what is not known yet or secret is None."""

    type: str
    name: str
    inputs: Mapping[str, Any]
    protect: bool = False

    @property
    def kind(self) -> str:
        """The last part of the type, for example NodePool or RayService."""
        return self.type.rpartition(":")[2]

    def at(self, path: str) -> Any:
        """The input at a dotted path; None where a part is missing, not known or no map."""
        value: Any = self.inputs
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


@dataclass(frozen=True)
class TeamSettings:
    """What a platform team decides. `production`: stacks whose name begins so are production.

    `max_gpus`: GPUs that the node pools of one stack may reach together; None is no limit.
    `switches_off`: switches (names as in a stack file) that may be off.
    """

    stack: str
    production: Sequence[str] = ("prod",)
    max_gpus: int | None = None
    switches_off: Sequence[str] = ()

    @property
    def in_production(self) -> bool:
        """Whether this stack is production."""
        return self.stack.startswith(tuple(self.production))


@dataclass(frozen=True)
class ResourceRule:
    """A rule about one resource, judged before it is created or changed. `settings` are those of TeamSettings that it reads."""

    name: str
    says: str
    settings: tuple[str, ...]
    check: Callable[[Resource, TeamSettings], Iterator[str]]


@dataclass(frozen=True)
class StackRule:
    """A rule about several resources, judged when all are known."""

    name: str
    says: str
    settings: tuple[str, ...]
    check: Callable[[Sequence[Resource], TeamSettings], Iterator[Violation]]


@dataclass
class _Rules:
    of_one: list[ResourceRule] = field(default_factory=list)
    of_all: list[StackRule] = field(default_factory=list)

    def one(self, says: str, *settings: str) -> Callable:
        def add(check: Callable[[Resource, TeamSettings], Iterator[str]]):
            self.of_one.append(ResourceRule(_name(check), says, settings, check))
            return check

        return add

    def all(self, says: str, *settings: str) -> Callable:
        def add(check: Callable[[Sequence[Resource], TeamSettings], Iterator[Violation]]):
            self.of_all.append(StackRule(_name(check), says, settings, check))
            return check

        return add


def _name(check: Callable) -> str:
    return check.__name__.replace("_", "-")


RULES = _Rules()


def violations(resources: Sequence[Resource], settings: TeamSettings) -> list[tuple[str, Resource, str]]:
    """(rule, resource, message) for everything that is wrong with a stack."""
    found = [
        (rule.name, resource, message)
        for rule in RULES.of_one
        for resource in resources
        for message in rule.check(resource, settings)
    ]
    return found + [
        (rule.name, resource, message) for rule in RULES.of_all for resource, message in rule.check(resources, settings)
    ]


# --- Google -----------------------------------------------------------------------------------------------------------


def _gpus(resource: Resource) -> int:
    """GPUs of one node of a pool."""
    cards = resource.at("nodeConfig.guestAccelerators") or ()
    return sum(int(card.get("count") or 0) for card in cards)


def _is_pool(resource: Resource) -> bool:
    return resource.type == "gcp:container/nodePool:NodePool"


def _is_cluster(resource: Resource) -> bool:
    return resource.type == "gcp:container/cluster:Cluster"


@RULES.one("A GPU pool carries the taint nvidia.com/gpu, once, so that only what asks for a GPU lands on it")
def gpu_pools_are_tainted(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if _is_pool(resource) and _gpus(resource):
        taints = [t for t in resource.at("nodeConfig.taints") or () if t.get("key") == GPU_RESOURCE]
        if [taint.get("effect") for taint in taints] != ["NO_SCHEDULE"]:
            yield f"nodeConfig.taints needs {GPU_RESOURCE} with effect NO_SCHEDULE exactly once"


@RULES.one("A Ray head never runs on capacity that Google takes back")
def heads_are_never_on_spot(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if _is_pool(resource) and not _gpus(resource):
        for key in ("spot", "preemptible", "flexStart"):
            if resource.at(f"nodeConfig.{key}"):
                yield f"nodeConfig.{key}: a CPU pool holds the heads, and a lost head is an outage"
    if resource.kind == "RayService":
        pod = RayService(resource.inputs).head.pod
        for label in ("cloud.google.com/gke-spot", "cloud.google.com/gke-flex-start", "cloud.google.com/compute-class"):
            if label in (pod.get("nodeSelector") or {}):
                yield f"the head selects nodes by {label}"
        if any(t.get("key") in (GPU_RESOURCE, None) for t in pod.get("tolerations") or ()):
            yield f"the head tolerates {GPU_RESOURCE}: it would take a GPU node's place"


@RULES.one("In production nobody deletes or replaces a cluster without saying so twice", "production")
def production_clusters_are_protected(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if settings.in_production and _is_cluster(resource):
        if resource.at("deletionProtection") is not True:
            yield "deletionProtection has to be true: set cluster.deletion_protection"
        if not resource.protect:
            yield "the resource option protect has to be on: set cluster.deletion_protection"


@RULES.one("In production no change replaces or removes a GPU pool: its machines may not come back", "production")
def production_gpu_pools_are_protected(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if settings.in_production and _is_pool(resource) and _gpus(resource) and not resource.protect:
        yield "the resource option protect has to be on: set cluster.deletion_protection"


@RULES.one("Nodes run as an account of their own and hide the machine's credentials from pods")
def nodes_have_their_own_account(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if _is_pool(resource):
        if "serviceAccount" not in (resource.at("nodeConfig") or {}):
            yield "nodeConfig.serviceAccount is missing: the default account may edit the whole project"
        if resource.at("nodeConfig.workloadMetadataConfig.mode") != "GKE_METADATA":
            yield "nodeConfig.workloadMetadataConfig.mode has to be GKE_METADATA"


@RULES.one("In production nodes have no public addresses", "production")
def production_nodes_are_private(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if settings.in_production and _is_cluster(resource) and resource.at("privateClusterConfig.enablePrivateNodes") is not True:
        yield "privateClusterConfig.enablePrivateNodes has to be true: set cluster.private_nodes"


@RULES.all("The GPUs that a stack's node pools may reach stay within the platform's limit", "max_gpus")
def gpus_stay_within_the_limit(resources: Sequence[Resource], settings: TeamSettings) -> Iterator[Violation]:
    pools = [resource for resource in resources if _is_pool(resource) and _gpus(resource)]
    total = sum(_gpus(pool) * int(pool.at("autoscaling.totalMaxNodeCount") or 0) for pool in pools)
    # a ladder has no pool of ours; what its services may have stands in the namespace's quota
    quotas = [resource for resource in resources if resource.kind == "ResourceQuota"]
    allowed = sum(int((quota.at("spec.hard") or {}).get(f"requests.{GPU_RESOURCE}") or 0) for quota in quotas)
    if settings.max_gpus is not None and max(total, allowed) > settings.max_gpus:
        yield [*pools, *quotas][0], f"the stack may reach {max(total, allowed)} GPUs, the limit is {settings.max_gpus}"


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def _groups(resource: Resource) -> list[Group]:
    """The head group and every worker group of a RayService; nothing of another resource."""
    return RayService(resource.inputs).groups if resource.kind == "RayService" else []


def _pods(resource: Resource) -> list[tuple[str, Mapping[str, Any]]]:
    """(name, pod spec) of every pod that a resource describes."""
    if resource.kind in ("Job", "Deployment", "StatefulSet", "DaemonSet"):
        return [(resource.kind, resource.at("spec.template.spec") or {})]
    return [(group.name, group.pod) for group in _groups(resource)]


def _containers(pod: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*(pod.get("initContainers") or ()), *(pod.get("containers") or ())]


@RULES.one('The four switches of the fast path are exactly "1" on the head and on every worker group', "switches_off")
def switches_are_on_everywhere(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    for group in _groups(resource):
        env = plain_environment(group.ray_container)
        for switch, variable in SWITCHES.items():
            value = env.get(variable)
            if value == "0" and switch in settings.switches_off:
                continue
            if value != "1":
                shown = repr(value) if value else "missing"
                yield f'{group.name}: {variable} is {shown}; Ray takes "1" alone for on'


@RULES.one("Head and workers have the same Ray and vLLM environment")
def environments_are_equal(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    seen: dict[str, dict[str, Any]] = {}
    for group in _groups(resource):
        seen[group.name] = {
            name: value
            for name, value in plain_environment(group.ray_container).items()
            if name.startswith(("RAY_SERVE_", "RAYLLM_", "VLLM_"))
        }
    head = seen.get("head", {})
    for group, env in seen.items():
        different = sorted(name for name in head.keys() | env.keys() if head.get(name) != env.get(name))
        if different:
            yield f"{group} differs from the head in {', '.join(different)}"


@RULES.one("Images have a tag that is not moved, or a digest")
def images_are_pinned(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    for group, pod in _pods(resource):
        for container in _containers(pod):
            image = container.get("image")
            if isinstance(image, str) and not pinned(image):
                yield f"{group}: {image} is not pinned: name a version or a digest"


def pinned(image: str) -> bool:
    """Whether an image has a digest, or a tag that names a version."""
    name, _, digest = image.partition("@sha256:")
    tag = name.rpartition("/")[2].partition(":")[2]
    return bool(digest) or (tag != "" and not re.search(r"(^|[-.])(latest|nightly|main|master|dev)($|[-.])", tag))


# Beginnings of tokens that are recognised wherever they stand: Hugging Face, OpenAI-like, Google, private keys.
TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}|AIza[0-9A-Za-z_-]{35}|-----BEGIN [A-Z ]*PRIVATE KEY-----")
SECRET_NAME = re.compile(r"(TOKEN|PASSWORD|SECRET|API_KEY|CREDENTIAL)S?$")


@RULES.one("No token stands in clear text in what the stack declares")
def tokens_are_never_plain(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    for path, text in _texts(resource.inputs):
        if TOKEN.search(text):
            yield f"{path} holds what looks like a token: it belongs in a Secret"
    for group, pod in _pods(resource):
        for container in _containers(pod):
            for variable in container.get("env") or ():
                if SECRET_NAME.search(str(variable.get("name"))) and variable.get("value"):
                    yield f"{group}: {variable['name']} has its value in the manifest: use valueFrom.secretKeyRef"


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}[{index}]")


@RULES.one("Ray's dashboard and the serving port have no door to the outside beside the gateway")
def services_stay_inside(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if resource.kind == "Service" and resource.at("spec.type") in ("LoadBalancer", "NodePort"):
        yield f"spec.type {resource.at('spec.type')}: a Gateway is the only way in"
    if resource.kind == "Ingress":
        yield "an Ingress: a Gateway is the only way in"
    if resource.kind == "RayService":
        head = RayService(resource.inputs).head.data
        if head.get("enableIngress"):
            yield "headGroupSpec.enableIngress opens Ray's dashboard to the outside"
        kinds = {
            "headGroupSpec.serviceType": head.get("serviceType"),
            "headGroupSpec.headService": ((head.get("headService") or {}).get("spec") or {}).get("type"),
            "spec.serveService": resource.at("spec.serveService.spec.type"),
        }
        for path, kind in kinds.items():
            if kind in ("LoadBalancer", "NodePort"):
                yield f"{path} is {kind}: a Gateway is the only way in"


@RULES.one("Pods cannot become root")
def pods_are_not_root(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    for group, pod in _pods(resource):
        if (pod.get("securityContext") or {}).get("runAsNonRoot") is not True:
            yield f"{group}: securityContext.runAsNonRoot has to be true"
        for container in _containers(pod):
            context = container.get("securityContext") or {}
            if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
                yield f"{group}: container {container.get('name')} has to say allowPrivilegeEscalation: false"


def _namespaces_of_services(resources: Sequence[Resource]) -> dict[str, Resource]:
    """Namespace -> a RayService in it."""
    return {str(r.at("metadata.namespace")): r for r in resources if r.kind == "RayService"}


@RULES.all("The namespace of the services enforces Pod Security, refuses traffic by default and has a quota")
def namespaces_are_isolated(resources: Sequence[Resource], settings: TeamSettings) -> Iterator[Violation]:
    for name, service in _namespaces_of_services(resources).items():
        inside = [r for r in resources if r.at("metadata.namespace") == name]
        for namespace in resources:
            if namespace.kind == "Namespace" and namespace.at("metadata.name") == name:
                level = (namespace.at("metadata.labels") or {}).get("pod-security.kubernetes.io/enforce")
                if level != "restricted":
                    yield namespace, f"pod-security.kubernetes.io/enforce is {level or 'missing'}: restricted"
        if not any(
            r.kind == "NetworkPolicy"
            and r.at("spec.podSelector") == {}
            and "Ingress" in (r.at("spec.policyTypes") or ())
            and not r.at("spec.ingress")
            for r in inside
        ):
            yield service, f"namespace {name} has no NetworkPolicy that refuses traffic by default"
        if not any(r.kind == "ResourceQuota" for r in inside):
            yield service, f"namespace {name} has no ResourceQuota"


# Gateway classes of GKE that answer the internet.
PUBLIC_CLASSES = ("gke-l7-global-external-managed", "gke-l7-regional-external-managed", "gke-l7-gxlb")


@RULES.all("A public endpoint speaks TLS and asks who is there")
def public_endpoints_are_guarded(resources: Sequence[Resource], settings: TeamSettings) -> Iterator[Violation]:
    public = {
        str(r.at("metadata.name")): r
        for r in resources
        if r.kind == "Gateway" and str(r.at("spec.gatewayClassName")) in PUBLIC_CLASSES
    }
    plain: dict[str, set[str]] = {}
    for name, gateway in public.items():
        certificates = "networking.gke.io/certmap" in (gateway.at("metadata.annotations") or {})
        for listener in gateway.at("spec.listeners") or ():
            if listener.get("protocol") == "HTTPS":
                if not certificates and not (listener.get("tls") or {}).get("certificateRefs"):
                    yield gateway, f"listener {listener.get('name')} has no certificate"
            else:
                plain.setdefault(name, set()).add(str(listener.get("name")))
    for route in (r for r in resources if r.kind == "HTTPRoute"):
        parents = [p for p in route.at("spec.parentRefs") or () if p.get("name") in public]
        backends = [
            str(backend.get("name")) for rule in route.at("spec.rules") or () for backend in rule.get("backendRefs") or ()
        ]
        if not parents or not backends:
            continue
        for parent in parents:
            section = parent.get("sectionName")
            if section in plain.get(str(parent["name"]), ()) or (section is None and plain.get(str(parent["name"]))):
                yield route, "it serves over a listener without TLS: let that one redirect only"
        for backend in backends:
            if not _asks_for_a_key(resources, backend) and not _behind_iap(resources, backend):
                yield route, f"{backend} asks for neither an API key nor IAP"


def _asks_for_a_key(resources: Sequence[Resource], backend: str) -> bool:
    """Whether the RayService behind a serve Service keeps its key Secret in its worker pods."""
    for resource in resources:
        if resource.kind == "RayService" and f"{resource.at('metadata.name')}-serve-svc" == backend:
            secret = f"{resource.at('metadata.name')}-api-key"
            workers = RayService(resource.inputs).workers
            return bool(workers) and all(any(text == secret for _, text in _texts(group.pod)) for group in workers)
    return False


def _behind_iap(resources: Sequence[Resource], backend: str) -> bool:
    return any(
        r.kind == "GCPBackendPolicy" and r.at("spec.targetRef.name") == backend and r.at("spec.default.iap.enabled") is True
        for r in resources
    )
