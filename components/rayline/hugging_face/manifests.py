"""Manifests that mount a Hugging Face token from Secret Manager as a file. No Pulumi, no I/O.

GKE's add-on mounts the secret with the pod's own identity; no Kubernetes Secret holds it, and no environment.
"""

from typing import Any

from rayline.hugging_face.types import SecretManagerSecret

# The add-on's own names. The open-source driver's (secrets-store.csi.k8s.io, provider gcp) look alike and do not work here
# (cloud.google.com/secret-manager/docs/secret-manager-managed-csi-component).
DRIVER = "secrets-store-gke.csi.k8s.io"
PROVIDER = "gke"

PROVIDER_CLASS = "hugging-face-token"
VOLUME_NAME = "hugging-face-token"
FOLDER = "/etc/rayline/hugging-face"
FILE = "token"


def secret_provider_class(secret: SecretManagerSecret, namespace: str) -> dict[str, Any]:
    """Return the SecretProviderClass of all services of the namespace."""
    return {
        "apiVersion": "secrets-store.csi.x-k8s.io/v1",
        "kind": "SecretProviderClass",
        "metadata": {"name": PROVIDER_CLASS, "namespace": namespace},
        "spec": {
            "provider": PROVIDER,
            # a text with YAML in it, which the provider reads
            "parameters": {"secrets": f'- resourceName: "{secret.version_name}"\n  path: "{FILE}"\n'},
        },
    }


def token_volume() -> dict[str, Any]:
    """Return the volume of the token."""
    return {
        "name": VOLUME_NAME,
        "csi": {"driver": DRIVER, "readOnly": True, "volumeAttributes": {"secretProviderClass": PROVIDER_CLASS}},
    }


def token_mount() -> dict[str, Any]:
    """Return the mount of the volume."""
    return {"name": VOLUME_NAME, "mountPath": FOLDER, "readOnly": True}


def token_environment() -> list[dict[str, str]]:
    """Return the variable with the token's file (huggingface_hub/constants.py, HF_TOKEN_PATH)."""
    return [{"name": "HF_TOKEN_PATH", "value": f"{FOLDER}/{FILE}"}]
