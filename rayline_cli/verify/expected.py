"""Pure: the declarations of a RayService that can be seen on the running service."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rayline.facts.accelerators import GPU_RESOURCE
from rayline.facts.choices import Task
from rayline.facts.labels import Role
from rayline.facts.serve_flags import SERVE_FLAGS, SWITCHES, THROUGHPUT_SETTINGS
from rayline.service.api_key import KEYS_VARIABLE, SCALING_POLICY
from rayline.service.reading import RayService, ServeConfig, plain_environment
from rayline.service.serve_reading import ServeApplication, mapping

# Variables of the fast path. A variable that is set and not declared is a difference too.
KNOWN = {*SERVE_FLAGS, *THROUGHPUT_SETTINGS}

Environment = Mapping[str, str | None]
"""Variables of a Ray container; None: the value is a Secret's."""


@dataclass(frozen=True)
class Expected:
    """Everything that must be seen on a service."""

    service: str
    environment: Mapping[Role, Environment]
    switches: Mapping[str, bool]
    """Name in a stack file -> whether it has to be on."""
    serve_config: Mapping[str, Any]
    """serveConfigV2, parsed."""
    on_gpu: bool
    tasks: Mapping[str, Task] | None
    """Task of each application's model; None where only the address is known."""
    api_key: bool
    """Whether the endpoint has to refuse requests without a key."""

    @property
    def task(self) -> Task | None:
        """Return the task of the first model; None where only the address is known."""
        return None if self.tasks is None else next(iter(self.tasks.values()), Task.GENERATE)

    @property
    def applications(self) -> list[ServeApplication]:
        """Return the declared applications."""
        return ServeConfig(self.serve_config).applications

    @property
    def overlays(self) -> dict[str, set[str]]:
        """Return the values that replicas of some applications have in place of their pod's, by variable."""
        values: dict[str, set[str]] = {}
        for application in self.applications:
            for name, value in application.variables.items():
                values.setdefault(name, set()).add(value)
        return values

    def only(self, application: str) -> Expected:
        """Return the same for one application."""
        config = ServeConfig(self.serve_config).only(application).data
        tasks = {name: task for name, task in (self.tasks or {}).items() if name == application}
        return dataclasses.replace(self, serve_config=config, tasks=tasks)

    @property
    def model_ids(self) -> list[str]:
        """Return the models that /v1/models has to list."""
        return ServeConfig(self.serve_config).model_ids

    @property
    def llm_deployments(self) -> set[str]:
        """Return the names of the deployments that run the engines."""
        return {config.deployment for config in ServeConfig(self.serve_config).llm_configs}

    @property
    def front_deployments(self) -> set[str]:
        """Return those of them whose replicas HAProxy reaches: prefill replicas answer to decode replicas alone."""
        return {config.deployment for config in ServeConfig(self.serve_config).llm_configs if config.side != "prefill"}

    @property
    def is_disaggregated(self) -> bool:
        """Whether replicas compute prompts for others that generate."""
        return ServeConfig(self.serve_config).is_disaggregated

    @property
    def routes_by_session(self) -> bool:
        """Whether a session has to stay on one replica."""
        return ServeConfig(self.serve_config).routes_by_session

    @property
    def counts_drafts(self) -> bool:
        """Whether each answer has to count its drafted tokens."""
        return any(
            config.engine_kwargs.get("per_request_spec_decode_metrics", "none") != "none"
            for config in ServeConfig(self.serve_config).llm_configs
        )

    @property
    def adapters(self) -> dict[str, str]:
        """Return the folder of the LoRA adapters by the model that loads them."""
        configs = ServeConfig(self.serve_config).llm_configs
        return {config.model_id: config.adapters_folder for config in configs if config.adapters_folder}

    @property
    def scales_to_zero(self) -> bool:
        """Whether a model may have no replica."""
        return ServeConfig(self.serve_config).scales_to_zero

    @property
    def latency_policies(self) -> list[tuple[str, str, Mapping[str, Any]]]:
        """Return application, deployment and settings of each model that scales by its time to first token."""
        found = []
        for application in self.applications:
            for deployment in application.deployments:
                policy = mapping(deployment, "autoscaling_config", "policy")
                if policy.get("policy_function") == SCALING_POLICY:
                    found.append((application.name, deployment["name"], mapping(policy, "policy_kwargs")))
        return found

    @property
    def port(self) -> int:
        """Return the port of every node's proxy."""
        return int(ServeConfig(self.serve_config).port)

    def variables(self) -> set[str]:
        """Return the names of all variables that are compared."""
        return KNOWN.union(*self.environment.values())

    def secret_variables(self) -> set[str]:
        """Return the names of variables whose values must not leave their pod."""
        return {name for env in self.environment.values() for name, value in env.items() if value is None}

    def all_on(self) -> Expected:
        """Return the same with every switch expected on, whatever the stack file has."""
        return dataclasses.replace(self, switches=dict.fromkeys(self.switches, True))


def expected_switches(environment: Environment) -> dict[str, bool]:
    """Return which switches Serve takes for on: only the exact text "1" counts, "true" is off."""
    return {switch: environment.get(variable) == "1" for switch, variable in SWITCHES.items()}


def expected(manifest: Mapping[str, Any]) -> Expected:
    """Return the declarations of a RayService."""
    service = RayService(manifest)
    workers = service.workers or [service.head]
    head = plain_environment(service.head.ray_container)
    return Expected(
        service=service.name,
        environment={Role.HEAD: head, Role.WORKER: plain_environment(workers[0].ray_container)},
        switches=expected_switches(head),
        serve_config=service.serve.data,
        on_gpu=any(GPU_RESOURCE in group.accelerators for group in workers),
        tasks=service.tasks,
        api_key=bool(head.get(KEYS_VARIABLE)),
    )
