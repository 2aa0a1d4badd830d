"""Prices in USD per hour for a whole machine, on demand and spot, from prices.json, which has their source and remarks."""

import json
import pathlib

from rayline.facts.choices import Capacity

FILE = pathlib.Path(__file__).with_name("prices.json")
_TABLE = json.loads(FILE.read_text())
PRICED_ON: str = _TABLE["date"]
SOURCE: str = _TABLE["source"]
HOURS_PER_MONTH = 730
# GKE's management fee for one Standard cluster, USD per hour (Google's GKE price page).
GKE_CLUSTER_FEE = 0.10

# machine type -> region -> (on demand, spot); None where Google sells it not that way.
PRICES: dict[str, dict[str, tuple[float | None, float | None]]] = {
    machine: {region: (on_demand, spot) for region, (on_demand, spot) in regions.items()}
    for machine, regions in _TABLE["usd_per_hour"].items()
}
# What an hour of A4 capacity that is neither spot nor reserved costs: DWS flex-start list price, 2026-08.
# Shown beside a reservation, whose own price only the contract tells.
FLEX_START: dict[str, float] = _TABLE["flex_start"]


def node_price(machine: str, region: str, ways: tuple[Capacity, ...]) -> float | None:
    """Return USD per hour in the table: the list price, of a ladder its dearest rung's that is known; None for another region."""
    row = PRICES.get(machine, {}).get(region)
    return price_of(machine, ways, *row) if row else None


def price_of(machine: str, ways: tuple[Capacity, ...], on_demand: float | None, spot: float | None) -> float | None:
    """Return USD per hour of a machine with these prices, of a ladder its dearest rung's that is known.

    A reservation is shown at the flex-start list price where only that is known, else at the on-demand price.
    """
    flex_start = FLEX_START.get(machine)
    known = {
        Capacity.ON_DEMAND: on_demand,
        Capacity.SPOT: spot,
        Capacity.FLEX_START: flex_start,
        Capacity.RESERVATION: flex_start if on_demand is None else on_demand,
        Capacity.ANY_RESERVATION: on_demand,
    }
    return max((price for way in ways if (price := known[way]) is not None), default=None)
