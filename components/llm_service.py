"""One RayService in a cluster, with the Secrets that only it uses."""

import json
from typing import Any, TypedDict

import pulumi
import pulumi_kubernetes as kubernetes
import pulumi_random as random

from .ray_service_manifest import (
    API_KEY_KEY,
    APPLICATION,
    RAY_TOKEN_KEY,
    SERVE_PORT,
    api_key_secret,
    ray_token_secret,
    serve_service_name,
)

# What a running service has to reach. A parked one is waited for by nothing: KubeRay leaves observedGeneration alone while it
# is suspended, so that any wait would hang at the next edit of its spec (handleSuspend in KubeRay 1.7's
# rayservice_controller.go; Pulumi's waitFor asks for the observed generation first).
# Ready alone is true as soon as one replica of eight answers, and stays true from the old cluster during an upgrade.
WAIT_FOR = [
    "condition=Ready",
    "condition=UpgradeInProgress=False",
    f"jsonpath={{.status.activeServiceStatus.applicationStatuses.{APPLICATION}.status}}=RUNNING",
]


class LlmServiceDeploymentArgs(TypedDict):
    """A RayService to deploy."""

    ray_service: dict[str, Any]
    """The manifest: ray.io/v1 RayService."""
    api_key: bool
    """Make a key that clients of the endpoint have to send."""
    start_timeout_seconds: int
    """How long a start may take: GPU node, image, weights, compilation."""


class LlmService(pulumi.ComponentResource):
    """The RayService and its Secrets. Succeeds when the service runs, not when it is merely accepted; at once when parked."""

    endpoint: pulumi.Output[str]
    """Address of the OpenAI-compatible API inside the cluster."""
    api_key: pulumi.Output[str]
    """The key that clients send as a bearer token; a secret, empty when the service asks for none."""

    def __init__(self, name: str, args: LlmServiceDeploymentArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:LlmService", name, dict(args), opts)
        manifest = args["ray_service"]
        metadata = manifest["metadata"]
        ray_token = self._secret(
            name, "ray-auth", ray_token_secret(metadata["name"]), metadata["namespace"], RAY_TOKEN_KEY
        )
        secrets = [ray_token[0]]
        self.api_key = pulumi.Output.secret("")
        if args["api_key"]:
            key = self._secret(name, "api-key", api_key_secret(metadata["name"]), metadata["namespace"], API_KEY_KEY)
            secrets.append(key[0])
            self.api_key = key[1]
        patience = f"{args['start_timeout_seconds'] // 60 + 10}m"
        wait = {} if manifest["spec"].get("suspend") else {"pulumi.com/waitFor": json.dumps(WAIT_FOR)}
        service = kubernetes.apiextensions.CustomResource(
            name,
            api_version=manifest["apiVersion"],
            kind=manifest["kind"],
            metadata=kubernetes.meta.v1.ObjectMetaArgs(
                name=metadata["name"],
                namespace=metadata["namespace"],
                labels=metadata["labels"],
                annotations={**metadata["annotations"], **wait},
            ),
            spec=manifest["spec"],
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=secrets,
                custom_timeouts=pulumi.CustomTimeouts(create=patience, update=patience, delete="30m"),
            ),
        )
        host = f"{serve_service_name(metadata['name'])}.{metadata['namespace']}.svc.cluster.local"
        # known once the service runs, so that whoever takes it waits for that
        self.endpoint = service.id.apply(lambda _: f"http://{host}:{SERVE_PORT}/v1")
        self.register_outputs({"endpoint": self.endpoint, "api_key": self.api_key})

    def _secret(self, name: str, part: str, secret_name: str, namespace: str, key: str):
        value = random.RandomPassword(
            f"{name}-{part}", length=48, special=False, opts=pulumi.ResourceOptions(parent=self)
        )
        secret = kubernetes.core.v1.Secret(
            f"{name}-{part}",
            metadata=kubernetes.meta.v1.ObjectMetaArgs(name=secret_name, namespace=namespace),
            string_data={key: value.result},
            opts=pulumi.ResourceOptions(parent=self),
        )
        return secret, value.result
