"""Serve's autoscaling policy of a model with `autoscaling.time_to_first_token_ms`.

Serve's own policy counts requests in progress. This one asks for at least as many replicas, and for more while the time to first token
is too long. Prometheus has it by replica, so the requests of other services and clusters with the same model do not count. Without
fresh metrics the decision is that of Serve's own policy. Delays and bounds are applied by Serve afterwards.

The class runs in Serve's controller, which Ray starts on the head. Ray and the standard library only: this file is handed to pods as it is.
"""

import json
import time

from ray.serve.autoscaling_policy import PrometheusQueryMixin, PrometheusVector, replica_queue_length_autoscaling_policy

QUANTILE = 0.9
WINDOW_SECONDS = 120
"""Prometheus needs two samples in it, and the kit's PodMonitoring reads every 30 s."""
MOST_GROWTH = 2.0
"""A decision at most doubles the replicas."""
CALM = 0.5
"""No replica goes while the time is above this share of the bound: those that are left would exceed it."""


def query(model, window_seconds):
    """Return the PromQL of the time to first token of each replica of a model, in seconds."""
    labels = f"{{model_name={json.dumps(model)}}}"
    rates = f"rate(ray_vllm_time_to_first_token_seconds_bucket{labels}[{window_seconds}s])"
    return f"histogram_quantile({QUANTILE}, sum by (le, ReplicaId) ({rates}))"


class FirstToken(PrometheusQueryMixin):
    """As many replicas as Serve's own policy wants, and more while the time to first token exceeds `bound_ms`."""

    def __init__(self, model, bound_ms, prometheus, window_seconds=WINDOW_SECONDS):
        self._query, self._bound, self._window = query(model, window_seconds), bound_ms / 1000, window_seconds
        self._running, self._since = 0, 0.0
        super().__init__(prometheus_address=prometheus, prometheus_queries=[self._query])

    def __call__(self, ctx):
        """Return the number of replicas, and the state that Serve shows."""
        desired, state = replica_queue_length_autoscaling_policy(ctx)
        running, now = ctx.current_num_replicas, time.monotonic()
        if running != self._running:
            self._running, self._since = running, now
        seconds = self._seconds({replica.unique_id for replica in ctx.running_replicas})
        if seconds is None or not running:
            return desired, dict(state)
        if seconds > CALM * self._bound:
            desired = max(desired, ctx.target_num_replicas)
        # Before that the metric is still of the load on fewer replicas.
        settled = running == ctx.target_num_replicas and now - self._since > self._window
        if seconds > self._bound and settled:
            desired = max(desired, running * min(MOST_GROWTH, seconds / self._bound))
        return desired, {**state, "time_to_first_token_ms": round(seconds * 1000)}

    def _seconds(self, replicas):
        """Return the mean over the replicas that had requests; None where nothing is known."""
        found = (self.prometheus_results or {}).get(self._query)
        samples = found.samples if isinstance(found, PrometheusVector) else ()
        values = [sample.value for sample in samples if sample.labels.get("ReplicaId") in replicas]
        return sum(values) / len(values) if values else None
