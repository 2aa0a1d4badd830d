"""Google APIs of a stack, turned on in its project."""

from typing import TypedDict

import pulumi
import pulumi_gcp as gcp


class ProjectApisArgs(TypedDict):
    """APIs of one project."""

    project: str
    """Google Cloud project."""
    apis: list[str]
    """Names such as container.googleapis.com."""


class ProjectApis(pulumi.ComponentResource):
    """APIs that are turned on and never off: other resources of the project may use them when the stack is destroyed."""

    project: pulumi.Output[str]
    """The project, known once its APIs are on."""

    def __init__(self, name: str, args: ProjectApisArgs, opts: pulumi.ResourceOptions | None = None):
        super().__init__("rayline:index:ProjectApis", name, dict(args), opts)
        services = [
            gcp.projects.Service(
                f"{name}-{api.partition('.')[0]}",
                project=args["project"],
                service=api,
                disable_on_destroy=False,
                disable_dependent_services=False,
                opts=pulumi.ResourceOptions(parent=self),
            )
            for api in args["apis"]
        ]
        self.project = pulumi.Output.all(*(service.id for service in services)).apply(lambda _: args["project"])
        self.register_outputs({"project": self.project})
