"""The rules as a Pulumi policy pack: `pulumi preview --policy-pack policy`. `rayline up` always runs it.

A rule's settings come from `--policy-pack-config FILE` under its name; docs/policy.md lists them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi_policy import (
    EnforcementLevel,
    PolicyConfigSchema,
    PolicyPack,
    ResourceValidationPolicy,
    Secret,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError
from rules import RULES, Resource, ResourceRule, StackRule, TeamSettings

SETTINGS = {
    "production": {"type": "array", "items": {"type": "string"}, "default": ["prod"]},
    "max_gpus": {"type": "integer", "minimum": 0},
    "switches_off": {"type": "array", "items": {"type": "string"}, "default": []},
}


def plain(value: Any) -> Any:
    """Inputs as plain data. A secret, and what a preview does not know, is None: no rule may depend on either."""
    if isinstance(value, Secret):
        return None
    if isinstance(value, Mapping):
        return {key: _known(value, key) for key in value}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [_known(value, index) for index in range(len(value))]
    return value


def _known(holder: Any, key: Any) -> Any:
    try:
        return plain(holder[key])
    except UnknownValueError:
        return None


def resource_of(seen: Any) -> Resource:
    """A resource as the rules see it."""
    kind = seen.resource_type
    return Resource(type=kind, name=seen.name, inputs=plain(seen.props), protect=bool(seen.opts.protect))


def settings_of(rule: ResourceRule | StackRule, args: Any, urn: str) -> TeamSettings:
    """The team's settings for a rule; the stack's name is part of every URN."""
    config = args.get_config()
    return TeamSettings(
        stack=urn.split("::")[0].rpartition(":")[2], **{key: config[key] for key in rule.settings if key in config}
    )


def schema(rule: ResourceRule | StackRule) -> PolicyConfigSchema | None:
    """What a configuration file may say about a rule beside its enforcement level."""
    return PolicyConfigSchema(properties={key: SETTINGS[key] for key in rule.settings}) if rule.settings else None


# Inputs of each resource, by URN. Rules about one resource get inputs, rules about a stack get outputs. In a preview the outputs
# of an object are empty while its cluster does not exist, and its inputs take their place.
declared: dict[str, Resource] = {}


def of_one(rule: ResourceRule) -> ResourceValidationPolicy:
    """A rule about one resource as Pulumi's policy engine takes it."""

    def validate(args: Any, report: Any) -> None:
        resource = declared[args.urn] = resource_of(args)
        for message in rule.check(resource, settings_of(rule, args, args.urn)):
            report(message)

    return ResourceValidationPolicy(rule.name, rule.says, validate, config_schema=schema(rule))


def of_all(rule: StackRule) -> StackValidationPolicy:
    """A rule about a whole stack as Pulumi's policy engine takes it."""

    def validate(args: Any, report: Any) -> None:
        seen = [(resource_of(one) if one.props else declared.get(one.urn, resource_of(one)), one.urn) for one in args.resources]
        if not seen:
            return
        urn_of = {id(resource): urn for resource, urn in seen}
        for resource, message in rule.check([resource for resource, _ in seen], settings_of(rule, args, seen[0][1])):
            report(message, urn_of[id(resource)])

    return StackValidationPolicy(rule.name, rule.says, validate, config_schema=schema(rule))


PolicyPack(
    name="rayline",
    enforcement_level=EnforcementLevel.MANDATORY,
    policies=[*map(of_one, RULES.of_one), *map(of_all, RULES.of_all)],
)
