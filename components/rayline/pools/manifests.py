"""ComputeClass of a ladder, and the claim of workers on network cards. No Pulumi, no I/O.

Field names: GoogleCloudPlatform/accelerated-platforms at 9320f3b (core/custom_compute_class), GKE's ComputeClass reference and
the Go types of the CRD as published with GKE's autoscaler; the claim: GKE, how-to/allocate-network-resources-dra.
"""

from typing import Any

from rayline.facts.accelerators import ACCELERATORS
from rayline.facts.capacities import DISK_IMAGE, FLEX_START_LEAD_SECONDS, FLEX_START_MAX_HOURS, RESERVATION
from rayline.facts.choices import Capacity
from rayline.facts.labels import MANAGED_BY, NETWORK_CLAIM, POOL_LABEL
from rayline.pools.types import NodePool


def compute_class(pool: NodePool, *, service_account: Any, private_nodes: bool, image_streaming: bool) -> dict[str, Any]:
    """Return the ComputeClass of a ladder: GKE creates the pools, tries the rungs in order, and waits when none has a machine.

    `service_account` may be an Output. There is no activeMigration: a move of running workers to a better rung is an interruption.
    """
    nodes: dict[str, Any] = {
        "serviceAccount": service_account,
        "ipType": "private" if private_nodes else "public",
        "imageStreaming": {"enabled": image_streaming},
        "gvnic": {"enabled": True},
        "workloadMetadata": "GKE_METADATA",
        "nodeLabels": {POOL_LABEL: pool.name},
    }
    if pool.rdma:
        nodes["dra"] = {"networking": {"enabled": True}}
    return {
        "apiVersion": "cloud.google.com/v1",
        "kind": "ComputeClass",
        # no namespace: it is the cluster's
        "metadata": {"name": pool.name, "labels": MANAGED_BY},
        "spec": {
            "nodePoolAutoCreation": {
                "enabled": True,
                "shieldedInstanceConfig": {"enableSecureBoot": True, "enableIntegrityMonitoring": True},
            },
            "nodePoolConfig": nodes,
            "priorities": [_rung(way, pool) for way in pool.ways],
            # the other choice would start ordinary CPU machines for pods that need a GPU
            "whenUnsatisfiable": "DoNotScaleUp",
        },
    }


def _rung(way: Capacity, pool: NodePool) -> dict[str, Any]:
    spec = ACCELERATORS[pool.accelerator]
    storage: dict[str, Any] = {"bootDiskType": spec.boot_disk_type, "bootDiskSize": pool.boot_disk_gib}
    if pool.secondary_boot_disk:
        image = DISK_IMAGE.fullmatch(pool.secondary_boot_disk)
        assert image  # the plan refused any other form
        storage["secondaryBootDisks"] = [
            {"diskImageName": image["image"], "project": image["project"], "mode": "CONTAINER_IMAGE_CACHE"}
        ]
    rung: dict[str, Any] = {
        "machineType": pool.machine.name,
        "gpu": {"type": spec.gke_type, "count": pool.machine.gpus, "driverVersion": spec.driver_version.lower()},
        "storage": storage,
    }
    if pool.rdma:
        rung["acceleratorNetworkProfile"] = "auto"
    if way is Capacity.RESERVATION:
        # GKE refuses location.zones beside it: a reservation brings its own
        return rung | {"reservations": _specific(pool), "spot": False}
    rung["location"] = {"zones": list(pool.zones)}
    if way is Capacity.FLEX_START:
        hours = pool.max_run_hours or FLEX_START_MAX_HOURS
        flex_start: dict[str, Any] = {"enabled": True}
        # a replacement is requested before the machine ends, where its life is long enough for that
        if hours * 3600 > 2 * FLEX_START_LEAD_SECONDS:
            flex_start["nodeRecycling"] = {"leadTimeSeconds": FLEX_START_LEAD_SECONDS}
        return rung | {"flexStart": flex_start, "maxRunDurationSeconds": hours * 3600}
    if way is Capacity.ANY_RESERVATION:
        return rung | {"reservations": {"affinity": "AnyBestEffort"}, "spot": False}
    return rung | {"reservations": {"affinity": "None"}, "spot": way is Capacity.SPOT}


def _specific(pool: NodePool) -> dict[str, Any]:
    named = RESERVATION.fullmatch(pool.reservation or "")
    assert named  # the plan refused any other form
    specific: dict[str, Any] = {"name": named["name"]}
    if named["project"]:
        specific["project"] = named["project"]
    if named["block"]:
        specific["reservationBlock"] = {"name": named["block"]}
    if len(pool.zones) == 1:
        specific["zones"] = list(pool.zones)
    return {"affinity": "Specific", "specific": [specific]}


def network_claim_template(namespace: str) -> dict[str, Any]:
    """Return the claim of each worker of a replica that spans machines: all RDMA network cards of its machine."""
    return {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaimTemplate",
        "metadata": {"name": NETWORK_CLAIM, "namespace": namespace, "labels": MANAGED_BY},
        "spec": {
            "spec": {
                "devices": {
                    "requests": [{"name": "rdma", "exactly": {"deviceClassName": "mrdma.google.com", "allocationMode": "All"}}]
                }
            }
        },
    }
