"""Decide where the Hugging Face token is."""

import re

from rayline.cluster.types import ClusterPlan
from rayline.facts.choices import ClusterMode, TokenSource
from rayline.hugging_face.arguments import HuggingFaceArgs
from rayline.hugging_face.types import HuggingFacePlan, SecretManagerSecret
from rayline.schema.check import Check

# A secret's name, alone or with its project, and a version (cloud.google.com/secret-manager/docs/reference/rest).
_SECRET = re.compile(
    r"(?:projects/(?P<project>[a-z][-a-z0-9]{4,28}[a-z0-9])/secrets/)?(?P<name>[A-Za-z0-9_-]{1,255})"
    r"(?:/versions/(?P<version>latest|[1-9][0-9]*))?"
)


def _secret_manager(check: Check, asked: HuggingFaceArgs, cluster: ClusterPlan) -> SecretManagerSecret | None:
    """The secret that hugging_face.secret names."""
    if cluster.mode is not ClusterMode.CREATE:
        check.refuse(
            "hugging_face.source",
            TokenSource.SECRET_MANAGER,
            f"the add-on and the pods' identities are those of a cluster of this kit, and cluster.mode is {cluster.mode.value}: "
            + ("$HF_TOKEN with pulumi-secret" if cluster.mode is ClusterMode.LOCAL else "existing-secret"),
        )
    if asked.secret_name:
        check.refuse(
            "hugging_face.secret_name",
            asked.secret_name,
            "a Secret of Kubernetes; with source secret-manager name the one of Secret Manager in hugging_face.secret",
        )
    text = asked.secret
    found = _SECRET.fullmatch(text or "")
    if not found:
        check.refuse(
            "hugging_face.secret",
            text,
            f"{'required with source secret-manager' if text is None else 'no name of a secret'}: NAME or projects/PROJECT/secrets/NAME, with /versions/NUMBER for a fixed version",
        )
        return None
    return SecretManagerSecret(found["project"] or cluster.project or "", found["name"], found["version"] or "latest")


def plan_hugging_face(check: Check, asked: HuggingFaceArgs, cluster: ClusterPlan) -> HuggingFacePlan:
    """Decide where the token is."""
    source = asked.source
    if source is TokenSource.SECRET_MANAGER:
        return HuggingFacePlan(source, None, _secret_manager(check, asked, cluster))
    if asked.secret:
        check.refuse(
            "hugging_face.secret", asked.secret, f"only with hugging_face.source secret-manager, and it is {source.value}"
        )
    if source is TokenSource.PULUMI_SECRET and asked.token is None and not check.told("hugging_face"):
        check.refuse(
            "hugging_face_token",
            None,
            "required with hugging_face.source pulumi-secret: `pulumi config set --secret hugging_face_token`",
        )
    if source is TokenSource.NONE and asked.secret_name:
        check.refuse(
            "hugging_face.secret_name",
            asked.secret_name,
            "it names a Secret, so hugging_face.source has to be existing-secret or pulumi-secret",
        )
    name = None if source is TokenSource.NONE else asked.secret_name or "hf-secret"
    return HuggingFacePlan(source, name, token=asked.token)


def token_warnings(cluster: ClusterPlan, hugging_face: HuggingFacePlan) -> list[str]:
    """Warn where a Secret is expected that nobody can have made before the first `up`."""
    if hugging_face.source is not TokenSource.EXISTING_SECRET or cluster.mode is not ClusterMode.CREATE:
        return []
    return [
        f"hugging_face.source existing-secret: the first `up` makes the cluster and the namespace, so make Secret "
        f"{hugging_face.secret_name} there while it waits for pods; or use pulumi-secret or secret-manager"
    ]
