"""One benchmark: from options to a receipt. Starts the arms, measures point after point in turns, ends everything."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from components.facts.choices import ClusterMode
from rayline import offline, render, stack_files
from rayline.bench import cpu, receipt, schedule, servers
from rayline.bench.applications import APPLICATIONS, Application, with_application
from rayline.bench.arms import (
    ARMS,
    SAMPLE_ENGINE,
    Arm,
    Base,
    Built,
    Overlay,
    RayArm,
    differences,
    overlaid,
    serve_config,
)
from rayline.bench.errors import BenchError, BenchUsageError, Mistakes
from rayline.bench.load import LoadError, LoadGenerator
from rayline.bench.receipt import DISTURBED_CORES, ArmRecord, Configuration, Measured, Receipt
from rayline.bench.schedule import Point
from rayline.bench.servers import Server, ServerError
from rayline.bench.workloads import WORKLOADS, Workload
from rayline.local import bundled_models
from rayline.local.report import Report
from rayline.local_secrets import secret_values
from rayline.signals import undisturbed

MEMORY_KEPT_GIB = 2.0
"""Left free for the load generator and for everybody else."""
SECONDS_OF_A_POINT = 45.0
"""The first guess of how long a point takes."""
TINY_MODEL = "rayline/tiny-random-qwen3"


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    arms: Sequence[str]
    base: str
    stack: str = "local"
    config_file: Path | None = None
    """The stack's file, if it lies elsewhere."""
    model: str = TINY_MODEL
    """Empty: the stack's own."""
    overlays: Sequence[Overlay] = ()
    workloads: Sequence[str] = ("tokens",)
    concurrency: Sequence[int] = ()
    """Empty: each workload's own."""
    requests: int | None = None
    repeats: int = 3
    replicas: Sequence[int] = (1,)
    engine: Mapping[str, Any] = field(default_factory=dict)
    """Laid over SAMPLE_ENGINE, for all arms that are to be equal."""


@dataclass(frozen=True)
class Load:
    """A workload at a concurrency."""

    workload: Workload
    concurrency: int
    requests: int

    @property
    def warmup(self) -> int:
        """Requests before the measurement: one for each stream, so that every connection and cache is warm."""
        return self.concurrency

    def record(self) -> dict[str, Any]:
        return {
            "workload": self.workload.name,
            "concurrency": self.concurrency,
            "requests": self.requests,
            "warmup": self.warmup,
            "generator": self.workload.generator,
            "arguments": list(self.workload.arguments),
        }


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
    memory_gib: Mapping[str, float]
    state_dir: Path
    application: Application | None = None
    """What the arms serve in the model's place."""

    def groups(self, available_gib: float) -> list[list[str]]:
        """Arms that run side by side, batch by batch. Raises BenchError."""
        found: list[list[str]] = []
        for suffix in dict.fromkeys(_suffix(label) for label in self.built):
            memory = {label: gib for label, gib in self.memory_gib.items() if _suffix(label) == suffix}
            try:
                found += schedule.batches(memory, available_gib, self.base + suffix)
            except schedule.DoesNotFit as error:
                raise BenchError(f"{error}. Fewer --arms or --replicas, or a machine with more memory") from None
        return found

    def differences(self, label: str) -> list[str]:
        """Of an arm against the base arm."""
        return differences(self.built[label], self.built[self.base + _suffix(label)])


def prepare(options: Options, state_dir: Path) -> Plan:
    """Renders the stack, builds the arms and checks that everything asked for makes sense. Starts nothing.

    Raises BenchUsageError, ArmError, offline.UnknownStack or offline.ProgramError.
    """
    loads = read_loads(options)
    application = _application(loads)
    arms = chosen_arms(options)
    check_numbers(options)
    context = max((load.workload.context for load in loads), default=0)
    services = {label: overlay.service for label, overlay in ((o.name, o) for o in options.overlays)}
    programs: dict[str, offline.Program] = {}
    built, what = {}, {}
    base_program = _record(options, context, {})
    for count in options.replicas:
        for arm in arms:
            service = services.get(arm.name, {})
            key = json.dumps(service, sort_keys=True)
            if key not in programs:
                programs[key] = _record(options, context, service) if service else base_program
            base = _base(programs[key], count, {**SAMPLE_ENGINE, **options.engine})
            label = arm.name + (f"@{count}" if count > 1 else "")
            built[label] = _serving(application, arm.name, arm.build(base), count)
            what[label] = arm.what
    base = _base(base_program, 1, SAMPLE_ENGINE)
    secrets: dict[tuple[str, str], str] = {}
    for program in [base_program, *programs.values()]:
        secrets |= secret_values(render.secrets(program), state_dir)
    memory = {label: servers.memory_needed_gib(one, {}) for label, one in built.items()}
    configuration = Configuration(
        stack=options.stack,
        model=base.model_source,
        base=options.base,
        replicas=list(options.replicas),
        arms={label: one.facts() for label, one in built.items()},
        loads=[load.record() for load in loads],
        versions=receipt.versions(),
    )
    return Plan(
        built=built,
        what=what,
        base=options.base,
        loads=loads,
        model_id=base.model_id,
        model_source=base.model_source,
        configuration=configuration,
        secrets=secrets,
        memory_gib=memory,
        state_dir=state_dir,
        application=application,
    )


def _application(loads: Sequence[Load]) -> Application | None:
    """What all loads are for; None for the model. Raises BenchUsageError where they are for different ones."""
    names = {load.workload.application: load.workload.name for load in loads}
    if len(names) > 1:
        raise BenchUsageError(
            f"--workloads {', '.join(names.values())}: each needs arms that serve something else; one run for each"
        )
    name = next(iter(names), "")
    return APPLICATIONS[name] if name else None


def _serving(application: Application | None, arm: str, built: Built, replicas: int) -> Built:
    """The arm with `application` in it."""
    if application is None:
        return built
    if not isinstance(built, RayArm):
        raise BenchUsageError(f"--arms {arm}: it has no Ray Serve to run the application {application.name} in")
    return RayArm(with_application(built.manifest, application, replicas))


def _suffix(label: str) -> str:
    _, at, count = label.rpartition("@")
    return f"@{count}" if at and count.isdigit() else ""


def check_numbers(options: Options) -> None:
    """Raises BenchUsageError for counts that no machine, or not this one, can measure with."""
    mistakes = Mistakes()
    cores = len(os.sched_getaffinity(0))
    if most := [count for count in options.replicas if count > cores]:
        mistakes.add(f"--replicas {most[0]}: this machine has {cores} cores, at most that many engines make sense")
    if options.repeats < 1:
        mistakes.add(f"--repeats {options.repeats}: at least 1")
    if (options.requests or 0) < 0:
        mistakes.add(f"--requests {options.requests}: at least 1, or 0 for each workload's own")
    mistakes.refuse()


def chosen_arms(options: Options) -> list[Arm]:
    """Raises BenchUsageError for arms that do not exist, or twice, and for a base that is none of them."""
    known, mistakes = dict(ARMS), Mistakes()
    for overlay in options.overlays:
        if overlay.name in known:
            mistakes.add(f"--arm {overlay.name}: there is an arm of that name already")
        known[overlay.name] = overlaid(overlay)
    if unknown := [name for name in options.arms if name not in known]:
        mistakes.add(f"--arms {', '.join(unknown)}: there is {', '.join(known)}")
    if options.base not in options.arms:
        arms = ", ".join(options.arms)
        mistakes.add(f"--base {options.base}: it is none of the arms {arms}; name one of them with --base")
    mistakes.refuse()
    return [known[name] for name in options.arms]


def read_loads(options: Options) -> list[Load]:
    """Raises BenchUsageError for workloads that do not exist and for fewer requests than streams."""
    loads, mistakes = [], Mistakes()
    if unknown := [name for name in options.workloads if name not in WORKLOADS]:
        mistakes.add(f"--workloads {', '.join(unknown)}: there is {', '.join(WORKLOADS)}")
    for workload in [WORKLOADS[name] for name in options.workloads if name in WORKLOADS]:
        for concurrency in options.concurrency or workload.concurrencies:
            requests = options.requests or workload.requests
            if 0 < requests < concurrency:
                mistakes.add(f"--requests {requests}: at {concurrency} streams at least {concurrency} are needed")
            loads.append(Load(workload, concurrency, requests))
    mistakes.refuse()
    return loads


def _record(options: Options, context: int, service: Mapping[str, Any]) -> offline.Program:
    """The stack's program with the benchmark's model, room for the longest prompt, and `service` laid over."""
    values, secret = stack_files.read_stack(options.stack, file=options.config_file)
    cluster, services = (stack_files.map_of(values, part) for part in ("cluster", "services"))
    if cluster and cluster.get("mode") != ClusterMode.LOCAL.value:
        raise BenchUsageError(
            f"stack {options.stack} is for a cluster: here the arms run on this machine, which takes cluster.mode local"
        )
    if len(services) > 1:
        raise BenchUsageError(f"stack {options.stack}: one service is measured, and it declares {len(services)}")
    for name, settings in services.items():
        if isinstance(settings, dict):
            changed = dict(settings)
            if options.model:
                changed["model"] = options.model
            length = changed.get("max_model_len", 2048)
            if isinstance(length, int) and context > length:
                changed["max_model_len"] = context
            values = values | {stack_files.full_key("services"): json.dumps({name: {**changed, **service}})}
    # the program says what is wrong where there is no service, or one that is no map
    return offline.record(options.stack, config=(values, secret))


def _base(program: offline.Program, replicas: int, engine: Mapping[str, Any]) -> Base:
    manifest = render.ray_services(program)[0]
    loading = serve_config(manifest)["applications"][0]["args"]["llm_configs"][0]["model_loading_config"]
    return Base(manifest, loading["model_id"], loading["model_source"], replicas, engine)


# --- measuring ---------------------------------------------------------------------------------------------------------


def new_receipt(plan: Plan, repeats: int, groups: list[list[str]], command: str) -> Receipt:
    """A receipt without a point."""
    return Receipt(
        configuration=plan.configuration,
        configuration_hash=plan.configuration.hash(),
        repeats=repeats,
        groups=groups,
        command=command,
        started_at=now(),
        git=receipt.git_state(),
        hardware=receipt.hardware(),
        environment=receipt.environment(),
        notes=[
            "The load generator runs on the same cores.",
            "The kit's arms ask for an API key, as shipped; sample and vllm have none.",
            "Ray's own token (RAY_AUTH_MODE) is on in every arm of Ray: the runtime on this machine insists.",
            "All arms but the measured one are frozen (SIGSTOP).",
        ],
    )


def measure(plan: Plan, found: Receipt, path: Path, report: Report) -> None:
    """Measures what `found` lacks and writes it to `path` after each point.

    However this ends, also by Ctrl-C or SIGTERM, no process of it goes on. Raises BenchError.
    """
    loads = {(load.workload.name, load.concurrency): load for load in plan.loads}
    points = schedule.order(found.groups, list(loads), found.repeats)
    todo = schedule.left(points, [point.point() for point in found.points])
    took: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as ends:
        ends.enter_context(_only_one(plan.state_dir))
        generators = _Generators(plan.state_dir, ends)
        for batch in dict.fromkeys(point.batch for point in todo):
            with _running(plan, found, found.groups[batch - 1], report) as arms:
                running: Server | None = None
                for point in [point for point in todo if point.batch == batch]:
                    done = len(found.points)
                    rest = schedule.remaining_seconds(todo[todo.index(point) :], took, SECONDS_OF_A_POINT)
                    title = f"{done + 1}/{len(points)}"
                    under_way = _UnderWay(report, title, describe(point, found.repeats), rest)
                    under_way.say("waking it")
                    started = time.monotonic()
                    server = arms[point.arm]
                    if running is not server:
                        if running is not None:
                            running.pause()
                        server.resume()
                        running = server
                    load = loads[point.workload, point.concurrency]
                    generator = generators.get(load.workload.generator)
                    one = _measure(plan, point, load, server, generator, started, under_way.say)
                    one.start = found.interrupted + 1
                    if not found.arms[point.arm].memory_gib:
                        found.arms[point.arm].memory_gib = round(server.memory_gib(), 2)
                    found.points.append(one)
                    found.write(path)
                    took.setdefault((point.workload, point.concurrency), []).append(one.seconds)
                    report.done(title, one.seconds, f"{describe(point, found.repeats)}: {figures(one)}")
    found.ended_at = now()
    found.write(path)


def _measure(
    plan: Plan,
    point: Point,
    load: Load,
    server: Server,
    generator: LoadGenerator,
    started: float,
    waiting: Callable[[str], None],
) -> Measured:
    job = {
        "url": server.url,
        "model": plan.model_id,
        "tokenizer": "" if plan.application else _tokenizer(plan),
        "concurrency": load.concurrency,
        "requests": load.requests,
        "warmup": load.warmup,
        "seed": schedule.seed(point),
        "arguments": list(load.workload.arguments),
        # by the environment of the generator's child: an argument could be read by anybody on the machine
        "env": {"OPENAI_API_KEY": server.api_key or ""},
    }
    watch = _Watch(server)
    try:
        result = generator.run(job, watch.begin, watch.end, waiting)
    except LoadError as error:
        raise BenchError(f"{describe(point, 0)}: {error}") from None
    own = sum(watch.seconds.values()) + result["load_cpu_seconds"]
    return Measured(
        batch=point.batch,
        repeat=point.repeat,
        workload=point.workload,
        concurrency=point.concurrency,
        arm=point.arm,
        at=now(),
        requests=load.requests,
        seconds=round(time.monotonic() - started, 1),
        load=result,
        cpu_seconds=watch.seconds,
        machine_load=round(max(0.0, watch.machine - own) / max(watch.elapsed, 0.001), 3),
    )


class _UnderWay:
    """Tells which point is measured and how long the rest will take, once in a while anew."""

    def __init__(self, report: Report, title: str, point: str, left: float) -> None:
        self._report, self._title, self._point = report, title, point
        self._end = time.monotonic() + left

    def say(self, what: str) -> None:
        minutes = max(0.0, self._end - time.monotonic()) / 60
        self._report.phase(self._title, f"{self._point}: {what}; about {minutes:.0f} min left")


class _Watch:
    """CPU of an arm, and of the whole machine, between `begin` and `end`."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.seconds: dict[str, float] = {}
        self.machine = self.elapsed = 0.0

    def begin(self) -> None:
        self._before, self._at, self._all = cpu.snapshot(self._server.processes()), time.monotonic(), _machine_cpu()

    def end(self) -> None:
        self.elapsed, self.machine = time.monotonic() - self._at, _machine_cpu() - self._all
        self.seconds = cpu.between(self._before, cpu.snapshot(self._server.processes()))


def _machine_cpu() -> float:
    """Seconds that all cores have worked for anybody; work for other virtual machines (steal) is in it."""
    times = psutil.cpu_times()._asdict()
    # guests' time is in the user's already
    return sum(seconds for name, seconds in times.items() if name not in ("idle", "iowait", "guest", "guest_nice"))


def _tokenizer(plan: Plan) -> str:
    folder = bundled_models.prepare(plan.model_source, bundled_models.default_cache_dir(), _Silent())
    return str(folder or plan.model_source)


@contextmanager
def _running(plan: Plan, found: Receipt, labels: Sequence[str], report: Report) -> Iterator[dict[str, Server]]:
    """The arms of one batch, all started and frozen; all ended afterwards."""
    arms: dict[str, Server] = {}
    try:
        for index, label in enumerate(labels, start=1):
            report.note(f"arm {index} of {len(labels)}: {label}, {plan.what[label]}")
            server = servers.start(
                label,
                plan.built[label],
                model_id=plan.model_id,
                model_source=plan.model_source,
                state_dir=plan.state_dir / label.replace("@", "-"),
                secrets=plan.secrets,
                report=report,
                probe=plan.application.probe if plan.application else "",
            )
            arms[label] = server
            found.arms[label] = ArmRecord(
                what=plan.what[label],
                facts=plan.built[label].facts(),
                differences=plan.differences(label),
                checks=server.checks,
                needs_api_key=server.api_key is not None,
            )
            server.pause()
        yield arms
    except ServerError as error:
        raise BenchError(str(error)) from None
    finally:
        with undisturbed():
            for label, server in arms.items():
                report.phase("stop", label)
                server.stop()


class _Generators:
    """One load generator's process for each module, started when it is needed."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self._folder, self._ends = folder, ends
        self._running: dict[str, LoadGenerator] = {}

    def get(self, module: str) -> LoadGenerator:
        if module not in self._running:
            generator = LoadGenerator(module, self._folder / "load.log")
            self._ends.callback(generator.close)
            self._running[module] = generator
        return self._running[module]


@contextmanager
def _only_one(state_dir: Path) -> Iterator[None]:
    """Two benchmarks at a time would measure each other."""
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (state_dir / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BenchError(f"another benchmark is running ({state_dir}/lock)") from None
        yield


class _Silent:
    def phase(self, name: str, detail: str) -> None: ...
    def done(self, name: str, seconds: float, detail: str) -> None: ...
    def note(self, text: str) -> None: ...


def describe(point: Point, repeats: int) -> str:
    """A point for people."""
    of = f" of {repeats}" if repeats else ""
    return f"{point.arm}, {point.workload} at {point.concurrency}, repeat {point.repeat}{of}"


def figures(one: Measured) -> str:
    tokens = one.load.get("output_tokens_per_second")
    speed = f"{tokens:,.0f} tokens/s" if tokens else f"{one.load['requests_per_second']:,.0f} requests/s"
    disturbed = f", others used {one.machine_load:.2f} cores" if one.machine_load > DISTURBED_CORES else ""
    failed = f", {one.load['failed']} FAILED" if one.load["failed"] else ""
    failed += "".join(f", CLIENT-BOUND: {why}" for why in one.load.get("client_bound", []))
    return f"{speed}, TTFT p99 {one.load['ttft_p99_ms']:,.0f} ms{disturbed}{failed}"


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
