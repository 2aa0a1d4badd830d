"""Names of Google's resources fit their limits with every stack name that the plan takes."""

import contextlib
import itertools
import re

import pytest

from rayline.facts.accelerators import ACCELERATORS
from rayline.facts.choices import Capacity
from rayline.facts.names import COMPUTE, GKE, PLATFORM, fitted
from rayline.platform.plan import make_plan
from rayline.schema.check import PlanError

LONGEST = ("production-of-the-platform-team-in-europe-west4" * 2)[:PLATFORM].rstrip("-").ljust(PLATFORM, "a")
RESERVATION = "projects/another-project/reservations/my-reservation"
OPTIONS = (
    {},
    {"zones": ["us-central1-b"]},
    {"max_run_hours": 24},
    {"secondary_boot_disk": "projects/my-project/global/images/ray-llm"},
    {"reservation": RESERVATION},
    {"zones": ["us-central1-b"], "max_run_hours": 24, "secondary_boot_disk": "projects/my-project/global/images/i"},
)


def pool_names() -> set[str]:
    """Names of the pools of every card, machine, capacity and option that can be had."""
    found = set()
    for (card, spec), capacity, options in itertools.product(ACCELERATORS.items(), Capacity, OPTIONS):
        for machine in spec.machines:
            nodes = {"machine_type": machine.name, "capacity": capacity, "zones": ["us-central1-b"]} | options
            if capacity is Capacity.RESERVATION:
                nodes["reservation"] = RESERVATION
            arguments = {
                "project": "my-project",
                "region": "us-central1",
                "cluster": {"mode": "create"},
                "services": {"a": {"model": "Qwen/Qwen3.5-0.8B", "accelerator": card, "nodes": nodes}},
            }
            # what cannot be had has no pool
            with contextlib.suppress(PlanError):
                pools = make_plan(arguments, name=LONGEST).pools
                found |= {pool.name for pool in pools if pool.capacity is not Capacity.LADDER}
    return found


def test_every_node_pool_has_a_name_that_gke_takes_under_the_longest_stack_name():
    pools = pool_names()
    assert len(pools) > 100
    names = {pool: fitted(LONGEST, GKE, tail=pool) for pool in pools}
    assert len(set(names.values())) == len(pools)
    for pool, name in names.items():
        assert len(name) <= GKE
        assert re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name)
        # what `rayline plan` and the nodes' label say is in it, whole
        assert f"-{pool}-" in name


def test_the_name_of_a_stack_that_fits_is_left_as_it_is():
    assert fitted("prod-b200", GKE, tail="cluster") == "prod-b200-cluster"
    assert fitted("prod-gemma", GKE, tail="g2-standard-8-spot") == "prod-gemma-g2-standard-8-spot"


def test_a_name_that_is_cut_is_the_same_every_time_and_no_other_stacks():
    first, second = (fitted(f"{LONGEST[:-1]}{end}", GKE, tail="cluster") for end in "xy")
    assert first == fitted(f"{LONGEST[:-1]}x", GKE, tail="cluster")
    assert first != second
    assert len(first) == len(second) == GKE


@pytest.mark.parametrize("domain", ["llm.example.com", f"{'a' * 60}.example.com", f"{'a' * 60}.example.org"])
def test_a_certificate_of_a_long_domain_has_a_name_of_its_own(domain):
    arguments = {
        "project": "my-project", "region": "us-central1", "cluster": {"mode": "create"},
        "services": {"a": {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4"}},
    }  # fmt: skip
    names = {
        make_plan(arguments | {"endpoint": {"exposure": "internal", "domain": one}}, name=LONGEST).endpoint.certificate_name
        for one in (domain, f"a.{domain}")
    }
    assert len(names) == 2
    assert all(len(name) <= COMPUTE for name in names)


def test_a_domain_whose_services_have_no_valid_name_is_refused():
    domain = ".".join(["a" * 62] * 4)
    arguments = {
        "project": "my-project", "region": "us-central1", "cluster": {"mode": "create"},
        "services": {"a-service": {"model": "Qwen/Qwen3.5-4B", "accelerator": "l4"}},
        "endpoint": {"exposure": "internal", "domain": domain},
    }  # fmt: skip
    with pytest.raises(PlanError, match=r"services\.a-service\.api\.hostname .*at most 253 characters"):
        make_plan(arguments)
