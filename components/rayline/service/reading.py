"""Read a RayService: groups, Ray container, environment, Serve configuration, ports, volumes and resources.

The manifest may be rendered by the kit, written by someone else, or come from a cluster. A missing part reads as empty, so no
caller checks whether a level of the manifest exists. Nothing is changed, nothing is fetched.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rayline.facts.choices import Task
from rayline.facts.labels import RAY_TOKEN_KEY, TASK_ANNOTATION, Role, task_annotation
from rayline.service.serve_reading import ServeConfig, mapping, mappings

# KubeRay's names for the Ray container of a pod that it made (common/pod.go). In a template any name is allowed.
RAY_CONTAINERS = ("ray-head", "ray-worker")


@dataclass(frozen=True)
class SecretRef:
    """Key of a Secret that holds a value."""

    name: str
    key: str
    optional: bool = False


@dataclass(frozen=True)
class PodSource:
    """Source of a value that only a pod has: fieldRef, resourceFieldRef, configMapKeyRef."""

    kind: str


Value = str | SecretRef | PodSource
"""Value of an environment variable."""


@dataclass(frozen=True)
class Container:
    """One container of a pod or of a pod's template."""

    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the container's name."""
        return str(self.data.get("name") or "")

    @property
    def environment(self) -> dict[str, Value]:
        """Return the variables that `env` names. The last entry of a name wins, as in a pod."""
        return {str(entry.get("name")): _value(entry) for entry in mappings(self.data, "env")}

    @property
    def takes_whole_sources(self) -> bool:
        """Whether `envFrom` adds variables that the manifest does not name."""
        return bool(self.data.get("envFrom"))

    @property
    def resources(self) -> dict[str, Any]:
        """Return the requests, overlaid with the limits: the amounts that the scheduler reserves."""
        return {**mapping(self.data, "resources", "requests"), **mapping(self.data, "resources", "limits")}

    @property
    def ports(self) -> dict[str, int]:
        """Return the declared ports by name."""
        return {str(port.get("name") or port["containerPort"]): port["containerPort"] for port in mappings(self.data, "ports")}

    @property
    def mounts(self) -> dict[str, str]:
        """Return the volume's name for each folder that is mounted."""
        return {mount["mountPath"]: mount["name"] for mount in mappings(self.data, "volumeMounts")}


def _value(entry: Mapping[str, Any]) -> Value:
    """Return the value of one entry of `env`; Kubernetes reads a missing one as an empty text."""
    source = entry.get("valueFrom")
    if not source:
        value = entry.get("value")
        return "" if value is None else str(value)
    if "secretKeyRef" in source:
        ref = mapping(source, "secretKeyRef")
        return SecretRef(ref.get("name", ""), ref.get("key", ""), bool(ref.get("optional")))
    return PodSource(next(iter(source), "?"))


def plain_environment(container: Container) -> dict[str, str | None]:
    """Return the variables with the values that the manifest spells out; None for a value from elsewhere."""
    return {name: value if isinstance(value, str) else None for name, value in container.environment.items()}


def ray_container(pod: Mapping[str, Any]) -> Container:
    """Return the Ray container of a running pod. A sidecar that was injected may stand before it."""
    containers = mappings(mapping(pod, "spec"), "containers")
    return Container(next((c for c in containers if c.get("name") in RAY_CONTAINERS), next(iter(containers), {})))


@dataclass(frozen=True)
class Group:
    """The head group or a worker group."""

    name: str
    role: Role
    data: Mapping[str, Any]

    @property
    def pod(self) -> Mapping[str, Any]:
        """Return the pod's spec."""
        return mapping(self.data, "template", "spec")

    @property
    def ray_container(self) -> Container:
        """Return the Ray container, which is the first one of a template (KubeRay: RayContainerIndex)."""
        return Container(next(iter(mappings(self.pod, "containers")), {}))

    @property
    def volumes(self) -> dict[str, Mapping[str, Any]]:
        """Return the pod's volumes by name."""
        return {volume["name"]: volume for volume in mappings(self.pod, "volumes")}

    @property
    def secret_mounts(self) -> dict[str, str]:
        """Return the Secret's name for each folder of the Ray container in which its keys are files."""
        secrets = {name: mapping(volume, "secret").get("secretName") for name, volume in self.volumes.items()}
        return {path: secret for path, name in self.ray_container.mounts.items() if (secret := secrets.get(name))}

    @property
    def start_params(self) -> dict[str, str]:
        """Return the group's rayStartParams."""
        return {key: str(value) for key, value in mapping(self.data, "rayStartParams").items()}

    @property
    def replicas(self) -> int:
        """Return the number of pods that the group starts with."""
        return 1 if self.role is Role.HEAD else int(self.data.get("replicas") or self.data.get("minReplicas") or 0)

    @property
    def most_replicas(self) -> int:
        """Return the number of pods that an autoscaler may reach."""
        return max(self.replicas, int(self.data.get("maxReplicas") or 0))

    @property
    def num_cpus(self) -> int:
        """Return Ray's CPUs of one pod: num-cpus, else the container's CPUs rounded up (KubeRay's order)."""
        declared = self.start_params.get("num-cpus")
        if declared is not None:
            return int(declared)
        quantity = str(self.ray_container.resources.get("cpu", 0))
        return math.ceil(float(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity))

    @property
    def accelerators(self) -> dict[str, Any]:
        """Return the GPUs and TPUs of one pod by the name of the resource."""
        return {name: n for name, n in self.ray_container.resources.items() if name.endswith(("/gpu", "/tpu"))}

    def custom_resources(self) -> dict[str, float]:
        """Return Ray's custom resources of one pod. Raises ValueError where rayStartParams.resources is no JSON."""
        resources: dict[str, float] = {}
        text = self.start_params.get("resources")
        if text:
            # often quoted for the shell
            resources.update(json.loads(text.strip("'\"").replace('\\"', '"')))
        for name, amount in mapping(self.data, "resources").items():
            # In that map these three override rayStartParams; they are no custom resources.
            if name.lower() not in {"cpu", "gpu", "memory"}:
                resources[name] = float(amount)
        return resources


@dataclass(frozen=True)
class RayService:
    """A RayService, rendered or live. `manifest` is never changed."""

    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the RayService's name."""
        return mapping(self.manifest, "metadata").get("name", "ray-service")

    @property
    def spec(self) -> Mapping[str, Any]:
        """Return the RayService's spec."""
        return mapping(self.manifest, "spec")

    @property
    def cluster(self) -> Mapping[str, Any]:
        """Return the spec of the RayCluster."""
        return mapping(self.spec, "rayClusterConfig")

    @property
    def head(self) -> Group:
        """Return the head group."""
        return Group("head", Role.HEAD, mapping(self.cluster, "headGroupSpec"))

    @property
    def workers(self) -> list[Group]:
        """Return the worker groups."""
        groups = mappings(self.cluster, "workerGroupSpecs")
        return [Group(str(group.get("groupName") or "workers"), Role.WORKER, group) for group in groups]

    @property
    def groups(self) -> list[Group]:
        """Return every group, the head first."""
        return [self.head, *self.workers]

    @property
    def is_autoscaled(self) -> bool:
        """Whether Ray's autoscaler adds workers."""
        return bool(self.cluster.get("enableInTreeAutoscaling"))

    @property
    def keeps_its_cluster(self) -> bool:
        """Whether KubeRay makes no new RayCluster when the declared one changes (upgradeStrategy None)."""
        return mapping(self.spec, "upgradeStrategy").get("type") == "None"

    @property
    def asks_for_a_token(self) -> bool:
        """Whether Ray requires a token. KubeRay tests mode == "token"; the CRD has no default."""
        return mapping(self.cluster, "authOptions").get("mode") == "token"

    @property
    def token(self) -> SecretRef | None:
        """Return where Ray's token comes from; None where no Secret is named."""
        secret = mapping(self.cluster, "authOptions").get("secretName")
        return SecretRef(secret, RAY_TOKEN_KEY) if self.asks_for_a_token and secret else None

    @property
    def serve(self) -> ServeConfig:
        """Return the Serve configuration. Raises yaml.YAMLError where serveConfigV2 is no YAML."""
        text = self.spec.get("serveConfigV2")
        return ServeConfig(mapping(yaml.safe_load(text) if isinstance(text, str) else text))

    @property
    def tasks(self) -> dict[str, Task]:
        """Return the task of each application's model: as the kit annotates it, else as vLLM's arguments have it."""
        found: dict[str, Task] = {}
        for application in self.serve.applications:
            annotation = task_annotation(application.name) if found else TASK_ANNOTATION
            annotated = mapping(self.manifest, "metadata", "annotations").get(annotation)
            told = next((config.task for config in application.llm_configs), Task.GENERATE)
            found[application.name] = next((task for task in Task if task.value == annotated), told)
        return found

    @property
    def task(self) -> Task:
        """Return the task of the first model."""
        return next(iter(self.tasks.values()), Task.GENERATE)

    # --- status, of a live one ---------------------------------------------------------------------------------------

    @property
    def active_cluster(self) -> str | None:
        """Return the name of the RayCluster that serves."""
        return mapping(self.manifest, "status", "activeServiceStatus").get("rayClusterName") or None

    @property
    def pending_cluster(self) -> str | None:
        """Return the name of the RayCluster that comes up beside the one that serves."""
        return mapping(self.manifest, "status", "pendingServiceStatus").get("rayClusterName") or None

    @property
    def is_seen_by_the_operator(self) -> bool:
        """Whether the status is of the newest generation."""
        generation = mapping(self.manifest, "metadata").get("generation")
        return mapping(self.manifest, "status").get("observedGeneration") == generation

    @property
    def conditions(self) -> dict[str, Mapping[str, Any]]:
        """Return the conditions of the status by type."""
        return {condition["type"]: condition for condition in mappings(mapping(self.manifest, "status"), "conditions")}

    # --- changed copies ----------------------------------------------------------------------------------------------

    def with_environment(self, changes: Mapping[str, Any]) -> "RayService":
        """Return a copy in which every Ray container has `changes`; None removes a variable."""
        changed = copy.deepcopy(dict(self.manifest))
        for container in _ray_containers(changed):
            kept = [entry for entry in container.get("env") or [] if entry["name"] not in changes]
            added = [{"name": name, "value": _text(value)} for name, value in changes.items() if value is not None]
            container["env"] = kept + added
        return RayService(changed)

    def with_serve(self, change: Callable[[dict[str, Any]], None]) -> "RayService":
        """Return a copy whose parsed serveConfigV2 went through `change`."""
        changed = copy.deepcopy(dict(self.manifest))
        config = copy.deepcopy(dict(self.serve.data))
        change(config)
        changed["spec"]["serveConfigV2"] = yaml.safe_dump(config, sort_keys=False, width=1000)
        return RayService(changed)


def _ray_containers(manifest: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the Ray container of each group, to be changed."""
    for group in RayService(manifest).groups:
        if group.ray_container.data:
            yield group.pod["containers"][0]


def _text(value: Any) -> str:
    """Return a variable's text. A boolean becomes 1 or 0: Ray takes "True" for off."""
    return str(int(value)) if isinstance(value, bool) else str(value)


# --- objects that a manifest names

# Keys of a Secret of type kubernetes.io/tls.
TLS_KEYS = ("tls.crt", "tls.key")


def named_objects(value: Any) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Yield kind, name and keys of the objects that a manifest names, at any depth: Secrets, claims, classes, drivers, accounts."""
    if isinstance(value, list):
        for item in value:
            yield from named_objects(item)
    if not isinstance(value, dict):
        return
    for field, inner in value.items():
        if isinstance(inner, dict) and not inner.get("optional"):
            yield from _reference(field, inner)
        elif isinstance(inner, str) and field in _TEXTS:
            yield _TEXTS[field], inner, ()
        elif isinstance(inner, list) and field == "certificateRefs":
            yield from (("Secret", str(each["name"]), TLS_KEYS) for each in inner)
        yield from named_objects(inner)


_TEXTS = {"gatewayClassName": "GatewayClass", "priorityClassName": "PriorityClass", "serviceAccountName": "ServiceAccount"}


def _reference(field: str, inner: dict[str, Any]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    if field == "secretKeyRef":
        yield "Secret", inner["name"], (inner["key"],)
    elif field == "secret" and (name := inner.get("secretName") or inner.get("name")):
        yield "Secret", name, tuple(item["key"] for item in inner.get("items") or [])
    elif field == "persistentVolumeClaim":
        yield "PersistentVolumeClaim", inner["claimName"], ()
    elif field == "csi":
        yield "CSIDriver", inner["driver"], ()
