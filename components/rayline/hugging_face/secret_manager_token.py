"""Hugging Face token in Secret Manager, and the permission of the services' pods to read it."""

from typing import Any, TypedDict

import pulumi
import pulumi_gcp as gcp

from rayline.cluster.kubernetes_object import KubernetesObject
from rayline.facts.google import workload_principal


class SecretManagerTokenArgs(TypedDict):
    """Existing secret of Secret Manager, and the accounts that read it."""

    manifest: dict[str, Any]
    """The manifest: secrets-store.csi.x-k8s.io/v1 SecretProviderClass."""
    secret_project: str
    """Project of the secret."""
    secret: str
    """Name of the secret."""
    cluster_project: pulumi.Input[str]
    """Project of the cluster, whose identity pool the pods' accounts belong to."""
    namespace: str
    """Namespace of the services."""
    service_accounts: list[str]
    """Kubernetes ServiceAccounts of the pods."""


class SecretManagerToken(pulumi.ComponentResource):
    """SecretProviderClass, and the role on this one secret for each account. The token itself is never read here."""

    provider_class: pulumi.Output[str]
    """Name of the SecretProviderClass."""

    def __init__(self, name: str, args: SecretManagerTokenArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:SecretManagerToken", name, dict(args), opts)
        project = pulumi.Output.from_input(args["cluster_project"])
        number = gcp.organizations.get_project_output(project_id=project).number
        for account in args["service_accounts"]:
            gcp.secretmanager.SecretIamMember(
                f"{name}-{account}",
                project=args["secret_project"],
                secret_id=args["secret"],
                role="roles/secretmanager.secretAccessor",
                member=pulumi.Output.all(project, number).apply(
                    lambda both, account=account: workload_principal(both[0], both[1], args["namespace"], account)
                ),
                opts=pulumi.ResourceOptions(parent=self),
            )
        made = KubernetesObject(name, args["manifest"], opts=pulumi.ResourceOptions(parent=self))
        self.provider_class = made.id.apply(lambda _: args["manifest"]["metadata"]["name"])
        self.register_outputs({"provider_class": self.provider_class})
