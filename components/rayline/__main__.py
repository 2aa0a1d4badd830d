"""Serve the components to a Pulumi engine, which starts this module for `pulumi package add`."""

from importlib import import_module

from pulumi.provider.experimental.host import component_provider_host

if __name__ == "__main__":
    package = import_module(__package__ or "rayline")
    # The package imports its components on demand, so Pulumi's own search would find none.
    component_provider_host(name="rayline", components=[getattr(package, name) for name in package.__all__])
