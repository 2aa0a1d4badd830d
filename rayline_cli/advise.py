"""Compare GPUs for a model and a load: what fits, what it costs, and how many replicas the load needs."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Any

from rayline.facts.accelerators import ACCELERATORS, AcceleratorSpec, MachineType
from rayline.facts.choices import Accelerator, Capacity, Task
from rayline.facts.prices import HOURS_PER_MONTH, PRICES, node_price
from rayline.facts.throughput import MeasuredThroughput, measured
from rayline.platform.plan import make_plan
from rayline.schema.check import PlanError
from rayline.schema.read import read
from rayline.schema.spelling import hint
from rayline.service.arguments import WorkloadArgs
from rayline.service.types import ServicePlan
from rayline.service.workload import LOADS, Outlook

from .errors import UsageError
from .estimates import prospect_of
from .stack_files import full_key, map_of, read_stack
from .stack_names import PROJECT_ROOT

# The usual ways to get a machine, cheapest commitment first; a reservation has a contract of its own.
WAYS = (Capacity.ON_DEMAND, Capacity.FLEX_START, Capacity.SPOT)


@dataclass(frozen=True)
class Question:
    """A service to compare GPUs for: its model and engine arguments as in a stack file, its load and its region."""

    name: str
    service: Mapping[str, Any]
    workload: WorkloadArgs
    models: str | None
    region: str


@dataclass(frozen=True)
class Advice:
    """One GPU for a model. Prices are USD and None where they are not known."""

    accelerator: Accelerator
    gpus: int
    """GPUs of one replica; 0 where the model fits no machine."""
    machine: str = ""
    capacity: Capacity | None = None
    longest_context: int = 0
    outlook: Outlook | None = None
    not_known: str = ""
    """The reason where no forecast is known."""
    measured: MeasuredThroughput | None = None
    tokens_per_second: int | None = None
    """Of one replica as measured elsewhere, at the measurement's own load."""
    replicas: int | None = None
    """Replicas that carry the load in any case; None where that is not known."""
    usd_per_million: tuple[float, float] | None = None
    usd_per_month: float | None = None
    """Of the replicas that the load needs, or of one."""


def question(stack: str | None, service: str | None, load: dict[str, Any], **named: str | None) -> Question:
    """Return what to compare, from a stack file or from options; `load` goes before the file's. Raises UsageError."""
    values = read_stack(stack)[0] if stack else {}
    services = {name: body for name, body in map_of(values, "services").items() if isinstance(body, dict)}
    if stack is None:
        body: Mapping[str, Any] = {"model": named["model"]}
    elif (service is None and len(services) > 1) or service not in {*services, None} or not services:
        raise UsageError(
            f"stack {stack}: --service {service or 'is left out'}. Fix: one of {', '.join(services) or '(no services)'}"
        )
    else:
        service = service or next(iter(services))
        body = services[service]
    written = body.get("workload")
    workload = {"input_tokens": 1024, "output_tokens": 256} | (written if isinstance(written, dict) else {})
    if any(key in load for key in LOADS):
        # the other kind of load in the file
        workload = {key: value for key, value in workload.items() if key not in LOADS}
    where = f"services.{service}.workload: " if stack else ""
    made, problems = read(WorkloadArgs, workload | load)
    if made is None or problems:
        raise UsageError("\n".join(f"{where}{problem}" for problem in problems))
    folder = named["models"] or str(PROJECT_ROOT / values.get(full_key("models"), "models"))
    region = named["region"] or values.get("gcp:region") or "us-central1"
    regions = sorted(set().union(*PRICES.values()))
    if region not in regions:
        fix = hint(region, regions, f"one of {', '.join(regions)}")
        raise UsageError(f"--region {region}: no machine has a price there. Fix: {fix}")
    return Question(service or "model", body, made, folder if os.path.isdir(folder) else None, region)


def compare(question: Question) -> list[Advice]:
    """Return the advice for each GPU, the cheapest that carries the load first. Raises UsageError for a model that generates no text, and PlanError for one without a file, or a context beyond its limit."""
    plans = [(accelerator, next(_plans(question, accelerator, spec), None)) for accelerator, spec in ACCELERATORS.items()]
    for plan in (plan for _, plan in plans if plan and plan.task is not Task.GENERATE):
        why = f"it has task {plan.task.value}, and the comparison is of generated tokens"
        raise UsageError(f"{plan.model_id}: {why}. Fix: a model that generates")
    # an estimate is a process of its own
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        advice = list(pool.map(lambda row: _advice(question, *row), plans))
    loaded = any(getattr(question.workload, key) is not None for key in LOADS)

    def order(row: Advice) -> tuple[bool, bool, bool, float]:
        forecast = row.outlook.forecast if row.outlook else None
        late = forecast is not None and forecast.within is False
        price = row.usd_per_month if loaded else row.usd_per_million and row.usd_per_million[1]
        return not row.gpus, late, row.replicas is None and loaded, price or float("inf")

    return sorted(advice, key=order)


# Refusals of one GPU, or of one number of GPUs.
_TOO_SMALL = (
    "does not fit",
    "split evenly",
    "has to divide",
    "needs a block of its own",
    "vLLM has no",
    "has no FP8 arithmetic",
)


def _trial(question: Question, accelerator: Accelerator, tensor: int) -> dict[str, Any]:
    engine = question.service.get("engine", {})
    if isinstance(engine, dict):
        engine = {"max_model_len": question.workload.tokens} | engine
        engine = {key: value for key, value in engine.items() if key != "pipeline_parallel_size"}
        engine |= {"tensor_parallel_size": tensor}
    # a model elsewhere, and a token for a gated one, make no difference here
    service = {"model": question.service.get("model"), "accelerator": accelerator.value, "engine": engine}
    service["weights"] = {"location": "/models/trial"}
    if "task" in question.service:
        service["task"] = question.service["task"]
    trial = {"cluster": {"mode": "existing"}, "hugging_face": {"source": "existing-secret"}}
    return trial | {"services": {question.name: service}} | ({"models": question.models} if question.models else {})


def _advice(question: Question, accelerator: Accelerator, plan: ServicePlan | None) -> Advice:
    if plan is None:
        return Advice(accelerator, 0)
    gpus, machine, workload = plan.gpus_per_replica, plan.machine, question.workload
    assert machine
    prospect, reason = prospect_of(plan, workload)
    row = measured(plan.model_id, accelerator, gpus)
    hourly, capacity = _price(machine, question.region)
    replicas = prospect.most or prospect.fewest or 1
    late = prospect.forecast is not None and prospect.forecast.within is False
    return Advice(
        accelerator,
        gpus,
        machine.name,
        capacity,
        plan.fit.longest_context,
        prospect,
        reason,
        row,
        row.least * gpus if row else None,
        prospect.most,
        None if hourly is None else prospect.usd_per_million(replicas, hourly / machine.gpus * gpus),
        None if hourly is None or late else hourly * ceil(replicas * gpus / machine.gpus) * HOURS_PER_MONTH,
    )


def _plans(question: Question, accelerator: Accelerator, spec: AcceleratorSpec) -> Iterator[ServicePlan]:
    """Yield the plan of the fewest GPUs that hold the model and one request of the load."""
    most = max(machine.gpus for machine in spec.machines)
    for tensor in (size for size in (1, 2, 4, 8) if size <= most):
        try:
            yield make_plan(_trial(question, accelerator, tensor)).services[0]
        except PlanError as error:
            # anything else is wrong on every GPU
            if not all(any(text in problem.message for text in _TOO_SMALL) for problem in error.problems):
                raise


def _price(machine: MachineType, region: str) -> tuple[float | None, Capacity | None]:
    """Return the price of a machine an hour, and the way to get it: the first of WAYS that it is sold in with a known price."""
    for way in WAYS:
        price = node_price(machine.name, region, (way,)) if way in machine.capacities else None
        if price is not None:
            return price, way
    return None, None
