"""The rules as a Pulumi policy pack. `rayline up` always runs it; Pulumi runs it for `pulumi preview --policy-pack policy`.

A rule's settings come from `--policy-pack-config FILE` under its name (docs/policy.md).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from pulumi_policy import EnforcementLevel, PolicyConfigSchema, PolicyPack, Secret, StackValidationPolicy
from pulumi_policy import ResourceValidationPolicy as ResourcePolicy
from pulumi_policy.proxy import UnknownValueError
from rules import RULES, PolicyRule, Resource, TeamSettings

SETTINGS = {
    "production": {"type": "array", "items": {"type": "string"}, "default": ["prod"]},
    "max_gpus": {"type": "integer", "minimum": 0},
    "switches_off": {"type": "array", "items": {"type": "string"}, "default": []},
}


def plain(value: Any) -> Any:
    """Return inputs as plain data, with None for a secret or a value that a preview does not know."""
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


def resource_of(args: Any) -> Resource:
    """Return a resource as the rules take it."""
    return Resource(args.resource_type, args.name, plain(args.props), bool(args.opts.protect))


def settings_of(rule: PolicyRule, args: Any, urn: str) -> TeamSettings:
    """Return the team's settings for a rule. The stack's name is part of every URN."""
    config = args.get_config()
    chosen = {key: config[key] for key in rule.settings if key in config}
    return TeamSettings(stack=urn.split("::")[0].rpartition(":")[2], **chosen)


# Inputs of each resource, by URN. Rules about one resource get inputs, rules about a stack get outputs. In a preview the outputs
# of an object are empty while its cluster does not exist, and its inputs take their place.
declared: dict[str, Resource] = {}


def policy(rule: PolicyRule) -> ResourcePolicy | StackValidationPolicy:
    """Return a rule as a policy of Pulumi's."""

    def of_resource(args: Any, report: Any) -> None:
        resource = declared[args.urn] = resource_of(args)
        for message in rule.check(resource, settings_of(rule, args, args.urn)):
            report(message)

    def of_stack(args: Any, report: Any) -> None:
        resources = [resource_of(it) if it.props else declared.get(it.urn, resource_of(it)) for it in args.resources]
        if resources:
            urns = {id(resource): it.urn for resource, it in zip(resources, args.resources, strict=True)}
            for resource, message in rule.check(resources, settings_of(rule, args, args.resources[0].urn)):
                report(message, urns[id(resource)])

    schema = PolicyConfigSchema(properties={key: SETTINGS[key] for key in rule.settings}) if rule.settings else None
    if rule.of_stack:
        return StackValidationPolicy(rule.name, rule.description, of_stack, config_schema=schema)
    return ResourcePolicy(rule.name, rule.description, of_resource, config_schema=schema)


PolicyPack(name="rayline", enforcement_level=EnforcementLevel.MANDATORY, policies=[policy(rule) for rule in RULES])
