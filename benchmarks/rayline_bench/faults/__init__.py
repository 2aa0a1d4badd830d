"""Faults under load: what clients see when a part of a running service is killed, replaced or taken away.

`clients` counts answers, `parts` finds and kills processes, `scenarios` joins the two, and `rayline faults` runs
them all on this machine and writes the receipt that docs/measured/faults.md shows.
"""
