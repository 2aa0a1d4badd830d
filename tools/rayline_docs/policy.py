"""The generated part of docs/policy.md: the rules of the policy pack."""

import runpy

from rayline_bench.tables import code, listed, table
from rayline_cli.stack_names import PROJECT_ROOT


def _rules_part() -> str:
    # The pack is a folder for Pulumi, not an installed package.
    rules = runpy.run_path(str(PROJECT_ROOT / "policy" / "rules.py"))["RULES"]
    rows = [
        (
            code(rule.name),
            rule.description,
            "over the whole stack" if rule.of_stack else "before the resource is created",
            listed(rule.settings),
        )
        for rule in rules
    ]
    return table(("Rule", "Requirement", "Checked", "Settings"), rows)


PARTS = {"rules": _rules_part}
