"""Make the Jobs that copy models from Hugging Face into the bucket before services start. No Pulumi.

One Job a model and revision, named after both and never run again by itself: it has no ttlSecondsAfterFinished, because Pulumi
would again make a Job that Kubernetes has removed. Should one be run again, its script finds the copy whole and ends.
"""

import hashlib
import pathlib
import re
from collections.abc import Iterable
from typing import Any

from rayline.facts.labels import HF_TOKEN_KEY, MANAGED_BY, NON_ROOT, POOL_LABEL, RESTRICTED, Role, priority_class
from rayline.hugging_face.manifests import token_environment, token_mount, token_volume
from rayline.hugging_face.types import HuggingFacePlan
from rayline.models.types import Mirror
from rayline.service.pods import from_secret

ACCOUNT = "weights-mirror"
"""ServiceAccount of all copies, the only one that may write to the bucket."""
BUCKET_ROLES = ["roles/storage.objectUser"]
SCRIPT = "mirror_model.py"
SOURCE = (pathlib.Path(__file__).parent / "in_pods" / SCRIPT).read_text()
FOLDER = "/etc/rayline/mirror"
LABELS = MANAGED_BY | {"app.kubernetes.io/component": "weights-mirror"}
# Exit status of the script where another attempt cannot succeed.
REFUSED = 2
# Four files at once with two pieces of 32 MiB each, and Python; one core hashes some hundred MB/s.
MEMORY = "1Gi"
CPUS = "1"
# 17 MiB/s, a tenth of what one connection brings on a good day, and half an hour for a node, the image and new rights.
MINUTES_AT_LEAST, MINUTES_PER_GIB = 30, 1


def minutes(mirror: Mirror) -> int:
    """Return the minutes that a copy may take, with all attempts."""
    return MINUTES_AT_LEAST + round(MINUTES_PER_GIB * mirror.weights_gib)


def config_map_name() -> str:
    """Return the ConfigMap's name. With the digest a changed script is another ConfigMap, so a running Job keeps its own."""
    return f"weights-mirror-{hashlib.sha256(SOURCE.encode()).hexdigest()[:8]}"


def job_name(mirror: Mirror) -> str:
    """Return a readable name of at most 63 characters, with a digest of model and revision."""
    readable = re.sub(r"[^a-z0-9]+", "-", mirror.folder.lower()).strip("-")[:42].rstrip("-")
    return f"mirror-{readable}-{hashlib.sha256(mirror.folder.encode()).hexdigest()[:8]}"


def mirror_prerequisites(namespace: str) -> list[dict[str, Any]]:
    """Return the manifests that all copies share: the account and the script."""
    metadata = {"namespace": namespace, "labels": LABELS}
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": ACCOUNT} | metadata,
            "automountServiceAccountToken": False,
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": config_map_name()} | metadata,
            "immutable": True,
            "data": {SCRIPT: SOURCE},
        },
    ]


def mirror_jobs(
    mirrors: Iterable[Mirror], *, bucket: str, namespace: str, hugging_face: HuggingFacePlan, on_system_pool: bool = True
) -> list[dict[str, Any]]:
    """Return the Job of each copy."""
    return [_mirror_job(mirror, bucket, namespace, hugging_face, on_system_pool) for mirror in mirrors]


def _mirror_job(
    mirror: Mirror, bucket: str, namespace: str, hugging_face: HuggingFacePlan, on_system_pool: bool
) -> dict[str, Any]:
    """Return the Job of one model and revision, on the kit's CPU pool or any node, with the image of the Ray heads."""
    options = {"model": mirror.model_id, "revision": mirror.revision, "bucket": bucket, "folder": mirror.folder}
    container: dict[str, Any] = {
        "name": "mirror",
        "image": mirror.image,
        "command": ["python", "-u", f"{FOLDER}/{SCRIPT}", *(f"--{name}={value}" for name, value in options.items())],
        "resources": {
            "requests": {"cpu": CPUS, "memory": MEMORY, "ephemeral-storage": "1Gi"},
            "limits": {"memory": MEMORY, "ephemeral-storage": "1Gi"},
        },
        "securityContext": RESTRICTED | {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "script", "mountPath": FOLDER, "readOnly": True}],
    }
    environment: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in mirror.env.items()]
    if hugging_face.secret_name:
        environment.append(from_secret("HF_TOKEN", hugging_face.secret_name, HF_TOKEN_KEY))
    volumes = [{"name": "script", "configMap": {"name": config_map_name()}}]
    if hugging_face.secret:
        environment += token_environment()
        container["volumeMounts"].append(token_mount())
        volumes.append(token_volume())
    if environment:
        container["env"] = environment
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job_name(mirror), "namespace": namespace, "labels": LABELS},
        "spec": {
            "backoffLimit": 3,
            "activeDeadlineSeconds": minutes(mirror) * 60,
            "podFailurePolicy": {
                "rules": [
                    {"action": "FailJob", "onExitCodes": {"containerName": "mirror", "operator": "In", "values": [REFUSED]}},
                    # a drained or preempted node is no failure of the copy
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                ]
            },
            "template": {
                "metadata": {"labels": LABELS},
                "spec": {
                    "restartPolicy": "Never",
                    "serviceAccountName": ACCOUNT,
                    "automountServiceAccountToken": False,
                    "priorityClassName": priority_class(namespace, Role.BATCH),
                    **({"nodeSelector": {POOL_LABEL: "system"}} if on_system_pool else {}),
                    "containers": [container],
                    "volumes": volumes,
                    "securityContext": NON_ROOT,
                },
            },
        },
    }
