"""Pure: what a RayService asks of the one Ray node on this machine, which plays head and workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from rayline.service.reading import Group, PodSource, RayService, SecretRef, ServeConfig
from rayline_cli.local.failures import TranslationError
from rayline_cli.local.ports import PORTS

Secrets = Mapping[tuple[str, str], str]
"""(Secret's name, key) -> value."""


@dataclass(frozen=True)
class SingleNode:
    """What a RayService says that matters to one Ray node."""

    name: str
    env: Mapping[str, str | SecretRef]
    """Environment of the Ray container: the same on the head and in every worker group."""
    start_params: Mapping[str, str]
    """The head's rayStartParams."""
    num_cpus: int
    """Ray CPUs of the head and of all workers that there may be together."""
    num_cpus_wanted: int
    """Ray CPUs of the head and of the workers that the manifest starts with."""
    resources: Mapping[str, float]
    """Custom Ray resources of the head and of all workers together."""
    serve: ServeConfig
    auth_token: SecretRef | None
    """Ray's own token, when authOptions.mode is token."""
    secret_mounts: Mapping[str, str] = field(default_factory=dict)
    """Folder in the Ray container -> name of the Secret whose keys are files there."""

    @property
    def has_haproxy(self) -> bool:
        """Whether HAProxy is switched on."""
        return self.env.get("RAY_SERVE_ENABLE_HA_PROXY") == "1"

    def ports(self) -> dict[str, int]:
        """Return the number that each of PORTS has in the manifest. Raises TranslationError."""
        numbers = {}
        for port in PORTS:
            declared: Any = port.number
            if port.name == "serve":
                declared = self.serve.port
            elif port.flag:
                declared = self.start_params.get(port.flag, port.number)
            elif isinstance(self.env.get(port.env), str):
                declared = self.env[port.env]
            try:
                numbers[port.name] = int(declared)
            except ValueError:
                name = port.env or port.flag
                raise TranslationError(f"{name} is {declared!r}, which is no port. Fix: a number") from None
        return numbers


def read(manifest: Mapping[str, Any]) -> SingleNode:
    """Return what a RayService asks of one node.

    Raises TranslationError naming everything at once that one machine without GPU cannot do.
    """
    problems: list[str] = []
    service = RayService(manifest)
    env = _environment(service.head, "the head", problems)
    num_cpus = num_cpus_wanted = service.head.num_cpus
    resources = _custom_resources(service.head, "the head", problems)
    for group in service.workers:
        label = f"worker group {group.name}"
        count = group.most_replicas if service.is_autoscaled else group.replicas
        _same_env(env, _environment(group, label, problems), label, problems)
        num_cpus += count * group.num_cpus
        num_cpus_wanted += group.replicas * group.num_cpus
        for name, amount in _custom_resources(group, label, problems).items():
            resources[name] = resources.get(name, 0) + count * amount
        problems += [
            f"{label} asks for {amount} {name}: this machine serves on the CPU. "
            "Declare a service with accelerator_config {kind: cpu}"
            for name, amount in group.accelerators.items()
        ]
    serve = _serve(service, problems)
    if service.asks_for_a_token and service.token is None:
        problems.append("authOptions.mode is token without secretName: name the Secret that holds auth_token")
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
        auth_token=service.token,
        secret_mounts={path: name for group in service.groups for path, name in group.secret_mounts.items()},
    )


def _environment(group: Group, label: str, problems: list[str]) -> dict[str, str | SecretRef]:
    """Return the environment of a group's Ray container, without what only a pod has."""
    container = group.ray_container
    if container.takes_whole_sources:
        problems.append(f"{label}: envFrom is not supported here, name each variable in env")
    env: dict[str, str | SecretRef] = {}
    for name, value in container.environment.items():
        if isinstance(value, PodSource):
            problems.append(f"{label}: variable {name} comes from {value.kind}, which only a pod has")
        else:
            env[name] = value
    return env


def _same_env(
    head: Mapping[str, str | SecretRef], group: Mapping[str, str | SecretRef], label: str, problems: list[str]
) -> None:
    for name in sorted(head.keys() | group.keys()):
        if head.get(name) != group.get(name):
            problems.append(
                f"variable {name} is {_shown(head.get(name))} on the head and {_shown(group.get(name))} in {label}: "
                "one Ray node has one environment, and Serve reads its switches on every node"
            )


def _shown(value: str | SecretRef | None) -> str:
    if value is None:
        return "not set"
    return f"from Secret {value.name}" if isinstance(value, SecretRef) else repr(value)


def _custom_resources(group: Group, label: str, problems: list[str]) -> dict[str, float]:
    try:
        return group.custom_resources()
    except ValueError:
        problems.append(f"{label}: rayStartParams.resources is not JSON: {group.start_params.get('resources')}")
        return {}


def _serve(service: RayService, problems: list[str]) -> ServeConfig:
    """Return the Serve configuration, which has to be one for the CPU."""
    try:
        serve = service.serve
    except yaml.YAMLError as error:
        problems.append(f"spec.serveConfigV2 is not YAML: {error}")
        return ServeConfig({})
    if not serve.applications:
        problems.append("spec.serveConfigV2 declares no applications")
    problems += [
        f"model {config.model_id or '?'}: accelerator_config must be {{kind: cpu}} on this machine"
        for config in serve.llm_configs
        if not config.is_on_cpu
    ]
    return serve
