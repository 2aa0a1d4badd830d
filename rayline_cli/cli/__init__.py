"""The command line: one module for each command, all of them cheap to import."""

from rayline_cli.signals import terminable

# Importing a module registers its command. What a command needs beyond options and messages, it imports when it runs.
from . import advise, common, down, key, logs, model, permissions, plan, render, status, up, verify
from .common import app

__all__ = [
    "advise",
    "app",
    "common",
    "down",
    "key",
    "logs",
    "main",
    "model",
    "permissions",
    "plan",
    "render",
    "status",
    "up",
    "verify",
]


def main() -> None:
    """Run the `rayline` command."""
    with terminable():
        app()
