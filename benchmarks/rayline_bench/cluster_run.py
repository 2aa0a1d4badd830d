"""`rayline bench` for a stack in a cluster: creates the Job of cluster_job.py with kubectl and reads its log into a receipt.

Everything goes through kubectl and so with the rights of the caller. The objects of a run are removed at its end, however that is.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rayline.facts.labels import BENCH_LABEL
from rayline.platform.types import Plan
from rayline.service.reading import RayService
from rayline.service.types import ServicePlan
from rayline_cli import offline, render
from rayline_cli.clients.kubernetes import Kubectl, NotSeen
from rayline_cli.progress import Report
from rayline_cli.signals import undisturbed

from . import bench_serve, cluster_job, schedule
from . import receipt as receipts
from .arms import RayArm
from .cluster_job import MARK
from .errors import BenchError, BenchUsageError, refuse_pooling
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
    "The kit requires an API key, as shipped.",
]


@dataclass(frozen=True)
class ClusterBench:
    """The plan of a benchmark in a cluster; nothing of it has been started."""

    plan: Plan
    service: ServicePlan
    loads: Mapping[tuple[str, int], Load]
    """By workload and concurrency."""
    configuration: Configuration

    def left(self, receipt: Receipt) -> list[Point]:
        """Return the points that `receipt` lacks, in order."""
        every = schedule.order(receipt.groups, list(self.loads), receipt.repeats)
        return schedule.left(every, [point.point() for point in receipt.points])

    def jobs(self, points: Sequence[Point]) -> list[dict[str, Any]]:
        """Return the Job's work for each point."""
        target = {
            "url": cluster_job.endpoint(self.service),
            "model": self.service.served_model_name,
            "tokenizer": cluster_job.tokenizer(self.service),
        }
        return [target | self.loads[point.workload, point.concurrency].job(point) for point in points]

    def measured(self, point: Point, result: Mapping[str, Any], seconds: float, start: int) -> Measured:
        """Return a point of the receipt from the JSON of `vllm bench serve`."""
        return Measured(
            **vars(point),
            at=receipts.now(),
            requests=self.loads[point.workload, point.concurrency].requests,
            seconds=seconds,
            load=bench_serve.figures(result) | {"errors": [], "load_cpu_seconds": 0.0},
            cpu_seconds={},
            machine_load=0.0,
            start=start,
        )

    def kubectl(self) -> Kubectl:
        """Return kubectl in the stack's cluster and namespace."""
        return Kubectl(self.plan.namespace, self.plan.cluster.args.context, self.plan.cluster.args.kubeconfig)


def prepare(program: offline.Program, loads: Sequence[Load], service_name: str) -> ClusterBench:
    """Check that the run makes sense and return its plan. Starts nothing. Raises BenchUsageError."""
    services = {service.name: service for service in program.plan.services}
    if service_name and service_name not in services:
        raise BenchUsageError(
            f"--arms {service_name}: in a cluster the arm is a service, and stack {program.stack} has no such one. "
            f"Fix: one of {', '.join(services)}"
        )
    if not service_name and len(services) != 1:
        raise BenchUsageError(f"stack {program.stack} has {', '.join(services)}. Fix: name one with --arms")
    service = services[service_name or next(iter(services))]
    refuse_pooling(f"service {service.name}", service.task)
    cluster_job.endpoint(service)
    for load in loads:
        option, needed, has = f"--workloads {load.workload.name}", load.workload.context, service.limits.max_model_len
        if load.workload.generator != VLLM:
            raise BenchUsageError(f"{option}: it is for this machine only. Fix: a workload of random prompts")
        if needed > has:
            raise BenchUsageError(
                f"{option}: it needs a context of {needed} tokens, and service {service.name} has engine.max_model_len {has}. "
                "Fix: shorter prompts, or a longer context"
            )
    manifest = next(m for m in render.ray_services(program) if m["metadata"]["name"] == service.name)
    configuration = Configuration(
        stack=program.stack,
        model=cluster_job.tokenizer(service),
        base=ARM,
        # a service without load may have none, and the benchmark is a load
        replicas=[max(1, service.replicas)],
        arms={ARM: RayArm(manifest).facts()},
        loads=[load.record() for load in loads],
        # of the image; the packages of this machine have no part in it
        versions={"image": service.image},
    )
    return ClusterBench(program.plan, service, {(load.workload.name, load.concurrency): load for load in loads}, configuration)


def new_receipt(run: ClusterBench, repeats: int, command: str) -> Receipt:
    """Return a receipt without a point."""
    arms = {ARM: ArmRecord(what="the service as it runs", facts=run.configuration.arms[ARM], differences=[])}
    return receipts.new(run.configuration, repeats, [[ARM]], command, NOTES, arms=arms, hardware={}, environment={})


def measure(run: ClusterBench, receipt: Receipt, path: Path, report: Report) -> None:
    """Measure what `receipt` lacks and write it to `path` after each point. Raises BenchError.

    However this ends, also by Ctrl-C or SIGTERM, the Job and its objects are removed.
    """
    if not (points := run.left(receipt)):
        receipt.write(path)
        return
    jobs, kubectl = run.jobs(points), run.kubectl()
    name = cluster_job.run_name(run.service.name, jobs)
    try:
        _must_be_ready(kubectl, run.service)
        _must_be_alone(kubectl)
        _remove(kubectl, name)
        with _removed_at_the_end(kubectl, name, report):
            items = cluster_job.manifests(run.plan, run.service, jobs)
            kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
            report.note(f"Job {name} in {run.plan.namespace}")
            _wait_for_the_pod(kubectl, name, report)
            _follow(run, points, receipt, path, report, partial(_log, kubectl, name))
    except NotSeen as error:
        raise BenchError(f"{error}. Fix: mend that, or apply the output of --dry-run by hand") from None
    receipt.ended_at = receipts.now()
    receipt.write(path)


def _must_be_ready(kubectl: Kubectl, service: ServicePlan) -> None:
    ready = RayService(kubectl.get("rayservice", service.name)).conditions.get("Ready")
    if ready is None or ready["status"] != "True":
        why = f"{ready.get('reason', '')}: {ready.get('message', '')}" if ready else "it has no condition Ready yet"
        raise BenchError(f"service {service.name} is not ready ({why}). Fix: wait until `rayline status` says it serves")


def _must_be_alone(kubectl: Kubectl) -> None:
    selector = ",".join(f"{key}={value}" for key, value in cluster_job.COMPONENT.items())
    for job in kubectl.get("jobs", "--selector", selector)["items"]:
        if job.get("status", {}).get("active"):
            name = job["metadata"]["name"]
            raise BenchError(
                f"another benchmark is running, Job {name}: concurrent benchmarks distort each other. Fix: wait for it; if its "
                f"`rayline bench` is gone, {kubectl.by_hand(f'delete job {name}')}"
            )


def _remove(kubectl: Kubectl, name: str) -> None:
    kubectl("delete", "job,networkpolicy", "--selector", f"{BENCH_LABEL}={name}", "--ignore-not-found")


@contextmanager
def _removed_at_the_end(kubectl: Kubectl, name: str, report: Report) -> Iterator[None]:
    try:
        yield
    finally:
        with undisturbed():
            report.phase("remove", f"Job {name}")
            try:
                _remove(kubectl, name)
            except NotSeen as error:
                # the error that ended the run is the one to be seen; Kubernetes ends the Job at its deadline
                report.note(f"not removed: {error}")


def _follow(
    run: ClusterBench,
    points: Sequence[Point],
    receipt: Receipt,
    path: Path,
    report: Report,
    log_of: Callable[[], tuple[str, list[str]]],
) -> None:
    """Turn the log of the Job into points of the receipt until the Job has ended. Raises BenchError for a missing one."""
    results: dict[int, Any] = {}
    since, ended = time.monotonic(), ""
    while not ended:
        ended, log = log_of()
        for line in log:
            what, _, rest = line.removeprefix(MARK).partition(" ")
            if not line.startswith(MARK) or (what.isdigit() and int(what) in results):
                continue
            if what == "machine":
                cores, _, node = rest.partition(" ")
                receipt.hardware = {"load generator": {"cores": int(cores), "node": node}}
                continue
            point, result = points[int(what)], json.loads(rest)
            results[int(what)] = result
            text = describe(point, receipt.repeats)
            if result is None:
                report.note(f"FAILED: {text}")
                continue
            seconds, since = round(time.monotonic() - since, 1), time.monotonic()
            receipt.points.append(run.measured(point, result, seconds, receipt.interrupted + 1))
            receipt.write(path)
            report.done(f"{len(results)}/{len(points)}", seconds, f"{text}: {figures(receipt.points[-1])}")
        if not ended:
            time.sleep(POLL_SECONDS)
    failed = [describe(points[number], receipt.repeats) for number, result in results.items() if result is None]
    if failed or len(results) < len(points):
        last = "\n".join([line for line in log if not line.startswith(MARK)][-15:])
        what = "; ".join(failed) or "the Job ended early"
        raise BenchError(f"not everything could be measured ({ended}): {what}. Its last words:\n{last}")


def _log(kubectl: Kubectl, name: str) -> tuple[str, list[str]]:
    """Return how the Job has ended, empty while it runs, and the lines of its log until now."""
    conditions = _patient(lambda: kubectl.get("job", name)).get("status", {}).get("conditions") or []
    ends = (end for end in conditions if end["type"] in ("Complete", "Failed") and end["status"] == "True")
    ended = next((f"{end['type']} {end.get('message', '')}".strip() for end in ends), "")
    log = _patient(lambda: kubectl("logs", f"job/{name}", "--container", cluster_job.CONTAINER))
    return ended, log.splitlines()


def _patient(look: Callable[[], Any]) -> Any:
    for _ in range(LOST_TRIES):
        try:
            return look()
        except NotSeen:
            time.sleep(POLL_SECONDS)
    return look()


def _wait_for_the_pod(kubectl: Kubectl, name: str, report: Report) -> None:
    give_up = time.monotonic() + START_SECONDS
    while why := _waits_for(kubectl, name):
        if any(reason in why for reason in HOPELESS) or time.monotonic() > give_up:
            raise BenchError(f"the Job's pod does not start: {why}")
        report.phase("start", why)
        time.sleep(POLL_SECONDS)


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
    for container in status.get("containerStatuses") or []:
        if waiting := container.get("state", {}).get("waiting"):
            return ": ".join(filter(None, [waiting.get("reason", "waiting"), waiting.get("message", "")]))
    if status.get("phase", "Pending") != "Pending":
        return ""
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] != "True":
            return f"no node for it yet: {condition.get('message', condition.get('reason', ''))}"
    return "the pod is being started"
