"""`python -m rayline.cli`: the same as `rayline`."""

from . import main

main()
