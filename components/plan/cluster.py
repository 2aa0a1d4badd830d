"""Decisions about the cluster, the operator and the Hugging Face token."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..facts import defaults
from ..facts.accelerators import SYSTEM_MACHINES
from ..facts.choices import Capacity, ClusterMode, OperatorSource, ReleaseChannel, TokenSource
from ..facts.google import (
    AI_ZONE,
    APIS,
    GPU_METRICS,
    IMAGE_STREAMING_API,
    LABEL_KEY,
    LABEL_VALUE,
    SYSTEM_METRICS,
    WORKLOAD_METRICS,
    ZONE,
)
from ..facts.runtimes import KUBERAY_CHART, KUBERAY_CRD_FILES, KUBERAY_CRDS, KUBERAY_REPOSITORY, KUBERAY_VERSION
from ..names import PLATFORM
from .check import DNS_LABEL, DNS_RULE, Check
from .maintenance import plan_maintenance
from .pools import node_price
from .types import ClusterPlan, HuggingFacePlan, KuberayPlan, SecretManagerSecret, SystemPool

EXISTING_ONLY = ("context", "kubeconfig")


def plan_cluster(check: Check, args: Mapping[str, Any], name: str) -> ClusterPlan:
    given = args.get("cluster") or {}
    mode = ClusterMode(given.get("mode", ClusterMode.CREATE))
    for key in given:
        belongs_to = mode if key == "mode" else ClusterMode.EXISTING if key in EXISTING_ONLY else ClusterMode.CREATE
        if belongs_to is not mode:
            check.refuse(
                f"cluster.{key}",
                None,
                f"only with cluster.mode {belongs_to.value}, and it is {mode.value}: leave it out",
            )
    if mode is not ClusterMode.CREATE:
        kubeconfig = None if mode is ClusterMode.LOCAL else given.get("kubeconfig")
        return ClusterPlan(mode=mode, context=given.get("context"), kubeconfig=kubeconfig, region=args.get("region"))

    project, region = args.get("project"), args.get("region")
    if not project:
        check.refuse(
            "gcp:project", project, "required with cluster.mode create: `pulumi config set gcp:project my-project`"
        )
    if not region:
        check.refuse(
            "gcp:region", region, "required with cluster.mode create: `pulumi config set gcp:region us-central1`"
        )
    elif zone := re.fullmatch(ZONE, region):
        # the rest is checked as for the region that is meant
        region = zone["region"]
        check.refuse(
            "gcp:region",
            zone[0],
            f"a zone of the region {region}. Fix: `pulumi config set gcp:region {region}`; "
            "a cluster in one zone has that as cluster.location",
        )
    elif region != region.lower():
        check.refuse("gcp:region", region, f"Google's regions are in lower case: {region.lower()}")
        # else the zones of the region would be second complaints about the same mistake
        region = region.lower()
    location = given.get("location") or region
    if location and region and location != region and not re.fullmatch(re.escape(region) + "-[a-z0-9]+", location):
        check.refuse("cluster.location", location, f"the region {region} or one of its zones, for example {region}-b")
    elif location and AI_ZONE in location:
        check.refuse(
            "cluster.location", location, f"a zone for accelerators only: take another, for example {region}-b"
        )
    if name and not DNS_LABEL.fullmatch(name):
        check.refuse(
            "stack name",
            name,
            f"the names of Google resources begin with it: {DNS_RULE}",
        )
    if len(name) > PLATFORM:
        check.refuse(
            "stack name",
            name,
            f"{len(name)} characters, and the names of Google resources begin with it: at most {PLATFORM}",
        )

    pool = given.get("system_pool") or {}
    machine = SYSTEM_MACHINES.get(pool.get("machine_type") or defaults.SYSTEM_MACHINE_TYPE)
    if machine is None:
        known = ", ".join(SYSTEM_MACHINES)
        check.refuse(
            "cluster.system_pool.machine_type",
            pool.get("machine_type"),
            f"one of {known}; others are a row in facts/accelerators.py",
        )
        machine = SYSTEM_MACHINES[defaults.SYSTEM_MACHINE_TYPE]
    low = pool.get("min_nodes", defaults.SYSTEM_MIN_NODES)
    high = pool.get("max_nodes", max(low, defaults.SYSTEM_MAX_NODES))
    if low < 1:
        check.refuse("cluster.system_pool.min_nodes", low, "at least 1: the Ray heads and the operator need a node")
    if high < low:
        check.refuse("cluster.system_pool.max_nodes", high, f"at least min_nodes, which is {low}")
    network = given.get("network") or {}
    monitoring = given.get("monitoring") or {}
    image_streaming = given.get("image_streaming", True)
    return ClusterPlan(
        mode=mode,
        project=project,
        region=region,
        location=location,
        release_channel=ReleaseChannel(given.get("release_channel") or defaults.RELEASE_CHANNEL),
        private_nodes=given.get("private_nodes", True),
        deletion_protection=given.get("deletion_protection", True),
        nodes_cidr=network.get("nodes_cidr") or defaults.NODES_CIDR,
        pods_cidr=network.get("pods_cidr") or defaults.PODS_CIDR,
        services_cidr=network.get("services_cidr") or defaults.SERVICES_CIDR,
        system_pool=SystemPool(machine, low, high, node_price(machine.name, region or "", (Capacity.ON_DEMAND,))),
        zones=_zones(check, given.get("zones"), region or "", location or ""),
        dns_endpoint=given.get("dns_endpoint", True),
        authorized_networks=_authorized_networks(check, given),
        maintenance=plan_maintenance(check, given.get("maintenance") or {}),
        metrics=_metrics(check, monitoring),
        managed_prometheus=monitoring.get("managed_prometheus", True),
        workload_logs=monitoring.get("workload_logs", True),
        image_streaming=image_streaming,
        cost_allocation=given.get("cost_allocation", True),
        labels=_labels(check, given.get("labels") or {}),
        apis=(*APIS, *([IMAGE_STREAMING_API] if image_streaming else [])) if given.get("enable_apis", True) else (),
    )


def add_api(cluster: ClusterPlan, api: str) -> ClusterPlan:
    """The cluster with one more API turned on, unless the stack leaves APIs to somebody else."""
    return replace(cluster, apis=(*cluster.apis, api)) if cluster.apis and api not in cluster.apis else cluster


def _zones(check: Check, given: list[str] | None, region: str, location: str) -> tuple[str, ...]:
    if given is None:
        return ()
    path = "cluster.zones"
    if location != region:
        check.refuse(path, given, f"only with a regional cluster, and cluster.location is {location}: leave it out")
    elif not given:
        check.refuse(path, given, f"name at least one, for example [{region}-b], or leave it out and Google picks")
    elif len(set(given)) < len(given):
        check.refuse(path, given, "each zone once")
    for zone in given if location == region else ():
        if not re.fullmatch(re.escape(region) + "-[a-z0-9]+", zone):
            check.refuse(path, zone, f"a zone of the region {region}, for example {region}-b")
        elif AI_ZONE in zone:
            check.refuse(path, zone, f"a zone for accelerators only: take another, for example {region}-b")
    return tuple(given)


def _authorized_networks(check: Check, given: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    path, networks = "cluster.authorized_networks", given.get("authorized_networks") or []
    if not networks and not given.get("dns_endpoint", True):
        check.refuse(
            "cluster.dns_endpoint",
            False,
            "nobody could reach the control plane: leave it on, or name cluster.authorized_networks",
        )
    for index, network in enumerate(networks):
        if network["cidr"].endswith("/0"):
            check.refuse(
                f"{path}[{index}].cidr",
                network["cidr"],
                "the whole internet: name the addresses of your people and pipelines, or use the DNS endpoint",
            )
        if any(other["cidr"] == network["cidr"] for other in networks[:index]):
            check.refuse(f"{path}[{index}].cidr", network["cidr"], "each range once")
    return tuple((network["cidr"], network.get("name") or network["cidr"]) for network in networks)


def _metrics(check: Check, monitoring: Mapping[str, Any]) -> tuple[str, ...]:
    prometheus = monitoring.get("managed_prometheus", True)
    if not prometheus:
        if monitoring.get("dcgm"):
            check.refuse(
                "cluster.monitoring.dcgm",
                True,
                "GPU metrics need cluster.monitoring.managed_prometheus, and it is false",
            )
        return SYSTEM_METRICS
    return (*SYSTEM_METRICS, *WORKLOAD_METRICS, *([GPU_METRICS] if monitoring.get("dcgm", True) else []))


def _labels(check: Check, labels: Mapping[str, str]) -> dict[str, str]:
    for key, value in labels.items():
        if not re.fullmatch(LABEL_KEY, key):
            check.refuse(
                f"cluster.labels.{key}",
                None,
                "a key: lower-case letters, digits, dashes and underscores, first a letter",
            )
        elif not re.fullmatch(LABEL_VALUE, value):
            check.refuse(
                f"cluster.labels.{key}", value, "at most 63 lower-case letters, digits, dashes and underscores"
            )
    return dict(labels)


def plan_kuberay(check: Check, given: Mapping[str, Any], mode: ClusterMode) -> KuberayPlan:
    source = OperatorSource(given.get("source", OperatorSource.HELM))
    if source is OperatorSource.GKE_ADDON and mode is not ClusterMode.CREATE:
        check.refuse(
            "kuberay.source", source, "the add-on is part of the cluster's own configuration: helm or preinstalled here"
        )
    if source is not OperatorSource.HELM:
        for key in ("version", "repository", "chart", "crds", "keep_crds"):
            if given.get(key) is not None:
                check.refuse(f"kuberay.{key}", given[key], f"only with kuberay.source helm, and it is {source.value}")
    version, chart = given.get("version") or KUBERAY_VERSION, given.get("chart") or KUBERAY_CHART
    folder = chart.startswith((".", "/", "~"))
    crds = given.get("crds") or (f"{chart}/crds" if folder else KUBERAY_CRDS.format(version=version))
    return KuberayPlan(
        source=source,
        version=version,
        repository=None if folder else given.get("repository") or KUBERAY_REPOSITORY,
        chart=chart,
        crd_files=tuple(f"{crds.rstrip('/')}/{name}" for name in KUBERAY_CRD_FILES),
        # on a cluster that others use too, deleting a CRD deletes their RayServices
        keep_crds=given.get("keep_crds", mode is ClusterMode.EXISTING),
    )


# A secret's name, alone or with its project, and a version (cloud.google.com/secret-manager/docs/reference/rest).
_SECRET = re.compile(
    r"(?:projects/(?P<project>[a-z][-a-z0-9]{4,28}[a-z0-9])/secrets/)?(?P<name>[A-Za-z0-9_-]{1,255})"
    r"(?:/versions/(?P<version>latest|[1-9][0-9]*))?"
)


def _secret_manager(check: Check, given: Mapping[str, Any], cluster: ClusterPlan) -> SecretManagerSecret | None:
    """The secret that hugging_face.secret names."""
    if cluster.mode is not ClusterMode.CREATE:
        check.refuse(
            "hugging_face.source",
            TokenSource.SECRET_MANAGER,
            f"the add-on and the pods' identities are those of a cluster of this kit, and cluster.mode is {cluster.mode.value}: "
            + ("$HF_TOKEN with pulumi-secret" if cluster.mode is ClusterMode.LOCAL else "existing-secret"),
        )
    if given.get("secret_name"):
        check.refuse(
            "hugging_face.secret_name",
            given["secret_name"],
            "a Secret of Kubernetes; with source secret-manager name the one of Secret Manager in hugging_face.secret",
        )
    text = given.get("secret")
    found = _SECRET.fullmatch(text or "")
    if not found:
        check.refuse(
            "hugging_face.secret",
            text,
            f"{'required with source secret-manager' if text is None else 'no name of a secret'}: NAME or projects/PROJECT/secrets/NAME, with /versions/NUMBER for a fixed version",
        )
        return None
    return SecretManagerSecret(found["project"] or cluster.project or "", found["name"], found["version"] or "latest")


def plan_hugging_face(check: Check, given: Mapping[str, Any], cluster: ClusterPlan) -> HuggingFacePlan:
    source = TokenSource(given.get("source", TokenSource.NONE))
    if source is TokenSource.SECRET_MANAGER:
        return HuggingFacePlan(source, None, _secret_manager(check, given, cluster))
    if given.get("secret"):
        check.refuse(
            "hugging_face.secret",
            given["secret"],
            f"only with hugging_face.source secret-manager, and it is {source.value}",
        )
    if source is TokenSource.PULUMI_SECRET and not given.get("token"):
        check.refuse(
            "hugging_face_token",
            None,
            "required with hugging_face.source pulumi-secret: `pulumi config set --secret hugging_face_token`",
        )
    if source is TokenSource.NONE and given.get("secret_name"):
        check.refuse(
            "hugging_face.secret_name",
            given["secret_name"],
            "it names a Secret, so hugging_face.source has to be existing-secret or pulumi-secret",
        )
    name = given.get("secret_name") or "hf-secret"
    if not DNS_LABEL.fullmatch(name):
        check.refuse("hugging_face.secret_name", name, f"a DNS label: {DNS_RULE}")
    return HuggingFacePlan(source, None if source is TokenSource.NONE else name)


def token_warnings(cluster: ClusterPlan, hugging_face: HuggingFacePlan) -> list[str]:
    """Say where a Secret is expected that nobody can have made before the first `up`."""
    if hugging_face.source is not TokenSource.EXISTING_SECRET or cluster.mode is not ClusterMode.CREATE:
        return []
    return [
        f"hugging_face.source existing-secret: the first `up` makes the cluster and the namespace, so make Secret "
        f"{hugging_face.secret_name} there while it waits for pods; or use pulumi-secret or secret-manager"
    ]
