"""Decide who may reach the services, what their pods may do, and how much of the cluster they may take."""

from collections.abc import Mapping, Sequence

from rayline.cluster.types import ClusterPlan
from rayline.facts import defaults
from rayline.facts.choices import ClusterMode, OperatorSource, PodSecurity
from rayline.isolation.arguments import IsolationArgs
from rayline.isolation.types import IsolationPlan, Quota
from rayline.kuberay.types import KuberayPlan
from rayline.pools.types import NodePool
from rayline.schema.check import Check
from rayline.service.addresses import outbound_ports
from rayline.service.arguments import ServiceArgs
from rayline.service.types import ServicePlan, every_model

# Kubernetes refuses PriorityClasses with the first prefix, and keeps namespaces with the second for itself.
RESERVED_PREFIXES = ("system-", "kube-")
OPERATOR_NAMESPACES = {
    OperatorSource.HELM: defaults.OPERATOR_NAMESPACE,
    OperatorSource.PREINSTALLED: defaults.OPERATOR_NAMESPACE,
    # GKE runs this operator beside the control plane, whose way into the cluster are the agents in kube-system
    OperatorSource.GKE_ADDON: "kube-system",
}


def plan_isolation(
    check: Check, args: IsolationArgs, services: Mapping[str, ServiceArgs], cluster: ClusterPlan, kuberay: KuberayPlan
) -> IsolationPlan | None:
    """Decide about the isolation of a platform; None on this machine, which has no Kubernetes."""
    if cluster.mode is ClusterMode.LOCAL:
        for key in sorted(args.model_fields_set):
            check.refuse(f"isolation.{key}", None, "this machine has no Kubernetes to do it. Fix: leave it out")
        return None
    if args.pod_security is not PodSecurity.PRIVILEGED:
        _refuse_host_paths(check, services, args.pod_security)
    operator = args.operator_namespace
    if operator and kuberay.source is not OperatorSource.PREINSTALLED:
        check.only_with("isolation.operator_namespace", operator, "kuberay.source preinstalled", kuberay.source)
    managed_prometheus = cluster.mode is ClusterMode.CREATE and cluster.args.monitoring.managed_prometheus
    collectors = defaults.GOOGLE_COLLECTOR_NAMESPACES if managed_prometheus else ()
    named = args.allow_metrics_from_namespaces
    return IsolationPlan(
        args,
        metrics_namespaces=collectors if named is None else tuple(named),
        operator_namespace=operator or OPERATOR_NAMESPACES[kuberay.source],
        metadata_server=cluster.on_google,
        managed_prometheus=managed_prometheus,
    )


def namespace_warnings(namespace: str, create: bool, isolation: IsolationPlan | None) -> list[str]:
    """Warn where rules of the whole namespace meet pods that are not the stack's."""
    if create or isolation is None:
        return []
    return [
        f"create_namespace false: network policies, quota and Pod Security Standard of `isolation` hold for everything in {namespace}"
    ]


def check_namespace(check: Check, namespace: str, create: bool, mode: ClusterMode) -> None:
    """Refuse a namespace of Kubernetes or of the operator for the services, and one that cannot exist yet."""
    if not create and mode is not ClusterMode.EXISTING:
        check.only_with("create_namespace", create, "cluster.mode existing", mode)
    if namespace.startswith(RESERVED_PREFIXES):
        check.refuse("namespace", namespace, "names with kube- and system- are Kubernetes' own. Fix: another name")
    elif namespace in ("default", defaults.OPERATOR_NAMESPACE):
        why = "the stack creates the namespace, and deletes it with everything in it"
        check.refuse("namespace", namespace, f"{why}. Fix: one of the services' own, for example {defaults.NAMESPACE}")


def _refuse_host_paths(check: Check, services: Mapping[str, ServiceArgs], standard: PodSecurity) -> None:
    for name, service in services.items():
        for index, volume in enumerate(service.pods.volumes):
            if volume.host_path:
                check.refuse(
                    f"services.{name}.pods.volumes[{index}].host_path",
                    volume.host_path,
                    f"isolation.pod_security {standard.value} forbids folders of a node. Fix: put the data on a "
                    "PersistentVolumeClaim and name it in `claim`, or pod_security privileged where that cannot be",
                )


def plan_quota(services: Sequence[ServicePlan], pools: Sequence[NodePool]) -> Quota:
    """Return the most that the namespace may hold: each worker under the highest load, and a second cluster during a rollout.

    GPUs end where the planned pools end; in an existing cluster with the services' own count. Pods count twice, because pods
    that drain for their last stream count until they are gone.
    """
    workers = {service.name: service.workers.most_workers + service.workers.workers_beside for service in services}
    heads = sum(2 if service.workers.surge_workers else 1 for service in services)
    used = sum(workers[service.name] * service.workers.gpus for service in services)
    gpus = sum(pool.max_nodes * pool.machine.gpus for pool in pools) if pools else used
    return Quota(pods=2 * (sum(workers.values()) + heads) + defaults.QUOTA_OTHER_PODS, gpus=gpus)


def ports_outside(services: Sequence[ServicePlan]) -> tuple[int, ...]:
    """Return the ports outside the cluster in the services' variables and engine arguments."""
    ports: set[int] = set()
    for model in every_model(services):
        prometheus = (model.autoscaling and model.autoscaling.prometheus) or ""
        ports |= outbound_ports({**model.env, "prometheus": prometheus}, model.engine_kwargs)
    return tuple(sorted(ports))
