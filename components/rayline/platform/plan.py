"""Decide about a whole platform, and refuse what cannot work. No Pulumi, and no I/O but the files of models.

`make_plan` returns node pools, worker groups, engine limits, memory fits and costs. It reports all mistakes at once.
"""

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rayline.cluster.plan import add_api, check_sizes, plan_cluster
from rayline.cluster.types import ClusterPlan
from rayline.endpoint.plan import endpoint_warnings, plan_endpoint
from rayline.facts import prices
from rayline.facts.choices import ClusterMode, HeadStore, WeightsSource
from rayline.facts.google import MEMORYSTORE_API, SECRET_MANAGER_API, STORAGE_API
from rayline.head.plan import plan_head, sized
from rayline.hugging_face.plan import plan_hugging_face, token_warnings
from rayline.hugging_face.types import HuggingFacePlan
from rayline.isolation.plan import check_namespace, namespace_warnings, plan_isolation, plan_quota, ports_outside
from rayline.kuberay.plan import kuberay_warnings, plan_kuberay
from rayline.kuberay.types import KuberayPlan
from rayline.models.catalog import read_models, shipped_models
from rayline.models.model import Model
from rayline.models.plan import bucket_warnings, plan_bucket, plan_mirrors, source_warnings
from rayline.models.types import BucketPlan
from rayline.platform.arguments import InferencePlatformArgs
from rayline.platform.types import Plan
from rayline.pools.capacity import capacity_warnings
from rayline.pools.plan import (
    budget_warnings,
    check_budget,
    check_system_pool,
    finish,
    hourly_cost,
    plan_pools,
    unused_warnings,
)
from rayline.schema.check import Check, PlanError, refuse_secrets
from rayline.schema.read import read
from rayline.service.plan import plan_service
from rayline.service.scale import service_warnings
from rayline.service.types import Draft, every_model


def make_plan(args: Mapping[str, Any] | InferencePlatformArgs, *, name: str = "") -> Plan:
    """Decide everything for the arguments of InferencePlatform, as plain values or read already.

    `name` is the platform's logical name, with which the names of Google resources begin. Raises PlanError with every mistake, in
    the arguments' shape and in their meaning.
    """
    read_args, problems = (args, []) if isinstance(args, InferencePlatformArgs) else read(InferencePlatformArgs, args)
    check = Check(problems)
    if read_args is None:
        raise PlanError(check.problems)
    plan = _decide(check, read_args, name)
    refuse_secrets(check, read_args)
    if plan is None or check.problems:
        raise PlanError(check.problems)
    return plan


def _decide(check: Check, args: InferencePlatformArgs, name: str) -> Plan | None:
    cluster = plan_cluster(check, args, name)
    hugging_face = plan_hugging_face(check, args.hugging_face, cluster)
    if hugging_face.secret and cluster.on_google:
        cluster = add_api(replace(cluster, secret_manager=True), SECRET_MANAGER_API)
    bucket = plan_bucket(check, args.weights, cluster)
    kuberay = plan_kuberay(check, args.kuberay, cluster.mode)
    check_namespace(check, args.namespace, args.create_namespace, cluster.mode)
    head = plan_head(check, args.head, cluster, kuberay)
    if head.args.store is HeadStore.MEMORYSTORE:
        cluster = add_api(cluster, MEMORYSTORE_API)
    isolation = plan_isolation(check, args.isolation, args.services, cluster, kuberay)
    drafts = _services(check, args, cluster, hugging_face, kuberay, bucket)
    read = [model.weights for model in every_model(draft.plan for draft in drafts) if model.weights.buckets]
    if bucket or (read and cluster.on_google):
        mounted = any(weights.source is WeightsSource.GCS_FUSE for weights in read)
        cluster = add_api(replace(cluster, gcs_fuse=mounted), STORAGE_API)
    drafts = sized(check, drafts, head.args)
    by_key = plan_pools(drafts, cluster) if cluster.mode is ClusterMode.CREATE else {}
    check_system_pool(check, drafts, cluster)
    check_budget(check, args.budget, cluster, by_key.values())
    check_sizes(check, cluster, sum(pool.max_nodes for pool in by_key.values()))
    endpoint = plan_endpoint(check, args.endpoint, args.services, cluster, name)
    for api in endpoint.apis:
        cluster = add_api(cluster, api)
    if check.problems:
        return None

    services = tuple(finish(draft, by_key) for draft in drafts)
    pools = tuple(by_key.values())
    if isolation:
        isolation = replace(isolation, quota=plan_quota(services, pools), outbound_ports=ports_outside(services))
    hourly, unpriced = hourly_cost(cluster, pools)
    plan = Plan(
        namespace=args.namespace,
        create_namespace=args.create_namespace,
        cluster=cluster,
        kuberay=kuberay,
        hugging_face=hugging_face,
        head=head,
        endpoint=endpoint,
        isolation=isolation,
        bucket=bucket,
        mirrors=plan_mirrors(bucket, services),
        pools=pools,
        services=services,
        hourly_usd=hourly,
        highest_hourly_usd=hourly_cost(cluster, pools, under_load=True)[0],
        unpriced=unpriced,
        price_source=f"{prices.SOURCE}, {prices.PRICED_ON}",
    )
    return replace(plan, warnings=(*_warnings(plan), *budget_warnings(args.budget, unpriced)))


def _services(
    check: Check,
    args: InferencePlatformArgs,
    cluster: ClusterPlan,
    hugging_face: HuggingFacePlan,
    kuberay: KuberayPlan,
    bucket: BucketPlan | None,
) -> list[Draft]:
    if not args.services and not check.told("services"):
        check.refuse(
            "services", None, "empty. Fix: at least one, for example `qwen: {model: Qwen/Qwen3.5-4B, accelerator: l4}`"
        )
    if cluster.mode is ClusterMode.LOCAL and len(args.services) > 1:
        check.refuse("services", sorted(args.services), "one machine runs one service. Fix: keep one")
    models = _models(check, args)
    _check_names(check, args)
    drafts = [
        plan_service(check, name, service, cluster, hugging_face, kuberay, bucket, models)
        for name, service in args.services.items()
    ]
    return [draft for draft in drafts if draft]


def _check_names(check: Check, args: InferencePlatformArgs) -> None:
    """Refuse further models whose Secrets would have the names of others: SERVICE-NAME is the beginning of both."""
    taken = {name: f"services.{name}" for name in args.services}
    for name, service in args.services.items():
        for application in service.applications:
            path = f"services.{name}.applications.{application}"
            other = taken.setdefault(f"{name}-{application}", path)
            if other != path:
                check.refuse(path, None, f"{other} has Secrets of the same names. Fix: another name")


def _models(check: Check, args: InferencePlatformArgs) -> Mapping[str, Model]:
    # of a name that is too long, too
    if args.models and not os.path.isdir(args.models):
        check.refuse(
            "models", args.models, "no such folder. Fix: the folder with files of `rayline model add`, or leave it out"
        )
    try:
        return read_models(args.models)
    except PlanError as error:
        check.problems += error.problems
        return shipped_models()


def _warnings(plan: Plan) -> tuple[str, ...]:
    """Return what is allowed and may surprise, from each room."""
    return (
        *capacity_warnings(plan.services, plan.pools),
        *unused_warnings(plan.services, plan.pools),
        *source_warnings(plan.cluster, plan.services),
        *bucket_warnings(plan.bucket, plan.services),
        *token_warnings(plan.cluster, plan.hugging_face),
        *kuberay_warnings(plan.kuberay),
        *namespace_warnings(plan.namespace, plan.create_namespace, plan.isolation),
        *endpoint_warnings(plan.endpoint, plan.services),
        *(warning for service in plan.services for warning in service_warnings(service, plan.cluster, plan.kuberay)),
    )
