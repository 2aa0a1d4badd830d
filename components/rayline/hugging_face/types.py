"""Where the Hugging Face token is."""

from dataclasses import dataclass, field
from typing import Any

from rayline.facts.choices import TokenSource


@dataclass(frozen=True)
class SecretManagerSecret:
    """A version of a secret in Secret Manager."""

    project: str
    name: str
    version: str

    @property
    def version_name(self) -> str:
        """Its full name in Google's form."""
        return f"projects/{self.project}/secrets/{self.name}/versions/{self.version}"


@dataclass(frozen=True)
class HuggingFacePlan:
    """Where the token is: in the Kubernetes Secret `secret_name`, in Secret Manager, or nowhere."""

    source: TokenSource
    secret_name: str | None
    secret: SecretManagerSecret | None = None
    token: Any = field(default=None, repr=False)
    """The token itself, a secret of Pulumi, with source pulumi-secret."""
