"""A rehearsal: `make rehearse STACK=name` deploys any stack with a real Pulumi engine, and stand-ins for Google and Kubernetes.

Skipped unless STACK names the stack. It shows that the engine takes the program: preview, up, up again, destroy.
"""

import os
import pathlib
from collections import Counter

import pytest

from components.facts.choices import ClusterMode
from tests.conftest import recorded
from tests.engine.conftest import Life, a_life, short_life
from tests.engine.fake_provider import CRD

STACK = os.environ.get("STACK", "")

pytestmark = [
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not STACK, reason="no stack of your own is named: make rehearse STACK=name"),
]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory, stand_ins: pathlib.Path) -> Life:
    """STACK after preview, up, up again and destroy. Protection is taken away, so that it can go."""
    created = recorded(STACK).plan.cluster.mode is ClusterMode.CREATE
    unprotected = {"cluster": {"deletion_protection": False}} if created else None
    life = a_life(tmp_path_factory.mktemp("rehearsal"), STACK, stand_ins, unprotected)
    life.must("preview", "preview")
    short_life(life)
    return life


def test_the_stack_is_created_as_the_preview_announced(rehearsed: Life) -> None:
    created = Counter(step.type for step in rehearsed.custom_steps("up"))
    print(f"\n{STACK}: {created.total()} objects created")
    for kind, count in sorted(created.items()):
        print(f"  {count} x {kind}")
    announced = Counter(step.type for step in rehearsed.custom_steps("preview"))
    # A preview of a cluster that does not exist yet cannot know KubeRay's CRDs.
    assert created - announced == Counter({CRD: created[CRD] - announced[CRD]})
    assert announced - created == Counter()


def test_a_second_deployment_changes_nothing(rehearsed: Life) -> None:
    assert rehearsed.runs["up again"].code == 0, rehearsed.runs["up again"].output
    assert rehearsed.operations["up again"] == []


def test_the_destroyed_stack_leaves_nothing_but_kuberays_crds(rehearsed: Life) -> None:
    assert rehearsed.runs["destroy"].code == 0, rehearsed.runs["destroy"].output
    assert {one.type for one in rehearsed.left["destroy"]} <= {CRD}
