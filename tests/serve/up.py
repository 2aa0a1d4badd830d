"""`up` as a program of its own, to be interrupted: python -m tests.serve.up MANIFEST STATE_DIR, with $SERVE_TEST_SECRETS."""

import json
import os
import pathlib
import sys

import yaml

from rayline_cli.local import runtime
from rayline_cli.progress import PlainReport
from rayline_cli.signals import terminable


def main(manifest: str, state_dir: str) -> int:
    secrets = {(name, key): value for name, key, value in json.loads(os.environ["SERVE_TEST_SECRETS"])}
    try:
        with terminable():
            service = yaml.safe_load(pathlib.Path(manifest).read_text())
            runtime.up(service, state_dir=pathlib.Path(state_dir), secrets=secrets, report=PlainReport())
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
