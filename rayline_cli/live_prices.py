"""Prices of a plan's machines from Google's Cloud Billing Catalog, beside those of the dated table.

The catalog prices parts of machines, and has no link from a machine type to its SKUs: descriptions are the key. They are those of
Cyclenerd/google-cloud-pricing-cost-calculator (build/mapping.csv and gcp.yml at dac3128), skypilot's fetch_gcp.py and
karpenter-provider-gcp. The catalog's answer for A2 that opencost recorded (pkg/cloud/gcp) adds up to the table's price.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from rayline.facts import prices
from rayline.facts.accelerators import MachineType
from rayline.facts.choices import Capacity
from rayline.platform.types import Plan
from rayline.pools.plan import hourly_cost

from .clients.billing_catalog import NoCatalog, Rates, read_rates
from .offline import Program


@dataclass(frozen=True)
class MachineFamily:
    """SKU names of a machine family.

    `instance` begins the names for cores and memory; None where the GPU's price has them. `ssd_gib` comes with each GPU, priced apart.
    """

    instance: str | None
    gpu: str | None = None
    ssd_gib: int = 0


FAMILIES: dict[str, MachineFamily] = {
    "e2-standard": MachineFamily("E2 Instance"),
    "n2-standard": MachineFamily("N2 Instance"),
    "n4-standard": MachineFamily("N4 Instance"),
    "g2-standard": MachineFamily("G2 Instance", "Nvidia L4 GPU"),
    "g4-standard": MachineFamily("G4 Instance", "RTX 6000 96GB"),
    "a2-highgpu": MachineFamily("A2 Instance", "Nvidia Tesla A100 GPU"),
    "a2-ultragpu": MachineFamily("A2 Instance", "Nvidia Tesla A100 80GB GPU", ssd_gib=375),
    "a3-highgpu": MachineFamily("A3 Instance", "Nvidia H100 80GB GPU", ssd_gib=750),
    "a3-ultragpu": MachineFamily("A3Ultra Instance", "H200 141GB GPU", ssd_gib=1500),
    "a4-highgpu": MachineFamily(None, "A4 Nvidia B200 (1 gpu slice)"),
}


@dataclass(frozen=True)
class LivePrice:
    """USD per hour of one machine type in a region, in the catalog and in the table; None where either has none."""

    machine: str
    region: str
    on_demand: float | None
    spot: float | None
    table_on_demand: float | None
    table_spot: float | None


@dataclass(frozen=True)
class LivePrices:
    """The prices of one plan's machines, and its cost at them, with the table's price for a machine that the catalog lacks."""

    machines: tuple[LivePrice, ...] = ()
    hourly_usd: float | None = None
    table_hourly_usd: float | None = None
    reason: str | None = None
    """Why the catalog could not be read."""

    def lines(self) -> list[str]:
        """Return the comparison as texts: the plan's cost, then each machine type."""
        if self.reason:
            return [f"prices of today are not known: {self.reason}"]
        texts = [
            f"at today's prices {_compare(self.hourly_usd, self.table_hourly_usd)} at the planned sizes (Google's Cloud Billing Catalog)"
        ]
        for row in self.machines:
            ways = (("on demand", row.on_demand, row.table_on_demand), ("spot", row.spot, row.table_spot))
            texts.append(
                f"{row.machine} in {row.region}: " + ", ".join(f"{way} {_compare(now, dated)}" for way, now, dated in ways)
            )
        return texts


def _compare(now: float | None, dated: float | None) -> str:
    before = "no price" if dated is None else f"${dated:,.4f}"
    change = f", {100 * (now / dated - 1):+.1f} %" if now is not None and dated else ""
    return f"{'not in the catalog' if now is None else f'${now:,.4f}/h'} ({before} on {prices.PRICED_ON}{change})"


def compare_all(programs: Iterable[Program]) -> dict[str, LivePrices]:
    """Return a comparison for each stack. Never raises: a plan continues without it."""
    programs = list(programs)
    buys = {program.stack: program.plan.cluster.system_pool is not None for program in programs}
    nothing = LivePrices(reason="the stack buys no machines")
    try:
        rates = read_rates() if any(buys.values()) else Rates()
    except NoCatalog as error:
        return {stack: LivePrices(reason=str(error)) if buy else nothing for stack, buy in buys.items()}
    return {program.stack: live_prices(program.plan, rates) if buys[program.stack] else nothing for program in programs}


def live_prices(plan: Plan, rates: Rates) -> LivePrices:
    """Return the machines of a plan for a new cluster at the catalog's prices."""
    region, system = plan.cluster.region or "", plan.cluster.system_pool
    assert system
    machines = {machine.name: machine for machine in (system.machine, *(pool.machine for pool in plan.pools))}
    rows = {name: _compared(rates, machine, region) for name, machine in machines.items()}
    pools = tuple(replace(pool, hourly_usd=_price(rows[pool.machine.name], pool.ways)) for pool in plan.pools)
    system = replace(system, hourly_usd=_price(rows[system.machine.name], (Capacity.ON_DEMAND,)))
    hourly, _ = hourly_cost(replace(plan.cluster, system_pool=system), pools)
    return LivePrices(tuple(rows.values()), hourly, plan.hourly_usd)


def _compared(rates: Rates, machine: MachineType, region: str) -> LivePrice:
    on_demand, spot = (machine_price(rates, machine, region, spot=spot) for spot in (False, True))
    return LivePrice(machine.name, region, on_demand, spot, *prices.PRICES.get(machine.name, {}).get(region, (None, None)))


def _price(row: LivePrice, ways: tuple[Capacity, ...]) -> float | None:
    on_demand = row.table_on_demand if row.on_demand is None else row.on_demand
    return prices.price_of(row.machine, ways, on_demand, row.table_spot if row.spot is None else row.spot)


def machine_price(rates: Rates, machine: MachineType, region: str, *, spot: bool) -> float | None:
    """Return USD per hour of a whole machine: the sum of its parts, None where the catalog lacks one of them."""
    family = FAMILIES[machine.name.rsplit("-", 1)[0]]
    parts: list[tuple[str, int]] = []
    if family.instance:
        parts += [(f"{family.instance} Core", machine.vcpus), (f"{family.instance} Ram", machine.memory_gib)]
    if family.gpu:
        parts.append((family.gpu, machine.gpus))
    if family.ssd_gib:
        parts.append(("SSD backed Local Storage", family.ssd_gib * machine.gpus))
    total = 0.0
    for part, count in parts:
        price = rates.price(part, region, spot=spot)
        if price is None:
            return None
        total += price * count
    return total
