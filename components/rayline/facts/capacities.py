"""Provisioning models of accelerator machines: conditions, quota and node labels.

Sources: GoogleCloudPlatform/cluster-toolkit at 1047080, modules/compute/gke-node-pool/main.tf (its preconditions); GKE's
pages on flex-start (concepts/dws), node auto-provisioning and ComputeClasses; the ComputeClass manifests of
GoogleCloudPlatform/accelerated-platforms at 9320f3b. Quota: Compute Engine's provisioning-models page as quoted in 2026.
"""

import re
from dataclasses import dataclass

from rayline.facts.choices import Capacity

# Flex-start machines live seven days at most (GKE, concepts/dws); that is also Google's default.
FLEX_START_MAX_HOURS = 168
# GKE starts to look for a replacement this long before a flex-start machine ends (accelerated-platforms' classes).
FLEX_START_LEAD_SECONDS = 3600
# GKE's graceful node shutdown leaves a pod 15 to 25 s when Google takes a spot machine back, whatever its own grace period.
SPOT_GRACE_SECONDS = 15
# The order of Google's own ComputeClass advice for serving: what is paid for, what lasts, what waits, what may go at any time.
LADDER_ORDER = (Capacity.RESERVATION, Capacity.ON_DEMAND, Capacity.FLEX_START, Capacity.SPOT)
# Node pool auto-creation of a ComputeClass without node auto-provisioning for the whole cluster; and its secure boot.
MIN_GKE_LADDER = "1.33.3-gke.1136000"
MIN_GKE_LADDER_SECURE_BOOT = "1.36.3-gke.1244000"
# Secondary boot disks on Container-Optimized OS (GKE, how-to/data-container-image-preloading).
MIN_GKE_SECONDARY_BOOT_DISK = "1.30.1-gke.1329000"
# Managed DRANET on GKE Standard; it also needs Dataplane V2 and machines of one zone (GKE, how-to/allocate-network-resources-dra).
MIN_GKE_RDMA = "1.34.1-gke.1829001"

_NAME = "[a-z]([-a-z0-9]{0,61}[a-z0-9])?"
# Project ids are 6 to 30 characters; domain-scoped ones have the domain and a colon before them.
PROJECT = r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]"
RESERVATION = re.compile(
    rf"(projects/(?P<project>{PROJECT})/reservations/)?(?P<name>{_NAME})(/reservationBlocks/(?P<block>{_NAME}))?"
)
DISK_IMAGE = re.compile(rf"projects/(?P<project>{PROJECT})/global/images/(?P<image>{_NAME})")


@dataclass(frozen=True)
class CapacityFacts:
    """One provisioning model. `min_gke_version` is None where every supported GKE version has it."""

    meaning: str
    conditions: str
    quota: str
    node_label: str | None = None
    min_gke_version: str | None = None


CAPACITIES: dict[Capacity, CapacityFacts] = {
    Capacity.ON_DEMAND: CapacityFacts(
        meaning="a standard VM, where the zone has stock",
        conditions="uses no reservation, also no matching one",
        quota="the GPU's standard quota",
    ),
    Capacity.SPOT: CapacityFacts(
        meaning="spare machines that Google takes back at any time, with 15 to 25 s for a pod to end",
        conditions="takes no reservation",
        quota="the GPU's `PREEMPTIBLE-` quota",
        node_label="cloud.google.com/gke-spot",
    ),
    Capacity.FLEX_START: CapacityFacts(
        meaning="a request that waits until Google has the machines, which then live up to `nodes.max_run_hours`",
        conditions="no auto-repair, no fixed node count, no reservation",
        quota="the GPU's `PREEMPTIBLE-` quota; without any, the standard quota",
        node_label="cloud.google.com/gke-flex-start",
        min_gke_version="1.32.2-gke.1652000",
    ),
    Capacity.RESERVATION: CapacityFacts(
        meaning="the machines of one of your reservations, and no others",
        conditions="`nodes.reservation` is its name, `nodes.zones` its one zone; a specific reservation, for the same machine type",
        quota="the GPU's `COMMITTED-` quota, or none beside the reservation's own",
    ),
    Capacity.ANY_RESERVATION: CapacityFacts(
        meaning="the machines of any reservation that matches, and on-demand ones when they are used up",
        conditions="the reservation is not a specific one",
        quota="the GPU's standard quota for what no reservation covers",
    ),
    Capacity.LADDER: CapacityFacts(
        meaning="several capacities, tried in `nodes.capacity_order`: a GKE ComputeClass in place of a node pool",
        conditions="at least two capacities of the machine type",
        quota="the quota of each capacity",
        min_gke_version=MIN_GKE_LADDER,
    ),
}


def gke_version(text: str) -> tuple[int, ...]:
    """Return a GKE version for comparison: 1.32.2-gke.1652000 is (1, 32, 2, 1652000)."""
    return tuple(int(part) for part in re.findall(r"\d+", text))
