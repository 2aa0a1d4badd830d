"""Compare the workload of a service with its replicas: bounds of a forecast, the replicas that it takes, and the price."""

from dataclasses import dataclass
from math import ceil

from rayline.facts.throughput import MeasuredThroughput, measured, usd_per_million
from rayline.service.arguments import WorkloadArgs
from rayline.service.request import ServiceRequest
from rayline.service.types import EngineLimits, ServicePlan

LOADS = ("requests_per_second", "concurrent_users")


@dataclass(frozen=True)
class Forecast:
    """The requests of a workload that one replica carries in a second, from `least` to `most`."""

    source: str
    least: float
    most: float
    within: bool | None = True
    """Whether the latency stays within the workload's bounds; None where that is not known."""
    at_once: int | None = None
    """Requests in progress with it; None where the source does not say. The same for the times."""
    first_token_ms: float | None = None
    token_ms: float | None = None


@dataclass(frozen=True)
class Outlook:
    """The replicas that a workload takes, `fewest` to `most`; None where the end is not known."""

    workload: WorkloadArgs
    at_once: int
    """Requests of the workload that a replica holds: engine.max_num_seqs, or as many as fit into its KV cache."""
    forecast: Forecast | None
    fewest: int | None
    most: int | None

    def enough(self, replicas: int) -> bool | None:
        """Return whether so many replicas carry the workload; None where the band or the latency leaves it open."""
        if self.forecast and self.forecast.within is False:
            return False
        if self.fewest is None or replicas < self.fewest:
            return None if self.fewest is None else False
        return True if self.most is not None and replicas >= self.most else None

    def usd_per_million(self, replicas: int, hourly_usd: float) -> tuple[float, float] | None:
        """Return the price of a million tokens at this load, lowest and highest. `hourly_usd` is the price of one replica."""
        workload, forecast = self.workload, self.forecast
        if forecast is None or forecast.within is False:
            return None
        if workload.requests_per_second is not None:
            served = (workload.requests_per_second,) * 2
        elif forecast.at_once:
            # fewer requests at once than in the forecast: in proportion, which is the least
            share = min(replicas, (workload.concurrent_users or replicas * forecast.at_once) / forecast.at_once)
            served = (forecast.least * share, forecast.most * share)
        elif workload.concurrent_users is None:
            served = (forecast.least * replicas, forecast.most * replicas)
        else:
            return None
        dear, cheap = (usd_per_million(rate * workload.tokens, hourly_usd * replicas) for rate in served)
        return cheap, dear


def held_at_once(service: ServicePlan, workload: WorkloadArgs) -> int:
    """Return the requests of a workload that a replica works on at once."""
    limit = service.asked.traffic.max_in_progress or service.limits.max_num_seqs
    return max(1, min(limit, service.limits.max_num_seqs, int(service.fit.sequences(workload.tokens))))


def measured_forecast(service: ServicePlan, workload: WorkloadArgs) -> Forecast | None:
    """Return the bounds that a published measurement gives for a workload; None without a measurement of a known load.

    The measured load and the workload differ in their prompts and answers. A token of an answer costs at least as much as one of a
    prompt. So the rate lies between two ends: every token costs the same, and prompts cost nothing. Longer requests leave room for
    fewer at once in the KV cache, shorter ones for more: that widens the band in proportion.
    """
    row = measured(service.model_id, service.accelerator, service.gpus_per_replica)
    if row is None or row.tokens is None:
        return None
    prompt, answer = row.tokens
    ends = (prompt + answer) / workload.tokens, answer / workload.output_tokens
    size = (prompt + answer) / workload.tokens
    least, most = (speed * row.gpus / (prompt + answer) for speed in (row.least, row.most))
    return Forecast(
        f"as measured elsewhere ({row.load}; {row.source})",
        least * min(ends) * min(1, size),
        most * max(ends) * max(1, size),
        within=_kept(row, workload),
        first_token_ms=row.first_token_ms,
        token_ms=row.token_ms,
    )


def _kept(row: MeasuredThroughput, workload: WorkloadArgs) -> bool | None:
    """Return True where the measurement kept the workload's bounds with prompts as long; else None, because less load may keep them."""
    if workload.bounds == (None, None):
        return True
    kept = ((row.first_token_ms, workload.time_to_first_token_ms), (row.token_ms, workload.time_per_output_token_ms))
    same = row.tokens is not None and workload.input_tokens <= row.tokens[0]
    return True if same and all(bound is None or (ms is not None and ms <= bound) for ms, bound in kept) else None


def outlook(service: ServicePlan, workload: WorkloadArgs, forecast: Forecast | None) -> Outlook:
    """Return the replicas that a workload takes on the hardware of a service."""
    at_once = held_at_once(service, workload)
    bounded = workload.bounds != (None, None)
    fewest = most = None
    if forecast and forecast.within is False:
        # no number of replicas makes one answer faster
        return Outlook(workload, at_once, forecast, None, None)
    if workload.requests_per_second is not None and forecast:
        fewest, most = (ceil(workload.requests_per_second / rate) for rate in (forecast.most, forecast.least))
    elif workload.concurrent_users is not None:
        within = _held_within_bounds(workload, forecast) if bounded and forecast else None
        fewest = most = ceil(workload.concurrent_users / min(at_once, within or at_once))
        most = None if bounded and within is None else most
    if bounded and (forecast is None or forecast.within is None):
        most = None
    return Outlook(workload, at_once, forecast, fewest, most)


def _held_within_bounds(workload: WorkloadArgs, forecast: Forecast) -> int | None:
    """Return the requests that a replica works on at once at the forecast's own times; None where these are not known.

    Without a number of the source it is Little's law: the rate, times the seconds of a request.
    """
    if forecast.at_once or forecast.first_token_ms is None or forecast.token_ms is None:
        return forecast.at_once
    seconds = (forecast.first_token_ms + workload.output_tokens * forecast.token_ms) / 1000
    return max(1, int(forecast.least * seconds))


def check_workload(request: ServiceRequest) -> None:
    """Refuse a workload with two kinds of load, or with none."""
    workload = request.arguments.workload
    if workload and sum(getattr(workload, key) is not None for key in LOADS) != 1:
        request.check.refuse(f"{request.path}.workload", None, f"either {' or '.join(LOADS)}. Fix: set one of the two")


def check_request(request: ServiceRequest, limits: EngineLimits) -> None:
    """Refuse a workload whose requests are longer than the engine takes."""
    workload = request.arguments.workload
    if workload and workload.tokens > limits.max_model_len:
        parts = f"input_tokens {workload.input_tokens} + output_tokens {workload.output_tokens} are {workload.tokens} tokens"
        fix = f"shorter requests, or engine.max_model_len {workload.tokens}"
        why = f"{parts}, and engine.max_model_len is {limits.max_model_len}. Fix: {fix}"
        request.check.refuse(f"{request.path}.workload", None, why)


def workload_warnings(service: ServicePlan, prospect: Outlook | None = None) -> list[str]:
    """Warn of a workload that the planned replicas do not carry. Without a prospect: as far as measurements tell."""
    workload = service.asked.workload
    if workload is None or service.parked:
        return []
    prospect = prospect or outlook(service, workload, measured_forecast(service, workload))
    forecast, replicas, users = prospect.forecast, service.most_replicas, workload.concurrent_users
    if users is not None and users > replicas * prospect.at_once:
        held = f"{replicas} replica{'s hold' if replicas > 1 else ' holds'} {replicas * prospect.at_once} requests of {workload.tokens:,} tokens"
        limit = service.asked.traffic.max_in_progress
        limited = f"traffic.max_in_progress {limit}, " if limit else ""
        return [
            f"{service.name}: workload.concurrent_users {users}: {held} at once ({limited}engine.max_num_seqs "
            f"{service.limits.max_num_seqs}, KV cache {service.fit.kv_cache_tokens:,} tokens a replica), the others wait"
            f"{' or are refused' if limit else ''}"
        ]
    if forecast and forecast.within is False:
        times = f"{forecast.first_token_ms:,.0f} ms to the first token and {forecast.token_ms:,.1f} ms for the next"
        return [
            f"{service.name}: workload: a replica with the least load takes {times}, more than the bound ({forecast.source})"
        ]
    if forecast and prospect.enough(replicas) is False:
        needed = span(prospect.fewest, prospect.most)
        return [f"{service.name}: workload: it takes {needed} replicas, and the plan has {replicas} ({forecast.source})"]
    return []


def span(least: float | None, most: float | None, form: str = ",") -> str:
    """Return the text of a range, with one number where both ends look the same."""
    if least is None or most is None:
        return "not known" if least is None else f"at least {least:{form}}"
    low, high = f"{least:{form}}", f"{most:{form}}"
    return low if low == high else f"{low} to {high}"
