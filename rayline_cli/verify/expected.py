"""Pure: what a RayService declares, as far as it can be seen on the running service."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from rayline.facts.accelerators import GPU_RESOURCE
from rayline.facts.labels import SERVE_PORT, Role
from rayline.facts.serve_flags import SERVE_FLAGS, SWITCHES, THROUGHPUT_SETTINGS
from rayline.service.api_key import KEYS_VARIABLE
from rayline.service.manifest import llm_deployment

# Variables of the fast path. One that is set and not declared is a difference too.
KNOWN = {*SERVE_FLAGS, *THROUGHPUT_SETTINGS}


def is_on(env: Mapping[str, str | None], name: str) -> bool:
    """Whether Serve takes the switch for on: only the exact text "1" counts, "true" is off."""
    return env.get(name) == "1"


@dataclass(frozen=True)
class Expected:
    """What must be seen."""

    service: str
    environment: Mapping[Role, Mapping[str, str | None]]
    """The Ray container's variables on the head and on the workers; None: the value is a Secret's."""
    switches: Mapping[str, bool]
    """Name in a stack file -> whether it has to be on."""
    serve_config: Mapping[str, Any]
    """serveConfigV2, parsed."""
    on_gpu: bool
    api_key: bool
    """Whether the endpoint has to ask for a key."""

    @property
    def model_ids(self) -> list[str]:
        """What /v1/models has to list."""
        return [
            llm["model_loading_config"]["model_id"]
            for application in self.serve_config.get("applications") or []
            for llm in (application.get("args") or {}).get("llm_configs") or []
        ]

    @property
    def llm_deployments(self) -> set[str]:
        """Names of the deployments that run the engines."""
        return {llm_deployment(model) for model in self.model_ids}

    @property
    def port(self) -> int:
        """Where every node's proxy listens."""
        return int((self.serve_config.get("http_options") or {}).get("port", SERVE_PORT))

    def variables(self) -> set[str]:
        """Every variable that is looked at."""
        return KNOWN.union(*self.environment.values())

    def secret_variables(self) -> set[str]:
        """Those whose values must not leave their pod."""
        return {name for env in self.environment.values() for name, value in env.items() if value is None}

    def all_on(self) -> Expected:
        """The same with every switch expected on, whatever the stack file says."""
        return dataclasses.replace(self, switches=dict.fromkeys(self.switches, True))


def expected(
    ray_service: Mapping[str, Any], environment: Mapping[Role, Mapping[str, str | None]] | None = None
) -> Expected:
    """What a RayService's manifest declares. `environment` replaces the containers' where Ray does not run in them."""
    spec = ray_service["spec"]
    cluster = spec["rayClusterConfig"]
    workers = cluster.get("workerGroupSpecs") or [cluster["headGroupSpec"]]
    if environment is None:
        environment = {Role.HEAD: environment_of(cluster["headGroupSpec"]), Role.WORKER: environment_of(workers[0])}
    head = environment[Role.HEAD]
    limits = [(_container(group).get("resources") or {}).get("limits") or {} for group in workers]
    return Expected(
        service=ray_service["metadata"]["name"],
        environment=environment,
        switches={switch: is_on(head, variable) for switch, variable in SWITCHES.items()},
        serve_config=yaml.safe_load(spec["serveConfigV2"]),
        on_gpu=any(GPU_RESOURCE in one for one in limits),
        api_key=bool(head.get(KEYS_VARIABLE)),
    )


def _container(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """The Ray container, which is the first one (KubeRay's rule)."""
    return group["template"]["spec"]["containers"][0]


def environment_of(group: Mapping[str, Any]) -> dict[str, str | None]:
    """Variables of a group's Ray container; None: the value is a Secret's or a field's."""
    entries: Sequence[Mapping[str, Any]] = _container(group).get("env") or []
    return {entry["name"]: None if "valueFrom" in entry else str(entry.get("value", "")) for entry in entries}
