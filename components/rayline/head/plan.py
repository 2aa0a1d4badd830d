"""Decisions about the Ray heads: their size, and where they keep what another head needs to go on."""

import re
from dataclasses import replace

from rayline.facts import defaults
from rayline.facts.choices import Accelerator, ClusterMode, HeadStore, OperatorSource
from rayline.facts.google import MEMORYSTORE_TLS_PORT
from rayline.head.arguments import HeadArgs
from rayline.head.types import HeadPlan
from rayline.kuberay.types import KuberayPlan
from rayline.schema.check import Check
from rayline.service.types import Draft

# The Secret that the kit makes for Memorystore, with password and authority.
MEMORYSTORE_SECRET = "head-store"
ADDRESS = re.compile(r"(?:(rediss?)://)?([A-Za-z0-9][-.A-Za-z0-9]*):([0-9]{1,5})")
ONLY_WITH = {
    "memorystore_gib": HeadStore.MEMORYSTORE,
    "address": HeadStore.REDIS,
    "password_secret": HeadStore.REDIS,
    "ca_secret": HeadStore.REDIS,
}


def plan_head(check: Check, asked: HeadArgs, mode: ClusterMode, kuberay: KuberayPlan) -> HeadPlan:
    """Decide where the Ray heads keep their state."""
    if mode is ClusterMode.LOCAL and asked.model_fields_set:
        check.refuse("head", None, "only with a cluster: on this machine the head lives and dies with its service")
        return HeadPlan()
    store = asked.store
    for key, belongs_to in ONLY_WITH.items():
        if asked.said(key) and store is not belongs_to:
            # not shown: an address may hold a password
            check.refuse(f"head.{key}", None, f"only with head.store {belongs_to.value}, and it is {store.value}")
    sizes = HeadPlan(cpus=asked.cpus, memory_gib=asked.memory_gib)
    if store is not HeadStore.NONE and kuberay.source is OperatorSource.GKE_ADDON:
        check.refuse(
            "head.store",
            store,
            "GKE decides the add-on's KubeRay version, and high availability needs 1.3 or newer: kuberay.source helm",
        )
    if store is HeadStore.MEMORYSTORE:
        return _memorystore(check, asked, mode, sizes)
    return _redis(check, asked, sizes) if store is HeadStore.REDIS else sizes


def _memorystore(check: Check, asked: HeadArgs, mode: ClusterMode, sizes: HeadPlan) -> HeadPlan:
    if mode is not ClusterMode.CREATE:
        check.refuse(
            "head.store",
            HeadStore.MEMORYSTORE,
            f"only with cluster.mode create, whose network it lies in, and it is {mode.value}: redis, with an address of yours",
        )
    return replace(
        sizes,
        store=HeadStore.MEMORYSTORE,
        port=MEMORYSTORE_TLS_PORT,
        password_secret=MEMORYSTORE_SECRET,
        ca_secret=MEMORYSTORE_SECRET,
        memorystore_gib=asked.memorystore_gib,
    )


def _redis(check: Check, asked: HeadArgs, sizes: HeadPlan) -> HeadPlan:
    address, found = asked.address, ADDRESS.fullmatch(asked.address or "")
    scheme, port = (found[1], int(found[3])) if found else (None, None)
    if not address:
        check.refuse("head.address", None, "required with head.store redis, for example rediss://redis.example.com:6378")
    elif port is None or not 0 < port < 65536:
        # not shown: it may hold a password
        check.refuse(
            "head.address",
            None,
            "host:port, redis://host:port or rediss://host:port, without user and password: the password has its Secret",
        )
    needed = {"password_secret": "whoever can write to a head's Redis owns the service"}
    if scheme == "rediss":
        needed["ca_secret"] = "Ray trusts no authority that it is not given"
    for key in ("password_secret", "ca_secret"):
        if key in needed and not getattr(asked, key):
            check.refuse(f"head.{key}", None, f"required here, the name of a Secret: {needed[key]}")
    if asked.ca_secret and found and scheme != "rediss":
        check.refuse("head.ca_secret", asked.ca_secret, "only with a rediss:// address")
    return replace(
        sizes,
        store=HeadStore.REDIS,
        address=address,
        port=port,
        password_secret=asked.password_secret,
        ca_secret=asked.ca_secret if scheme == "rediss" else None,
    )


def sized(check: Check, drafts: list[Draft], head: HeadPlan) -> list[Draft]:
    """The services with the heads that the stack asks for."""
    gpus = any(draft.plan.accelerator is not Accelerator.CPU for draft in drafts)
    least = defaults.MIN_HEAD_MEMORY_GIB if gpus else defaults.CPU_HEAD_MEMORY_GIB
    if head.memory_gib is not None and head.memory_gib < least:
        check.refuse(
            "head.memory_gib", head.memory_gib, f"at least {least}: a head that runs out of memory takes its service along"
        )
    return [
        replace(
            draft,
            plan=replace(
                draft.plan,
                head_cpus=draft.plan.head_cpus if head.cpus is None else head.cpus,
                head_memory_gib=draft.plan.head_memory_gib if head.memory_gib is None else head.memory_gib,
            ),
        )
        for draft in drafts
    ]
