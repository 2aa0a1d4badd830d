"""Decisions about the Ray heads: their size, and where they keep what another head needs to go on."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..facts import defaults
from ..facts.choices import Accelerator, ClusterMode, HeadStore, OperatorSource
from ..facts.google import MEMORYSTORE_SIZES, MEMORYSTORE_TLS_PORT
from .check import DNS_LABEL, DNS_RULE, Check
from .draft import Draft
from .types import HeadPlan, KuberayPlan

# The Secret that the kit makes for Memorystore, with password and authority.
MEMORYSTORE_SECRET = "head-store"
ADDRESS = re.compile(r"(?:(rediss?)://)?([A-Za-z0-9][-.A-Za-z0-9]*):([0-9]{1,5})")
ONLY_WITH = {
    "memorystore_gib": HeadStore.MEMORYSTORE,
    "address": HeadStore.REDIS,
    "password_secret": HeadStore.REDIS,
    "ca_secret": HeadStore.REDIS,
}


def plan_head(check: Check, given: Mapping[str, Any], mode: ClusterMode, kuberay: KuberayPlan) -> HeadPlan:
    if mode is ClusterMode.LOCAL and given:
        check.refuse("head", None, "only with a cluster: on this machine the head lives and dies with its service")
        return HeadPlan()
    store = HeadStore(given.get("store", HeadStore.NONE))
    for key, belongs_to in ONLY_WITH.items():
        if given.get(key) is not None and store is not belongs_to:
            # not shown: an address may hold a password
            check.refuse(f"head.{key}", None, f"only with head.store {belongs_to.value}, and it is {store.value}")
    sizes = HeadPlan(cpus=given.get("cpus"), memory_gib=given.get("memory_gib"))
    if store is not HeadStore.NONE and kuberay.source is OperatorSource.GKE_ADDON:
        check.refuse(
            "head.store",
            store,
            "GKE decides the add-on's KubeRay version, and high availability needs 1.3 or newer: kuberay.source helm",
        )
    if store is HeadStore.MEMORYSTORE:
        return _memorystore(check, given, mode, sizes)
    return _redis(check, given, sizes) if store is HeadStore.REDIS else sizes


def _memorystore(check: Check, given: Mapping[str, Any], mode: ClusterMode, sizes: HeadPlan) -> HeadPlan:
    size, (least, most) = given.get("memorystore_gib", defaults.MEMORYSTORE_GIB), MEMORYSTORE_SIZES
    if mode is not ClusterMode.CREATE:
        check.refuse(
            "head.store",
            HeadStore.MEMORYSTORE,
            f"only with cluster.mode create, whose network it lies in, and it is {mode.value}: redis, with an address of yours",
        )
    if not least <= size <= most:
        check.refuse("head.memorystore_gib", size, f"{least} to {most}")
    return replace(
        sizes,
        store=HeadStore.MEMORYSTORE,
        port=MEMORYSTORE_TLS_PORT,
        password_secret=MEMORYSTORE_SECRET,
        ca_secret=MEMORYSTORE_SECRET,
        memorystore_gib=size,
    )


def _redis(check: Check, given: Mapping[str, Any], sizes: HeadPlan) -> HeadPlan:
    address, found = given.get("address"), ADDRESS.fullmatch(given.get("address") or "")
    scheme, port = (found[1], int(found[3])) if found else (None, None)
    if not address:
        check.refuse(
            "head.address", None, "required with head.store redis, for example rediss://redis.example.com:6378"
        )
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
        name = given.get(key)
        if name and not DNS_LABEL.fullmatch(name):
            check.refuse(f"head.{key}", name, f"a Secret's name: {DNS_RULE}")
        elif key in needed and not name:
            check.refuse(f"head.{key}", None, f"required here, the name of a Secret: {needed[key]}")
    if given.get("ca_secret") and found and scheme != "rediss":
        check.refuse("head.ca_secret", given["ca_secret"], "only with a rediss:// address")
    return replace(
        sizes,
        store=HeadStore.REDIS,
        address=address,
        port=port,
        password_secret=given.get("password_secret"),
        ca_secret=given.get("ca_secret") if scheme == "rediss" else None,
    )


def sized(check: Check, drafts: list[Draft], head: HeadPlan) -> list[Draft]:
    """The services with the heads that the stack asks for."""
    if head.cpus is not None and head.cpus < defaults.CPU_HEAD_CPUS:
        check.refuse("head.cpus", head.cpus, f"at least {defaults.CPU_HEAD_CPUS}")
    gpus = any(draft.plan.accelerator is not Accelerator.CPU for draft in drafts)
    least = defaults.MIN_HEAD_MEMORY_GIB if gpus else defaults.CPU_HEAD_MEMORY_GIB
    if head.memory_gib is not None and head.memory_gib < least:
        check.refuse(
            "head.memory_gib",
            head.memory_gib,
            f"at least {least}: a head that runs out of memory takes its service along",
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
