"""Node pools that services share, what GKE leaves of a machine, and what it all costs."""

import hashlib
from dataclasses import replace
from math import ceil

from ..facts import defaults, prices
from ..facts.accelerators import ACCELERATORS, AcceleratorSpec, MachineType
from ..facts.choices import Capacity, ClusterMode, UpgradeStrategy
from .check import MAX_GKE_LOGICAL_NAME, Check
from .draft import Draft
from .types import ClusterPlan, NodePool, ServicePlan

IMAGE_GIB = 40  # ray-llm unpacked, and its layers while it unpacks
BOOT_DISK_GIB = 100


# kube-system DaemonSets on a node (logging, metrics, network, metadata, disks, on GPU nodes driver and DCGM): an estimate.
DAEMONSET_CPUS = 0.6
DAEMONSET_MEMORY_GIB = 1.0


def plan_pools(check: Check, drafts: list[Draft], cluster: ClusterPlan, platform: str) -> tuple[NodePool, ...]:
    """One pool for each machine type, capacity, reservation and set of zones; services that agree on them share it."""
    shared: dict[tuple, list[Draft]] = {}
    for draft in drafts:
        if draft.pool_key:
            shared.setdefault(draft.pool_key, []).append(draft)
    pools = []
    for key, users in shared.items():
        machine_name, capacity, reservation, zones = key
        machine = users[0].plan.machine
        assert machine is not None
        groups = [user.plan.workers for user in users]
        running = sum(user.plan.running_workers * user.plan.workers.gpus for user in users)
        # parked services count: resuming one is then a change of that service alone
        most = ceil(sum(group.most_workers * group.gpus for group in groups) / machine.gpus)
        surge = sum(ceil(group.surge_workers * group.gpus / machine.gpus) for group in groups)
        listed = listed_zones(ACCELERATORS[users[0].plan.accelerator], cluster.region or "", cluster.location)
        name = pool_name(machine_name, capacity, reservation, zones, listed)
        if platform and len(f"{platform}-{name}") > MAX_GKE_LOGICAL_NAME:
            check.refuse(
                "stack name",
                platform,
                f"at most {MAX_GKE_LOGICAL_NAME - len(name) - 1} characters, so that GKE accepts the node pool's name {name}",
            )
        disk = max(sum(user.plan.workers.ephemeral_gib * machine.gpus // user.plan.workers.gpus for user in users), 1)
        pools.append(
            NodePool(
                name=name,
                accelerator=users[0].plan.accelerator,
                machine=machine,
                capacity=capacity,
                reservation=reservation,
                zones=zones,
                nodes=ceil(running / machine.gpus),
                max_nodes=most + surge,
                boot_disk_gib=max(BOOT_DISK_GIB, ceil((IMAGE_GIB + disk * 1.2) / 10) * 10),
                hourly_usd=node_price(machine_name, cluster.region or "", capacity),
            )
        )
    return tuple(pools)


def check_system_pool(check: Check, drafts: list[Draft], cluster: ClusterPlan) -> None:
    """The heads need CPU nodes: one each, and a second one while a change builds a second cluster."""
    pool = cluster.system_pool
    if pool is None or not drafts:
        return
    cpus, memory = allocatable(pool.machine)
    head_cpus = max(draft.plan.head_cpus + draft.plan.autoscaler_cpus for draft in drafts)
    head_memory = max(draft.plan.head_memory_gib + defaults.AUTOSCALER_MEMORY_GIB for draft in drafts)
    fit = min(
        int((cpus - DAEMONSET_CPUS - defaults.OPERATOR_CPUS) // head_cpus),
        int((memory - DAEMONSET_MEMORY_GIB - defaults.OPERATOR_MEMORY_GIB) // head_memory),
    )
    heads = sum(1 if draft.plan.upgrade is UpgradeStrategy.NONE else 2 for draft in drafts)
    if fit < 1:
        check.refuse(
            "cluster.system_pool.machine_type",
            pool.machine.name,
            f"a Ray head asks for {head_cpus:g} CPU and {head_memory:g} GiB, and it leaves {cpus:.1f} and {memory:.1f}: "
            "e2-standard-8 or larger",
        )
    elif heads > fit * pool.max_nodes:
        check.refuse(
            "cluster.system_pool.max_nodes",
            pool.max_nodes,
            f"{heads} Ray heads ({len(drafts)} services, twice while a change builds a second cluster) at {fit} a node: "
            f"at least {ceil(heads / fit)}",
        )


def listed_zones(spec: AcceleratorSpec, region: str, location: str | None) -> tuple[str, ...]:
    """The zones that a pool gets when the stack names none: the region's, or the one zone of a zonal cluster."""
    inside = (zone for zone in spec.zones if zone.startswith(f"{region}-"))
    return tuple(zone for zone in inside if location in (None, region, zone))


def pool_name(
    machine: str, capacity: Capacity, reservation: str | None, zones: tuple[str, ...], listed: tuple[str, ...]
) -> str:
    """A name that depends on the pool alone, so that adding a service never renames another's pool.

    `listed` are the zones of a pool whose services name none; only those and a reservation's absence go without saying.
    """
    suffix = {Capacity.ON_DEMAND: "", Capacity.SPOT: "-spot", Capacity.RESERVATION: "-res"}[capacity]
    if reservation or zones != listed:
        suffix += "-" + hashlib.sha256(f"{reservation}{zones}".encode()).hexdigest()[:4]
    return machine + suffix


def finish(draft: Draft, pools: tuple[NodePool, ...]) -> ServicePlan:
    if draft.pool_key is None or not pools:
        return draft.plan
    machine, capacity, reservation, zones = draft.pool_key
    pool = next(
        p
        for p in pools
        if (p.machine.name, p.capacity, p.reservation, p.zones) == (machine, capacity, reservation, zones)
    )
    return replace(draft.plan, pool=pool.name)


def allocatable(machine: MachineType) -> tuple[float, float]:
    """(CPUs, GiB) that GKE leaves to pods: its published reservation tiers, and before them what the kernel takes.

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
    cpu = (
        0.06 * min(cores, 1)
        + 0.01 * min(max(cores - 1, 0), 1)
        + 0.005 * min(max(cores - 2, 0), 2)
        + 0.0025 * max(cores - 4, 0)
    )
    return cores - cpu, (mib - kernel - reserved) / 1024


def node_price(machine: str, region: str, capacity: Capacity) -> float | None:
    """USD per hour; a reservation is shown at the flex-start list price where one is known, else at the on-demand price."""
    on_demand, spot = prices.PRICES.get(machine, {}).get(region, (None, None))
    if capacity is Capacity.SPOT:
        return spot
    if capacity is Capacity.RESERVATION and on_demand is None:
        return prices.FLEX_START.get(machine)
    return on_demand


def hourly_cost(cluster: ClusterPlan, pools: tuple[NodePool, ...]) -> float | None:
    if cluster.mode is not ClusterMode.CREATE or cluster.system_pool is None:
        return None
    parts = [cluster.system_pool.hourly_usd] + [pool.hourly_usd for pool in pools]
    counts = [cluster.system_pool.min_nodes] + [pool.nodes for pool in pools]
    if any(part is None for part in parts):
        return None
    return prices.GKE_CLUSTER_FEE + sum(
        part * count for part, count in zip(parts, counts, strict=True) if part is not None
    )
