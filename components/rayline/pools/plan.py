"""Decide about the node pools that services share, the CPU pool for their heads, and the cost."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import ceil

from rayline.cluster.types import ClusterPlan
from rayline.facts import defaults, prices
from rayline.facts.accelerators import ACCELERATORS, AcceleratorSpec, MachineType
from rayline.facts.capacities import (
    CAPACITIES,
    FLEX_START_MAX_HOURS,
    LADDER_ORDER,
    MIN_GKE_LADDER_SECURE_BOOT,
    MIN_GKE_RDMA,
    MIN_GKE_SECONDARY_BOOT_DISK,
    gke_version,
)
from rayline.facts.choices import Capacity, ClusterMode, UpgradeStrategy
from rayline.facts.prices import node_price
from rayline.platform.arguments import BudgetArgs
from rayline.pools.types import NodePool, PoolKey
from rayline.schema.check import Check
from rayline.service.drain import drain_times
from rayline.service.types import Draft, ServicePlan

IMAGE_GIB = 40  # ray-llm unpacked, and its layers while it unpacks
BOOT_DISK_GIB = 100


# kube-system DaemonSets on a node (logging, metrics, network, metadata, disks, on GPU nodes driver and DCGM): an estimate.
DAEMONSET_CPUS = 0.6
DAEMONSET_MEMORY_GIB = 1.0


def plan_pools(drafts: list[Draft], cluster: ClusterPlan) -> dict[PoolKey, NodePool]:
    """Return one pool for each machine type, capacity and set of zones; services with the same key share it."""
    users: dict[PoolKey, list[ServicePlan]] = {}
    for draft in drafts:
        if draft.pool_key:
            users.setdefault(draft.pool_key, []).append(draft.plan)
    return {key: _pool(key, services, cluster) for key, services in users.items()}


def _pool(key: PoolKey, services: list[ServicePlan], cluster: ClusterPlan) -> NodePool:
    accelerator, machine, region = services[0].accelerator, key.machine, cluster.region or ""
    groups = [service.workers for service in services]
    running = sum(service.running_workers * service.workers.gpus for service in services)
    # parked services count: resuming one is then a change of that service alone
    most = ceil(sum(group.most_workers * group.gpus for group in groups) / machine.gpus)
    surge = sum(ceil(group.workers_beside * group.gpus / machine.gpus) for group in groups)
    disk = max(sum(group.ephemeral_gib * machine.gpus // group.gpus for group in groups), 1)
    return NodePool(
        **vars(key),
        name=pool_name(key, listed_zones(ACCELERATORS[accelerator], region, cluster.location)),
        accelerator=accelerator,
        min_gke_version=_min_gke_version(key, ACCELERATORS[accelerator]),
        drain_seconds=max(drain_times(service.asked.rollout.longest_stream_seconds).pod for service in services),
        nodes=ceil(running / machine.gpus),
        most_nodes=most,
        max_nodes=most + surge,
        boot_disk_gib=max(BOOT_DISK_GIB, ceil((IMAGE_GIB + disk * 1.2) / 10) * 10),
        hourly_usd=node_price(machine.name, region, key.ways),
    )


def check_budget(check: Check, budget: BudgetArgs | None, cluster: ClusterPlan, pools: Iterable[NodePool]) -> None:
    """Refuse a stack whose machines cost more a month, under the highest load, than its budget. Unknown prices do not count."""
    if budget is None:
        return
    path, system = "budget.usd_per_month", cluster.system_pool
    if system is None:
        check.only_with(path, budget.usd_per_month, "cluster.mode create", cluster.mode)
        return
    parts = [("GKE's fee", prices.GKE_CLUSTER_FEE, 1), (f"CPU pool {system.machine.name}", system.hourly_usd, system.min_nodes)]
    parts += [(pool.name, pool.hourly_usd, pool.most_nodes) for pool in pools]
    monthly = {name: price * nodes * prices.HOURS_PER_MONTH for name, price, nodes in parts if price is not None}
    if (total := sum(monthly.values())) > budget.usd_per_month:
        shares = ", ".join(f"{name} ${usd:,.0f}" for name, usd in sorted(monthly.items(), key=lambda part: -part[1]))
        fix = "fewer replicas, a smaller GPU, spot or flex-start, or a larger budget"
        check.refuse(
            path, budget.usd_per_month, f"the stack costs ${total:,.0f} a month at its highest load: {shares}. Fix: {fix}"
        )


def budget_warnings(budget: BudgetArgs | None, unpriced: Iterable[str]) -> list[str]:
    """Warn of machines that a budget cannot count."""
    return [f"budget: the price of {', '.join(unpriced)} is not known here and not counted"] if budget and unpriced else []


def check_system_pool(check: Check, drafts: list[Draft], cluster: ClusterPlan) -> None:
    """Refuse a CPU pool without room for the Ray heads: one for each service, and a second one while a rollout lasts."""
    pool = cluster.system_pool
    if pool is None or not drafts:
        return
    cpus, memory = allocatable(pool.machine)
    services = [draft.plan for draft in drafts]
    head_cpus = max(service.head_cpus + service.autoscaler_cpus for service in services)
    head_memory = max(service.head_memory_gib + defaults.AUTOSCALER_MEMORY_GIB for service in services)
    fit = min(
        int((cpus - DAEMONSET_CPUS - defaults.OPERATOR_CPUS) // head_cpus),
        int((memory - DAEMONSET_MEMORY_GIB - defaults.OPERATOR_MEMORY_GIB) // head_memory),
    )
    heads = sum(1 if service.upgrade is UpgradeStrategy.NONE else 2 for service in services)
    path = "cluster.system_pool"
    if fit < 1:
        says = f"a Ray head needs {head_cpus:g} CPU and {head_memory:g} GiB, and the machine leaves {cpus:.1f} and {memory:.1f}"
        check.refuse(f"{path}.machine_type", pool.machine.name, f"{says}. Fix: e2-standard-8 or larger")
    elif heads > fit * pool.max_nodes:
        says = f"{heads} Ray heads ({len(drafts)} services, twice during a rollout) do not fit at {fit} a node"
        check.refuse(f"{path}.max_nodes", pool.max_nodes, f"{says}. Fix: at least {ceil(heads / fit)}")


def listed_zones(spec: AcceleratorSpec, region: str, location: str | None) -> tuple[str, ...]:
    """Return the zones of a pool when the stack names none: the region's, or the one zone of a zonal cluster."""
    inside = (zone for zone in spec.zones if zone.startswith(f"{region}-"))
    return tuple(zone for zone in inside if location in (None, region, zone))


SUFFIX = {
    Capacity.ON_DEMAND: "",
    Capacity.SPOT: "-spot",
    Capacity.FLEX_START: "-flex",
    Capacity.RESERVATION: "-res",
    Capacity.ANY_RESERVATION: "-any",
    Capacity.LADDER: "-ladder",
}


def pool_name(key: PoolKey, listed: tuple[str, ...]) -> str:
    """Return a name that depends on the pool alone, so that another service never renames it.

    `listed` are the zones of a pool whose services name none. A hash stands for other zones and further settings.
    """
    hours = key.max_run_hours if key.max_run_hours != FLEX_START_MAX_HOURS else None
    special = "".join(str(setting) for setting in (key.secondary_boot_disk, key.rdma, hours) if setting)
    if key.capacity is Capacity.LADDER and key.ways != default_ladder(key.machine, key.reservation):
        special += "".join(key.ways)
    suffix = SUFFIX[key.capacity]
    if key.reservation or key.zones != listed or special:
        suffix += "-" + hashlib.sha256(f"{key.reservation}{key.zones}{special}".encode()).hexdigest()[:4]
    return key.machine.name + suffix


def default_ladder(machine: MachineType, reservation: str | None) -> tuple[Capacity, ...]:
    """Return the rungs of a ladder whose order the stack leaves to the plan."""
    return tuple(
        way
        for way in LADDER_ORDER
        if way in machine.capacities and (reservation is not None or way is not Capacity.RESERVATION)
    )


def _min_gke_version(key: PoolKey, spec: AcceleratorSpec) -> str:
    needed = [spec.min_gke_version]
    needed += [CAPACITIES[way].min_gke_version or "0" for way in (key.capacity, *key.ways)]
    needed += [MIN_GKE_LADDER_SECURE_BOOT] if key.capacity is Capacity.LADDER else []
    needed += [MIN_GKE_SECONDARY_BOOT_DISK] if key.secondary_boot_disk else []
    needed += [MIN_GKE_RDMA] if key.rdma else []
    return max(needed, key=gke_version)


def finish(draft: Draft, pools: Mapping[PoolKey, NodePool]) -> ServicePlan:
    """Return the service of a draft with the name of its pool."""
    if draft.pool_key is None or not pools:
        return draft.plan
    return replace(draft.plan, pool=pools[draft.pool_key].name)


def allocatable(machine: MachineType) -> tuple[float, float]:
    """Return the CPUs and GiB that GKE leaves to pods: its published reservation tiers, after the kernel's share.

    Sources: GKE "plan node sizes" (quoted 2026-07-20) and kubernetes/autoscaler cloudprovider/gce/gce_reserved.go at 55c37cd.
    """
    mib = machine.memory_gib * 1024
    kernel = mib / 64 + 80 + min(mib * 0.00175, 248)
    reserved = 100.0  # eviction threshold, MiB
    left = float(mib)
    for size_gib, share in ((4, 0.25), (4, 0.20), (8, 0.10), (112, 0.06), (10**6, 0.02)):
        step = min(left, size_gib * 1024)
        reserved += step * share
        left -= step
    cores = machine.vcpus
    tiers = ((0.06, 0, 1), (0.01, 1, 1), (0.005, 2, 2), (0.0025, 4, cores))
    cpu = sum(share * min(max(cores - above, 0), width) for share, above, width in tiers)
    return cores - cpu, (mib - kernel - reserved) / 1024


def unused_warnings(services: Iterable[ServicePlan], pools: Iterable[NodePool]) -> list[str]:
    """Warn of GPUs that are paid for and serve nothing."""
    warnings = []
    for pool in pools:
        users = [service for service in services if service.pool == pool.name and not service.parked]
        used = sum(service.workers.workers * service.workers.gpus for service in users)
        served = sum(service.gpus for service in users)
        total = pool.nodes * pool.machine.gpus
        if served < total:
            left = f" (workers leave {total - used} to other services)" if used < total else ""
            warnings.append(
                f"{pool.name}: {total - served} of {total} GPUs are paid for and serve nothing{left}; more replicas cost nothing, "
                "and another nodes.capacity or nodes.machine_type may be smaller"
            )
    return warnings


def hourly_cost(
    cluster: ClusterPlan, pools: tuple[NodePool, ...], *, under_load: bool = False
) -> tuple[float | None, tuple[str, ...]]:
    """Return the known cost in USD per hour, and the machines without a known price, which it leaves out."""
    if cluster.mode is not ClusterMode.CREATE or cluster.system_pool is None:
        return None, ()
    system = cluster.system_pool
    parts = [(system.machine.name, system.hourly_usd, system.min_nodes)]
    parts += [(pool.machine.name, pool.hourly_usd, pool.most_nodes if under_load else pool.nodes) for pool in pools]
    total = prices.GKE_CLUSTER_FEE + sum(price * count for _, price, count in parts if price is not None)
    return total, tuple(dict.fromkeys(name for name, price, _ in parts if price is None))
