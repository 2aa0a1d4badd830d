"""Check how a service gets its machines: refuse what Google does not sell, and warn of what may surprise."""

from dataclasses import dataclass

from rayline.cluster.types import ClusterPlan
from rayline.facts.accelerators import ACCELERATORS, MachineType
from rayline.facts.capacities import FLEX_START_MAX_HOURS, LADDER_ORDER, SPOT_GRACE_SECONDS
from rayline.facts.choices import Capacity
from rayline.pools.arguments import NodesArgs
from rayline.pools.plan import default_ladder
from rayline.pools.types import NodePool
from rayline.schema.check import Check
from rayline.service.types import ServicePlan


@dataclass(frozen=True)
class CapacityPlan:
    """How a service gets its nodes. `order` is None where the plan decides about the order of a ladder."""

    capacity: Capacity
    order: tuple[Capacity, ...] | None = None
    reservation: str | None = None
    max_run_hours: int | None = None
    secondary_boot_disk: str | None = None

    def ways(self, machine: MachineType) -> tuple[Capacity, ...]:
        """Return the capacities of nodes of this machine in the order of trying; empty where Google sells none of them."""
        if self.capacity is not Capacity.LADDER:
            return (self.capacity,) if self.capacity in machine.capacities else ()
        rungs = default_ladder(machine, self.reservation) if self.order is None else self.order
        if self.order is None and self.reservation and Capacity.RESERVATION not in rungs:
            return ()
        return rungs if len(rungs) > 1 and set(rungs) <= machine.capacities else ()


def plan_capacity(check: Check, path: str, nodes: NodesArgs, cluster: ClusterPlan) -> CapacityPlan:
    """Check the keys of a service's nodes. `choose_machine` checks what depends on the machine."""
    capacity, order = nodes.capacity, _order(check, path, nodes)
    ways = {capacity} if capacity is not Capacity.LADDER else set(order or LADDER_ORDER)
    if nodes.reservation is None and (capacity is Capacity.RESERVATION or Capacity.RESERVATION in (order or ())):
        needed = "capacity reservation" if order is None else "reservation in capacity_order"
        check.refuse(f"{path}.reservation", None, f"required with {needed}. Fix: the reservation's name")
    elif nodes.reservation is not None and Capacity.RESERVATION not in ways:
        why = f"it is {capacity.value}" if order is None else "capacity_order leaves it out"
        says = f"only with capacity reservation or ladder, and {why}. Fix: leave one out"
        check.refuse(f"{path}.reservation", nodes.reservation, says)
    if nodes.max_run_hours is not None and Capacity.FLEX_START not in ways:
        check.only_with(f"{path}.max_run_hours", nodes.max_run_hours, "capacity flex-start", capacity)
    if nodes.secondary_boot_disk is not None and not cluster.args.image_streaming:
        says = "needs image streaming, and cluster.image_streaming is off. Fix: leave one out"
        check.refuse(f"{path}.secondary_boot_disk", nodes.secondary_boot_disk, says)
    return CapacityPlan(
        capacity=capacity,
        order=order,
        reservation=nodes.reservation,
        max_run_hours=(nodes.max_run_hours or FLEX_START_MAX_HOURS) if Capacity.FLEX_START in ways else None,
        secondary_boot_disk=nodes.secondary_boot_disk,
    )


def _order(check: Check, path: str, nodes: NodesArgs) -> tuple[Capacity, ...] | None:
    if nodes.capacity_order is None:
        return None
    order, path = tuple(nodes.capacity_order), f"{path}.capacity_order"
    if nodes.capacity is not Capacity.LADDER:
        check.only_with(path, _listed(order), "capacity ladder", nodes.capacity)
        return None
    if Capacity.LADDER in order or len(set(order)) != len(order) or len(order) < 2:
        rungs = _listed(tuple(way for way in Capacity if way is not Capacity.LADDER))
        check.refuse(path, _listed(order), f"no order. Fix: at least two of {rungs}, each once, in the order of trying")
        return None
    return order


def _listed(ways: tuple[Capacity, ...]) -> str:
    return ", ".join(way.value for way in ways)


def refuse_machine(check: Check, path: str, plan: CapacityPlan, machine: MachineType) -> None:
    """Refuse a capacity in which Google does not sell a machine, and name those in which it does."""
    fix = "Fix: " + " or ".join(sorted(way.value for way in machine.capacities))
    missing = [way.value for way in plan.order or () if way not in machine.capacities]
    if plan.capacity is not Capacity.LADDER:
        check.refuse(f"{path}.capacity", plan.capacity, f"{machine.name} is not sold {plan.capacity.value}. {fix}")
    elif missing:
        says = f"{machine.name} is not sold {' or '.join(missing)}. {fix}"
        check.refuse(f"{path}.capacity_order", _listed(plan.order or ()), says)
    elif plan.reservation:
        check.refuse(f"{path}.reservation", plan.reservation, f"{machine.name} is not sold reservation. {fix}")
    else:
        check.refuse(f"{path}.capacity", plan.capacity, f"{machine.name} is sold in one way only. {fix}")


def capacity_warnings(services: tuple[ServicePlan, ...], pools: tuple[NodePool, ...]) -> list[str]:
    """Warn of node pools and spot machines whose behaviour may surprise."""
    warnings = [f"{pool.name}: {warning}" for pool in pools for warning in _pool_warnings(pool)]
    spot = {pool.name for pool in pools if Capacity.SPOT in pool.ways}
    for service in services:
        if service.machine and service.machine.caveat:
            warnings.append(f"{service.name}: {service.machine.caveat}")
        stream = service.asked.rollout.longest_stream_seconds
        if service.pool in spot and stream > SPOT_GRACE_SECONDS:
            left = f"{SPOT_GRACE_SECONDS} to 25 s, not {stream}"
            warnings.append(f"{service.name}: a spot machine that Google takes back leaves its streams {left}")
    return warnings


def _pool_warnings(pool: NodePool) -> list[str]:
    warnings, ways = [], pool.ways
    listed = ACCELERATORS[pool.accelerator].zones
    unlisted = [zone for zone in pool.zones if zone not in listed]
    if unlisted and listed:
        warnings.append(f"no source here lists {pool.machine.name} in {', '.join(unlisted)}")
    if Capacity.FLEX_START in ways:
        after = [way.value for way in ways[ways.index(Capacity.FLEX_START) + 1 :]]
        if after:
            warnings.append(
                f"flex-start waits before it gives up, so {' and '.join(after)} would come minutes later: "
                "`nodes.capacity_order` may have it last"
            )
        if pool.capacity is Capacity.FLEX_START:
            warnings.append(f"a flex-start machine comes when Google has one and ends after {pool.max_run_hours} hours at most")
    if Capacity.ANY_RESERVATION in ways[:-1]:
        following = ways[ways.index(Capacity.ANY_RESERVATION) + 1]
        if following is not Capacity.ON_DEMAND:
            warnings.append(f"any-reservation takes on-demand machines by itself before {following.value} is tried")
    if pool.secondary_boot_disk:
        warnings.append("another secondary_boot_disk is another pool: services move to it as in a rollout")
    if pool.rdma:
        warnings.append("replicas span machines over RDMA networks of GKE. This was never run: try one replica first")
    return warnings
