"""The generated parts of docs/configuration.md: keys, values, variables, engine arguments, runtimes and commands."""

from collections.abc import Iterable
from typing import Any

import typer

from rayline.facts import defaults
from rayline.facts.names import GKE, PLATFORM, fitted
from rayline.facts.runtimes import DEFAULT_RUNTIME, RUNTIMES
from rayline.facts.serve_flags import SERVE_FLAGS, SWITCHES
from rayline.facts.variables import (
    HUB_CACHE,
    HUB_CACHE_INSTEAD,
    NEVER_THROUGH_A_PROXY,
    NEVER_THROUGH_A_PROXY_IN_A_CLUSTER,
    NO_EFFECT,
    OWNED,
    OWNED_PREFIXES,
    PYTHON_PATH,
    PYTHON_PATH_INSTEAD,
)
from rayline.service import engine_arguments
from rayline_bench.tables import NOTHING, code, listed, prose, table
from rayline_cli.cli import app
from rayline_cli.pulumi_yaml import MOST_BYTES, resolved
from rayline_cli.stack_files import TOP_KEYS, in_json, map_of, read_stack
from rayline_cli.stack_names import PROJECT_ROOT, stack_names
from rayline_docs.keys import keys_part


def stacks() -> list[tuple[str, str]]:
    """Return (name, description) of each stack. The first comment of its file is the description."""
    descriptions = []
    for name in stack_names():
        lines = (PROJECT_ROOT / "stacks" / f"Pulumi.{name}.yaml").read_text().splitlines()
        comment = lines[0].removeprefix("#").strip() if lines and lines[0].startswith("#") else ""
        # whole sentences: the line may end inside one
        descriptions.append((name, comment[: comment.rfind(".") + 1] or comment))
    return descriptions


def _stacks_part() -> str:
    rows = []
    for name, text in stacks():
        values, _ = read_stack(name)
        services = [
            f"{service['model']} on {service.get('replicas', defaults.REPLICAS)} x {service['accelerator']}"
            for service in map_of(values, "services").values()
        ]
        mode = map_of(values, "cluster")["mode"]
        rows.append((f"[{name}](../stacks/Pulumi.{name}.yaml)", mode, "; ".join(services), text))
    return table(("Stack", "Mode", "Services", "Description"), rows)


def switches_part() -> str:
    """Return the table of the switches."""
    rows = [
        (code(switch), code(name), code(SERVE_FLAGS[name].default), SERVE_FLAGS[name].effect, SERVE_FLAGS[name].source)
        for switch, name in SWITCHES.items()
    ]
    return table(("Key under `switches`", "Variable", "Without the kit", "Effect", "Source"), rows)


def _variables_part() -> str:
    rows = []
    for name, flag in SERVE_FLAGS.items():
        if name in SWITCHES.values():
            continue
        set_to = (
            "follows from `rollout.longest_stream_seconds`"
            if flag.owned
            else code(flag.value)
            if flag.value
            else flag.set_to or NOTHING
        )
        rows.append((code(name), flag.kind.value, code(flag.default), set_to, flag.effect, flag.source))
    return table(("Variable", "Kind", "Ray's default", "Set by the kit", "Effect", "Source"), rows)


def _owned_part() -> str:
    owned = OWNED | {PYTHON_PATH: PYTHON_PATH_INSTEAD, HUB_CACHE: f"with weights.source hub on GPUs {HUB_CACHE_INSTEAD}"}
    owned |= {f"{start}...": why for start, why in OWNED_PREFIXES.items()}
    rows = ((code(name), instead.replace("{path}", "services.<name>")) for name, instead in owned.items())
    return table(("Variable", "Instead"), rows)


def _no_effect_part() -> str:
    return table(("Variable", "Why it has no effect"), ((code(name), why) for name, why in NO_EFFECT.items()))


def _engine_part() -> str:
    rows = [(code(name), f"set the service's {code(key)}") for name, key in engine_arguments.PLANNED_ENGINE_KWARGS.items()]
    rows += [(code(name), why) for name, why in engine_arguments.REFUSED_ENGINE_KWARGS.items()]
    return table(("Engine argument", "Instead"), rows)


def _runtimes_part() -> str:
    rows = [
        (
            code(name) + (" (default)" if name == DEFAULT_RUNTIME else ""),
            row.ray_version,
            row.vllm_version,
            code(row.image),
            "yes" if row.image_confirmed else "not verified",
            row.source,
        )
        for name, row in RUNTIMES.items()
    ]
    return table(("`pods.runtime`", "Ray", "vLLM", "Image", "Tag seen in a published manifest", "Source"), rows)


def commands() -> list[tuple[str, str, list[tuple[str, str, str]], str]]:
    """Return (name, help, options, example) of every command. An option is (names, default, help)."""
    root: Any = typer.main.get_command(app)
    context = typer.Context(root)
    names = sorted(root.list_commands(context))
    return [entry for name in names for entry in _commands(name, root.get_command(context, name))]


def _commands(name: str, command: Any) -> Iterable[tuple[str, str, list[tuple[str, str, str]], str]]:
    if hasattr(command, "commands"):
        for child, inner in sorted(command.commands.items()):
            yield from _commands(f"{name} {child}", inner)
        return
    options = []
    for parameter in command.params:
        names = [*parameter.opts, *parameter.secondary_opts]
        if "--help" in names:
            continue
        shown = parameter.name.upper() if parameter.param_type_name == "argument" else listed(names)
        default = parameter.default
        value = (
            ""
            if default is None or default is False or not isinstance(default, (str, int, float))
            else code(str(default).lower() if isinstance(default, bool) else default)
        )
        options.append((shown, value, getattr(parameter, "help", None) or ""))
    yield name, " ".join((command.help or "").split()), options, (command.epilog or "").partition("\n\n")[0]


def _commands_part() -> str:
    parts = []
    for name, text, options, example in commands():
        shown = f"### {code(f'rayline {name}')}\n\n{prose(text)}"
        if options:
            shown += "\n\n" + table(("Option", "Default", "Meaning"), options)
        if example:
            shown += f"\n\nExample: {code(example.removeprefix('Example: '))}"
        parts.append(shown)
    return "\n\n".join(parts)


# (written value, remark).
_WRITTEN: tuple[tuple[str, str], ...] = (
    ("true", "`True` and `TRUE` too. Nothing else is a switch."),
    ("yes", "`no`, `on` and `off` are texts too."),
    ("017", "A zero in front makes an octal number, like `0o17`. `08` is 8."),
    ("1_000", ""),
    ("1e3", ""),
    ("2.60", "Put a version in quotes."),
    ("12:30", ""),
    ("~", "Like `null`: no value. Only a key without a default takes it."),
)
_MEANINGS = {"!!bool": "a switch", "!!int": "a number", "!!float": "a number", "!!str": "a text", "!!null": "nothing"}


def _values_part() -> str:
    rows = []
    for written, remark in _WRITTEN:
        tag, value = resolved(written)
        rows.append((code(written), _MEANINGS[tag], code(in_json(value)), remark))
    return table(("Written", "Read as", "In JSON", "Remark"), rows)


PARTS = {
    "keys": keys_part,
    "values": _values_part,
    "top-keys": lambda: listed(TOP_KEYS),
    "bytes": lambda: str(MOST_BYTES >> 20),
    "stacks": _stacks_part,
    "switches": switches_part,
    "variables": _variables_part,
    "longest": lambda: str(PLATFORM),
    "cut": lambda: code(fitted("production-of-the-search-team", GKE, tail="g2-standard-8-spot")),
    "owned": _owned_part,
    "no-effect": _no_effect_part,
    "no-proxy": lambda: listed((*NEVER_THROUGH_A_PROXY, *NEVER_THROUGH_A_PROXY_IN_A_CLUSTER)),
    "ray": lambda: RUNTIMES[DEFAULT_RUNTIME].ray_version,
    "vllm": lambda: RUNTIMES[DEFAULT_RUNTIME].vllm_version,
    "engine": _engine_part,
    "runtimes": _runtimes_part,
    "commands": _commands_part,
}
