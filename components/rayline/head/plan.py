"""Decide about the Ray heads: their size, and the Redis of their fault tolerance."""

import re
from dataclasses import replace

from rayline.cluster.types import ClusterPlan
from rayline.facts import defaults
from rayline.facts.choices import Accelerator, ClusterMode, HeadStore, OperatorSource
from rayline.facts.google import MEMORYSTORE_TLS_PORT
from rayline.head.arguments import HeadArgs
from rayline.head.types import HeadPlan
from rayline.kuberay.types import KuberayPlan
from rayline.schema.check import Check
from rayline.service.types import Draft

# Secret of the kit for Memorystore, with password and authority.
MEMORYSTORE_SECRET = "head-store"
ADDRESS = re.compile(r"(?:(rediss?)://)?([A-Za-z0-9][-.A-Za-z0-9]*):([0-9]{1,5})")
ONLY_WITH = {
    "memorystore_gib": HeadStore.MEMORYSTORE,
    "address": HeadStore.REDIS,
    "password_secret": HeadStore.REDIS,
    "ca_secret": HeadStore.REDIS,
}


def plan_head(check: Check, args: HeadArgs, cluster: ClusterPlan, kuberay: KuberayPlan) -> HeadPlan:
    """Decide about the store of the Ray heads."""
    mode = cluster.mode
    if mode is ClusterMode.LOCAL and args.model_fields_set:
        says = "only with a cluster: on this machine the head starts and ends with its service. Fix: leave it out"
        check.refuse("head", None, says)
        return HeadPlan(HeadArgs())
    store = args.store
    for key, needed in ONLY_WITH.items():
        if args.said(key) and store is not needed:
            # not shown: an address may hold a password
            check.only_with(f"head.{key}", None, f"head.store {needed.value}", store)
    if store is not HeadStore.NONE and kuberay.source is OperatorSource.GKE_ADDON:
        says = "needs KubeRay 1.3 or newer, and GKE decides the add-on's version. Fix: kuberay.source helm"
        check.refuse("head.store", store, says)
    if store is HeadStore.MEMORYSTORE:
        if not cluster.on_google:
            says = f"only with a GKE cluster, whose network it lies in, and cluster.mode is {mode.value}"
            check.refuse("head.store", store, f"{says}. Fix: redis, with the address of your Redis")
        elif mode is ClusterMode.EXISTING and not cluster.args.network.existing and not check.told("cluster.network"):
            says = "required with head.store memorystore, which lies in the cluster's network"
            check.refuse("cluster.network.existing", None, f"{says}. Fix: its network and its subnetwork")
        elif cluster.network_project not in (None, cluster.project):
            # "Networking", Connection modes: https://cloud.google.com/memorystore/docs/redis/networking
            says = "a Shared VPC reaches Memorystore through private services access alone, which the kit does not set up"
            check.refuse("head.store", store, f"{says}. Fix: redis, with the address of an instance that you made")
        return HeadPlan(args, MEMORYSTORE_TLS_PORT, MEMORYSTORE_SECRET, MEMORYSTORE_SECRET)
    return _redis(check, args) if store is HeadStore.REDIS else HeadPlan(args)


def _redis(check: Check, args: HeadArgs) -> HeadPlan:
    address = ADDRESS.fullmatch(args.address or "")
    scheme, port = (address[1], int(address[3])) if address else (None, None)
    if not args.address:
        says = "required with head.store redis. Fix: an address, for example rediss://redis.example.com:6378"
        check.refuse("head.address", None, says)
    elif port is None or not 0 < port < 65536:
        fix = "host:port, redis://host:port or rediss://host:port, without user and password: the password has its Secret"
        # not shown: it may hold a password
        check.refuse("head.address", None, f"no address of a Redis. Fix: {fix}")
    if not args.password_secret:
        says = "required: a client that can write to a head's Redis owns the service. Fix: the name of a Secret"
        check.refuse("head.password_secret", None, says)
    if scheme == "rediss" and not args.ca_secret:
        says = "required with rediss://: Ray trusts no other authority. Fix: the name of a Secret"
        check.refuse("head.ca_secret", None, says)
    elif args.ca_secret and address and scheme != "rediss":
        check.refuse("head.ca_secret", args.ca_secret, "only with a rediss:// address. Fix: leave it out")
    return HeadPlan(args, port, args.password_secret, args.ca_secret if scheme == "rediss" else None)


def sized(check: Check, drafts: list[Draft], head: HeadArgs) -> list[Draft]:
    """Return the services with the head sizes that the stack names."""
    gpus = any(draft.plan.accelerator is not Accelerator.CPU for draft in drafts)
    least = defaults.MIN_HEAD_MEMORY_GIB if gpus else defaults.CPU_HEAD_MEMORY_GIB
    if head.memory_gib is not None and head.memory_gib < least:
        says = f"a head that runs out of memory takes its service along. Fix: at least {least}"
        check.refuse("head.memory_gib", head.memory_gib, says)
    sizes = {"head_cpus": head.cpus, "head_memory_gib": head.memory_gib}
    named = {field: size for field, size in sizes.items() if size is not None}
    return [replace(draft, plan=replace(draft.plan, **named)) for draft in drafts]
