"""`rayline bench` for a stack in a cluster: applies the Job of cluster_job.py with kubectl, follows it, keeps what it found.

Everything goes through kubectl and so with the rights of who calls. What this run made is removed at its end, however that is.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.plan import Plan, ServicePlan
from components.ray_service_manifest import BENCH_LABEL
from rayline import offline, render
from rayline.bench import cluster_job, receipt, schedule
from rayline.bench.arms import RayArm
from rayline.bench.errors import BenchError, BenchUsageError
from rayline.bench.in_job import MARK
from rayline.bench.receipt import ArmRecord, Configuration, Measured, Receipt
from rayline.bench.run import Load, describe, figures, now
from rayline.bench.schedule import Point
from rayline.local.report import Report
from rayline.signals import undisturbed

ARM = "service"
START_SECONDS = 60.0 * cluster_job.MINUTES_TO_START
POLL_SECONDS = 2.0
KUBECTL_SECONDS = 60.0
ATTACH_TRIES = 5
"""How often a log that broke off is taken up again without a new point in between: an API server may be replaced meanwhile."""
# The kubelet tries these again for ever, and nothing changes by itself.
HOPELESS = ("CreateContainerConfigError", "InvalidImageName", "CreateContainerError")
NOTES = [
    "One arm: the service as it runs. Other arms differ in the environment of Ray's pods and need a RayCluster of their own.",
    "Measured by a Job in the service's namespace; CPU of the server is not measured there.",
    "The kit asks for an API key, as shipped.",
]


@dataclass(frozen=True)
class Run:
    """What is to be measured in a cluster; nothing of it has been started."""

    plan: Plan
    service: ServicePlan
    loads: Sequence[Load]
    configuration: Configuration
    facts: Mapping[str, Any]

    def points(self, found: Receipt) -> list[dict[str, Any]]:
        """What `found` lacks, as in_job.py reads it."""
        loads = {(load.workload.name, load.concurrency): load for load in self.loads}
        every = schedule.order(found.groups, list(loads), found.repeats)
        return [
            self._point(point, loads[point.workload, point.concurrency])
            for point in schedule.left(every, [one.point() for one in found.points])
        ]

    def _point(self, point: Point, load: Load) -> dict[str, Any]:
        return {
            "point": {"repeat": point.repeat, "workload": point.workload, "concurrency": point.concurrency},
            "generator": load.workload.generator.rpartition(".")[2],
            "job": {
                "url": cluster_job.endpoint(self.service),
                "model": self.service.served_model_name,
                "tokenizer": cluster_job.tokenizer(self.service),
                "concurrency": load.concurrency,
                "requests": load.requests,
                "warmup": load.warmup,
                "seed": schedule.seed(point),
                "arguments": list(load.workload.arguments),
            },
        }


def prepare(program: offline.Program, loads: Sequence[Load], service_name: str) -> Run:
    """Checks that everything asked for makes sense. Starts nothing, asks nobody. Raises BenchUsageError."""
    plan = program.plan
    services = {service.name: service for service in plan.services}
    if service_name and service_name not in services:
        raise BenchUsageError(f"--service {service_name}: stack {program.stack} has {', '.join(services)}")
    if not service_name and len(services) != 1:
        raise BenchUsageError(f"stack {program.stack} has {', '.join(services)}: name one with --service")
    service = services[service_name or next(iter(services))]
    try:
        cluster_job.endpoint(service)
        model_source = cluster_job.tokenizer(service)
    except cluster_job.NotMeasurable as error:
        raise BenchUsageError(str(error)) from None
    for load in loads:
        if load.workload.application:
            raise BenchUsageError(f"--workloads {load.workload.name}: an application of its own, for this machine only")
        if load.workload.context > service.limits.max_model_len:
            raise BenchUsageError(
                f"--workloads {load.workload.name}: it needs a context of {load.workload.context} tokens, and service "
                f"{service.name} has max_model_len {service.limits.max_model_len}"
            )
    manifest = next(m for m in render.ray_services(program) if m["metadata"]["name"] == service.name)
    facts = RayArm(manifest).facts()
    configuration = Configuration(
        stack=program.stack,
        model=model_source,
        base=ARM,
        replicas=[service.replicas],
        arms={ARM: facts},
        loads=[load.record() for load in loads],
        # of the image; what is installed here has no part in it
        versions={"image": service.image},
    )
    return Run(plan, service, loads, configuration, facts)


def new_receipt(run: Run, repeats: int, command: str) -> Receipt:
    """A receipt without a point."""
    return Receipt(
        configuration=run.configuration,
        configuration_hash=run.configuration.hash(),
        repeats=repeats,
        groups=[[ARM]],
        command=command,
        started_at=now(),
        git=receipt.git_state(),
        hardware={},
        environment={},
        notes=list(NOTES),
        arms={ARM: ArmRecord(what="the service as it runs", facts=dict(run.facts), differences=[])},
    )


class Kubectl:
    """kubectl in one namespace of one cluster."""

    def __init__(self, plan: Plan) -> None:
        if not shutil.which("kubectl"):
            raise BenchError(
                "kubectl is not on PATH: install it, or let `--render` print the Job and apply that by hand "
                "(docs/benchmark.md)"
            )
        self._base = ["kubectl"]
        self._base += ["--kubeconfig", plan.cluster.kubeconfig] if plan.cluster.kubeconfig else []
        self._base += ["--context", plan.cluster.context] if plan.cluster.context else []
        self._base += ["--namespace", plan.namespace]
        self.text = " ".join(self._base)

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Raises BenchError with kubectl's own words."""
        try:
            done = subprocess.run(
                [*self._base, *arguments], input=stdin, capture_output=True, text=True, timeout=KUBECTL_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise BenchError(f"{self.text} {arguments[0]} has not answered within {KUBECTL_SECONDS:.0f} s") from None
        if done.returncode:
            raise BenchError(f"{self.text} {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        return json.loads(self.run("get", *arguments, "--output", "json"))

    @contextmanager
    def log(self, pod: str) -> Iterator[Iterator[str]]:
        """The lines of a pod's log, from its beginning, for as long as there are new ones."""
        command = [*self._base, "logs", "--follow", pod, "--container", cluster_job.CONTAINER]
        # in a session of its own: Ctrl-C is for this process, which then ends it
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )
        assert process.stdout is not None
        try:
            yield iter(process.stdout)
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def measure(run: Run, found: Receipt, path: Path, report: Report, kubectl: Kubectl) -> None:
    """Measures what `found` lacks and writes it to `path` after each point. Raises BenchError.

    However this ends, also by Ctrl-C or SIGTERM, the Job and what belongs to it are removed.
    """
    points = run.points(found)
    if not points:
        found.write(path)
        return
    name = cluster_job.run_name(run.service.name, points)
    _must_be_ready(kubectl, run.service)
    _must_be_alone(kubectl)
    _remove(kubectl, name)
    try:
        documents = cluster_job.manifests(run.plan, run.service, points)
        kubectl.run(
            "create", "--filename", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
        )
        report.note(f"Job {name} in {run.plan.namespace}; its log: {kubectl.text} logs --follow job/{name}")
        _Following(kubectl, name, report, _Taking(run, found, path, report)).until_the_end()
    finally:
        with undisturbed():
            report.phase("remove", f"Job {name}")
            try:
                _remove(kubectl, name)
            except BenchError as error:
                # what ended the run is the error to be seen; Kubernetes ends the Job at its deadline
                report.note(f"not removed: {error}")
    found.ended_at = now()
    found.write(path)


def _must_be_ready(kubectl: Kubectl, service: ServicePlan) -> None:
    conditions = kubectl.get("rayservice", service.name).get("status", {}).get("conditions") or []
    ready = next((one for one in conditions if one["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True":
        said = f"{ready.get('reason', '')}: {ready.get('message', '')}" if ready else "it has no condition Ready yet"
        raise BenchError(f"service {service.name} is not ready ({said}): what would be measured is not the service")


def _must_be_alone(kubectl: Kubectl) -> None:
    selector = ",".join(f"{key}={value}" for key, value in cluster_job.COMPONENT.items())
    for job in kubectl.get("jobs", "--selector", selector)["items"]:
        if job.get("status", {}).get("active"):
            name = job["metadata"]["name"]
            raise BenchError(
                f"another benchmark is running, Job {name}: two would measure each other. Wait for it, or, if nobody "
                f"follows it any more: {kubectl.text} delete job {name}"
            )


def _remove(kubectl: Kubectl, name: str) -> None:
    kinds = "job,configmap,networkpolicy"
    kubectl.run("delete", kinds, "--selector", f"{BENCH_LABEL}={name}", "--ignore-not-found")


class _Taking:
    """Turns the Job's events into points of the receipt."""

    def __init__(self, run: Run, found: Receipt, path: Path, report: Report) -> None:
        self._run, self._found, self._path, self._report = run, found, path, report
        self._count = len(run.points(found)) + len(found.points)
        self._loads = {(load.workload.name, load.concurrency): load for load in run.loads}
        self.errors: dict[Point, str] = {}

    def taken(self) -> int:
        """How many points have come to an end."""
        return len(self._found.points) + len(self.errors)

    def take(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "machine":
            self._found.hardware = {"load generator": event["hardware"]}
            self._found.environment = {f"load generator {name}": v for name, v in event["versions"].items()}
            return
        if event["event"] not in ("start", "done"):
            return
        point = Point(1, event["point"]["repeat"], event["point"]["workload"], event["point"]["concurrency"], ARM)
        text = describe(point, self._found.repeats)
        if event["event"] == "start":
            self._report.phase(self._title(), text)
        elif point in self.errors or point in [one.point() for one in self._found.points]:
            return  # of a log that is read again from its beginning
        elif "error" in event:
            self.errors[point] = f"{text}: {event['error']}"
            self._report.note(f"FAILED: {self.errors[point]}")
        else:
            title = self._title()
            one = Measured(
                batch=point.batch,
                repeat=point.repeat,
                workload=point.workload,
                concurrency=point.concurrency,
                arm=ARM,
                at=now(),
                requests=self._loads[point.workload, point.concurrency].requests,
                seconds=event["seconds"],
                load=event["result"],
                cpu_seconds={},
                machine_load=0.0,
                start=self._found.interrupted + 1,
            )
            self._found.points.append(one)
            self._found.write(self._path)
            self._report.done(title, one.seconds, f"{text}: {figures(one)}")

    def _title(self) -> str:
        return f"{len(self._found.points) + 1}/{self._count}"


class _Following:
    """Waits for the Job's pod and reads its log to the end."""

    def __init__(self, kubectl: Kubectl, name: str, report: Report, taking: _Taking) -> None:
        self._kubectl, self._name, self._report, self._taking = kubectl, name, report, taking
        self._last: deque[str] = deque(maxlen=15)

    def until_the_end(self) -> None:
        """Raises BenchError when the Job did not measure everything."""
        pod = self._started()
        tries, taken = 0, 0
        while not self._read(pod):
            phase = self._kubectl.get("pod", pod)["status"]["phase"]
            tries = tries + 1 if taken == self._taking.taken() else 1
            taken = self._taking.taken()
            ended = phase not in ("Running", "Pending")
            if ended and self._read(pod):
                break  # it came to its end after the log broke off
            if ended or tries > ATTACH_TRIES:
                raise BenchError(
                    f"the Job has ended early, its pod is {phase}. Its last words:\n" + "\n".join(self._last)
                )
            self._report.note("the log broke off; taking it up again")
            time.sleep(POLL_SECONDS)
        if self._taking.errors:
            raise BenchError("not everything could be measured:\n" + "\n".join(self._taking.errors.values()))

    def _read(self, pod: str) -> bool:
        """Reads the log from its beginning; whether its last event came. What was taken before is not taken twice."""
        with self._kubectl.log(pod) as lines:
            for line in lines:
                if not line.startswith(MARK):
                    self._last.append(line.rstrip())
                    continue
                event = json.loads(line.removeprefix(MARK))
                if event["event"] == "end":
                    return True
                self._taking.take(event)
        return False

    def _started(self) -> str:
        """The name of the pod, once its container has begun."""
        give_up = time.monotonic() + START_SECONDS
        while True:
            pods = self._kubectl.get("pods", "--selector", f"{BENCH_LABEL}={self._name}")["items"]
            said = waits_for(pods[0]) if pods else self._refused() or "the Job has no pod yet"
            if pods and not said:
                return pods[0]["metadata"]["name"]
            if any(reason in said for reason in HOPELESS) or time.monotonic() > give_up:
                raise BenchError(f"the Job's pod does not start: {said}")
            self._report.phase("start", said)
            time.sleep(POLL_SECONDS)

    def _refused(self) -> str:
        """Why the Job may never have a pod: a quota, Pod Security."""
        events = self._kubectl.get(
            "events", "--field-selector", f"involvedObject.name={self._name},reason=FailedCreate"
        )["items"]
        return events[-1]["message"] if events else ""


def waits_for(pod: Mapping[str, Any]) -> str:
    """Why a pod has not begun; empty once it has, or has ended."""
    status = pod.get("status", {})
    if status.get("phase") in ("Succeeded", "Failed"):
        return ""
    for container in status.get("containerStatuses") or []:
        state = container.get("state", {})
        if "running" in state or "terminated" in state:
            return ""
        waiting = state.get("waiting", {})
        return ": ".join(filter(None, [waiting.get("reason", "waiting"), waiting.get("message", "")]))
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return f"no node for it yet: {condition.get('message', condition.get('reason', ''))}"
    return "the pod is being started"
