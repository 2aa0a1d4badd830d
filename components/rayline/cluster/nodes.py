"""Settings that the nodes of every pool share: account, boot disk, image streaming and secure boot."""

import pulumi
import pulumi_gcp as gcp

from rayline.facts.google import CLOUD_PLATFORM
from rayline.facts.labels import POOL_LABEL


def node_settings(
    *, pool: str, machine_type: str, disk_type: str, disk_gib: int, account: pulumi.Input[str], image_streaming: bool
) -> "gcp.container.NodePoolNodeConfigArgsDict":
    """Return the node_config of a pool. `pool` is the value of the label rayline/pool, `account` an e-mail address."""
    return {
        "machine_type": machine_type,
        "boot_disk": {"disk_type": disk_type, "size_gb": disk_gib},
        "service_account": account,
        "oauth_scopes": [CLOUD_PLATFORM],
        "labels": {POOL_LABEL: pool},
        "gcfs_config": {"enabled": image_streaming},
        "shielded_instance_config": {"enable_secure_boot": True, "enable_integrity_monitoring": True},
        "workload_metadata_config": {"mode": "GKE_METADATA"},
    }
