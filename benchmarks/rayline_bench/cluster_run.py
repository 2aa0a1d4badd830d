"""`rayline bench` for a stack in a cluster: creates the Job of cluster_job.py with kubectl, reads its log, keeps what it found.

Everything goes through kubectl and so with the rights of the caller. What this run made is removed at its end, however that is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rayline.facts.labels import BENCH_LABEL
from rayline.platform.types import Plan
from rayline.service.types import ServicePlan
from rayline_cli import offline, render
from rayline_cli.clients.kubernetes import Kubectl, NotSeen
from rayline_cli.progress import Report
from rayline_cli.signals import undisturbed

from . import bench_serve, cluster_job, receipt, schedule
from .arms import RayArm
from .cluster_job import MARK
from .errors import BenchError, BenchUsageError
from .receipt import ArmRecord, Configuration, Measured, Receipt
from .run import describe, figures
from .schedule import Point
from .workloads import VLLM, Load

ARM = "service"
START_SECONDS = 60.0 * cluster_job.MINUTES_TO_START
POLL_SECONDS = 5.0
LOST_TRIES = 5
"""How often in a row kubectl may fail while the Job runs: an API server may be replaced meanwhile."""
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

    def left(self, found: Receipt) -> list[Point]:
        """Return the points that `found` lacks, in order."""
        loads = [(load.workload.name, load.concurrency) for load in self.loads]
        every = schedule.order(found.groups, loads, found.repeats)
        return schedule.left(every, [one.point() for one in found.points])

    def jobs(self, points: Sequence[Point]) -> list[dict[str, Any]]:
        """Return what the Job does for each point."""
        loads = {(load.workload.name, load.concurrency): load for load in self.loads}
        target = {
            "url": cluster_job.endpoint(self.service),
            "model": self.service.served_model_name,
            "tokenizer": cluster_job.tokenizer(self.service),
        }
        return [target | loads[point.workload, point.concurrency].job(point) for point in points]

    def kubectl(self) -> Kubectl:
        """Return kubectl in the stack's cluster and namespace."""
        return Kubectl(self.plan.namespace, self.plan.cluster.args.context, self.plan.cluster.args.kubeconfig)


def prepare(program: offline.Program, loads: Sequence[Load], service_name: str) -> Run:
    """Check that everything asked for makes sense. Starts nothing, asks nobody. Raises BenchUsageError."""
    plan = program.plan
    services = {service.name: service for service in plan.services}
    if service_name and service_name not in services:
        raise BenchUsageError(
            f"--arms {service_name}: in a cluster the arm is a service, and stack {program.stack} has {', '.join(services)}"
        )
    if not service_name and len(services) != 1:
        raise BenchUsageError(f"stack {program.stack} has {', '.join(services)}: name one with --arms")
    service = services[service_name or next(iter(services))]
    try:
        cluster_job.endpoint(service)
    except cluster_job.NotMeasurable as error:
        raise BenchUsageError(str(error)) from None
    for load in loads:
        if load.workload.generator != VLLM:
            raise BenchUsageError(f"--workloads {load.workload.name}: it is for this machine only")
        if load.workload.context > service.limits.max_model_len:
            raise BenchUsageError(
                f"--workloads {load.workload.name}: it needs a context of {load.workload.context} tokens, and service "
                f"{service.name} has engine.max_model_len {service.limits.max_model_len}"
            )
    manifest = next(m for m in render.ray_services(program) if m["metadata"]["name"] == service.name)
    facts = RayArm(manifest).facts()
    configuration = Configuration(
        stack=program.stack,
        model=cluster_job.tokenizer(service),
        base=ARM,
        replicas=[service.replicas],
        arms={ARM: facts},
        loads=[load.record() for load in loads],
        # of the image; what is installed here has no part in it
        versions={"image": service.image},
    )
    return Run(plan, service, loads, configuration, facts)


def new_receipt(run: Run, repeats: int, command: str) -> Receipt:
    """Return a receipt without a point."""
    arms = {ARM: ArmRecord(what="the service as it runs", facts=dict(run.facts), differences=[])}
    return receipt.new(run.configuration, repeats, [[ARM]], command, NOTES, arms=arms, hardware={}, environment={})


def measure(run: Run, found: Receipt, path: Path, report: Report) -> None:
    """Measure what `found` lacks and write it to `path` after each point. Raises BenchError.

    However this ends, also by Ctrl-C or SIGTERM, the Job and what belongs to it are removed.
    """
    points = run.left(found)
    if not points:
        found.write(path)
        return
    jobs, kubectl = run.jobs(points), run.kubectl()
    name = cluster_job.run_name(run.service.name, jobs)
    try:
        _must_be_ready(kubectl, run.service)
        _must_be_alone(kubectl)
        _remove(kubectl, name)
        try:
            items = cluster_job.manifests(run.plan, run.service, jobs)
            kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
            report.note(f"Job {name} in {run.plan.namespace}")
            _Taking(run, points, found, path, report).follow(kubectl, name)
        finally:
            with undisturbed():
                report.phase("remove", f"Job {name}")
                try:
                    _remove(kubectl, name)
                except NotSeen as error:
                    # what ended the run is the error to be seen; Kubernetes ends the Job at its deadline
                    report.note(f"not removed: {error}")
    except NotSeen as error:
        raise BenchError(f"{error}. Fix: mend that, or apply what `--render` prints by hand") from None
    found.ended_at = receipt.now()
    found.write(path)


def _must_be_ready(kubectl: Kubectl, service: ServicePlan) -> None:
    conditions = kubectl.get("rayservice", service.name).get("status", {}).get("conditions") or []
    ready = next((one for one in conditions if one["type"] == "Ready"), None)
    if ready is None or ready["status"] != "True":
        said = f"{ready.get('reason', '')}: {ready.get('message', '')}" if ready else "it has no condition Ready yet"
        raise BenchError(f"service {service.name} is not ready ({said}). Fix: wait until `rayline status` says it serves")


def _must_be_alone(kubectl: Kubectl) -> None:
    selector = ",".join(f"{key}={value}" for key, value in cluster_job.COMPONENT.items())
    for job in kubectl.get("jobs", "--selector", selector)["items"]:
        if job.get("status", {}).get("active"):
            name = job["metadata"]["name"]
            raise BenchError(
                f"another benchmark is running, Job {name}: concurrent benchmarks distort each other. Fix: wait for it; "
                f"if nobody follows it, kubectl --namespace {kubectl.namespace} delete job {name}"
            )


def _remove(kubectl: Kubectl, name: str) -> None:
    kubectl("delete", "job,networkpolicy", "--selector", f"{BENCH_LABEL}={name}", "--ignore-not-found")


class _Taking:
    """Turns the log of the Job into points of the receipt."""

    def __init__(self, run: Run, points: Sequence[Point], found: Receipt, path: Path, report: Report) -> None:
        self._points, self._found, self._path, self._report = points, found, path, report
        self._requests = {(load.workload.name, load.concurrency): load.requests for load in run.loads}
        self._taken: set[int] = set()
        self._failed: list[str] = []
        self._since = time.monotonic()

    def follow(self, kubectl: Kubectl, name: str) -> None:
        """Read the log until the Job has ended. Raises BenchError when it did not measure everything."""
        self._wait_for_the_pod(kubectl, name)
        ended, said = "", ""
        while not ended:
            job = _patient(lambda: kubectl.get("job", name))
            ended = _ended(job)
            said = _patient(lambda: kubectl("logs", f"job/{name}", "--container", cluster_job.CONTAINER))
            self._take(said)
            if not ended:
                time.sleep(POLL_SECONDS)
        if self._failed or len(self._taken) < len(self._points):
            last = [line for line in said.splitlines() if not line.startswith(MARK)][-15:]
            what = "; ".join(self._failed) or "the Job ended early"
            raise BenchError(f"not everything could be measured ({ended}): {what}. Its last words:\n" + "\n".join(last))

    def _take(self, said: str) -> None:
        for line in said.splitlines():
            if not line.startswith(MARK):
                continue
            what, _, rest = line.removeprefix(MARK).partition(" ")
            if what == "machine":
                cores, _, node = rest.partition(" ")
                self._found.hardware = {"load generator": {"cores": int(cores), "node": node}}
            elif int(what) not in self._taken:
                self._taken.add(int(what))
                self._take_point(self._points[int(what)], json.loads(rest))

    def _take_point(self, point: Point, result: Mapping[str, Any] | None) -> None:
        text = describe(point, self._found.repeats)
        if result is None:
            self._failed.append(text)
            self._report.note(f"FAILED: {text}")
            return
        seconds, self._since = round(time.monotonic() - self._since, 1), time.monotonic()
        one = Measured(
            **vars(point),
            at=receipt.now(),
            requests=self._requests[point.workload, point.concurrency],
            seconds=seconds,
            load=bench_serve.figures(result) | {"errors": [], "load_cpu_seconds": 0.0},
            cpu_seconds={},
            machine_load=0.0,
            start=self._found.interrupted + 1,
        )
        self._found.points.append(one)
        self._found.write(self._path)
        self._report.done(f"{len(self._taken)}/{len(self._points)}", seconds, f"{text}: {figures(one)}")

    def _wait_for_the_pod(self, kubectl: Kubectl, name: str) -> None:
        give_up = time.monotonic() + START_SECONDS
        while said := _waits_for(kubectl, name):
            if any(reason in said for reason in HOPELESS) or time.monotonic() > give_up:
                raise BenchError(f"the Job's pod does not start: {said}")
            self._report.phase("start", said)
            time.sleep(POLL_SECONDS)


def _patient(ask: Callable[[], Any]) -> Any:
    for _ in range(LOST_TRIES):
        try:
            return ask()
        except NotSeen:
            time.sleep(POLL_SECONDS)
    return ask()


def _ended(job: Mapping[str, Any]) -> str:
    """Return how a Job has ended; empty while it runs."""
    conditions = job.get("status", {}).get("conditions") or []
    return next(
        (
            f"{one['type']} {one.get('message', '')}".strip()
            for one in conditions
            if one["type"] in ("Complete", "Failed") and one["status"] == "True"
        ),
        "",
    )


def _waits_for(kubectl: Kubectl, name: str) -> str:
    """Return why the Job's pod has not begun; empty once it has, or has ended."""
    pods = kubectl.get("pods", "--selector", f"{BENCH_LABEL}={name}")["items"]
    if pods:
        return waits_for(pods[0])
    # a quota, or Pod Security
    refused = kubectl.get("events", "--field-selector", f"involvedObject.name={name},reason=FailedCreate")["items"]
    return refused[-1]["message"] if refused else "the Job has no pod yet"


def waits_for(pod: Mapping[str, Any]) -> str:
    """Return why a pod has not begun; empty once it has, or has ended."""
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
