"""Serve the components to a Pulumi engine, which starts this module for `pulumi package add`."""

import sys
from importlib import import_module
from typing import Any

import pulumi
from pulumi.errors import InputPropertiesError
from pulumi.provider import main
from pulumi.provider.experimental.component import ComponentProvider
from pulumi.provider.server import ComponentInitError

from rayline.platform.arguments import InferencePlatformArgs
from rayline.schema.pulumi_types import in_python_names


class Provider(ComponentProvider):
    """Pulumi's provider, with all arguments of InferencePlatform.

    Pulumi's own drops unknown keys, and empties a value that is no map, so that a misspelt key would have no effect.
    """

    def map_inputs(self, inputs: Any, component_def: Any) -> Any:
        """Return the arguments of a component in Python's names."""
        if component_def.name == "InferencePlatform":
            return in_python_names(InferencePlatformArgs, inputs)
        return super().map_inputs(inputs, component_def)

    def construct(self, name: str, resource_type: str, inputs: Any, options: pulumi.ResourceOptions | None = None) -> Any:
        """Create a component. A refusal of its arguments reaches the caller without a traceback."""
        try:
            return super().construct(name, resource_type, inputs, options)
        except ComponentInitError as error:
            if isinstance(error.inner, pulumi.RunError):
                raise InputPropertiesError(str(error.inner), []) from None
            raise


if __name__ == "__main__":
    package = import_module(__package__ or "rayline")
    # The package imports its components on demand, so Pulumi's own search would find none.
    components = [getattr(package, name) for name in package.__all__]
    # without a version the SDKs that Pulumi generates are confused
    main(Provider(components, "rayline", version="0.0.0"), sys.argv[1:])
