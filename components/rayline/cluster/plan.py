"""Decisions about the cluster, the operator and the Hugging Face token."""

import ipaddress
import itertools
import re
from collections.abc import Sequence
from dataclasses import replace

from rayline.cluster.arguments import ClusterArgs, MonitoringArgs, NetworkArgs, SystemPoolArgs
from rayline.cluster.maintenance import plan_maintenance
from rayline.cluster.types import ClusterPlan, SystemPool
from rayline.facts.accelerators import SYSTEM_MACHINES
from rayline.facts.choices import Capacity, ClusterMode
from rayline.facts.google import AI_ZONE, APIS, GPU_METRICS, IMAGE_STREAMING_API, SYSTEM_METRICS, WORKLOAD_METRICS
from rayline.facts.names import PLATFORM
from rayline.facts.prices import node_price
from rayline.platform.arguments import InferencePlatformArgs
from rayline.schema.check import DNS_LABEL, Check

EXISTING_ONLY = ("context", "kubeconfig")


def plan_cluster(check: Check, args: InferencePlatformArgs, name: str) -> ClusterPlan:
    """Decide about the cluster. `name` is the platform's, with which the names of Google resources begin."""
    asked, mode = args.cluster, args.cluster.mode
    for key in sorted(asked.model_fields_set - {"mode"}):
        belongs_to = ClusterMode.EXISTING if key in EXISTING_ONLY else ClusterMode.CREATE
        if belongs_to is not mode:
            check.refuse(
                f"cluster.{key}", None, f"only with cluster.mode {belongs_to.value}, and it is {mode.value}: leave it out"
            )
    if mode is not ClusterMode.CREATE:
        kubeconfig = None if mode is ClusterMode.LOCAL else asked.kubeconfig
        return ClusterPlan(mode=mode, context=asked.context, kubeconfig=kubeconfig, region=args.region)

    for key, value, example in (("project", args.project, "my-project"), ("region", args.region, "us-central1")):
        if not value:
            check.refuse(f"gcp:{key}", None, f"required with cluster.mode create: `pulumi config set gcp:{key} {example}`")
    region = args.region or ""
    _check_name(check, name)
    location = _location(check, asked, region)
    _check_ranges(check, asked.network)
    return ClusterPlan(
        mode=mode,
        project=args.project,
        region=args.region,
        location=location,
        release_channel=asked.release_channel,
        private_nodes=asked.private_nodes,
        deletion_protection=asked.deletion_protection,
        nodes_cidr=asked.network.nodes_cidr,
        pods_cidr=asked.network.pods_cidr,
        services_cidr=asked.network.services_cidr,
        system_pool=_system_pool(check, asked.system_pool, region),
        zones=_zones(check, asked.zones, region, location or ""),
        dns_endpoint=asked.dns_endpoint,
        authorized_networks=_authorized_networks(check, asked),
        maintenance=plan_maintenance(check, asked.maintenance),
        metrics=_metrics(check, asked.monitoring),
        managed_prometheus=asked.monitoring.managed_prometheus,
        workload_logs=asked.monitoring.workload_logs,
        image_streaming=asked.image_streaming,
        cost_allocation=asked.cost_allocation,
        labels=asked.labels,
        apis=(*APIS, *([IMAGE_STREAMING_API] if asked.image_streaming else [])) if asked.enable_apis else (),
    )


def _check_name(check: Check, name: str) -> None:
    if name and not DNS_LABEL.fullmatch(name):
        check.refuse(
            "stack name",
            name,
            "the names of Google resources begin with it: lower-case letters, digits and dashes, first a letter, last a letter or digit",
        )
    if len(name) > PLATFORM:
        check.refuse(
            "stack name", name, f"{len(name)} characters, and the names of Google resources begin with it: at most {PLATFORM}"
        )


def _location(check: Check, asked: ClusterArgs, region: str) -> str | None:
    location = asked.location or region or None
    if location and region and location != region and not re.fullmatch(re.escape(region) + "-[a-z0-9]+", location):
        check.refuse("cluster.location", location, f"the region {region} or one of its zones, for example {region}-b")
    elif location and AI_ZONE in location:
        check.refuse("cluster.location", location, f"a zone for accelerators only: take another, for example {region}-b")
    return location


def _system_pool(check: Check, asked: SystemPoolArgs, region: str) -> SystemPool:
    machine = SYSTEM_MACHINES.get(asked.machine_type)
    if machine is None:
        known = ", ".join(SYSTEM_MACHINES)
        check.refuse(
            "cluster.system_pool.machine_type", asked.machine_type, f"one of {known}; others are a row in facts/accelerators.py"
        )
        machine = SYSTEM_MACHINES[SystemPoolArgs().machine_type]
    most = asked.max_nodes if asked.said("max_nodes") else max(asked.min_nodes, asked.max_nodes)
    if most < asked.min_nodes:
        check.refuse("cluster.system_pool.max_nodes", most, f"at least min_nodes, which is {asked.min_nodes}")
    price = node_price(machine.name, region, (Capacity.ON_DEMAND,))
    return SystemPool(machine, asked.min_nodes, most, price)


def _check_ranges(check: Check, network: NetworkArgs) -> None:
    """Refuse ranges of the VPC that overlap."""
    ranges = {key: ipaddress.IPv4Network(getattr(network, key)) for key in NetworkArgs.model_fields}
    for (one, first), (other, second) in itertools.combinations(ranges.items(), 2):
        if first.overlaps(second):
            check.refuse(f"cluster.network.{other}", str(second), f"overlaps cluster.network.{one} {first}: a range of its own")


def add_api(cluster: ClusterPlan, api: str) -> ClusterPlan:
    """The cluster with one more API turned on, unless the stack leaves APIs to somebody else."""
    return replace(cluster, apis=(*cluster.apis, api)) if cluster.apis and api not in cluster.apis else cluster


def _zones(check: Check, given: Sequence[str] | None, region: str, location: str) -> tuple[str, ...]:
    # without a region that is refused, and a message here could name none
    if given is None or not region:
        return ()
    path = "cluster.zones"
    if location != region:
        check.refuse(path, given, f"only with a regional cluster, and cluster.location is {location}: leave it out")
    elif not given:
        check.refuse(path, given, f"name at least one, for example [{region}-b], or leave it out and Google picks")
    elif len(set(given)) < len(given):
        check.refuse(path, given, "each zone once")
    for zone in dict.fromkeys(given) if location == region else ():
        if not re.fullmatch(re.escape(region) + "-[a-z0-9]+", zone):
            check.refuse(path, zone, f"a zone of the region {region}, for example {region}-b")
        elif AI_ZONE in zone:
            check.refuse(path, zone, f"a zone for accelerators only: take another, for example {region}-b")
    return tuple(given)


def _authorized_networks(check: Check, asked: ClusterArgs) -> tuple[tuple[str, str], ...]:
    path, networks = "cluster.authorized_networks", asked.authorized_networks
    if not networks and not asked.dns_endpoint:
        check.refuse(
            "cluster.dns_endpoint",
            False,
            "nobody could reach the control plane: leave it on, or name cluster.authorized_networks",
        )
    for index, network in enumerate(networks):
        if network.cidr.endswith("/0"):
            check.refuse(
                f"{path}[{index}].cidr",
                network.cidr,
                "the whole internet: name the addresses of your people and pipelines, or use the DNS endpoint",
            )
        if any(other.cidr == network.cidr for other in networks[:index]):
            check.refuse(f"{path}[{index}].cidr", network.cidr, "each range once")
    return tuple((network.cidr, network.name or network.cidr) for network in networks)


def _metrics(check: Check, monitoring: MonitoringArgs) -> tuple[str, ...]:
    if not monitoring.managed_prometheus:
        if monitoring.dcgm:
            check.refuse(
                "cluster.monitoring.dcgm", True, "GPU metrics need cluster.monitoring.managed_prometheus, and it is false"
            )
        return SYSTEM_METRICS
    return (*SYSTEM_METRICS, *WORKLOAD_METRICS, *([GPU_METRICS] if monitoring.dcgm is not False else []))
