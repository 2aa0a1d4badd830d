"""Memorystore instance for Ray GCS fault tolerance."""

from typing import Any, TypedDict

import pulumi
import pulumi_gcp as gcp
import pulumi_kubernetes as kubernetes

from rayline.facts.labels import STORE_CA_KEY, STORE_PASSWORD_KEY
from rayline.facts.names import MEMORYSTORE, fitted


class HeadStoreInstanceArgs(TypedDict):
    """One Memorystore for Redis instance, and the Secret of its password."""

    project: str
    """Google Cloud project."""
    region: str
    """Region of the cluster."""
    network_id: pulumi.Input[str]
    """Id of the VPC from which it is reachable."""
    memory_gib: int
    """Size in GiB."""
    deletion_protection: bool
    """Google's provider refuses to delete it."""
    labels: dict[str, str]
    """Labels, for the bill."""
    namespace: pulumi.Input[str]
    """Namespace of the Secret."""
    secret_name: str
    """Name of the Secret with the keys password and ca.crt."""


class HeadStoreInstance(pulumi.ComponentResource):
    """Two nodes in two zones, reachable in the VPC only, with a password and TLS."""

    address: pulumi.Output[str]
    """rediss://host:port."""

    def __init__(self, name: str, args: HeadStoreInstanceArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:HeadStoreInstance", name, dict(args), opts)
        instance = gcp.redis.Instance(
            fitted(name, MEMORYSTORE),
            project=args["project"],
            region=args["region"],
            display_name="Memorystore instance for Ray GCS fault tolerance",
            tier="STANDARD_HA",
            memory_size_gb=args["memory_gib"],
            authorized_network=args["network_id"],
            connect_mode="DIRECT_PEERING",
            auth_enabled=True,
            transit_encryption_mode="SERVER_AUTHENTICATION",
            # the state of a head has no expiry: a full store has to refuse writes, and may drop nothing
            redis_configs={"maxmemory-policy": "noeviction"},
            labels=args["labels"] or None,
            # without a value Google takes true
            deletion_protection=args["deletion_protection"],
            opts=pulumi.ResourceOptions(
                parent=self,
                # without it a preview would not show that Google refuses the deletion
                protect=args["deletion_protection"],
                custom_timeouts=pulumi.CustomTimeouts(create="30m", update="30m", delete="30m"),
            ),
        )
        secret = kubernetes.core.v1.Secret(
            name,
            metadata={"name": args["secret_name"], "namespace": args["namespace"]},
            string_data={
                STORE_PASSWORD_KEY: pulumi.Output.secret(instance.auth_string),
                # while Google changes its authority there are two
                STORE_CA_KEY: instance.server_ca_certs.apply(lambda certificates: "\n".join(map(_certificate, certificates))),
            },
            opts=pulumi.ResourceOptions(parent=self),
        )
        # known once instance and Secret are there, so that its users wait for both
        self.address = pulumi.Output.all(instance.host, instance.port, secret.id).apply(
            lambda known: f"rediss://{known[0]}:{int(known[1])}"
        )
        self.register_outputs({"address": self.address})


def _certificate(authority: Any) -> str:
    return (authority.get("cert") if isinstance(authority, dict) else getattr(authority, "cert", None)) or ""
