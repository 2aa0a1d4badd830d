"""Deploy a RayService with its Secrets."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NotRequired, TypedDict

import pulumi
import pulumi_kubernetes as kubernetes
import pulumi_random as random

from rayline.cluster.kubernetes_object import KubernetesObject
from rayline.facts.labels import APPLICATION, RAY_TOKEN_KEY, SERVE_PORT, ray_token_secret, serve_service_name
from rayline.service.api_key import API_KEY_KEY, PREVIOUS_API_KEY_KEY, api_key_secret, gate_config_map

# Conditions of a running service. Nothing waits for a parked one: KubeRay does not change observedGeneration while a RayService is
# suspended, so that any wait would hang at the next edit of its spec (handleSuspend in KubeRay 1.7's rayservice_controller.go;
# Pulumi's waitFor checks the observed generation first).
# Ready alone is true as soon as one replica of eight answers, and stays true from the old cluster during an upgrade.
_CONDITIONS = ["condition=Ready", "condition=UpgradeInProgress=False"]


def wait_for(applications: Iterable[str]) -> list[str]:
    """Return the conditions of a RayService whose applications all run."""
    statuses = ".status.activeServiceStatus.applicationStatuses"
    return [*_CONDITIONS, *(f"jsonpath={{{statuses}.{name}.status}}=RUNNING" for name in applications)]


class LlmServiceDeploymentArgs(TypedDict):
    """A RayService to deploy."""

    ray_service: dict[str, Any]
    """The manifest: ray.io/v1 RayService."""
    api_key: bool
    """Create an API key, which clients of the endpoint have to send."""
    start_timeout_seconds: int
    """Seconds that a start may take: GPU node, image, weights, compilation."""
    api_key_generation: NotRequired[int]
    """Generation of the API key, from 1. The previous key stays valid. Default 1."""
    ray_token_generation: NotRequired[int]
    """Generation of Ray's token, from 1. The previous Secret stays. Default 1."""
    applications: NotRequired[dict[str, int]]
    """Generation of the API key of each further model, by the name of its application. Default: none."""
    code: NotRequired[dict[str, bool] | None]
    """Kinds of the kit's code that the pods mount, as `code_kinds` names them. Default: no code."""


class LlmService(pulumi.ComponentResource):
    """The RayService and its Secrets. The deployment succeeds when the service runs; at once when it is parked."""

    endpoint: pulumi.Output[str]
    """Address of the OpenAI-compatible API inside the cluster."""
    api_key: pulumi.Output[str]
    """API key, which clients send as a bearer token; a secret, empty for a service without keys."""

    def __init__(self, name: str, args: LlmServiceDeploymentArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:LlmService", name, dict(args), opts)
        manifest = args["ray_service"]
        metadata = manifest["metadata"]
        # with strategy None the live RayCluster keeps the token with which it started
        waits = manifest["spec"]["upgradeStrategy"]["type"] == "None"
        generation = args.get("ray_token_generation", 1)
        needed = self._ray_tokens(name, metadata, range(1 if waits else max(1, generation - 1), generation + 1))
        self.api_key = pulumi.Output.secret("")
        further = args.get("applications", {})
        keys = dict.fromkeys(further, self.api_key)
        if args["api_key"]:
            self.api_key = self._api_keys(name, metadata, APPLICATION, args.get("api_key_generation", 1), needed)
            keys = {each: self._api_keys(name, metadata, each, number, needed) for each, number in further.items()}
        if code := args.get("code"):
            needed.append(self._code(name, metadata, code))
        # the same for each further model, by the name of its application
        self.further_keys: dict[str, pulumi.Output[str]] = keys
        patience = f"{args['start_timeout_seconds'] // 60 + 10}m"
        wait = {} if manifest["spec"].get("suspend") else {"pulumi.com/waitFor": json.dumps(wait_for([APPLICATION, *further]))}
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
                depends_on=needed,
                custom_timeouts=pulumi.CustomTimeouts(create=patience, update=patience, delete="30m"),
            ),
        )
        host = f"{serve_service_name(metadata['name'])}.{metadata['namespace']}.svc.cluster.local"
        # depends on the RayService, so that users of the output wait until the service runs
        self.endpoint = service.id.apply(lambda _: f"http://{host}:{SERVE_PORT}/v1")
        self.register_outputs({"endpoint": self.endpoint, "api_key": self.api_key})

    def _ray_tokens(self, name: str, metadata: dict[str, Any], generations: range) -> list[pulumi.Resource]:
        """Create a Secret for each token. Earlier ones stay: the operator needs them for the old RayCluster."""
        return [
            self._secret(
                _numbered(f"{name}-ray-auth", generation),
                ray_token_secret(metadata["name"], generation),
                metadata["namespace"],
                {RAY_TOKEN_KEY: self._random(_numbered(f"{name}-ray-auth", generation))},
            )
            for generation in generations
        ]

    def _api_keys(
        self, name: str, metadata: dict[str, Any], application: str, generation: int, needed: list[pulumi.Resource]
    ) -> pulumi.Output[str]:
        """Create one Secret for both keys of a model: pods mount it by its name and read a new key without a restart."""
        key_name = api_key_secret(name, application)
        previous = self._random(_numbered(key_name, generation - 1)) if generation > 1 else ""
        key = self._random(_numbered(key_name, generation))
        # always both: server-side apply does not track stringData, so a key that is left out would stay in the Secret
        keys = {API_KEY_KEY: key, PREVIOUS_API_KEY_KEY: previous}
        secret_name = api_key_secret(metadata["name"], application)
        needed.append(self._secret(key_name, secret_name, metadata["namespace"], keys))
        return key

    def _code(self, name: str, metadata: dict[str, Any], kinds: Mapping[str, bool]) -> pulumi.Resource:
        """Create the ConfigMap with the code of the kit that the pods mount, for all models."""
        return KubernetesObject(
            f"{name}-api-key-gate",
            gate_config_map(metadata["name"], metadata["namespace"], **kinds),
            opts=pulumi.ResourceOptions(parent=self),
        )

    def _random(self, name: str) -> pulumi.Output[str]:
        return random.RandomPassword(name, length=48, special=False, opts=pulumi.ResourceOptions(parent=self)).result

    def _secret(
        self, name: str, secret_name: str, namespace: str, values: Mapping[str, pulumi.Input[str]]
    ) -> kubernetes.core.v1.Secret:
        return kubernetes.core.v1.Secret(
            name,
            metadata=kubernetes.meta.v1.ObjectMetaArgs(name=secret_name, namespace=namespace),
            string_data=values,
            opts=pulumi.ResourceOptions(parent=self),
        )


def _numbered(name: str, generation: int) -> str:
    """Return a resource's name. The first generation has no number, so that older stacks keep their names."""
    return f"{name}-{generation}" if generation > 1 else name
