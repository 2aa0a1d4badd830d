"""Who may reach the services, what their pods may do, and how much of the cluster they may take."""

from collections.abc import Mapping, Sequence

from rayline.cluster.types import ClusterPlan
from rayline.facts import defaults
from rayline.facts.choices import ClusterMode, OperatorSource, PodSecurity
from rayline.isolation.arguments import IsolationArgs
from rayline.isolation.types import IsolationPlan, Quota
from rayline.kuberay.types import KuberayPlan
from rayline.pools.types import NodePool
from rayline.schema.check import Check
from rayline.service.arguments import ServiceArgs
from rayline.service.types import ServicePlan

# Kubernetes refuses PriorityClasses whose name begins with the first, and keeps namespaces with the second for itself.
RESERVED_PREFIXES = ("system-", "kube-")


def plan_isolation(
    check: Check, asked: IsolationArgs, services: Mapping[str, ServiceArgs], cluster: ClusterPlan, kuberay: KuberayPlan
) -> IsolationPlan | None:
    """What keeps a platform apart from its neighbours; None on this machine, which has no Kubernetes to do it."""
    if cluster.mode is ClusterMode.LOCAL:
        for key in sorted(asked.model_fields_set):
            check.refuse(f"isolation.{key}", None, "there is no Kubernetes on this machine to do it: leave it out")
        return None
    if asked.pod_security is not PodSecurity.PRIVILEGED:
        _refuse_host_paths(check, services, asked.pod_security)
    operator = asked.operator_namespace
    if operator and kuberay.source is not OperatorSource.PREINSTALLED:
        check.refuse(
            "isolation.operator_namespace",
            operator,
            f"only with kuberay.source preinstalled, and it is {kuberay.source.value}: leave it out",
        )
    on_google = cluster.mode is ClusterMode.CREATE
    collected = on_google and cluster.args.monitoring.managed_prometheus
    metrics = asked.allow_metrics_from_namespaces
    if metrics is None:
        metrics = defaults.GOOGLE_COLLECTOR_NAMESPACES if collected else ()
    return IsolationPlan(
        pod_security=asked.pod_security,
        network_policies=asked.network_policies,
        allow_from_namespaces=tuple(asked.allow_from_namespaces),
        allow_metrics_from_namespaces=tuple(metrics),
        operator_namespace=operator or _OPERATOR_NAMESPACES[kuberay.source],
        metadata_server=on_google,
        managed_prometheus=collected,
    )


_OPERATOR_NAMESPACES = {
    OperatorSource.HELM: defaults.OPERATOR_NAMESPACE,
    OperatorSource.PREINSTALLED: defaults.OPERATOR_NAMESPACE,
    # GKE runs this operator beside the control plane, whose way into the cluster are the agents in kube-system
    OperatorSource.GKE_ADDON: "kube-system",
}


def check_namespace(check: Check, namespace: str) -> None:
    """The namespace is a valid one that is not Kubernetes' own."""
    if namespace.startswith(RESERVED_PREFIXES):
        check.refuse("namespace", namespace, "names with kube- and system- are Kubernetes' own: another one")
    elif namespace in ("default", defaults.OPERATOR_NAMESPACE):
        check.refuse(
            "namespace",
            namespace,
            f"one of the services' own, for example {defaults.NAMESPACE}: the stack makes it, and deletes it with all that is in it",
        )


def _refuse_host_paths(check: Check, services: Mapping[str, ServiceArgs], standard: PodSecurity) -> None:
    for name, service in services.items():
        for index, volume in enumerate(service.pods.volumes):
            if volume.host_path:
                check.refuse(
                    f"services.{name}.pods.volumes[{index}].host_path",
                    volume.host_path,
                    f"isolation.pod_security {standard.value} forbids folders of a node: put the data on a "
                    "PersistentVolumeClaim and say `claim`, or pod_security privileged where that cannot be",
                )


def plan_quota(services: Sequence[ServicePlan], pools: Sequence[NodePool]) -> Quota:
    """The most that the namespace may hold: every worker under the highest load, and a second cluster while a change goes on.

    GPUs end where the planned pools end; in a cluster that exists, with what the services can use. Pods count twice, because
    those that drain for their last stream count until they are gone.
    """
    workers = {s.name: s.workers.most_workers + s.workers.surge_workers for s in services}
    heads = sum(2 if s.workers.surge_workers else 1 for s in services)
    gpus = (
        sum(pool.max_nodes * pool.machine.gpus for pool in pools)
        if pools
        else sum(workers[s.name] * s.workers.gpus for s in services)
    )
    return Quota(pods=2 * (sum(workers.values()) + heads) + defaults.QUOTA_OTHER_PODS, gpus=gpus)
