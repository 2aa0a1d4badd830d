"""The generated part of docs/policy.md: the rules of the policy pack."""

import runpy

from rayline_bench.tables import code, listed, table
from rayline_cli.stack_names import PROJECT_ROOT


def _rules_part() -> str:
    # The pack is a folder for Pulumi, not an installed package.
    rules = runpy.run_path(str(PROJECT_ROOT / "policy" / "rules.py"))["RULES"]
    checked = [(rule, "before the resource is created") for rule in rules.of_one]
    checked += [(rule, "over the whole stack") for rule in rules.of_all]
    rows = [(code(rule.name), rule.says, when, listed(rule.settings)) for rule, when in checked]
    return table(("Rule", "Requirement", "Checked", "Settings"), rows)


PARTS = {"rules": _rules_part}
