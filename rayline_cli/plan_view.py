"""What a plan says, and how that looks in a terminal and as JSON. plan_markdown.py shows the same as a comment."""

import dataclasses
from enum import Enum
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from rayline.cluster.types import ClusterPlan
from rayline.facts import prices
from rayline.facts.accelerators import ACCELERATORS
from rayline.facts.choices import Accelerator, Capacity, ClusterMode, Exposure, HeadStore
from rayline.facts.labels import serve_service_name
from rayline.facts.serve_flags import SWITCHES
from rayline.head.arguments import HeadArgs
from rayline.isolation.arguments import IsolationArgs
from rayline.platform.types import Plan
from rayline.pools.types import NodePool
from rayline.schema.base import Arguments
from rayline.schema.secret_values import may_show
from rayline.service.types import ServicePlan

from .offline import Declared, Program


@dataclasses.dataclass(frozen=True)
class Card:
    """What a plan says about one service."""

    title: str
    rows: list[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class StackCard:
    """What a plan says about one stack, for every way of showing it."""

    stack: str
    where: str
    facts: list[str]
    cost: str
    """Empty where nothing is paid for."""
    services: list[Card]
    warnings: list[str]


def stack_card(program: Program) -> StackCard:
    """The plan of one stack as texts without any layout."""
    plan, cluster = program.plan, program.plan.cluster
    where = {
        ClusterMode.LOCAL: "this machine, no Kubernetes",
        ClusterMode.EXISTING: f"cluster of kubeconfig context {cluster.args.context or '(the current one)'}",
        ClusterMode.CREATE: f"new GKE cluster in {cluster.location}, project {cluster.project}",
    }[cluster.mode]
    facts = [_isolation(plan.isolation.args)] if plan.isolation else []
    cost = ""
    if cluster.system_pool:
        facts += [
            _system_pool(cluster),
            f"{_control_plane(cluster)}; {_upgrades(cluster)}",
            _endpoint(plan),
            _head_store(plan.head.args),
        ]
        if cluster.args.labels:
            facts.append("labels " + ", ".join(f"{key}={value}" for key, value in cluster.args.labels.items()))
        cost = f"{_money(plan.hourly_usd)} for {_everything(plan)} at the planned sizes ({plan.price_source})"
    pools = {pool.name: pool for pool in plan.pools}
    services = [
        Card(f"{service.name}  {service.model_id} on {_hardware(service)}", rows(plan, service, pools.get(service.pool or "")))
        for service in plan.services
    ]
    return StackCard(program.stack, where, facts, cost, services, list(plan.warnings))


def program_view(program: Program, *, tree: bool = True, plain: bool = False) -> RenderableType:
    """Heading, cards, and the tree of resources of one stack. `plain`: without frames, for a pipe."""
    card = stack_card(program)
    parts: list[RenderableType] = [_heading(card), *(_framed(service, plain) for service in card.services)]
    parts += [Text(f"! {warning}", style="yellow") for warning in card.warnings]
    if tree:
        parts.append(_tree(program))
    return Group(*parts)


def _heading(card: StackCard) -> Text:
    text = Text(f"\n{card.stack}", style="bold").append(f"  {card.where}", style="default")
    for fact in card.facts:
        text.append(f"\n  {fact}")
    if card.cost:
        text.append(f"\n  {card.cost}", style="green")
    return text


def _system_pool(cluster: ClusterPlan) -> str:
    pool = cluster.system_pool
    assert pool
    parts = [
        f"CPU pool {pool.machine.name}, {pool.min_nodes} to {pool.max_nodes} nodes; {cluster.args.release_channel.value} channel"
    ]
    if cluster.zones:
        parts.append(f"zones {', '.join(cluster.zones)}")
    parts.append("private nodes" if cluster.args.private_nodes else "public nodes")
    parts.append("protected from deletion" if cluster.args.deletion_protection else "can be deleted")
    return ", ".join(parts)


def _isolation(isolation: IsolationArgs) -> str:
    pods = f"{isolation.pod_security.value} pods"
    if not isolation.network_policies:
        return f"{pods}; network open: no policies"
    clients = ", ".join(isolation.allow_from_namespaces) or "none"
    return f"{pods}; network closed, namespaces that may call: {clients}"


def _endpoint(plan: Plan) -> str:
    endpoint = plan.endpoint.args
    if endpoint.exposure is Exposure.NONE:
        return "no endpoint outside of the cluster"
    parts = [f"{endpoint.exposure.value} endpoint for {endpoint.domain}", f"TLS {endpoint.tls.value}"]
    if endpoint.rate_limit_per_minute is not None:
        parts.append(f"{endpoint.rate_limit_per_minute} requests a minute by {endpoint.rate_limit_by.value}")
    if endpoint.iap_members:
        parts.append(f"IAP for {', '.join(endpoint.iap_members)}")
    return ", ".join(parts)


def _head_store(head: HeadArgs) -> str:
    if head.store is HeadStore.NONE:
        return "no head store: every replica loads again when a Ray head is lost"
    size = f" {head.memorystore_gib} GiB (not in the price)" if head.store is HeadStore.MEMORYSTORE else ""
    return f"head store {head.store.value}{size}: replicas serve on when a Ray head is lost"


def _control_plane(cluster: ClusterPlan) -> str:
    ways = ["its DNS name (IAM decides)"] if cluster.args.dns_endpoint else []
    if cluster.args.authorized_networks:
        ways.append(f"its address from {', '.join(network.cidr for network in cluster.args.authorized_networks)}")
    return "control plane under " + " and ".join(ways)


def _upgrades(cluster: ClusterPlan) -> str:
    window = cluster.args.maintenance
    days = window.recurrence.partition("BYDAY=")[2] or "every day"
    text = f"upgrades {days} {window.start[11:16]}-{window.end[11:16]} UTC"
    return text + "".join(
        f", {one.scope.value} from {one.start[:10]} until {one.end[:10] if one.end else 'end of support'}"
        for one in window.exclusions
    )


def _everything(plan: Plan) -> str:
    if not plan.unpriced:
        return "everything"
    return f"the rest (price of {', '.join(plan.unpriced)} not known for {plan.cluster.region})"


def _money(hourly: float | None) -> str:
    if hourly is None:
        return "price not known"
    return f"${hourly:,.2f}/h, ${hourly * prices.HOURS_PER_MONTH:,.0f}/month"


def _framed(card: Card, plain: bool) -> RenderableType:
    if plain:
        # a table fills its lines up with spaces
        wide = max(len(label) for label, _ in card.rows)
        return Text("\n".join([card.title, *(f"{label:<{wide}}  {text}".rstrip() for label, text in card.rows)]))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in card.rows:
        table.add_row(label, text)
    return Panel(table, title=f"[bold]{card.title}[/]", title_align="left", expand=False)


def _hardware(service: ServicePlan) -> str:
    if service.accelerator is Accelerator.CPU:
        return f"{service.replicas} x CPU worker{_parked(service)}"
    return f"{service.gpus} x {ACCELERATORS[service.accelerator].ray_type}{_parked(service)}"


def _parked(service: ServicePlan) -> str:
    return ", parked" if service.parked else ""


def _replicas(service: ServicePlan) -> str:
    scaling = service.autoscaling
    if scaling is None:
        return f"{service.replicas}"
    return (
        f"{scaling.min_replicas} to {scaling.max_replicas}, at {scaling.target_ongoing_requests:g} requests each; more after "
        f"{scaling.upscale_delay_seconds} s, fewer after {scaling.downscale_delay_seconds} s"
    )


def rows(plan: Plan, service: ServicePlan, pool: NodePool | None) -> list[tuple[str, str]]:
    """The lines of a service's card."""
    fit, limits = service.fit, service.limits
    per = "worker" if service.accelerator is Accelerator.CPU else "GPU"
    engine = service.asked.engine
    parallel = f"tensor parallel {engine.tensor_parallel_size}, pipeline parallel {engine.pipeline_parallel_size}"
    lines = [
        ("replicas", _replicas(service) if per == "worker" else f"{_replicas(service)} ({parallel})"),
        ("workers", _workers(service)),
        ("weights", _weights(plan, service)),
    ]
    if pool:
        lines.append(("node pool", _pool(pool)))
    lines += [
        (
            f"memory per {per}",
            f"{fit.memory_gib:.1f} GiB: weights {fit.weights_gib:.1f}, activations and graphs "
            f"{fit.activation_gib + fit.overhead_gib:.1f}, KV cache {fit.kv_cache_gib:.1f} ({fit.kv_cache_tokens:,} tokens)",
        ),
        ("context", f"{limits.max_model_len:,} tokens (longest that fits: {fit.longest_context:,})"),
        (
            "concurrency",
            f"{limits.max_num_seqs} requests a replica ({fit.concurrency:.1f} of full length), "
            f"{limits.max_num_batched_tokens:,} tokens a step",
        ),
        ("switches", ", ".join(f"{switch} {'on' if service.on(switch) else 'OFF'}" for switch in SWITCHES)),
        *([("env", _own_variables(service))] if service.asked.pods.env else []),
        ("runtime", f"Ray {service.runtime.ray_version}, vLLM {service.runtime.vllm_version}, {_image(plan, service)}"),
        ("access", _access(service)),
    ]
    if plan.cluster.mode is not ClusterMode.LOCAL:
        lines.append(
            (
                "upgrade",
                f"{service.upgrade.value}{_surge(service)}; streams of up to {service.asked.rollout.longest_stream_seconds} s survive",
            )
        )
        if plan.endpoint.exposure is not Exposure.NONE:
            lines.append(("outside", plan.endpoint.urls[service.name]))
        lines.append(("endpoint", f"http://{serve_service_name(service.name)}.{plan.namespace}:8000/v1 in the cluster"))
    if pool:
        lines.append(
            ("cost", f"{_money(service.hourly_usd)} for this service's share of the nodes{_most(service)}{_price_note(pool)}")
        )
    return lines


_LONGEST_VALUE = 40
"""Characters of a variable's value that a card has room for."""


def _own_variables(service: ServicePlan) -> str:
    """The variables that the stack sets. A long value is left out, and one that may hold a secret."""
    return ", ".join(
        f"{name}={value}" if len(value) <= _LONGEST_VALUE and may_show(name, value) else f"{name} (set)"
        for name, value in service.asked.pods.env.items()
    )


def _access(service: ServicePlan) -> str:
    if not service.asked.api.key:
        return "no key asked"
    if service.asked.api.key_generation == 1:
        return "API key"
    return f"API key of generation {service.asked.api.key_generation}, and the one before it"


def _image(plan: Plan, service: ServicePlan) -> str:
    return "this Python environment" if plan.cluster.mode is ClusterMode.LOCAL else service.image


def _workers(service: ServicePlan) -> str:
    group = service.workers
    gpus = f"{group.gpus} GPU{'s' if group.gpus > 1 else ''}, " if group.gpus else ""
    most = f", at most {group.most_workers}" if group.most_workers > group.workers else ""
    parked = "none while parked; then " if service.parked else ""
    return f"{parked}{group.workers} x ({gpus}{group.cpus:g} CPU, {group.memory_gib} GiB){most}"


def _surge(service: ServicePlan) -> str:
    """What a change needs beside what runs."""
    group = service.workers
    if not group.surge_workers:
        return ""
    what = f"{group.surge_workers * group.gpus} GPU" if group.gpus else f"{group.surge_workers} worker"
    return f", with {what}{'s' if not what.startswith('1 ') else ''} more while it lasts"


def _most(service: ServicePlan) -> str:
    """The cost under the highest load, where autoscaling may raise it."""
    group, scaling = service.workers, service.autoscaling
    if service.hourly_usd is None or scaling is None or service.parked or group.most_workers == group.workers:
        return ""
    return f", {_money(service.hourly_usd * group.most_workers / group.workers)} at {scaling.max_replicas} replicas"


def _weights(plan: Plan, service: ServicePlan) -> str:
    weights, size = service.weights, f"{service.model.parameters * service.model.weight_bytes / 2**30:.1f} GiB"
    if not weights.bucket:
        hub = weights.uri == service.model_id and not service.model.bundled
        revision = f" at {weights.revision}" if weights.revision else ""
        return f"{size} from {f'Hugging Face{revision}, by each worker' if hub else weights.uri}"
    copied = "copied there from Hugging Face before the first start" if plan.mirrors else "already there"
    return f"{size} from gs://{weights.bucket}/{weights.folder} ({weights.source.value}); {copied}"


def _pool(pool: NodePool) -> str:
    parts = [f"{pool.nodes} x {pool.machine.name}, at most {pool.max_nodes}", _ways(pool), ", ".join(pool.zones)]
    parts.append(f"disk {pool.boot_disk_gib} GiB{' and preloaded images' if pool.secondary_boot_disk else ''}")
    if pool.rdma:
        parts.append("RDMA between machines")
    return "; ".join([*parts, f"GKE {pool.min_gke_version} or newer"])


def _ways(pool: NodePool) -> str:
    more = {Capacity.RESERVATION: f" {pool.reservation}", Capacity.FLEX_START: f" for up to {pool.max_run_hours} h"}
    ways = [way.value + more.get(way, "") for way in pool.ways]
    return f"ladder: {', then '.join(ways)}" if pool.capacity is Capacity.LADDER else ways[0]


def _price_note(pool: NodePool) -> str:
    if pool.capacity is Capacity.LADDER:
        return " (list price of the dearest rung)"
    return {
        Capacity.RESERVATION: " (list price; your reservation's contract decides)",
        Capacity.ANY_RESERVATION: " (list price; your reservation's contract decides)",
        Capacity.SPOT: " (changes daily)",
    }.get(pool.capacity, "")


def _tree(program: Program) -> Tree:
    children: dict[str, list[Declared]] = {}
    known = {resource.urn for resource in program.resources}
    for resource in program.resources:
        children.setdefault(resource.parent if resource.parent in known else "", []).append(resource)
    root = Tree(f"[dim]{len(program.resources)} resources[/]")

    def grow(branch: Tree, parent: str) -> None:
        for resource in children.get(parent, []):
            protected = " [yellow]protected[/]" if resource.protect else ""
            grow(branch.add(f"{resource.type.split(':')[-1]} [dim]{resource.name}[/]{protected}"), resource.urn)

    grow(root, "")
    return root


def program_json(program: Program) -> dict[str, Any]:
    """The plan and the resources as data; no secret is in it."""
    return {
        "stack": program.stack,
        "plan": _plain(program.plan),
        "resources": [
            {"type": r.type, "name": r.name, "parent": r.parent.split("::")[-1], "protect": r.protect}
            for r in program.resources
        ],
    }


# Of a service, beside its fields.
_DERIVED = ("accelerator", "gpus", "image", "model_id", "parked", "served_model_name")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
        if isinstance(value, ServicePlan):
            # the model's own row is documentation, and what the fit derives is asked for more often than its blocks
            fields["fit"] |= {"kv_cache_tokens": value.fit.kv_cache_tokens, "concurrency": round(value.fit.concurrency, 2)}
            fields |= {name: _plain(getattr(value, name)) for name in _DERIVED}
            del fields["model"]
        return fields
    if isinstance(value, Arguments):
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_plain(item) for item in value)
    return value
