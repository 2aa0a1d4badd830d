"""Hugging Face token as a Kubernetes Secret, in the shape of KubeRay's high-throughput guide."""

from typing import TypedDict

import pulumi
import pulumi_kubernetes as kubernetes

from rayline.facts.labels import HF_TOKEN_KEY


class HuggingFaceSecretArgs(TypedDict):
    """A Secret with a Hugging Face token."""

    namespace: pulumi.Input[str]
    """Namespace of the services."""
    secret_name: str
    """Name of the Secret."""
    token: pulumi.Input[str]
    """The token; kept encrypted in Pulumi's state."""


class HuggingFaceSecret(pulumi.ComponentResource):
    """One Secret. The token never becomes an argument, a log line or part of a manifest."""

    secret_name: pulumi.Output[str]
    """Name of the Secret."""

    def __init__(self, name: str, args: HuggingFaceSecretArgs, opts: pulumi.ResourceOptions | None = None):
        known = {"namespace": args["namespace"], "secret_name": args["secret_name"]}
        super().__init__("rayline:index:HuggingFaceSecret", name, known, opts)
        secret = kubernetes.core.v1.Secret(
            f"{name}-token",
            metadata={"name": args["secret_name"], "namespace": args["namespace"]},
            string_data=pulumi.Output.secret({HF_TOKEN_KEY: args["token"]}),
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.secret_name = secret.metadata["name"]
        self.register_outputs({"secret_name": self.secret_name})
