"""docs/configuration.md: every key of a stack file, every variable and every command, with what the code says of it."""

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
from rayline.service import environment
from rayline_bench.tables import NOTHING, code, listed, prose, table
from rayline_cli.cli import app
from rayline_cli.pulumi_yaml import MOST_BYTES, resolved
from rayline_cli.stack_files import TOP_KEYS, in_json, map_of, read_stack
from rayline_cli.stack_names import PROJECT_ROOT, stack_names
from rayline_docs.keys import keys_part

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


def switches_part() -> str:
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
    rows = [(code(name), f"set the service's {code(key)}") for name, key in environment.PLANNED_ENGINE_KWARGS.items()]
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
    return table(("`pods.runtime`", "Ray", "vLLM", "Image", "Tag seen in a published manifest", "Source"), rows)


def commands() -> list[tuple[str, str, list[tuple[str, str, str]], str]]:
    """Every command: (name, help, options as (names, default, help), example)."""
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


# A value as people write it, and what to know about it.
_WRITTEN: tuple[tuple[str, str], ...] = (
    ("true", "`True` and `TRUE` too. Nothing else is a switch."),
    ("yes", "`no`, `on` and `off` are texts too."),
    ("017", "A zero in front makes an octal number, like `0o17`. `08` is 8."),
    ("1_000", ""),
    ("1e3", ""),
    ("2.60", "Put a version in quotes."),
    ("12:30", ""),
    ("~", "Like `null`, and like no value at all."),
)
_MEANINGS = {"!!bool": "a switch", "!!int": "a number", "!!float": "a number", "!!str": "a text", "!!null": "nothing"}


def _values_part() -> str:
    rows = []
    for written, remark in _WRITTEN:
        tag, value = resolved(written)
        rows.append((code(written), _MEANINGS[tag], code(in_json(value)), remark))
    return table(("Written", "Read as", "In JSON", "Remark"), rows)


def configuration() -> str:
    """docs/configuration.md."""
    return _CONFIGURATION.format(
        keys=keys_part(),
        values=_values_part(),
        top=listed(TOP_KEYS),
        bytes=MOST_BYTES >> 20,
        stacks=_stacks_part(),
        switches=switches_part(),
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


_CONFIGURATION = """<!-- Written by `rayline docs` from the code. Change the code, not this page. -->

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
digits and dashes, first a letter, last a letter or digit. Google's limits for some resources are lower (a node pool 40 with
Pulumi's ending, a service account 30): there a long name is cut and gets four digits of a digest, as in `{cut}`.

"derived" in the column Default means that the plan decides: `rayline plan --stack <stack>` shows the result.

## Stacks in this repository

{stacks}

## How a stack file is read

As Pulumi's CLI reads it, so that a plan shows what `pulumi up` does. A tier of the tests compares the two.
A date or time without quotes is refused: the CLI writes it in another form.

{values}

Maps can share values within a file. A map's own keys win over those that `<<` merges in:

```yaml
x-common: &common
  model: Qwen/Qwen3.5-4B
  accelerator: l4
config:
  services:
    chat: {{<<: *common, replicas: 4}}
    batch: {{<<: *common, nodes: {{capacity: spot}}}}
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

Any variable goes under `services.<name>.pods.env`, for example `{{NCCL_DEBUG: INFO}}`. Every Ray container of a service gets the same
list, the head and all workers. A change makes a new RayCluster. Refused are only:

- a variable that the kit, KubeRay or Kubernetes sets, with the key to use instead ([below](#variables-that-the-kit-owns));
- a secret: `pods.env` stands in the manifest in clear text. A secret is known by its name (`MY_TOKEN`, `DB_PASSWORD`) or by its form (a
  Hugging Face token, an API key, a private key, a user and password in an address), and only by
  [those](operations.md#secrets-in-a-stack-file);
- a value of the wrong kind for a variable of the table of [Ray Serve variables](#ray-serve-variables).

A file is no secret: `GOOGLE_APPLICATION_CREDENTIALS: /etc/keys/key.json` is taken. The file comes with `pods.volumes` or
`pods.image`.

`rayline plan` warns about a variable with `RAY_`, `RAYLLM_` or `VLLM_` that Ray {{ray}} and vLLM {{vllm}} do not read, and says
which one may have been meant. Names come from both packages (`components/rayline/facts/runtime.json`). There is no such warning with
an older `pods.runtime`.

### Proxies

`HTTP_PROXY`, `HTTPS_PROXY` and `ALL_PROXY`, in either case, are for downloads from Hugging Face. The copy of weights into a bucket
gets them too, and `HF_ENDPOINT`. A proxy's address holds no user and password.

With a proxy the kit sets `NO_PROXY` and `no_proxy`: what the stack says, and {past_the_proxy}. These are the pod itself (the readiness
probe asks localhost with `wget`, which obeys `http_proxy`), pods and Services by name, and the metadata server. With `cluster.mode: create`
the ranges of nodes, pods and Services follow. With `mode: existing` they are not known: name them in `NO_PROXY`, as
`rayline plan` says. Ray's own connections between pods use gRPC, and Ray keeps it off proxies unless `RAY_grpc_enable_http_proxy` is set.

`isolation.network_policies` lets pods out to port 443 only. The ports of addresses in `pods.env` and `engine.kwargs` are opened too:
that of a proxy, of `HF_ENDPOINT` or of `OTEL_EXPORTER_OTLP_ENDPOINT`. Without `http://`, as in `otel:4317`, an address counts
in a proxy's variable and under a name that ends with `ENDPOINT`. An address of a Service in the cluster needs the port of its pods.

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

Further arguments of vLLM go under `services.<name>.engine.kwargs` and reach the engine as they are. `middleware` is one text
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
""".replace("{{ray}}", RUNTIMES[DEFAULT_RUNTIME].ray_version).replace("{{vllm}}", RUNTIMES[DEFAULT_RUNTIME].vllm_version)
