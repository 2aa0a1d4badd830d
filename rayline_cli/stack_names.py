"""The project's folder and the names of its stacks. Imports nothing, so that help and completion answer at once."""

import pathlib

PROJECT_ROOT = pathlib.Path(__file__).resolve().parent.parent


def stack_names(root: pathlib.Path = PROJECT_ROOT) -> list[str]:
    """Return the names of the stacks that have a file, sorted."""
    return sorted(path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in (root / "stacks").glob("Pulumi.*.yaml"))
