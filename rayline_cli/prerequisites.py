"""Objects that a stack names and does not make: which they are, how each is made, and which of them a cluster lacks.

They are read from the manifests that the program declares, so no key of a stack file is forgotten. Of a Secret only the names of
its keys are looked at, never a value.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rayline.facts.choices import ClusterMode, Exposure, OperatorSource, Tls
from rayline.facts.defaults import OPERATOR_NAMESPACE
from rayline.facts.google import FUSE_DRIVER
from rayline.facts.labels import STACK_LABEL
from rayline.hugging_face.manifests import DRIVER as SECRET_MANAGER_DRIVER
from rayline.isolation.manifests import OPERATOR_POD
from rayline.platform.types import Plan
from rayline.service.reading import TLS_KEYS, named_objects
from rayline.service.types import every_model

from .clients.kubernetes import Kubectl, NotSeen
from .offline import Program

RAY_SERVICES = "rayservices.ray.io"
METADATA_SERVER = "gke-metadata-server"
# API groups of the kinds that a stack may name; the core group is empty.
GROUPS = {
    "CSIDriver": "storage.k8s.io",
    "CustomResourceDefinition": "apiextensions.k8s.io",
    "DaemonSet": "apps",
    "GatewayClass": "gateway.networking.k8s.io",
    "Namespace": "",
    "PersistentVolumeClaim": "",
    "PriorityClass": "scheduling.k8s.io",
    "Secret": "",
    "ServiceAccount": "",
}
_NAMESPACED = ("DaemonSet", "PersistentVolumeClaim", "Secret", "ServiceAccount")
# How an existing GKE cluster gets what a new one of the kit has.
_UPDATE = "gcloud container clusters update CLUSTER --location LOCATION --project {project} {option}"
_OPTIONS = {
    FUSE_DRIVER: "--update-addons=GcsFuseCsiDriver=ENABLED",
    SECRET_MANAGER_DRIVER: "--enable-secret-manager",
    METADATA_SERVER: "--workload-pool={project}.svc.id.goog",
}
_GATEWAY_OPTION = "--gateway-api=standard"
# A name, then the keys: of the answer nothing else leaves kubectl.
_KEYS = '{{.metadata.name}}{{"\\n"}}{{range $key, $value := .data}}{{$key}}{{"\\n"}}{{end}}'


@dataclass(frozen=True)
class Needed:
    """An object of Kubernetes or Google that has to exist before the pods start."""

    kind: str
    name: str
    make: str
    """Command that makes it."""
    namespace: str = ""
    """Empty for an object of the whole cluster, and in Google Cloud."""
    keys: tuple[str, ...] = ()
    """Keys of a Secret."""

    def __str__(self) -> str:
        place = f" in {self.namespace}" if self.namespace else ""
        keys = f" with key {' and '.join(self.keys)}" if self.keys else ""
        return f"{self.kind} {self.name}{place}{keys}"


def needed_objects(program: Program) -> list[Needed]:
    """Return what the stack names and neither the stack nor its new cluster makes; nothing on this machine."""
    plan = program.plan
    if plan.cluster.mode is ClusterMode.LOCAL:
        return []
    # a patch sets labels on what exists
    declared = [each for each in program.resources if "kind" in each.inputs and not each.type.endswith("Patch")]
    made = {_identity(resource.inputs) for resource in declared}
    keys: dict[tuple[str, str, str], dict[str, None]] = {}
    for kind, name, namespace, named in _named(program):
        if (kind, name, namespace) not in made and not _comes_with_the_cluster(plan, kind, name):
            keys.setdefault((kind, name, namespace), {}).update(dict.fromkeys(named))
    objects = [
        Needed(kind, name, _command(plan, kind, name, namespace, tuple(named)), namespace, tuple(named))
        for (kind, name, namespace), named in keys.items()
    ]
    # a namespace before what lies in it
    return [*sorted(objects, key=lambda needed: needed.kind != "Namespace"), *_in_google(plan)]


# --- what the program names


def _identity(manifest: Mapping[str, Any]) -> tuple[str, str, str]:
    metadata = manifest.get("metadata") or {}
    return manifest["kind"], metadata.get("name", ""), metadata.get("namespace") or ""


def _named(program: Program) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    """Yield kind, name, namespace and keys of each object that the declared resources name."""
    plan = program.plan
    if not plan.create_namespace:
        yield "Namespace", plan.namespace, "", ()
    for namespace in plan.kuberay.watch_namespaces:
        yield "Namespace", namespace, "", ()
    if plan.kuberay.source is OperatorSource.PREINSTALLED:
        yield "CustomResourceDefinition", RAY_SERVICES, "", ()
    for resource in program.resources:
        if resource.type.startswith("kubernetes:") and "kind" in resource.inputs:
            namespace = (resource.inputs.get("metadata") or {}).get("namespace") or ""
            for kind, name, keys in named_objects(resource.inputs):
                yield kind, name, namespace if kind in _NAMESPACED else "", keys
    cluster = plan.cluster
    reads = plan.bucket or any(model.weights.buckets for model in every_model(plan.services))
    if cluster.on_google and (reads or cluster.secret_manager):
        # it answers pods on nodes with Workload Identity
        yield "DaemonSet", METADATA_SERVER, "kube-system", ()


def _comes_with_the_cluster(plan: Plan, kind: str, name: str) -> bool:
    """Return whether the cluster that the stack makes has the object."""
    of_gke = kind in ("CSIDriver", "DaemonSet") or (kind == "GatewayClass" and name.startswith("gke-"))
    return of_gke and plan.cluster.mode is ClusterMode.CREATE


# --- how it is made


def _command(plan: Plan, kind: str, name: str, namespace: str, keys: tuple[str, ...]) -> str:
    cluster = plan.cluster
    option = _GATEWAY_OPTION if kind == "GatewayClass" and name.startswith("gke-") else _OPTIONS.get(name)
    if option:
        return _UPDATE.format(project=cluster.project, option=option.format(project=cluster.project))
    named = {"--kubeconfig": cluster.args.kubeconfig, "--context": cluster.args.context}
    kubectl = " ".join(["kubectl", *(f"{option} {shlex.quote(value)}" for option, value in named.items() if value)])
    inside = f"{kubectl} -n {namespace}"
    if kind == "Namespace" and name in plan.kuberay.watch_namespaces and name != plan.namespace:
        return f"{kubectl} create namespace {name}, and create_namespace false in the stack whose services are there"
    if kind == "Namespace":
        return f"{kubectl} create namespace {name}"
    if kind == "CustomResourceDefinition":
        return "bring up the stack that owns the operator (its kuberay.source is helm) first, or install the operator with its Helm chart"
    if kind == "Secret" and keys == TLS_KEYS:
        return f"{inside} create secret tls {name} --cert=FILE --key=FILE"
    if kind == "Secret":
        return " ".join([f"{inside} create secret generic {name}", *(f"--from-file={key}=FILE" for key in keys)])
    if kind == "GatewayClass":
        return f"install the controller of {name}, which makes it"
    return f"{inside if namespace else kubectl} apply -f FILE, with the manifest of that {kind}"


def _in_google(plan: Plan) -> Iterator[Needed]:
    """Yield what the stack names in Google Cloud, which kubectl does not see."""
    endpoint, secret, bucket = plan.endpoint.args, plan.hugging_face.secret, plan.bucket
    if secret:
        make = f"gcloud secrets create {secret.name} --project {secret.project} --data-file=FILE"
        yield Needed("Secret Manager secret", secret.name, make)
    if bucket and not bucket.create:
        yield Needed(
            "bucket",
            f"gs://{bucket.name}",
            f"gcloud storage buckets create gs://{bucket.name} --location {plan.cluster.region} --project {plan.cluster.project}",
        )
    if endpoint.exposure is Exposure.PUBLIC and endpoint.tls is Tls.OWN and endpoint.certificate:
        make = f"gcloud certificate-manager maps create {endpoint.certificate} --project {plan.cluster.project}"
        yield Needed("Certificate Manager map", endpoint.certificate, make)


# --- what a cluster lacks


def missing(kubectl: Kubectl, program: Program, *, services: bool = True) -> list[str]:
    """Return what of it the cluster lacks, each as `what is wrong. Fix: what to do`. Without rights to look, Kubernetes finds out.

    `services` false is a deployment without pods: what lies in the namespace of the services may come later.
    """
    plan = program.plan
    seen = [
        (needed, _lack(kubectl, needed))
        for needed in needed_objects(program)
        if needed.kind in GROUPS and (services or needed.namespace != plan.namespace)
    ]
    problems = [lack for _, lack in seen if lack]
    if plan.create_namespace and any(lack and needed.namespace == plan.namespace for needed, lack in seen):
        namespace = Needed("Namespace", plan.namespace, "")
        if _lack(kubectl, namespace):
            fix = f"first `rayline up --stack {program.stack} --without-services`, which makes it"
            problems.insert(0, f"{namespace}, for the objects below, does not exist yet. Fix: {fix}")
    problems += _other_owner(kubectl, program) if plan.kuberay.source is OperatorSource.HELM else []
    problems += _not_watched(kubectl, plan) if services and plan.kuberay.source is OperatorSource.PREINSTALLED else []
    problems += _other_place(kubectl, plan) if plan.cluster.on_google else []
    return problems


def _lack(kubectl: Kubectl, needed: Needed) -> str:
    """Return what is missing of an object, and its fix; empty where it exists, and without rights to look."""
    there = replace(kubectl, namespace=needed.namespace) if needed.namespace else kubectl
    kind = ".".join(filter(None, [needed.kind.lower(), GROUPS[needed.kind]]))
    form = f"go-template={_KEYS}" if needed.kind == "Secret" else "name"
    try:
        lines = there("get", kind, needed.name, "--ignore-not-found", "-o", form).split()
    except NotSeen as error:
        unknown = "have a resource type" in str(error)
        return f"{needed} cannot exist: the cluster does not know its kind. Fix: {needed.make}" if unknown else ""
    if not lines:
        return f"{needed} does not exist. Fix: {needed.make}"
    if absent := [key for key in needed.keys if key not in lines[1:]]:
        lack = f"{needed.kind} {needed.name} in {needed.namespace} has no key {' and '.join(absent)}"
        # it adds keys and leaves the others
        return f"{lack}. Fix: {needed.make} --dry-run=client -o yaml | {needed.make.partition(' create ')[0]} apply -f -"
    return ""


def _other_owner(kubectl: Kubectl, program: Program) -> Iterator[str]:
    """Yield what is wrong where the cluster's operator is another stack's: two of them would work on the same CRDs."""
    try:
        namespaces = kubectl.get("namespaces", "-l", f"kubernetes.io/metadata.name={OPERATOR_NAMESPACE}")["items"]
    except NotSeen:
        return
    # Helm refuses an operator without the label that is not its own
    owner = namespaces[0]["metadata"].get("labels", {}).get(STACK_LABEL) if namespaces else None
    if owner not in (None, program.stack):
        fix = "kuberay.source preinstalled, and this namespace in kuberay.watch_namespaces of that stack"
        yield f"the KubeRay operator in {OPERATOR_NAMESPACE} belongs to stack {owner}. Fix: {fix}"


def _not_watched(kubectl: Kubectl, plan: Plan) -> Iterator[str]:
    """Yield what is wrong where the operator that is there does not act in the namespace: the RayService would stay untouched."""
    namespace = plan.isolation.operator_namespace if plan.isolation else OPERATOR_NAMESPACE
    selector = ",".join(f"{name}={value}" for name, value in OPERATOR_POD.items())
    try:
        pods = replace(kubectl, namespace=namespace).get("pods", "-l", selector)["items"]
    except NotSeen:
        return
    for pod in pods:
        watched = _watched(pod["spec"]["containers"][0].get("args") or [])
        if watched and plan.namespace not in watched:
            fix = f"kuberay.watch_namespaces: [{plan.namespace}] in the stack that owns it, then its `rayline up`"
            yield f"the KubeRay operator in {namespace} acts in {', '.join(watched)} alone, not in {plan.namespace}. Fix: {fix}"
            return


def _watched(arguments: Iterable[str]) -> list[str]:
    """Return the namespaces of the operator's command line (the chart's deployment.yaml); empty for all of the cluster."""
    words = " ".join(arguments).replace("=", " ").split()
    return words[words.index("--watch-namespace") + 1].split(",") if "--watch-namespace" in words else []


def _other_place(kubectl: Kubectl, plan: Plan) -> Iterator[str]:
    """Yield what is wrong where the nodes are not in the stack's project and region, as their identities and addresses would be."""
    try:
        nodes = kubectl("get", "nodes", "-o", 'jsonpath={range .items[*]}{.spec.providerID}{"\\n"}{end}').split()
    except NotSeen:
        return
    if not nodes:
        return
    scheme, _, place = nodes[0].partition("://")
    # gce://PROJECT/ZONE/INSTANCE
    project, _, zone = place.rpartition("/")[0].partition("/")
    region = zone.rpartition("-")[0]
    if scheme != "gce":
        yield f"cluster.gke true, and the cluster's nodes are not Google's ({nodes[0]}). Fix: leave cluster.gke out"
    elif project != plan.cluster.project:
        yield f"gcp:project is {plan.cluster.project}, and the cluster is in project {project}. Fix: gcp:project {project}"
    elif region != plan.cluster.region:
        yield f"gcp:region is {plan.cluster.region}, and the cluster is in {region}. Fix: gcp:region {region}"
