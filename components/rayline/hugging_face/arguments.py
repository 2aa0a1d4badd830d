"""Keys of `hugging_face`."""

from typing import Annotated, Any

from rayline.facts.choices import TokenSource
from rayline.schema.base import Arguments, FromText, ObjectName, Secret


class HuggingFaceArgs(Arguments):
    """Access to gated models."""

    source: Annotated[TokenSource, FromText] = TokenSource.NONE
    """pulumi-secret (from `hugging_face_token`), existing-secret, secret-manager (a GKE cluster), or none."""
    secret: str | None = None
    """With source secret-manager: the secret, as NAME (of the cluster's project) or projects/P/secrets/NAME, with /versions/V for one version, else the latest."""
    token: Annotated[Any, Secret()] = None
    """The token, with source pulumi-secret. A stack file never holds it: `pulumi config set --secret hugging_face_token`."""
    secret_name: ObjectName | None = None
    """Name of the Kubernetes Secret; key hf_api_token. Default hf-secret."""
