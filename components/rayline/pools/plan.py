"""Node pools that services share, what GKE leaves of a machine, and what it all costs."""

import hashlib
from collections.abc import Mapping
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
    """One pool for each machine type, way of getting it and set of zones; services that agree on them share it."""
    shared: dict[PoolKey, list[Draft]] = {}
    for draft in drafts:
        if draft.pool_key:
            shared.setdefault(draft.pool_key, []).append(draft)
    pools: dict[PoolKey, NodePool] = {}
    for key, users in shared.items():
        machine, spec = key.machine, ACCELERATORS[users[0].plan.accelerator]
        groups = [user.plan.workers for user in users]
        running = sum(user.plan.running_workers * user.plan.workers.gpus for user in users)
        # parked services count: resuming one is then a change of that service alone
        most = ceil(sum(group.most_workers * group.gpus for group in groups) / machine.gpus)
        surge = sum(ceil(group.surge_workers * group.gpus / machine.gpus) for group in groups)
        disk = max(sum(user.plan.workers.ephemeral_gib * machine.gpus // user.plan.workers.gpus for user in users), 1)
        pools[key] = NodePool(
            name=pool_name(key, listed_zones(spec, cluster.region or "", cluster.location)),
            accelerator=users[0].plan.accelerator,
            machine=machine,
            capacity=key.capacity,
            order=key.ways if key.capacity is Capacity.LADDER else (),
            reservation=key.reservation,
            zones=key.zones,
            max_run_hours=key.max_run_hours,
            secondary_boot_disk=key.secondary_boot_disk,
            rdma=key.rdma,
            min_gke_version=_min_gke_version(key, spec),
            drain_seconds=max(drain_times(user.plan.asked.rollout.longest_stream_seconds).pod for user in users),
            nodes=ceil(running / machine.gpus),
            max_nodes=most + surge,
            boot_disk_gib=max(BOOT_DISK_GIB, ceil((IMAGE_GIB + disk * 1.2) / 10) * 10),
            hourly_usd=node_price(machine.name, cluster.region or "", key.ways),
        )
    return pools


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


SUFFIX = {
    Capacity.ON_DEMAND: "",
    Capacity.SPOT: "-spot",
    Capacity.FLEX_START: "-flex",
    Capacity.RESERVATION: "-res",
    Capacity.ANY_RESERVATION: "-any",
    Capacity.LADDER: "-ladder",
}


def pool_name(key: PoolKey, listed: tuple[str, ...]) -> str:
    """A name that depends on the pool alone, so that adding a service never renames another's pool.

    `listed` are the zones of a pool whose services name none. What a pool has beyond them and its capacity is in a hash.
    """
    special = "".join(
        f"{what}"
        for what in (key.secondary_boot_disk, key.rdma, key.max_run_hours != FLEX_START_MAX_HOURS and key.max_run_hours)
        if what
    )
    if key.capacity is Capacity.LADDER and key.ways != default_ladder(key.machine, key.reservation):
        special += "".join(key.ways)
    suffix = SUFFIX[key.capacity]
    if key.reservation or key.zones != listed or special:
        suffix += "-" + hashlib.sha256(f"{key.reservation}{key.zones}{special}".encode()).hexdigest()[:4]
    return key.machine.name + suffix


def default_ladder(machine: MachineType, reservation: str | None) -> tuple[Capacity, ...]:
    """The rungs of a ladder whose order the stack leaves to the plan."""
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
    if draft.pool_key is None or not pools:
        return draft.plan
    return replace(draft.plan, pool=pools[draft.pool_key].name)


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
        0.06 * min(cores, 1) + 0.01 * min(max(cores - 1, 0), 1) + 0.005 * min(max(cores - 2, 0), 2) + 0.0025 * max(cores - 4, 0)
    )
    return cores - cpu, (mib - kernel - reserved) / 1024


def hourly_cost(cluster: ClusterPlan, pools: tuple[NodePool, ...]) -> tuple[float | None, tuple[str, ...]]:
    """What is known of the bill, USD per hour, and the machines that it leaves out because their price is not known."""
    if cluster.mode is not ClusterMode.CREATE or cluster.system_pool is None:
        return None, ()
    system = cluster.system_pool
    parts = [(system.machine.name, system.hourly_usd, system.min_nodes)]
    parts += [(pool.machine.name, pool.hourly_usd, pool.nodes) for pool in pools]
    total = prices.GKE_CLUSTER_FEE + sum(price * count for _, price, count in parts if price is not None)
    return total, tuple(dict.fromkeys(name for name, price, _ in parts if price is None))
