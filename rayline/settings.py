"""The one door to a stack's configuration: strict, frozen, and all mistakes at once.

What a value means, and whether the whole can work, is the plan's; this module knows the shape. Field by field it mirrors
components/arguments.py (a test holds the two together), so `arguments()` is what InferencePlatform takes.
"""

import copy
import ipaddress
import json
import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, get_args, get_origin

import pulumi
from pulumi.runtime.config import CONFIG, get_config_env, is_config_secret
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from components.facts import defaults
from components.facts.choices import (
    Accelerator,
    Capacity,
    ClusterMode,
    ExclusionScope,
    Exposure,
    HeadStore,
    OperatorSource,
    PodSecurity,
    RateLimitKey,
    ReleaseChannel,
    Tls,
    TokenSource,
    UpgradeStrategy,
    WeightsSource,
)
from components.facts.runtimes import DEFAULT_RUNTIME, KUBERAY_CHART, KUBERAY_REPOSITORY, KUBERAY_VERSION
from components.secret_values import may_show, secret_key
from components.spelling import hint, meant

from .stack_files import resolved

Positive = Annotated[int, Field(ge=1)]
Cpus = Annotated[float, Field(ge=defaults.LEAST_CPUS)]


def _cidr(text: str) -> str:
    # raises ValueError, also where the address is not the first of its range; a mask after the slash is not Google's way
    ipaddress.IPv4Network(text)
    if not text.partition("/")[2].isdigit():
        raise ValueError("no length")
    return text


CIDR = Annotated[str, AfterValidator(_cidr)]


class SettingsError(ValueError):
    """A stack's configuration has mistakes. `problems` holds one line each: path, value, what is wrong, what is right.

    `rest` are the arguments without the parts that have mistakes, so that the plan can judge them at the same time; None
    where what is left says too little.
    """

    def __init__(self, problems: list[str], rest: dict[str, Any] | None = None):
        self.problems = problems
        self.rest = rest
        super().__init__("\n".join(problems))


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# An enum arrives as text from YAML, so strictness stops here.
FromText = Field(strict=False)


class Switches(_Strict):
    """The four switches of Ray Serve's high-throughput mode."""

    ha_proxy: bool = True
    throughput_optimized: bool = True
    direct_streaming: bool = True
    ray_executor_v2: bool = True


class Volume(_Strict):
    """A volume of the head and the workers."""

    name: str
    mount_path: str
    host_path: str | None = None
    claim: str | None = None
    read_only: bool = False


class Autoscaling(_Strict):
    """Replicas that follow the load."""

    min_replicas: int = defaults.REPLICAS
    max_replicas: Positive
    target_ongoing_requests: float | None = None
    upscale_delay_seconds: int = defaults.UPSCALE_DELAY_SECONDS
    downscale_delay_seconds: int = defaults.DOWNSCALE_DELAY_SECONDS


class IncrementalUpgrade(_Strict):
    """How traffic moves to a new cluster in steps."""

    gateway_class: str
    max_surge_percent: int = defaults.MAX_SURGE_PERCENT
    step_size_percent: int = defaults.STEP_SIZE_PERCENT
    interval_seconds: int = defaults.UPGRADE_INTERVAL_SECONDS


class Service(_Strict):
    """One model behind one endpoint. None means: derived by the plan."""

    model: str
    accelerator: Annotated[Accelerator, FromText]
    replicas: Positive = defaults.REPLICAS
    autoscaling: Autoscaling | None = None
    park: bool = False
    tensor_parallel_size: Positive | None = None
    pipeline_parallel_size: Positive | None = None
    max_model_len: Positive | None = None
    max_num_seqs: Positive | None = None
    max_num_batched_tokens: Positive | None = None
    gpu_memory_utilization: float | None = None
    enable_prefix_caching: bool = defaults.ENABLE_PREFIX_CACHING
    stream_interval: Positive = defaults.STREAM_INTERVAL
    log_engine_metrics: bool = defaults.LOG_ENGINE_METRICS
    served_model_name: str | None = None
    model_source: str | None = None
    revision: str | None = None
    weights: Annotated[WeightsSource, FromText] = defaults.WEIGHTS
    capacity: Annotated[Capacity, FromText] | None = None
    capacity_order: list[Annotated[Capacity, FromText]] | None = None
    reservation: str | None = None
    max_run_hours: Positive | None = None
    machine_type: str | None = None
    zones: list[str] | None = None
    secondary_boot_disk: str | None = None
    gpus_per_worker: Positive | None = None
    upgrade: Annotated[UpgradeStrategy, FromText] | None = None
    incremental_upgrade: IncrementalUpgrade | None = None
    switches: Switches = Switches()
    env: dict[str, str] = {}
    engine_kwargs: dict[str, Any] = {}
    runtime: str = DEFAULT_RUNTIME
    image: str | None = None
    api_key: bool = True
    api_key_generation: Positive = 1
    ray_token_generation: Positive = 1
    longest_stream_seconds: int = defaults.LONGEST_STREAM_SECONDS
    cpus_per_worker: Cpus | None = None
    memory_gib_per_worker: Positive | None = None
    kv_cache_gib: Positive | None = None
    volumes: list[Volume] = []
    hostname: str | None = None


class SystemPool(_Strict):
    """The CPU pool of Ray heads and operators."""

    machine_type: str = defaults.SYSTEM_MACHINE_TYPE
    min_nodes: int = defaults.SYSTEM_MIN_NODES
    max_nodes: int = defaults.SYSTEM_MAX_NODES


class Network(_Strict):
    """Address ranges of the VPC."""

    nodes_cidr: CIDR = defaults.NODES_CIDR
    pods_cidr: CIDR = defaults.PODS_CIDR
    services_cidr: CIDR = defaults.SERVICES_CIDR


class AuthorizedNetwork(_Strict):
    """Addresses that may reach the control plane's IP endpoint."""

    cidr: CIDR
    name: str | None = None


class MaintenanceExclusion(_Strict):
    """A time in which GKE leaves upgrades undone."""

    name: str
    start: str
    end: str | None = None
    scope: Annotated[ExclusionScope, FromText]


class Maintenance(_Strict):
    """When GKE may upgrade the cluster and its nodes."""

    start: str = defaults.MAINTENANCE_START
    end: str = defaults.MAINTENANCE_END
    recurrence: str = defaults.MAINTENANCE_RECURRENCE
    exclusions: list[MaintenanceExclusion] = []


class Monitoring(_Strict):
    """Metrics and logs that Google collects."""

    managed_prometheus: bool = True
    dcgm: bool | None = None
    workload_logs: bool = True


class Cluster(_Strict):
    """Where the services run."""

    mode: Annotated[ClusterMode, FromText]
    location: str | None = None
    context: str | None = None
    kubeconfig: str | None = None
    release_channel: Annotated[ReleaseChannel, FromText] = defaults.RELEASE_CHANNEL
    private_nodes: bool = True
    deletion_protection: bool = True
    system_pool: SystemPool = SystemPool()
    network: Network = Network()
    zones: list[str] | None = None
    dns_endpoint: bool = True
    authorized_networks: list[AuthorizedNetwork] = []
    maintenance: Maintenance = Maintenance()
    monitoring: Monitoring = Monitoring()
    image_streaming: bool = True
    cost_allocation: bool = True
    labels: dict[str, str] = {}
    enable_apis: bool = True


class Head(_Strict):
    """The Ray head of every service."""

    store: Annotated[HeadStore, FromText] = HeadStore.NONE
    memorystore_gib: int = defaults.MEMORYSTORE_GIB
    address: str | None = None
    password_secret: str | None = None
    ca_secret: str | None = None
    cpus: float | None = None
    memory_gib: Positive | None = None


class Kuberay(_Strict):
    """The KubeRay operator."""

    source: Annotated[OperatorSource, FromText] = OperatorSource.HELM
    version: str | None = None
    repository: str | None = None
    chart: str | None = None
    crds: str | None = None
    keep_crds: bool | None = None


class HuggingFace(_Strict):
    """Access to gated models."""

    source: Annotated[TokenSource, FromText] = TokenSource.NONE
    secret: str | None = None
    secret_name: str | None = None


class Endpoint(_Strict):
    """One Gateway in front of all services."""

    exposure: Annotated[Exposure, FromText] = defaults.EXPOSURE
    domain: str | None = None
    tls: Annotated[Tls, FromText] = defaults.TLS
    certificate: str | None = None
    rate_limit_per_minute: Positive | None = None
    rate_limit_by: Annotated[RateLimitKey, FromText] = defaults.RATE_LIMIT_BY
    iap_members: list[str] = []
    proxy_cidr: CIDR = defaults.PROXY_CIDR


class Isolation(_Strict):
    """What keeps the platform and its neighbours apart."""

    pod_security: Annotated[PodSecurity, FromText] = defaults.POD_SECURITY
    network_policies: bool = True
    allow_from_namespaces: list[str] = []
    allow_metrics_from_namespaces: list[str] | None = None
    operator_namespace: str | None = None


class Weights(_Strict):
    """A bucket with weights."""

    bucket: str
    create: bool = True
    mirror: bool = True


class Settings(_Strict):
    """A stack file, checked. `hugging_face_token` is read by the program as a secret and never passes here."""

    cluster: Cluster
    services: dict[str, Service]
    namespace: str = defaults.NAMESPACE
    head: Head = Head()
    kuberay: Kuberay = Kuberay()
    hugging_face: HuggingFace = HuggingFace()
    endpoint: Endpoint = Endpoint()
    isolation: Isolation = Isolation()
    weights: Weights | None = None
    project: str | None = None
    region: str | None = None

    def arguments(self) -> dict[str, Any]:
        """The arguments of InferencePlatform, without the token: what the stack says, so that the plan can tell it from a default."""
        return self.model_dump(exclude_unset=True, exclude_none=True)


# Where a field's default is not in the model because the plan or another row decides it; for the documentation.
DERIVED_DEFAULTS: dict[str, str] = {
    "kuberay.version": KUBERAY_VERSION,
    "kuberay.repository": KUBERAY_REPOSITORY,
    "kuberay.chart": KUBERAY_CHART,
}

# What a stack file may hold beside the fields: providers' own keys, and the token, which is a secret.
TOKEN_KEY = "hugging_face_token"
IN_CLEAR_TEXT = (
    "it stands in the stack file in clear text: take it out, revoke it at Hugging Face, and store a new one with "
    "`pulumi config set --secret hugging_face_token`"
)

ENCRYPTED = (
    "it is encrypted (`secure:`), or a value below it is, and it would stand in manifests and state in clear text. Fix: write "
    f"what is no secret without `secure:`, and take a secret out of the stack file; {TOKEN_KEY} alone may be one"
)


def read_settings(config: Mapping[str, Any], *, project: str | None = None, region: str | None = None) -> Settings:
    """Check a stack's configuration (keys without the project's prefix; structures as data or as JSON text).

    Raises SettingsError with every mistake in the shape of the configuration.
    """
    data: dict[str, Any] = {"project": project, "region": region}
    problems: list[str] = []
    told: set[str] = set()
    for key, value in config.items():
        if key == TOKEN_KEY:
            continue
        if key in ("project", "region"):
            problems.append(f"{key} (got {value!r}): no such key; did you mean gcp:{key}?")
            continue
        if isinstance(value, str) and key in Settings.model_fields and key in _MAPS:
            try:
                value = _from_json(value)
            except (ValueError, RecursionError):
                # half a map can hold a secret
                shown = " (a text that is not JSON)" if value.startswith(("{", "[")) else _shown(key, value)
                problems.append(f"{key}{shown}: a map, such as {_MAPS[key]}")
                told.add(key)
                continue
        data[key] = value
    try:
        settings = Settings.model_validate(data)
    except ValidationError as error:
        found = [one for one in error.errors() if one["loc"][0] not in told]
        raise SettingsError(problems + [_explain(one) for one in found], _rest(data, error)) from None
    if problems:
        raise SettingsError(problems, settings.arguments())
    return settings


def _from_json(text: str) -> Any:
    """Read JSON, which has no NaN and no infinity. Raises ValueError or RecursionError."""

    def number(text: str) -> float:
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{text} is not finite")
        return value

    return json.loads(text, parse_float=number, parse_constant=number)


def _rest(data: dict[str, Any], error: ValidationError) -> dict[str, Any] | None:
    """The arguments of what has no mistake of shape. A service with one is left out whole: half of it would mislead."""
    left = copy.deepcopy(data)
    for one in error.errors():
        first, *more = one["loc"]
        if first == "cluster" and more and more[0] != "mode":
            left["cluster"].pop(more[0], None)
        elif first == "services" and more:
            left["services"].pop(more[0], None)
        elif first in ("cluster", "services"):
            return None
        else:
            left.pop(str(first), None)
            if first == "endpoint":
                # names below an endpoint that is left out would be a second complaint about the same mistake
                for service in left["services"].values():
                    service.pop("hostname", None)
    return Settings.model_validate(left).arguments() if left["services"] else None


# Prefixes of the providers that the program uses. `kubernetes:namespace` is the provider's, not this program's.
_PROVIDERS = ("gcp", "kubernetes", "pulumi", "random")
# What this program reads of a provider's.
_GOOGLE_KEYS = ("gcp:project", "gcp:region")


def read_program_settings() -> Settings:
    """The settings of the stack that the running Pulumi program belongs to. Raises SettingsError."""
    # pulumi.Config reads one key at a time and so cannot see the unknown ones
    everything = get_config_env() | CONFIG.get()
    keys, problems = _own_keys(everything, pulumi.get_project())
    if encrypted := [
        key for key in (*keys.values(), *_GOOGLE_KEYS) if key != keys.get(TOKEN_KEY) and is_config_secret(key)
    ]:
        # a message about what else is wrong could show one of them
        raise SettingsError(
            problems + [f"{key.removeprefix(f'{pulumi.get_project()}:')}: {ENCRYPTED}" for key in encrypted]
        )
    own = {name: everything[key] for name, key in keys.items()}
    if TOKEN_KEY in keys and not is_config_secret(keys[TOKEN_KEY]):
        problems.append(f"{TOKEN_KEY}: {IN_CLEAR_TEXT}")
    try:
        settings = read_settings(own, **{key.removeprefix("gcp:"): everything.get(key) for key in _GOOGLE_KEYS})
    except SettingsError as error:
        raise SettingsError(problems + error.problems, error.rest) from None
    if problems:
        raise SettingsError(problems, settings.arguments())
    return settings


def _own_keys(keys: Iterable[str], project: str) -> tuple[dict[str, str], list[str]]:
    """Return this program's keys as name -> full key; and what is wrong with their prefixes.

    Keys that the project had under a former name count, so that they are not called missing as well.
    """
    known = (*Settings.model_fields, TOKEN_KEY)
    names: dict[str, list[str]] = {}
    for key in keys:
        prefix, _, name = key.partition(":")
        names.setdefault(prefix, []).append(name)
    problems = []
    own: dict[str, str] = {}
    for prefix, found in names.items():
        if prefix == project or prefix in _PROVIDERS or any(name not in known for name in found):
            continue
        own |= {name: f"{prefix}:{name}" for name in found}
        written = ", ".join(f"{prefix}:{name}" for name in found)
        problems.append(
            f"{written}: the project's name in Pulumi.yaml is {project}, not {prefix}. Fix: write {project}: in place of "
            f"{prefix}:, or no prefix"
        )
    return own | {name: f"{project}:{name}" for name in names.get(project, [])}, problems


def _explain(error: Any) -> str:
    """One pydantic error in this project's words: path, value, what is wrong, what would be right."""
    # a token that was written in the place of a key is not repeated
    parts = ["…" if secret_key(str(part)) else part for part in error["loc"] if part != "[key]"]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")
    value, kind, context = error.get("input"), error["type"], error.get("ctx") or {}
    last = str(parts[-1])
    shown = _shown(last, value)
    if kind == "missing":
        return f"{path}: required{_example(last)}"
    if kind == "extra_forbidden":
        known = _fields_at(error["loc"][:-1])
        # hugging_face_tokn: the value is one of the key that was meant
        shown = shown if may_show(meant(last, known) or "", value) else ""
        return f"{path}{'' if value is None else shown}: no such key; " + hint(
            last, known, f"known: {', '.join(known)}"
        )
    if kind == "enum":
        return f"{path}{shown}: one of {context.get('expected', '').replace(chr(39), '').replace(' or ', ', ')}"
    if kind in ("int_type", "int_from_float", "int_parsing"):
        return f"{path}{shown}: a whole number{_unquoted(value, '!!int')}"
    if kind in ("float_type", "finite_number"):
        return f"{path}{shown}: a number{_unquoted(value, '!!int', '!!float')}"
    if kind == "bool_type":
        own = "; the key itself is made for you" if last == "api_key" else ""
        return f"{path}{shown}: true or false{_unquoted(value, '!!bool')}{own}"
    if kind == "string_type":
        return f"{path}{shown}: text{'' if isinstance(value, dict | list | None) else '; put it in quotes'}"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return f"{path}{shown}: a map, such as {_MAPS.get(last, '{model: Qwen/Qwen3.5-4B, accelerator: l4}' if len(parts) == 2 and parts[0] == 'services' else '{key: value}')}"
    if kind == "list_type":
        return f"{path}{shown}: a list, such as {_LISTS.get(last, '[one, two]')}"
    if kind == "greater_than_equal":
        return f"{path}{shown}: at least {context.get('ge')}"
    if kind == "value_error":
        return f"{path}{shown}: an address range such as 10.0.0.0/18, beginning with its first address"
    return f"{path}{shown}: {error['msg']}"


def _shown(key: str, value: Any) -> str:
    """Return a value as a message shows it after its path: as YAML has it, cut where it is long, never a secret."""
    if value is None or value == "":
        return " (empty)"
    if isinstance(value, dict | list) or not may_show(key, value):
        return ""
    if isinstance(value, bool):
        return f" (got {json.dumps(value)})"
    return f" (got {value[:100] + '…' if isinstance(value, str) and len(value) > 100 else value!r})"


def _unquoted(value: Any, *tags: str) -> str:
    """Say what made a text of what is to be a number or a switch: quotes, or a word that Pulumi reads as a text."""
    if not isinstance(value, str) or not value:
        return ""
    tag, number = resolved(value)
    # the program gets 1e3 as 1000
    if tag in tags or ("!!int" in tags and tag == "!!float" and number.is_integer()):
        return ", without quotes"
    if "!!bool" in tags and value.lower() in ("yes", "no", "on", "off", "y", "n"):
        return f"; Pulumi reads {value} as a text"
    return ""


_MAPS = {
    "cluster": "{mode: create}",
    "services": "{qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4}}",
    "kuberay": "{source: helm}",
    "hugging_face": "{source: existing-secret}",
    "endpoint": "{exposure: internal, domain: llm.example.com}",
    "weights": "{bucket: my-models}",
    "switches": "{direct_streaming: false}",
    "autoscaling": "{min_replicas: 1, max_replicas: 4}",
    "incremental_upgrade": "{gateway_class: istio}",
    "env": '{RAY_SERVE_HAPROXY_NBTHREAD: "8"}',
    "engine_kwargs": "{enforce_eager: true}",
    "system_pool": "{max_nodes: 1}",
    "network": "{nodes_cidr: 10.0.0.0/18}",
    "maintenance": '{recurrence: "FREQ=DAILY"}',
    "monitoring": "{workload_logs: false}",
    "labels": "{team: search}",
    "head": "{store: memorystore}",
    "isolation": "{allow_from_namespaces: [chat]}",
}
_LISTS = {
    "zones": "[us-central1-a, us-central1-b]",
    "iap_members": "[group:ml@example.com]",
    "authorized_networks": "[{cidr: 203.0.113.0/24}]",
    "exclusions": '[{name: freeze, start: "2026-11-20T00:00:00Z", end: "2026-12-01T00:00:00Z", scope: no-upgrades}]',
    "allow_from_namespaces": "[chat]",
    "allow_metrics_from_namespaces": "[monitoring]",
    "volumes": "[{name: cache, mount_path: /cache, claim: weights}]",
}


def _example(key: str) -> str:
    examples = {
        "cluster": f", for example `cluster: {_MAPS['cluster']}`",
        "services": f", for example `services: {_MAPS['services']}`",
        "model": ", for example Qwen/Qwen3.5-4B",
        "mode": ": create, existing or local",
        "accelerator": f": one of {', '.join(choice.value for choice in Accelerator)}",
        "name": ", for example cache",
        "bucket": ", for example my-models",
        "mount_path": ", for example /cache",
        "max_replicas": ", for example 4",
        "gateway_class": ", for example istio",
    }
    return examples.get(key, "")


def _fields_at(path: tuple) -> list[str]:
    """The field names that a place in the configuration has."""
    model: Any = Settings
    for part in path:
        field: Any = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is not None:
            # a part that may be left out is `Part | None`
            model = next(
                (one for one in get_args(field.annotation) if isinstance(one, type) and issubclass(one, BaseModel)),
                field.annotation,
            )
        elif get_origin(model) in (dict, list):
            model = get_args(model)[-1]
    if get_origin(model) in (dict, list):
        model = get_args(model)[-1]
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    if model is Settings:
        return [name for name in model.model_fields if name not in ("project", "region")] + [TOKEN_KEY]
    return list(model.model_fields)
