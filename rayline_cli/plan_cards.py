"""The plan of a stack as texts without any layout. plan_view.py shows them in a terminal, plan_markdown.py in a comment."""

import dataclasses

from rayline.cluster.types import ClusterPlan
from rayline.facts import prices
from rayline.facts.accelerators import ACCELERATORS
from rayline.facts.choices import Accelerator, Capacity, ClusterMode, Exposure, HeadStore, Routing, UpgradeStrategy
from rayline.facts.labels import serve_service_name
from rayline.facts.serve_flags import SWITCHES
from rayline.head.arguments import HeadArgs
from rayline.isolation.arguments import IsolationArgs
from rayline.models.catalog import is_hub_id
from rayline.platform.types import Plan
from rayline.pools.types import NodePool
from rayline.schema.secret_values import may_show
from rayline.service.tasks import ROUTES
from rayline.service.types import ServicePlan
from rayline.service.workload import workload_warnings

from .forecast_view import forecast_text, prospect_of_plan, workload_text
from .offline import Program
from .prerequisites import needed_objects


@dataclasses.dataclass(frozen=True)
class Card:
    """The plan of one service as texts."""

    title: str
    rows: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class StackCard:
    """The plan of one stack as texts without any layout."""

    stack: str
    where: str
    facts: list[str]
    cost: str
    """Empty where nothing is paid for."""
    services: list[Card]
    warnings: list[str]


def stack_card(program: Program) -> StackCard:
    """Return the plan of one stack as texts."""
    plan, cluster = program.plan, program.plan.cluster
    where = {
        ClusterMode.LOCAL: "this machine, no Kubernetes",
        ClusterMode.EXISTING: f"{_existing(cluster)} of kubeconfig context {cluster.args.context or '(the current one)'}",
        ClusterMode.CREATE: f"new GKE cluster in {cluster.location}, project {cluster.project}",
    }[cluster.mode]
    facts = [_isolation(plan.isolation.args)] if plan.isolation else []
    cost = ""
    if cluster.system_pool:
        facts += [_system_pool(cluster), _control_plane(cluster)]
    if cluster.on_google:
        facts += [_endpoint(plan), _head_store(plan.head.args)]
    if cluster.system_pool:
        if cluster.args.labels:
            facts.append("labels " + ", ".join(f"{key}={value}" for key, value in cluster.args.labels.items()))
        unpriced = f"the rest (price of {', '.join(plan.unpriced)} not known for {cluster.region})"
        priced = unpriced if plan.unpriced else "everything"
        cost = f"{_money(plan.hourly_usd)} for {priced} {_sizes(plan)} ({plan.price_source})"
    needed = needed_objects(program)
    if plan.create_namespace and any(each.namespace == plan.namespace for each in needed):
        facts.append(
            f"the namespace {plan.namespace} of the next objects comes with `rayline up --stack {program.stack} --without-services`"
        )
    facts += [f"must exist before the pods start: {each}; {each.make}" for each in needed]
    pools = {pool.name: pool for pool in plan.pools}
    services = [
        Card(f"{model.label}  {model.model_id} on {_hardware(model)}", rows(plan, model, pools.get(service.pool or "")))
        for service in plan.services
        for model in service.models
    ]
    # an estimate may find what measurements do not
    estimated = (warning for service in plan.services for warning in workload_warnings(service, prospect_of_plan(service)[0]))
    return StackCard(program.stack, where, facts, cost, services, list(dict.fromkeys((*plan.warnings, *estimated))))


# --- a stack


def _sizes(plan: Plan) -> str:
    """Return the sizes that a stack's price is for; with a service that scales to zero also the price under the highest load."""
    if not any(service.scales_to_zero and not service.parked for service in plan.services):
        return "at the planned sizes"
    return f"without load, {_money(plan.highest_hourly_usd)} under the highest load"


def _existing(cluster: ClusterPlan) -> str:
    return f"GKE cluster in {cluster.region}, project {cluster.project}," if cluster.on_google else "cluster"


def _system_pool(cluster: ClusterPlan) -> str:
    pool = cluster.system_pool
    assert pool
    size = f"{pool.min_nodes} to {pool.max_nodes} nodes"
    parts = [
        f"CPU pool {pool.machine.name}, {size}; {cluster.args.release_channel.value} channel",
        f"zones {', '.join(cluster.zones)}" if cluster.zones else "",
        "private nodes" if cluster.args.private_nodes else "public nodes",
        "deletion protection" if cluster.args.deletion_protection else "no deletion protection",
    ]
    return ", ".join(filter(None, parts))


def _isolation(isolation: IsolationArgs) -> str:
    pods = f"{isolation.pod_security.value} pods"
    if not isolation.network_policies:
        return f"{pods}; network open: no policies"
    return f"{pods}; network closed, namespaces that may call: {', '.join(isolation.allow_from_namespaces) or 'none'}"


def _endpoint(plan: Plan) -> str:
    endpoint = plan.endpoint.args
    if endpoint.exposure is Exposure.NONE:
        return "no endpoint outside the cluster"
    parts = [f"{endpoint.exposure.value} endpoint for {endpoint.domain}", f"TLS {endpoint.tls.value}"]
    if endpoint.rate_limit_per_minute is not None:
        parts.append(f"{endpoint.rate_limit_per_minute} requests a minute by {endpoint.rate_limit_by.value}")
    if endpoint.iap_members:
        parts.append(f"IAP for {', '.join(endpoint.iap_members)}")
    return ", ".join(parts)


def _head_store(head: HeadArgs) -> str:
    if head.store is HeadStore.NONE:
        return "no head store: when a Ray head is lost, every replica loads again"
    size = f" {head.memorystore_gib} GiB (not in the price)" if head.store is HeadStore.MEMORYSTORE else ""
    return f"head store {head.store.value}{size}: when a Ray head is lost, replicas keep serving"


def _control_plane(cluster: ClusterPlan) -> str:
    ways = ["its DNS name (with IAM)"] if cluster.args.dns_endpoint else []
    if cluster.args.authorized_networks:
        ways.append(f"its address from {', '.join(network.cidr for network in cluster.args.authorized_networks)}")
    text = f"control plane under {' and '.join(ways)}; "
    window = cluster.args.maintenance
    days = window.recurrence.partition("BYDAY=")[2] or "every day"
    text += f"upgrades {days} {window.start[11:16]}-{window.end[11:16]} UTC"
    return text + "".join(
        f", {each.scope.value} from {each.start[:10]} until {each.end[:10] if each.end else 'end of support'}"
        for each in window.exclusions
    )


def _money(hourly: float | None) -> str:
    if hourly is None:
        return "price not known"
    return f"${hourly:,.2f}/h, ${hourly * prices.HOURS_PER_MONTH:,.0f}/month"


# --- a service


def _hardware(service: ServicePlan) -> str:
    parked = ", parked" if service.parked else ""
    if service.accelerator is Accelerator.CPU:
        return f"{service.replicas} x CPU worker{parked}"
    most = f" to {service.most_replicas * service.gpus_per_replica}" if service.scales_to_zero and not service.parked else ""
    gpus = service.replicas * service.gpus_per_replica
    return f"{gpus}{most} x {ACCELERATORS[service.accelerator].ray_type}{parked}"


def rows(plan: Plan, service: ServicePlan, pool: NodePool | None) -> list[tuple[str, str]]:
    """Return label and text of each line of a service's card."""
    fit, limits, engine = service.fit, service.limits, service.asked.engine
    in_cluster = plan.cluster.mode is not ClusterMode.LOCAL
    on_gpus = service.accelerator is not Accelerator.CPU
    parallel = f" (tensor parallel {engine.tensor_parallel_size}, pipeline parallel {engine.pipeline_parallel_size})"
    activations = fit.activation_gib + fit.overhead_gib
    stream = service.asked.rollout.longest_stream_seconds
    image = service.image if in_cluster else "this Python environment"
    lines = {
        "task": _task(plan, service),
        "replicas": _replicas(service) + (parallel if on_gpus else ""),
        "at zero": "the head holds the next request until a replica has loaded the model" if service.scales_to_zero else "",
        "workers": _workers(service),
        "weights": _weights(plan, service),
        "node pool": _pool(pool) if pool else "",
        f"memory per {'GPU' if on_gpus else 'worker'}": (
            f"{fit.memory_gib:.1f} GiB: weights {fit.weights_gib:.1f}, activations and graphs {activations:.1f}, "
            + (f"KV cache {fit.kv_cache_gib:.1f} ({fit.kv_cache_tokens:,} tokens)" if fit.layout.groups else "no KV cache")
            + (f", and {engine.kv_offload_gib} GiB of the machine for what leaves it" if engine.kv_offload_gib else "")
        ),
        "context": f"{limits.max_model_len:,} tokens (longest that fits: {fit.longest_context:,})",
        "concurrency": (
            f"{limits.max_num_seqs} requests a replica ({fit.concurrency:.1f} of full length), "
            f"{limits.max_num_batched_tokens:,} tokens a step"
        ),
        "speculation": f"{draft.method.value}, tokens of a draft: {draft.tokens}" if (draft := engine.speculation) else "",
        "forecast": forecast_text(service, pool) if on_gpus else "",
        "workload": workload_text(service, pool),
        "switches": ", ".join(f"{switch} {'on' if service.on(switch) else 'OFF'}" for switch in SWITCHES),
        "traffic": _traffic(service),
        "adapters": _adapters(plan, service),
        "env": _own_variables(service),
        "runtime": f"Ray {service.runtime.ray_version}, vLLM {service.runtime.vllm_version}, {image}",
        "access": _access(service),
    }
    if in_cluster:
        lines["upgrade"] = (
            f"{service.upgrade.value}{_more(service, service.workers.surge_workers)}; streams of up to {stream} s survive"
        )
        lines["in place"] = _in_place(service)
        lines["outside"] = plan.urls.get(service.label, "")
        lines["endpoint"] = (
            service.under(f"http://{serve_service_name(service.name)}.{plan.namespace}:8000/v1") + " in the cluster"
        )
    elif service.is_further:
        lines["endpoint"] = service.under("http://127.0.0.1:8000/v1") + " where port 8000 is free"
    if pool:
        share = f"{_money(service.hourly_usd)} for this service's share of the nodes"
        lines["cost"] = f"{share}{_highest_cost(service)}{_price_note(pool)}"
    left_out = _OF_ALL_MODELS if service.is_further else ()
    return [(label, text) for label, text in lines.items() if text and label not in left_out]


# Lines that the card of the service's own model has for all of them.
_OF_ALL_MODELS = ("workers", "node pool", "switches", "env", "runtime", "upgrade", "cost")


def _task(plan: Plan, service: ServicePlan) -> str:
    """Return how a model that generates no text is called; nothing for one that does."""
    routes = ROUTES.get(service.task, ())
    outside = plan.endpoint.exposure is not Exposure.NONE and not all(route.startswith("/v1/") for route in routes)
    only = "; only in the cluster, as the endpoint passes /v1 alone" if outside else ""
    return f"{service.task.value}: POST {', '.join(service.prefix + route for route in routes)}{only}" if routes else ""


def _replicas(service: ServicePlan) -> str:
    scaling, sides = service.autoscaling, service.asked.disaggregation
    if sides:
        return f"{service.replicas}: {sides.prefill} for prefill, {sides.decode} for decode ({sides.prefill / sides.decode:.2g} to 1)"
    if scaling is None:
        return f"{service.replicas}"
    text = (
        f"{scaling.min_replicas} to {scaling.max_replicas}, at {scaling.target_ongoing_requests:g} requests each; more after "
        f"{scaling.upscale_delay_seconds} s, fewer after {scaling.downscale_delay_seconds} s"
    )
    if scaling.time_to_first_token_ms is not None:
        text += f"; more while the time to first token is above {scaling.time_to_first_token_ms:g} ms, by {scaling.prometheus}"
    if not scaling.to_zero:
        return text
    delay = scaling.downscale_to_zero_delay_seconds
    last = scaling.downscale_delay_seconds if delay is None else delay
    return f"{text}; none after {last} s without a request"


_LONGEST_VALUE = 40
"""Characters of a variable's value that a card has room for."""


def _own_variables(service: ServicePlan) -> str:
    """Return the variables that the stack sets. A long value is left out, and one that may hold a secret."""
    return ", ".join(
        f"{name}={value}" if len(value) <= _LONGEST_VALUE and may_show(name, value) else f"{name} (set)"
        for name, value in service.asked.pods.env.items()
    )


def _access(service: ServicePlan) -> str:
    api = service.asked.api
    if not api.key:
        return "no API key needed"
    return "API key" if api.key_generation == 1 else f"API key of generation {api.key_generation}, and the previous one"


def _workers(service: ServicePlan) -> str:
    group = service.workers
    gpus = f"{group.gpus} GPU{'s' if group.gpus > 1 else ''}, " if group.gpus else ""
    most = f", at most {group.most_workers}" if group.most_workers > group.workers else ""
    parked = "none while parked; then " if service.parked else ""
    shared = " for all models" if service.beside else ""
    return f"{parked}{group.workers} x ({gpus}{group.cpus:g} CPU, {group.memory_gib} GiB){most}{shared}"


def _adapters(plan: Plan, service: ServicePlan) -> str:
    """Return where LoRA adapters come from and how many a replica holds; empty without adapters."""
    adapters = service.asked.adapters
    if adapters is None:
        return ""
    granted = service.weights.adapters_bucket and plan.cluster.on_google
    return (
        f"from {adapters.location}{'; the stack lets the workers read the bucket' if granted else ''}; a replica keeps "
        f"{adapters.max_loaded}, {adapters.active} of them in a step, up to rank {adapters.max_rank}"
    )


def _traffic(service: ServicePlan) -> str:
    """Return what the stack says about routing and limits; nothing with neither."""
    traffic = service.asked.traffic
    parts = ["a session stays on one replica"] if traffic.routing is Routing.SESSIONS else []
    if traffic.max_in_progress is not None:
        queued = traffic.max_in_progress if traffic.max_queued is None else traffic.max_queued
        parts.append(f"a replica takes {traffic.max_in_progress} requests and {queued} in front of it; more get HTTP 429")
    return "; ".join(parts)


def _more(service: ServicePlan, workers: int) -> str:
    """Return the hardware of so many workers that a change needs beside those that run."""
    if not workers:
        return ""
    count, gpus = workers * (service.workers.gpus or 1), service.workers.gpus
    return f", with {count} {'GPU' if gpus else 'worker'}{'s' if count > 1 else ''} more while it lasts"


def _in_place(service: ServicePlan) -> str:
    spare = service.spare_replicas
    more = "" if service.is_further else _more(service, service.workers.spare_workers)
    if service.asked.disaggregation and service.upgrade is not UpgradeStrategy.NONE:
        return "a change of model or engine makes a new RayCluster"
    if not spare:
        return "a change of model or engine stops replicas before new ones start"
    return f"a change of model or engine starts {spare} spare replica{'s' if spare > 1 else ''} first{more}"


def _highest_cost(service: ServicePlan) -> str:
    """Return the cost under the highest load, where autoscaling may raise it."""
    group = service.workers
    if service.hourly_usd is None or service.parked or group.most_workers == group.workers:
        return ""
    most = "the most replicas of all models" if service.beside else f"{service.most_replicas} replicas"
    return f", {_money(service.highest_hourly_usd)} at {most}"


def _weights(plan: Plan, service: ServicePlan) -> str:
    weights, size = service.weights, f"{service.model.weights_bytes / 2**30:.1f} GiB"
    if weights.bucket:
        copied = "copied there from Hugging Face before the first start" if plan.mirrors else "already there"
        return f"{size} from gs://{weights.bucket}/{weights.folder} ({weights.source.value}); {copied}"
    if weights.read_bucket and plan.cluster.on_google:
        return f"{size} from {weights.uri}, by each worker; the stack lets them read the bucket"
    if weights.uri != service.model_id or service.model.bundled or not is_hub_id(weights.uri):
        return f"{size} from {weights.uri}"
    return f"{size} from Hugging Face{f' at {weights.revision}' if weights.revision else ''}, by each worker"


def _pool(pool: NodePool) -> str:
    more = {Capacity.RESERVATION: f" {pool.reservation}", Capacity.FLEX_START: f" for up to {pool.max_run_hours} h"}
    ways = [way.value + more.get(way, "") for way in pool.ways]
    parts = [
        f"{pool.nodes} x {pool.machine.name}, at most {pool.max_nodes}",
        f"ladder: {', then '.join(ways)}" if pool.capacity is Capacity.LADDER else ways[0],
        ", ".join(pool.zones),
        f"disk {pool.boot_disk_gib} GiB{' and preloaded images' if pool.secondary_boot_disk else ''}",
        *(["RDMA between machines"] if pool.rdma else []),
        f"GKE {pool.min_gke_version} or newer",
    ]
    return "; ".join(parts)


def _price_note(pool: NodePool) -> str:
    if pool.capacity is Capacity.LADDER:
        return " (list price of the dearest rung)"
    if pool.capacity in (Capacity.RESERVATION, Capacity.ANY_RESERVATION):
        return " (list price; your reservation's contract decides)"
    return " (changes daily)" if pool.capacity is Capacity.SPOT else ""
