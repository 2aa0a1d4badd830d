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


def plan_hugging_face(check: Check, args: HuggingFaceArgs, cluster: ClusterPlan) -> HuggingFacePlan:
    """Decide where the token is."""
    source = args.source
    if source is TokenSource.SECRET_MANAGER:
        return HuggingFacePlan(source, None, _secret_manager(check, args, cluster))
    if args.secret:
        check.only_with("hugging_face.secret", args.secret, "hugging_face.source secret-manager", source)
    if source is TokenSource.PULUMI_SECRET and args.token is None and not check.told("hugging_face"):
        fix = "`pulumi config set --secret hugging_face_token`"
        check.refuse("hugging_face_token", None, f"required with hugging_face.source pulumi-secret. Fix: {fix}")
    if source is TokenSource.NONE and args.secret_name:
        says = "names a Secret, and hugging_face.source is none. Fix: existing-secret or pulumi-secret"
        check.refuse("hugging_face.secret_name", args.secret_name, says)
    name = None if source is TokenSource.NONE else args.secret_name or "hf-secret"
    return HuggingFacePlan(source, name, token=args.token)


def _secret_manager(check: Check, args: HuggingFaceArgs, cluster: ClusterPlan) -> SecretManagerSecret | None:
    if not cluster.on_google:
        local = cluster.mode is ClusterMode.LOCAL
        fix = "$HF_TOKEN with pulumi-secret" if local else "existing-secret, or cluster.gke true where it is a GKE cluster"
        says = f"the add-on and the pods' identities are GKE's, and cluster.mode is {cluster.mode.value}"
        check.refuse("hugging_face.source", args.source, f"{says}. Fix: {fix}")
    if args.secret_name:
        says = "a Secret of Kubernetes. Fix: with source secret-manager name Secret Manager's in hugging_face.secret"
        check.refuse("hugging_face.secret_name", args.secret_name, says)
    secret = _SECRET.fullmatch(args.secret or "")
    if not secret:
        says = "required with source secret-manager" if args.secret is None else "no name of a secret"
        fix = "NAME or projects/PROJECT/secrets/NAME, with /versions/NUMBER for a fixed version"
        check.refuse("hugging_face.secret", args.secret, f"{says}. Fix: {fix}")
        return None
    return SecretManagerSecret(secret["project"] or cluster.project or "", secret["name"], secret["version"] or "latest")


def token_warnings(cluster: ClusterPlan, hugging_face: HuggingFacePlan) -> list[str]:
    """Warn of a Secret that cannot exist before the first `up`."""
    if hugging_face.source is not TokenSource.EXISTING_SECRET or cluster.mode is not ClusterMode.CREATE:
        return []
    return [
        f"hugging_face.source existing-secret: the first `up` creates the cluster and the namespace, so create Secret "
        f"{hugging_face.secret_name} there while it waits for pods; or use pulumi-secret or secret-manager"
    ]
