"""Check when GKE may upgrade the cluster: the window, and times without upgrades."""

import re
from datetime import UTC, datetime

from rayline.cluster.arguments import MaintenanceArgs, MaintenanceExclusionArgs
from rayline.facts.choices import ExclusionScope
from rayline.facts.google import MAINTENANCE_DAYS, MAINTENANCE_HOURS, MAINTENANCE_STRETCH_HOURS
from rayline.schema.check import Check

PATH = "cluster.maintenance"
# Google's API accepts other spellings of a time and returns this one, so any other would be a difference for ever.
TIME = "%Y-%m-%dT%H:%M:%SZ"
WEEKDAYS = ("MO", "TU", "WE", "TH", "FR", "SA", "SU")
HOUR = 3600


def check_maintenance(check: Check, args: MaintenanceArgs) -> None:
    """Refuse a maintenance window that GKE does not count, and exclusions that GKE refuses."""
    start, end = _time(check, f"{PATH}.start", args.start), _time(check, f"{PATH}.end", args.end)
    windows = _windows(args.recurrence)
    if windows is None:
        days = ", ".join(WEEKDAYS)
        fix = f"FREQ=DAILY, or FREQ=WEEKLY;BYDAY= with days of {days}, for example FREQ=WEEKLY;BYDAY=SA,SU"
        check.refuse(f"{PATH}.recurrence", args.recurrence, f"the kit reads no such rule. Fix: {fix}")
    if start and end:
        hours = (end - start).total_seconds() / HOUR
        if not MAINTENANCE_STRETCH_HOURS <= hours <= 24:
            fix = f"{MAINTENANCE_STRETCH_HOURS} to 24 hours after start, which is {args.start}"
            check.refuse(f"{PATH}.end", args.end, f"GKE counts no such window. Fix: {fix}")
        elif windows and windows * hours < MAINTENANCE_HOURS:
            total = f"{windows} windows of {hours:g} hours are {windows * hours:g} hours in {MAINTENANCE_DAYS} days"
            says = f"{total}, and GKE needs {MAINTENANCE_HOURS}. Fix: more days, or a longer window"
            check.refuse(f"{PATH}.recurrence", args.recurrence, says)
    for index, exclusion in enumerate(args.exclusions):
        _check_exclusion(check, f"{PATH}.exclusions[{index}]", exclusion, args.exclusions[:index])


def _check_exclusion(
    check: Check, path: str, exclusion: MaintenanceExclusionArgs, earlier: list[MaintenanceExclusionArgs]
) -> None:
    start = _time(check, f"{path}.start", exclusion.start)
    end = _time(check, f"{path}.end", exclusion.end) if exclusion.end else None
    if start and end and end <= start:
        check.refuse(f"{path}.end", exclusion.end, f"not after start. Fix: later than {exclusion.start}")
    if not exclusion.end and exclusion.scope is ExclusionScope.NO_UPGRADES:
        why = "required with scope no-upgrades, which stops security patches too"
        fix = "an end, or scope no-minor-or-node-upgrades, which may last until the end of support"
        check.refuse(f"{path}.end", None, f"{why}. Fix: {fix}")
    if any(other.name == exclusion.name for other in earlier):
        check.refuse(f"{path}.name", exclusion.name, "another exclusion has this name. Fix: a name of its own")


def _time(check: Check, path: str, text: str) -> datetime | None:
    try:
        return datetime.strptime(text, TIME).replace(tzinfo=UTC)
    except ValueError:
        check.refuse(path, text, 'no such day or time. Fix: a time in UTC, in quotes, for example "2026-01-03T08:00:00Z"')
        return None


def _windows(recurrence: str) -> int | None:
    """Count the windows that are certain to lie in GKE's 32 days; None for a rule that this kit does not read."""
    if recurrence == "FREQ=DAILY":
        return MAINTENANCE_DAYS
    weekly = re.fullmatch(r"FREQ=WEEKLY;BYDAY=((?:[A-Z]{2})(?:,[A-Z]{2})*)", recurrence)
    days = weekly[1].split(",") if weekly else []
    if not days or len(set(days)) < len(days) or not set(days) <= set(WEEKDAYS):
        return None
    return len(days) * (MAINTENANCE_DAYS // 7)
