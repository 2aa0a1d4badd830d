"""Compare GPUs for a model and a load: what fits, what it costs, and how many replicas the load needs."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import ceil
from typing import Any

from rayline.facts.accelerators import ACCELERATORS, AcceleratorSpec, MachineType
from rayline.facts.choices import Accelerator, Capacity
from rayline.facts.prices import HOURS_PER_MONTH, node_price
from rayline.facts.throughput import MeasuredThroughput, measured, usd_per_million
from rayline.platform.plan import make_plan
from rayline.schema.check import PlanError
from rayline.service.types import ServicePlan

# The usual ways to get a machine, cheapest commitment first; a reservation has a contract of its own.
WAYS = (Capacity.ON_DEMAND, Capacity.FLEX_START, Capacity.SPOT)


@dataclass(frozen=True)
class TrafficLoad:
    """Load of clients: tokens of a prompt and of an answer, and requests a second; None for one replica."""

    tokens_in: int
    tokens_out: int
    requests_per_second: float | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Return the tokens of prompts and answers in a second."""
        return None if self.requests_per_second is None else self.requests_per_second * (self.tokens_in + self.tokens_out)


@dataclass(frozen=True)
class Advice:
    """One GPU for a model. Prices are USD and None where they are not known; throughput is that of one replica, as measured elsewhere."""

    accelerator: Accelerator
    gpus: int
    """GPUs of one replica; 0 where the model fits no machine."""
    machine: str = ""
    capacity: Capacity | None = None
    longest_context: int = 0
    requests_at_once: int = 0
    tokens_per_second: int | None = None
    measured: MeasuredThroughput | None = None
    usd_per_million: float | None = None
    replicas: int | None = None
    usd_per_month: float | None = None
    """Of the replicas that the load needs, or of one."""


def compare(model: str, models: str | None, load: TrafficLoad, region: str) -> list[Advice]:
    """Return the advice for each GPU, the cheapest known price first. Raises PlanError for a model without a file, or a context beyond its limit."""
    advice = [_advice(model, models, accelerator, spec, load, region) for accelerator, spec in ACCELERATORS.items()]

    def order(one: Advice) -> tuple[bool, float, float]:
        return not one.gpus, one.usd_per_million or float("inf"), one.usd_per_month or float("inf")

    return sorted(advice, key=order)


# Refusals of one GPU, or of one number of GPUs.
_TOO_SMALL = ("does not fit", "split evenly", "has to divide", "needs a block of its own", "vLLM has no")


def _trial(model: str, models: str | None, accelerator: Accelerator, tensor: int, load: TrafficLoad) -> dict[str, Any]:
    engine = {"tensor_parallel_size": tensor, "max_model_len": load.tokens_in + load.tokens_out}
    # a model elsewhere, and a token for a gated one, make no difference here
    service = {"model": model, "accelerator": accelerator.value, "engine": engine, "weights": {"location": "/models/trial"}}
    trial = {"cluster": {"mode": "existing"}, "hugging_face": {"source": "existing-secret"}, "services": {"model": service}}
    return trial | ({"models": models} if models else {})


def _advice(
    model: str, models: str | None, accelerator: Accelerator, spec: AcceleratorSpec, load: TrafficLoad, region: str
) -> Advice:
    for plan in _plans(model, models, accelerator, spec, load):
        gpus, machine = plan.gpus_per_replica, plan.machine
        assert machine
        row = measured(model, accelerator, gpus)
        speed = row.least * gpus if row else None
        hourly, capacity = _price(machine, region)
        wanted = load.tokens_per_second
        replicas = ceil(wanted / speed) if wanted is not None and speed else None
        share = None if hourly is None else hourly / machine.gpus
        nodes = ceil((replicas or 1) * gpus / machine.gpus)
        return Advice(
            accelerator,
            gpus,
            machine.name,
            capacity,
            plan.fit.longest_context,
            plan.limits.max_num_seqs,
            speed,
            row,
            usd_per_million(row.least, share) if row and share is not None else None,
            replicas,
            None if hourly is None else hourly * nodes * HOURS_PER_MONTH,
        )
    return Advice(accelerator, 0)


def _plans(
    model: str, models: str | None, accelerator: Accelerator, spec: AcceleratorSpec, load: TrafficLoad
) -> Iterator[ServicePlan]:
    """Yield the plan of the fewest GPUs that hold the model and one request of the load."""
    most = max(machine.gpus for machine in spec.machines)
    for tensor in (size for size in (1, 2, 4, 8) if size <= most):
        try:
            yield make_plan(_trial(model, models, accelerator, tensor, load)).services[0]
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
