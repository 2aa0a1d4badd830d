"""When GKE may upgrade the cluster: the window, and times without upgrades."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

from rayline.cluster.arguments import MaintenanceArgs, MaintenanceExclusionArgs
from rayline.cluster.types import Maintenance, MaintenanceExclusion
from rayline.facts.choices import ExclusionScope
from rayline.facts.google import MAINTENANCE_DAYS, MAINTENANCE_HOURS, MAINTENANCE_STRETCH_HOURS
from rayline.schema.check import Check

# Google takes other ways to write a time and gives this one back, so any other would be a difference for ever.
TIME = "%Y-%m-%dT%H:%M:%SZ"
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
HOUR = 3600


def plan_maintenance(check: Check, asked: MaintenanceArgs) -> Maintenance:
    """Decide when GKE may upgrade."""
    path, start, end, recurrence = "cluster.maintenance", asked.start, asked.end, asked.recurrence
    first, last = _time(check, f"{path}.start", start), _time(check, f"{path}.end", end)
    windows = _windows(recurrence)
    if windows is None:
        check.refuse(
            f"{path}.recurrence",
            recurrence,
            f"FREQ=DAILY, or FREQ=WEEKLY;BYDAY= with days of {', '.join(WEEKDAYS)}, for example FREQ=WEEKLY;BYDAY=SA,SU",
        )
    if first and last:
        hours = (last - first).total_seconds() / HOUR
        if not MAINTENANCE_STRETCH_HOURS <= hours <= 24:
            check.refuse(
                f"{path}.end",
                end,
                f"{MAINTENANCE_STRETCH_HOURS} to 24 hours after start, which is {start}: GKE counts no shorter window",
            )
        elif windows and windows * hours < MAINTENANCE_HOURS:
            check.refuse(
                f"{path}.recurrence",
                recurrence,
                f"{windows} windows of {hours:g} hours are {windows * hours:g} hours in {MAINTENANCE_DAYS} days, and GKE asks "
                f"for {MAINTENANCE_HOURS}: more days, or a longer window",
            )
    return Maintenance(start, end, recurrence, tuple(_exclusions(check, asked.exclusions)))


def _exclusions(check: Check, given: Sequence[MaintenanceExclusionArgs]) -> list[MaintenanceExclusion]:
    found: list[MaintenanceExclusion] = []
    for index, one in enumerate(given):
        path = f"cluster.maintenance.exclusions[{index}]"
        scope, end = one.scope, one.end
        first = _time(check, f"{path}.start", one.start)
        last = _time(check, f"{path}.end", end) if end else None
        if first and last and last <= first:
            check.refuse(f"{path}.end", end, f"after start, which is {one.start}")
        if not end and scope is ExclusionScope.NO_UPGRADES:
            check.refuse(
                f"{path}.end",
                None,
                "required with scope no-upgrades, which stops security patches too; "
                "no-minor-or-node-upgrades may last until the end of support",
            )
        if any(other.name == one.name for other in found):
            check.refuse(f"{path}.name", one.name, "another exclusion has this name: choose a second one")
        found.append(MaintenanceExclusion(one.name, one.start, end, scope))
    return found


def _time(check: Check, path: str, text: str) -> datetime | None:
    try:
        return datetime.strptime(text, TIME).replace(tzinfo=UTC)
    except ValueError:
        check.refuse(path, text, 'a time in UTC, in quotes, for example "2026-01-03T08:00:00Z"')
        return None


def _windows(recurrence: str) -> int | None:
    """Windows that are certain to lie in GKE's 32 days; None for a rule that this kit does not read."""
    if recurrence == "FREQ=DAILY":
        return MAINTENANCE_DAYS
    found = re.fullmatch(r"FREQ=WEEKLY;BYDAY=((?:[A-Z]{2})(?:,[A-Z]{2})*)", recurrence)
    days = found[1].split(",") if found else []
    if not days or len(set(days)) < len(days) or not set(days) <= set(WEEKDAYS):
        return None
    return len(days) * (MAINTENANCE_DAYS // 7)
