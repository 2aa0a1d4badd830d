"""How a service's machines are to be had: what the stack asks for, and a refusal of what Google does not sell or GKE refuses."""

from dataclasses import dataclass

from rayline.cluster.types import ClusterPlan
from rayline.facts.accelerators import ACCELERATORS, MachineType
from rayline.facts.capacities import FLEX_START_MAX_HOURS, LADDER_ORDER, SPOT_GRACE_SECONDS
from rayline.facts.choices import Capacity
from rayline.pools.plan import default_ladder
from rayline.pools.types import NodePool
from rayline.schema.check import Check
from rayline.service.arguments import NodesArgs
from rayline.service.types import ServicePlan


@dataclass(frozen=True)
class Asked:
    """What a service says about how its nodes come. `order` is None where the stack leaves a ladder's order to the plan."""

    capacity: Capacity
    order: tuple[Capacity, ...] | None = None
    reservation: str | None = None
    max_run_hours: int | None = None
    secondary_boot_disk: str | None = None

    def ways(self, machine: MachineType) -> tuple[Capacity, ...]:
        """How nodes of this machine may come, what is tried first standing first; empty where they cannot."""
        if self.capacity is not Capacity.LADDER:
            return (self.capacity,) if self.capacity in machine.capacities else ()
        wanted = default_ladder(machine, self.reservation) if self.order is None else self.order
        if self.order is None and self.reservation and Capacity.RESERVATION not in wanted:
            return ()
        return wanted if len(wanted) > 1 and set(wanted) <= machine.capacities else ()


def plan_capacity(check: Check, path: str, nodes: NodesArgs, cluster: ClusterPlan) -> Asked:
    """Check how a service asks for its nodes. What depends on the machine is `choose_machine`'s."""
    capacity, order = nodes.capacity, _order(check, path, nodes)
    ways = {capacity} if capacity is not Capacity.LADDER else set(order or LADDER_ORDER)
    if nodes.reservation is None and (capacity is Capacity.RESERVATION or Capacity.RESERVATION in (order or ())):
        check.refuse(
            f"{path}.reservation",
            None,
            f"required with {'capacity reservation' if order is None else 'reservation in capacity_order'}: the reservation's name",
        )
    elif nodes.reservation is not None and Capacity.RESERVATION not in ways:
        why = f"it is {capacity.value}" if order is None else "capacity_order leaves it out"
        check.refuse(f"{path}.reservation", nodes.reservation, f"only with capacity reservation or ladder, and {why}")
    if nodes.max_run_hours is not None and Capacity.FLEX_START not in ways:
        check.refuse(
            f"{path}.max_run_hours",
            nodes.max_run_hours,
            f"only with flex-start, and capacity is {capacity.value}: leave it out",
        )
    if nodes.secondary_boot_disk is not None and not cluster.args.image_streaming:
        check.refuse(
            f"{path}.secondary_boot_disk",
            nodes.secondary_boot_disk,
            "needs image streaming, and cluster.image_streaming is off",
        )
    return Asked(
        capacity=capacity,
        order=order,
        reservation=nodes.reservation,
        max_run_hours=(nodes.max_run_hours or FLEX_START_MAX_HOURS) if Capacity.FLEX_START in ways else None,
        secondary_boot_disk=nodes.secondary_boot_disk,
    )


def _order(check: Check, path: str, nodes: NodesArgs) -> tuple[Capacity, ...] | None:
    if nodes.capacity_order is None:
        return None
    order, capacity = tuple(nodes.capacity_order), nodes.capacity
    shown = ", ".join(way.value for way in order)
    where = f"{path}.capacity_order"
    if capacity is not Capacity.LADDER:
        check.refuse(where, shown, f"only with capacity ladder, and it is {capacity.value}: leave it out")
    elif Capacity.LADDER in order or len(set(order)) != len(order) or len(order) < 2:
        rungs = ", ".join(way.value for way in Capacity if way is not Capacity.LADDER)
        check.refuse(where, shown, f"at least two of {rungs}, each once, the one to try first standing first")
    else:
        return order
    return None


def refuse_machine(check: Check, path: str, asked: Asked, machine: MachineType) -> None:
    """Say that a machine cannot be had in the asked way, and in which it can."""
    sold = [way for way in Capacity if way in machine.capacities]
    offered = " or ".join(sorted(way.value for way in sold))
    missing = [way.value for way in asked.order or () if way not in machine.capacities]
    if asked.capacity is not Capacity.LADDER:
        check.refuse(f"{path}.capacity", asked.capacity, f"{machine.name} is not sold {asked.capacity.value}: {offered}")
    elif missing:
        check.refuse(
            f"{path}.capacity_order",
            ", ".join(way.value for way in asked.order or ()),
            f"{machine.name} is not sold {' or '.join(missing)}: {offered}",
        )
    elif asked.reservation:
        check.refuse(f"{path}.reservation", asked.reservation, f"{machine.name} is not sold reservation: {offered}")
    else:
        check.refuse(f"{path}.capacity", asked.capacity, f"{machine.name} is sold {offered} only: say that instead")


def capacity_warnings(services: tuple[ServicePlan, ...], pools: tuple[NodePool, ...]) -> list[str]:
    """What is allowed and may still surprise."""
    found = []
    for pool in pools:
        unlisted = [zone for zone in pool.zones if zone not in ACCELERATORS[pool.accelerator].zones]
        if unlisted and ACCELERATORS[pool.accelerator].zones:
            found.append(f"{pool.name}: no source here lists {pool.machine.name} in {', '.join(unlisted)}")
        ways = pool.order or (pool.capacity,)
        if Capacity.FLEX_START in ways:
            after = [way.value for way in ways[ways.index(Capacity.FLEX_START) + 1 :]]
            if after:
                found.append(
                    f"{pool.name}: flex-start waits before it gives up, so {' and '.join(after)} would come minutes later: `nodes.capacity_order` may have it last"
                )
            if pool.capacity is Capacity.FLEX_START:
                found.append(
                    f"{pool.name}: a flex-start machine comes when Google has one and ends {pool.max_run_hours} hours later at most"
                )
        if Capacity.ANY_RESERVATION in ways[:-1] and ways[ways.index(Capacity.ANY_RESERVATION) + 1] is not Capacity.ON_DEMAND:
            found.append(
                f"{pool.name}: any-reservation goes on to on-demand machines by itself before {ways[ways.index(Capacity.ANY_RESERVATION) + 1].value} is tried"
            )
        if pool.secondary_boot_disk:
            found.append(f"{pool.name}: another secondary_boot_disk is another pool: services move to it as in an upgrade")
        if pool.rdma:
            found.append(
                f"{pool.name}: replicas span machines over RDMA networks that GKE makes; nobody here has run this: try one replica first"
            )
        for service in services:
            if (
                service.pool == pool.name
                and Capacity.SPOT in ways
                and service.asked.rollout.longest_stream_seconds > SPOT_GRACE_SECONDS
            ):
                found.append(
                    f"{service.name}: a spot machine that Google takes back leaves its streams {SPOT_GRACE_SECONDS} to 25 s, not {service.asked.rollout.longest_stream_seconds}"
                )
    return found
