"""Decide about the cluster, and refuse one that Google would refuse or no operator could reach."""

import ipaddress
import itertools
import re
from dataclasses import replace

from rayline.cluster.arguments import ClusterArgs, ExistingNetworkArgs, MonitoringArgs, NetworkArgs, SystemPoolArgs
from rayline.cluster.maintenance import check_maintenance
from rayline.cluster.types import ClusterPlan, SystemPool
from rayline.facts.accelerators import SYSTEM_MACHINES
from rayline.facts.choices import Capacity, ClusterMode
from rayline.facts.google import (
    AI_ZONE,
    APIS,
    GPU_METRICS,
    IMAGE_STREAMING_API,
    PODS_PREFIX_OF_A_NODE,
    PROJECT_API,
    SYSTEM_METRICS,
    UNUSABLE_ADDRESSES,
    WORKLOAD_METRICS,
)
from rayline.facts.names import PLATFORM
from rayline.facts.prices import node_price
from rayline.platform.arguments import InferencePlatformArgs
from rayline.schema.check import DNS_LABEL, Check

EXISTING_ONLY = ("context", "kubeconfig", "gke")
# Keys of a new cluster that the Google resources around an existing GKE cluster need as well.
WITH_GKE = ("deletion_protection", "enable_apis", "network")


def plan_cluster(check: Check, platform: InferencePlatformArgs, name: str) -> ClusterPlan:
    """Decide about the cluster. `name` is the platform's; the names of Google resources begin with it."""
    args, mode = platform.cluster, platform.cluster.mode
    for key in sorted(args.model_fields_set - {"mode"}):
        needed = ClusterMode.EXISTING if key in EXISTING_ONLY else ClusterMode.CREATE
        if needed is not mode and not (mode is ClusterMode.EXISTING and args.gke and key in WITH_GKE):
            check.only_with(f"cluster.{key}", None, f"cluster.mode {needed.value}", mode)
    region = platform.region or ""
    if mode is not ClusterMode.CREATE:
        if not (mode is ClusterMode.EXISTING and args.gke):
            return ClusterPlan(args, region=platform.region)
        _check_place(check, platform, "cluster.gke true")
        _check_name(check, name)
        _check_network_of_gke(check, args.network, region)
        apis = (PROJECT_API,) if args.enable_apis else ()
        return ClusterPlan(args, project=platform.project, region=platform.region, apis=apis)

    _check_place(check, platform, "cluster.mode create")
    _check_name(check, name)
    location = _location(check, args, region)
    _check_network(check, args.network, region)
    _check_access(check, args)
    check_maintenance(check, args.maintenance)
    return ClusterPlan(
        args,
        project=platform.project,
        region=platform.region,
        location=location,
        system_pool=_system_pool(check, args.system_pool, region),
        zones=_zones(check, args.zones, region, location or ""),
        metrics=_metrics(check, args.monitoring),
        apis=(*APIS, *([IMAGE_STREAMING_API] if args.image_streaming else [])) if args.enable_apis else (),
    )


def add_api(cluster: ClusterPlan, api: str) -> ClusterPlan:
    """Return the cluster with one more API turned on; unchanged with cluster.enable_apis false."""
    return replace(cluster, apis=(*cluster.apis, api)) if cluster.apis and api not in cluster.apis else cluster


def _check_place(check: Check, platform: InferencePlatformArgs, needed_with: str) -> None:
    for key, value, example in (("project", platform.project, "my-project"), ("region", platform.region, "us-central1")):
        if not value:
            fix = f"`pulumi config set gcp:{key} {example}`"
            check.refuse(f"gcp:{key}", None, f"required with {needed_with}. Fix: {fix}")


def _check_name(check: Check, name: str) -> None:
    why = "the names of Google resources begin with it"
    if name and not DNS_LABEL.fullmatch(name):
        fix = "lower-case letters, digits and dashes, first a letter, last a letter or digit"
        check.refuse("stack name", name, f"{why}. Fix: {fix}")
    if len(name) > PLATFORM:
        check.refuse("stack name", name, f"{len(name)} characters, and {why}. Fix: at most {PLATFORM}")


def _location(check: Check, args: ClusterArgs, region: str) -> str | None:
    location = args.location or region or None
    if location and region and location != region and not _in(region, location):
        check.refuse("cluster.location", location, f"not in {region}. Fix: the region or one of its zones, such as {region}-b")
    elif location and AI_ZONE in location:
        check.refuse("cluster.location", location, f"a zone for accelerators only. Fix: another zone, such as {region}-b")
    return location


def _in(region: str, zone: str) -> bool:
    return re.fullmatch(re.escape(region) + "-[a-z0-9]+", zone) is not None


def _system_pool(check: Check, args: SystemPoolArgs, region: str) -> SystemPool:
    machine = SYSTEM_MACHINES.get(args.machine_type)
    if machine is None:
        says = f"not known here. Fix: one of {', '.join(SYSTEM_MACHINES)}; others are a row in facts/accelerators.py"
        check.refuse("cluster.system_pool.machine_type", args.machine_type, says)
        machine = SYSTEM_MACHINES[SystemPoolArgs().machine_type]
    most = args.max_nodes if args.said("max_nodes") else max(args.min_nodes, args.max_nodes)
    if most < args.min_nodes:
        check.refuse("cluster.system_pool.max_nodes", most, f"less than min_nodes. Fix: at least {args.min_nodes}")
    price = node_price(machine.name, region, (Capacity.ON_DEMAND,))
    return SystemPool(machine, args.min_nodes, most, price)


_RANGES = ("nodes_cidr", "pods_cidr", "services_cidr")


def _check_network(check: Check, network: NetworkArgs, region: str) -> None:
    if network.existing:
        _check_existing(check, network, network.existing, region)
        return
    ranges = {key: ipaddress.IPv4Network(getattr(network, key)) for key in _RANGES}
    for (key, first), (other, second) in itertools.combinations(ranges.items(), 2):
        if first.overlaps(second):
            says = f"overlaps cluster.network.{key} {first}. Fix: a range of its own"
            check.refuse(f"cluster.network.{other}", str(second), says)


def _check_network_of_gke(check: Check, network: NetworkArgs, region: str) -> None:
    """Refuse what a cluster that exists has decided itself: its ranges."""
    says = "the cluster has its ranges already. Fix: leave it out"
    for key in _RANGES if network.existing is None else ():
        if network.said(key):
            check.refuse(f"cluster.network.{key}", getattr(network, key), says)
    if network.existing:
        _check_existing(check, network, network.existing, region)
        for key in ("pods_range", "services_range"):
            if network.existing.said(key):
                check.refuse(f"cluster.network.existing.{key}", getattr(network.existing, key), says)


def _check_existing(check: Check, network: NetworkArgs, existing: ExistingNetworkArgs, region: str) -> None:
    path = "cluster.network.existing"
    for key in _RANGES:
        if network.said(key):
            says = f"the subnet of {path} has its ranges already. Fix: leave it out"
            check.refuse(f"cluster.network.{key}", getattr(network, key), says)
    if region and f"/regions/{region}/" not in existing.subnetwork:
        check.refuse(f"{path}.subnetwork", existing.subnetwork, f"not in {region}. Fix: a subnet of the stack's region")
    if not existing.subnetwork.startswith(f"projects/{existing.project}/"):
        says = "another project than the network's. Fix: a subnet of the network"
        check.refuse(f"{path}.subnetwork", existing.subnetwork, says)
    if existing.pods_range == existing.services_range:
        says = "the range of the pods. Fix: a secondary range of its own"
        check.refuse(f"{path}.services_range", existing.services_range, says)


def check_sizes(check: Check, cluster: ClusterPlan, gpu_nodes: int) -> None:
    """Refuse ranges that are too small for all nodes that the stack may have: GKE would stop to add nodes, without an error."""
    # the ranges of a subnet that exists are not known here
    if cluster.system_pool is None or cluster.args.network.existing:
        return
    # one more while an upgrade replaces a node of the CPU pool
    nodes, network = cluster.system_pool.max_nodes + 1 + gpu_nodes, cluster.args.network
    for key, text, prefix_of_a_node, unusable in (
        ("nodes_cidr", network.nodes_cidr, 32, UNUSABLE_ADDRESSES),
        ("pods_cidr", network.pods_cidr, PODS_PREFIX_OF_A_NODE, 0),
    ):
        room = max(0, int(2 ** (prefix_of_a_node - ipaddress.IPv4Network(text).prefixlen)) - unusable)
        if room < nodes:
            fix = f"/{prefix_of_a_node - (nodes + unusable - 1).bit_length()} or larger"
            says = f"room for {room} nodes (each takes a /{prefix_of_a_node}), and the stack may have {nodes}. Fix: {fix}"
            check.refuse(f"cluster.network.{key}", text, says)


def _zones(check: Check, zones: list[str] | None, region: str, location: str) -> tuple[str, ...]:
    # without a region that is refused, and a message here could name none
    if zones is None or not region:
        return ()
    path = "cluster.zones"
    if location != region:
        says = f"only with a regional cluster, and cluster.location is {location}. Fix: leave it out"
        check.refuse(path, zones, says)
        return tuple(zones)
    if not zones:
        check.refuse(path, zones, f"empty. Fix: at least one, such as [{region}-b], or leave it out and Google picks")
    elif len(set(zones)) < len(zones):
        check.refuse(path, zones, "a zone stands twice. Fix: each zone once")
    for zone in dict.fromkeys(zones):
        if not _in(region, zone):
            check.refuse(path, zone, f"not in {region}. Fix: a zone of the region, such as {region}-b")
        elif AI_ZONE in zone:
            check.refuse(path, zone, f"a zone for accelerators only. Fix: another zone, such as {region}-b")
    return tuple(zones)


def _check_access(check: Check, args: ClusterArgs) -> None:
    """Refuse a control plane that no operator reaches, or the whole internet."""
    path, networks = "cluster.authorized_networks", args.authorized_networks
    if not networks and not args.dns_endpoint:
        says = "no operator could reach the control plane. Fix: leave it on, or name cluster.authorized_networks"
        check.refuse("cluster.dns_endpoint", False, says)
    for index, network in enumerate(networks):
        where = f"{path}[{index}].cidr"
        if network.cidr.endswith("/0"):
            fix = "the addresses of your people and pipelines, or the DNS endpoint"
            check.refuse(where, network.cidr, f"the whole internet. Fix: {fix}")
        if any(other.cidr == network.cidr for other in networks[:index]):
            check.refuse(where, network.cidr, "the range stands twice. Fix: each range once")


def _metrics(check: Check, monitoring: MonitoringArgs) -> tuple[str, ...]:
    if monitoring.managed_prometheus:
        return (*SYSTEM_METRICS, *WORKLOAD_METRICS, *([GPU_METRICS] if monitoring.dcgm is not False else []))
    if monitoring.dcgm:
        check.only_with("cluster.monitoring.dcgm", True, "cluster.monitoring.managed_prometheus true", "false")
    return SYSTEM_METRICS
