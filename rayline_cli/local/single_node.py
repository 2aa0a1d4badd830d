"""Pure: the requirements of a RayService on the one Ray node of this machine, which plays head and workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from rayline.facts.choices import Task
from rayline.facts.labels import Role
from rayline.service.reading import Group, PodSource, RayService, SecretRef, ServeConfig
from rayline_cli.local.failures import TranslationError
from rayline_cli.local.ports import PORTS

Secrets = Mapping[tuple[str, str], str]
"""(Secret's name, key) -> value."""
Environment = Mapping[str, str | SecretRef]


@dataclass(frozen=True)
class SingleNode:
    """The part of a RayService that matters to one Ray node."""

    name: str
    env: Environment
    """Environment of the Ray container: the same on the head and in every worker group."""
    start_params: Mapping[str, str]
    """The head's rayStartParams."""
    num_cpus: int
    """Ray CPUs of the head and of all workers that the autoscaler may add."""
    num_cpus_wanted: int
    """Ray CPUs of the head and of the workers that the manifest starts with."""
    resources: Mapping[str, float]
    """Custom Ray resources of the head and of all workers together."""
    serve: ServeConfig
    tasks: Mapping[str, Task]
    """Task of each application's model."""
    auth_token: SecretRef | None
    """Ray's own token, when authOptions.mode is token."""
    secret_mounts: Mapping[str, str] = field(default_factory=dict)
    """Folder in the Ray container -> name of the Secret whose keys are files there."""

    @property
    def has_haproxy(self) -> bool:
        """Return whether HAProxy is switched on."""
        return self.env.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"

    @property
    def compiles(self) -> bool:
        """Return whether an engine is to compile its model."""
        return any(config.engine_kwargs.get("enforce_eager") is False for config in self.serve.llm_configs)

    def ports(self) -> dict[str, int]:
        """Return the number that each of PORTS has in the manifest. Raises TranslationError."""
        declared: dict[str, Any] = {port.name: port.number for port in PORTS}
        declared["serve"] = self.serve.port
        declared |= {port.name: self.start_params[port.flag] for port in PORTS if port.flag in self.start_params}
        declared |= {port.name: self.env[port.env] for port in PORTS if isinstance(self.env.get(port.env), str)}
        for port in PORTS:
            try:
                declared[port.name] = int(declared[port.name])
            except ValueError:
                name = port.env or port.flag or "http_options.port"
                raise TranslationError(f"{name} is {declared[port.name]!r}, which is no port. Fix: a number") from None
        return declared


def read(manifest: Mapping[str, Any]) -> SingleNode:
    """Return the requirements of a RayService on one node.

    Raises TranslationError with everything at once that one machine without GPU cannot do.
    """
    service = RayService(manifest)
    problems: list[str] = []
    env: Environment = {}
    resources: dict[str, float] = {}
    num_cpus = num_cpus_wanted = 0
    for group in service.groups:
        label = "the head" if group.role is Role.HEAD else f"worker group {group.name}"
        own_env = _environment(group, label, problems)
        env = own_env if group.role is Role.HEAD else env
        problems += _differences(env, own_env, label)
        problems += [
            f"{label} requests {amount} {name}: this machine serves on the CPU. "
            "Fix: declare a service with accelerator_config {kind: cpu}"
            for name, amount in group.accelerators.items()
        ]
        most = group.most_replicas if service.is_autoscaled else group.replicas
        num_cpus += most * group.num_cpus
        num_cpus_wanted += group.replicas * group.num_cpus
        for name, amount in _custom_resources(group, label, problems).items():
            resources[name] = resources.get(name, 0) + most * amount
    serve = _serve(service, problems)
    if service.asks_for_a_token and service.token is None:
        problems.append("authOptions.mode is token without secretName. Fix: name the Secret that holds auth_token")
    if problems:
        raise TranslationError("\n".join(problems))
    return SingleNode(
        name=service.name,
        env=env,
        start_params=service.head.start_params,
        num_cpus=num_cpus,
        num_cpus_wanted=num_cpus_wanted,
        resources=resources,
        serve=serve,
        tasks=service.tasks,
        auth_token=service.token,
        secret_mounts={path: name for group in service.groups for path, name in group.secret_mounts.items()},
    )


def _environment(group: Group, label: str, problems: list[str]) -> Environment:
    """Return the environment of a group's Ray container, without variables that only a pod has."""
    container = group.ray_container
    if container.takes_whole_sources:
        problems.append(f"{label}: envFrom is not supported on this machine. Fix: name each variable in env")
    env: dict[str, str | SecretRef] = {}
    for name, value in container.environment.items():
        if isinstance(value, PodSource):
            problems.append(f"{label}: variable {name} comes from {value.kind}, which only a pod has. Fix: give it a value")
        else:
            env[name] = value
    return env


def _differences(head: Environment, group: Environment, label: str) -> list[str]:
    return [
        f"variable {name} is {_shown(head.get(name))} on the head and {_shown(group.get(name))} in {label}. "
        "Fix: declare it once: one Ray node has one environment, and Serve reads its switches on every node"
        for name in sorted(head.keys() | group.keys())
        if head.get(name) != group.get(name)
    ]


def _shown(value: str | SecretRef | None) -> str:
    if isinstance(value, SecretRef):
        return f"from Secret {value.name}"
    return "not set" if value is None else repr(value)


def _custom_resources(group: Group, label: str, problems: list[str]) -> dict[str, float]:
    try:
        return group.custom_resources()
    except ValueError:
        problems.append(f"{label}: rayStartParams.resources is no JSON: {group.start_params.get('resources')}")
        return {}


def _serve(service: RayService, problems: list[str]) -> ServeConfig:
    """Return the Serve configuration, which has to be one for the CPU."""
    try:
        serve = service.serve
    except yaml.YAMLError as error:
        problems.append(f"spec.serveConfigV2 is no YAML: {error}")
        return ServeConfig({})
    if not serve.applications:
        problems.append("spec.serveConfigV2 declares no applications. Fix: declare one")
    problems += [
        f"model {config.model_id or '?'}: accelerator_config must be {{kind: cpu}} on this machine"
        for config in serve.llm_configs
        if not config.is_on_cpu
    ]
    return serve
