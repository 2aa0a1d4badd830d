"""The plan of a benchmark on this machine: the arms of one stack, built and checked. Starts nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayline.facts.choices import ClusterMode
from rayline_cli import offline, render, stack_files
from rayline_cli.local_secrets import secret_values

from . import receipt, schedule
from .arms import Base, Built, RayArm, differences, laid_over
from .cli import Options
from .errors import BenchUsageError, refuse_pooling
from .options import ChosenArm, suffix
from .receipt import Configuration
from .workloads import Application, Load


@dataclass(frozen=True)
class BenchPlan:
    """Everything that is known before the first process starts."""

    built: Mapping[str, Built]
    """Label of the arm -> what to start. An arm with N > 1 replicas is labelled NAME@N."""
    what: Mapping[str, str]
    loads: Sequence[Load]
    model_id: str
    configuration: Configuration
    secrets: Mapping[tuple[str, str], str]
    state_dir: Path
    application: Application | None = None
    """Served by the arms in the model's place."""

    def groups(self, available_gib: float) -> list[list[str]]:
        """Return the arms that run side by side, batch by batch. Raises BenchError."""
        groups: list[list[str]] = []
        for end in map(suffix, self.configuration.replicas):
            needed = {label: arm.memory_gib for label, arm in self.built.items() if receipt.suffix_of(label) == end}
            groups += schedule.batches(needed, available_gib, self.configuration.base + end)
        return groups

    def differences(self, label: str) -> list[str]:
        """Return what an arm has differently from the baseline."""
        return differences(self.built[label], self.built[self.configuration.base_of(label)])


def prepare(options: Options, chosen: Sequence[ChosenArm], loads: Sequence[Load], state_dir: Path) -> BenchPlan:
    """Render the stack and build the arms, of which the first is the baseline.

    Raises BenchUsageError, offline.UnknownStack or offline.ProgramError.
    """
    application = _application(loads)
    context = max(load.workload.context for load in loads)
    programs = {"{}": _record(options, context, {})}
    built: dict[str, Built] = {}
    for choice in chosen:
        key = json.dumps(choice.arm.service, sort_keys=True)
        programs[key] = programs.get(key) or _record(options, context, choice.arm.service)
        arm = choice.arm.build(Base(render.ray_services(programs[key])[0], choice.replicas))
        if application:
            if not isinstance(arm, RayArm):
                raise BenchUsageError(f"--arms {choice.label}: it has no Ray Serve for {application.name}. Fix: arms of Ray")
            arm = RayArm(application.put_into(arm.manifest, choice.replicas))
        built[choice.label] = arm
    base = Base(render.ray_services(programs["{}"])[0])
    refuse_pooling(f"stack {options.stack}", base.service.task)
    model = base.model
    configuration = Configuration(
        stack=options.stack,
        model=model.model_source,
        base=chosen[0].arm.name,
        replicas=list(dict.fromkeys(choice.replicas for choice in chosen)),
        arms={label: arm.facts() for label, arm in built.items()},
        loads=[load.record() for load in loads],
        versions=receipt.versions(),
    )
    secrets: dict[tuple[str, str], str] = {}
    for program in programs.values():
        secrets |= secret_values(render.secrets(program), state_dir)
    what = {choice.label: choice.arm.what for choice in chosen}
    return BenchPlan(built, what, loads, model.model_id, configuration, secrets, state_dir, application)


def _application(loads: Sequence[Load]) -> Application | None:
    """Return the application of all loads; None for the model. Raises BenchUsageError where they need different ones."""
    needed = {getattr(load.workload.application, "name", ""): load.workload for load in loads}
    if len(needed) > 1:
        names = ", ".join(workload.name for workload in needed.values())
        raise BenchUsageError(f"--workloads {names}: they need different arms. Fix: one run for each")
    return next(iter(needed.values())).application


def _record(options: Options, context: int, service: Mapping[str, Any]) -> offline.Program:
    """Record the stack's program with the benchmark's model, room for the longest prompt, and `service` laid over."""
    values, secret = stack_files.read_stack(options.stack, file=options.config_file)
    cluster, services = (stack_files.map_of(values, part) for part in ("cluster", "services"))
    if cluster and cluster.get("mode") != ClusterMode.LOCAL.value:
        raise BenchUsageError(
            f"stack {options.stack} is for a cluster. Fix: for arms on this machine one with cluster.mode local"
        )
    if len(services) > 1:
        raise BenchUsageError(f"stack {options.stack}: it declares {len(services)} services. Fix: a stack with one service")
    for name, settings in services.items():
        if isinstance(settings, dict):
            changed = settings | ({"model": options.model} if options.model else {})
            changed = laid_over(_with_room(changed, context), service)
            values = values | {stack_files.full_key("services"): json.dumps({name: changed})}
    # the program refuses a stack without a service, or one that is no map
    return offline.record(options.stack, config=(values, secret))


def _with_room(service: Mapping[str, Any], context: int) -> Mapping[str, Any]:
    """Return a service's settings with a context of at least so many tokens."""
    engine = service.get("engine", {})
    length = engine.get("max_model_len", 2048) if isinstance(engine, dict) else None
    if isinstance(length, int) and context > length:
        return laid_over(service, {"engine": {"max_model_len": context}})
    # the program refuses a length that is no number
    return service
