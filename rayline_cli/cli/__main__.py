"""`python -m rayline_cli.cli`: the same as `rayline`."""

from . import main

main()
