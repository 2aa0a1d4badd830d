"""Create a Cloud Storage bucket for weights, and grant access to accounts of the namespace by Workload Identity."""

from typing import TypedDict

import pulumi
import pulumi_gcp as gcp

from rayline.facts.google import workload_principal


class WeightsBucketArgs(TypedDict):
    """A bucket with weights."""

    project: str
    """Google Cloud project of a bucket that is created."""
    region: str
    """Region of the bucket. The cluster's costs no traffic between regions."""
    bucket: str
    """Name of the bucket."""
    create: bool
    """Create the bucket; else it exists already."""
    keep: bool
    """Keep the bucket when the stack is destroyed; else its contents go with the stack."""
    cluster_project: pulumi.Input[str]
    """Project of the cluster and its identity pool."""
    namespace: str
    """Kubernetes namespace of the accounts."""
    grants: dict[str, list[str]]
    """Roles on the bucket by Kubernetes ServiceAccount."""


class WeightsBucket(pulumi.ComponentResource):
    """The bucket and its grants. Create it after the cluster, whose identity pool has the accounts."""

    bucket_name: pulumi.Output[str]
    """Name of the bucket."""

    def __init__(self, name: str, args: WeightsBucketArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:WeightsBucket", name, dict(args), opts)
        bucket = pulumi.Output.from_input(args["bucket"])
        if args["create"]:
            bucket = self._bucket(name, args).name
        project = pulumi.Output.from_input(args["cluster_project"])
        number = gcp.organizations.get_project_output(project_id=project).number
        for account, roles in args["grants"].items():
            member = pulumi.Output.all(project, number).apply(
                lambda both, account=account: workload_principal(both[0], both[1], args["namespace"], account)
            )
            for role in roles:
                gcp.storage.BucketIAMMember(
                    f"{name}-{account}-{role.rpartition('.')[2]}",
                    bucket=bucket,
                    role=role,
                    member=member,
                    opts=pulumi.ResourceOptions(parent=self),
                )
        self.bucket_name = bucket
        self.register_outputs({"bucket_name": bucket})

    def _bucket(self, name: str, args: WeightsBucketArgs) -> "gcp.storage.Bucket":
        return gcp.storage.Bucket(
            name,
            project=args["project"],
            name=args["bucket"],
            location=args["region"],
            uniform_bucket_level_access=True,
            public_access_prevention="enforced",
            # Hugging Face has the originals, so a deleted copy is not worth another week of storage
            soft_delete_policy=gcp.storage.BucketSoftDeletePolicyArgs(retention_duration_seconds=0),
            versioning=gcp.storage.BucketVersioningArgs(enabled=False),
            labels={"managed-by": "rayline"},
            force_destroy=not args["keep"],
            opts=pulumi.ResourceOptions(parent=self, protect=args["keep"], retain_on_delete=args["keep"]),
        )
