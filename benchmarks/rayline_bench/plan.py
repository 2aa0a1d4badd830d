"""What a benchmark on this machine will start: the arms of one stack, built and checked. Starts nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayline.facts.choices import ClusterMode
from rayline.service.reading import RayService
from rayline_cli import offline, render, stack_files
from rayline_cli.local import memory, single_node
from rayline_cli.local_secrets import secret_values

from . import receipt, schedule
from .applications import APPLICATIONS, Application, with_application
from .arms import Base, Built, ProcessArm, RayArm, differences, laid_over
from .cli import Options
from .errors import BenchError, BenchUsageError
from .options import Chosen
from .receipt import Configuration
from .workloads import Load

MEMORY_PER_VLLM_GIB = 2.0
"""One plain vLLM server with a tiny model on the CPU, without its KV cache: API server and engine."""


@dataclass(frozen=True)
class Plan:
    """Everything that is known before the first process starts."""

    built: Mapping[str, Built]
    """Label of the arm -> what to start. An arm with N > 1 replicas is labelled NAME@N."""
    what: Mapping[str, str]
    base: str
    loads: Sequence[Load]
    model_id: str
    model_source: str
    configuration: Configuration
    secrets: Mapping[tuple[str, str], str]
    state_dir: Path
    application: Application | None = None
    """What the arms serve in the model's place."""

    @property
    def memory_gib(self) -> dict[str, float]:
        """Return about how much memory each arm takes."""
        return {label: _memory_gib(built) for label, built in self.built.items()}

    def groups(self, available_gib: float) -> list[list[str]]:
        """Return the arms that run side by side, batch by batch. Raises BenchError."""
        found: list[list[str]] = []
        for suffix in dict.fromkeys(_suffix(label) for label in self.built):
            needed = {label: gib for label, gib in self.memory_gib.items() if _suffix(label) == suffix}
            try:
                found += schedule.batches(needed, available_gib, self.base + suffix)
            except schedule.DoesNotFit as error:
                raise BenchError(f"{error}. Fix: fewer --arms, or a machine with more memory") from None
        return found

    def differences(self, label: str) -> list[str]:
        """Return what an arm has differently from the baseline."""
        return differences(self.built[label], self.built[self.base + _suffix(label)])


def prepare(options: Options, chosen: Chosen, state_dir: Path) -> Plan:
    """Render the stack and build the arms.

    Raises BenchUsageError, ArmError, offline.UnknownStack or offline.ProgramError.
    """
    application = _application(chosen.loads)
    context = max((load.workload.context for load in chosen.loads), default=0)
    programs = {"{}": _record(options, context, {})}
    built: dict[str, Built] = {}
    for one in chosen.arms:
        key = json.dumps(one.service, sort_keys=True)
        if key not in programs:
            programs[key] = _record(options, context, one.service)
        arm = one.arm.build(_base(programs[key], one.replicas))
        if application:
            if not isinstance(arm, RayArm):
                raise BenchUsageError(f"--arms {one.label}: it has no Ray Serve to run {application.name} in")
            arm = RayArm(with_application(arm.manifest, application, one.replicas))
        built[one.label] = arm
    base = _base(programs["{}"], 1)
    secrets: dict[tuple[str, str], str] = {}
    for program in programs.values():
        secrets |= secret_values(render.secrets(program), state_dir)
    configuration = Configuration(
        stack=options.stack,
        model=base.model_source,
        base=chosen.base,
        replicas=chosen.replicas,
        arms={label: arm.facts() for label, arm in built.items()},
        loads=[load.record() for load in chosen.loads],
        versions=receipt.versions(),
    )
    what = {one.label: one.arm.what for one in chosen.arms}
    model = (base.model_id, base.model_source)
    return Plan(built, what, chosen.base, chosen.loads, *model, configuration, secrets, state_dir, application)


def _suffix(label: str) -> str:
    _, at, count = label.rpartition("@")
    return f"@{count}" if at and count.isdigit() else ""


def _application(loads: Sequence[Load]) -> Application | None:
    """Return what all loads are for; None for the model. Raises BenchUsageError where they are for different ones."""
    names = {load.workload.application: load.workload.name for load in loads}
    if len(names) > 1:
        raise BenchUsageError(f"--workloads {', '.join(names.values())}: they need different arms. Fix: one run for each")
    return APPLICATIONS.get(next(iter(names), ""))


def _record(options: Options, context: int, service: Mapping[str, Any]) -> offline.Program:
    """Record the stack's program with the benchmark's model, room for the longest prompt, and `service` laid over."""
    values, secret = stack_files.read_stack(options.stack, file=options.config_file)
    cluster, services = (stack_files.map_of(values, part) for part in ("cluster", "services"))
    if cluster and cluster.get("mode") != ClusterMode.LOCAL.value:
        raise BenchUsageError(f"stack {options.stack} is for a cluster: arms on this machine take cluster.mode local")
    if len(services) > 1:
        raise BenchUsageError(f"stack {options.stack}: one service is measured, and it declares {len(services)}")
    for name, settings in services.items():
        if isinstance(settings, dict):
            changed = settings | ({"model": options.model} if options.model else {})
            changed = laid_over(_with_room(changed, context), service)
            values = values | {stack_files.full_key("services"): json.dumps({name: changed})}
    # the program says what is wrong where there is no service, or one that is no map
    return offline.record(options.stack, config=(values, secret))


def _with_room(service: Mapping[str, Any], context: int) -> Mapping[str, Any]:
    """Return a service's settings with a context of at least so many tokens."""
    engine = service.get("engine", {})
    length = engine.get("max_model_len", 2048) if isinstance(engine, dict) else None
    if isinstance(length, int) and context > length:
        return laid_over(service, {"engine": {"max_model_len": context}})
    # the program says what is wrong with what is no number
    return service


def _base(program: offline.Program, replicas: int) -> Base:
    manifest = render.ray_services(program)[0]
    model = RayService(manifest).serve.llm_configs[0]
    return Base(manifest, model.model_id, model.model_source, replicas)


def _memory_gib(built: Built) -> float:
    if isinstance(built, ProcessArm):
        return built.engines * (MEMORY_PER_VLLM_GIB + built.kv_cache_gib)
    return memory.needed_gib(single_node.read(built.manifest), {})
