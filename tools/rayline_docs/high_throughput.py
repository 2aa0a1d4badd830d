"""The switches, levers and differences on docs/high-throughput.md and the pages around it, from the product."""

import yaml

from rayline.facts.serve_flags import LEVERS, SERVE_FLAGS, THROUGHPUT_SETTINGS
from rayline_bench.tables import code, table
from rayline_cli.local.differences import DIFFERENCES, LISTENS_ON_ALL_INTERFACES
from rayline_cli.stack_names import PROJECT_ROOT

from .configuration import switches_part

UPSTREAM_DIFFERENCES = PROJECT_ROOT / "tests" / "contract" / "differences.yaml"


def _throughput_part() -> str:
    rows = [
        (code(name), code(SERVE_FLAGS[name].default) if name in SERVE_FLAGS else code("0"), code(value))
        for name, value in THROUGHPUT_SETTINGS.items()
    ]
    return table(("Variable", "Off", "On"), rows)


def _local_part() -> str:
    rows = [(difference.what, difference.why) for difference in DIFFERENCES]
    rows += [(f"{code(title)} still listens on all interfaces.", why) for title, why in LISTENS_ON_ALL_INTERFACES.items()]
    return table(("On this machine", "Why"), rows)


def _upstream_part() -> str:
    """Return the differences from the upstream samples, with the reasons of the contract test."""
    reasons: dict[str, str] = yaml.safe_load(UPSTREAM_DIFFERENCES.read_text())
    rows = [(code(field), " ".join(reason.split())) for field, reason in reasons.items()]
    return table(("Field of the RayService", "Why it differs"), rows)


def _levers_part() -> str:
    """Return the settings that reduce the CPU time of a request, variables first."""
    rows = [
        (code(name), code(flag.default), code(flag.value) if flag.value else flag.set_to, flag.measured, flag.cost)
        for name, flag in SERVE_FLAGS.items()
        if flag.measured
    ]
    rows += [(code(name), code(lever.default), code(lever.value), lever.measured, lever.cost) for name, lever in LEVERS.items()]
    return table(("Variable or setting", "Without the kit", "The kit", "Measured", "What it costs"), rows)


PARTS = {"switches": switches_part, "throughput": _throughput_part}
SETTINGS_PARTS = {"levers": _levers_part}
UPSTREAM_PARTS = {"upstream": _upstream_part}
LOCAL_PARTS = {"local": _local_part}
