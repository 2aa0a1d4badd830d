"""Pure: what has to exist for the asked services, and a refusal of what cannot work.

`make_plan` takes the arguments of InferencePlatform (plain values) and returns node pools, worker groups, engine limits,
memory fits and costs. It creates nothing and reads nothing but the fact tables. All mistakes are reported at once.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rayline.cluster.plan import add_api, check_sizes, plan_cluster
from rayline.cluster.types import ClusterPlan
from rayline.endpoint.plan import plan_endpoint
from rayline.endpoint.types import EndpointPlan
from rayline.facts import prices
from rayline.facts.choices import Accelerator, ClusterMode, Exposure, HeadStore, OperatorSource, UpgradeStrategy, WeightsSource
from rayline.facts.google import MAX_DRAINING_SECONDS, MEMORYSTORE_API, SECRET_MANAGER_API, STORAGE_API
from rayline.head.plan import plan_head, sized
from rayline.hugging_face.plan import plan_hugging_face, token_warnings
from rayline.hugging_face.types import HuggingFacePlan
from rayline.isolation.plan import check_namespace, plan_isolation, plan_quota
from rayline.kuberay.plan import plan_kuberay
from rayline.kuberay.types import KuberayPlan
from rayline.platform.arguments import InferencePlatformArgs
from rayline.platform.types import Plan
from rayline.pools.capacity import capacity_warnings
from rayline.pools.plan import check_system_pool, finish, hourly_cost, plan_pools
from rayline.pools.types import NodePool
from rayline.schema.check import Check, PlanError, refuse_secrets
from rayline.schema.read import read
from rayline.service.environment import outbound_ports
from rayline.service.plan import plan_service
from rayline.service.scale import scale_warnings
from rayline.service.types import ServicePlan
from rayline.weights.plan import plan_bucket, plan_mirrors, source_warnings
from rayline.weights.types import BucketPlan


def make_plan(args: Mapping[str, Any] | InferencePlatformArgs, *, name: str = "") -> Plan:
    """Decide everything for the arguments of InferencePlatform, as plain values or read already.

    `name` is the platform's logical name, which the names of Google resources begin with. Raises PlanError with every mistake,
    of the arguments' shape and of what they mean.
    """
    asked, problems = (args, []) if isinstance(args, InferencePlatformArgs) else read(InferencePlatformArgs, args)
    check = Check(problems)
    if asked is None:
        raise PlanError(check.problems)
    plan = _decide(check, asked, name)
    refuse_secrets(check, asked)
    if plan is None or check.problems:
        raise PlanError(check.problems)
    return plan


def _decide(check: Check, args: InferencePlatformArgs, name: str) -> Plan | None:
    cluster = plan_cluster(check, args, name)
    hugging_face = plan_hugging_face(check, args.hugging_face, cluster)
    if hugging_face.secret and cluster.mode is ClusterMode.CREATE:
        cluster = add_api(replace(cluster, secret_manager=True), SECRET_MANAGER_API)
    bucket = plan_bucket(check, args.weights, cluster)
    kuberay = plan_kuberay(check, args.kuberay, cluster.mode)
    check_namespace(check, args.namespace)
    head = plan_head(check, args.head, cluster.mode, kuberay)
    if head.store is HeadStore.MEMORYSTORE:
        cluster = add_api(cluster, MEMORYSTORE_API)
    isolation = plan_isolation(check, args.isolation, args.services, cluster, kuberay)
    if not args.services and not check.told("services"):
        check.refuse("services", None, "name at least one, for example `qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4}`")
    if cluster.mode is ClusterMode.LOCAL and len(args.services) > 1:
        check.refuse("services", sorted(args.services), "one machine runs one service: keep one here")

    drafts = [
        draft
        for key, service in args.services.items()
        if (draft := plan_service(check, key, service, cluster, hugging_face, kuberay, bucket))
    ]
    if bucket:
        mounted = any(draft.plan.weights.source is WeightsSource.GCS_FUSE for draft in drafts)
        cluster = add_api(replace(cluster, gcs_fuse=mounted), STORAGE_API)
    drafts = sized(check, drafts, head)
    by_key = plan_pools(drafts, cluster) if cluster.mode is ClusterMode.CREATE else {}
    check_system_pool(check, drafts, cluster)
    check_sizes(check, cluster, sum(pool.max_nodes for pool in by_key.values()))
    endpoint = plan_endpoint(check, args.endpoint, args.services, cluster, name)
    for api in endpoint.apis:
        cluster = add_api(cluster, api)
    if check.problems:
        return None

    services = tuple(finish(draft, by_key) for draft in drafts)
    pools = tuple(by_key.values())
    hourly, unpriced = hourly_cost(cluster, pools)
    return Plan(
        namespace=args.namespace,
        cluster=cluster,
        kuberay=kuberay,
        hugging_face=hugging_face,
        head=head,
        endpoint=endpoint,
        isolation=isolation and replace(isolation, quota=plan_quota(services, pools), outbound_ports=_outbound_ports(services)),
        bucket=bucket,
        mirrors=plan_mirrors(bucket, services),
        pools=pools,
        services=services,
        hourly_usd=hourly,
        unpriced=unpriced,
        price_source=f"{prices.SOURCE}, {prices.PRICED_ON}",
        warnings=_warnings(cluster, kuberay, services, pools, endpoint, bucket, hugging_face),
    )


def _outbound_ports(services: tuple[ServicePlan, ...]) -> tuple[int, ...]:
    return tuple(sorted(set().union(*(outbound_ports(one.env, one.engine_kwargs) for one in services))))


def _warnings(
    cluster: ClusterPlan,
    kuberay: KuberayPlan,
    services: tuple[ServicePlan, ...],
    pools: tuple[NodePool, ...],
    endpoint: EndpointPlan,
    bucket: BucketPlan | None,
    hugging_face: HuggingFacePlan,
) -> tuple[str, ...]:
    found = capacity_warnings(services, pools) + source_warnings(cluster, services) + token_warnings(cluster, hugging_face)
    if bucket and not any(service.weights.bucket for service in services):
        found.append(
            f"weights: no service reads the bucket {bucket.name}; `weights.source` gcs-fuse or gcs-stream in a service does"
        )
    if bucket and bucket.create and not bucket.keep:
        found.append(
            f"weights: the bucket {bucket.name} and everything in it go with the stack, because cluster.deletion_protection is false"
        )
    if kuberay.source is OperatorSource.GKE_ADDON:
        found.append(
            "GKE decides the add-on's KubeRay version: authOptions and the autoscaler's version need 1.6 or newer; check with `kubectl get crd rayservices.ray.io`"
        )
    if endpoint.exposure is Exposure.PUBLIC and endpoint.rate_limit_per_minute is None:
        found.append("the public endpoint limits nobody's requests: set endpoint.rate_limit_per_minute")
    for service in services:
        if endpoint.exposure is not Exposure.NONE and service.asked.rollout.longest_stream_seconds > MAX_DRAINING_SECONDS:
            found.append(
                f"{service.name}: the load balancer leaves a stream {MAX_DRAINING_SECONDS} s at most when its pod goes, less than longest_stream_seconds {service.asked.rollout.longest_stream_seconds}"
            )
    for service in services:
        if service.machine and service.machine.name == "a4-highgpu-8g":
            found.append(
                f"{service.name}: no source shows an A4 machine that serves without its RDMA networks: try one before you count on it (docs/hardware.md)"
            )
        found += [f"{service.name}: {warning}" for warning in service.warnings]
    for pool in pools:
        here = [service for service in services if service.pool == pool.name and not service.parked]
        used = sum(service.workers.workers * service.workers.gpus for service in here)
        served = sum(service.gpus for service in here)
        total = pool.nodes * pool.machine.gpus
        if served < total:
            found.append(
                f"{pool.name}: {total - served} of {total} GPUs are paid for and serve nothing"
                f"{' (workers leave ' + str(total - used) + ' to other services)' if used < total else ''}; "
                "more replicas cost nothing, and another nodes.capacity or nodes.machine_type may be smaller"
            )
    for service in services:
        if (
            service.image == service.runtime.image
            and not service.runtime.image_confirmed
            and service.accelerator is not Accelerator.CPU
        ):
            found.append(
                f"{service.name}: nobody here has seen the tag {service.image}; check it before the first `pulumi up`, or set pods.runtime"
            )
        found += scale_warnings(service, cluster, kuberay)
        if service.upgrade is UpgradeStrategy.NONE and service.asked.rollout.ray_token_generation > 1:
            found.append(
                f"{service.name}: rollout.ray_token_generation {service.asked.rollout.ray_token_generation} with strategy none: Ray keeps its old token until the RayCluster is deleted"
            )
    return tuple(found)
