"""Whatever a stack says, KubeRay's CRD takes the RayService that is made of it."""

from rayline.platform.plan import make_plan
from rayline.schema.check import PlanError
from rayline.service.manifest import ray_service
from tests.contract.test_crd import mistakes, validator
from tests.unit.test_any_stack import PLATFORMS, drawn


def test_kuberay_takes_the_services_of_any_stack_that_plans():
    validator()
    taken = 0

    @drawn(300, PLATFORMS)
    def check(arguments):
        nonlocal taken
        try:
            plan = make_plan(arguments, name="any")
        except PlanError:
            return
        pools = {pool.name: pool for pool in plan.pools}
        for service in plan.services:
            manifest = ray_service(
                service,
                namespace=plan.namespace,
                hugging_face=plan.hugging_face,
                pool=pools.get(service.pool or ""),
                head=plan.head,
                store_address="redis:6379",
            )
            assert mistakes(manifest) == []
            taken += 1

    check()
    assert taken > 50
