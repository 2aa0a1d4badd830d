"""Read a RayService: groups, Ray container, environment, Serve configuration, ports, volumes and resources.

The manifest may be rendered by the kit, written by someone else, or come from a cluster. A missing part reads as empty, so a
reader never has to ask whether a level of the manifest exists. Pure: nothing is changed, nothing is fetched.
"""

import copy
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from rayline.facts.labels import RAY_TOKEN_KEY, SERVE_PORT, Role, llm_deployment

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


def _map(value: Any, *path: str) -> Mapping[str, Any]:
    """Return the mapping at a path of keys; an empty one where a key is missing or no mapping."""
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def _maps(value: Any, key: str) -> list[Mapping[str, Any]]:
    """Return the mappings in the list at a key; an empty list where there is none."""
    items = value.get(key) if isinstance(value, Mapping) else None
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, (list, tuple)) else []


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
        return {str(entry.get("name")): _value(entry) for entry in _maps(self.data, "env")}

    @property
    def takes_whole_sources(self) -> bool:
        """Whether `envFrom` adds variables that the manifest does not name."""
        return bool(self.data.get("envFrom"))

    @property
    def resources(self) -> dict[str, Any]:
        """Return the requests, overlaid with the limits: the amounts that the scheduler reserves."""
        return {**_map(self.data, "resources", "requests"), **_map(self.data, "resources", "limits")}

    @property
    def ports(self) -> dict[str, int]:
        """Return the declared ports by name."""
        return {str(port.get("name") or port["containerPort"]): port["containerPort"] for port in _maps(self.data, "ports")}

    @property
    def mounts(self) -> dict[str, str]:
        """Return the volume's name for each folder that is mounted."""
        return {mount["mountPath"]: mount["name"] for mount in _maps(self.data, "volumeMounts")}


def _value(entry: Mapping[str, Any]) -> Value:
    """Return the value of one entry of `env`; Kubernetes reads a missing one as an empty text."""
    source = entry.get("valueFrom")
    if not source:
        value = entry.get("value")
        return "" if value is None else str(value)
    if "secretKeyRef" in source:
        ref = _map(source, "secretKeyRef")
        return SecretRef(ref.get("name", ""), ref.get("key", ""), bool(ref.get("optional")))
    return PodSource(next(iter(source), "?"))


def plain_environment(container: Container) -> dict[str, str | None]:
    """Return the variables with the values that the manifest spells out; None for a value from elsewhere."""
    return {name: value if isinstance(value, str) else None for name, value in container.environment.items()}


def ray_container(pod: Mapping[str, Any]) -> Container:
    """Return the Ray container of a running pod. A sidecar that was injected may stand before it."""
    containers = _maps(_map(pod, "spec"), "containers")
    return Container(next((one for one in containers if one.get("name") in RAY_CONTAINERS), next(iter(containers), {})))


@dataclass(frozen=True)
class Group:
    """The head group or a worker group."""

    name: str
    role: Role
    data: Mapping[str, Any]

    @property
    def pod(self) -> Mapping[str, Any]:
        """Return the pod's spec."""
        return _map(self.data, "template", "spec")

    @property
    def ray_container(self) -> Container:
        """Return the Ray container, which is the first one of a template (KubeRay: RayContainerIndex)."""
        return Container(next(iter(_maps(self.pod, "containers")), {}))

    @property
    def volumes(self) -> dict[str, Mapping[str, Any]]:
        """Return the pod's volumes by name."""
        return {volume["name"]: volume for volume in _maps(self.pod, "volumes")}

    @property
    def secret_mounts(self) -> dict[str, str]:
        """Return the Secret's name for each folder of the Ray container in which its keys are files."""
        secrets = {name: _map(volume, "secret").get("secretName") for name, volume in self.volumes.items()}
        return {path: secret for path, name in self.ray_container.mounts.items() if (secret := secrets.get(name))}

    @property
    def start_params(self) -> dict[str, str]:
        """Return the group's rayStartParams."""
        return {key: str(value) for key, value in _map(self.data, "rayStartParams").items()}

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
        found: dict[str, float] = {}
        text = self.start_params.get("resources")
        if text:
            # often quoted for the shell
            found.update(json.loads(text.strip("'\"").replace('\\"', '"')))
        for name, amount in _map(self.data, "resources").items():
            # In that map these three override rayStartParams; they are no custom resources.
            if name.lower() not in {"cpu", "gpu", "memory"}:
                found[name] = float(amount)
        return found


@dataclass(frozen=True)
class LlmConfig:
    """One LLMConfig: a model with its engine."""

    data: Mapping[str, Any]

    @property
    def model_id(self) -> str:
        """Return the name that clients ask for."""
        return str(_map(self.data, "model_loading_config").get("model_id") or "")

    @property
    def model_source(self) -> Any:
        """Return the model's source. Without one the id is the source, as in Ray."""
        return _map(self.data, "model_loading_config").get("model_source") or self.model_id

    @property
    def engine_kwargs(self) -> Mapping[str, Any]:
        """Return vLLM's arguments."""
        return _map(self.data, "engine_kwargs")

    @property
    def is_on_cpu(self) -> bool:
        """Whether accelerator_config asks for the CPU."""
        return _map(self.data, "accelerator_config").get("kind") == "cpu"

    @property
    def deployment(self) -> str:
        """Return the name of the deployment that runs the engine."""
        return llm_deployment(self.model_id)

    @property
    def replicas(self) -> int:
        """Return the number of engines that the LLMConfig itself asks for."""
        wanted = _map(self.data, "deployment_config").get("num_replicas", 1)
        return wanted if isinstance(wanted, int) else 1


@dataclass(frozen=True)
class ServeApplication:
    """One application of the Serve configuration."""

    data: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the application's name."""
        return self.data.get("name", "default")

    @property
    def route_prefix(self) -> str:
        """Return the path under which the application answers."""
        return self.data.get("route_prefix", "/")

    @property
    def llm_configs(self) -> list[LlmConfig]:
        """Return the application's LLMConfigs."""
        return [LlmConfig(config) for config in _maps(_map(self.data, "args"), "llm_configs")]

    @property
    def deployments(self) -> list[Mapping[str, Any]]:
        """Return the settings of deployments, which win over those in the code or in an LLMConfig."""
        return _maps(self.data, "deployments")

    @property
    def most_engines(self) -> int:
        """Return the number of vLLM engines; with autoscaling the highest number."""
        overrides = {
            one.get("name"): one.get("num_replicas") or _map(one, "autoscaling_config").get("max_replicas", 1)
            for one in self.deployments
            if "num_replicas" in one or "autoscaling_config" in one
        }
        counts = [overrides.get(config.deployment, config.replicas) for config in self.llm_configs]
        return sum(count if isinstance(count, int) else 1 for count in counts)


@dataclass(frozen=True)
class ServeConfig:
    """The Serve configuration: serveConfigV2, parsed."""

    data: Mapping[str, Any]

    @property
    def applications(self) -> list[ServeApplication]:
        """Return the applications."""
        return [ServeApplication(one) for one in _maps(self.data, "applications")]

    @property
    def llm_configs(self) -> list[LlmConfig]:
        """Return the LLMConfigs of every application."""
        return [config for application in self.applications for config in application.llm_configs]

    @property
    def model_ids(self) -> list[str]:
        """Return the names that clients ask for."""
        return [config.model_id for config in self.llm_configs]

    @property
    def model_sources(self) -> list[str]:
        """Return each model source that is a text, once, in order of appearance."""
        return list(dict.fromkeys(c.model_source for c in self.llm_configs if isinstance(c.model_source, str)))

    @property
    def most_engines(self) -> int:
        """Return the number of vLLM engines; with autoscaling the highest number."""
        return sum(application.most_engines for application in self.applications)

    @property
    def port(self) -> Any:
        """Return the port at which every node's proxy listens."""
        return _map(self.data, "http_options").get("port", SERVE_PORT)


@dataclass(frozen=True)
class RayService:
    """A RayService, rendered or live. `manifest` is never changed."""

    manifest: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Return the RayService's name."""
        return _map(self.manifest, "metadata").get("name", "ray-service")

    @property
    def spec(self) -> Mapping[str, Any]:
        """Return the RayService's spec."""
        return _map(self.manifest, "spec")

    @property
    def cluster(self) -> Mapping[str, Any]:
        """Return the spec of the RayCluster."""
        return _map(self.spec, "rayClusterConfig")

    @property
    def head(self) -> Group:
        """Return the head group."""
        return Group("head", Role.HEAD, _map(self.cluster, "headGroupSpec"))

    @property
    def workers(self) -> list[Group]:
        """Return the worker groups."""
        groups = _maps(self.cluster, "workerGroupSpecs")
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
        return _map(self.spec, "upgradeStrategy").get("type") == "None"

    @property
    def asks_for_a_token(self) -> bool:
        """Whether Ray asks for a token. KubeRay tests mode == "token"; the CRD has no default."""
        return _map(self.cluster, "authOptions").get("mode") == "token"

    @property
    def token(self) -> SecretRef | None:
        """Return where Ray's token comes from; None where no Secret is named."""
        secret = _map(self.cluster, "authOptions").get("secretName")
        return SecretRef(secret, RAY_TOKEN_KEY) if self.asks_for_a_token and secret else None

    @property
    def serve(self) -> ServeConfig:
        """Return the Serve configuration. Raises yaml.YAMLError where serveConfigV2 is no YAML."""
        text = self.spec.get("serveConfigV2")
        return ServeConfig(_map(yaml.safe_load(text) if isinstance(text, str) else text))

    # --- status, of a live one ---------------------------------------------------------------------------------------

    @property
    def active_cluster(self) -> str | None:
        """Return the name of the RayCluster that serves."""
        return _map(self.manifest, "status", "activeServiceStatus").get("rayClusterName") or None

    @property
    def pending_cluster(self) -> str | None:
        """Return the name of the RayCluster that comes up beside the one that serves."""
        return _map(self.manifest, "status", "pendingServiceStatus").get("rayClusterName") or None

    @property
    def is_seen_by_the_operator(self) -> bool:
        """Whether the status is of the newest generation."""
        generation = _map(self.manifest, "metadata").get("generation")
        return _map(self.manifest, "status").get("observedGeneration") == generation

    @property
    def conditions(self) -> dict[str, Mapping[str, Any]]:
        """Return the conditions of the status by type."""
        return {one["type"]: one for one in _maps(_map(self.manifest, "status"), "conditions")}

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
