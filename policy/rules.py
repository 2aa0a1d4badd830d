"""The rules of the policy pack, as plain functions over a stack's resources.

A resource rule judges one resource before it is created or changed. A stack rule needs several resources, and judges them when
all are known. `__main__.py` hands the rules to Pulumi's policy engine; tests run them over what the program declares. This
module imports the facts and the reading of a RayService only: a rule that used the plan would agree with the plan's mistakes.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rayline.facts.accelerators import GPU_RESOURCE
from rayline.facts.labels import serve_service_name
from rayline.facts.serve_flags import SWITCHES
from rayline.service.reading import Group, RayService, plain_environment


@dataclass(frozen=True)
class Resource:
    """One resource. `inputs` is plain data, with None for a secret or a value that a preview does not know."""

    type: str
    name: str
    inputs: Mapping[str, Any]
    protect: bool = False

    @property
    def kind(self) -> str:
        """Return the last part of the type, for example NodePool or RayService."""
        return self.type.rpartition(":")[2]

    def at(self, path: str) -> Any:
        """Return the input at a dotted path; None where a part is missing, not known or no map."""
        value: Any = self.inputs
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


@dataclass(frozen=True)
class TeamSettings:
    """Settings of the platform team for the pack (docs/policy.md)."""

    stack: str
    production: Sequence[str] = ("prod",)
    """Beginnings of the names of production stacks."""
    max_gpus: int | None = None
    """GPUs that one stack may reach; None is no limit."""
    switches_off: Sequence[str] = ()
    """Switches that may be off, named as in a stack file."""

    @property
    def in_production(self) -> bool:
        """Return whether the stack is a production stack."""
        return self.stack.startswith(tuple(self.production))


Violation = tuple[Resource, str]


@dataclass(frozen=True)
class PolicyRule:
    """One rule. `settings` are the fields of TeamSettings that it reads."""

    name: str
    description: str
    settings: tuple[str, ...]
    of_stack: bool
    check: Callable[[Any, TeamSettings], Iterator[Any]]
    """Yields messages about one Resource; of a stack rule, a Violation for each mistake in a list of resources."""


RULES: list[PolicyRule] = []


def rule(description: str, *settings: str, of_stack: bool = False) -> Callable:
    """Register a function as a rule of its name."""

    def add(check: Callable[[Any, TeamSettings], Iterator[Any]]) -> Callable:
        RULES.append(PolicyRule(check.__name__.replace("_", "-"), description, settings, of_stack, check))
        return check

    return add


def violations(
    resources: Sequence[Resource], settings: TeamSettings, only: PolicyRule | None = None
) -> list[tuple[str, Resource, str]]:
    """Return rule, resource and message of each mistake in a stack; of one rule, where it is given."""
    mistakes: list[tuple[str, Resource, str]] = []
    for each in [only] if only else RULES:
        if each.of_stack:
            mistakes += [(each.name, resource, message) for resource, message in each.check(resources, settings)]
        else:
            mistakes += [(each.name, it, message) for it in resources for message in each.check(it, settings)]
    return mistakes


# --- Google -----------------------------------------------------------------------------------------------------------


def _is_pool(resource: Resource) -> bool:
    return resource.type == "gcp:container/nodePool:NodePool"


def _is_cluster(resource: Resource) -> bool:
    return resource.type == "gcp:container/cluster:Cluster"


def _gpus(resource: Resource) -> int:
    """Return the GPUs of one node of a node pool; 0 for another resource."""
    cards = (resource.at("nodeConfig.guestAccelerators") if _is_pool(resource) else None) or ()
    return sum(int(card.get("count") or 0) for card in cards)


@rule("A GPU node pool has the taint nvidia.com/gpu exactly once, which keeps pods without a GPU off it")
def gpu_pools_are_tainted(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if _gpus(resource):
        effects = [t.get("effect") for t in resource.at("nodeConfig.taints") or () if t.get("key") == GPU_RESOURCE]
        if effects != ["NO_SCHEDULE"]:
            yield f"nodeConfig.taints needs {GPU_RESOURCE} with effect NO_SCHEDULE exactly once"


_PREEMPTIBLE = ("cloud.google.com/gke-spot", "cloud.google.com/gke-flex-start", "cloud.google.com/compute-class")


@rule("A Ray head never runs on preemptible capacity")
def heads_are_never_on_spot(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if _is_pool(resource) and not _gpus(resource):
        for key in ("spot", "preemptible", "flexStart"):
            if resource.at(f"nodeConfig.{key}"):
                yield f"nodeConfig.{key}: Ray heads run in the CPU pool, and a lost head is an outage. Fix: leave it out"
    if resource.kind == "RayService":
        pod = RayService(resource.inputs).head.pod
        for label in _PREEMPTIBLE:
            if label in (pod.get("nodeSelector") or {}):
                yield f"the head selects nodes by {label}. Fix: leave it out"
        if any(t.get("key") in (GPU_RESOURCE, None) for t in pod.get("tolerations") or ()):
            yield f"the head tolerates {GPU_RESOURCE}, and could take a GPU node's place. Fix: leave it out"


@rule("Production clusters have deletion protection, at Google and in Pulumi", "production")
def production_clusters_are_protected(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if settings.in_production and _is_cluster(resource):
        if resource.at("deletionProtection") is not True:
            yield "deletionProtection is not true. Fix: set cluster.deletion_protection"
        if not resource.protect:
            yield "the resource option protect is off. Fix: set cluster.deletion_protection"


@rule("Production GPU node pools have deletion protection: their machines may not come back", "production")
def production_gpu_pools_are_protected(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if settings.in_production and _gpus(resource) and not resource.protect:
        yield "the resource option protect is off. Fix: set cluster.deletion_protection"


@rule("Nodes have their own service account, and pods cannot read its credentials")
def nodes_have_their_own_account(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if _is_pool(resource):
        if "serviceAccount" not in (resource.at("nodeConfig") or {}):
            yield "nodeConfig.serviceAccount is missing: the default account may edit the whole project. Fix: name one"
        if resource.at("nodeConfig.workloadMetadataConfig.mode") != "GKE_METADATA":
            yield "nodeConfig.workloadMetadataConfig.mode is not GKE_METADATA. Fix: set it"


@rule("Production nodes have no public addresses", "production")
def production_nodes_are_private(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    if settings.in_production and _is_cluster(resource) and resource.at("privateClusterConfig.enablePrivateNodes") is not True:
        yield "privateClusterConfig.enablePrivateNodes is not true. Fix: set cluster.private_nodes"


@rule("The GPUs that a stack may reach stay within the platform's limit", "max_gpus", of_stack=True)
def gpus_stay_within_the_limit(resources: Sequence[Resource], settings: TeamSettings) -> Iterator[Violation]:
    pools = [resource for resource in resources if _gpus(resource)]
    total = sum(_gpus(pool) * int(pool.at("autoscaling.totalMaxNodeCount") or 0) for pool in pools)
    # a ladder has no node pool in the program; the namespace's quota bounds its services
    quotas = [resource for resource in resources if resource.kind == "ResourceQuota"]
    allowed = sum(int((quota.at("spec.hard") or {}).get(f"requests.{GPU_RESOURCE}") or 0) for quota in quotas)
    most = max(total, allowed)
    if settings.max_gpus is not None and most > settings.max_gpus:
        yield [*pools, *quotas][0], f"the stack may reach {most} GPUs, the limit is {settings.max_gpus}. Fix: fewer replicas"


# --- Kubernetes -------------------------------------------------------------------------------------------------------


def _groups(resource: Resource) -> list[Group]:
    """Return the head group and the worker groups of a RayService; none for another resource."""
    return RayService(resource.inputs).groups if resource.kind == "RayService" else []


def _pods(resource: Resource) -> list[tuple[str, Mapping[str, Any]]]:
    """Return name and spec of each pod that a resource describes."""
    if resource.kind in ("Job", "Deployment", "StatefulSet", "DaemonSet"):
        return [(resource.kind, resource.at("spec.template.spec") or {})]
    return [(group.name, group.pod) for group in _groups(resource)]


def _containers(resource: Resource) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield each container that a resource describes, with the name of its pod."""
    for name, pod in _pods(resource):
        for container in (*(pod.get("initContainers") or ()), *(pod.get("containers") or ())):
            yield name, container


@rule('The four switches are exactly "1" on the head and on every worker group', "switches_off")
def switches_are_on_everywhere(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    for group in _groups(resource):
        env = plain_environment(group.ray_container)
        for switch, variable in SWITCHES.items():
            value = env.get(variable)
            if value != "1" and not (value == "0" and switch in settings.switches_off):
                yield f'{group.name}: {variable} is {repr(value) if value else "missing"}. Fix: "1", which alone is on for Ray'


@rule("Head and workers have the same Ray and vLLM environment")
def environments_are_equal(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    environments = {
        group.name: {
            (name, value)
            for name, value in plain_environment(group.ray_container).items()
            if name.startswith(("RAY_SERVE_", "RAYLLM_", "VLLM_"))
        }
        for group in _groups(resource)
    }
    head = environments.get("head", set())
    for group, environment in environments.items():
        if different := sorted({name for name, _ in head ^ environment}):
            yield f"{group} differs from the head in {', '.join(different)}. Fix: set them alike"


@rule("Images have a fixed tag or a digest")
def images_are_pinned(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    for pod, container in _containers(resource):
        image = container.get("image")
        if isinstance(image, str) and not pinned(image):
            yield f"{pod}: {image} is not pinned. Fix: name a version or a digest"


def pinned(image: str) -> bool:
    """Return whether an image has a digest, or a tag that names a version."""
    name, _, digest = image.partition("@sha256:")
    tag = name.rpartition("/")[2].partition(":")[2]
    return bool(digest) or (tag != "" and not re.search(r"(^|[-.])(latest|nightly|main|master|dev)($|[-.])", tag))


# Beginnings of tokens that are recognised wherever they stand: Hugging Face, OpenAI-like, Google, private keys.
TOKEN = re.compile(r"hf_[A-Za-z0-9]{20,}|\bsk-[A-Za-z0-9_-]{20,}|AIza[0-9A-Za-z_-]{35}|-----BEGIN [A-Z ]*PRIVATE KEY-----")
SECRET_NAME = re.compile(r"(TOKEN|PASSWORD|SECRET|API_KEY|CREDENTIAL)S?$")


@rule("No resource holds a token in clear text")
def tokens_are_never_plain(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    for path, text in _texts(resource.inputs):
        if TOKEN.search(text):
            yield f"{path} holds what looks like a token. Fix: put it in a Secret"
    for pod, container in _containers(resource):
        for variable in container.get("env") or ():
            if SECRET_NAME.search(str(variable.get("name"))) and variable.get("value"):
                yield f"{pod}: {variable['name']} has its value in the manifest. Fix: use valueFrom.secretKeyRef"


def _texts(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each text in plain data with its path."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _texts(item, f"{path}.{key}".lstrip("."))
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            yield from _texts(item, f"{path}[{index}]")


@rule("Only a Gateway exposes a service outside the cluster; Ray's dashboard is never exposed")
def services_stay_inside(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    types: dict[str, Any] = {}
    if resource.kind == "Service":
        types["spec.type"] = resource.at("spec.type")
    if resource.kind == "Ingress":
        yield "an Ingress exposes a service. Fix: use a Gateway"
    if resource.kind == "RayService":
        head = RayService(resource.inputs).head.data
        if head.get("enableIngress"):
            yield "headGroupSpec.enableIngress exposes Ray's dashboard. Fix: leave it out"
        types["headGroupSpec.serviceType"] = head.get("serviceType")
        types["headGroupSpec.headService"] = ((head.get("headService") or {}).get("spec") or {}).get("type")
        types["spec.serveService"] = resource.at("spec.serveService.spec.type")
    for path, kind in types.items():
        if kind in ("LoadBalancer", "NodePort"):
            yield f"{path} {kind} exposes a service. Fix: use a Gateway"


@rule("Pods cannot become root")
def pods_are_not_root(resource: Resource, settings: TeamSettings) -> Iterator[str]:
    for name, pod in _pods(resource):
        if (pod.get("securityContext") or {}).get("runAsNonRoot") is not True:
            yield f"{name}: securityContext.runAsNonRoot is not true. Fix: set it"
    for name, container in _containers(resource):
        context = container.get("securityContext") or {}
        if context.get("privileged") or context.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: container {container.get('name')} may become root. Fix: set allowPrivilegeEscalation: false"


@rule("The namespace of a service enforces Pod Security, denies traffic by default and has a quota", of_stack=True)
def namespaces_are_isolated(resources: Sequence[Resource], settings: TeamSettings) -> Iterator[Violation]:
    # namespace -> a RayService in it
    services = {str(r.at("metadata.namespace")): r for r in resources if r.kind == "RayService"}
    for name, service in services.items():
        for namespace in resources:
            if namespace.kind == "Namespace" and namespace.at("metadata.name") == name:
                level = (namespace.at("metadata.labels") or {}).get("pod-security.kubernetes.io/enforce")
                if level != "restricted":
                    yield namespace, f"pod-security.kubernetes.io/enforce is {level or 'missing'}. Fix: restricted"
        inside = [r for r in resources if r.at("metadata.namespace") == name]
        if not any(_denies_by_default(r) for r in inside):
            yield service, f"namespace {name} has no NetworkPolicy that denies traffic by default. Fix: add one"
        if not any(r.kind == "ResourceQuota" for r in inside):
            yield service, f"namespace {name} has no ResourceQuota. Fix: add one"


def _denies_by_default(resource: Resource) -> bool:
    return (
        resource.kind == "NetworkPolicy"
        and resource.at("spec.podSelector") == {}
        and "Ingress" in (resource.at("spec.policyTypes") or ())
        and not resource.at("spec.ingress")
    )


# GKE's Gateway classes with a public address.
PUBLIC_CLASSES = ("gke-l7-global-external-managed", "gke-l7-regional-external-managed", "gke-l7-gxlb")


@rule("A public endpoint has TLS, and takes requests with an API key or through IAP only", of_stack=True)
def public_endpoints_are_guarded(resources: Sequence[Resource], settings: TeamSettings) -> Iterator[Violation]:
    # public Gateway -> its listeners without TLS
    plain: dict[str, set[str]] = {}
    for gateway in resources:
        if gateway.kind != "Gateway" or str(gateway.at("spec.gatewayClassName")) not in PUBLIC_CLASSES:
            continue
        without_tls = plain.setdefault(str(gateway.at("metadata.name")), set())
        certificates = "networking.gke.io/certmap" in (gateway.at("metadata.annotations") or {})
        for listener in gateway.at("spec.listeners") or ():
            if listener.get("protocol") != "HTTPS":
                without_tls.add(str(listener.get("name")))
            elif not certificates and not (listener.get("tls") or {}).get("certificateRefs"):
                yield gateway, f"listener {listener.get('name')} has no certificate. Fix: add one"
    for route in (r for r in resources if r.kind == "HTTPRoute"):
        parents = [p for p in route.at("spec.parentRefs") or () if p.get("name") in plain]
        references = [backend for each in route.at("spec.rules") or () for backend in each.get("backendRefs") or ()]
        for parent in parents if references else ():
            without_tls, section = plain[str(parent["name"])], parent.get("sectionName")
            if section in without_tls or (section is None and without_tls):
                yield route, "it serves over a listener without TLS. Fix: redirect there only"
        for backend in [str(reference.get("name")) for reference in references] if parents else ():
            if not _needs_api_key(resources, backend) and not _behind_iap(resources, backend):
                yield route, f"{backend} takes requests without an API key or IAP. Fix: add one of them"


def _needs_api_key(resources: Sequence[Resource], backend: str) -> bool:
    """Return whether every worker group of the RayService behind a Serve Service has the Secret of its API key."""
    for resource in resources:
        name = resource.at("metadata.name")
        if resource.kind == "RayService" and serve_service_name(name) == backend:
            workers = RayService(resource.inputs).workers
            return bool(workers) and all(f"{name}-api-key" in dict(_texts(group.pod)).values() for group in workers)
    return False


def _behind_iap(resources: Sequence[Resource], backend: str) -> bool:
    return any(
        r.kind == "GCPBackendPolicy" and r.at("spec.targetRef.name") == backend and r.at("spec.default.iap.enabled") is True
        for r in resources
    )
