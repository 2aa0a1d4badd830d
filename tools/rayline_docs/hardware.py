"""The generated parts of docs/hardware.md: GPUs, machines, capacities, zones and prices."""

from collections.abc import Iterable

from rayline.facts import defaults, prices
from rayline.facts.accelerators import ACCELERATORS, SYSTEM_MACHINES
from rayline.facts.capacities import CAPACITIES
from rayline.facts.choices import Accelerator, Capacity
from rayline.pools.plan import allocatable
from rayline_bench.tables import NOTHING, code, table

PRICED_REGION = "us-central1"


def _capacities(capacities: Iterable[Capacity]) -> str:
    offered = set(capacities)
    return ", ".join(capacity.value for capacity in Capacity if capacity in offered)


def _price(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.2f}"


def _accelerators_part() -> str:
    rows = [
        (
            code(accelerator.value),
            code(row.gke_type),
            f"{row.memory_gib:.2f}",
            f"{row.max_num_batched_tokens:,} / {row.max_num_seqs:,}",
            code(row.boot_disk_type),
            code(row.min_gke_version),
            row.source + (f". {row.notes}" if row.notes else ""),
        )
        for accelerator, row in ACCELERATORS.items()
    ]
    cpu_limits = f"{defaults.CPU_MAX_NUM_BATCHED_TOKENS:,} / {defaults.CPU_MAX_NUM_SEQS:,}"
    cpu_text = "no GPU: for trials and tests, with `cluster.mode` `local` or `existing`"
    rows.append((code(Accelerator.CPU.value), NOTHING, NOTHING, cpu_limits, NOTHING, NOTHING, cpu_text))
    header = (
        "`accelerator`",
        "GKE type",
        "GiB per GPU, as CUDA reports it",
        "Tokens a step / sequences (vLLM's defaults)",
        "Boot disk",
        "GKE from",
        "Source",
    )
    return table(header, rows)


def _machines_part() -> str:
    rows = []
    for accelerator, spec in ACCELERATORS.items():
        for machine in spec.machines:
            cpus, memory = allocatable(machine)
            on_demand, spot = prices.PRICES.get(machine.name, {}).get(PRICED_REGION, (None, None))
            listed_only = on_demand is not None and Capacity.ON_DEMAND not in machine.capacities
            row: list[object] = [code(accelerator.value), code(machine.name), machine.gpus, machine.vcpus]
            row += [f"{machine.memory_gib:,}", f"{cpus:.1f}", f"{memory:,.1f}", _capacities(machine.capacities)]
            row += [f"({_price(on_demand)})" if listed_only else _price(on_demand), _price(spot)]
            rows.append(row)
    header = ["GPU", "Machine type", "GPUs", "vCPU", "GiB", "CPU for pods", "GiB for pods", "Capacities"]
    return table([*header, f"USD/h on demand, {PRICED_REGION}", "USD/h spot"], rows)


def _capacities_part() -> str:
    rows = [
        (code(way.value), row.meaning, row.conditions, row.quota, code(row.min_gke_version) if row.min_gke_version else "")
        for way, row in CAPACITIES.items()
    ]
    return table(("`nodes.capacity`", "What you get", "Requirements", "Quota", "GKE from"), rows)


def _system_machines_part() -> str:
    rows = []
    for machine in SYSTEM_MACHINES.values():
        cpus, memory = allocatable(machine)
        on_demand, _ = prices.PRICES.get(machine.name, {}).get(PRICED_REGION, (None, None))
        default = " (default)" if machine.name == defaults.SYSTEM_MACHINE_TYPE else ""
        rows.append(
            (code(machine.name) + default, machine.vcpus, machine.memory_gib, f"{cpus:.1f}", f"{memory:.1f}", _price(on_demand))
        )
    return table(("Machine type", "vCPU", "GiB", "CPU for pods", "GiB for pods", "USD/h on demand"), rows)


def _zones_part() -> str:
    rows = []
    for accelerator, spec in ACCELERATORS.items():
        regions: dict[str, list[str]] = {}
        for zone in spec.zones:
            regions.setdefault(zone.rsplit("-", 1)[0], []).append(zone.rsplit("-", 1)[1])
        where = "; ".join(f"{region} {' '.join(letters)}" for region, letters in regions.items())
        rows.append((code(accelerator.value), len(regions), where or spec.notes))
    return table(("Card", "Regions", "Region and zones"), rows)


def _prices_part() -> str:
    groups = [(accelerator.value, [m.name for m in spec.machines]) for accelerator, spec in ACCELERATORS.items()]
    groups.append(("the CPU pool", list(SYSTEM_MACHINES)))
    parts = [
        f"USD per hour of a whole machine, on demand / spot. Source: {prices.SOURCE}, {prices.PRICED_ON}; A3 Ultra and A4 "
        "from Google's accelerator-optimized price page. Spot prices change daily. Disks, network, load balancers and "
        f"support are not in them. One GKE cluster costs {prices.GKE_CLUSTER_FEE:.2f} an hour beside its machines, and a "
        f"month is {prices.HOURS_PER_MONTH} hours."
    ]
    for title, machines in groups:
        priced = [name for name in machines if name in prices.PRICES]
        regions = dict.fromkeys(region for name in priced for region in prices.PRICES[name])
        rows = [
            (region, *(" / ".join(map(_price, prices.PRICES[name].get(region, (None, None)))) for name in priced))
            for region in regions
        ]
        parts.append(f"#### {title}\n\n" + table(("Region", *(code(name) for name in priced)), rows))
    flex = ", ".join(f"{code(name)} {value:,.2f}" for name, value in prices.FLEX_START.items())
    parts.append(f"Shown for a reservation whose price only its contract tells (flex-start list price, USD/h): {flex}.")
    return "\n\n".join(parts)


PARTS = {
    "accelerators": _accelerators_part,
    "machines": _machines_part,
    "capacities": _capacities_part,
    "system-machines": _system_machines_part,
    "zones": _zones_part,
    "prices": _prices_part,
}
