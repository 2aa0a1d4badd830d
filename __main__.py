"""The Pulumi program: a stack's configuration becomes one InferencePlatform."""

import os
import pathlib

import pulumi

from rayline import InferencePlatform
from rayline.facts.choices import ClusterMode
from rayline.platform.plan import make_plan
from rayline.schema.check import PlanError
from rayline_cli.offline import is_offline
from rayline_cli.settings import program_arguments

stack = pulumi.get_stack()
problems = []
try:
    arguments, problems = program_arguments()
    # where the program stands, not where it is called
    folder = pathlib.Path(__file__).parent / (arguments.get("models") or "models")
    if "models" in arguments or os.path.isdir(folder):
        arguments["models"] = str(folder)
    plan = make_plan(arguments, name=stack)
except PlanError as error:
    reported = {problem.path for problem in problems}
    problems += [problem for problem in error.problems if problem.path not in reported]
if problems:
    raise pulumi.RunError(
        f"the configuration of stack {stack} has mistakes:\n" + "\n".join(str(problem) for problem in problems)
    )
if plan.cluster.mode is ClusterMode.LOCAL and not is_offline():
    raise pulumi.RunError(f"stack {stack} runs on this machine, not in a cluster. Fix: `rayline up --stack {stack}`")

platform = InferencePlatform(stack, arguments)

pulumi.export("endpoints", platform.endpoints)
pulumi.export("urls", platform.urls)
pulumi.export("endpoint_address", platform.endpoint_address)
pulumi.export("dns_records", platform.dns_records)
pulumi.export("api_keys", platform.api_keys)
pulumi.export("cluster_name", platform.cluster_name)
pulumi.export("kubeconfig", platform.kubeconfig)
