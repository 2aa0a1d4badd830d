"""The forecast of a service as texts: a measurement, its workload, and the price."""

from rayline.facts.throughput import MeasuredThroughput, measured, usd_per_million
from rayline.pools.types import NodePool
from rayline.service.types import ServicePlan
from rayline.service.workload import Outlook, span

from .estimates import prospect_of


def forecast_text(service: ServicePlan, pool: NodePool | None) -> str:
    """Return the measurement of a service's model on its GPU with its price, and the forecast for its workload."""
    row = measured(service.model_id, service.accelerator, service.gpus_per_replica)
    prospect, reason = prospect_of_plan(service)
    parts = [_measured_text(row, pool)] if row else []
    if prospect and prospect.forecast:
        forecast = prospect.forecast
        speed = f"{span(forecast.least, forecast.most, ',.1f')} requests/s of the workload for each replica"
        parts.append(f"{speed}, {latency(prospect)} ({'derived from it' if forecast.at_once is None else forecast.source})")
    elif prospect:
        parts.append(f"not known: {reason}")
    return "; ".join(parts) or "not known: no measurement of this model on this GPU is on record"


def _measured_text(row: MeasuredThroughput, pool: NodePool | None) -> str:
    speed = span(row.least, row.most)
    text = f"{speed} tokens/s for each busy GPU, prompts and answers, as measured elsewhere ({row.load}; {row.source})"
    if pool is None or pool.hourly_usd is None:
        return text
    hourly = pool.hourly_usd / pool.machine.gpus
    cheap, dear = (usd_per_million(tokens, hourly) for tokens in (row.most, row.least))
    return f"{text}; {dollars(cheap, dear)} for a million tokens at the planned price"


def dollars(cheap: float, dear: float) -> str:
    """Return the text of a price from `cheap` to `dear`."""
    low, high = f"${cheap:.2f}", f"${dear:.2f}"
    return low if low == high else f"{low} to {high}"


def prospect_of_plan(service: ServicePlan) -> tuple[Outlook | None, str]:
    """Return what a service carries of its workload, and the reason where that is not known."""
    workload = service.asked.workload
    return prospect_of(service, workload) if workload else (None, "")


def workload_text(service: ServicePlan, pool: NodePool | None) -> str:
    """Return the load of the clients, the replicas that it takes, whether the planned ones are enough, and the price."""
    prospect, _ = prospect_of_plan(service)
    if prospect is None or service.parked:
        return ""
    workload, planned = prospect.workload, service.most_replicas
    rate, users = workload.requests_per_second, workload.concurrent_users
    load = f"{rate:g} requests/s" if rate is not None else f"{users:,} users at once"
    verdict = {True: "enough", False: "not enough", None: "not known whether enough"}[prospect.enough(planned)]
    # those that always run, or more where the load takes more
    replicas = max(service.replicas, prospect.most or prospect.fewest or planned)
    hourly = pool.hourly_usd / pool.machine.gpus * service.gpus_per_replica if pool and pool.hourly_usd else None
    price = prospect.usd_per_million(replicas, hourly) if hourly else None
    parts = [
        f"{load} of {workload.input_tokens:,} + {workload.output_tokens:,} tokens",
        f"replicas needed {span(prospect.fewest, prospect.most)}, planned {planned}: {verdict}",
        f"{dollars(*price)} for a million tokens at this load with {replicas} replica{'s' * (replicas > 1)}" if price else "",
    ]
    return "; ".join(filter(None, parts))


def latency(prospect: Outlook) -> str:
    """Return the times of a forecast, and whether they are within the workload's bounds."""
    forecast = prospect.forecast
    times = [] if forecast is None else [(forecast.first_token_ms, "ms to the first token"), (forecast.token_ms, "ms a token")]
    known = ", ".join(f"{ms:,.0f} {unit}" for ms, unit in times if ms is not None) or "latency not known"
    if forecast is None or prospect.workload.bounds == (None, None):
        return known
    verdict = {True: "within the bound", False: "above the bound", None: "not known whether within the bound"}[forecast.within]
    return f"{known}, {verdict}"
