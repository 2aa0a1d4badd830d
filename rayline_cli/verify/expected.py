"""Pure: what a RayService declares, as far as it can be seen on the running service."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayline.facts.accelerators import GPU_RESOURCE
from rayline.facts.labels import Role
from rayline.facts.serve_flags import SERVE_FLAGS, SWITCHES, THROUGHPUT_SETTINGS
from rayline.service.api_key import KEYS_VARIABLE
from rayline.service.reading import RayService, ServeConfig, plain_environment

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
        return ServeConfig(self.serve_config).model_ids

    @property
    def llm_deployments(self) -> set[str]:
        """Names of the deployments that run the engines."""
        return {config.deployment for config in ServeConfig(self.serve_config).llm_configs}

    @property
    def port(self) -> int:
        """Where every node's proxy listens."""
        return int(ServeConfig(self.serve_config).port)

    def variables(self) -> set[str]:
        """Every variable that is looked at."""
        return KNOWN.union(*self.environment.values())

    def secret_variables(self) -> set[str]:
        """Those whose values must not leave their pod."""
        return {name for env in self.environment.values() for name, value in env.items() if value is None}

    def all_on(self) -> Expected:
        """The same with every switch expected on, whatever the stack file says."""
        return dataclasses.replace(self, switches=dict.fromkeys(self.switches, True))


def expected(manifest: Mapping[str, Any], environment: Mapping[Role, Mapping[str, str | None]] | None = None) -> Expected:
    """What a RayService's manifest declares. `environment` replaces the containers' where Ray does not run in them."""
    service = RayService(manifest)
    workers = service.workers or [service.head]
    if environment is None:
        environment = {
            Role.HEAD: plain_environment(service.head.ray_container),
            Role.WORKER: plain_environment(workers[0].ray_container),
        }
    head = environment[Role.HEAD]
    return Expected(
        service=service.name,
        environment=environment,
        switches={switch: is_on(head, variable) for switch, variable in SWITCHES.items()},
        serve_config=service.serve.data,
        on_gpu=any(GPU_RESOURCE in group.accelerators for group in workers),
        api_key=bool(head.get(KEYS_VARIABLE)),
    )
