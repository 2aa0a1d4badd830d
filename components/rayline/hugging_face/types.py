"""Types of the plan of the Hugging Face token."""

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
        """Return the full name in Google's form."""
        return f"projects/{self.project}/secrets/{self.name}/versions/{self.version}"


@dataclass(frozen=True)
class HuggingFacePlan:
    """Place of the token: the Kubernetes Secret `secret_name`, Secret Manager, or none."""

    source: TokenSource
    secret_name: str | None
    secret: SecretManagerSecret | None = None
    token: Any = field(default=None, repr=False)
    """The token itself, a secret of Pulumi, with source pulumi-secret."""
