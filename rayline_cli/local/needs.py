"""Packages that a service on this machine needs: those of the extra `local`."""

from importlib.util import find_spec

from rayline_cli.errors import FailedError


class NotInstalledError(FailedError):
    """Packages of the extra `local` are missing."""


def check_installed() -> None:
    """Raise NotInstalledError, which names the missing packages and the fix, where one is missing."""
    missing = [name for name in ("ray", "vllm", "torch", "transformers") if find_spec(name) is None]
    if missing:
        raise NotInstalledError(
            f"a service on this machine needs packages that are not installed: {', '.join(missing)}. "
            "Fix: `make .venv/bin/.installed-all`, or install the project's extra: pip install -e '.[local]'"
        )
